//! What checks find.

use host_command::arguments::Check;
use serde::{Deserialize, Serialize};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It passed, with a warning.
    Warning,
    /// It failed.
    Failed,
    /// It did not run: there is nothing to check, or an earlier failure prevents it.
    Skipped,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The kind; empty for a check of the whole library.
    pub kind: String,
    /// The check.
    pub check: Check,
    /// The result.
    pub verdict: Verdict,
    /// Details, one sentence each.
    pub details: Vec<String>,
}

impl Finding {
    /// A finding about `kind`: passed, unless there are details.
    pub(super) fn failed_if_any(kind: &str, check: Check, details: Vec<String>) -> Self {
        let verdict = if details.is_empty() { Verdict::Passed } else { Verdict::Failed };
        Self { kind: kind.to_owned(), check, verdict, details }
    }

    /// A check that did not run, and why.
    pub(super) fn skipped(kind: &str, check: Check, reason: &str) -> Self {
        Self { kind: kind.to_owned(), check, verdict: Verdict::Skipped, details: vec![reason.to_owned()] }
    }
}
