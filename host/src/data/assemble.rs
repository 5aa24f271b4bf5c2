//! From the content of files to the splits of a run.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::augment::{Augment, Augmentation};
use super::dataset::{StoredDataset, row_length};
use super::formats::{Pool, Pools};
use super::normalize::{Fit, Normalization, NormalizeOptions};
use super::rows::Rows;
use super::split::split;
use super::{Data, DataError, Dataset, MemoryDataset, SampleType, TRAIN, Target, Targets};

/// Samples that take at most this many bytes in all are kept in memory, normalized; others are read when a batch needs
/// them.
const LARGEST_IN_MEMORY: usize = 256 << 20;

/// The size of the parts, in bytes, in which samples are read to fit a normalization.
const PART_BYTES: usize = 4 << 20;

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
    pools: Pools,
    normalize: &NormalizeOptions,
    augment: &[Augment],
    seed: u64,
) -> Result<Data, DataError> {
    let Pools { main, given, held_out, target } = &pools;
    let sample_shape = main.sample_shape.clone();
    let every_one_alike = vec![0; main.targets.len()];
    let (classes, count) = match (main.targets.sample_classes(), target) {
        (Some(classes), Target::Classes { count, .. }) => (classes, *count),
        _ => (every_one_alike.as_slice(), 1),
    };
    let mut parts: BTreeMap<String, Part<'_>> = split(classes, count, held_out, seed)?
        .into_iter()
        .map(|(name, indices)| (name, Part { pool: main, indices }))
        .collect();
    for (name, (pool, allow_missing)) in given {
        check_given(name, pool, *allow_missing, &sample_shape, target)?;
        let indices = (0..).take(pool.targets.len()).collect();
        parts.insert(name.clone(), Part { pool, indices });
    }

    let samples: usize = parts.values().map(|part| part.indices.len()).sum();
    let bytes = samples.saturating_mul(row_length(&sample_shape)).saturating_mul(size_of::<f32>());
    let make = if bytes <= largest_in_memory { in_memory } else { stored };
    let (splits, normalization) = make(parts, normalize, &sample_shape)?;
    let augmentation = Augmentation::new(augment, &sample_shape, seed)?.map(Arc::new);
    Ok(Data { splits, target: target.clone(), sample_shape, sample_type: SampleType::F32, normalization, augmentation })
}

/// Checks that a split with its own files has the samples and classes of the training data.
fn check_given(
    name: &str,
    pool: &Pool,
    allow_missing: bool,
    sample_shape: &[i64],
    target: &Target,
) -> Result<(), DataError> {
    if pool.sample_shape != sample_shape {
        return Err(DataError::OtherShape {
            path: pool.path.clone(),
            found: pool.sample_shape.clone(),
            expected: sample_shape.to_vec(),
        });
    }
    if let (Some(classes), Target::Classes { count, names, .. }, false) =
        (pool.targets.sample_classes(), target, allow_missing)
    {
        let mut seen = vec![false; *count];
        for class in classes {
            seen[*class as usize] = true;
        }
        if let Some(class) = seen.iter().position(|seen| !seen) {
            let class = names.get(class).map_or(class.to_string(), |name| format!("`{name}`"));
            return Err(DataError::MissingClass { split: name.to_owned(), path: pool.path.clone(), class });
        }
    }
    Ok(())
}

type Splits = BTreeMap<String, Arc<dyn Dataset>>;

/// Splits whose samples are read now.
fn in_memory(
    parts: BTreeMap<String, Part<'_>>,
    normalize: &NormalizeOptions,
    sample_shape: &[i64],
) -> Result<(Splits, Normalization), DataError> {
    let mut read: Vec<(String, Vec<f32>, Targets)> = Vec::new();
    for (name, part) in parts {
        let mut samples = vec![0.0; part.indices.len() * row_length(sample_shape)];
        part.pool.rows.read(&part.indices, &mut samples)?;
        read.push((name, samples, part.pool.targets.select(&part.indices)));
    }
    let normalization = match Normalization::given(normalize, sample_shape)? {
        Some(normalization) => normalization,
        None => {
            let mut fit = Fit::new(normalize.kind(), sample_shape);
            for (_, samples, _) in read.iter().filter(|(name, ..)| name == TRAIN) {
                fit.add(samples);
            }
            fit.finish()
        }
    };
    let splits = read.into_iter().map(|(name, mut samples, targets)| {
        normalization.apply(&mut samples, sample_shape);
        let dataset: Arc<dyn Dataset> = Arc::new(MemoryDataset::new(samples, targets, sample_shape.to_vec()));
        (name, dataset)
    });
    Ok((splits.collect(), normalization))
}

/// Splits whose samples stay in their files. The training split is read once if a normalization is fitted.
fn stored(
    parts: BTreeMap<String, Part<'_>>,
    normalize: &NormalizeOptions,
    sample_shape: &[i64],
) -> Result<(Splits, Normalization), DataError> {
    let normalization = match Normalization::given(normalize, sample_shape)? {
        Some(normalization) => normalization,
        None => {
            let mut fit = Fit::new(normalize.kind(), sample_shape);
            let row_length = row_length(sample_shape);
            let rows_at_once = (PART_BYTES / (row_length * size_of::<f32>()).max(1)).max(1);
            let mut samples = Vec::new();
            for part in parts.iter().filter(|(name, _)| *name == TRAIN).map(|(_, part)| part) {
                for indices in part.indices.chunks(rows_at_once) {
                    samples.resize(indices.len() * row_length, 0.0);
                    part.pool.rows.read(indices, &mut samples)?;
                    fit.add(&samples);
                }
            }
            fit.finish()
        }
    };
    let splits = parts.into_iter().map(|(name, part)| {
        let targets = part.pool.targets.select(&part.indices);
        let rows: Arc<dyn Rows> = Arc::clone(&part.pool.rows);
        let dataset: Arc<dyn Dataset> =
            Arc::new(StoredDataset::new(rows, part.indices, targets, sample_shape.to_vec(), normalization.clone()));
        (name, dataset)
    });
    Ok((splits.collect(), normalization))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::split::HeldOut;
    use crate::data::{Batch, Normalize, TEST, rows::Table};

    /// `count` samples of two features, `first + index` and 5, of the classes 0 and 1 in turn.
    fn pool(count: usize, first: f32) -> Pool {
        let values = (0..count).flat_map(|index| [first + index as f32, 5.0]).collect();
        Pool {
            path: Path::new("pool").to_owned(),
            rows: Arc::new(Table { values, row_length: 2 }),
            sample_shape: vec![2],
            targets: Targets::classes((0..count as i64).map(|index| index % 2).collect()),
        }
    }

    fn pools(given: Pool, may_lack: bool) -> Pools {
        Pools {
            main: pool(20, 0.0),
            given: BTreeMap::from([(TEST.to_owned(), (given, may_lack))]),
            held_out: BTreeMap::from([("val".to_owned(), HeldOut { fraction: 0.2, stratified: true })]),
            target: Target::classes(2),
        }
    }

    fn all(data: &Data, split: &str) -> Batch {
        let split = &data.splits[split];
        split.gather(&(0..split.len() as u32).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn data_that_is_read_as_needed_is_the_same_as_data_in_memory() {
        for normalize in [Normalize::None, Normalize::Standard, Normalize::Range] {
            let normalize = NormalizeOptions::Fitted(normalize);
            let load = |limit| assemble_within(limit, pools(pool(4, 100.0), false), &normalize, &[], 3).unwrap();
            let (memory, stored) = (load(usize::MAX), load(0));
            assert_eq!(memory.normalization, stored.normalization);
            for (split, size) in [(TRAIN, 16), ("val", 4), (TEST, 4)] {
                let (memory, stored) = (all(&memory, split), all(&stored, split));
                assert_eq!((memory.size, &memory.inputs, &memory.targets), (size, &stored.inputs, &stored.targets));
            }
            assert!(matches!(stored.splits[TEST].gather(&[4]), Err(DataError::OutOfRange { index: 4, length: 4 })));
        }
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
