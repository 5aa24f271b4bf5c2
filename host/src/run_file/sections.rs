//! The run file's sections.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::distributed::DistributedOptions;
use crate::config::{Device, Every, Isolation, PluginOptions};
use crate::data::DataOptions;
use crate::model::ModelOptions;
use crate::torch::products::Products;
use crate::train::Precision;
use crate::train::loss::LossOptions;
use crate::train::optimizer::OptimizerOptions;
use crate::train::schedule::{Schedule, ScheduleOptions, Warmup};

/// A whole run, as its TOML file describes it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFile {
    /// The run itself: name, seed, device, folder.
    pub run: RunOptions,
    /// The data and its splits.
    pub data: DataOptions,
    /// The model. A program that brings its own does not need this section.
    #[serde(default)]
    pub model: ModelOptions,
    /// The training.
    pub train: TrainOptions,
    /// The evaluation during training. Without this section, there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalOptions>,
    /// How several processes train the model, for `host run --processes`, `torchrun`, `srun` and their relatives.
    #[serde(default, skip_serializing_if = "DistributedOptions::is_default")]
    pub distributed: DistributedOptions,
    /// The plugins, in the order in which their hooks are called.
    #[serde(default)]
    pub plugins: Vec<PluginOptions>,
}

impl RunFile {
    /// The run file as TOML with every default written out; [`load`](super::load) reads it back as the same run.
    ///
    /// # Errors
    /// A plugin's options that TOML cannot write (a null).
    pub fn resolved_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// The run itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunOptions {
    /// The run's name; it names the run's folder. Letters, digits, `.`, `_` and `-`.
    #[schemars(extend("format" = "run-name"))]
    pub name: String,
    /// The seed of every random number in the run. The same seed gives the same bits on a CPU, and the default seed
    /// makes a run repeatable too.
    #[serde(default)]
    pub seed: u64,
    /// Where the tensors are: `auto` (the first CUDA device, else the CPU), `cpu` or `cuda:N`.
    #[serde(default)]
    pub device: Device,
    /// Threads of one tensor operation: `auto` (a function of the model and of the cores) or a number.
    #[serde(default)]
    pub threads: Threads,
    /// Who computes matrix products of f32 on a CPU: `auto` (the fastest that this processor has), `libtorch` or `gemm` (a
    /// library with AVX-512 for processors on which libtorch does not use it, together with the host's own kernels for some
    /// layers). They round sums in another order, so a resumed run keeps those of its checkpoint.
    #[serde(default)]
    pub kernels: KernelsOption,
    /// The run's folder. If not given, `runs/<name>/<start time>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<String>,
    /// Whether kinds that are on by default are added without being declared.
    #[serde(default = "yes")]
    pub by_default: bool,
    /// The signal that asks for a checkpoint at the next safe point, after which the run goes on: cluster managers send one
    /// before they take a machine away.
    #[serde(default)]
    pub checkpoint_signal: CheckpointSignal,
    /// Whether only plugin libraries are opened that `plugins.lock` beside this file lists, with the content that they have
    /// there; as `--locked` does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub locked: bool,
    /// A hook that takes longer is named in a warning.
    #[serde(default = "hook_warning")]
    pub hook_warning: Every,
    /// A hook that takes longer is ended: in the background its instance fails, and its `on_error` decides about the run; a
    /// hook that the loop waits for ends the run as failed, unless it is in a process of its own, which is ended instead. Without
    /// it, nothing ends a hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_timeout: Option<Every>,
    /// Whether plugins run in processes of their own, unless their entry says something else.
    #[serde(default, skip_serializing_if = "is_none")]
    pub isolation: Isolation,
    /// The Python of plugins in Python: a name, or a path relative to the run file; by default `python3`. It needs no package of
    /// the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<PathBuf>,
}

fn is_none(isolation: &Isolation) -> bool {
    *isolation == Isolation::None
}

fn hook_warning() -> Every {
    Every::Time(Duration::from_secs(60))
}

/// Who computes matrix products of f32 on a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Kernels")]
pub enum KernelsOption {
    /// The fastest that this processor has.
    #[default]
    Auto,
    /// libtorch, by its own BLAS.
    Libtorch,
    /// The library `gemm`.
    Gemm,
}

impl KernelsOption {
    /// The choice for this machine.
    pub fn products(self) -> Products {
        match self {
            KernelsOption::Auto => Products::fastest(),
            KernelsOption::Libtorch => Products::Libtorch,
            KernelsOption::Gemm => Products::Gemm,
        }
    }
}

/// The signal that asks for a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CheckpointSignal {
    /// The one that SLURM's users choose, `--signal=USR1@90`.
    #[default]
    #[serde(rename = "SIGUSR1")]
    Sigusr1,
    /// The other one whose meaning programs choose.
    #[serde(rename = "SIGUSR2")]
    Sigusr2,
    /// No signal asks for one.
    #[serde(rename = "none")]
    None,
}

fn yes() -> bool {
    true
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// Threads of one tensor operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WrittenThreads", into = "WrittenThreads")]
pub enum Threads {
    /// As many as suit the model and the cores.
    #[default]
    Auto,
    /// This number.
    Count(NonZeroUsize),
}

/// [`Threads`] as the run file writes them.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenThreads {
    Count(NonZeroUsize),
    Word(String),
}

impl TryFrom<WrittenThreads> for Threads {
    type Error = &'static str;

    fn try_from(written: WrittenThreads) -> Result<Threads, &'static str> {
        match written {
            WrittenThreads::Count(count) => Ok(Threads::Count(count)),
            WrittenThreads::Word(word) if word == "auto" => Ok(Threads::Auto),
            WrittenThreads::Word(_) => Err("expected `auto` or a number of threads"),
        }
    }
}

impl From<Threads> for WrittenThreads {
    fn from(threads: Threads) -> WrittenThreads {
        match threads {
            Threads::Auto => WrittenThreads::Word("auto".to_owned()),
            Threads::Count(count) => WrittenThreads::Count(count),
        }
    }
}

impl JsonSchema for Threads {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Threads".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "string", "const": "auto" }, { "type": "integer", "minimum": 1 }],
            "description": "Threads of one tensor operation: `auto` or a number"
        })
    }
}

/// The training.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// The run's length in passes over the training split; either this or `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub epochs: Option<u64>,
    /// The run's length in optimizer updates; either this or `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub steps: Option<u64>,
    /// The number of the first epoch, for weights that were trained before: epochs and schedules count from it, and `epochs`
    /// or `steps` stay the last number.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub start_epoch: u64,
    /// Samples per batch.
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// The loss to minimize. Not given when the program has its own loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<LossOptions>,
    /// Metrics of the training split in addition to the loss, from the outputs of the steps: `accuracy`, `top5_error`
    /// (of any number), `precision`, `recall`, `f1`, `auc`, `perplexity` and `confusion_matrix` for classes, `mae`,
    /// `rmse` and `r2` for numbers. Of two classes, `precision`, `recall` and `f1` are those of the class that `[data]
    /// positive` names, the second one if it names none; of more, the mean over the classes. `f1_macro`, `f1_micro`
    /// and `f1_weighted`, and the same of the other two, are means over the classes in any case.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// The optimizer.
    pub optimizer: OptimizerOptions,
    /// The schedule of the learning rate.
    #[serde(default)]
    pub schedule: ScheduleOptions,
    /// The warm-up to the full learning rate, before the schedule. Without it, there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
    /// The largest norm of all gradients together; larger ones are scaled down to it. Without it, they are not scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_gradient_norm: Option<f64>,
    /// Batches whose gradients are summed for one optimizer update.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub accumulate: u64,
    /// The type of the forward and backward computations; weights and optimizer state stay `f32`.
    #[serde(default)]
    pub precision: Precision,
}

fn one() -> u64 {
    1
}

impl TrainOptions {
    /// The schedule of the learning rate, warm-up included.
    pub fn schedule(&self) -> Schedule {
        Schedule { warmup: self.warmup.clone(), options: self.schedule.clone() }
    }

    /// The run's length. A loaded run file has exactly one of the two; one that is built in code without any has no
    /// length.
    pub fn length(&self) -> Option<Length> {
        self.epochs.map(Length::Epochs).or(self.steps.map(Length::Steps))
    }
}

/// How long a run trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Passes over the training split.
    Epochs(u64),
    /// Optimizer updates.
    Steps(u64),
}

/// The evaluation during training.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalOptions {
    /// The split that is evaluated.
    #[serde(default = "val")]
    pub split: String,
    /// Metrics in addition to the loss, as for training.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// How often: `1 epoch`, `100 steps`.
    #[serde(default = "each_epoch")]
    pub every: Every,
    /// Samples per batch.
    #[serde(default = "evaluation_batch")]
    #[schemars(range(min = 1))]
    pub batch_size: usize,
    /// How many samples, the first of the split, each evaluation shows with target, prediction and probability, on the
    /// console and to the monitors.
    #[serde(default)]
    #[schemars(range(max = 100))]
    pub show_results: usize,
}

impl EvalOptions {
    /// An evaluation of these metrics, with the defaults of a run file.
    pub fn with_metrics(metrics: Vec<String>) -> EvalOptions {
        EvalOptions { split: val(), metrics, every: each_epoch(), batch_size: evaluation_batch(), show_results: 0 }
    }
}

fn val() -> String {
    "val".to_owned()
}

fn each_epoch() -> Every {
    Every::EPOCH
}

fn evaluation_batch() -> usize {
    256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Condition, Dispatch, OnError, When};
    use crate::run_file::load;
    use plugin_api::Direction;
    use proptest::option;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn digits() -> RunFile {
        let value = json!({
            "run": {"name": "digits"},
            "data": {"format": "csv", "path": "digits.csv.gz", "target": 64, "shape": [1, 8, 8], "classes": 10},
            "model": {"layers": [{"type": "flatten"}, {"type": "linear", "out_features": 10}]},
            "train": {
                "epochs": 1, "batch_size": 64, "loss": {"type": "cross_entropy"},
                "optimizer": {"type": "sgd", "learning_rate": 0.1}
            },
        });
        serde_json::from_value(value).unwrap()
    }

    /// A value that TOML can write.
    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
            "\\PC{0,8}|[\"'\\\\\n\t]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,4}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn any_plugin() -> impl Strategy<Value = PluginOptions> {
        let when = (0..9_u64, "[a-z_]{1,8}", any::<bool>()).prop_map(|(skip_first, metric, minimum)| When {
            skip_first,
            best: vec![(metric, if minimum { Direction::Min } else { Direction::Max })],
            ..When::default()
        });
        let condition = any::<f64>()
            .prop_filter("a number", |value| !value.is_nan())
            .prop_map(|value| format!("val_loss < {value}").parse::<Condition>().unwrap());
        let options = proptest::collection::btree_map("\\PC{1,4}", any_value(), 0..4);
        let policy = prop_oneof![Just(OnError::Stop), Just(OnError::Disable), Just(OnError::Ignore)];
        let dispatch = prop_oneof![Just(Dispatch::Inline), Just(Dispatch::Background)];
        (policy, option::of(dispatch), option::of(when), option::of(condition), options).prop_map(
            |(on_error, dispatch, when, condition, options)| PluginOptions {
                on_error,
                dispatch,
                when,
                condition,
                options: options.into_iter().collect(),
                ..PluginOptions::new("a")
            },
        )
    }

    proptest! {
        #[test]
        fn the_resolved_file_reads_back_as_the_same_run(
            seed: u64,
            threads in 0..9_usize,
            device in prop_oneof![Just(Device::Auto), Just(Device::Cpu), any::<u32>().prop_map(Device::Cuda)],
            out in option::of("\\PC{0,8}"),
            clip in option::of(1e-300..1e300_f64),
            plugins in proptest::collection::vec(any_plugin(), 0..3),
            evaluated: bool,
        ) {
            let mut run_file = digits();
            run_file.run.seed = seed;
            run_file.run.threads = NonZeroUsize::new(threads).map_or(Threads::Auto, Threads::Count);
            run_file.run.device = device;
            run_file.run.out = out;
            run_file.train.clip_gradient_norm = clip;
            run_file.eval = evaluated.then(|| serde_json::from_value(json!({"every": "7 steps"})).unwrap());
            run_file.plugins = plugins;
            for (index, plugin) in run_file.plugins.iter_mut().enumerate() {
                plugin.name = format!("a-{index}");
            }
            let text = run_file.resolved_toml().unwrap();
            let read = load("run.toml", &text, &[], &[]).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
            prop_assert_eq!(json!(read.run_file), json!(run_file));
            prop_assert_eq!(read.run_file.resolved_toml().unwrap(), text);
        }
    }

    #[test]
    fn a_run_file_has_one_length() {
        assert_eq!(digits().train.length(), Some(Length::Epochs(1)));
        let steps = TrainOptions { epochs: None, steps: Some(5), ..digits().train };
        assert_eq!(steps.length(), Some(Length::Steps(5)));
    }
}
