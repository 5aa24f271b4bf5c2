//! `host attach`: the console of a running run, read only; with `--shell`, its prompt.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::process::ExitCode;
use std::time::Duration;

use super::output::{cannot, print, print_as_it_is};
use super::{request, shell, words};
use crate::arguments::AttachArguments;
use crate::report::{Problem, Problems, terminal};
use crate::runs::folder::CONSOLE_FILE;
use crate::runs::status::FoundRun;
use crate::stdout::Stdout;

/// How often it looks for new lines.
const INTERVAL: Duration = Duration::from_millis(200);

/// What was said before is shown from so many bytes before the end.
const SHOWN_BYTES: u64 = 8 << 10;

pub(super) fn run(arguments: &AttachArguments) -> Result<ExitCode, Problems> {
    if let Some(file) = &arguments.shell {
        return shell::run(&arguments.run.run, file);
    }
    let found = request::find(&arguments.run.run)?;
    let path = found.folder.join(CONSOLE_FILE);
    let mut file = File::open(&path).map_err(|error| {
        Problem::new(format!("cannot read `{}`", path.display()))
            .with_cause(&error)
            .with_hint("only runs of this version keep their console".to_owned())
    })?;
    let unreadable = |error: std::io::Error| cannot(&format!("read `{}`", path.display()), &error);
    let length = file.metadata().map_err(unreadable)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_BYTES))).map_err(unreadable)?;
    let mut is_first_line_cut = length > SHOWN_BYTES;
    let on_terminal = Stdout.is_terminal();
    loop {
        // First whether it lives: what it says until then is shown below.
        let found = request::find(&found.folder)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(unreadable)?;
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if std::mem::take(&mut is_first_line_cut)
            && let Some((_, rest)) = text.split_once('\n')
        {
            text = rest.to_owned();
        }
        let clear = if on_terminal { "\r\u{1b}[K" } else { "" };
        if !found.is_live() {
            print_as_it_is(clear)?;
            print(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let bar = if on_terminal { bar(&found) } else { String::new() };
        if on_terminal || !text.is_empty() {
            print_as_it_is(clear)?;
            print(&format!("{text}{bar}"))?;
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Where the run is, in one line.
fn bar(found: &FoundRun) -> String {
    let status = &found.status;
    let left = status.time_left.map(|left| format!(", {} left", words::duration(left))).unwrap_or_default();
    let text = format!(
        "{} {:.0} %: epoch {}, step {}{left}",
        status.state,
        status.progress * 100.0,
        status.position.epoch,
        status.position.global_step
    );
    text.chars().take(terminal::stdout_width().unwrap_or(80).saturating_sub(1)).collect()
}
