//! What a notifier reports about an event.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::event::Event;

/// An event of a run, with all fields of texts, payloads and the environments of programs.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What happened.
    pub event: Event,
    /// When.
    pub time: Timestamp,
    /// The run's name.
    pub run: String,
    /// The run folder, absolute.
    pub run_folder: String,
    /// The epoch in progress, from 1; 0 before the first.
    pub epoch: u64,
    /// Epochs planned; 0 when the run is planned in steps.
    pub epochs: u64,
    /// Optimizer updates so far.
    pub step: u64,
    /// Optimizer updates planned.
    pub steps: u64,
    /// Seconds since this process began to train.
    pub seconds: f64,
    /// The latest value of each metric.
    pub metrics: BTreeMap<String, f64>,
    /// Where the latest artifact of each kind is; under `exports` all latest exports.
    pub artifacts: BTreeMap<String, Vec<String>>,
    /// What only this event has: `cause`, `metric`, `plugin`, `hook`, `error`, `reason`, `artifact`, `path`,
    /// `resumed_from`.
    pub details: BTreeMap<&'static str, String>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// Text, or a whole number.
    Text(Cow<'a, str>),
    /// A number with a fraction.
    Number(f64),
}

impl Notice {
    /// The fields of every notice, the most wanted first.
    const ALWAYS: [&'static str; 11] =
        ["event", "title", "summary", "run", "run_folder", "time", "epoch", "epochs", "step", "steps", "seconds"];

    /// The value of a template's `{name}`: a field of the notice, a detail of its event, the path of an artifact, or a
    /// metric; the first that exists.
    pub fn field(&self, name: &str) -> Option<Field<'_>> {
        let text: Cow<'_, str> = match name {
            "event" => self.event.name().into(),
            "title" => self.title().into(),
            "summary" => self.summary().into(),
            "run" => (&self.run).into(),
            "run_folder" => (&self.run_folder).into(),
            "time" => self.timestamp().into(),
            "epoch" => self.epoch.to_string().into(),
            "epochs" => self.epochs.to_string().into(),
            "step" => self.step.to_string().into(),
            "steps" => self.steps.to_string().into(),
            "seconds" => return Some(Field::Number(self.seconds)),
            _ => return self.particular(name),
        };
        Some(Field::Text(text))
    }

    fn particular(&self, name: &str) -> Option<Field<'_>> {
        let detail = self.details.get(name).map(|detail| Cow::Borrowed(detail.as_str()));
        let artifact = || self.artifacts.get(name).map(|paths| Cow::Owned(paths.join(", ")));
        let metric = || self.metrics.get(name).copied().map(Field::Number);
        detail.or_else(artifact).map(Field::Text).or_else(metric)
    }

    /// The names of the fields that are not metrics.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let artifacts = self.artifacts.keys().map(String::as_str);
        Self::ALWAYS.into_iter().chain(self.details.keys().copied()).chain(artifacts)
    }

    /// When it happened (RFC 3339), to the millisecond.
    pub fn timestamp(&self) -> String {
        format!("{:.3}", self.time)
    }

    /// What happened, in a few words.
    pub fn title(&self) -> String {
        let run = &self.run;
        match self.event {
            Event::Start if self.details.contains_key("resumed_from") => format!("{run} resumed"),
            Event::Start => format!("{run} started"),
            Event::Trigger => format!("{run}: {}", self.position()),
            Event::Improved => format!("{run}: {} improved", self.detail("metric")),
            Event::Artifact => format!("{run}: new {}", self.detail("artifact")),
            Event::Stopped => format!("{run} stopped early"),
            Event::Failed => format!("{run} failed"),
            Event::Interrupted => format!("{run} was interrupted"),
            Event::Finished => format!("{run} finished"),
        }
    }

    /// The details in a sentence or two: the text of a notice without a template.
    pub fn summary(&self) -> String {
        let (position, folder) = (self.position(), &self.run_folder);
        let after = format!("After {position}, {:.1} s", self.seconds);
        match self.event {
            Event::Start if self.details.contains_key("resumed_from") => {
                format!("Resumed from {}", self.detail("resumed_from"))
            }
            Event::Start if self.epochs > 0 => format!("{} epochs, {} steps, in {folder}", self.epochs, self.steps),
            Event::Start => format!("{} steps, in {folder}", self.steps),
            Event::Improved => {
                let metric = self.detail("metric");
                let value = self.metrics.get(metric).map_or_else(|| "n/a".to_owned(), |value| short(*value));
                format!("{metric} is {value} after {position}")
            }
            Event::Artifact => format!("{} after {position}", self.detail("path")),
            Event::Stopped => {
                format!("{after}, by {}: {}. Results: {folder}", self.detail("plugin"), self.detail("reason"))
            }
            Event::Failed => {
                let (plugin, hook) = (self.detail("plugin"), self.detail("hook"));
                let place = if hook.is_empty() { plugin.to_owned() } else { format!("{plugin} in {hook}") };
                format!("{after}, {place}: {}. Log: {folder}", self.detail("error"))
            }
            Event::Trigger | Event::Interrupted | Event::Finished => format!("{after}. Results: {folder}"),
        }
    }

    /// The metrics of a message that tell how good the model is: those of a split, without the measured seconds. At
    /// most 20, to keep the message short.
    pub fn results(&self) -> Vec<(&str, String)> {
        let of_split = |name: &str| ["train_", "val_", "test_"].iter().any(|split| name.starts_with(split));
        let metrics = self.metrics.iter().filter(|(name, _)| of_split(name) && !name.ends_with("_seconds"));
        metrics.take(20).map(|(name, value)| (name.as_str(), short(*value))).collect()
    }

    fn detail(&self, name: &str) -> &str {
        self.details.get(name).map_or("", String::as_str)
    }

    fn position(&self) -> String {
        match self.epochs {
            0 => format!("step {} of {}", self.step, self.steps),
            epochs => format!("epoch {} of {epochs}, step {}", self.epoch, self.step),
        }
    }
}

/// A number with four significant digits.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if (0.001..1e6).contains(&size) => format!("{value:.4}"),
        _ => format!("{value:.3e}"),
    }
}
