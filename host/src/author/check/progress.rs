//! What a child tells its parent: JSON lines in a file, each written before the step that it announces.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use host_command::arguments::Check;

use super::findings::Finding;

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(super) enum Line {
    /// The library was loaded.
    Library {
        /// What built it, and how long it took to load.
        about: String,
        /// Its kinds, in order.
        kinds: Vec<String>,
    },
    /// A check begins.
    Begin {
        /// Which.
        check: Check,
    },
    /// A hook is about to be called.
    Hook {
        /// The event's name; empty when no hook runs.
        hook: String,
    },
    /// A check ended.
    Found {
        /// What it found.
        finding: Finding,
    },
    /// The child ends normally.
    Done,
}

/// Receives the progress of the checks.
pub(super) trait Observer {
    /// A check begins.
    fn begin(&mut self, check: Check);
    /// A hook is about to be called.
    fn hook(&mut self, hook: &str);
    /// A check ended.
    fn found(&mut self, finding: Finding);
}

/// Writes lines to a file; a line that cannot be written is lost, and the parent sees that the child did not finish.
pub(super) struct ToFile(File);

impl ToFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self(File::options().append(true).create(true).open(path)?))
    }

    pub(super) fn write(&mut self, line: &Line) {
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            // One unbuffered write per line: the process may end at any time.
            let _ = self.0.write_all(&text);
        }
    }
}

impl Observer for ToFile {
    fn begin(&mut self, check: Check) {
        self.write(&Line::Begin { check });
    }

    fn hook(&mut self, hook: &str) {
        self.write(&Line::Hook { hook: hook.to_owned() });
    }

    fn found(&mut self, finding: Finding) {
        self.write(&Line::Found { finding });
    }
}

/// Collects the findings.
#[derive(Default)]
pub(super) struct Kept(pub(super) Vec<Finding>);

impl Observer for Kept {
    fn begin(&mut self, _: Check) {}
    fn hook(&mut self, _: &str) {}
    fn found(&mut self, finding: Finding) {
        self.0.push(finding);
    }
}

/// The lines of a file, without an incomplete last one.
pub(super) fn read(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
