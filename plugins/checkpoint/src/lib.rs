//! `checkpoint`: decides when checkpoints are written, and which of them are kept. The host writes
//! them, in its format.
//!
//! The run's `when` decides when (by default after each epoch and at the end); the checkpoint is taken
//! at the next safe point, after every other callback has handled the event.

mod folder;
mod retention;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plugin_api::event::{At, Checkpoint, Evaluation, Position, TrainEnd, Trigger};
use plugin_api::protocol::Control;
use plugin_api::{Callback, Creation, Error, Kind, Need, Result, Run, When, decode_state, encode_state, plugin};

use crate::retention::{Action, Entry, KeepBest, Pointer, plan, settle};

/// Options of `checkpoint`.
#[plugin]
struct Options {
    /// The folder of the checkpoints, relative to the run folder. Two instances need two folders.
    #[schemars(extend("format" = "output-folder"))]
    folder: String,
    /// How many of the newest to keep; 0 keeps all.
    keep_last: usize,
    /// The best ones to keep in addition. The pointer `best` follows the first rule.
    keep_best: Vec<KeepBest>,
    /// Ignore checkpoint requests of others (other plugins).
    only_own_requests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            folder: "checkpoints".to_owned(),
            keep_last: 3,
            keep_best: vec![KeepBest::default()],
            only_own_requests: false,
        }
    }
}

struct Checkpoints {
    options: Options,
    /// The folder, absolute; known from the first event on.
    folder: PathBuf,
    /// The checkpoints that this instance wrote and has not deleted, oldest first.
    kept: Vec<Entry>,
    /// The checkpoint that the run resumed from, if it is in the folder.
    resumed_from: Option<String>,
    /// The target of `best`.
    best: Option<String>,
    /// Whether this instance has requested a checkpoint that is not written yet.
    asked: bool,
    /// Metrics of rules that were reported as missing.
    missing: BTreeSet<String>,
}

#[plugin]
impl Callback for Checkpoints {
    const KIND: &'static str = "checkpoint";
    const SUMMARY: &'static str = "Writes checkpoints, keeps the last and the best";
    const WHEN: When = When { every: Some("1 epoch"), at: &["end"] };
    const NEEDS: &'static [Need] = &[Need::TRAINING_STATE];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.folder.is_empty() {
            return Err(Error::new("`folder` must not be empty"));
        }
        if let Some(rule) = options.keep_best.iter().find(|rule| rule.top == 0 || rule.metric.is_empty()) {
            return Err(Error::new(format!("`keep_best` needs a metric and a `top` of at least 1, not {rule:?}")));
        }
        if let Some(rule) = options.keep_best.iter().find(|rule| rule.direction().is_none()) {
            let metric = &rule.metric;
            return Err(Error::new(format!(
                "`keep_best`: whether `{metric}` is better lower or higher is not known: set `mode` to `min` or `max`"
            )));
        }
        Ok(Self {
            options,
            folder: PathBuf::new(),
            kept: Vec::new(),
            resumed_from: None,
            best: None,
            asked: false,
            missing: BTreeSet::new(),
        })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.folder = Path::new(&info.folder).join(&self.options.folder);
        // It takes room, and nothing else.
        if let Err(error) = folder::remove_unfinished(Path::new(&info.folder), Path::new(&self.options.folder)) {
            plugin_api::tracing::warn!("cannot remove what is unfinished in `{}`: {error}", self.folder.display());
        }
        self.resumed_from = info.resumed_from.and_then(|path| folder::name_in(&self.folder, Path::new(&path)));
        Ok(())
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        let kept: Vec<Entry> = decode_state(state)?;
        // These names will be deleted later: none may lead out of the folder.
        if let Some(entry) = kept.iter().find(|entry| !folder::is_name(&entry.name)) {
            return Err(Error::new(format!("the saved state names `{}`, which is not a checkpoint", entry.name)));
        }
        // People delete and move checkpoints: forget those that are gone.
        self.kept = kept.into_iter().filter(|entry| folder::has(&self.folder, &entry.name)).collect();
        Ok(())
    }

    fn on_save_state(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<Vec<u8>> {
        // The checkpoint that is about to be written contains this state, so it must be in the list: a run
        // that resumes from it must know that it exists.
        let mut kept = self.kept.clone();
        if self.writes_it() {
            let new = self.entry(run, event)?;
            kept.retain(|entry| entry.name != new.name);
            kept.push(new);
        }
        encode_state(&kept)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        // The end has the same position as the last epoch's checkpoint.
        if self.kept.last().is_some_and(|last| last.global_step == event.global_step) {
            return Ok(());
        }
        self.asked = true;
        run.request(Control::Checkpoint, &event.cause)
    }

    fn on_checkpoint(&mut self, run: &mut Run<'_>, event: &Checkpoint<'_>) -> Result<()> {
        if !self.writes_it() {
            return Ok(());
        }
        self.asked = false;
        let new = self.entry(run, event)?;
        let (keep_last, keep_best) = (self.options.keep_last, &self.options.keep_best);
        let actions = plan(keep_last, keep_best, &self.kept, &new, self.resumed_from.as_deref());
        self.act(run, actions, &new)
    }

    /// A checkpoint that was written before its weights were evaluated gets their metrics now, so that it can be the
    /// best.
    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let Some(index) = self.kept.iter().position(|entry| entry.global_step == event.global_step) else {
            return Ok(());
        };
        let evaluated = self.entry(run, event)?;
        if evaluated.metrics == self.kept[index].metrics {
            return Ok(());
        }
        self.kept[index].metrics = evaluated.metrics.clone();
        let all: Vec<&Entry> = self.kept.iter().collect();
        let (keep_last, keep_best) = (self.options.keep_last, &self.options.keep_best);
        let actions = settle(keep_last, keep_best, &all, self.resumed_from.as_deref());
        self.act(run, actions, &evaluated)
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        for KeepBest { metric, .. } in &self.options.keep_best {
            let is_measured = matches!(run.latest_metric(metric), Ok(Some(_)));
            if is_measured && !self.kept.is_empty() && !self.kept.iter().any(|kept| kept.metrics.contains_key(metric)) {
                plugin_api::tracing::warn!(
                    "no checkpoint was written at a step at which `{metric}` was measured: none is the best"
                );
            }
        }
        Ok(())
    }
}

impl Checkpoints {
    /// Does what was decided; `new` is the entry of the checkpoint to save.
    fn act(&mut self, run: &mut Run<'_>, actions: Vec<Action>, new: &Entry) -> Result<()> {
        for action in actions {
            match action {
                Action::Save(name) => {
                    run.write_checkpoint(&self.path_of(&name))?;
                    self.kept.retain(|entry| entry.name != name);
                    self.kept.push(new.clone());
                }
                Action::Point(pointer, name) => self.point(run, pointer, &name)?,
                Action::Delete(name) => self.delete(&name),
            }
        }
        Ok(())
    }

    /// Whether this instance writes the current checkpoint.
    fn writes_it(&self) -> bool {
        self.asked || !self.options.only_own_requests
    }

    /// The path of the checkpoint, for the host's services and the artifacts.
    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.options.folder.trim_end_matches('/'))
    }

    /// The entry of a checkpoint taken here. A metric that was measured earlier belongs to other
    /// weights, and does not count.
    fn entry(&mut self, run: &Run<'_>, position: &Position) -> Result<Entry> {
        let mut entry = Entry {
            name: folder::name_of(position.epoch, position.global_step),
            global_step: position.global_step,
            metrics: Default::default(),
        };
        let measured = run.weights_info()?.metrics;
        for KeepBest { metric, .. } in &self.options.keep_best {
            if let Some(value) = measured.get(metric) {
                entry.metrics.insert(metric.clone(), *value);
            } else if let Err(error) = run.latest_metric(metric)
                && self.missing.insert(metric.clone())
            {
                plugin_api::tracing::warn!("this checkpoint cannot become the best: {error}");
            }
        }
        Ok(entry)
    }

    fn point(&mut self, run: &mut Run<'_>, pointer: Pointer, name: &str) -> Result<()> {
        let (file, artifact) = match pointer {
            Pointer::Last => ("last", "last_checkpoint"),
            Pointer::Best if self.best.as_deref() == Some(name) => return Ok(()),
            Pointer::Best => ("best", "best_checkpoint"),
        };
        folder::point(&self.folder, file, name)
            .map_err(|error| Error::from(error).context(self.folder.join(file).display()))?;
        if pointer == Pointer::Best {
            self.best = Some(name.to_owned());
        }
        run.publish(artifact, &self.path_of(name))
    }

    /// A checkpoint that cannot be deleted does not fail the run: it is tried again next time.
    fn delete(&mut self, name: &str) {
        match folder::delete(&self.folder, name) {
            Ok(()) => self.kept.retain(|entry| entry.name != name),
            // A job reads it.
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
            Err(error) => plugin_api::tracing::warn!("cannot delete the checkpoint `{name}`: {error}"),
        }
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Checkpoints>()];

#[cfg(test)]
mod tests;
