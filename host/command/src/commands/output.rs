//! The standard output.

use std::io::Write as _;

use crate::report::{Colors, printable};
use crate::runs::event::RunEvent;
use crate::stdout::Stdout;

use super::{Problem, ProblemJson, Problems};

/// Writes errors and warnings as `{ "valid": …, "problems": […] }`.
///
/// # Errors
///
/// When stdout cannot be written.
pub fn print_problems(errors: &[Problem], warnings: &[Problem]) -> Result<(), Problems> {
    #[derive(serde::Serialize)]
    struct Told<'a> {
        valid: bool,
        problems: Vec<ProblemJson<'a>>,
    }
    let errors = errors.iter().map(|problem| ProblemJson::new("error", problem));
    let warnings = warnings.iter().map(|problem| ProblemJson::new("warning", problem));
    let valid = errors.len() == 0;
    print_json(&Told { valid, problems: errors.chain(warnings).collect() })
}

/// As [`print_problems`], as an event of a run that was not started: one line.
///
/// # Errors
///
/// When stdout cannot be written.
pub fn print_refused(Problems(problems): &Problems) -> Result<(), Problems> {
    let problems: Vec<ProblemJson<'_>> = problems.iter().map(|problem| ProblemJson::new("error", problem)).collect();
    let line = RunEvent::Refused { valid: false, problems }.line();
    print_data(&format!("{}\n", line.map_err(|error| cannot("write the answer as JSON", &error))?))
}

/// Writes a value as JSON for people and programs.
pub(super) fn print_json<T: serde::Serialize>(value: &T) -> Result<(), Problems> {
    let text = serde_json::to_string_pretty(value).map_err(|error| cannot("write the answer as JSON", &error))?;
    print_data(&format!("{text}\n"))
}

/// Writes text for people to stdout, as [`printable`] makes it; a reader that stopped reading, such as `head`, is not an error.
///
/// # Errors
///
/// When stdout cannot be written.
pub fn print(text: &str) -> Result<(), Problems> {
    print_as_it_is(&printable(text, Colors::Keep))
}

/// The same for a result that programs read: as it is, unless it goes to a terminal.
///
/// # Errors
///
/// When stdout cannot be written.
pub fn print_data(text: &str) -> Result<(), Problems> {
    if Stdout.is_terminal() { print(text) } else { print_as_it_is(text) }
}

/// The same for text of this program's own, which may move the cursor.
pub(super) fn print_as_it_is(text: &str) -> Result<(), Problems> {
    match Stdout.write_all(text.as_bytes()).and_then(|()| Stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(cannot("write to the standard output", &error))
        }
        _ => Ok(()),
    }
}

/// The problem of an action that failed for a reason.
pub fn cannot(action: &str, error: &(dyn std::error::Error + 'static)) -> Problems {
    Problem::new(format!("cannot {action}")).with_cause(error).into()
}
