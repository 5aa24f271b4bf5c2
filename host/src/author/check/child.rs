//! The checks in child processes: starts them, watches them, and reads their findings however they end.

use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use host_command::arguments::{Check, CheckKind, CheckOptions, Scope};

use super::findings::{Finding, Verdict};
use super::options::{Given, given};
use super::progress::{Kept, Line, Observer, ToFile, read};
use super::{Checked, kind};
use crate::plugins::{Catalogue, Kind, Python};
use crate::report::{Problem, Problems, Report};

/// How long a process of Python may take to start: longer than a library, whose loading the budget is for.
const PYTHON: Duration = Duration::from_millis(300);

/// The child's side.
pub(crate) fn run_kind(options: &CheckKind) -> Result<ExitCode, Problems> {
    let mut progress = ToFile::create(&options.progress)
        .map_err(|error| Problem::new(format!("cannot write `{}`", options.progress.display())).with_cause(&error))?;
    let given = given(&options.set)?;
    let budget = Duration::from_millis(options.budget_ms);
    if let Some((about, catalogue)) = load(&options.file, budget, &mut progress) {
        match &options.kind {
            None => {
                let kinds = catalogue.kinds().iter().map(|kind| kind.descriptor().kind.clone()).collect();
                progress.write(&Line::Library { about, kinds });
            }
            Some(name) => {
                if let Some(kind) = catalogue.kind(name) {
                    check_kind(kind, &given, budget, &mut progress);
                }
            }
        }
    }
    progress.write(&Line::Done);
    Ok(ExitCode::SUCCESS)
}

/// Checks in this process.
pub(super) fn check_here(options: &CheckOptions, given: &Given) -> Checked {
    let mut kept = Kept::default();
    let loaded = load(&options.file, options.budget(), &mut kept);
    let mut library = String::new();
    if let Some((about, catalogue)) = loaded {
        library = about;
        for kind in catalogue.kinds() {
            check_kind(kind, given, options.budget(), &mut kept);
        }
    }
    Checked { library, findings: kept.0 }
}

fn check_kind(kind: &Kind, given: &Given, budget: Duration, observer: &mut dyn Observer) {
    let none = serde_json::Map::new();
    kind::check(kind, given.get(&kind.descriptor().kind).unwrap_or(&none), budget, observer);
}

/// Loads the library as a run does, and reports what built it and how long it took.
fn load(file: &Path, budget: Duration, observer: &mut dyn Observer) -> Option<(String, Catalogue)> {
    observer.begin(Check::Load);
    let before = Instant::now();
    let loaded = Catalogue::open(&[file.to_owned()]).and_then(|mut catalogue| {
        catalogue.open_sources(&Python::default(), |_| true)?;
        Ok(catalogue)
    });
    let time = before.elapsed();
    let mut finding = Finding::failed_if_any("", Check::Load, Vec::new());
    let loaded = match loaded {
        Ok(catalogue) => match catalogue.kinds().first().map(|kind| (kind.build().to_owned(), kind.is_apart())) {
            Some((build, is_apart)) => {
                let budget = if is_apart { budget.max(PYTHON) } else { budget };
                if time > budget {
                    finding.verdict = Verdict::Warning;
                    finding.details =
                        vec![format!("it takes {} ms, the budget is {} ms", time.as_millis(), budget.as_millis())];
                }
                Some((format!("{build}, loaded in {:.1} ms", time.as_secs_f64() * 1e3), catalogue))
            }
            None => {
                finding = Finding::failed_if_any("", Check::Load, vec!["the library has no kinds".to_owned()]);
                None
            }
        },
        Err(error) => {
            let hint = error.hint().map(|hint| format!("hint: {hint}"));
            let details = std::iter::once(error.to_string()).chain(hint).collect();
            finding = Finding::failed_if_any("", Check::Load, details);
            None
        }
    };
    observer.found(finding);
    loaded
}

/// Checks in child processes: one that loads the library, then one for each kind.
pub(super) fn check_apart(options: &CheckOptions) -> Result<Checked, Problems> {
    let mut checked = Checked { library: String::new(), findings: Vec::new() };
    let lines = run_child(options, None, &mut checked.findings)?;
    let library = lines.into_iter().find_map(|line| match line {
        Line::Library { about, kinds } => Some((about, kinds)),
        _ => None,
    });
    if let Some((about, kinds)) = library {
        checked.library = about;
        for kind in &kinds {
            run_child(options, Some(kind), &mut checked.findings)?;
        }
    }
    Ok(checked)
}

/// Runs one child to its end, adds its findings, and returns its lines. Checks that it did not reach are skipped.
fn run_child(options: &CheckOptions, kind: Option<&str>, findings: &mut Vec<Finding>) -> Result<Vec<Line>, Problems> {
    let cannot =
        |what: &str, error: &std::io::Error| Problem::new(format!("cannot {what} the checks")).with_cause(error);
    let folder = tempfile::tempdir().map_err(|error| cannot("make a folder for", &error))?;
    let progress = folder.path().join("progress.jsonl");
    let mut child = command(options, kind, &progress)
        .and_then(|mut command| command.spawn())
        .map_err(|error| cannot("start", &error))?;
    let end = wait(&mut child, options.timeout()).map_err(|error| cannot("watch", &error))?;
    let lines = read(&progress);
    // Each kind's child loads the library too; its result was already reported.
    let told = |finding: &&Finding| kind.is_none() || finding.check != Check::Load;
    findings.extend(lines.iter().filter_map(finding).filter(told).cloned());
    // A library may end its process with exit code 0.
    let done = lines.iter().any(|line| matches!(line, Line::Done));
    if !done {
        let death = death(end, options.timeout());
        let name = kind.unwrap_or_default();
        let under_way = under_way(&lines).unwrap_or(Check::Load);
        let hook = hook(&lines).map_or_else(String::new, |hook| format!(" in `{hook}`"));
        findings.push(Finding::failed_if_any(name, under_way, vec![format!("{death}{hook}")]));
        if kind.is_some() {
            let told: Vec<Check> =
                findings.iter().filter(|finding| finding.kind == name).map(|finding| finding.check).collect();
            let left = Check::ALL.iter().filter(|check| check.scope() == Scope::Kind && !told.contains(check));
            findings.extend(left.map(|check| Finding::skipped(name, *check, "the process ended before it")));
        }
    }
    Ok(lines)
}

fn command(options: &CheckOptions, kind: Option<&str>, progress: &Path) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["plugins", "check-kind"]).arg("--progress").arg(progress);
    command.arg("--budget-ms").arg(options.budget_ms.to_string());
    for set in &options.set {
        command.arg("--set").arg(set);
    }
    if let Some(kind) = kind {
        command.arg("--kind").arg(kind);
    }
    command.arg("--").arg(&options.file);
    // stdout is for the findings.
    command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr()));
    Ok(command)
}

/// How a child ended; `None` when it had to be killed.
fn wait(child: &mut Child, timeout: Duration) -> std::io::Result<Option<ExitStatus>> {
    const PAUSE: Duration = Duration::from_millis(2);
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}

/// The message about a child that ended before its checks did.
fn death(end: Option<ExitStatus>, timeout: Duration) -> String {
    let Some(status) = end else {
        return format!("it did not return within {} s", timeout.as_secs());
    };
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("the process was ended by signal {signal}{}", signal_name(signal));
    }
    match status.code() {
        Some(code) => format!("the process ended with exit code {code}"),
        None => "the process ended".to_owned(),
    }
}

/// The names of the signals that a fault raises; their numbers are the same on Linux and macOS, except for 7 and 10.
#[cfg(unix)]
fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        5 => " (SIGTRAP)",
        6 => " (SIGABRT)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        _ => "",
    }
}

fn finding(line: &Line) -> Option<&Finding> {
    match line {
        Line::Found { finding } => Some(finding),
        _ => None,
    }
}

/// The check that started and did not end.
fn under_way(lines: &[Line]) -> Option<Check> {
    lines.iter().rev().find_map(|line| match line {
        Line::Begin { check } => Some(*check),
        _ => None,
    })
}

/// The hook that was being called.
fn hook(lines: &[Line]) -> Option<&str> {
    match lines.last() {
        Some(Line::Hook { hook }) if !hook.is_empty() => Some(hook),
        _ => None,
    }
}
