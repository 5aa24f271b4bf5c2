//! `[model] torchscript`: a TorchScript module as a network.

use std::path::{Path, PathBuf};

use tch::Device;

use super::{error::ModelError, execute::Mode, named_tensor::NamedTensor, network::Network, script_code::refused};
use crate::report::Report;
use crate::torch::{ScriptModule, TorchError, script_code};

/// Why a file cannot be trained as a TorchScript module.
#[derive(Debug, thiserror::Error)]
pub enum TorchScriptError {
    /// The file cannot be read.
    #[error("cannot read the TorchScript module `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a TorchScript module, or has an unsupported version.
    #[error("`{}` is not a TorchScript module", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The message of libtorch.
        source: TorchError,
    },
    /// Its code calls what a model may not.
    #[error("the TorchScript module `{}` is refused: its code {what} (`{place}`)", path.display())]
    Code {
        /// The file.
        path: PathBuf,
        /// The source in its archive.
        place: String,
        /// What its code does, such as "calls the operator `from_file`".
        what: String,
    },
    /// It cannot be trained.
    #[error("the TorchScript module `{}` cannot be trained", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<ModelError>,
    },
}

impl Report for TorchScriptError {
    fn hint(&self) -> Option<String> {
        match self {
            TorchScriptError::Read { .. } => Some("`torchscript` is relative to the run file".to_owned()),
            TorchScriptError::Format { .. } => Some(
                "in Python, `torch.jit.script(model).save(path)` writes one; files of `torch.save` do not work"
                    .to_owned(),
            ),
            TorchScriptError::Model { source, .. } if **source == ModelError::NothingToTrain => {
                Some("`torch.jit.freeze` turns parameters into constants: save the module without it".to_owned())
            }
            TorchScriptError::Code { .. } => Some(
                "a model may compute, and neither read nor write files; a method of its own with such a name needs another one"
                    .to_owned(),
            ),
            TorchScriptError::Model { .. } => None,
        }
    }
}

impl Network {
    /// The TorchScript module in a file, with its saved weights, on `device`. Its tensors have the names of
    /// PyTorch's state dict; those that require gradients are the parameters.
    ///
    /// # Errors
    ///
    /// See [`TorchScriptError`].
    pub fn torchscript(path: &Path, device: Device) -> Result<Network, TorchScriptError> {
        let bytes = std::fs::read(path).map_err(|source| TorchScriptError::Read { path: path.to_owned(), source })?;
        let format = |source| TorchScriptError::Format { path: path.to_owned(), source };
        for (place, source) in script_code(&bytes).map_err(format)? {
            // Beside the sources lie notes for debuggers.
            let is_source = place.to_ascii_lowercase().ends_with(".py");
            if let Some(what) = is_source.then(|| refused(&source)).flatten() {
                return Err(TorchScriptError::Code { path: path.to_owned(), place, what });
            }
        }
        let module = ScriptModule::load(&bytes, device).map_err(format)?;
        let tensors = module.tensors().map_err(format)?;
        let tensors = tensors.into_iter().map(|(name, tensor)| NamedTensor { name, tensor }).collect();
        let forward = move |input: &tch::Tensor, mode| Ok(module.forward(input, mode == Mode::Train)?);
        Network::custom(tensors, device, forward)
            .map_err(|source| TorchScriptError::Model { path: path.to_owned(), source: Box::new(source) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use tch::{Kind, Tensor};

    use super::*;
    use crate::torch::{manual_seed, test_support, values};

    /// The output of `tests/figures/torchscript.py`.
    fn network() -> Network {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/torchscript.pt");
        Network::torchscript(&path, Device::Cpu).unwrap()
    }

    fn images() -> Tensor {
        Tensor::arange(4 * 64, (Kind::Float, Device::Cpu)).sin().reshape([4, 1, 8, 8])
    }

    fn names(tensors: &[NamedTensor]) -> Vec<&str> {
        tensors.iter().map(|named| named.name.as_str()).collect()
    }

    #[test]
    fn parameters_and_buffers_have_the_names_of_the_state_dict() {
        let network = network();
        let mut parameters = names(network.parameters());
        parameters.sort_unstable();
        assert_eq!(
            parameters,
            [
                "features.0.bias",
                "features.0.weight",
                "features.1.bias",
                "features.1.weight",
                "head.bias",
                "head.weight"
            ]
        );
        let mut buffers = names(network.buffers());
        buffers.sort_unstable();
        let batch_norm =
            ["num_batches_tracked", "running_mean", "running_var"].map(|name| format!("features.1.{name}"));
        assert_eq!(buffers, [&["calls"], &batch_norm.each_ref().map(String::as_str)[..], &["scale"]].concat());
    }

    #[test]
    fn training_moves_the_buffers_and_evaluation_nothing() {
        let _generator = test_support::default_generator();
        let mut network = network();
        network.try_on((&[1, 8, 8], Kind::Float)).unwrap();
        assert_eq!(network.output_shape(), Some(&[10i64][..]));
        let before = network.copy().unwrap();
        let state = crate::torch::random::generator_state(Device::Cpu).unwrap();
        let first = network.forward(&images(), Mode::Evaluate).unwrap();
        assert_eq!(first, network.forward(&images(), Mode::Evaluate).unwrap());
        assert_eq!(state, crate::torch::random::generator_state(Device::Cpu).unwrap());
        for named in &before {
            assert_eq!(&named.tensor, network.tensor(&named.name).unwrap(), "{}", named.name);
        }
        for calls in 1..4 {
            let _ = network.forward(&images(), Mode::Train).unwrap();
            for counter in ["calls", "features.1.num_batches_tracked"] {
                assert_eq!(network.tensor(counter).unwrap().int64_value(&[]), calls);
            }
        }
        let mean = before.iter().find(|named| named.name == "features.1.running_mean").unwrap();
        assert_ne!(&mean.tensor, network.tensor("features.1.running_mean").unwrap());
        assert_eq!(network.tensor("scale").unwrap().double_value(&[0]), 1.0);
    }

    #[test]
    fn a_call_gives_the_bits_of_the_first_one() {
        let _generator = test_support::default_generator();
        let network = network();
        let start = network.copy().unwrap();
        let step = |network: &Network| {
            manual_seed(4);
            for parameter in network.parameters() {
                parameter.tensor.shallow_clone().zero_grad();
            }
            let output = network.forward(&images(), Mode::Train).unwrap();
            output.square().mean(Kind::Float).backward();
            (output, network.gradient("features.0.weight").unwrap().unwrap().copy())
        };
        let first = step(&network);
        // After so many calls, libtorch's profiling executor would have rewritten the graph.
        for _ in 0..4 {
            assert_eq!(step(&network), first);
        }
        let mut written = super::tests::network();
        written.write_all(&start).unwrap();
        assert_eq!(step(&written), first);
        assert!(values::scalar(&first.0.abs().max()).unwrap() > 0.0);
    }

    #[test]
    fn files_that_are_no_modules_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = |bytes: Option<&[u8]>| {
            let path = folder.path().join("model.pt");
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
            }
            let error = Network::torchscript(&path, Device::Cpu).unwrap_err();
            let text = error.to_string().replace(&path.display().to_string(), "FILE");
            (text, error.hint().unwrap())
        };
        assert_eq!(error(None).0, "cannot read the TorchScript module `FILE`");
        let module =
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/torchscript.pt")).unwrap();
        for bytes in [&b""[..], b"not one", &module[..module.len() / 2]] {
            let (text, hint) = error(Some(bytes));
            assert_eq!(text, "`FILE` is not a TorchScript module");
            assert!(hint.contains("torch.jit.script"), "{hint}");
        }
    }

    /// The module of [`network`] with other source.
    fn with_code(change: impl Fn(&str) -> String) -> Result<Network, TorchScriptError> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/torchscript.pt");
        let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
        let mut copy = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for index in 0..archive.len() {
            let mut record = archive.by_index(index).unwrap();
            let mut content = Vec::new();
            record.read_to_end(&mut content).unwrap();
            if record.name().ends_with("code/__torch__.py") {
                content = change(std::str::from_utf8(&content).unwrap()).into_bytes();
            }
            let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            copy.start_file(record.name().to_owned(), stored).unwrap();
            copy.write_all(&content).unwrap();
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), copy.finish().unwrap().into_inner()).unwrap();
        Network::torchscript(file.path(), Device::Cpu)
    }

    #[test]
    fn a_module_that_opens_a_file_is_refused_before_any_of_it_runs() {
        let read = "torch.from_file(\"/etc/hostname\", False, 1, dtype=0)";
        let in_forward = |source: &str| {
            source.replacen("torch.flatten(", &format!("torch.add({read}, 0)\n    _9 = torch.flatten("), 1)
        };
        assert!(with_code(str::to_owned).is_ok());
        let error = with_code(in_forward).unwrap_err();
        assert!(
            matches!(&error, TorchScriptError::Code { what, place, .. }
            if what == "calls the operator `from_file`" && place == "code/__torch__.py"),
            "{error:?}"
        );
    }
}
