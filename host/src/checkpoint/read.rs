//! Reading: everything is verified before it is used.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::hashing::HashingReader;
use super::manifest::{EarlierWeights, ListedFile, Manifest};
use super::tensors::{self, OwnedTensor, TensorFile, TensorSink};
use super::{CheckpointError, DATA, GRAPH, OLD_DATA, PLUGINS, RUN_FILE, STATE, State, plugin_path};
use crate::history::Position;
use crate::regular_file;

/// A verified checkpoint. It holds no open file and no content in memory.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    manifest: Manifest,
}

impl Checkpoint {
    /// Opens a checkpoint and verifies all of it: the manifest, every size, and then every SHA-256.
    ///
    /// # Errors
    /// The first thing that has changed.
    pub fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint { path: path.to_owned(), manifest: Manifest::read(path)? };
        // Check the sizes first, so that a truncated file is found before gigabytes are read.
        for file in &checkpoint.manifest.files {
            checkpoint.open_file(file)?;
        }
        for file in &checkpoint.manifest.files {
            let input = HashingReader::new(checkpoint.open_file(file)?);
            checkpoint.verify(file, input)?;
        }
        Ok(checkpoint)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The point of the training.
    pub fn position(&self) -> Position {
        self.manifest.position
    }

    /// The version of the host that wrote it.
    pub fn host_version(&self) -> &str {
        &self.manifest.host_version
    }

    /// Where the model's weights come from, if not from the last step.
    pub fn earlier_weights(&self) -> Option<&EarlierWeights> {
        self.manifest.weights.as_ref()
    }

    /// Position, history and the rest.
    ///
    /// # Errors
    /// The file has changed since [`Checkpoint::open`], or does not have this host's format.
    pub fn state(&self) -> Result<State, CheckpointError> {
        let bytes = self.read(STATE)?;
        serde_json::from_slice(&bytes).map_err(|error| self.malformed(STATE, error))
    }

    /// The model's graph as JSON; `null` if there is none.
    ///
    /// # Errors
    /// The file has changed since [`Checkpoint::open`], or is not UTF-8.
    pub fn graph(&self) -> Result<String, CheckpointError> {
        String::from_utf8(self.read(GRAPH)?).map_err(|error| self.malformed(GRAPH, error))
    }

    /// What the model was trained on, as JSON; `None` in a checkpoint of an older host.
    ///
    /// # Errors
    /// The file has changed since [`Checkpoint::open`], or is not UTF-8.
    pub fn data(&self) -> Result<Option<String>, CheckpointError> {
        [DATA, OLD_DATA]
            .into_iter()
            .find(|name| self.listed(name).is_some())
            .map(|name| String::from_utf8(self.read(name)?).map_err(|error| self.malformed(name, error)))
            .transpose()
    }

    /// The resolved run file.
    ///
    /// # Errors
    /// The file has changed since [`Checkpoint::open`], or is not UTF-8.
    pub fn run_file(&self) -> Result<String, CheckpointError> {
        String::from_utf8(self.read(RUN_FILE)?).map_err(|error| self.malformed(RUN_FILE, error))
    }

    /// A file of the model, by its name, if the checkpoint has it.
    pub fn model_file(&self, name: &str) -> Option<PathBuf> {
        Some(self.path.join(&self.listed(name)?.path))
    }

    /// The names of the plugin instances with a state.
    pub fn plugins(&self) -> impl Iterator<Item = &str> {
        self.manifest
            .files
            .iter()
            .filter_map(|file| file.path.strip_prefix(PLUGINS)?.strip_prefix('/')?.strip_suffix(".bin"))
    }

    /// The state of a plugin instance, if it has one.
    ///
    /// # Errors
    /// The file has changed since [`Checkpoint::open`].
    pub fn plugin(&self, instance: &str) -> Result<Option<Vec<u8>>, CheckpointError> {
        let path = plugin_path(instance);
        self.listed(&path).map(|_| self.read(&path)).transpose()
    }

    /// Reads the tensors of a file into the sink's buffers, in one pass.
    ///
    /// # Errors
    /// The file has changed since [`Checkpoint::open`] or is not a safetensors file, or a buffer has another size than
    /// its tensor. The content of the buffers is then undefined.
    pub fn load(&self, file: TensorFile, sink: &mut dyn TensorSink) -> Result<(), CheckpointError> {
        let listed = self.require(file.path())?;
        let mut input = HashingReader::new(self.open_file(listed)?);
        let read = tensors::read(&self.path.join(file.path()), listed.bytes, &mut input, sink);
        match read {
            // If the file has changed, that explains a malformed one better.
            Ok(()) | Err(CheckpointError::MalformedTensors { .. }) => {
                self.verify(listed, input)?;
                read
            }
            Err(error) => Err(error),
        }
    }

    /// The tensors of a file, in the file's order.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn tensors(&self, file: TensorFile) -> Result<Vec<OwnedTensor>, CheckpointError> {
        let mut tensors = Vec::new();
        self.load(file, &mut tensors)?;
        Ok(tensors)
    }

    /// The verified bytes of a listed file.
    fn read(&self, path: &str) -> Result<Vec<u8>, CheckpointError> {
        let listed = self.require(path)?;
        let mut input = HashingReader::new(self.open_file(listed)?);
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(CheckpointError::io("read", &self.path.join(path)))?;
        self.verify(listed, input)?;
        Ok(bytes)
    }

    fn listed(&self, path: &str) -> Option<&ListedFile> {
        self.manifest.files.iter().find(|file| file.path == path)
    }

    fn require(&self, path: &str) -> Result<&ListedFile, CheckpointError> {
        self.listed(path).ok_or_else(|| CheckpointError::MissingFile(self.path.join(path)))
    }

    /// Opens a listed file after checking its size.
    fn open_file(&self, listed: &ListedFile) -> Result<File, CheckpointError> {
        let path = self.path.join(&listed.path);
        let opened = regular_file::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((found, file)) if found == listed.bytes => Ok(file),
            Ok((found, _)) => Err(CheckpointError::SizeDiffers { path, expected: listed.bytes, found }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CheckpointError::MissingFile(path)),
            Err(error) => Err(CheckpointError::io("read", &path)(error)),
        }
    }

    /// Reads the rest of a listed file and compares all of it with the manifest.
    fn verify(&self, listed: &ListedFile, input: HashingReader<File>) -> Result<(), CheckpointError> {
        let path = self.path.join(&listed.path);
        let (bytes, sha256) = input.finish().map_err(CheckpointError::io("read", &path))?;
        if bytes != listed.bytes {
            return Err(CheckpointError::SizeDiffers { path, expected: listed.bytes, found: bytes });
        }
        if sha256 != listed.sha256 {
            return Err(CheckpointError::DigestDiffers { path, expected: listed.sha256.clone(), found: sha256 });
        }
        Ok(())
    }

    fn malformed(&self, path: &str, error: impl std::error::Error + Send + Sync + 'static) -> CheckpointError {
        CheckpointError::MalformedContent { path: self.path.join(path), source: Box::new(error) }
    }
}
