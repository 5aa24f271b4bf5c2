//! How often a run may be started again, as its run file says.
//!
//! The engine reads and checks the run file; here one number of it is looked up, and what is wrong is left to the engine, which
//! refuses the run.

use std::fs;
use std::path::Path;

/// `distributed.restarts` of the run file and of the arguments of `--set`, of which the last one wins; 0 if it is not given or
/// cannot be read.
pub(super) fn restarts(run_file: Option<&Path>, overrides: &[String]) -> u32 {
    // A pipe can be read once only, by the engine.
    let file = run_file.filter(|path| path.is_file()).and_then(|path| fs::read_to_string(path).ok());
    // An argument of `--set` is a line of TOML.
    let texts = file.iter().chain(overrides).map(String::as_str);
    texts.filter_map(in_text).last().unwrap_or_default()
}

fn in_text(text: &str) -> Option<u32> {
    let table: toml::Table = text.parse().ok()?;
    let restarts = table.get("distributed")?.get("restarts")?.as_integer()?;
    u32::try_from(restarts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_that_can_be_read_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("run.toml");
        fs::write(&file, "[distributed]\nrestarts = 3\n").expect("a file");
        let of = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
            restarts(Some(&file), &overrides)
        };
        assert_eq!(of(&[]), 3);
        assert_eq!(of(&["train.epochs=3", "distributed.restarts=5", "distributed.restarts = 1"]), 1);
        assert_eq!(of(&["distributed={ restarts = 2 }"]), 2);
        assert_eq!(of(&["distributed.restarts=-1", "distributed.restarts=x", "distributed=3", "run.name=a b"]), 3);
        fs::write(&file, "[distributed").expect("a file");
        assert_eq!(of(&[]), 0);
        assert_eq!(restarts(Some(&folder.path().join("none")), &[]), 0);
        assert_eq!(restarts(None, &["distributed.restarts=4".to_owned()]), 4);
    }
}
