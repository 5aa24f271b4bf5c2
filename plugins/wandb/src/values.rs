//! Values as JSON in text. W&B reads the words `NaN`, `Infinity` and `-Infinity` as numbers, as Python's `json` does.

use std::collections::BTreeMap;

use plugin_api::protocol::{HyperParameter, RecordValue};
use serde_json::Value as Json;

use crate::proto::Item;

/// The most intervals of a histogram that W&B shows.
const MOST_BINS: usize = 512;

/// The parts of a resolved run file that become the config; the options of plugins may contain private values.
const PARTS: [&str; 5] = ["run", "data", "model", "train", "eval"];

/// A number.
pub(crate) fn number(value: f64) -> String {
    if value.is_finite() {
        return Json::from(value).to_string();
    }
    let word = if value.is_nan() { "NaN" } else { "Infinity" };
    if value < 0.0 { format!("-{word}") } else { word.to_owned() }
}

/// Text.
pub(crate) fn text(value: &str) -> String {
    Json::from(value).to_string()
}

/// A record's value; `None` for one that has no place in a history.
pub(crate) fn record(value: &RecordValue) -> Option<String> {
    match value {
        RecordValue::Text { text: value } => Some(text(value)),
        RecordValue::Histogram { edges, counts } if (1..=MOST_BINS).contains(&counts.len()) => {
            Some(format!("{{\"_type\":\"histogram\",\"values\":{},\"bins\":{}}}", numbers(counts), numbers(edges)))
        }
        _ => None,
    }
}

fn numbers(values: &[f64]) -> String {
    format!("[{}]", values.iter().map(|value| number(*value)).collect::<Vec<_>>().join(","))
}

/// The config of a resolved run file.
pub(crate) fn config(run_file: &Json) -> Vec<Item> {
    let part = |name: &str| {
        let value = match name {
            "run" => serde_json::json!({ "seed": run_file.pointer("/run/seed")? }),
            _ => run_file.get(name).filter(|value| !value.is_null())?.clone(),
        };
        Some(Item { key: name.to_owned(), value_json: value.to_string() })
    };
    PARTS.into_iter().filter_map(part).collect()
}

/// Hyper-parameters that a callback recorded.
pub(crate) fn hyper_parameters(values: &BTreeMap<String, HyperParameter>) -> Vec<Item> {
    let item = |(name, value): (&String, &HyperParameter)| {
        let value_json = match value {
            HyperParameter::Flag(truth) => truth.to_string(),
            HyperParameter::Number(value) => number(*value),
            HyperParameter::Text(value) => text(value),
        };
        Item { key: name.clone(), value_json }
    };
    values.iter().map(item).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_json_lacks_are_words() {
        let cases = [
            (0.1, "0.1"),
            (1e300, "1e+300"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (-f64::INFINITY, "-Infinity"),
        ];
        for (value, expected) in cases {
            assert_eq!(number(value), expected);
        }
    }

    #[test]
    fn a_histogram_has_its_borders_and_a_large_one_is_left_out() {
        let histogram = |bins: usize| RecordValue::Histogram {
            edges: (0..=bins).map(|edge| edge as f64).collect(),
            counts: vec![2.0; bins],
        };
        let shown: Json = serde_json::from_str(&record(&histogram(2)).unwrap()).unwrap();
        assert_eq!(shown, json!({ "_type": "histogram", "values": [2.0, 2.0], "bins": [0.0, 1.0, 2.0] }));
        assert_eq!((record(&histogram(513)), record(&histogram(0))), (None, None));
    }

    #[test]
    fn the_config_has_no_options_of_plugins() {
        let run_file = json!({
            "run": { "seed": 7, "out": "/home/somebody" },
            "train": { "batch_size": 64 },
            "eval": null,
            "plugins": [{ "options": { "token": "secret" } }],
        });
        let found: Vec<_> = config(&run_file).into_iter().map(|item| (item.key, item.value_json)).collect();
        let expected = [("run", r#"{"seed":7}"#), ("train", r#"{"batch_size":64}"#)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
