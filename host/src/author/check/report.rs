//! Shows the findings to people.

use std::io::{self, Write};
use std::path::Path;

use super::Checked;
use host_command::arguments::{Check, Scope, Tier};

use super::findings::{Finding, Verdict};
use crate::report::{table, terminal};

/// Writes the findings as a table, followed by what the failed checks require, and a count.
pub(super) fn write(file: &Path, checked: &Checked, color: bool, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "{}", file.display())?;
    if checked.library.is_empty() {
        writeln!(out)?
    } else {
        writeln!(out, ": {}", checked.library)?
    }
    writeln!(out)?;
    let rows: Vec<[String; 4]> = checked.findings.iter().flat_map(|finding| rows(finding, color)).collect();
    table::write(["KIND", "CHECK", "RESULT", "DETAILS"], &rows, terminal::stdout_width(), out)?;
    let failed: Vec<Check> =
        Check::ALL.iter().copied().filter(|check| checked.findings.iter().any(|found| found.fails(*check))).collect();
    if !failed.is_empty() {
        writeln!(out)?;
        for check in failed {
            writeln!(out, "{}: {}", check.name(), check.description())?;
        }
    }
    let plural = if checked.findings.len() == 1 { "" } else { "s" };
    let count = |verdict| checked.findings.iter().filter(|finding| finding.verdict == verdict).count();
    writeln!(
        out,
        "\n{} check{plural}: {} passed, {} warned, {} failed, {} skipped; tier: {}",
        checked.findings.len(),
        count(Verdict::Passed),
        count(Verdict::Warning),
        count(Verdict::Failed),
        count(Verdict::Skipped),
        checked.tier().map_or("none", Tier::name)
    )
}

impl Finding {
    fn fails(&self, check: Check) -> bool {
        self.check == check && self.verdict == Verdict::Failed
    }
}

/// A row for the finding, and one more for each detail after the first.
fn rows(finding: &Finding, color: bool) -> Vec<[String; 4]> {
    let kind = if finding.check.scope() == Scope::Library { "-" } else { &finding.kind };
    let first = finding.details.first().cloned().unwrap_or_default();
    let mut rows = vec![[kind.to_owned(), finding.check.name().to_owned(), result(finding.verdict, color), first]];
    rows.extend(
        finding.details.iter().skip(1).map(|detail| [String::new(), String::new(), String::new(), detail.clone()]),
    );
    rows
}

fn result(verdict: Verdict, color: bool) -> String {
    let (word, code) = match verdict {
        Verdict::Passed => ("ok", 32),
        Verdict::Warning => ("warning", 33),
        Verdict::Failed => ("FAILED", 31),
        Verdict::Skipped => ("skipped", 2),
    };
    if color { format!("\u{1b}[{code}m{word}\u{1b}[0m") } else { word.to_owned() }
}
