//! `[model] init_from`: weights from a safetensors file, such as a saved state dict of PyTorch.

use std::path::{Path, PathBuf};

use safetensors::{Dtype as FileDtype, SafeTensors};
use tch::{Kind, Tensor};

use super::{error::ModelError, named_tensor::NamedTensor, network::Network};
use crate::report::{Report, list, nearest};

/// Why a file's weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read the weights `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a safetensors file.
    #[error("`{}` is not a safetensors file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// A tensor has another shape in the file than in the model.
    #[error("`{name}` has shape {found:?} in `{}`, but {expected:?} in the model", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape in the model.
        expected: Vec<i64>,
        /// Its shape in the file.
        found: Vec<usize>,
    },
    /// A weight cannot have a tensor's dtype.
    #[error("`{name}` has dtype {found} in `{}`, which a weight cannot have", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its dtype.
        found: String,
    },
    /// The file has none of the model's tensors.
    #[error("`{}` has none of the model's tensors", path.display())]
    NothingMatches {
        /// The file.
        path: PathBuf,
        /// Names of the model.
        expected: Vec<String>,
        /// Names of the file.
        found: Vec<String>,
    },
}

impl Report for WeightsError {
    fn hint(&self) -> Option<String> {
        match self {
            WeightsError::Read { .. } => Some("`init_from` is relative to the run file".to_owned()),
            WeightsError::Format { .. } => {
                Some("in Python, `safetensors.torch.save_file(model.state_dict(), path)` writes one".to_owned())
            }
            WeightsError::Shape { .. } => {
                Some("give the layer the shape of the saved weights, or another `name`".to_owned())
            }
            WeightsError::Dtype { .. } => Some("f32, f16, bf16 and f64 are accepted".to_owned()),
            WeightsError::NothingMatches { expected, found, .. } => {
                let few = |names: &[String]| list(names.iter().take(4).map(String::as_str), "and");
                Some(format!("the file has {}; the model has {}", few(found), few(expected)))
            }
        }
    }
}

/// The most names that a message lists.
const SHOWN: usize = 4;

/// A file whose tensors were compared with a model's.
#[derive(Debug)]
pub struct InitialWeights {
    path: PathBuf,
    bytes: Vec<u8>,
    matched: Vec<String>,
    /// Names of the model that the file does not have.
    missing: Vec<String>,
    /// Names of the file that the model does not have.
    unused: Vec<String>,
}

impl InitialWeights {
    /// Reads the file and matches its names with those of the model's `tensors`, each with its shape. Writes nothing
    /// yet.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, a tensor of another shape, or no match at all.
    pub fn read<'a>(path: &Path, tensors: impl IntoIterator<Item = (&'a str, Vec<i64>)>) -> Result<Self, WeightsError> {
        let path = path.to_owned();
        let bytes = std::fs::read(&path).map_err(|source| WeightsError::Read { path: path.clone(), source })?;
        let file =
            SafeTensors::deserialize(&bytes).map_err(|source| WeightsError::Format { path: path.clone(), source })?;
        let (mut matched, mut missing) = (Vec::new(), Vec::new());
        for (name, expected) in tensors {
            let name = name.to_owned();
            let Ok(tensor) = file.tensor(&name) else {
                missing.push(name);
                continue;
            };
            let same = tensor.shape().iter().map(|&length| length as i64).eq(expected.iter().copied());
            if !same {
                let found = tensor.shape().to_vec();
                return Err(WeightsError::Shape { path, name, expected, found });
            }
            if kind(tensor.dtype()).is_none() {
                return Err(WeightsError::Dtype { path, name, found: format!("{:?}", tensor.dtype()) });
            }
            matched.push(name);
        }
        let mut unused: Vec<String> =
            file.names().into_iter().filter(|name| !matched.iter().any(|own| own == name)).map(str::to_owned).collect();
        unused.sort_unstable();
        if matched.is_empty() {
            return Err(WeightsError::NothingMatches { path, expected: missing, found: unused });
        }
        Ok(Self { path, bytes, matched, missing, unused })
    }

    /// Writes the matching tensors into `network`, which must have the model that was read for.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn write_into(&self, network: &mut Network) -> Result<(), ModelError> {
        // The first read has rejected a damaged file.
        let Ok(file) = SafeTensors::deserialize(&self.bytes) else { return Ok(()) };
        let mut values = Vec::with_capacity(self.matched.len());
        for name in &self.matched {
            let Ok(tensor) = file.tensor(name) else { continue };
            let Some(from) = kind(tensor.dtype()) else { continue };
            let shape: Vec<i64> = tensor.shape().iter().map(|&length| length as i64).collect();
            let value = Tensor::f_from_data_size(tensor.data(), &shape, from)?;
            let value = value.f_to_kind(network.tensor(name)?.kind())?;
            values.push(NamedTensor { name: name.clone(), tensor: value });
        }
        network.write_all(&values)
    }

    /// The tensors that matched and those that did not, for people.
    pub fn report(&self) -> String {
        let total = self.matched.len() + self.missing.len();
        let mut text = format!("weights: {} of {total} tensors from `{}`", self.matched.len(), self.path.display());
        for (names, what) in [(&self.missing, "the file lacks"), (&self.unused, "the model lacks")] {
            if names.is_empty() {
                continue;
            }
            let more = match names.len().saturating_sub(SHOWN) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            text.push_str(&format!("; {what} {}{more}", list(names.iter().take(SHOWN).map(String::as_str), "and")));
        }
        let alike = self.missing.iter().find_map(|name| {
            let near = nearest(name, self.unused.iter().map(String::as_str));
            Some(format!(" (is `{}` of the file `{name}` of the model?)", near.first()?))
        });
        text + alike.unwrap_or_default().as_str()
    }
}

fn kind(dtype: FileDtype) -> Option<Kind> {
    match dtype {
        FileDtype::F32 => Some(Kind::Float),
        FileDtype::F64 => Some(Kind::Double),
        FileDtype::F16 => Some(Kind::Half),
        FileDtype::BF16 => Some(Kind::BFloat16),
        FileDtype::I64 => Some(Kind::Int64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tch::Device;

    use super::*;
    use crate::model::{Dtype, Graph, ModelOptions};

    fn graph(layers: &str) -> Arc<Graph> {
        let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
        Arc::new(options.lower(&[3], Dtype::F32).unwrap())
    }

    /// A file of f32 tensors, all elements equal.
    fn file(tensors: &[(&str, &[usize], f32)]) -> tempfile::NamedTempFile {
        let bytes: Vec<(Vec<usize>, Vec<u8>)> = tensors
            .iter()
            .map(|(_, shape, value)| (shape.to_vec(), value.to_le_bytes().repeat(shape.iter().product())))
            .collect();
        let views = tensors.iter().zip(&bytes).map(|((name, ..), (shape, bytes))| {
            (*name, safetensors::tensor::TensorView::new(FileDtype::F32, shape.clone(), bytes).unwrap())
        });
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), safetensors::serialize(views, None).unwrap()).unwrap();
        file
    }

    #[test]
    fn what_matches_is_written_and_the_rest_is_told() {
        let graph =
            graph(r#"{ type = "linear", out_features = 2 }, { type = "linear", out_features = 2, name = "head" }"#);
        let file = file(&[("fc1.weight", &[2, 3], 0.5), ("fc1.bias", &[2], 2.0), ("heads.weight", &[2, 2], 1.0)]);
        let weights = InitialWeights::read(file.path(), graph.tensors()).unwrap();
        let mut network = Network::new(graph, 1, Device::Cpu).unwrap();
        let head = network.tensor("head.weight").unwrap().copy();
        weights.write_into(&mut network).unwrap();
        assert_eq!(network.tensor("fc1.weight").unwrap().mean(Kind::Float).double_value(&[]), 0.5);
        assert_eq!(network.tensor("fc1.bias").unwrap().mean(Kind::Float).double_value(&[]), 2.0);
        assert_eq!(network.tensor("head.weight").unwrap(), &head);
        let report = weights.report().replace(&file.path().display().to_string(), "FILE");
        assert_eq!(
            report,
            "weights: 2 of 4 tensors from `FILE`; the file lacks `head.weight` and `head.bias`; the model lacks \
             `heads.weight` (is `heads.weight` of the file `head.weight` of the model?)"
        );
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let graph = graph(r#"{ type = "linear", out_features = 2 }"#);
        let other_shape = file(&[("fc1.weight", &[3, 2], 0.5)]);
        let error = InitialWeights::read(other_shape.path(), graph.tensors()).unwrap_err();
        assert!(error.to_string().starts_with("`fc1.weight` has shape [3, 2] in"), "{error}");
        let nothing = file(&[("classifier.weight", &[2, 3], 0.5)]);
        let error = InitialWeights::read(nothing.path(), graph.tensors()).unwrap_err();
        assert_eq!(
            error.hint().unwrap(),
            "the file has `classifier.weight`; the model has `fc1.weight` and `fc1.bias`"
        );
        let damaged = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(damaged.path(), b"not one").unwrap();
        assert!(matches!(InitialWeights::read(damaged.path(), graph.tensors()), Err(WeightsError::Format { .. })));
        assert!(matches!(InitialWeights::read(Path::new("nowhere"), graph.tensors()), Err(WeightsError::Read { .. })));
    }
}
