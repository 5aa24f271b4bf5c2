//! What a file contains about its run.

use std::path::Path;

use plugin_api::event::Position;
use plugin_api::protocol::RunInfo;
use plugin_api::{Result, Run};
use sha1::{Digest, Sha1};

use crate::proto::StringEntry;

/// Run, position, metrics, classes, and the hash of the run file.
pub fn of(run: &Run<'_>, info: &RunInfo, position: &Position) -> Result<Vec<StringEntry>> {
    let mut entries = vec![
        ("run", info.name.clone()),
        ("epoch", position.epoch.to_string()),
        ("step", position.global_step.to_string()),
    ];
    // JSON has no NaN; such a metric says nothing about the model.
    let metrics = run.metrics()?.into_iter().filter(|(_, value)| value.is_finite());
    let metrics: serde_json::Map<_, _> = metrics.map(|(name, value)| (name, value.into())).collect();
    entries.push(("metrics", serde_json::Value::Object(metrics).to_string()));
    if !info.data.target_names.is_empty() {
        entries.push(("target_names", serde_json::Value::from(info.data.target_names.clone()).to_string()));
    }
    // Without a stored run file, there is nothing to hash.
    if let Ok(text) = std::fs::read(Path::new(&info.folder).join("run.toml")) {
        entries.push(("run_file", git_hash(&text)));
    }
    Ok(entries.into_iter().map(|(key, value)| StringEntry { key: key.to_owned(), value }).collect())
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
