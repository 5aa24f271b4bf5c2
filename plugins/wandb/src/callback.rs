//! The callback.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use plugin_api::event::{At, Evaluation, Outcome, Position, RecordPut, TrainEnd, Trigger};
use plugin_api::protocol::{DataInfo, RecordValue, RunInfo};
use plugin_api::{Callback, Creation, Dispatch, Result, Run, decode_state, encode_state, plugin, tracing};
use serde::{Deserialize, Serialize};

use crate::log_file::LogFile;
use crate::options::Options;
use crate::proto::{self, Exit, Header, Item, Items, Version, What};
use crate::row::Row;
use crate::segments::{Lengths, Segments};
use crate::values;

/// The type of records that become part of the config.
const HYPER_PARAMETERS: &str = "hyper_parameters";

/// The exit code that W&B gives a run that was interrupted.
const INTERRUPTED: i32 = 255;

/// The state in checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The id of the run in W&B.
    id: String,
    /// Seconds of training of all processes.
    runtime: f64,
    /// The values of the step of the checkpoint, to which more may come after it.
    row: Option<Row>,
    /// How long the files were at which step. The step tells a state that a later checkpoint has, since saving another failed.
    lengths: Option<(u64, Lengths)>,
}

/// Writes offline runs of W&B.
pub struct Wandb {
    options: Options,
    state: State,
    flush_every: Duration,
    /// Splits other than the training split: their metrics are new only after an evaluation.
    evaluated: Vec<String>,
    /// Opened in `train_start`.
    open: Option<Open>,
    exit_code: i32,
    left_out: bool,
}

/// The file of this process.
struct Open {
    segments: Segments,
    file: LogFile,
    began: Instant,
    flushed: Instant,
    /// The latest value of each metric, and those of which the file's summary does not know yet.
    latest: BTreeMap<String, String>,
    changed: BTreeMap<String, String>,
}

#[plugin]
impl Callback for Wandb {
    const KIND: &'static str = "wandb";
    const SUMMARY: &'static str = "Writes an offline run of W&B, which `wandb sync` uploads";
    const DISPATCH: Dispatch = Dispatch::Background;
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        options.check()?;
        let flush_every = options.flush_every()?;
        let (state, evaluated) = (State::default(), Vec::new());
        Ok(Self { options, state, flush_every, evaluated, open: None, exit_code: 0, left_out: false })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<Vec<u8>> {
        let mut state = self.state.clone();
        if let Some(open) = &mut self.open {
            // Everything before the checkpoint must be on the disk.
            open.flush()?;
            state.lengths = Some((event.global_step, open.segments.lengths()?));
            state.runtime += open.began.elapsed().as_secs_f64();
        }
        encode_state(&state)
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let info = run.info()?;
        let is_evaluated = |split: &&String| *split != DataInfo::TRAIN;
        self.evaluated = info.data.splits.keys().filter(is_evaluated).cloned().collect();
        self.open = Some(self.begin(&info, event.global_step)?);
        run.publish("wandb", &self.options.folder)
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let metrics = run.current_metrics(event.global_step)?;
        self.metrics(&metrics, event, |split| split == Some(&*event.split))
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let metrics = run.current_metrics(event.global_step)?;
        self.metrics(&metrics, event, |_| true)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let metrics = run.metrics()?;
        self.metrics(&metrics, event, |split| split.is_none())
    }

    fn on_record(&mut self, run: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        if let Some(value) = event.scalar {
            return self.put(event, [(event.name.to_string(), values::number(value), true)]);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        match run.current_record()?.value {
            RecordValue::HyperParameters { values } if event.type_name == HYPER_PARAMETERS => {
                open.file.append(What::Config(Items { update: values::hyper_parameters(&values) }))
            }
            value => match values::record(&value) {
                Some(value) => self.put(event, [(event.name.to_string(), value, false)]),
                None => {
                    if !std::mem::replace(&mut self.left_out, true) {
                        tracing::info!("`{}` and other records of its type are not written for W&B", event.name);
                    }
                    Ok(())
                }
            },
        }
    }

    fn on_train_end(&mut self, _: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        self.exit_code = match event.outcome {
            Outcome::Finished | Outcome::Stopped => 0,
            Outcome::Interrupted => INTERRUPTED,
            _ => 1,
        };
        self.open.as_mut().map_or(Ok(()), Open::flush)
    }

    /// No checkpoint comes after it, so that none knows the end of the run as a part of the file.
    fn on_teardown(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if let Some(row) = self.state.row.take() {
            open.file.append(What::History(row.history()))?;
        }
        let runtime = self.state.runtime + open.began.elapsed().as_secs_f64();
        open.summary()?;
        open.file.append(What::Exit(Exit { exit_code: self.exit_code, runtime: runtime as i32 }))?;
        open.file.flush()
    }
}

impl Wandb {
    /// Begins the file of this process: of the run of the state, if its folder is here, or else of a new one.
    fn begin(&mut self, info: &RunInfo, step: u64) -> Result<Open> {
        let folder = self.options.folder(info);
        let earlier = Segments::earlier(&folder, &self.state.id)?;
        let resume = earlier.is_some();
        let segments = earlier.unwrap_or_else(|| Segments::new(&folder));
        if !resume {
            self.state = State { id: segments.id().to_owned(), ..State::default() };
        }
        let now = Timestamp::now();
        let header = Header { version: Some(Version { producer: format!("host {}", info.host_version) }) };
        let first = vec![What::Header(header), What::Run(self.description(info, now, resume))];
        let file = segments.begin(now, first)?;
        // Not before there is a file to go on in.
        let lengths = self.state.lengths.as_ref().filter(|(at, _)| *at == step);
        let last = segments.cut(step, lengths.map(|(_, lengths)| lengths), file.path())?;
        // A state of an earlier checkpoint has values that were written since.
        self.state.row.take_if(|row| last >= Some(row.step));
        let (began, latest, changed) = (Instant::now(), BTreeMap::new(), BTreeMap::new());
        Ok(Open { segments, file, began, flushed: began, latest, changed })
    }

    fn description(&self, info: &RunInfo, now: Timestamp, resume: bool) -> proto::Run {
        let folder = Path::new(&info.folder).file_name().map(|name| name.to_string_lossy().into_owned());
        let config = values::config(&serde_json::from_str(&info.run_file).unwrap_or_default());
        let options = &self.options;
        proto::Run {
            run_id: self.state.id.clone(),
            entity: options.entity.clone().unwrap_or_default(),
            project: options.project(info),
            config: Some(Items { update: config }),
            run_group: options.group.clone().unwrap_or_default(),
            display_name: options.run_name.clone().or(folder).unwrap_or_else(|| info.name.clone()),
            notes: options.notes.clone().unwrap_or_default(),
            tags: options.tags.clone(),
            start_time: Some(proto::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }),
            resume,
        }
    }

    /// Puts the metrics of the `wanted` splits; training metrics have none.
    fn metrics(
        &mut self,
        metrics: &BTreeMap<String, f64>,
        position: &Position,
        wanted: impl Fn(Option<&str>) -> bool,
    ) -> Result<()> {
        let split_of = |name: &str| {
            let of = |split: &&String| name.strip_prefix(split.as_str()).is_some_and(|rest| rest.starts_with('_'));
            self.evaluated.iter().filter(of).max_by_key(|split| split.len())
        };
        let wanted = metrics.iter().filter(|(name, _)| wanted(split_of(name).map(String::as_str)));
        let values: Vec<_> = wanted.map(|(name, value)| (name.clone(), values::number(*value), true)).collect();
        self.put(position, values)
    }

    /// Puts values of a step: their names, their JSON, and whether the summary has them. What was put for the step before is
    /// written when a later one comes.
    fn put(&mut self, position: &Position, values: impl IntoIterator<Item = (String, String, bool)>) -> Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        if let Some(row) = self.state.row.take_if(|row| row.step < position.global_step) {
            open.file.append(What::History(row.history()))?;
        }
        let runtime = self.state.runtime + open.began.elapsed().as_secs_f64();
        let new = || Row::new(position.global_step, Timestamp::now().as_duration().as_secs_f64(), runtime);
        let row = self.state.row.get_or_insert_with(new);
        for (name, value, in_summary) in values {
            if in_summary && open.latest.get(&name) != Some(&value) {
                open.latest.insert(name.clone(), value.clone());
                open.changed.insert(name.clone(), value.clone());
            }
            row.put(&name, value);
        }
        if open.flushed.elapsed() < self.flush_every { Ok(()) } else { open.flush() }
    }
}

impl Open {
    /// Writes what is buffered.
    fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.summary()?;
        self.file.flush()
    }

    /// Tells the summary what has changed.
    fn summary(&mut self) -> Result<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let item = |(key, value_json)| Item { key, value_json };
        let update = std::mem::take(&mut self.changed).into_iter().map(item).collect();
        self.file.append(What::Summary(Items { update }))
    }
}

#[cfg(test)]
mod tests;
