//! Samples and targets as two arrays: the common part of the formats of arrays.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::array::Array;
use super::{Pool, Pools};
use crate::data::classes::ClassTable;
use crate::data::options::{ArchiveOptions, ClassOptions, FilesOptions, Task};
use crate::data::rows::Rows as _;
use crate::data::split::{HeldOut, Place};
use crate::data::{DataError, Source, Target, Targets};

/// Opens the array of a file.
pub(super) type OpenFile = fn(&Path, Source<'_>) -> Result<Array, DataError>;

/// Opens two arrays of a file, by their names.
pub(super) type OpenArchive = fn(&Path, [&str; 2], Source<'_>) -> Result<[Array; 2], DataError>;

/// Samples and targets, each in a file of its own.
pub(super) fn read_files(options: &FilesOptions, source: Source<'_>, open: OpenFile) -> Result<Pools, DataError> {
    let pair = |inputs: &Path, targets: &Path| -> Result<Pair, DataError> {
        Ok(Pair { inputs: open(inputs, source)?, targets: open(targets, source)? })
    };
    let mut given = BTreeMap::new();
    let mut held_out = BTreeMap::new();
    for (name, split) in &options.splits {
        let files = match (&split.inputs, &split.targets) {
            (Some(inputs), Some(targets)) => Some((inputs, targets)),
            (None, None) => None,
            _ => {
                return Err(DataError::Option {
                    option: format!("data.splits.{name}"),
                    value: "one file".to_owned(),
                    expected: "two files: both `inputs` and `targets`",
                });
            }
        };
        match Place::of(name, split.fraction, split.stratified, files)? {
            Place::Given((inputs, targets)) => {
                drop(given.insert(name.clone(), (pair(inputs, targets)?, !split.stratified)))
            }
            Place::HeldOut(split) => drop(held_out.insert(name.clone(), split)),
        }
    }
    let meaning = Meaning {
        shape: options.shape.as_deref(),
        task: options.task,
        classes: options.classes.as_ref(),
        name: "target",
    };
    meaning.pools(pair(&options.inputs, &options.targets)?, given, held_out)
}

/// Samples and targets in one file.
pub(super) fn read_archives(
    options: &ArchiveOptions,
    source: Source<'_>,
    open: OpenArchive,
) -> Result<Pools, DataError> {
    let pair = |path: &Path| -> Result<Pair, DataError> {
        let [inputs, targets] = open(path, [&options.inputs, &options.targets], source)?;
        Ok(Pair { inputs, targets })
    };
    let mut given = BTreeMap::new();
    let mut held_out = BTreeMap::new();
    for (name, split) in &options.splits {
        match Place::of(name, split.fraction, split.stratified, split.path.as_deref())? {
            Place::Given(path) => drop(given.insert(name.clone(), (pair(path)?, !split.stratified))),
            Place::HeldOut(split) => drop(held_out.insert(name.clone(), split)),
        }
    }
    let name = options.targets.as_str();
    let meaning =
        Meaning { shape: options.shape.as_deref(), task: options.task, classes: options.classes.as_ref(), name };
    meaning.pools(pair(&options.path)?, given, held_out)
}

/// Samples and their targets.
struct Pair {
    inputs: Array,
    targets: Array,
}

/// The meaning of the arrays, from the options.
struct Meaning<'a> {
    shape: Option<&'a [u32]>,
    task: Option<Task>,
    classes: Option<&'a ClassOptions>,
    /// What is predicted.
    name: &'a str,
}

impl Meaning<'_> {
    fn pools(
        &self,
        main: Pair,
        given: BTreeMap<String, (Pair, bool)>,
        held_out: BTreeMap<String, HeldOut>,
    ) -> Result<Pools, DataError> {
        let task = self.task.unwrap_or(match main.targets.element().is_float() {
            true => Task::Regression,
            false => Task::Classification,
        });
        let all = || std::iter::once(&main).chain(given.values().map(|(pair, _)| pair));
        let target = match task {
            Task::Regression => self.values(all())?,
            Task::Classification => self.classes(all())?,
        };
        let pool = |pair: Pair| self.pool(pair, &target);
        let main = pool(main)?;
        let given = given.into_iter().map(|(name, (pair, may_lack))| Ok((name, (pool(pair)?, may_lack))));
        let given = given.collect::<Result<_, DataError>>()?;
        Ok(Pools { main, given, held_out, target })
    }

    /// The classes of all `pairs`.
    fn classes<'a>(&self, pairs: impl Iterator<Item = &'a Pair>) -> Result<Target, DataError> {
        let mut largest = 0;
        let mut shape = Vec::new();
        for Pair { targets, .. } in pairs {
            let width = targets.row_length();
            for (position, number) in targets.numbers().into_iter().enumerate() {
                // Not lossy: whole, not negative and far below 2^53.
                match number {
                    number if number.fract() == 0.0 && (0.0..1e9).contains(&number) => {
                        largest = largest.max(number as usize)
                    }
                    number => {
                        let problem = format!("has the target `{number}`, which is not a class");
                        return Err(targets.wrong_sample(position / width.max(1), problem));
                    }
                }
            }
            shape = match targets.shape() {
                // A column of classes has one class per sample.
                [_] | [_, 1] => Vec::new(),
                [_, rest @ ..] => lengths(rest),
                [] => Vec::new(),
            };
        }
        let table = match self.classes {
            Some(options) => ClassTable::new(options)?,
            None => ClassTable { count: largest + 1, names: Vec::new() },
        };
        Ok(Target::Classes { count: table.count, names: table.names, shape })
    }

    /// The numbers of all `pairs`.
    fn values<'a>(&self, pairs: impl Iterator<Item = &'a Pair>) -> Result<Target, DataError> {
        let mut names = Vec::new();
        let mut within_unit = true;
        for Pair { targets, .. } in pairs {
            let width = targets.row_length();
            if targets.shape().len() > 2 || self.classes.is_some() {
                let found = targets.shape();
                return Err(match self.classes {
                    Some(_) => DataError::Option {
                        option: "data.classes".to_owned(),
                        value: "given".to_owned(),
                        expected: "omitted for a regression; for classes, use whole numbers as targets, or `task = \
                                    \"classification\"`",
                    },
                    None => targets.malformed(&format!(
                        "has the shape {found:?}, but numbers to predict need [samples] or [samples, numbers]"
                    )),
                });
            }
            for (position, number) in targets.numbers().into_iter().enumerate() {
                if !(number as f32).is_finite() {
                    let problem = format!("has the target `{number}`, which is not a finite 32-bit number");
                    return Err(targets.wrong_sample(position / width.max(1), problem));
                }
                within_unit &= (0.0..=1.0).contains(&number);
            }
            names = match width {
                1 => vec![self.name.to_owned()],
                width => (0..width).map(|index| format!("{}.{index}", self.name)).collect(),
            };
        }
        Ok(Target::Values { names, within_unit })
    }

    fn pool(&self, Pair { inputs, targets }: Pair, target: &Target) -> Result<Pool, DataError> {
        if inputs.len() != targets.len() {
            let problem =
                format!("has {} samples, but `{}` has {} targets", inputs.len(), targets.path.display(), targets.len());
            return Err(inputs.malformed(&problem));
        }
        if u32::try_from(inputs.len()).is_err() {
            return Err(DataError::TooManySamples { limit: u32::MAX as usize });
        }
        let sample_shape = self.sample_shape(&inputs)?;
        let numbers = targets.numbers();
        let targets = match target {
            Target::Values { names, .. } if targets.row_length() == names.len() => Targets::Values {
                values: numbers.into_iter().map(|number| number as f32).collect(),
                width: names.len(),
            },
            Target::Classes { count, shape, .. } if targets.row_length() == lengths_product(shape) => {
                let width = targets.row_length().max(1);
                if let Some(position) = numbers.iter().position(|number| *number >= *count as f64) {
                    let problem = format!("has the target `{}`; the classes are 0 to {}", numbers[position], count - 1);
                    return Err(targets.wrong_sample(position / width, problem));
                }
                Targets::Classes {
                    values: numbers.into_iter().map(|number| number as i64).collect(),
                    shape: shape.clone(),
                }
            }
            _ => {
                let found = targets.row_length();
                return Err(targets.malformed(&format!("has {found} targets per sample, unlike the training data")));
            }
        };
        Ok(Pool { path: inputs.path.clone(), rows: Arc::new(inputs), sample_shape, targets })
    }

    fn sample_shape(&self, inputs: &Array) -> Result<Vec<i64>, DataError> {
        let found = match &inputs.shape()[1..] {
            // One number per sample is a vector of length 1.
            [] => vec![1],
            shape => shape.to_vec(),
        };
        let Some(shape) = self.shape else { return Ok(lengths(&found)) };
        let wanted = shape.iter().fold(1u64, |count, length| count.saturating_mul(u64::from(*length)));
        if wanted != inputs.row_length() as u64 {
            let problem = format!("has samples of shape {found:?}, but `shape` = {shape:?} needs {wanted} numbers");
            return Err(inputs.malformed(&problem));
        }
        Ok(shape.iter().map(|length| i64::from(*length)).collect())
    }
}

fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|length| i64::try_from(*length).unwrap_or(i64::MAX)).collect()
}

fn lengths_product(shape: &[i64]) -> usize {
    shape.iter().map(|length| usize::try_from(*length).unwrap_or(0)).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::formats::array::{Bytes, Element, Layout};

    fn array(name: &str, element: Element, shape: &[usize], values: &[f32]) -> Array {
        let bytes: Vec<u8> = match element {
            Element::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            _ => values.iter().map(|value| *value as u8).collect(),
        };
        let layout = Layout { start: 0, element, big_endian: false, shape: shape.to_vec() };
        Array::new(name.into(), "", Arc::new(Bytes::Owned(bytes)), layout).unwrap()
    }

    fn pools(targets: Array, rest: &str) -> Result<Pools, DataError> {
        let options: FilesOptions = toml::from_str(&format!("inputs = \"x\"\ntargets = \"y\"\n{rest}")).unwrap();
        let meaning = Meaning {
            shape: options.shape.as_deref(),
            task: options.task,
            classes: options.classes.as_ref(),
            name: "y",
        };
        let inputs = array("x", Element::U8, &[2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        meaning.pools(Pair { inputs, targets }, BTreeMap::new(), BTreeMap::new())
    }

    fn bytes(shape: &[usize], values: &[f32]) -> Array {
        array("y", Element::U8, shape, values)
    }

    fn floats(shape: &[usize], values: &[f32]) -> Array {
        array("y", Element::F32, shape, values)
    }

    #[test]
    fn whole_numbers_are_classes_and_others_numbers_unless_it_is_said() {
        let target = |targets, rest| pools(targets, rest).unwrap().target;
        assert_eq!(target(bytes(&[2], &[0.0, 3.0]), ""), Target::classes(4));
        assert_eq!(target(bytes(&[2, 1], &[0.0, 3.0]), "classes = 9"), Target::classes(9));
        let names = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(
            target(bytes(&[2], &[0.0, 1.0]), "classes = [\"a\", \"b\"]"),
            Target::Classes { count: 2, names, shape: Vec::new() }
        );
        assert_eq!(
            target(bytes(&[2, 3], &[0.0, 1.0, 2.0, 0.0, 1.0, 2.0]), ""),
            Target::Classes { count: 3, names: Vec::new(), shape: vec![3] }
        );
        assert_eq!(target(floats(&[2], &[0.0, 1.0]), "task = \"classification\""), Target::classes(2));
        let values = |names: &[&str], within_unit| Target::Values {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            within_unit,
        };
        assert_eq!(target(floats(&[2], &[0.5, 3.0]), ""), values(&["y"], false));
        assert_eq!(target(floats(&[2, 2], &[0.5, 1.0, 0.0, 0.25]), ""), values(&["y.0", "y.1"], true));
        assert_eq!(target(bytes(&[2], &[0.0, 3.0]), "task = \"regression\""), values(&["y"], false));
    }

    #[test]
    fn samples_take_the_shape_that_is_asked_for() {
        let shape = |rest| pools(bytes(&[2], &[0.0, 1.0]), rest).map(|pools| pools.main.sample_shape);
        assert_eq!(shape("").unwrap(), [4]);
        assert_eq!(shape("shape = [1, 2, 2]").unwrap(), [1, 2, 2]);
        assert_eq!(
            shape("shape = [3]").unwrap_err().to_string(),
            "`x` has samples of shape [4], but `shape` = [3] needs 3 numbers"
        );
    }

    #[test]
    fn targets_that_are_none_are_named() {
        let message = |targets, rest| pools(targets, rest).err().unwrap().to_string();
        assert_eq!(
            message(bytes(&[2], &[0.0, 3.0]), "classes = 3"),
            "`y` sample 1 has the target `3`; the classes are 0 to 2"
        );
        assert_eq!(
            message(floats(&[2], &[0.0, 0.5]), "task = \"classification\""),
            "`y` sample 1 has the target `0.5`, which is not a class"
        );
        assert_eq!(
            message(floats(&[2], &[0.0, f32::NAN]), ""),
            "`y` sample 1 has the target `NaN`, which is not a finite 32-bit number"
        );
        assert_eq!(message(bytes(&[3], &[0.0, 1.0, 1.0]), ""), "`x` has 2 samples, but `y` has 3 targets");
        assert!(message(floats(&[2], &[0.0, 0.5]), "classes = 2").contains("omitted for a regression"));
        assert!(message(floats(&[2, 1, 1], &[0.0, 0.5]), "").contains("[samples] or [samples, numbers]"));
    }
}
