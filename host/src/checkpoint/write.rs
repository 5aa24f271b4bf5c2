//! Writing: all or nothing.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::durable::{TemporaryFolder, create_folders, replace_folder, sync_folder};
use super::hashing::HashingWriter;
use super::manifest::{EarlierWeights, ListedFile, Manifest};
use super::tensors::{TensorFile, TensorRef, TensorWriter};
use super::{CheckpointError, DATA, GRAPH, MANIFEST, PLUGINS, RUN_FILE, STATE, State, plugin_path};

/// Smaller writes are buffered in pieces of this many bytes; larger ones are not.
const BUFFER: usize = 1024 * 1024;

/// The content of a checkpoint, borrowed.
#[derive(Clone, Debug)]
pub struct CheckpointContents<'a> {
    /// Where the weights come from, if not from the last step.
    pub weights: Option<&'a EarlierWeights>,
    /// Parameters and buffers.
    pub model: Vec<TensorRef<'a>>,
    /// The optimizer's state.
    pub optimizer: Vec<TensorRef<'a>>,
    /// Named copies of the weights, `<copy>/<tensor>`.
    pub copies: Vec<TensorRef<'a>>,
    /// The states of the random number generators.
    pub rng: Vec<TensorRef<'a>>,
    /// Position, history and the rest.
    pub state: &'a State,
    /// The model's graph as JSON; `null` if there is none.
    pub graph: &'a str,
    /// What the model was trained on, as JSON.
    pub data: &'a str,
    /// The resolved run file.
    pub run_file: &'a str,
    /// The files of a model that is not made of layers: their names, such as `model.pt2`, and their bytes.
    pub model_files: Vec<(&'static str, &'a [u8])>,
    /// The states of the plugin instances.
    pub plugins: Vec<PluginState<'a>>,
}

/// The state of a plugin instance in a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct PluginState<'a> {
    /// The instance's name: `[a-z0-9-]+`, unique.
    pub instance: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// The result of [`write()`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The checkpoint.
    pub path: PathBuf,
    /// The size of all its files, in bytes.
    pub bytes: u64,
    /// The new place of a damaged checkpoint that had the same name.
    pub moved_aside: Option<PathBuf>,
}

/// Writes a checkpoint to `destination`, whose parent is made if necessary.
///
/// Runs on any thread; reads the borrowed bytes once. If `destination` already exists:
/// - a checkpoint of the same position is replaced (a resumed run reached it again), atomically if the system can;
/// - a folder that is not a valid checkpoint is moved aside, so that a damaged one does not end the run;
/// - anything else stays, and is an error.
///
/// # Errors
/// Contents that do not fit the format, an occupied destination, or an error of the system. Then `destination` is
/// unchanged, and the temporary folder is removed.
pub fn write(contents: &CheckpointContents<'_>, destination: &Path) -> Result<Written, CheckpointError> {
    let (Some(parent), Some(name)) = (destination.parent(), destination.file_name().and_then(|name| name.to_str()))
    else {
        return Err(CheckpointError::Exists(destination.to_owned()));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let before = occupant(destination, contents)?;
    create_folders(parent)?;
    let temporary = TemporaryFolder::create(parent, name)?;
    let bytes = fill(temporary.path(), contents)?;

    let mut moved_aside = None;
    match before {
        Occupant::None => rename(temporary.path(), destination)?,
        Occupant::SamePosition => {
            replace_folder(temporary.path(), destination).map_err(CheckpointError::io("replace", destination))?
        }
        Occupant::Damaged => {
            let aside = free_name(parent, name);
            rename(destination, &aside)?;
            moved_aside = Some(aside);
            rename(temporary.path(), destination)?;
        }
    }
    sync_folder(parent)?;
    Ok(Written { path: destination.to_owned(), bytes, moved_aside })
}

/// What already has the name of the new checkpoint.
enum Occupant {
    None,
    SamePosition,
    Damaged,
}

fn occupant(destination: &Path, contents: &CheckpointContents<'_>) -> Result<Occupant, CheckpointError> {
    let kind = match fs::symlink_metadata(destination) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Occupant::None),
        Err(error) => return Err(CheckpointError::io("read", destination)(error)),
    };
    if !kind.is_dir() {
        return Err(CheckpointError::Exists(destination.to_owned()));
    }
    match Manifest::read(destination) {
        Ok(manifest) if manifest.position == contents.state.position => Ok(Occupant::SamePosition),
        // A checkpoint of a later host is not damaged.
        Ok(_) | Err(CheckpointError::UnknownFormatVersion { .. }) => {
            Err(CheckpointError::Exists(destination.to_owned()))
        }
        Err(error @ CheckpointError::Io { .. }) => Err(error),
        Err(_) => Ok(Occupant::Damaged),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), CheckpointError> {
    fs::rename(from, to).map_err(CheckpointError::io("rename", from))
}

/// An unused name, derived from `name`.
fn free_name(parent: &Path, name: &str) -> PathBuf {
    let mut count = 1_u64;
    loop {
        let path = parent.join(format!("{name}.damaged-{count}"));
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
        count += 1;
    }
}

/// Writes every file into the empty folder and flushes it; returns the number of bytes.
fn fill(folder: &Path, contents: &CheckpointContents<'_>) -> Result<u64, CheckpointError> {
    let mut files = Vec::new();
    for file in TensorFile::ALL {
        let tensors = match file {
            TensorFile::Model => &contents.model,
            TensorFile::Optimizer => &contents.optimizer,
            TensorFile::Copies => &contents.copies,
            TensorFile::Rng => &contents.rng,
        };
        let writer = TensorWriter::new(file.path(), tensors)?;
        files.push(write_file(folder, file.path(), |output| writer.write(output))?);
    }
    files.push(write_file(folder, STATE, |output| Ok(serde_json::to_writer(output, contents.state)?))?);
    files.push(write_file(folder, GRAPH, |output| output.write_all(contents.graph.as_bytes()))?);
    files.push(write_file(folder, DATA, |output| output.write_all(contents.data.as_bytes()))?);
    files.push(write_file(folder, RUN_FILE, |output| output.write_all(contents.run_file.as_bytes()))?);

    for (name, bytes) in &contents.model_files {
        files.push(write_file(folder, name, |output| output.write_all(bytes))?);
    }
    let plugins = folder.join(PLUGINS);
    fs::create_dir(&plugins).map_err(CheckpointError::io("create", &plugins))?;
    for (index, PluginState { instance, bytes }) in contents.plugins.iter().enumerate() {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let taken = contents.plugins[..index].iter().any(|earlier| earlier.instance == *instance);
        if instance.is_empty() || !instance.bytes().all(fits) || taken {
            return Err(CheckpointError::BadInstanceName((*instance).to_owned()));
        }
        files.push(write_file(folder, &plugin_path(instance), |output| output.write_all(bytes))?);
    }
    sync_folder(&plugins)?;

    let in_manifest = |error: serde_json::Error| CheckpointError::io("write", &folder.join(MANIFEST))(error.into());
    let manifest = Manifest::new(contents.state.position, contents.weights.cloned(), files).map_err(in_manifest)?;
    let text = manifest.text().map_err(in_manifest)?;
    let own = write_file(folder, MANIFEST, |output| output.write_all(text.as_bytes()))?;
    sync_folder(folder)?;
    Ok(manifest.files.iter().map(|file| file.bytes).sum::<u64>() + own.bytes)
}

/// Writes and hashes one file, and flushes it to the disk.
fn write_file(
    folder: &Path,
    path: &str,
    content: impl FnOnce(&mut BufWriter<HashingWriter<File>>) -> io::Result<()>,
) -> Result<ListedFile, CheckpointError> {
    let full = folder.join(path);
    let file = File::create_new(&full).map_err(CheckpointError::io("create", &full))?;
    let mut output = BufWriter::with_capacity(BUFFER, HashingWriter::new(file));
    let written = content(&mut output).and_then(|()| {
        let (file, bytes, sha256) = output.into_inner().map_err(io::IntoInnerError::into_error)?.finish();
        file.sync_all()?;
        Ok(ListedFile { path: path.to_owned(), bytes, sha256 })
    });
    written.map_err(CheckpointError::io("write", &full))
}
