//! A tensor of the file for each of the model's.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use plugin_api::services::{fits, fitting};
use regex::Regex;

use super::error::{Mismatch, WeightsError};
use super::options::{InitFrom, InitFromTable};
use super::report::advice;
use super::{InitialWeights, ModelTensor, Skipped};
use crate::weights_file::{StoredTensor, WeightsFile, dtype_name};

/// A counter of a batch norm that only counts; state dicts of before PyTorch 0.4.1 have none.
const COUNTER: &str = "num_batches_tracked";

impl InitialWeights {
    /// Opens the file and matches its names with those of the model's `tensors`. Copies nothing yet.
    ///
    /// # Errors
    ///
    /// See [`WeightsError`].
    pub fn read(options: &InitFrom, tensors: &[ModelTensor<'_>]) -> Result<Self, WeightsError> {
        let options = options.table();
        let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name).collect();
        check_skip(&options.skip, &names)?;
        let renames = patterns(&options.rename)?;
        let file = WeightsFile::open(&options.path)?;
        let renamed = Renamed::of(&file, &options, &renames)?;

        let (mut matched, mut missing, mut skipped, mut mismatches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut used: BTreeSet<&str> = BTreeSet::new();
        for ModelTensor { name, shape, kind, is_adapter } in tensors {
            let own = renamed.own.get(*name).copied();
            let stored = own.and_then(|own| file.tensors.get(own));
            let differs = |stored: &&StoredTensor| !is_shape(&stored.shape, shape);
            let skip = options.skip.iter().any(|pattern| fits(pattern, name));
            used.extend(own);
            match (own, stored) {
                _ if skip => {
                    let shapes = stored.filter(differs).map(|stored| (stored.shape.clone(), shape.clone()));
                    skipped.push(Skipped { name: (*name).to_owned(), shapes });
                }
                (_, Some(stored)) if differs(&stored) => mismatches.push(Mismatch {
                    name: (*name).to_owned(),
                    expected: shape.clone(),
                    found: stored.shape.clone(),
                }),
                (_, Some(stored)) if !stored.becomes(*kind) => {
                    return Err(WeightsError::Dtype {
                        path: options.path,
                        name: (*name).to_owned(),
                        expected: dtype_name(*kind),
                        found: stored.dtype.name(),
                    });
                }
                (Some(own), Some(_)) => matched.push(((*name).to_owned(), own.to_owned())),
                _ if *is_adapter || name.rsplit('.').next() == Some(COUNTER) => {}
                _ => missing.push((*name).to_owned()),
            }
        }
        let path = options.path;
        if !mismatches.is_empty() {
            return Err(WeightsError::Shapes { path, mismatches });
        }
        let unused = renamed.unused(&file, &used);
        if matched.is_empty() {
            let found: Vec<String> = renamed.own.keys().cloned().collect();
            let expected: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let advice = advice(&expected, &found);
            return Err(WeightsError::NothingMatches { path, expected, found, advice });
        }
        if options.strict && !(missing.is_empty() && unused.is_empty()) {
            let advice = advice(&missing, &unused);
            return Err(WeightsError::Strict { path, missing, unused, advice });
        }
        let without_prefix = (options.prefix, renamed.without_prefix);
        Ok(Self { file, matched, missing, unused, skipped, without_prefix })
    }
}

/// Refuses a pattern that fits no tensor of the model.
fn check_skip(skip: &[String], names: &[&str]) -> Result<(), WeightsError> {
    for (index, pattern) in skip.iter().enumerate() {
        if let Err(refusal) = fitting("tensor", std::slice::from_ref(pattern), names) {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            return Err(WeightsError::Skip { index, message: refusal.message, names });
        }
    }
    Ok(())
}

/// The regular expressions of `rename`, each with what takes the place of what it finds.
fn patterns(rename: &[(String, String)]) -> Result<Vec<(Regex, &str)>, WeightsError> {
    let compiled = rename.iter().map(|(pattern, replacement)| match Regex::new(pattern) {
        Ok(regex) => Ok((regex, replacement.as_str())),
        Err(error) => {
            // The lines before the last one show the pattern.
            let text = error.to_string();
            let problem = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Err(WeightsError::Pattern { pattern: pattern.clone(), problem })
        }
    });
    compiled.collect()
}

/// The names of a file after `prefix` and `rename`.
struct Renamed<'f> {
    /// The file's own name of each.
    own: BTreeMap<String, &'f str>,
    /// How many do not have the prefix.
    without_prefix: usize,
}

impl<'f> Renamed<'f> {
    fn of(file: &'f WeightsFile, options: &InitFromTable, renames: &[(Regex, &str)]) -> Result<Self, WeightsError> {
        let path = || options.path.clone();
        let mut own = BTreeMap::new();
        let mut without_prefix = 0;
        let mut has_renamed = vec![false; renames.len()];
        for name in file.tensors.keys() {
            let Some(rest) = name.strip_prefix(&options.prefix) else {
                without_prefix += 1;
                continue;
            };
            let mut renamed = rest.to_owned();
            for ((regex, replacement), has_renamed) in renames.iter().zip(&mut has_renamed) {
                if regex.is_match(&renamed) {
                    *has_renamed = true;
                    renamed = regex.replace_all(&renamed, *replacement).into_owned();
                }
            }
            if let Some(first) = own.insert(renamed.clone(), name.as_str()) {
                let (first, second) = (first.to_owned(), name.clone());
                return Err(WeightsError::Collision { path: path(), first, second, name: renamed });
            }
        }
        let found = || file.tensors.keys().cloned().collect();
        if own.is_empty() && without_prefix > 0 {
            return Err(WeightsError::Prefix { path: path(), prefix: options.prefix.clone(), found: found() });
        }
        let idle = options.rename.iter().zip(has_renamed).find(|(_, has_renamed)| !has_renamed);
        if let Some(((pattern, _), _)) = idle {
            let found = own.values().map(|name| (*name).to_owned()).collect();
            return Err(WeightsError::RenamesNothing { path: path(), pattern: pattern.clone(), found });
        }
        Ok(Self { own, without_prefix })
    }

    /// The names of the file that the model does not use. One of several names of a tensor that is used is not among
    /// them.
    fn unused(&self, file: &WeightsFile, used: &BTreeSet<&str>) -> Vec<String> {
        let of_used: HashSet<_> =
            used.iter().filter_map(|own| file.tensors.get(*own)).map(StoredTensor::place).collect();
        let is_tied = |own: &str| file.tensors.get(own).is_some_and(|tensor| of_used.contains(&tensor.place()));
        let unused = self.own.iter().filter(|(_, own)| !used.contains(**own) && !is_tied(own));
        unused.map(|(renamed, _)| renamed.clone()).collect()
    }
}

fn is_shape(file: &[usize], model: &[i64]) -> bool {
    file.len() == model.len() && file.iter().zip(model).all(|(own, other)| usize::try_from(*other) == Ok(*own))
}
