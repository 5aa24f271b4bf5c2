//! Reference figures of PyTorch and scikit-learn; `tests/figures` has them and the scripts that made them.

use serde_json::Value;

/// Losses, optimizers and schedules of PyTorch.
pub(super) fn pytorch() -> Value {
    serde_json::from_str(include_str!("../../../tests/figures/pytorch.json")).unwrap()
}

/// Metrics of scikit-learn.
pub(super) fn scikit_learn() -> Value {
    serde_json::from_str(include_str!("../../../tests/figures/metrics.json")).unwrap()
}

/// All numbers of a list, of its lists too.
pub(super) fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap()],
    }
}
