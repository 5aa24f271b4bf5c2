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
use plugin_api::protocol::TensorSet;
use plugin_api::{
    Callback, Creation, Error, EventKind, Need, Result, Run, decode_state, encode_state, plugin, tracing,
};

use super::tensor_file::{Written, write_safetensors};
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
    /// The names of the dumps that are kept, oldest first; in checkpoints. Only these are ever deleted: a run that resumes
    /// from an earlier checkpoint finds later ones, which it replaces as it comes to them.
    kept: Vec<String>,
}

#[plugin]
impl Callback for DumpTensors {
    const KIND: &'static str = "dump-tensors";
    const SUMMARY: &'static str = "Writes parameters, gradients and buffers to files";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] =
        &[Need::parameters(EventKind::TRIGGER), Need::gradients(EventKind::TRIGGER), Need::buffers(EventKind::TRIGGER)];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.log_dir.is_empty() {
            return Err(Error::new("`log_dir` is empty: name a folder; `.` is the run folder itself"));
        }
        if options.tensors.is_empty() {
            return Err(Error::new("`tensors` is empty: name `parameters`, `gradients` or `buffers`"));
        }
        if let Some(twice) = (1..options.tensors.len()).find(|&at| options.tensors[..at].contains(&options.tensors[at]))
        {
            return Err(Error::new(format!("`tensors` names `{}` twice", options.tensors[twice].set())));
        }
        refuse_empty("include", &options.include)?;
        Ok(Self { options, kept: Vec::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let folder = run.info()?.folder;
        remove_unfinished(&folder, &self.options.log_dir);
        // Obstacles are told before the training.
        let folder = Path::new(&folder).join(&self.options.log_dir);
        fs::create_dir_all(&folder).map_err(|error| failed("create the folder", &folder, &error))?;
        let mut names = Vec::new();
        for set in &self.options.tensors {
            // Gradients have the names of their parameters.
            let set = if *set == Set::Gradients { TensorSet::Parameters } else { set.set() };
            names.extend(run.list(set)?.into_iter().map(|tensor| tensor.name));
        }
        if names.iter().any(|name| self.is_chosen(name)) {
            return Ok(());
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

    /// Writes the chosen tensors of a set.
    fn write(&self, run: &Run<'_>, set: Set, position: &Position, folder: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        // A trigger before the first step has no gradients.
        for view in run.tensors(set.set())?.into_iter().filter(|view| self.is_chosen(view.name())) {
            tensors.push(Written::new(&if view.device().is_cpu() { view } else { run.to_host(&view)? })?);
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
mod tests {
    use plugin_api::Tensor;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    fn host(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<DumpTensors>(options).unwrap();
        for (set, name, value) in [
            (TensorSet::Parameters, "fc1.weight", 1f32),
            (TensorSet::Parameters, "fc1.bias", 2.0),
            (TensorSet::Gradients, "fc1.weight", 3.0),
            (TensorSet::Gradients, "fc1.bias", 4.0),
            (TensorSet::Buffers, "bn.mean", 5.0),
        ] {
            host.put_tensor(set, Tensor::new(name, &[1], &[value]).unwrap());
        }
        host
    }

    fn dump(host: &mut FakeHost, step: u64) {
        host.set_position(1, step);
        host.trigger("step").unwrap();
    }

    /// The paths of all files and empty folders, relative to a folder.
    fn files(folder: &Path) -> Vec<String> {
        fn visit(root: &Path, folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && fs::read_dir(&path).unwrap().next().is_some() {
                    visit(root, &path, found);
                } else {
                    found.push(path.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
        let mut found = Vec::new();
        visit(folder, folder, &mut found);
        found.sort();
        found
    }

    fn value(path: &Path, name: &str) -> f32 {
        let bytes = fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        f32::from_le_bytes(file.tensor(name).unwrap().data().try_into().unwrap())
    }

    #[test]
    fn each_set_is_a_file_of_safetensors() {
        let mut host = host(json!({}));
        host.setup().unwrap();
        dump(&mut host, 7);
        let folder = host.folder().join("tensors/epoch-0001-step-00000007");
        assert_eq!(files(&folder), ["buffers.safetensors", "gradients.safetensors", "parameters.safetensors"]);
        assert_eq!(value(&folder.join("gradients.safetensors"), "fc1.bias"), 4.0);
        assert_eq!(value(&folder.join("parameters.safetensors"), "fc1.weight"), 1.0);
    }

    #[test]
    fn each_chosen_tensor_is_an_array_of_numpy() {
        let options =
            json!({ "format": "npy", "tensors": ["parameters", "buffers"], "exclude": ["*.bias"], "log_dir": "d" });
        let mut host = host(options);
        host.setup().unwrap();
        dump(&mut host, 7);
        let expected = ["buffers/bn.mean.npy", "parameters/fc1.weight.npy"];
        assert_eq!(files(&host.folder().join("d/epoch-0001-step-00000007")), expected);
    }

    #[test]
    fn only_the_last_dumps_are_kept_also_after_a_resume() {
        let options = json!({ "tensors": ["parameters"], "keep": 2 });
        let mut first = host(options.clone());
        first.setup().unwrap();
        [1, 2, 3].into_iter().for_each(|step| dump(&mut first, step));
        let path = |step: u64| format!("epoch-0001-step-{step:08}/parameters.safetensors");
        let folder = first.folder().join("tensors");
        assert_eq!(files(&folder), [path(2), path(3)]);
        let state = first.save_state().unwrap();
        // What comes after the checkpoint is lost, except its files.
        dump(&mut first, 9);
        let mut resumed =
            host(json!({ "tensors": ["parameters"], "keep": 2, "log_dir": folder.display().to_string() }));
        resumed.setup().unwrap();
        resumed.load_state(&state).unwrap();
        dump(&mut resumed, 4);
        assert_eq!(files(&folder), [path(3), path(4), path(9)], "the new one is not the oldest");
        dump(&mut resumed, 9);
        assert_eq!(files(&folder), [path(4), path(9)]);
    }

    #[test]
    fn a_dump_that_fails_leaves_the_one_before_and_nothing_else() {
        let mut host = host(json!({ "tensors": ["parameters", "gradients"] }));
        host.setup().unwrap();
        dump(&mut host, 5);
        host.put_tensor(TensorSet::Parameters, Tensor::new("fc1.weight", &[1], &[9f32]).unwrap());
        host.fail(plugin_api::ServiceKind::TENSOR_READ, "the device failed");
        assert!(host.trigger("step").is_err());
        let folder = host.folder().join("tensors");
        let dump = "epoch-0001-step-00000005";
        assert_eq!(files(&folder), [format!("{dump}/gradients.safetensors"), format!("{dump}/parameters.safetensors")]);
        assert_eq!(value(&folder.join(dump).join("parameters.safetensors"), "fc1.weight"), 1.0);
    }

    #[test]
    fn what_a_killed_process_left_goes_away() {
        let mut host = host(json!({}));
        let left = host.folder().join("tensors/.partial-abc/epoch-0001-step-00000001");
        fs::create_dir_all(&left).unwrap();
        host.setup().unwrap();
        assert!(files(&host.folder().join("tensors")).is_empty());
    }

    #[test]
    fn a_trial_leaves_nothing() {
        let mut host = host(json!({})).with_info(|info| info.trial = true);
        host.setup().unwrap();
        dump(&mut host, 5);
        assert!(files(&host.folder().join("tensors")).is_empty());
    }

    #[test]
    fn wrong_options_are_refused() {
        let message = |options| FakeHost::new::<DumpTensors>(options).err().unwrap().message().to_owned();
        assert!(message(json!({ "tensors": [] })).starts_with("`tensors` is empty"));
        assert_eq!(message(json!({ "tensors": ["buffers", "buffers"] })), "`tensors` names `buffers` twice");
        assert!(message(json!({ "log_dir": "" })).starts_with("`log_dir` is empty"));
        let error = host(json!({ "tensors": ["gradients"], "include": ["bn.*"] })).setup().unwrap_err();
        let told = "none of the 2 tensors fits `include` and `exclude`: nothing would be written; the first of them is \
                    `fc1.weight`";
        assert_eq!(error.message(), told);
    }
}
