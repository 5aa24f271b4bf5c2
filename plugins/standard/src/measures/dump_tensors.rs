//! `dump-tensors`: writes tensors to files each time it is triggered, as tensorpack's `DumpTensors`.
//!
//! Each trigger makes one folder, which appears whole or not at all.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use export::{PartialFile, remove_unfinished};
use monitor::selected;
use plugin_api::event::{At, Position, Trigger};
use plugin_api::protocol::{TapOf, TensorSet};
use plugin_api::{
    Callback, Creation, Error, EventKind, Need, Result, Run, decode_state, encode_state, plugin, tracing,
};

use super::tensor_file::{Written, write_safetensors};
use super::whole_taps;
use crate::metric_patterns::refuse_empty;

/// Options of `dump-tensors`.
#[plugin]
pub(crate) struct Options {
    /// The folder of the dumps, relative to the run folder or absolute. It is created if it is missing.
    #[schemars(extend("format" = "output-folder"))]
    log_dir: String,
    /// What to write.
    tensors: Vec<Set>,
    /// The names of the tensors to write; `*` stands for any characters.
    include: Vec<String>,
    /// Names not to write, of those; `*` stands for any characters.
    exclude: Vec<String>,
    /// The format of the files.
    format: Format,
    /// How many dumps to keep; older ones of this run are deleted. 0 keeps all.
    keep: usize,
}

#[plugin]
#[derive(Copy, PartialEq)]
enum Set {
    /// What the optimizer trains.
    Parameters,
    /// Their gradients in the last step, as the optimizer used them.
    Gradients,
    /// The model's other state, such as batch-norm statistics.
    Buffers,
    /// The values of the model's nodes in the last step, by the names that `host model` shows. The values of all that are
    /// chosen stay in memory from one step to the next.
    Taps,
}

#[plugin]
#[derive(Copy, PartialEq)]
enum Format {
    /// One file for each of `tensors`, such as `gradients.safetensors`.
    Safetensors,
    /// A folder for each of `tensors` with a file for each tensor, such as `gradients/fc1.weight.npy`.
    Npy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_dir: "tensors".to_owned(),
            tensors: vec![Set::Parameters, Set::Gradients, Set::Buffers],
            include: vec!["*".to_owned()],
            exclude: Vec::new(),
            format: Format::Safetensors,
            keep: 0,
        }
    }
}

pub(crate) struct DumpTensors {
    options: Options,
    /// The nodes that are tapped, by the names of their taps.
    taps: BTreeMap<String, String>,
    /// The names of the dumps that are kept, oldest first; in checkpoints. Only these are ever deleted: a run that resumes
    /// from an earlier checkpoint finds later ones, which it replaces as it comes to them.
    kept: Vec<String>,
}

#[plugin]
impl Callback for DumpTensors {
    const KIND: &'static str = "dump-tensors";
    const SUMMARY: &'static str = "Writes parameters, gradients, buffers and the values of nodes to files";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::parameters(EventKind::TRIGGER),
        Need::gradients(EventKind::TRIGGER),
        Need::buffers(EventKind::TRIGGER),
        Need::taps(EventKind::TRIGGER),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.log_dir.is_empty() {
            return Err(Error::new("`log_dir` is empty: name a folder; `.` is the run folder itself"));
        }
        if options.tensors.is_empty() {
            return Err(Error::new("`tensors` is empty: name `parameters`, `gradients`, `buffers` or `taps`"));
        }
        if let Some(twice) = (1..options.tensors.len()).find(|&at| options.tensors[..at].contains(&options.tensors[at]))
        {
            return Err(Error::new(format!("`tensors` names `{}` twice", options.tensors[twice].set())));
        }
        refuse_empty("include", &options.include)?;
        Ok(Self { options, taps: BTreeMap::new(), kept: Vec::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let folder = run.info()?.folder;
        remove_unfinished(&folder, &self.options.log_dir);
        // Obstacles are told before the training.
        let folder = Path::new(&folder).join(&self.options.log_dir);
        fs::create_dir_all(&folder).map_err(|error| failed("create the folder", &folder, &error))?;
        let mut names = Vec::new();
        for set in &self.options.tensors {
            let set = match set {
                // Gradients have the names of their parameters.
                Set::Gradients => TensorSet::Parameters,
                Set::Taps => {
                    names.extend(whole_taps::nodes(run, "remove `taps` from `tensors`")?);
                    continue;
                }
                _ => set.set(),
            };
            names.extend(run.list(set)?.into_iter().map(|tensor| tensor.name));
        }
        if names.iter().any(|name| self.is_chosen(name)) {
            return self.tap(run);
        }
        let offered = names.first().map_or_else(String::new, |name| format!("; the first of them is `{name}`"));
        Err(Error::new(format!(
            "none of the {} tensors fits `include` and `exclude`: nothing would be written{offered}",
            names.len()
        )))
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.kept = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.kept)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let info = run.info()?;
        let folder = Path::new(&info.folder).join(&self.options.log_dir);
        let name = format!("epoch-{:04}-step-{:08}", event.epoch, event.global_step);
        let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(&folder);
        let partial = partial.map_err(|error| failed("create a folder in", &folder, &error))?;
        let unfinished = partial.path().join(&name);
        fs::create_dir(&unfinished).map_err(|error| failed("create the folder", &unfinished, &error))?;
        for set in &self.options.tensors {
            self.write(run, *set, event, &unfinished)?;
        }
        if info.trial {
            return Ok(());
        }
        let target = folder.join(&name);
        // A folder cannot replace another: an earlier dump of this step goes with what is unfinished.
        if target.exists() {
            fs::rename(&target, partial.path().join("replaced")).map_err(|error| failed("replace", &target, &error))?;
        }
        fs::rename(&unfinished, &target).map_err(|error| failed("publish", &target, &error))?;
        self.kept.retain(|kept| *kept != name);
        self.kept.push(name);
        self.delete_old(&folder);
        Ok(())
    }
}

impl DumpTensors {
    fn is_chosen(&self, name: &str) -> bool {
        selected(&self.options.include, &self.options.exclude, name)
    }

    /// Taps the chosen nodes.
    fn tap(&mut self, run: &mut Run<'_>) -> Result<()> {
        if !self.options.tensors.contains(&Set::Taps) {
            return Ok(());
        }
        for node in whole_taps::nodes(run, "remove `taps` from `tensors`")? {
            if self.is_chosen(&node) {
                self.taps.insert(whole_taps::request(run, TapOf::Activation, &node)?, node);
            }
        }
        Ok(())
    }

    /// The name under which a tensor of a set is written; `None` for one that is not.
    fn written_name<'n>(&'n self, set: Set, name: &'n str) -> Option<&'n str> {
        match set {
            // Those of other callbacks are among them.
            Set::Taps => self.taps.get(name).map(String::as_str),
            _ => self.is_chosen(name).then_some(name),
        }
    }

    /// Writes the chosen tensors of a set.
    fn write(&self, run: &Run<'_>, set: Set, position: &Position, folder: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        // A trigger before the first step has no gradients and no taps.
        for view in run.tensors(set.set())? {
            if let Some(name) = self.written_name(set, view.name()) {
                let view = if view.device().is_cpu() { view } else { run.to_host(&view)? };
                tensors.push(Written::new(name, &view)?);
            }
        }
        if self.options.format == Format::Safetensors {
            let metadata = [("epoch", position.epoch), ("step", position.global_step)];
            let metadata: BTreeMap<&str, String> =
                metadata.into_iter().map(|(key, value)| (key, value.to_string())).collect();
            let path = folder.join(format!("{}.safetensors", set.set()));
            return whole(&path, |file| write_safetensors(&mut tensors, &metadata, file));
        }
        let folder = folder.join(set.set().to_string());
        fs::create_dir(&folder).map_err(|error| failed("create the folder", &folder, &error))?;
        tensors.iter().try_for_each(|tensor| whole(&folder.join(tensor.file_name()), |file| tensor.write_npy(file)))
    }

    fn delete_old(&mut self, folder: &Path) {
        if self.options.keep == 0 {
            return;
        }
        while self.kept.len() > self.options.keep {
            let path: PathBuf = folder.join(self.kept.remove(0));
            // It takes room, and nothing else.
            if let Err(error) = fs::remove_dir_all(&path)
                && path.exists()
            {
                tracing::warn!("cannot delete the old dump `{}`: {error}", path.display());
            }
        }
    }
}

impl Set {
    fn set(self) -> TensorSet {
        match self {
            Self::Parameters => TensorSet::Parameters,
            Self::Gradients => TensorSet::Gradients,
            Self::Buffers => TensorSet::Buffers,
            Self::Taps => TensorSet::Taps,
        }
    }
}

/// Writes a file to the disk.
fn whole(path: &Path, write: impl FnOnce(&mut PartialFile) -> Result<()>) -> Result<()> {
    let mut file = PartialFile::create(path)?;
    write(&mut file)?;
    file.flush()?;
    file.finish(true)
}

fn failed(action: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::new(format!("cannot {action} `{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests;
