//! What happens to a run as JSON on stdout, an object a line: `host run --json`.

use std::io::Write;

use host_command::runs::event::RunEvent;
use host_command::runs::status::Status;
use host_command::stdout::Stdout;
use tracing::field::{Field, Visit};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::status::number;
use crate::dispatch::ENDS_RUN;
use crate::expression::Surroundings;
use crate::report::{Problem, ProblemJson};
use crate::train::Session;

/// Where the events go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Events {
    /// Nowhere.
    #[default]
    Off,
    /// To stdout.
    Stdout,
}

impl Events {
    /// The run begins: its folder, and where it goes on from.
    pub(super) fn start(self, folder: &std::path::Path, run: &str, resumed_from: Option<&std::path::Path>) {
        let resumed_from = resumed_from.map(|path| path.display().to_string());
        self.write(&RunEvent::Start { run, folder: folder.display().to_string(), resumed_from });
    }

    /// The state has changed.
    pub(super) fn state(self, status: &Status) {
        self.write(&RunEvent::State {
            state: status.state,
            reason: status.reason.as_deref(),
            stopped_by: status.stopped_by.as_deref(),
            epoch: status.position.epoch,
            step: status.position.global_step,
            progress: status.progress,
        });
    }

    /// A split was measured: the training split at the end of an epoch, another by an evaluation.
    pub(super) fn measured(self, split: &str, session: &Session) {
        if self == Self::Off {
            return;
        }
        let position = session.position();
        let of_now = session.metrics().iter().filter(|(_, metric)| metric.position == position);
        let metrics = of_now.map(|(name, metric)| (name, number(metric.value))).collect();
        let (epoch, step) = (position.epoch, position.global_step);
        self.write(&RunEvent::Metrics { split, epoch, step, progress: session.progress(), metrics });
    }

    /// Something was published.
    pub(super) fn artifact(self, kind: &str, path: &str) {
        self.write(&RunEvent::Artifact { kind, path });
    }

    /// Something is wrong that the run survives.
    pub(super) fn warning(self, warning: &Problem) {
        self.write(&RunEvent::Warning(ProblemJson::new("warning", warning)));
    }

    /// Something ends the run.
    pub(super) fn error(self, error: &Problem) {
        self.write(&RunEvent::Error(ProblemJson::new("error", error)));
    }

    /// The run has ended.
    pub(super) fn end(self, status: &Status) {
        self.write(&RunEvent::End(status));
    }

    fn write(self, event: &RunEvent<'_>) {
        if self == Self::Off {
            return;
        }
        // Each of its values can be written as JSON.
        let Ok(line) = event.line() else { return };
        // At once, since several threads write. A reader that is gone does not change the run.
        let _ = Stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| Stdout.flush());
    }
}

/// Makes events of the warnings in the log: of callbacks that failed, of writes that did, of hooks that take long.
impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *self == Self::Off || *event.metadata().level() > Level::WARN || event.metadata().target() == ENDS_RUN {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        let Said { message, fields } = said;
        let problem = fields.into_iter().fold(Problem::new(message), |problem, field| problem.with_reason(field));
        self.warning(&problem);
    }
}

/// A line of the log in words.
#[derive(Default)]
struct Said {
    message: String,
    /// `path: metrics.csv`.
    fields: Vec<String>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push(format!("{name}: {value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}
