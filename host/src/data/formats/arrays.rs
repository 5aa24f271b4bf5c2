//! Samples and targets as two arrays: the common part of the formats of arrays.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::array::Array;
use super::{Pool, Pools};
use crate::data::classes::{ClassTable, LARGEST_CLASS, first_class};
use crate::data::narrowing;
use crate::data::options::{ArchiveOptions, ClassOptions, FilesOptions, Task};
use crate::data::other::{Known, OtherPool};
use crate::data::rows::{Rows as _, TypedRows};
use crate::data::split::{HeldOut, Place};
use crate::data::target::NO_CLASS;
use crate::data::typed::{Typed, TypedInput};
use crate::data::{DataError, INPUTS, OtherInput, Samples, Source, Sources, Target, Targets, Wanted};

/// Opens the array of a file.
pub(super) type OpenFile = fn(&Path, Source<'_>) -> Result<Array, DataError>;

/// Opens arrays of a file, by their names, in the order of those.
pub(super) type OpenArchive = fn(&Path, &[&str], Source<'_>) -> Result<Vec<Array>, DataError>;

/// Samples and targets, each in a file of its own.
pub(super) fn read_files(options: &FilesOptions, source: Source<'_>, open: OpenFile) -> Result<Pools, DataError> {
    let pair = |inputs: &Path, targets: &Path| -> Result<Pair, DataError> {
        Ok(Pair { inputs: Inputs::from(open(inputs, source)?), targets: open(targets, source)? })
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
        first_class: options.first_class,
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
    let archive = Archive::of(options, options.keeps_dtype()?)?;
    let pair = |path: &Path| -> Result<Pair, DataError> {
        let (inputs, targets) = archive.open(path, true, source, open)?;
        let targets = targets.ok_or_else(|| DataError::malformed(path, "has no targets"))?;
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
    let meaning = Meaning {
        shape: options.shape.as_deref(),
        task: options.task,
        classes: options.classes.as_ref(),
        first_class: options.first_class,
        name,
    };
    let pools = meaning.pools(pair(&options.path)?, given, held_out)?;
    Ok(Pools { input_name: archive.samples.0.to_owned(), ..pools })
}

/// Other samples, and their targets if there are any: a folder with both files, or the file of the samples alone.
pub(super) fn read_other_files(
    options: &FilesOptions,
    known: Known<'_>,
    open: OpenFile,
) -> Result<OtherPool, DataError> {
    let here = Source::Folder(Path::new(""));
    let named = |of: &Path| known.path.join(of.file_name().unwrap_or_default());
    let (inputs, targets) = match known.path.is_dir() {
        true => (named(&options.inputs), Some(named(&options.targets))),
        false => (known.path.to_owned(), None),
    };
    let targets = targets.filter(|path| known.wanted == Wanted::Required || path.exists());
    if targets.is_none() && known.wanted == Wanted::Required {
        let [inputs, targets] = [&options.inputs, &options.targets].map(|path| path.file_name().unwrap_or_default());
        return Err(known.no_targets(&format!(
            "is the file of the samples: give the folder that holds `{}` and `{}`",
            inputs.display(),
            targets.display()
        )));
    }
    let targets = targets.map(|path| open(&path, here)).transpose()?;
    let classes = options.classes.clone().or_else(|| known.classes());
    let meaning = Meaning {
        shape: options.shape.as_deref(),
        task: Some(known.task()),
        classes: classes.as_ref(),
        first_class: options.first_class,
        name: "target",
    };
    meaning.other(Inputs::from(open(&inputs, here)?), targets)
}

/// Other samples, and their targets if there are any, in one file.
pub(super) fn read_other_archive(
    options: &ArchiveOptions,
    known: Known<'_>,
    open: OpenArchive,
) -> Result<OtherPool, DataError> {
    let here = Source::Folder(Path::new(""));
    let archive = Archive::of(options, options.keeps_dtype()?)?;
    let (inputs, targets) = match archive.open(known.path, true, here, open) {
        Err(error) if known.wanted == Wanted::Required => return Err(error),
        // If the samples are there, only the targets are not.
        Err(_) => archive.open(known.path, false, here, open)?,
        Ok(opened) => opened,
    };
    let classes = options.classes.clone().or_else(|| known.classes());
    let meaning = Meaning {
        shape: options.shape.as_deref(),
        task: Some(known.task()),
        classes: classes.as_ref(),
        first_class: options.first_class,
        name: &options.targets,
    };
    meaning.other(inputs, targets)
}

/// Samples and their targets.
struct Pair {
    inputs: Inputs,
    targets: Array,
}

/// Samples, and the inputs beside them.
struct Inputs {
    samples: Array,
    /// Whether samples that are no floating-point numbers keep their dtype.
    keeps_dtype: bool,
    /// Names in a batch, and arrays.
    others: Vec<(String, Array)>,
}

impl From<Array> for Inputs {
    fn from(samples: Array) -> Self {
        Self { samples, keeps_dtype: false, others: Vec::new() }
    }
}

impl Inputs {
    /// The pool of the samples, which have a shape, with their targets.
    ///
    /// # Errors
    ///
    /// An input with another number of samples.
    fn pool(self, sample_shape: Vec<i64>, targets: Targets) -> Result<Pool, DataError> {
        let Self { samples, keeps_dtype, others } = self;
        if u32::try_from(samples.len()).is_err() {
            return Err(DataError::TooManySamples { limit: u32::MAX as usize });
        }
        if let Some((_, other)) = others.iter().find(|(_, other)| other.len() != samples.len()) {
            let [one, two] = [&samples, other].map(|array| (array.name(), array.len()));
            return Err(samples.malformed(&format!("has {} samples, but array `{}` has {}", one.1, two.0, two.1)));
        }
        let others = others.into_iter().map(|(name, array)| TypedInput {
            input: OtherInput { name, shape: lengths(&array.shape()[1..]), dtype: array.sample_type() },
            path: array.path.clone(),
            rows: Arc::new(array),
        });
        let others = others.collect();
        let (path, samples) = (samples.path.clone(), Arc::new(samples));
        let is_typed = keeps_dtype && !samples.element().is_float();
        let own = is_typed.then(|| Arc::clone(&samples) as Arc<dyn TypedRows>);
        Ok(Pool { path, rows: samples, sample_shape, targets, typed: Typed { samples: own, others } })
    }
}

/// The names of the inputs in a batch, each with that of its array, and the array of the targets.
struct Archive<'a> {
    samples: (&'a str, &'a str),
    others: Vec<(&'a str, &'a str)>,
    targets: &'a str,
    keeps_dtype: bool,
}

impl<'a> Archive<'a> {
    fn of(options: &'a ArchiveOptions, keeps_dtype: bool) -> Result<Self, DataError> {
        let (samples, others) = (options.inputs.samples()?, options.inputs.others());
        Ok(Self { samples, others, targets: &options.targets, keeps_dtype })
    }

    /// The inputs in a file, and the targets if they are wanted.
    fn open(
        &self,
        path: &Path,
        with_targets: bool,
        source: Source<'_>,
        open: OpenArchive,
    ) -> Result<(Inputs, Option<Array>), DataError> {
        let others = self.others.iter().map(|(_, array)| *array);
        let names: Vec<&str> =
            std::iter::once(self.samples.1).chain(with_targets.then_some(self.targets)).chain(others).collect();
        let mut arrays = open(path, &names, source)?.into_iter();
        let samples = arrays.next().ok_or_else(|| DataError::malformed(path, "has no samples"))?;
        let targets = if with_targets { arrays.next() } else { None };
        let others = self.others.iter().map(|(name, _)| (*name).to_owned()).zip(arrays).collect();
        Ok((Inputs { samples, keeps_dtype: self.keeps_dtype, others }, targets))
    }
}

/// The meaning of the arrays, from the options.
struct Meaning<'a> {
    shape: Option<&'a [u32]>,
    task: Option<Task>,
    classes: Option<&'a ClassOptions>,
    first_class: Option<i64>,
    /// What is predicted.
    name: &'a str,
}

impl Meaning<'_> {
    fn other(&self, inputs: Inputs, targets: Option<Array>) -> Result<OtherPool, DataError> {
        let sources = Sources::File(inputs.samples.path.clone());
        let mut notes = Vec::new();
        let Some(targets) = targets else {
            let sample_shape = self.sample_shape(&inputs.samples)?;
            let targets = Targets::classes(vec![NO_CLASS; inputs.samples.len()]);
            let pool = inputs.pool(sample_shape, targets)?;
            return Ok(OtherPool { pool, has_targets: false, sources, notes });
        };
        let pair = Pair { inputs, targets };
        let target = match self.task {
            Some(Task::Regression) => self.values(std::iter::once(&pair), &mut notes)?,
            _ => self.classes(std::iter::once(&pair))?,
        };
        Ok(OtherPool { pool: self.pool(pair, &target)?, has_targets: true, sources, notes })
    }

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
        let mut notes = Vec::new();
        let all = || std::iter::once(&main).chain(given.values().map(|(pair, _)| pair));
        let target = match task {
            Task::Regression => self.values(all(), &mut notes)?,
            Task::Classification => self.classes(all())?,
        };
        let pool = |pair: Pair| self.pool(pair, &target);
        let main = pool(main)?;
        let given = given.into_iter().map(|(name, (pair, may_lack))| Ok((name, (pool(pair)?, may_lack))));
        let given = given.collect::<Result<_, DataError>>()?;
        Ok(Pools {
            main,
            given,
            held_out,
            target,
            samples: Samples::Numbers,
            input_name: INPUTS.to_owned(),
            classes_given: self.classes.is_some(),
            gaps: None,
            notes,
        })
    }

    /// The classes of all `pairs`.
    fn classes<'a>(&self, pairs: impl Iterator<Item = &'a Pair>) -> Result<Target, DataError> {
        let first = first_class(self.first_class)?;
        let mut shape = Vec::new();
        let mut labels = Vec::new();
        for Pair { targets, .. } in pairs {
            let width = targets.row_length().max(1);
            let numbers = targets.numbers().into_iter().enumerate().map(|(position, number)| {
                // Not lossy: whole, and far below 2^53.
                match number.fract() == 0.0 && number.abs() <= LARGEST_CLASS as f64 {
                    true => Ok(number as i64),
                    false => {
                        let problem = format!("has the target `{number}`, which is not a class");
                        Err(targets.wrong_sample(position / width, problem))
                    }
                }
            });
            labels.push((targets, width, numbers.collect::<Result<Vec<i64>, _>>()?));
            shape = match targets.shape() {
                // A column of classes has one class per sample.
                [_] | [_, 1] => Vec::new(),
                [_, rest @ ..] => lengths(rest),
                [] => Vec::new(),
            };
        }
        let all = || labels.iter().flat_map(|(_, _, numbers)| numbers.iter().copied());
        let range = [all().min().unwrap_or(first), all().max().unwrap_or(first)];
        let table = ClassTable::of_numbers(self.classes, first, range[1])?;
        let last = first + i64::try_from(table.count).unwrap_or(i64::MAX).min(2 * LARGEST_CLASS + 1) - 1;
        for (targets, width, numbers) in &labels {
            if let Some(position) = numbers.iter().position(|number| !(first..=last).contains(number)) {
                let (path, sample, label) = (targets.path.clone(), position / width, numbers[position]);
                return Err(DataError::Label { path, sample, label, first, last, range });
            }
        }
        Ok(Target::Classes { count: table.count, names: table.names, shape })
    }

    /// The numbers of all `pairs`.
    fn values<'a>(&self, pairs: impl Iterator<Item = &'a Pair>, notes: &mut Vec<String>) -> Result<Target, DataError> {
        let given = [("classes", self.classes.is_some()), ("first_class", self.first_class.is_some())];
        if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
            return Err(DataError::Option {
                option: format!("data.{key}"),
                value: "given".to_owned(),
                expected: "omitted for a regression; for classes, use whole numbers as targets, or `task = \
                            \"classification\"`",
            });
        }
        let mut names = Vec::new();
        let mut within_unit = true;
        for Pair { targets, .. } in pairs {
            let width = targets.row_length();
            let found = targets.shape();
            if found.len() > 2 {
                return Err(targets.malformed(&format!(
                    "has the shape {found:?}, but numbers to predict need [samples] or [samples, numbers]"
                )));
            }
            let numbers = targets.numbers();
            for (position, number) in numbers.iter().enumerate() {
                if !(*number as f32).is_finite() {
                    let problem = format!("has the target `{number}`, which is not a finite 32-bit number");
                    return Err(targets.wrong_sample(position / width.max(1), problem));
                }
                within_unit &= (0.0..=1.0).contains(number);
            }
            names = match width {
                1 => vec![self.name.to_owned()],
                width => (0..width).map(|index| format!("{}.{index}", self.name)).collect(),
            };
            notes.extend(narrowing::targets(&targets.path, &numbers, &names));
        }
        Ok(Target::Values { names, within_unit })
    }

    fn pool(&self, Pair { inputs, targets }: Pair, target: &Target) -> Result<Pool, DataError> {
        let samples = &inputs.samples;
        if samples.len() != targets.len() {
            let (path, found) = (targets.path.display(), targets.len());
            return Err(samples.malformed(&format!("has {} samples, but `{path}` has {found} targets", samples.len())));
        }
        if u32::try_from(samples.len()).is_err() {
            return Err(DataError::TooManySamples { limit: u32::MAX as usize });
        }
        let sample_shape = self.sample_shape(samples)?;
        let numbers = targets.numbers();
        let targets = match target {
            Target::Values { names, .. } if targets.row_length() == names.len() => Targets::Values {
                values: numbers.into_iter().map(|number| number as f32).collect(),
                width: names.len(),
            },
            Target::Classes { shape, .. } if targets.row_length() == lengths_product(shape) => {
                let first = self.first_class.unwrap_or(0);
                let values = numbers.into_iter().map(|number| number as i64 - first).collect();
                Targets::Classes { values, shape: shape.clone() }
            }
            _ => {
                let found = targets.row_length();
                return Err(targets.malformed(&format!("has {found} targets per sample, unlike the training data")));
            }
        };
        inputs.pool(sample_shape, targets)
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
            first_class: options.first_class,
            name: "y",
        };
        let inputs = array("x", Element::U8, &[2, 4], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        meaning.pools(Pair { inputs: inputs.into(), targets }, BTreeMap::new(), BTreeMap::new())
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
    fn classes_may_begin_at_another_number_than_zero() {
        let letters = |rest| pools(bytes(&[2], &[1.0, 3.0]), rest);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let classes = |pools: &Pools| (pools.target.clone(), pools.main.targets.clone());
        let of = |count, names| Target::Classes { count, names, shape: Vec::new() };
        assert_eq!(
            classes(&letters("first_class = 1").unwrap()),
            (of(3, names(&["1", "2", "3"])), Targets::classes(vec![0, 2]))
        );
        assert_eq!(
            classes(&letters("first_class = 1\nclasses = [\"a\", \"b\", \"c\", \"d\"]").unwrap()),
            (of(4, names(&["a", "b", "c", "d"])), Targets::classes(vec![0, 2]))
        );
        let error = letters("classes = [\"a\", \"b\", \"c\"]").err().unwrap();
        assert_eq!(error.to_string(), "`y` sample 1 has the target `3`, but the classes are 0 to 2");
        assert_eq!(error.hint().as_deref(), Some("set `first_class = 1` in `[data]`, since the targets are 1 to 3"));
        let error = letters("first_class = 2").err().unwrap();
        assert_eq!(error.to_string(), "`y` sample 0 has the target `1`, but the classes are 2 to 3");
        let signs = pools(floats(&[2], &[-1.0, 1.0]), "task = \"classification\"\nfirst_class = -1").unwrap();
        assert_eq!(signs.main.targets, Targets::classes(vec![0, 2]));
        assert!(letters("first_class = 5000000000").err().unwrap().to_string().contains("data.first_class"));
        let regression = pools(floats(&[2], &[0.5, 1.0]), "first_class = 1").err().unwrap().to_string();
        assert!(regression.contains("`data.first_class` = `given` must be omitted"), "{regression}");
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
            "`y` sample 1 has the target `3`, but the classes are 0 to 2"
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
