//! Names and values as the server accepts them (`mlflow/utils/validation.py`).

use std::collections::BTreeMap;

use plugin_api::protocol::HyperParameter;
use serde_json::Value as Json;

/// The longest name, in characters.
const LONGEST_NAME: usize = 250;
/// The longest value of a parameter, in characters, that old servers accept too.
const LONGEST_VALUE: usize = 500;

/// The parts of a resolved run file that become parameters; plugin options may contain private values.
const PARTS: [&str; 5] = ["/run/seed", "/data", "/model", "/train", "/eval"];

/// A name of letters, digits and ` _-./`, whose path has no empty part and no `.` or `..`.
pub(crate) fn name(name: &str) -> String {
    let safe = |letter: char| if letter.is_alphanumeric() || "_-./ ".contains(letter) { letter } else { '_' };
    let shown: String = name.chars().take(LONGEST_NAME).map(safe).collect();
    let parts: Vec<&str> = shown.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect();
    if parts.is_empty() { "_".to_owned() } else { parts.join("/") }
}

/// A number; JSON cannot write NaN and the infinities, so these are protobuf's strings.
pub(crate) fn number(value: f64) -> Json {
    if value.is_finite() {
        Json::from(value)
    } else if value.is_nan() {
        Json::from("NaN")
    } else {
        Json::from(if value > 0.0 { "Infinity" } else { "-Infinity" })
    }
}

/// Single values of a resolved run file, and lists of them, by their paths.
pub(crate) fn parameters(run_file: &Json) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for part in PARTS {
        if let Some(value) = run_file.pointer(part) {
            flatten(&part.trim_start_matches('/').replace('/', "."), value, &mut found);
        }
    }
    found
}

fn flatten(path: &str, value: &Json, into: &mut BTreeMap<String, String>) {
    let text = match value {
        Json::Object(parts) => {
            for (key, part) in parts {
                flatten(&format!("{path}.{key}"), part, into);
            }
            return;
        }
        // For example, the layers.
        Json::Array(values) if values.iter().any(|value| value.is_object() || value.is_array()) => return,
        Json::Null => return,
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    into.insert(name(path), shortened(&text));
}

/// The value of a parameter that a callback recorded.
pub(crate) fn parameter(value: &HyperParameter) -> String {
    match value {
        HyperParameter::Flag(truth) => truth.to_string(),
        HyperParameter::Number(number) => number.to_string(),
        HyperParameter::Text(text) => shortened(text),
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_VALUE).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_are_the_single_values() {
        let run_file = json!({
            "run": { "seed": 7, "name": "digits" },
            "model": { "layers": [{ "type": "relu" }] },
            "train": { "metrics": ["accuracy", "f1"], "loss": { "type": "mse" }, "warmup": null },
            "plugins": [{ "options": { "token": "secret" } }],
        });
        let expected = [("run.seed", "7"), ("train.loss.type", "mse"), ("train.metrics", "[\"accuracy\",\"f1\"]")];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parameters(&run_file), BTreeMap::from(expected));
    }

    #[test]
    fn names_are_paths() {
        for (given, expected) in [
            ("val_loss", "val_loss"),
            ("/a//../b\n", "a/b_"),
            ("..", "_"),
            ("", "_"),
            ("потеря", "потеря"),
            ("a:b", "a_b"),
        ] {
            assert_eq!(name(given), expected);
        }
    }

    proptest! {
        #[test]
        fn a_name_is_one_again(given: String) {
            let once = name(&given);
            prop_assert_eq!(&name(&once), &once);
            prop_assert!(!once.is_empty() && once.chars().count() <= LONGEST_NAME);
        }
    }
}
