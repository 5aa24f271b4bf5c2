//! The files of a model that is not made of layers.

use std::path::{Path, PathBuf};

use super::layers::ModelOptions;

/// What such a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFile {
    /// A TorchScript module.
    TorchScript,
    /// A program of `torch.export.save`.
    Exported,
    /// The program for evaluation, beside the one for training.
    ExportedEval,
}

impl ModelFile {
    /// Its key in `[model]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::TorchScript => "torchscript",
            Self::Exported => "exported",
            Self::ExportedEval => "exported_eval",
        }
    }

    /// Its name in a checkpoint.
    pub fn saved_name(self) -> &'static str {
        match self {
            Self::TorchScript => "model.pt",
            Self::Exported => "model.pt2",
            Self::ExportedEval => "model_eval.pt2",
        }
    }
}

impl ModelOptions {
    /// The files of the model, that of the model for training first; none for one that is made of layers.
    pub fn files(&self) -> Vec<(ModelFile, &Path)> {
        let all = [
            (ModelFile::TorchScript, &self.torchscript),
            (ModelFile::Exported, &self.exported),
            (ModelFile::ExportedEval, &self.exported_eval),
        ];
        all.into_iter().filter_map(|(file, path)| Some((file, path.as_deref()?))).collect()
    }

    /// The same, to be changed.
    pub fn files_mut(&mut self) -> impl Iterator<Item = (ModelFile, &mut PathBuf)> {
        let all = [
            (ModelFile::TorchScript, &mut self.torchscript),
            (ModelFile::Exported, &mut self.exported),
            (ModelFile::ExportedEval, &mut self.exported_eval),
        ];
        all.into_iter().filter_map(|(file, path)| Some((file, path.as_mut()?)))
    }
}
