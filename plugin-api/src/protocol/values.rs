//! The values that services take and return, as authors see them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The epoch in which it was put, from 1.
    pub epoch: u64,
    /// The global step after which it was put.
    pub global_step: u64,
    /// The value.
    pub value: f64,
}

/// An array of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArrayPoint {
    /// The epoch in which it was put, from 1.
    pub epoch: u64,
    /// The global step after which it was put.
    pub global_step: u64,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its values, the last dimension fastest.
    pub values: Vec<f32>,
}

/// Where the weights of the model come from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightsInfo {
    /// The epoch in which they were those of the training, from 1.
    pub epoch: u64,
    /// The global step after which they were.
    pub global_step: u64,
    /// What was measured of them; values that are still being averaged are not among them.
    pub metrics: BTreeMap<String, f64>,
}

/// A parameter group of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ParameterGroup {
    /// Its name.
    pub name: String,
    /// Its hyper-parameters: `learning_rate`, `weight_decay`, ….
    pub values: BTreeMap<String, f64>,
    /// Who owns each value that the host's schedule no longer sets.
    #[serde(default)]
    pub owners: BTreeMap<String, String>,
}

/// What a callback can ask the loop to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Control {
    /// End the run; it counts as stopped, not as failed.
    Stop,
    /// End the epoch after this step; its evaluation still comes.
    EndEpoch,
    /// Skip this step's update; only in `gradients`.
    SkipUpdate,
    /// Evaluate at the next safe point.
    Evaluate,
    /// Take a checkpoint at the next safe point.
    Checkpoint,
    /// Pause the loop at the next safe point, until `resume`.
    Pause,
    /// End a pause.
    Resume,
}

/// What an expression gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Evaluated {
    /// Whether a condition holds.
    Bool(bool),
    /// A number. It is NaN if a metric in it has no value.
    Number(f64),
    /// A text.
    Text(String),
    /// What actions ask for, in order.
    Actions(Vec<Action>),
}

/// What an action asks for, such as `stop('done')`, with its values computed. To do it is up to whoever asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// `stop(reason)`: end the run.
    Stop {
        /// Why, for people.
        reason: String,
    },
    /// `checkpoint()`: take a checkpoint.
    Checkpoint {},
    /// `log(text)`: show a line.
    Log {
        /// The line.
        text: String,
    },
    /// `put(name, value)`: put a metric.
    Put {
        /// Its name.
        name: String,
        /// Its value.
        value: f64,
    },
    /// `set(name, value)`: set a hyper-parameter. There is one for each parameter group that has it.
    Set {
        /// The hyper-parameter.
        name: String,
        /// The parameter group; absent only if there is none that has it.
        #[serde(default)]
        group: Option<String>,
        /// The value.
        value: f64,
    },
}

/// What to do with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyAction {
    /// Create it, or replace it.
    Take,
    /// Put it back in place.
    Restore,
    /// Forget it.
    Drop,
}

/// A checkpoint that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointWritten {
    /// The folder, absolute.
    pub path: String,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Whether one of the same position already existed.
    #[serde(default)]
    pub existed: bool,
}

/// Low-rank adapters beside frozen weights, in the words of PEFT's `LoraConfig`.
///
/// `parameters` are the base's, as they are, and the adapters'. A callback with the hook `export` reads the weights as the model
/// computes with them: those of the base with what the adapters add, under the base's names. It gets an adapter's tensors by their
/// names only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LoraInfo {
    /// `r`
    #[serde(default)]
    pub rank: u64,
    /// `lora_alpha`: what is added to a weight is `alpha / rank` times the product of its matrices.
    #[serde(default)]
    pub alpha: f64,
    /// Whether the adapted weights are stored transposed, as in transformers' `Conv1D`.
    #[serde(default)]
    pub fan_in_fan_out: bool,
    /// The names of the adapted modules.
    #[serde(default)]
    pub target_modules: Vec<String>,
    /// The names of the modules that are trained themselves.
    #[serde(default)]
    pub modules_to_save: Vec<String>,
    /// The names of the adapters' parameters: `<module>.lora_A.weight` and `<module>.lora_B.weight`.
    #[serde(default)]
    pub tensors: Vec<String>,
}

/// The description of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunInfo {
    /// The instance's own name.
    #[serde(default)]
    pub instance: String,
    /// The run's name.
    #[serde(default)]
    pub name: String,
    /// The run folder, absolute. That of a rank above zero is `ranks/N` in the run's.
    #[serde(default)]
    pub folder: String,
    /// The resolved run file, as JSON text.
    #[serde(default)]
    pub run_file: String,
    /// The host's version.
    #[serde(default)]
    pub host_version: String,
    /// `cpu` or `cuda:N`.
    #[serde(default)]
    pub device: String,
    /// Epochs planned; 0 when the run is planned in steps.
    #[serde(default)]
    pub epochs: u64,
    /// Steps of one epoch.
    #[serde(default)]
    pub steps_per_epoch: u64,
    /// Steps planned in all.
    #[serde(default)]
    pub total_steps: u64,
    /// Samples of the training split.
    #[serde(default)]
    pub training_samples: u64,
    /// What is trained on.
    #[serde(default)]
    pub data: DataInfo,
    /// Every metric that the run will give, by name, sorted: those of the loop, and those that callbacks declare.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// The checkpoint that the run resumed from.
    #[serde(default)]
    pub resumed_from: Option<String>,
    /// How the last process of the run ended, as the end of a sentence about it, if it did not end by itself: it crashed, or
    /// it was killed.
    #[serde(default)]
    pub previous_end: Option<String>,
    /// Which job it is: `train`, or `evaluate`, `predict` or `export` of a saved checkpoint; empty of an older host, which only
    /// trains.
    #[serde(default)]
    pub job: String,
    /// Whether this is a trial (`--try`) that publishes nothing.
    #[serde(default)]
    pub trial: bool,
    /// Which of the run's processes this is, from 0; see [`world_size`](Self::world_size).
    #[serde(default)]
    pub rank: u64,
    /// How many processes train the model together; 0 of an older host, which has one. In a step, the batch, outputs and taps
    /// are of this rank's share of the samples, maybe none, and so are the metrics of an epoch in progress. Gradients, the
    /// loss, and the metrics of a whole epoch and of an evaluation are those of all ranks.
    #[serde(default)]
    pub world_size: u64,
    /// The adapters that are trained in place of the model's own parameters, if there are some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraInfo>,
    /// The columns of the terminal that shows the console; 0 if it is shown on none.
    #[serde(default)]
    pub console_width: u64,
    /// Whether the console shows ANSI colors.
    #[serde(default)]
    pub console_colors: bool,
}

/// What a run is trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataInfo {
    /// The samples of each split.
    #[serde(default)]
    pub splits: BTreeMap<String, u64>,
    /// The number of classes; 0 if numbers are predicted.
    #[serde(default)]
    pub classes: u64,
    /// The names of the classes, or of the predicted numbers, in order; empty if unknown.
    #[serde(default)]
    pub target_names: Vec<String>,
    /// What was subtracted from every sample, one number for each index of its first dimension (features of a vector,
    /// channels of an image); empty if nothing was.
    #[serde(default)]
    pub offset: Vec<f32>,
    /// What every sample was then divided by, as `offset`.
    #[serde(default)]
    pub scale: Vec<f32>,
    /// What each token of a sample stands for, in the order of their numbers; empty if samples are not tokens, or are
    /// bytes.
    #[serde(default)]
    pub tokens: Vec<String>,
    /// The names of a sample's numbers, such as `age` and `city=Paris`; empty if they have none.
    #[serde(default)]
    pub feature_names: Vec<String>,
}

impl DataInfo {
    /// The split that is trained on; the others are evaluated.
    pub const TRAIN: &'static str = "train";

    /// Whether a metric, by its name, is of a split that is evaluated.
    pub fn is_evaluated(&self, metric: &str) -> bool {
        let evaluated = self.splits.keys().filter(|split| *split != Self::TRAIN);
        evaluated.filter_map(|split| metric.strip_prefix(split.as_str())).any(|rest| rest.starts_with('_'))
    }

    /// Of the values in `points`, those that hold at `global_step`, at which the run is: those of evaluated splits only if
    /// they were measured there, since others are of other weights; all others as they are.
    pub fn current(&self, points: BTreeMap<String, Point>, global_step: u64) -> BTreeMap<String, f64> {
        let current =
            points.into_iter().filter(|(name, point)| point.global_step == global_step || !self.is_evaluated(name));
        current.map(|(name, point)| (name, point.value)).collect()
    }
}

/// A line that the console showed: of a callback, a warning or the host. The host keeps the newest ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConsoleLine {
    /// Counts the lines of this process, from 1.
    pub number: u64,
    /// Seconds since 1970, UTC.
    pub time: f64,
    /// The line, without its break.
    pub text: String,
}

/// The cost of one hook of one callback, in this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HookTime {
    /// The instance's name.
    pub instance: String,
    /// The hook, by its event's name; `waiting` for the time that the loop waited for a callback in the background.
    pub hook: String,
    /// Whether it ran in the background, where the loop did not wait for it.
    pub background: bool,
    /// How many calls.
    pub calls: u64,
    /// Their time; an estimate for hooks of every step that take less than a quarter of a microsecond.
    pub seconds: f64,
    /// The longest call that was timed.
    pub longest_seconds: f64,
}

/// What a profile records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recording {
    /// Nothing.
    Off,
    /// The phases of each step: `data`, `forward`, `backward`, `optimizer` and `callbacks`.
    Phases,
    /// The operators of libtorch as well, such as `aten::addmm`. Each then takes a little longer.
    Operators,
}

/// What a span of a profile is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SpanKind {
    /// A phase of a step.
    Phase,
    /// An operator of libtorch; one that runs others contains them.
    Operator,
}

/// A span of time of a profile, by the clock of the host: on a GPU, an operator's is that of its launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The phase or the operator.
    pub name: String,
    /// What it is.
    pub kind: SpanKind,
    /// The global step of the phase; of an operator, the step in which it was read.
    pub step: u64,
    /// When it began, in nanoseconds since the recording began.
    pub began: u64,
    /// How long it took, in nanoseconds.
    pub nanoseconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_expression_gives_keeps_its_type() {
        let set = Action::Set { name: "learning_rate".to_owned(), group: None, value: 0.5 };
        for value in [
            Evaluated::Bool(true),
            Evaluated::Number(1.0),
            Evaluated::Text("1".to_owned()),
            Evaluated::Actions(vec![Action::Checkpoint {}, set, Action::Stop { reason: String::new() }]),
            Evaluated::Actions(Vec::new()),
        ] {
            let bytes = rmp_serde::to_vec_named(&value).unwrap();
            assert_eq!(rmp_serde::from_slice::<Evaluated>(&bytes).unwrap(), value);
        }
        // A host that writes an integer means a number.
        let bytes = rmp_serde::to_vec_named(&2_u8).unwrap();
        assert_eq!(rmp_serde::from_slice::<Evaluated>(&bytes).unwrap(), Evaluated::Number(2.0));
    }
}
