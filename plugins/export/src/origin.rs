//! What a file says about the run that its weights come from.

use std::path::Path;

use plugin_api::protocol::RunInfo;
use plugin_api::{Result, Run};
use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};

/// The run, the position and the metrics of these weights, and what the run learned from its data: without that, the
/// weights are of no use.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    values: Map<String, Value>,
}

impl Origin {
    /// Reads it. Times are omitted, so that equal runs write equal files.
    ///
    /// # Errors
    ///
    /// Those of the services.
    pub fn read(run: &Run<'_>, info: &RunInfo) -> Result<Origin> {
        let weights = run.weights_info()?;
        let mut values = Map::new();
        let mut put = |name: &str, value: Value| values.insert(name.to_owned(), value);
        put("run", json!(info.name));
        put("epoch", json!(weights.epoch));
        put("step", json!(weights.global_step));
        // JSON has no NaN, which says nothing about the model anyway.
        let told = weights.metrics.into_iter().filter(|(name, value)| value.is_finite() && !name.ends_with("_seconds"));
        put("metrics", told.map(|(name, value)| (name, json!(value))).collect::<Map<_, _>>().into());
        let data = &info.data;
        // The names of a sample's numbers, those of the classes or numbers that are predicted, what was subtracted from samples and what they were
        // divided by, and what tokens stand for.
        let learned = [
            ("feature_names", json!(data.feature_names)),
            ("target_names", json!(data.target_names)),
            ("offset", json!(data.offset)),
            ("scale", json!(data.scale)),
            ("tokens", json!(data.tokens)),
        ];
        for (name, value) in learned {
            if value.as_array().is_some_and(|list| !list.is_empty()) {
                put(name, value);
            }
        }
        // Without a stored run file, there is nothing to hash.
        if let Ok(text) = std::fs::read(Path::new(&info.folder).join("run.toml")) {
            put("run_file", json!(git_hash(&text)));
        }
        Ok(Origin { values })
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        Value::Object(self.values.clone()).to_string()
    }

    /// As names and texts: what is not a text itself is JSON.
    pub fn texts(&self) -> impl Iterator<Item = (&str, String)> {
        self.values.iter().map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (name.as_str(), text)
        })
    }
}

/// The hash of a content in Git, as `git hash-object` prints it.
fn git_hash(content: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(format!("blob {}\0", content.len()));
    hash.update(content);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_gits() {
        // `printf 'hello\n' | git hash-object --stdin`
        assert_eq!(git_hash(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    }
}
