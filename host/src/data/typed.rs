//! Inputs that keep their own dtypes: those beside the samples' numbers, such as masks, and samples of whole numbers. They
//! are neither normalized nor augmented, and stay where their files are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dataset::{batch_shape, row_length};
use super::rows::TypedRows;
use super::{Batch, DataError, Dataset, SampleType, Targets};

/// An input of a batch beside its samples.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherInput {
    /// Its name in a batch.
    pub name: String,
    /// The shape of one sample of it.
    pub shape: Vec<i64>,
    /// Its dtype.
    pub dtype: SampleType,
}

/// The inputs of their own dtypes of a pool.
#[derive(Clone, Default)]
pub(super) struct Typed {
    /// The samples themselves, if they keep their dtype.
    pub(super) samples: Option<Arc<dyn TypedRows>>,
    /// The inputs beside them.
    pub(super) others: Vec<TypedInput>,
}

/// An input beside the samples, and where it lies.
#[derive(Clone)]
pub(super) struct TypedInput {
    pub(super) input: OtherInput,
    /// The file, for messages.
    pub(super) path: PathBuf,
    pub(super) rows: Arc<dyn TypedRows>,
}

impl Typed {
    /// The dtype of the samples; `None` where they are numbers that are normalized.
    pub(super) fn sample_type(&self) -> Option<SampleType> {
        Some(self.samples.as_ref()?.sample_type())
    }

    /// The inputs beside the samples.
    pub(super) fn inputs(&self) -> Vec<OtherInput> {
        self.others.iter().map(|other| other.input.clone()).collect()
    }

    /// Whether the inputs of the file at `path` are those of the training data: the dtype of its samples, if they keep it, and
    /// its other inputs.
    ///
    /// # Errors
    ///
    /// The first input that is not.
    pub(super) fn check(
        &self,
        path: &Path,
        samples: Option<SampleType>,
        others: &[OtherInput],
    ) -> Result<(), DataError> {
        for (TypedInput { input, path, .. }, expected) in self.others.iter().zip(others) {
            if input != expected {
                let OtherInput { name, shape, dtype } = input;
                let problem = format!(
                    "has `{name}` of the shape {shape:?} and {}, but that of the training data has {:?} and {}",
                    dtype.name(),
                    expected.shape,
                    expected.dtype.name()
                );
                return Err(DataError::malformed(path, &problem));
            }
        }
        match samples {
            // Any numbers become f32.
            Some(expected) if self.sample_type() != samples => {
                let found = self.sample_type().unwrap_or(SampleType::F32).name();
                let problem = format!("has samples of {found}, but the training data has {}", expected.name());
                Err(DataError::malformed(path, &problem))
            }
            _ => Ok(()),
        }
    }

    /// `samples`, the samples of a pool at `indices`, with the inputs beside them.
    pub(super) fn beside(&self, samples: Arc<dyn Dataset>, indices: Vec<u32>) -> Arc<dyn Dataset> {
        match self.others.is_empty() {
            true => samples,
            false => Arc::new(WithOthers { samples, others: self.others.clone(), indices }),
        }
    }
}

/// Samples that keep their dtype.
pub(super) struct TypedDataset {
    rows: Arc<dyn TypedRows>,
    /// The rows of the data set, in its order.
    indices: Vec<u32>,
    /// In the data set's order.
    targets: Targets,
    sample_shape: Vec<i64>,
}

impl TypedDataset {
    /// The samples at `indices` of `rows`, which has samples of `sample_shape`, and their `targets` in the same order.
    pub(super) fn new(
        rows: Arc<dyn TypedRows>,
        indices: Vec<u32>,
        targets: Targets,
        sample_shape: Vec<i64>,
    ) -> TypedDataset {
        TypedDataset { rows, indices, targets, sample_shape }
    }
}

impl Dataset for TypedDataset {
    fn len(&self) -> usize {
        self.indices.len()
    }

    fn sample_shape(&self) -> &[i64] {
        &self.sample_shape
    }

    fn sample_bytes(&self) -> usize {
        bytes(&self.sample_shape, self.rows.sample_type())
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let wanted = chosen(&self.indices, indices)?;
        let inputs = self.rows.gather(&wanted, &batch_shape(indices.len(), &self.sample_shape))?;
        Ok(Batch { inputs, others: Vec::new(), targets: self.targets.gather(indices)?, size: indices.len() })
    }
}

/// Samples with inputs beside them.
struct WithOthers {
    samples: Arc<dyn Dataset>,
    others: Vec<TypedInput>,
    /// The rows of the data set, in its order.
    indices: Vec<u32>,
}

impl Dataset for WithOthers {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn sample_shape(&self) -> &[i64] {
        self.samples.sample_shape()
    }

    fn sample_bytes(&self) -> usize {
        let others = self.others.iter().map(|other| bytes(&other.input.shape, other.input.dtype));
        others.fold(self.samples.sample_bytes(), usize::saturating_add)
    }

    fn are_files(&self) -> bool {
        self.samples.are_files()
    }

    fn gather(&self, indices: &[u32]) -> Result<Batch, DataError> {
        let mut batch = self.samples.gather(indices)?;
        let wanted = chosen(&self.indices, indices)?;
        for TypedInput { input, rows, .. } in &self.others {
            batch.others.push(rows.gather(&wanted, &batch_shape(wanted.len(), &input.shape))?);
        }
        Ok(batch)
    }
}

/// The rows at `indices` of a data set of the rows `all`.
fn chosen(all: &[u32], indices: &[u32]) -> Result<Vec<u32>, DataError> {
    let wanted: Option<Vec<u32>> = indices.iter().map(|index| all.get(*index as usize).copied()).collect();
    wanted.ok_or_else(|| DataError::out_of_range(indices, all.len()))
}

/// The bytes of a sample.
fn bytes(shape: &[i64], dtype: SampleType) -> usize {
    row_length(shape).saturating_mul(dtype.kind().elt_size_in_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use safetensors::tensor::{Dtype, TensorView};
    use tch::{Kind, Tensor};

    use super::*;
    use crate::data::{Data, DataDescription, DataOptions, OTHER, OtherData, Source, TRAIN, Wanted};

    fn bytes<T: Copy, const N: usize>(values: &[T], write: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        values.iter().flat_map(|value| write(*value)).collect()
    }

    /// Six samples: tokens, a mask, weights, and truth values; classes 0 and 1 in turn.
    fn arrays(masks: usize) -> Vec<u8> {
        let ids = bytes(&[1i32, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16_777_217], i32::to_le_bytes);
        let mask = bytes(&(0..2 * masks as i64).collect::<Vec<_>>(), i64::to_le_bytes);
        let weights = bytes(&[0.5f64, 1.5, 2.5, 3.5, 4.5, 5.5], f64::to_le_bytes);
        let classes = bytes(&[0i64, 1, 0, 1, 0, 1], i64::to_le_bytes);
        let tensors = [
            ("ids", TensorView::new(Dtype::I32, vec![6, 2], &ids).unwrap()),
            ("attention", TensorView::new(Dtype::I64, vec![masks, 2], &mask).unwrap()),
            ("weights", TensorView::new(Dtype::F64, vec![6], &weights).unwrap()),
            ("flags", TensorView::new(Dtype::BOOL, vec![6, 1], &[0, 1, 0, 1, 1, 0]).unwrap()),
            ("classes", TensorView::new(Dtype::I64, vec![6], &classes).unwrap()),
        ];
        safetensors::serialize(tensors, None).unwrap()
    }

    fn options(inputs: &str, rest: &str) -> DataOptions {
        let text = format!(
            "format = \"safetensors\"\npath = \"a.safetensors\"\ninputs = {inputs}\ntargets = \"classes\"\n{rest}"
        );
        toml::from_str(&text).unwrap()
    }

    const ALL: &str = "{ inputs = \"ids\", mask = \"attention\", weight = \"weights\", flag = \"flags\" }";

    fn load(options: &DataOptions) -> Result<Data, DataError> {
        Data::load(options, Source::Bytes(&arrays(6)), 1)
    }

    fn told(inputs: &str, rest: &str, bytes: &[u8]) -> String {
        Data::load(&options(inputs, rest), Source::Bytes(bytes), 1).unwrap_err().to_string()
    }

    #[test]
    fn every_input_keeps_its_dtype_and_its_samples_together() {
        let data = load(&options(ALL, "[splits]\nval = { fraction = 0.34 }")).unwrap();
        assert_eq!(data.input_names(), ["inputs", "flag", "mask", "weight"]);
        let (train, val) = (&data.splits[TRAIN], &data.splits["val"]);
        assert_eq!((train.len(), val.len(), train.sample_bytes()), (4, 2, 16 + 1 + 16 + 4));
        for split in [train, val] {
            let batch = split.gather(&[1, 0]).unwrap();
            let [flag, mask, weight] = &batch.others[..] else { panic!("three others") };
            assert_eq!(
                [batch.inputs.kind(), flag.kind(), mask.kind(), weight.kind()],
                [Kind::Int64, Kind::Bool, Kind::Int64, Kind::Float]
            );
            assert_eq!([mask.size(), flag.size(), weight.size()], [vec![2, 2], vec![2, 1], vec![2]]);
            // The first token of the sample of index `i` is 2i + 1, its mask 2i, and its weight i + 0.5.
            let index = (batch.inputs.select(1, 0) - 1).divide_scalar_mode(2, "floor");
            assert_eq!(mask.select(1, 0), &index * 2);
            assert_eq!(*weight, (&index + 0.5).to_kind(Kind::Float));
            assert_eq!(batch.targets, index.remainder(2));
            assert!(split.gather(&[9]).is_err());
        }
        crate::data::tests::check_empty_batches(&data);
    }

    #[test]
    fn numbers_beyond_f32_are_kept_and_normalized_ones_are_f32() {
        let all: Vec<u32> = (0..6).collect();
        let inputs = |options: &DataOptions| load(options).unwrap().splits[TRAIN].gather(&all).unwrap().inputs;
        let own = inputs(&options("{ inputs = \"ids\" }", ""));
        assert_eq!((own.kind(), own.int64_value(&[5, 1])), (Kind::Int64, 16_777_217));
        assert_eq!(inputs(&options("\"ids\"", "")).kind(), Kind::Float);
        let range = options("{ inputs = \"ids\", mask = \"attention\" }", "normalize = \"range\"");
        assert_eq!((inputs(&range).kind(), inputs(&range).max().double_value(&[])), (Kind::Float, 1.0));
        // One array may be two inputs.
        let twice = load(&options("{ inputs = \"ids\", labels = \"ids\" }", "")).unwrap().splits[TRAIN].gather(&all);
        assert!(twice.is_ok_and(|batch| batch.inputs == batch.others[0]));
        // Without `inputs`, the samples are the first by name.
        let named = load(&options("{ tokens = \"ids\", mask = \"attention\" }", "")).unwrap();
        assert_eq!((named.input_names(), named.sample_type), (vec!["mask".into(), "tokens".into()], SampleType::I64));
    }

    #[test]
    fn what_does_not_belong_together_is_named() {
        let file = arrays(6);
        let found = [
            told(ALL, "", &arrays(5)),
            told("{ inputs = \"ids\", mask = \"atention\" }", "", &file),
            told("{ inputs = \"ids\", targets = \"attention\" }", "", &file),
            told("{ \"my mask\" = \"attention\" }", "", &file),
            told("{}", "", &file),
            told("{ tokens = \"ids\" }", "normalize = \"standard\"", &file),
            told("{ tokens = \"ids\" }", "shape = [2]", &file),
        ];
        insta::assert_snapshot!(found.join("\n"), @r#"
        `a.safetensors` array `ids` has 6 samples, but array `attention` has 5
        `a.safetensors` has no array `atention`; it has `attention`, `classes`, `flags`, `ids`, `weights`; did you mean `attention`?
        `data.inputs` = `targets` must be a name of letters, digits and `_`, other than `targets` and `outputs`
        `data.inputs` = `my mask` must be a name of letters, digits and `_`, other than `targets` and `outputs`
        `data.inputs` = `{}` must be the name of an array, or a table with an entry for each input
        `data.normalize` = `given` must be omitted: it is about the input that is called `inputs`, and none is
        `data.shape` = `given` must be omitted: it is about the input that is called `inputs`, and none is
        "#);
    }

    #[test]
    fn other_data_is_read_with_all_inputs_and_the_fingerprint_is_of_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        std::fs::write(&path, arrays(6)).unwrap();
        let options = options(ALL, "");
        let data = Data::load(&options, Source::Folder(folder.path()), 1).unwrap();
        let text = DataDescription::new(&data).text().unwrap();
        let description = DataDescription::parse(&text).unwrap();
        assert_eq!(description, DataDescription::new(&data));
        let described = Data::described(&description);
        assert_eq!((described.others.clone(), described.sample_type), (data.others.clone(), SampleType::I64));
        let other = OtherData::read(&options, &description, &path, Wanted::IfPresent).unwrap();
        let all: Vec<u32> = (0..6).collect();
        let [own, other] = [&data.splits[TRAIN], &other.data.splits[OTHER]].map(|split| split.gather(&all).unwrap());
        assert_eq!((own.inputs, own.others), (other.inputs, other.others));

        let without = load(&self::options("{ inputs = \"ids\" }", "")).unwrap();
        assert_ne!(data.fingerprint().unwrap(), without.fingerprint().unwrap());
        std::fs::write(folder.path().join("b.safetensors"), arrays(5)).unwrap();
        let wrong = OtherData::read(&options, &description, &folder.path().join("b.safetensors"), Wanted::IfPresent);
        assert!(wrong.unwrap_err().to_string().contains("has 6 samples, but array `attention` has 5"));
        let flat = self::options(&ALL.replace("attention", "weights"), "");
        let wrong = OtherData::read(&flat, &description, &path, Wanted::IfPresent).unwrap_err().to_string();
        assert!(
            wrong.ends_with("has `mask` of the shape [] and float32, but that of the training data has [2] and int64")
        );
    }

    proptest! {
        #[test]
        fn whole_numbers_come_back_whatever_their_type(values in prop::collection::vec(any::<u64>(), 1..9)) {
            let stored = bytes(&values, u64::to_le_bytes);
            let classes = vec![0u8; values.len()];
            let count = values.len();
            let tensors = [
                ("ids", TensorView::new(Dtype::U64, vec![count, 1], &stored).unwrap()),
                ("classes", TensorView::new(Dtype::U8, vec![count], &classes).unwrap()),
            ];
            let file = safetensors::serialize(tensors, None).unwrap();
            let options = options("{ inputs = \"ids\" }", "");
            let data = Data::load(&options, Source::Bytes(&file), 1).unwrap();
            let all: Vec<u32> = (0..count as u32).collect();
            let read = data.splits[TRAIN].gather(&all);
            let expected: Option<Vec<i64>> = values.iter().map(|value| i64::try_from(*value).ok()).collect();
            match expected {
                Some(expected) => prop_assert_eq!(read.unwrap().inputs.reshape([-1]), Tensor::from_slice(&expected)),
                None => prop_assert!(read.unwrap_err().to_string().contains("no 64-bit integer")),
            }
        }
    }
}
