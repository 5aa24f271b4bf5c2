//! The description of a kind of callback.

use serde::{Deserialize, Serialize};

use crate::abi::kinds::EventKind;

/// The description of a kind of callback: the JSON document that `describe` returns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Descriptor {
    /// The kind's name, `[a-z0-9-]+`.
    pub kind: String,
    /// The version of the plugin.
    #[serde(default)]
    pub version: String,
    /// What it does, in one line.
    #[serde(default)]
    pub summary: String,
    /// Its license, an SPDX expression.
    #[serde(default)]
    pub license: String,
    /// The events that it wants, by name; see [`EventKind`](crate::abi::kinds::EventKind).
    #[serde(default)]
    pub hooks: Vec<String>,
    /// What its hooks need beyond position and metrics.
    #[serde(default)]
    pub needs: Vec<Need>,
    /// The least minor version of the ABI that it works with.
    #[serde(default)]
    pub requires_minor: u32,
    /// The JSON Schema of its options, with defaults.
    #[serde(default)]
    pub options: Option<serde_json::Value>,
    /// When `trigger` comes by default; absent: after each epoch.
    #[serde(default)]
    pub when: Option<serde_json::Value>,
    /// `inline` or `background`, by default.
    #[serde(default = "inline")]
    pub dispatch: String,
    /// Whether it runs without being named in the run file, when its library is in the folder.
    #[serde(default = "yes")]
    pub by_default: bool,
    /// `zero` or `all`: on which ranks of a run of several processes it works by default. What changes the training says `all`.
    #[serde(default = "zero")]
    pub ranks: String,
    /// Metrics that it puts; `*` stands for any text.
    #[serde(default)]
    pub produces: Vec<String>,
    /// Metrics that it reads.
    #[serde(default)]
    pub reads: Vec<String>,
    /// The next minor's field: where the plugin is documented.
    #[cfg(feature = "next-minor")]
    #[serde(default)]
    pub homepage: String,
}

fn inline() -> String {
    "inline".to_owned()
}

fn zero() -> String {
    "zero".to_owned()
}

fn yes() -> bool {
    true
}

/// Something that a hook needs beyond position and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The hook, by its event's name; empty: every hook.
    #[serde(default)]
    pub hook: String,
    /// A set of tensors (`parameters`, `gradients`, …), `training_state`, or the name of a service.
    pub what: String,
    /// Whether it writes there.
    #[serde(default)]
    pub write: bool,
}

impl Need {
    /// The need of a callback that writes checkpoints in the background.
    pub const TRAINING_STATE: &'static str = "training_state";

    /// Whether it applies to this hook.
    pub fn is_for(&self, hook: EventKind) -> bool {
        self.hook.is_empty() || self.hook == hook.name()
    }
}
