//! The output of a command, without what differs between machines and days.

use std::path::Path;
use std::process::Output;
use std::sync::OnceLock;

use regex::Regex;
use serde_json::Value;

/// The exit code, stdout and stderr of a command as one text, for snapshots.
///
/// `folders` are paths and the names that stand for them; versions, targets and times are replaced too.
pub fn shown(output: &Output, folders: &[(&Path, &str)]) -> String {
    let code = output.status.code().map_or_else(|| "none".to_owned(), |code| code.to_string());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let mut text = format!("exit code: {code}\n");
    for (name, stream) in [("stdout", stdout), ("stderr", stderr)] {
        if !stream.is_empty() {
            text.push_str(&format!("-- {name}\n{stream}"));
        }
    }
    for (folder, name) in folders {
        text = text.replace(&folder.display().to_string(), name);
    }
    for (pattern, replacement) in filters() {
        text = pattern.replace_all(&text, *replacement).into_owned();
    }
    text
}

fn filters() -> &'static [(Regex, &'static str)] {
    static FILTERS: OnceLock<Vec<(Regex, &'static str)>> = OnceLock::new();
    FILTERS.get_or_init(|| {
        [
            (r"(rustc|gcc|\w* ?[Cc]lang) \d[^,\n]*, [\w-]+", "[COMPILER]"),
            (r"loaded in [\d.]+ ms", "loaded in [TIME] ms"),
            (r"takes \d+ ms", "takes [TIME] ms"),
            // They are those of this processor.
            (r"(?m)^kernels: .*$", "kernels: [KERNELS]"),
            // Whether plugins lie beside the program depends on what was built.
            (r"(?m)^plugins: (/|\[ROOT\]).* \(found beside the program\)\n", ""),
            // The number of a thread, which newer compilers add to a panic's message.
            (r"thread '<unnamed>' \(\d+\)", "thread '<unnamed>'"),
        ]
        .into_iter()
        .map(|(pattern, replacement)| (Regex::new(pattern).expect("the pattern is valid"), replacement))
        .collect()
    })
}

/// The objects of a file of JSON lines.
///
/// # Panics
///
/// When the file cannot be read, has no lines, or a line is not JSON: a test that compares lines must have some.
pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON: {error}: {line}"));
    assert!(!text.trim().is_empty(), "{} is empty", path.display());
    text.lines().map(parse).collect()
}
