//! The values of one step. W&B has one row of its history for each step, while metrics come at several events of a step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::proto::{History, Item, Step};
use crate::values::number;

/// Values of a step that more may follow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) step: u64,
    /// Seconds since 1970.
    timestamp: f64,
    /// Seconds of training before, of all processes of the run.
    runtime: f64,
    /// JSON by name.
    values: BTreeMap<String, String>,
}

impl Row {
    pub(crate) fn new(step: u64, timestamp: f64, runtime: f64) -> Self {
        Self { step, timestamp, runtime, values: BTreeMap::new() }
    }

    pub(crate) fn put(&mut self, name: &str, value_json: String) {
        self.values.insert(name.to_owned(), value_json);
    }

    pub(crate) fn history(self) -> History {
        let own = [
            ("_step", self.step.to_string()),
            ("_timestamp", number(self.timestamp)),
            ("_runtime", number(self.runtime)),
        ];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
        let item = |(key, value_json)| Item { key, value_json };
        History {
            item: self.values.into_iter().chain(own).map(item).collect(),
            step: Some(Step { num: self.step as i64 }),
        }
    }
}
