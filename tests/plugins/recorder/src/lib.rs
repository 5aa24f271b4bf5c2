//! Well-behaved unless told otherwise: subscribes to every event and writes one JSON object a line for each hook.
//!
//! Each line has `instance`, `event`, the position (`epoch`, `step`, `global_step`, `samples`), and `texts`, the rest of
//! the event's data. Several instances may share a file: a line is one write in append mode.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use plugin_api::event::{
    ArtifactPublished, At, Checkpoint, CheckpointWritten, Custom, Evaluation, Failed, Position, RecordPut, Stopping,
    TrainEnd, Trigger,
};
use plugin_api::protocol::{Control, RecordValue};
use plugin_api::{Callback, Creation, Error, Kind, Result, Run, plugin};
use serde_json::{Value, json};

/// Hooks are named by their events; `new` is the creation of the instance. An empty name is no hook.
#[plugin]
#[derive(Default)]
struct Options {
    /// The file to append to; empty: none.
    path: String,
    /// The hook that returns an error.
    fail_in: String,
    /// The hook that panics.
    panic_in: String,
    /// Milliseconds that a hook sleeps.
    sleep_ms: u64,
    /// The hook that sleeps; empty: every hook.
    sleep_in: String,
    /// The hook that puts the record `recorder/<instance>`.
    record_in: String,
    /// The hook that sends the custom event `recorder`.
    emit_in: String,
    /// The hook that asks for a stop.
    stop_in: String,
    /// The hook that requests what `asks` says.
    ask_in: String,
    /// `checkpoint`, `evaluate` or `end_epoch`.
    asks: String,
    /// The hook that publishes an artifact.
    publish_in: String,
    /// The only global step at which the hooks do any of this; 0: at each.
    at_step: u64,
    /// The metric that `epoch_end` puts, the epoch as its value.
    #[schemars(extend("format" = "produced-metric"))]
    puts: String,
    /// The metric that `epoch_end` reads; its value is in the line's texts.
    reads: String,
}

struct Recorder {
    options: Options,
    instance: String,
    file: Option<File>,
    /// Hooks so far, including those before a resume: the state.
    hooks: u64,
}

impl Recorder {
    fn line(&mut self, event: &str, position: Position, texts: Value) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = json!({
            "instance": self.instance, "event": event,
            "epoch": position.epoch, "step": position.step,
            "global_step": position.global_step, "samples": position.samples,
            "texts": texts,
        });
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }

    fn note(&mut self, run: &mut Run<'_>, event: &str, position: Position, texts: Value) -> Result<()> {
        self.hooks += 1;
        self.line(event, position, texts)?;
        if self.options.at_step != 0 && self.options.at_step != position.global_step {
            return Ok(());
        }
        if self.options.record_in == event {
            let value = RecordValue::Scalar { value: self.hooks as f64 };
            run.put_record(&format!("recorder/{}", self.instance), value)?;
        }
        if self.options.emit_in == event {
            run.emit("recorder", self.instance.as_bytes())?;
        }
        if self.options.stop_in == event {
            run.stop("the recorder was told to")?;
        }
        if self.options.ask_in == event {
            let action = match self.options.asks.as_str() {
                "checkpoint" => Control::Checkpoint,
                "evaluate" => Control::Evaluate,
                "end_epoch" => Control::EndEpoch,
                other => return Err(Error::new(format!("the recorder cannot ask for `{other}`"))),
            };
            run.request(action, "the recorder was told to")?;
        }
        if self.options.publish_in == event {
            run.publish("recorder", "recorder.txt")?;
        }
        self.misbehave(event)
    }

    fn misbehave(&self, event: &str) -> Result<()> {
        if self.options.sleep_in.is_empty() || self.options.sleep_in == event {
            std::thread::sleep(Duration::from_millis(self.options.sleep_ms));
        }
        assert!(self.options.panic_in != event, "the recorder was told to panic in `{event}`");
        if self.options.fail_in == event {
            return Err(Error::new(format!("the recorder was told to fail in `{event}`")));
        }
        Ok(())
    }
}

#[plugin]
impl Callback for Recorder {
    const KIND: &'static str = "recorder";
    const SUMMARY: &'static str = "Writes a line for every hook";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        let file = match options.path.as_str() {
            "" => None,
            path => Some(File::options().append(true).create(true).open(path)?),
        };
        let mut recorder = Self { options, instance: creation.instance.to_owned(), file, hooks: 0 };
        recorder.line("new", Position::default(), Value::Null)?;
        recorder.misbehave("new")?;
        Ok(recorder)
    }

    fn on_setup(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "setup", event.position, Value::Null)
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "train_start", event.position, Value::Null)
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.hooks = std::str::from_utf8(state)?.parse()?;
        self.line("load_state", Position::default(), json!({ "hooks": self.hooks }))?;
        self.misbehave("load_state")
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<Vec<u8>> {
        // Not counted, so that saving again after loading gives the same state.
        self.line("save_state", event.position, json!({ "hooks": self.hooks }))?;
        self.misbehave("save_state")?;
        Ok(self.hooks.to_string().into_bytes())
    }

    fn on_epoch_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "epoch_start", event.position, Value::Null)
    }

    fn on_epoch_trained(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "epoch_trained", event.position, Value::Null)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if !self.options.puts.is_empty() {
            run.put_metric(&self.options.puts, event.epoch as f64)?;
        }
        let read = match self.options.reads.as_str() {
            "" => Value::Null,
            name => json!({ name: run.metric(name)? }),
        };
        self.note(run, "epoch_end", event.position, read)
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "step_start", event.position, Value::Null)
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "step_end", event.position, Value::Null)
    }

    fn on_gradients(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "gradients", event.position, Value::Null)
    }

    fn on_eval_start(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.note(run, "eval_start", event.position, evaluation(event))
    }

    fn on_eval_step_start(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.note(run, "eval_step_start", event.position, evaluation(event))
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.note(run, "eval_step_end", event.position, evaluation(event))
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.note(run, "eval_end", event.position, evaluation(event))
    }

    fn on_predict_start(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.note(run, "predict_start", event.position, evaluation(event))
    }

    fn on_predict_step(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.note(run, "predict_step", event.position, evaluation(event))
    }

    fn on_predict_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        self.note(run, "predict_end", event.position, evaluation(event))
    }

    fn on_export(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "export", event.position, Value::Null)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let texts = json!({ "cause": event.cause });
        self.note(run, "trigger", event.position, texts)
    }

    fn on_record(&mut self, run: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        let texts =
            json!({ "name": event.name, "author": event.author, "type": event.type_name, "scalar": event.scalar });
        self.note(run, "record", event.position, texts)
    }

    fn on_custom(&mut self, run: &mut Run<'_>, event: &Custom<'_>) -> Result<()> {
        let texts =
            json!({ "name": event.name, "author": event.author, "payload": String::from_utf8_lossy(event.payload) });
        self.note(run, "custom", event.position, texts)
    }

    fn on_checkpoint(&mut self, run: &mut Run<'_>, event: &Checkpoint<'_>) -> Result<()> {
        let texts = json!({ "asked_by": event.asked_by, "reason": event.reason });
        self.note(run, "checkpoint", event.position, texts)
    }

    fn on_checkpoint_written(&mut self, run: &mut Run<'_>, event: &CheckpointWritten<'_>) -> Result<()> {
        let texts = json!({ "path": event.path, "error": event.written.as_ref().err() });
        self.note(run, "checkpoint_written", event.position, texts)
    }

    fn on_artifact(&mut self, run: &mut Run<'_>, event: &ArtifactPublished<'_>) -> Result<()> {
        let texts = json!({ "kind": event.kind, "path": event.path, "author": event.author });
        self.note(run, "artifact", event.position, texts)
    }

    fn on_stopping(&mut self, run: &mut Run<'_>, event: &Stopping<'_>) -> Result<()> {
        let texts = json!({ "by": event.by, "reason": event.reason });
        self.note(run, "stopping", event.position, texts)
    }

    fn on_error(&mut self, run: &mut Run<'_>, event: &Failed<'_>) -> Result<()> {
        let texts = json!({ "by": event.by, "hook": event.hook, "message": event.message });
        self.note(run, "error", event.position, texts)
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        let texts = json!({ "outcome": event.outcome.name(), "reason": event.reason });
        self.note(run, "train_end", event.position, texts)
    }

    fn on_teardown(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.note(run, "teardown", event.position, Value::Null)
    }
}

fn evaluation(event: &Evaluation<'_>) -> Value {
    json!({ "split": event.split, "mid_epoch": event.mid_epoch, "batch": event.batch, "batches": event.batches })
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Recorder>()];
