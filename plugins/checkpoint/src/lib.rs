//! `checkpoint`: decides when checkpoints are written, and which of them are kept. The host writes
//! them, in its format.
//!
//! The run's `when` decides when (by default after each epoch and at the end); the checkpoint is taken
//! at the next safe point, after every other callback has handled the event.

mod cleaner;
mod folder;
mod options;
mod pace;
mod retention;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use plugin_api::event::{At, Checkpoint, CheckpointWritten, Evaluation, Position, TrainEnd, Trigger};
use plugin_api::protocol::Control;
use plugin_api::{
    Callback, Creation, Error, ErrorKind, Kind, Need, Result, Run, When, decode_state, encode_state, plugin,
};

use crate::cleaner::{Cleaner, Deleted};
use crate::options::Options;
use crate::pace::Pace;
use crate::retention::{Action, Entry, KeepBest, Pointer, left_out, plan, settle};

struct Checkpoints {
    options: Options,
    /// The folder as the host's services take it, and absolute; known from the first event on.
    relative: String,
    folder: PathBuf,
    /// The checkpoints that this instance wrote and has not deleted, oldest first.
    kept: Vec<Entry>,
    /// Those that the host is writing, oldest first: the first of them now.
    queued: Vec<Entry>,
    /// Deletes what is no longer kept while the training goes on, from the first time on.
    cleaner: Option<Cleaner>,
    /// Those that it deletes, and that are still among the kept ones.
    deleting: BTreeSet<String>,
    /// When they come, in the background.
    pace: Pace,
    /// How many were left out, since an earlier one was being written or had just been.
    left_out: u64,
    /// Since when a checkpoint may be kept for good, in seconds since 1970.
    since: u64,
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
    const WHEN: When = When { every: Some("1 epoch"), at: &["end", "failure"] };
    const NEEDS: &'static [Need] = &[Need::TRAINING_STATE];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        let options = options.checked(creation.instance)?;
        Ok(Self {
            options,
            relative: String::new(),
            folder: PathBuf::new(),
            kept: Vec::new(),
            queued: Vec::new(),
            cleaner: None,
            deleting: BTreeSet::new(),
            pace: Pace::default(),
            left_out: 0,
            since: now(),
            resumed_from: None,
            best: None,
            asked: false,
            missing: BTreeSet::new(),
        })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        let run_folder = Path::new(&info.folder);
        self.relative = self.options.folder_of(&info.name);
        self.folder = run_folder.join(&self.relative);
        folder::claim(run_folder, Path::new(&self.relative))?;
        // It takes room, and nothing else.
        if let Err(error) = folder::remove_unfinished(run_folder, Path::new(&self.relative)) {
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
        let for_good = self.kept.iter().filter(|entry| entry.is_for_good).map(|entry| entry.time).max();
        let oldest = self.kept.iter().map(|entry| entry.time).filter(|time| *time > 0).min();
        self.since = for_good.or(oldest).unwrap_or(self.since);
        Ok(())
    }

    fn on_save_state(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<Vec<u8>> {
        // The checkpoint that is about to be written contains this state, so it must be in the list: a run
        // that resumes from it must know that it exists.
        let mut kept: Vec<Entry> = self.kept.iter().chain(&self.queued).cloned().collect();
        if self.writes_it() {
            let new = self.entry(run, event)?;
            kept.retain(|entry| entry.name != new.name);
            kept.push(new);
        }
        encode_state(&kept)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        // The end has the same position as the last epoch's checkpoint.
        let last = self.queued.last().or(self.kept.last());
        if last.is_some_and(|last| last.global_step == event.global_step) {
            return Ok(());
        }
        let is_regular = matches!(&*event.cause, "epoch" | "step");
        if is_regular && self.waits() && self.pace.another_comes(Instant::now()) && !self.is_wanted(run, event)? {
            self.left_out += 1;
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
        if new.is_for_good {
            self.since = new.time;
        }
        if self.waits() && self.queue(run, &new)? {
            return Ok(());
        }
        run.write_checkpoint(&self.path_of(&new.name))?;
        self.settle_new(run, new)
    }

    fn on_checkpoint_written(&mut self, run: &mut Run<'_>, event: &CheckpointWritten<'_>) -> Result<()> {
        let Some(index) = self.queued.iter().position(|entry| self.path_of(&entry.name) == event.path) else {
            return Ok(());
        };
        let new = self.queued.remove(index);
        self.pace.written(Instant::now(), !self.queued.is_empty());
        match &event.written {
            Ok(_) => self.settle_new(run, new),
            Err(error) => Err(Error::new(error.as_ref())),
        }
    }

    /// A checkpoint that was written before its weights were evaluated gets their metrics now, so that it can be the
    /// best.
    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let is_here = |entry: &&Entry| entry.global_step == event.global_step;
        let Some(entry) = self.kept.iter().chain(&self.queued).find(is_here).cloned() else { return Ok(()) };
        let metrics = self.metrics_here(run)?;
        if metrics == entry.metrics {
            return Ok(());
        }
        for entry in self.kept.iter_mut().chain(&mut self.queued).filter(|other| other.name == entry.name) {
            entry.metrics.clone_from(&metrics);
        }
        let (keep_last, keep_best) = (self.options.keep_last, &self.options.keep_best);
        let actions = settle(keep_last, keep_best, &self.kept, self.resumed_from.as_deref());
        self.act(run, actions)
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        if let Some(cleaner) = self.cleaner.take() {
            self.forget(cleaner.finish());
        }
        if self.left_out > 0 {
            plugin_api::tracing::info!(
                "left out {} checkpoints that came while an earlier one was being written, or soon after; the newest and \
                 the best were written",
                self.left_out
            );
        }
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
    /// Queues a checkpoint, and leaves out those that wait and need not be written any more. False in the background, where
    /// it is written at once.
    fn queue(&mut self, run: &mut Run<'_>, new: &Entry) -> Result<bool> {
        let all: Vec<&Entry> = self.kept.iter().chain(&self.queued).chain([new]).collect();
        let paths: Vec<String> =
            left_out(&self.options.keep_best, &all, &self.queued).map(|entry| self.path_of(&entry.name)).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let left_out = match run.queue_checkpoint(&self.path_of(&new.name), &paths) {
            Err(error) if error.kind() == ErrorKind::NotAllowed => return Ok(false),
            answer => answer?,
        };
        for path in &left_out {
            plugin_api::tracing::debug!("left out the checkpoint `{path}`: a newer one came before its turn");
        }
        self.left_out += left_out.len() as u64;
        let relative = &self.relative;
        self.queued.retain(|entry| !left_out.contains(&path_in(relative, &entry.name)));
        self.queued.push(new.clone());
        self.pace.queued(Instant::now());
        Ok(true)
    }

    /// Whether checkpoints are written in the background, where they may be left out. Who keeps all wants each of them.
    fn waits(&self) -> bool {
        self.options.background && self.options.keep_last > 0
    }

    /// Whether a checkpoint taken here would be kept even if a newer one follows.
    fn is_wanted(&mut self, run: &Run<'_>, position: &Position) -> Result<bool> {
        let new = self.entry(run, position)?;
        let all: Vec<&Entry> = self.kept.iter().chain(&self.queued).chain([&new]).collect();
        Ok(left_out(&self.options.keep_best, &all, std::slice::from_ref(&new)).next().is_none())
    }

    /// Does what follows from a checkpoint that is written.
    fn settle_new(&mut self, run: &mut Run<'_>, new: Entry) -> Result<()> {
        // One of the same position replaces the earlier one.
        self.kept.retain(|entry| entry.name != new.name);
        self.kept.push(new);
        let (keep_last, keep_best) = (self.options.keep_last, &self.options.keep_best);
        let actions = plan(keep_last, keep_best, &self.kept, self.resumed_from.as_deref());
        self.act(run, actions)
    }

    /// Does what was decided. The pointers move at once; deleting takes long on a slow disk, and waits for nobody.
    fn act(&mut self, run: &mut Run<'_>, actions: Vec<Action>) -> Result<()> {
        let mut obsolete = Vec::new();
        for action in actions {
            match action {
                Action::Point(pointer, name) => self.point(run, pointer, &name)?,
                Action::Delete(name) => obsolete.push(name),
            }
        }
        if !self.options.background {
            folder::flush(&self.folder).map_err(|error| Error::from(error).context(self.folder.display()))?;
            for name in obsolete {
                let result = folder::delete(&self.folder, &name);
                self.forget([(name, result)]);
            }
            return Ok(());
        }
        let deleted = self.cleaner.as_ref().map_or_else(Vec::new, Cleaner::deleted);
        self.forget(deleted);
        obsolete.retain(|name| self.kept.iter().any(|entry| entry.name == *name) && self.deleting.insert(name.clone()));
        let cleaner = match &mut self.cleaner {
            Some(cleaner) => cleaner,
            none => none.insert(Cleaner::start(self.folder.clone())?),
        };
        cleaner.clean(obsolete);
        Ok(())
    }

    /// Forgets the checkpoints that are deleted. One that cannot be deleted does not fail the run: it is tried again next time.
    fn forget(&mut self, deleted: impl IntoIterator<Item = Deleted>) {
        for (name, result) in deleted {
            self.deleting.remove(&name);
            match result {
                Ok(()) => self.kept.retain(|entry| entry.name != name),
                // A job reads it.
                Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {}
                Err(error) => plugin_api::tracing::warn!("cannot delete the checkpoint `{name}`: {error}"),
            }
        }
    }

    /// Whether this instance writes the current checkpoint.
    fn writes_it(&self) -> bool {
        self.asked || !self.options.only_own_requests
    }

    /// The path of a checkpoint, for the host's services and the artifacts.
    fn path_of(&self, name: &str) -> String {
        path_in(&self.relative, name)
    }

    /// The entry of a checkpoint taken here.
    fn entry(&mut self, run: &Run<'_>, position: &Position) -> Result<Entry> {
        // A time that nobody needs would make two runs differ that are the same.
        let hours = self.options.keep_every_hours;
        let time = if hours > 0.0 { now() } else { 0 };
        Ok(Entry {
            name: folder::name_of(position.epoch, position.global_step),
            global_step: position.global_step,
            metrics: self.metrics_here(run)?,
            time,
            is_for_good: hours > 0.0 && time.saturating_sub(self.since) as f64 >= hours * 3600.0,
        })
    }

    /// The metrics of the rules. One that was measured earlier belongs to other weights, and does not count.
    fn metrics_here(&mut self, run: &Run<'_>) -> Result<BTreeMap<String, f64>> {
        let mut metrics = BTreeMap::new();
        let measured = run.weights_info()?.metrics;
        for KeepBest { metric, .. } in &self.options.keep_best {
            if let Some(value) = measured.get(metric) {
                metrics.insert(metric.clone(), *value);
            } else if !self.missing.contains(metric)
                && let Err(error) = run.latest_metric(metric)
            {
                self.missing.insert(metric.clone());
                plugin_api::tracing::warn!("this checkpoint cannot become the best: {error}");
            }
        }
        Ok(metrics)
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
}

fn path_in(folder: &str, name: &str) -> String {
    format!("{folder}/{name}")
}

/// Seconds since 1970, by the clock of the system.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Checkpoints>()];

#[cfg(test)]
mod tests;
