//! The hyper-parameters of a run, for TensorBoard's HParams page. Its metrics are the last scalars of the subfolders'
//! runs.

use std::collections::BTreeMap;

use plugin_api::event::Outcome;
use plugin_api::protocol::HyperParameter;
use serde_json::Value as Json;

use crate::event_file::now;
use crate::proto::{HparamKind, HparamValue, Hparams, SessionEnd, SessionStart, Value};
use crate::summary;

/// The parts of a resolved run file whose single values are hyper-parameters.
const PARTS: [&str; 3] = ["/run/seed", "/model", "/train"];

/// The hyper-parameters of a resolved run file.
pub(crate) fn of_run_file(run_file: &Json) -> BTreeMap<String, HparamValue> {
    let mut found = BTreeMap::new();
    for part in PARTS {
        if let Some(value) = run_file.pointer(part) {
            flatten(&part.trim_start_matches('/').replace('/', "."), value, &mut found);
        }
    }
    found
}

/// One from a callback's record.
pub(crate) fn recorded(value: &HyperParameter) -> HparamValue {
    let kind = match value {
        HyperParameter::Flag(truth) => HparamKind::Bool(*truth),
        HyperParameter::Number(number) => HparamKind::Number(*number),
        HyperParameter::Text(text) => HparamKind::Text(text.clone()),
    };
    HparamValue { kind: Some(kind) }
}

/// The message at the start of a run.
pub(crate) fn start(name: &str, hparams: BTreeMap<String, HparamValue>) -> Value {
    let start = SessionStart { hparams, group_name: name.to_owned(), start_time_secs: now() };
    summary::hparams("_hparams_/session_start_info", Hparams::SessionStart(start))
}

/// The message at its end.
pub(crate) fn end(outcome: Outcome) -> Value {
    // `hparams.Status`.
    let status = match outcome {
        Outcome::Finished | Outcome::Stopped => 1,
        Outcome::Failed => 2,
        _ => 0,
    };
    let end = SessionEnd { status, end_time_secs: now() };
    summary::hparams("_hparams_/session_end_info", Hparams::SessionEnd(end))
}

/// Numbers, strings and booleans by their paths; lists, such as the layers, are shown by the graph.
fn flatten(path: &str, value: &Json, into: &mut BTreeMap<String, HparamValue>) {
    let kind = match value {
        Json::Object(parts) => {
            for (name, part) in parts {
                flatten(&format!("{path}.{name}"), part, into);
            }
            return;
        }
        Json::Number(number) => HparamKind::Number(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => HparamKind::Text(text.clone()),
        Json::Bool(truth) => HparamKind::Bool(*truth),
        Json::Null | Json::Array(_) => return,
    };
    into.insert(path.to_owned(), HparamValue { kind: Some(kind) });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn single_values_are_found_by_their_paths() {
        let mut found = BTreeMap::new();
        let train = json!({ "batch_size": 64, "metrics": ["accuracy"], "loss": { "type": "mse" }, "warmup": null });
        flatten("train", &train, &mut found);
        let number = HparamValue { kind: Some(HparamKind::Number(64.0)) };
        let text = HparamValue { kind: Some(HparamKind::Text("mse".to_owned())) };
        assert_eq!(
            found,
            BTreeMap::from([("train.batch_size".to_owned(), number), ("train.loss.type".to_owned(), text)])
        );
    }
}
