//! From the content of files to the splits of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::augment::{Augment, Augmentation};
use super::dataset::{IndexDataset, StoredDataset, row_length};
use super::formats::{Pool, Pools};
use super::narrowing;
use super::normalize::{Fit, Normalization, NormalizeOptions};
use super::rows::Rows;
use super::split::split;
use super::typed::TypedDataset;
use super::{Data, DataError, Dataset, MemoryDataset, SampleType, Samples, TRAIN, Target};

/// Samples that take at most this many bytes in all are kept in memory, normalized; others are read when a batch needs
/// them.
const LARGEST_IN_MEMORY: usize = 256 << 20;

/// The size of the parts, in bytes, in which samples are read to fit a normalization.
const PART_BYTES: usize = 8 << 20;

/// So many classes without samples are named.
const SHOWN_CLASSES: usize = 5;

/// The rows of a pool that make a split.
struct Part<'a> {
    pool: &'a Pool,
    /// Rows of the pool, ascending.
    indices: Vec<u32>,
}

/// Splits, checks and normalizes.
pub(super) fn assemble(
    pools: Pools,
    normalize: &NormalizeOptions,
    augment: &[Augment],
    seed: u64,
) -> Result<Data, DataError> {
    assemble_within(LARGEST_IN_MEMORY, pools, normalize, augment, seed)
}

fn assemble_within(
    largest_in_memory: usize,
    mut pools: Pools,
    normalize: &NormalizeOptions,
    augment: &[Augment],
    seed: u64,
) -> Result<Data, DataError> {
    let every_one_alike = vec![0; pools.main.targets.len()];
    let classes = match pools.target {
        Target::Classes { .. } => pools.main.targets.sample_classes().unwrap_or(&every_one_alike),
        Target::Values { .. } => &every_one_alike,
    };
    let indices = split(classes, &pools.held_out, seed, |class| pools.target.class_name(class))?;
    fill(&mut pools, &indices[TRAIN])?;
    let Pools { main, given, held_out: _, target, samples, input_name, classes_given, gaps: _, notes } = &pools;
    let sample_shape = main.sample_shape.clone();
    let mut notes = notes.clone();
    notes.extend(check_training(main, &indices[TRAIN], target, *classes_given)?);
    let mut parts: BTreeMap<String, Part<'_>> =
        indices.into_iter().map(|(name, indices)| (name, Part { pool: main, indices })).collect();
    for (name, (pool, allow_missing)) in given {
        check_given(name, pool, *allow_missing, main, target)?;
        let indices = (0..).take(pool.targets.len()).collect();
        parts.insert(name.clone(), Part { pool, indices });
    }

    let sample_count: usize = parts.values().map(|part| part.indices.len()).sum();
    let bytes = sample_count.saturating_mul(row_length(&sample_shape)).saturating_mul(size_of::<f32>());
    let keep = bytes <= largest_in_memory || parts.values().all(|part| part.pool.rows.in_memory());
    let others = main.typed.inputs();
    let rows: Vec<(String, &Pool, Vec<u32>)> = match others.is_empty() {
        true => Vec::new(),
        false => parts.iter().map(|(name, part)| (name.clone(), part.pool, part.indices.clone())).collect(),
    };
    let (mut splits, normalization, note) = match (main.typed.sample_type(), keep) {
        (Some(_), _) => (typed(parts, &sample_shape), Normalization::none(), None),
        (None, true) => in_memory(parts, normalize, &sample_shape, samples)?,
        (None, false) => stored(parts, normalize, &sample_shape, samples)?,
    };
    notes.extend(note);
    for (name, pool, indices) in rows {
        if let Some(split) = splits.remove(&name) {
            splits.insert(name, pool.typed.beside(split, indices));
        }
    }
    let sample_type = match samples.vocabulary() {
        Some(_) => SampleType::I64,
        None => main.typed.sample_type().unwrap_or(SampleType::F32),
    };
    if samples.vocabulary().is_some() {
        splits = splits.into_iter().map(|(name, split)| (name, Arc::new(IndexDataset(split)) as _)).collect();
    }
    let augmentation = Augmentation::new(augment, &sample_shape, seed)?.map(Arc::new);
    Ok(Data {
        splits,
        target: target.clone(),
        positive: 1,
        samples: samples.clone(),
        sample_shape,
        sample_type,
        input_name: input_name.clone(),
        others,
        normalization,
        augmentation,
        notes,
    })
}

/// Replaces missing features by what the training split's `indices` say.
fn fill(pools: &mut Pools, indices: &[u32]) -> Result<(), DataError> {
    let Some(gaps) = &pools.gaps else { return Ok(()) };
    let main = &pools.main;
    let fill = gaps.fit(&main.path, &*main.rows, row_length(&main.sample_shape), indices)?;
    pools.notes.extend(gaps.notes(&fill));
    gaps.describe(&fill, &mut pools.samples);
    for pool in std::iter::once(&mut pools.main).chain(pools.given.values_mut().map(|(pool, _)| pool)) {
        pool.rows = gaps.apply(&fill, Arc::clone(&pool.rows), row_length(&pool.sample_shape));
    }
    Ok(())
}

/// Checks that the training split, the rows of `main` at `indices`, has every class; what is said if it lacks some that
/// the options give.
fn check_training(
    main: &Pool,
    indices: &[u32],
    target: &Target,
    classes_given: bool,
) -> Result<Option<String>, DataError> {
    let (Target::Classes { count, .. }, Some(classes)) = (target, main.targets.sample_classes()) else {
        return Ok(None);
    };
    let seen: BTreeSet<i64> = indices.iter().map(|index| classes[*index as usize]).collect();
    let lacking = count.saturating_sub(seen.len());
    let mut names = (0..*count).filter(|class| !seen.contains(&(*class as i64))).map(|class| target.class_name(class));
    match (classes_given, names.next()) {
        (_, None) => Ok(None),
        (false, Some(class)) => Err(DataError::UntrainedClass { class, others: lacking - 1 }),
        (true, Some(class)) => {
            let shown: Vec<String> = std::iter::once(class).chain(names.take(SHOWN_CLASSES - 1)).collect();
            let more = if lacking > shown.len() { ", …" } else { "" };
            Ok(Some(format!(
                "the split `{TRAIN}` has no sample of {lacking} of {count} classes ({}{more}), so they are not learned",
                shown.join(", ")
            )))
        }
    }
}

/// Checks that a split with its own files has the samples and classes of the training data, `main`.
fn check_given(name: &str, pool: &Pool, allow_missing: bool, main: &Pool, target: &Target) -> Result<(), DataError> {
    if pool.sample_shape != main.sample_shape {
        return Err(DataError::OtherShape {
            path: pool.path.clone(),
            found: pool.sample_shape.clone(),
            expected: main.sample_shape.clone(),
        });
    }
    pool.typed.check(&pool.path, main.typed.sample_type(), &main.typed.inputs())?;
    if let (Some(classes), Some(trained), false) =
        (pool.targets.sample_classes(), main.targets.sample_classes(), allow_missing)
    {
        let seen: BTreeSet<i64> = classes.iter().copied().collect();
        let trained: BTreeSet<i64> = trained.iter().copied().collect();
        if let Some(class) = trained.difference(&seen).next() {
            let class = target.class_name(usize::try_from(*class).unwrap_or(0));
            return Err(DataError::MissingClass { split: name.to_owned(), path: pool.path.clone(), class });
        }
    }
    Ok(())
}

type Splits = BTreeMap<String, Arc<dyn Dataset>>;

/// Splits whose samples are read now.
fn in_memory(
    mut parts: BTreeMap<String, Part<'_>>,
    normalize: &NormalizeOptions,
    sample_shape: &[i64],
    made_from: &Samples,
) -> Result<(Splits, Normalization, Option<String>), DataError> {
    let row_length = row_length(sample_shape);
    let mut splits = Splits::new();
    let mut keep = |name: &str, samples: Vec<f32>, part: &Part<'_>| {
        let targets = part.pool.targets.select(&part.indices);
        let dataset: Arc<dyn Dataset> = Arc::new(MemoryDataset::new(samples, targets, sample_shape.to_vec()));
        splits.insert(name.to_owned(), dataset);
    };
    let Some(train) = parts.remove(TRAIN) else { return Ok((splits, Normalization::none(), None)) };
    let fitted;
    let note;
    let mut samples = vec![0.0; train.indices.len() * row_length];
    if train.pool.rows.fits_f32() {
        // They are read once: to decode images takes longer than all else.
        train.pool.rows.read(&train.indices, &Normalization::none(), &mut samples)?;
        fitted = match Normalization::given(normalize, sample_shape)? {
            Some(given) => given,
            None => {
                let mut fit = Fit::new(normalize.kind(), sample_shape);
                fit.add(&samples);
                fit.finish()
            }
        };
        note = examine(&train, Some(&samples), normalize, &fitted, made_from)?;
        fitted.apply(&mut samples, row_length).map_err(|(sample, position)| {
            let sample = train.indices.get(sample).map_or(sample, |index| *index as usize);
            DataError::Overflow { sample, position }
        })?;
    } else {
        fitted = fit(&train, normalize, sample_shape)?;
        note = examine(&train, None, normalize, &fitted, made_from)?;
        train.pool.rows.read(&train.indices, &fitted, &mut samples)?;
    }
    keep(TRAIN, samples, &train);
    for (name, part) in parts {
        let mut samples = vec![0.0; part.indices.len() * row_length];
        part.pool.rows.read(&part.indices, &fitted, &mut samples)?;
        keep(&name, samples, &part);
    }
    Ok((splits, fitted, note))
}

/// Splits whose samples stay in their files. The training split is read once if a normalization is fitted.
fn stored(
    parts: BTreeMap<String, Part<'_>>,
    normalize: &NormalizeOptions,
    sample_shape: &[i64],
    made_from: &Samples,
) -> Result<(Splits, Normalization, Option<String>), DataError> {
    let Some(train) = parts.get(TRAIN) else { return Ok((Splits::new(), Normalization::none(), None)) };
    let normalization = fit(train, normalize, sample_shape)?;
    let note = examine(train, None, normalize, &normalization, made_from)?;
    let splits = parts.into_iter().map(|(name, part)| {
        let targets = part.pool.targets.select(&part.indices);
        let rows: Arc<dyn Rows> = Arc::clone(&part.pool.rows);
        let dataset: Arc<dyn Dataset> =
            Arc::new(StoredDataset::new(rows, part.indices, targets, sample_shape.to_vec(), normalization.clone()));
        (name, dataset)
    });
    Ok((splits.collect(), normalization, note))
}

/// Splits whose samples keep their dtype and stay in their files.
fn typed(parts: BTreeMap<String, Part<'_>>, sample_shape: &[i64]) -> Splits {
    let splits = parts.into_iter().filter_map(|(name, part)| {
        let rows = Arc::clone(part.pool.typed.samples.as_ref()?);
        let targets = part.pool.targets.select(&part.indices);
        let dataset: Arc<dyn Dataset> = Arc::new(TypedDataset::new(rows, part.indices, targets, sample_shape.to_vec()));
        Some((name, dataset))
    });
    splits.collect()
}

/// The normalization of the options, fitted on the training split if they do not give it.
fn fit(train: &Part<'_>, normalize: &NormalizeOptions, sample_shape: &[i64]) -> Result<Normalization, DataError> {
    if let Some(given) = Normalization::given(normalize, sample_shape)? {
        return Ok(given);
    }
    let mut fit = Fit::new(normalize.kind(), sample_shape);
    let row_length = row_length(sample_shape);
    let rows_at_once = (PART_BYTES / (row_length * size_of::<f64>()).max(1)).max(1);
    let mut stored = Vec::new();
    for indices in train.indices.chunks(rows_at_once) {
        stored.resize(indices.len() * row_length, 0.0);
        train.pool.rows.read_stored(indices, &mut stored)?;
        fit.add(&stored);
    }
    Ok(fit.finish())
}

/// What is said if f32 cannot hold apart what is stored; `read` are the samples of the training split, if they were
/// read.
fn examine(
    train: &Part<'_>,
    read: Option<&[f32]>,
    normalize: &NormalizeOptions,
    normalization: &Normalization,
    made_from: &Samples,
) -> Result<Option<String>, DataError> {
    let fitted = matches!(normalize, NormalizeOptions::Fitted(_));
    // What f32 holds, it holds apart when its mean or its least value is subtracted, too.
    if fitted && train.pool.rows.fits_f32() {
        return Ok(None);
    }
    let row_length = row_length(&train.pool.sample_shape);
    let mut stored: Vec<f64> = Vec::new();
    for block in narrowing::examined(train.indices.len(), row_length) {
        match read {
            Some(read) => {
                let values = &read[block.start * row_length..block.end * row_length];
                stored.extend(values.iter().map(|value| f64::from(*value)));
            }
            None => {
                let start = stored.len();
                stored.resize(start + block.len() * row_length, 0.0);
                train.pool.rows.read_stored(&train.indices[block], &mut stored[start..])?;
            }
        }
    }
    let Pool { path, sample_shape, .. } = train.pool;
    Ok(narrowing::features(path, &stored, sample_shape, &made_from.number_names(), normalization, fitted))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::split::HeldOut;
    use crate::data::tests::check_empty_batches;
    use crate::data::typed::Typed;
    use crate::data::{Batch, GivenNormalization, INPUTS, Normalize, TEST, Targets, rows::Table};

    /// `count` samples of two features, `first + index` and 5, of the classes 0 and 1 in turn.
    fn pool(count: usize, first: f64) -> Pool {
        let values = (0..count).flat_map(|index| [first + index as f64, 5.0]).collect();
        Pool {
            path: Path::new("pool").to_owned(),
            rows: Arc::new(OnDisk(Table { values, row_length: 2 })),
            sample_shape: vec![2],
            targets: Targets::classes((0..count as i64).map(|index| index % 2).collect()),
            typed: Typed::default(),
        }
    }

    /// Rows that are read for each batch.
    struct OnDisk(Table);

    impl Rows for OnDisk {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn fits_f32(&self) -> bool {
            self.0.values.iter().all(|value| f64::from(*value as f32) == *value)
        }

        fn read_stored(&self, indices: &[u32], values: &mut [f64]) -> Result<(), DataError> {
            self.0.read_stored(indices, values)
        }

        fn read(&self, indices: &[u32], by: &Normalization, values: &mut [f32]) -> Result<(), DataError> {
            self.0.read(indices, by, values)
        }
    }

    fn pools(given: Pool, may_lack: bool) -> Pools {
        Pools {
            main: pool(20, 0.0),
            given: BTreeMap::from([(TEST.to_owned(), (given, may_lack))]),
            held_out: BTreeMap::from([("val".to_owned(), HeldOut { fraction: 0.2, stratified: true })]),
            target: Target::classes(2),
            samples: Samples::Numbers,
            input_name: INPUTS.to_owned(),
            classes_given: false,
            gaps: None,
            notes: Vec::new(),
        }
    }

    fn all(data: &Data, split: &str) -> Batch {
        let split = &data.splits[split];
        split.gather(&(0..split.len() as u32).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn data_that_is_read_as_needed_is_the_same_as_data_in_memory() {
        let fitted = [Normalize::None, Normalize::Standard, Normalize::Range].map(NormalizeOptions::Fitted);
        let given = GivenNormalization { offset: vec![0.1, 0.2], scale: vec![0.3, 7.0] };
        for normalize in fitted.into_iter().chain([NormalizeOptions::Given(given)]) {
            let load = |limit, first| {
                let mut pools = pools(pool(4, first + 100.0), false);
                pools.main = pool(20, first);
                assemble_within(limit, pools, &normalize, &[], 3).unwrap()
            };
            // Numbers that f32 does not hold are read in another way.
            for first in [0.0, 1e9 + 0.25] {
                let (memory, stored) = (load(usize::MAX, first), load(0, first));
                [&memory, &stored].into_iter().for_each(check_empty_batches);
                assert_eq!((&memory.normalization, &memory.notes), (&stored.normalization, &stored.notes));
                for (split, size) in [(TRAIN, 16), ("val", 4), (TEST, 4)] {
                    let (memory, stored) = (all(&memory, split), all(&stored, split));
                    let expected = (size, &stored.inputs, &stored.targets);
                    assert_eq!((memory.size, &memory.inputs, &memory.targets), expected);
                }
                assert!(matches!(stored.splits[TEST].gather(&[4]), Err(DataError::OutOfRange { index: 4, length: 4 })));
            }
        }
    }

    #[test]
    fn numbers_that_f32_cannot_hold_apart_are_kept_apart_by_a_normalization_or_told() {
        let load = |normalize| {
            let mut pools = pools(pool(4, 1.7e9), false);
            pools.main = pool(20, 1.7e9);
            assemble(pools, &NormalizeOptions::Fitted(normalize), &[], 3).unwrap()
        };
        let data = load(Normalize::Standard);
        assert_eq!(data.notes, Vec::<String>::new());
        let values: Vec<f32> = Vec::try_from(all(&data, TRAIN).inputs.select(1, 0)).unwrap();
        assert!(values.windows(2).all(|pair| pair[1] - pair[0] > 0.1), "{values:?}");
        let notes = load(Normalize::None).notes;
        assert!(notes[0].starts_with("`pool`: feature 0: of 16 different values, 1 stay different"), "{notes:?}");
    }

    #[test]
    fn what_a_normalization_makes_too_large_is_told() {
        let given = GivenNormalization { offset: vec![0.0, 0.0], scale: vec![1.0, 1.2e-38] };
        for limit in [0, usize::MAX] {
            let data =
                assemble_within(limit, pools(pool(4, 0.0), false), &NormalizeOptions::Given(given.clone()), &[], 3);
            let error = match data {
                Ok(data) => data.splits[TRAIN].gather(&[0]).unwrap_err(),
                Err(error) => error,
            };
            assert!(matches!(error, DataError::Overflow { position: 1, .. }), "{error}");
        }
    }

    #[test]
    fn classes_that_are_not_trained_are_errors_unless_the_options_give_them() {
        let load = |count, classes_given, given: Option<usize>| {
            let mut pools = pools(pool(given.unwrap_or(4), 0.0), false);
            (pools.target, pools.classes_given) = (Target::classes(count), classes_given);
            assemble(pools, &NormalizeOptions::default(), &[], 3).map(|data| data.notes)
        };
        let error = load(4, false, None).unwrap_err();
        assert_eq!(error.to_string(), "split `train` has no sample of class 2, nor of another one");
        assert!(error.hint().is_some_and(|hint| hint.contains("first_class") && hint.contains("classes")));
        assert_eq!(
            load(30, true, None).unwrap(),
            ["the split `train` has no sample of 28 of 30 classes (2, 3, 4, 5, 6, …), so they are not learned"]
        );
        // More classes than memory has room for.
        assert!(load(usize::MAX / 2, false, None).is_err());
        // A split must have the classes that are trained, and no others.
        assert!(matches!(load(3, true, Some(1)), Err(DataError::MissingClass { .. })));
        let mut rare = pools(pool(4, 0.0), false);
        rare.main.targets = Targets::classes((0..20).map(|index| i64::from(index == 7)).collect());
        rare.held_out.clear();
        rare.held_out.insert("val".to_owned(), HeldOut { fraction: 0.9, stratified: false });
        let error = assemble(rare, &NormalizeOptions::default(), &[], 3).unwrap_err();
        assert_eq!(error.to_string(), "split `train` has no sample of class 1");
    }

    #[test]
    fn given_splits_are_normalized_by_the_training_split() {
        let normalize = NormalizeOptions::Fitted(Normalize::Standard);
        let data = assemble(pools(pool(4, 0.0), false), &normalize, &[], 3).unwrap();
        let train = all(&data, TRAIN).inputs;
        assert!(train.mean(tch::Kind::Float).double_value(&[]).abs() < 1e-6);
        assert!(all(&data, TEST).inputs.select(1, 0).mean(tch::Kind::Float).double_value(&[]) < -0.5);
    }

    #[test]
    fn given_splits_must_be_as_the_training_data() {
        let message = |given, may_lack| {
            let normalize = NormalizeOptions::default();
            assemble(pools(given, may_lack), &normalize, &[], 3).map(drop).map_err(|error| error.to_string())
        };
        let lacking = || pool(1, 0.0);
        assert_eq!(message(lacking(), false), Err("split `test`, `pool`, has no sample of class 1".to_owned()));
        assert_eq!(message(lacking(), true), Ok(()));
        let mut other = pool(2, 0.0);
        other.sample_shape = vec![1, 2];
        assert_eq!(
            message(other, false),
            Err("`pool` has samples of shape [1, 2], but the training data has shape [2]".to_owned())
        );
    }
}
