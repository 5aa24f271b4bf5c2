//! `save-best`: a file with the weights of the best value of a metric (Keras' `ModelCheckpoint(save_best_only=True)`,
//! pytorch-accelerated's `SaveBestModelCallback`), which the run also ends with.
//!
//! It looks when it is triggered: by default after each epoch. The file is written under a hidden name and then moved, so
//! that a reader sees the whole weights of one step. A value that it has already seen does not count again; NaN is never
//! better than a number, and any number is better than NaN.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

use export::{Origin, Publication, Values, Weight, Weights, write_safetensors};
use plugin_api::event::{At, TrainEnd, Trigger};
use plugin_api::protocol::{CopyAction, Point, RunInfo, TensorSet};
use plugin_api::{
    Callback, Creation, Direction, Error, ErrorKind, Need, Ranks, Result, Run, decode_state, encode_state, plugin,
    tracing,
};
use serde::{Deserialize, Serialize};

use crate::watched_metric;

/// Options of `save-best`.
#[plugin]
pub(crate) struct Options {
    /// The metric to watch. It is waited for until it has a first value.
    #[schemars(extend("format" = "metric"))]
    metric: String,
    /// Whether lower or higher is better. Not needed where the metric's name says it: losses and errors go down;
    /// accuracy, precision, recall, F1, AUC and R² go up.
    mode: Option<Direction>,
    /// The file, relative to the run folder. It is a safetensors file.
    #[schemars(extend("format" = "output-file"))]
    path: String,
    /// Also write the optimizer's state, to a file beside it: `best.optimizer.safetensors`.
    save_optimizer: bool,
    /// Restore the weights of the best value when training is over, whoever or whatever ended it: the evaluation of `test`,
    /// exports and checkpoints at the end have them. A run that resumes from such a checkpoint goes on from its own weights.
    load_at_end: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            metric: "val_loss".to_owned(),
            mode: None,
            path: "best.safetensors".to_owned(),
            save_optimizer: false,
            load_at_end: true,
        }
    }
}

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    best: Option<Best>,
    /// The global step of the last value that was compared.
    compared: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    value: f64,
    epoch: u64,
    global_step: u64,
}

pub(crate) struct SaveBest {
    options: Options,
    direction: Direction,
    state: State,
    /// The name of the host's copy of the best weights.
    copy: String,
}

#[plugin]
impl Callback for SaveBest {
    const KIND: &'static str = "save-best";
    const SUMMARY: &'static str = "Writes the weights whenever a metric is better than before";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    const NEEDS: &'static [Need] = &[Need::WRITES_WEIGHTS];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        let direction = watched_metric::direction(&options.metric, options.mode)?;
        let path = Path::new(&options.path);
        let is_within = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !is_within || path.extension().is_none_or(|extension| extension != "safetensors") {
            return Err(Error::new(format!(
                "`path` must name a file in the run folder that ends with `.safetensors`, such as `best.safetensors`, not \
                 `{}`",
                options.path
            )));
        }
        let copy = format!("{}-best", creation.instance);
        Ok(Self { options, direction, state: State::default(), copy })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.state)
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        match self.state.best {
            Some(best) => self.check_file(run, best),
            None => Ok(()),
        }
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let metric = &self.options.metric.clone();
        let Some(latest) = watched_metric::latest(run, metric)?.filter(|latest| self.is_better(latest)) else {
            return Ok(());
        };
        if latest.global_step != event.global_step {
            tracing::warn!(
                "`{metric}` was measured after step {}, but the weights are those of step {}: trigger `{}` when `{metric}` is \
                 measured",
                latest.global_step,
                event.global_step,
                run.info()?.instance
            );
            return Ok(());
        }
        let Point { value, epoch, global_step } = latest;
        self.write(run, self.options.save_optimizer)?;
        if self.options.load_at_end {
            run.copy_weights(&self.copy, CopyAction::Take)?;
        }
        self.state.best = Some(Best { value, epoch, global_step });
        Ok(())
    }

    fn on_trained(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let best = self.state.best.filter(|best| self.options.load_at_end && best.global_step != event.global_step);
        let Some(best) = best else { return Ok(()) };
        match run.copy_weights(&self.copy, CopyAction::Restore) {
            Err(error) if error.kind() == ErrorKind::NoSuchName => {
                let message = "the best weights are not in the checkpoint that the run resumed from";
                tracing::warn!(epoch = best.epoch, "{message}; the run ends with those of its last step");
                Ok(())
            }
            restored => restored,
        }
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        if self.state.best.is_none() {
            tracing::warn!("`{}` had no value during the run: nothing was written", self.options.metric);
        }
        Ok(())
    }
}

impl SaveBest {
    /// Compares a value with the best one, once.
    fn is_better(&mut self, latest: &Point) -> bool {
        if self.state.compared.replace(latest.global_step) == Some(latest.global_step) {
            return false;
        }
        match self.state.best {
            Some(best) => self.direction.better(latest.value, best.value),
            None => !latest.value.is_nan(),
        }
    }

    fn write(&self, run: &mut Run<'_>, with_optimizer: bool) -> Result<()> {
        let info = run.info()?;
        // A trial publishes nothing, and all ranks have the same weights: rank zero's folder is the run's.
        if info.trial || info.rank > 0 {
            return Ok(());
        }
        let path = self.path(&info);
        let name = file_name(&path)?;
        let mut publication = Publication::begin(path.parent().unwrap_or(&path), true)?;
        let origin = Origin::read(run, &info)?;
        let mut write = |name: &str, weights: &Weights<'_>| {
            let mut file = publication.create(name, true)?;
            write_safetensors(&mut file, weights, &origin)?;
            file.finish(true)
        };
        if with_optimizer {
            write(&optimizer_name(&name), &read(run, &[TensorSet::Optimizer])?)?;
        }
        write(&name, &read(run, &[TensorSet::Parameters, TensorSet::Buffers])?)?;
        publication.publish()?;
        run.publish("best_weights", &self.options.path)
    }

    /// After a resume, the file may be missing, or be of a later step of the process that is gone. The best weights are
    /// in the checkpoint if the run is to end with them.
    fn check_file(&self, run: &mut Run<'_>, best: Best) -> Result<()> {
        let info = run.info()?;
        let path = self.path(&info);
        let found = step_of(&path);
        if info.rank > 0 || found == Some(best.global_step) {
            return Ok(());
        }
        if run.list(TensorSet::Copy(self.copy.clone())).is_ok() {
            return self.write_copy(run);
        }
        let held = found.map_or_else(|| "is missing".to_owned(), |step| format!("has the weights of step {step}"));
        tracing::warn!(
            "`{}` {held}, but the best value so far is that of step {}: the next better value writes the file again",
            path.display(),
            best.global_step
        );
        Ok(())
    }

    /// Writes the file of the copy of the best weights, which the model has for a moment, so that the file says whose they
    /// are.
    fn write_copy(&self, run: &mut Run<'_>) -> Result<()> {
        let own = format!("{}-own", self.copy);
        run.copy_weights(&own, CopyAction::Take)?;
        let written = run.copy_weights(&self.copy, CopyAction::Restore).and_then(|()| self.write(run, false));
        run.copy_weights(&own, CopyAction::Restore)?;
        run.copy_weights(&own, CopyAction::Drop)?;
        written
    }

    fn path(&self, info: &RunInfo) -> PathBuf {
        Path::new(&info.folder).join(&self.options.path)
    }
}

fn file_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| Error::new(format!("`{}` is not the path of a file", path.display())))
}

/// `best.optimizer.safetensors` of `best.safetensors`.
fn optimizer_name(name: &str) -> String {
    format!("{}.optimizer.safetensors", name.trim_end_matches(".safetensors"))
}

/// The tensors of some sets. Values that are not finite are written, too: the metric was a number.
fn read<'a>(run: &'a Run<'_>, sets: &[TensorSet]) -> Result<Weights<'a>> {
    let mut weights = Weights::default();
    for set in sets {
        for view in run.tensors(set.clone())? {
            let name = view.name();
            let view = if view.device().is_cpu() { view } else { run.to_host(&view)? };
            let integers = || view.as_slice::<i64>().map(Values::I64);
            let values = view.as_slice::<f32>().map(Values::F32).or_else(|_| integers());
            let values = values.map_err(|error| error.context(format!("the tensor `{name}`")))?;
            weights.insert(Weight { name, shape: view.shape(), values });
        }
    }
    Ok(weights)
}

/// The global step of the weights in a file that [`write_safetensors`] has written; `None` if there is none that can be
/// read.
fn step_of(path: &Path) -> Option<u64> {
    /// No header is longer: the format forbids it.
    const LONGEST: u64 = 100 << 20;
    let mut file = BufReader::new(File::open(path).ok()?);
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length).min(LONGEST)).read_to_end(&mut header).ok()?;
    let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
    header["__metadata__"]["step"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
