//! Where the time of steps goes: the phases of each, and libtorch's operators. Nothing is measured until somebody asks.

use plugin_api::protocol::{Recording, Span, SpanKind};

use super::error::TrainError;
use super::session::Session;
use crate::torch::operators::{self, OperatorRecorder};

/// The most spans that wait to be read: a plugin that does not read must not fill the memory.
const MOST: usize = 1_000_000;

/// A phase of a step. The phases follow each other without a gap, and make up the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The wait for the batch, its move to the device, and clearing the gradients.
    Data,
    /// Outputs and loss.
    Forward,
    /// Gradients.
    Backward,
    /// Clipping, the update, and the step's metrics.
    Optimizer,
    /// Hooks, and triggers.
    Callbacks,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Optimizer => "optimizer",
            Self::Callbacks => "callbacks",
        }
    }
}

/// What is recorded, for whoever reads it next.
pub(super) struct Profile {
    /// When it began, by the clock of [`operators::now`].
    origin: i64,
    operators: Option<OperatorRecorder>,
    /// The phase in progress, its step, and when it began.
    open: Option<(Phase, u64, i64)>,
    spans: Vec<Span>,
}

impl Profile {
    fn enter(&mut self, next: Option<Phase>, step: u64) {
        let now = operators::now();
        if let Some((phase, of_step, began)) = self.open.take() {
            self.push(phase.name(), SpanKind::Phase, of_step, began, now - began);
        }
        self.open = next.map(|phase| (phase, step, now));
    }

    fn push(&mut self, name: &str, kind: SpanKind, step: u64, began: i64, nanoseconds: i64) {
        if self.spans.len() < MOST {
            let since = (began - self.origin).max(0).unsigned_abs();
            let nanoseconds = nanoseconds.max(0).unsigned_abs();
            self.spans.push(Span { name: name.to_owned(), kind, step, began: since, nanoseconds });
        }
    }
}

impl Session {
    /// The step goes on with this phase. One comparison unless somebody records.
    #[inline]
    pub(super) fn enter(&mut self, phase: Phase) {
        if let Some(profile) = &mut self.profile {
            // The data is waited for before the step counts.
            let step = self.progress.position.global_step + u64::from(phase == Phase::Data);
            profile.enter(Some(phase), step);
        }
    }

    /// The step is over.
    #[inline]
    pub(super) fn leave(&mut self) {
        if let Some(profile) = &mut self.profile {
            profile.enter(None, 0);
        }
    }

    /// Returns what was recorded since the last call, and records from now on what is asked for.
    pub(super) fn record(&mut self, recording: Recording) -> Result<Vec<Span>, TrainError> {
        let step = self.progress.position.global_step;
        let spans = match &mut self.profile {
            Some(profile) => {
                let ran = profile.operators.as_ref().map(OperatorRecorder::take).transpose()?;
                for operator in ran.unwrap_or_default() {
                    profile.push(&operator.name, SpanKind::Operator, step, operator.began, operator.nanoseconds);
                }
                std::mem::take(&mut profile.spans)
            }
            None => Vec::new(),
        };
        let wants_operators = recording == Recording::Operators;
        match (&mut self.profile, recording) {
            (profile, Recording::Off) => *profile = None,
            (Some(profile), _) => {
                if !wants_operators {
                    profile.operators = None;
                } else if profile.operators.is_none() {
                    profile.operators = Some(OperatorRecorder::begin()?);
                }
            }
            (profile @ None, _) => {
                let operators = wants_operators.then(OperatorRecorder::begin).transpose()?;
                let new = Profile { origin: operators::now(), operators, open: None, spans: Vec::new() };
                *profile = Some(Box::new(new));
            }
        }
        Ok(spans)
    }
}
