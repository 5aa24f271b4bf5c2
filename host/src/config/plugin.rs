//! One `[[plugins]]` entry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::condition::Condition;
use super::when::{Every, When};

/// One plugin instance. In the run file `name` is optional (by default the kind), and `frequency`,
/// `skip_from_start` and `basis` may stand for `when`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenPlugin")]
pub struct PluginOptions {
    /// The kind, as a plugin library names it.
    pub kind: String,
    /// The instance's name, unique in the run: it identifies state, folder, log and control.
    pub name: String,
    /// What a failure of the plugin does to the run.
    pub on_error: OnError,
    /// On which ranks it runs, where several processes train the model; `None` is the kind's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ranks: Option<Ranks>,
    /// Where its hooks run; `None` is the kind's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dispatch: Option<Dispatch>,
    /// Whether it runs in a process of its own; `None` is the run's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Isolation>,
    /// How often it is started anew when its process has failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub restart: u32,
    /// What its process may use.
    #[serde(skip_serializing_if = "ProcessLimits::is_empty")]
    pub limits: ProcessLimits,
    /// When it is triggered; `None` is the kind's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Its hooks are called only while this holds.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// The kind's options, checked against its JSON Schema.
    pub options: Map<String, Value>,
}

impl PluginOptions {
    /// An instance that is not declared: it has its kind's name and the defaults for everything else.
    pub fn new(kind: &str) -> PluginOptions {
        PluginOptions {
            kind: kind.to_owned(),
            name: kind.to_owned(),
            on_error: OnError::default(),
            ranks: None,
            dispatch: None,
            isolation: None,
            restart: 0,
            limits: ProcessLimits::default(),
            when: None,
            condition: None,
            options: Map::new(),
        }
    }
}

/// What a plugin's failure does to the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The run fails.
    #[default]
    Stop,
    /// The plugin gets no more hooks; the run continues.
    Disable,
    /// A returned error is logged and the plugin keeps its hooks. A panic still disables it.
    Ignore,
}

/// On which ranks of a run of several processes a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ranks {
    /// On the first one: it sees the metrics of all, and the samples of its own.
    Zero,
    /// On each of them. What changes weights, gradients or hyper-parameters must be, and must do the same on all.
    All,
}

/// Where a plugin's hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dispatch {
    /// On the training thread, in declared order.
    Inline,
    /// On the plugin's own thread, through a bounded queue.
    Background,
}

/// Whether a plugin runs in a process of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In the host: a hook costs nanoseconds, and a crash of the plugin ends the run.
    #[default]
    None,
    /// In a process of its own: a hook costs some microseconds, and whatever happens to the plugin is its failure only.
    Process,
}

/// What the process of a plugin may use, and how it waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessLimits {
    /// Megabytes of address space, which also counts what is mapped and not used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub memory_mb: Option<u64>,
    /// Open files.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16))]
    pub open_files: Option<u64>,
    /// From 0, the priority of the host, to 19, which runs only when nothing else wants the processor.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 19))]
    pub niceness: Option<u8>,
    /// Microseconds for which it looks for the next hook before it sleeps. It costs a core, and saves some microseconds a hook
    /// that comes within that time.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(max = 1_000_000))]
    pub spin_us: u32,
}

impl ProcessLimits {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// [`PluginOptions`] as the run file may write it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PluginOptions")]
struct WrittenPlugin {
    /// The kind, as a plugin library names it; `host plugins list` shows the kinds.
    #[schemars(extend("format" = "instance-name"))]
    kind: String,
    /// The instance's name, unique in the run: it identifies state, folder, log and control. By default the kind.
    #[schemars(extend("format" = "instance-name"))]
    name: Option<String>,
    /// What a failure of the plugin does to the run.
    #[serde(default)]
    on_error: OnError,
    /// On which ranks it runs, where several processes train the model. By default the kind decides: `zero`, unless it
    /// changes the training.
    ranks: Option<Ranks>,
    /// Where its hooks run. By default the kind decides.
    dispatch: Option<Dispatch>,
    /// Whether it runs in a process of its own. By default `run.isolation` decides.
    isolation: Option<Isolation>,
    /// How often it is started anew, with its last saved state, when its process has failed; after that, `on_error` decides.
    #[serde(default)]
    restart: u32,
    /// What its process may use.
    #[serde(default)]
    limits: ProcessLimits,
    /// When it is triggered. By default the kind decides.
    when: Option<When>,
    /// Its hooks (except setup, start, end, teardown, state and error) are called only while this holds.
    #[serde(rename = "if")]
    condition: Option<Condition>,
    /// The kind's options; `host plugins describe KIND` shows them.
    #[serde(default)]
    options: Map<String, Value>,
    /// An alias: `frequency = 5` is `when.every = "5 epochs"`, in units of `basis`.
    #[schemars(range(min = 1))]
    frequency: Option<std::num::NonZeroU64>,
    /// An alias of `when.skip_first`.
    skip_from_start: Option<u64>,
    /// The unit of `frequency`, `"epoch"` or `"step"`; or metrics, each with `"min"` or `"max"`: an alias of `when.best`,
    /// in addition to `frequency`.
    basis: Option<Basis>,
}

/// An alias for parts of `when`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected `epoch`, `step`, or a table of metrics, each `min` or `max`")]
enum Basis {
    /// The unit of `frequency`.
    Unit(Unit),
    /// Whenever one of these metrics reaches a new best value.
    #[schemars(with = "std::collections::BTreeMap<String, plugin_api::Direction>")]
    Best(#[serde(with = "super::when::best")] Vec<(String, plugin_api::Direction)>),
}

/// The unit of `frequency`.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unit {
    /// Epochs.
    Epoch,
    /// Optimizer updates.
    Step,
}

/// The aliases and the key of `when` that each one fills.
pub const ALIASES: [(&str, &str); 3] = [("frequency", "every"), ("basis", "every"), ("skip_from_start", "skip_first")];

impl From<WrittenPlugin> for PluginOptions {
    fn from(written: WrittenPlugin) -> PluginOptions {
        let WrittenPlugin { kind, name, on_error, ranks, dispatch, when, condition, options, .. } = written;
        let (isolation, restart, limits) = (written.isolation, written.restart, written.limits);
        // Where an alias and its key in `when` are both given, `rules.rs` has rejected the file.
        let (unit, best) = match written.basis {
            Some(Basis::Unit(unit)) => (Some(unit), Vec::new()),
            Some(Basis::Best(best)) => (None, best),
            None => (None, Vec::new()),
        };
        let every = (written.frequency.is_some() || unit.is_some()).then(|| {
            let number = written.frequency.unwrap_or(std::num::NonZeroU64::MIN);
            match unit {
                Some(Unit::Step) => Every::Steps(number),
                Some(Unit::Epoch) | None => Every::Epochs(number),
            }
        });
        let when = if every.is_some() || written.skip_from_start.is_some() || !best.is_empty() {
            // Without an interval of its own, an entry with `best` has none; only `skip_from_start` means each epoch.
            let nothing = When { every: None, ..When::default() };
            let mut when = when.unwrap_or(if best.is_empty() { When::default() } else { nothing });
            when.every = every.or(when.every).or(written.skip_from_start.map(|_| Every::EPOCH));
            when.skip_first = written.skip_from_start.unwrap_or(when.skip_first);
            when.best.extend(best);
            Some(when)
        } else {
            when
        };
        let name = name.unwrap_or_else(|| kind.clone());
        PluginOptions { kind, name, on_error, ranks, dispatch, isolation, restart, limits, when, condition, options }
    }
}

impl JsonSchema for PluginOptions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        WrittenPlugin::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        WrittenPlugin::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> PluginOptions {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_name_defaults_to_the_kind() {
        assert_eq!(read(json!({"kind": "progress"})), PluginOptions::new("progress"));
        let bar = PluginOptions { name: "bar".to_owned(), ..PluginOptions::new("progress") };
        assert_eq!(read(json!({"kind": "progress", "name": "bar"})), bar);
    }

    #[test]
    fn aliases_fill_when() {
        let when = |value| serde_json::to_value(read(value).when).unwrap();
        assert_eq!(
            when(json!({"kind": "a", "frequency": 5, "basis": "step", "skip_from_start": 4})),
            json!({"every": "5 steps", "skip_first": 4, "at": [], "best": {}})
        );
        assert_eq!(when(json!({"kind": "a", "frequency": 2}))["every"], json!("2 epochs"));
        assert_eq!(when(json!({"kind": "a", "skip_from_start": 3}))["every"], json!("1 epoch"));
        assert_eq!(when(json!({"kind": "a"})), json!(null));
        assert_eq!(
            when(json!({"kind": "a", "when": {"at": ["end"]}, "frequency": 2})),
            json!({"every": "2 epochs", "skip_first": 0, "at": ["end"], "best": {}})
        );
        assert_eq!(
            when(json!({"kind": "a", "basis": {"val_loss": "min", "val_accuracy": "max"}})),
            json!({"skip_first": 0, "at": [], "best": {"val_loss": "min", "val_accuracy": "max"}})
        );
        assert_eq!(
            when(json!({"kind": "a", "basis": {"val_loss": "min"}, "frequency": 5, "skip_from_start": 10})),
            json!({"every": "5 epochs", "skip_first": 10, "at": [], "best": {"val_loss": "min"}})
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        let plugin = read(json!({
            "kind": "a", "name": "b", "on_error": "ignore", "dispatch": "background", "if": "val_loss < 0.5",
            "when": {"best": {"val_loss": "min"}}, "options": {"x": [1, 2.5, {"y": "z"}]}
        }));
        assert_eq!(read(serde_json::to_value(&plugin).unwrap()), plugin);
    }
}
