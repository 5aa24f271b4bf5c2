//! A command as a process: its arguments, its output, its end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notice::{Deadline, Notice, Template};
use plugin_api::{Error, Result};

use crate::environment::variables;

/// The most lines of a command's output that are logged, so that they do not fill the run's log.
const MOST_LINES: usize = 1000;

/// The most bytes that are logged as one line; the rest becomes further lines.
const LONGEST_LINE: u64 = 4096;

/// How often to check whether a command that no longer writes has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// A command with placeholders for the fields of a notice.
pub struct Program {
    /// The instance's name, for the log.
    instance: String,
    program: String,
    /// What comes before `arguments` and is not replaced.
    fixed: Vec<String>,
    arguments: Vec<Template>,
    timeout: Duration,
}

/// How a process ended.
enum End {
    Exited(ExitStatus),
    /// It ran out of time.
    Killed,
}

impl Program {
    /// A program, found as the system finds programs.
    pub fn new(instance: &str, program: &str, arguments: Vec<Template>, timeout: Duration) -> Self {
        Self { instance: instance.to_owned(), program: program.to_owned(), fixed: Vec::new(), arguments, timeout }
    }

    /// A script for `sh`, which reads `arguments` as `$1`, `$2`, …: no text of a notice becomes part of a script.
    ///
    /// # Errors
    ///
    /// When the script contains a field of a template.
    pub fn script(instance: &str, script: &str, arguments: Vec<Template>, timeout: Duration) -> Result<Self> {
        if let Some(field) = field_in(script) {
            return Err(Error::new(format!(
                "in a script, `{{{field}}}` is not replaced: pass it after the script, where it is `$1`, or read the \
                 environment, as `$HOST_METRIC_VAL_LOSS`"
            )));
        }
        let fixed = ["-c", script, "sh"].map(str::to_owned).to_vec();
        Ok(Self { fixed, ..Self::new(instance, "sh", arguments, timeout) })
    }

    /// Runs the command to its end. Logs its output and its failure. Returns whether it succeeded.
    pub fn run(&self, notice: &Notice, deadline: &Deadline) -> bool {
        let (event, program, instance) = (notice.event.name(), &self.program, &self.instance);
        match self.start(notice).and_then(|child| self.follow(child, deadline)) {
            Ok(End::Exited(status)) if status.success() => return true,
            Ok(End::Exited(status)) => {
                plugin_api::tracing::warn!("{instance}: `{program}`, run at `{event}`, failed: {status}");
            }
            Ok(End::Killed) => {
                plugin_api::tracing::warn!("{instance}: `{program}`, run at `{event}`, took too long and was killed");
            }
            Err(error) => plugin_api::tracing::warn!("{instance}: cannot run `{program}` at `{event}`: {error}"),
        }
        false
    }

    fn start(&self, notice: &Notice) -> Result<Child> {
        let mut command = Command::new(&self.program);
        // No argument may contain a NUL.
        let arguments = self.arguments.iter().map(|argument| argument.render(notice).replace('\0', "\u{fffd}"));
        command.args(&self.fixed).args(arguments).envs(variables(notice));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command.spawn()?)
    }

    fn follow(&self, mut child: Child, deadline: &Deadline) -> Result<End> {
        let until = Instant::now() + self.timeout;
        let time_left = || {
            let of_run = deadline.remaining().unwrap_or(Duration::MAX);
            until.saturating_duration_since(Instant::now()).min(of_run)
        };
        let lines = match follow_output(&mut child) {
            Ok(lines) => lines,
            Err(error) => return kill(&mut child).and(Err(error)),
        };
        let mut seen = 0;
        let mut log = |line: String| {
            let instance = &self.instance;
            seen += 1;
            match seen {
                ..=MOST_LINES => plugin_api::tracing::info!("{instance}: {line}"),
                _ if seen == MOST_LINES + 1 => {
                    plugin_api::tracing::info!("{instance}: … further lines are not logged");
                }
                _ => {}
            }
        };
        // Wait for the process only when nobody writes any more: until then its id is not reused, and killing its
        // group kills no stranger.
        loop {
            let left = time_left();
            if left.is_zero() {
                kill(&mut child)?;
                while let Ok(line) = lines.recv_timeout(PAUSE) {
                    log(line);
                }
                return Ok(End::Killed);
            }
            match lines.recv_timeout(left.min(PAUSE)) {
                Ok(line) => log(line),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => match child.try_wait()? {
                    Some(status) => return Ok(End::Exited(status)),
                    None => std::thread::sleep(left.min(PAUSE)),
                },
            }
        }
    }
}

/// Kills the process and its group.
fn kill(child: &mut Child) -> Result<()> {
    #[cfg(unix)]
    rustix::process::kill_process_group(rustix::process::Pid::from_child(child), rustix::process::Signal::KILL)?;
    #[cfg(not(unix))]
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// The lines that a process writes to either stream, until every writer has closed both.
fn follow_output(child: &mut Child) -> Result<Receiver<String>> {
    let (sender, lines) = channel();
    if let Some(stdout) = child.stdout.take() {
        follow_stream(stdout, sender.clone())?;
    }
    if let Some(stderr) = child.stderr.take() {
        follow_stream(stderr, sender)?;
    }
    Ok(lines)
}

fn follow_stream(stream: impl Read + Send + 'static, lines: Sender<String>) -> Result<()> {
    let read = move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while (&mut stream).take(LONGEST_LINE).read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if lines.send(text).is_err() {
                return;
            }
            line.clear();
        }
    };
    std::thread::Builder::new().name("command-output".to_owned()).spawn(read)?;
    Ok(())
}

/// The first `{name}` or `{name:.4}` in a script that is not one of the shell's own braces.
fn field_in(script: &str) -> Option<&str> {
    script.match_indices('{').find_map(|(place, _)| {
        let (before, after) = script.split_at(place);
        let (inner, _) = after.strip_prefix('{')?.split_once('}')?;
        let name = inner.split_once(":.").map_or(inner, |(name, _)| name);
        let is_name = !name.is_empty() && name.chars().all(|part| part.is_ascii_alphanumeric() || part == '_');
        (is_name && !before.ends_with('$')).then_some(inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_scripts_are_found_and_braces_of_the_shell_are_not() {
        for (script, found) in [
            ("echo {val_loss:.4} done", Some("val_loss:.4")),
            ("echo ${HOME} {run}", Some("run")),
            ("echo ${HOME}; f() { true; }; echo {a,b} $(awk '{print $1}') {}", None),
            ("{", None),
        ] {
            assert_eq!(field_in(script), found, "{script}");
        }
    }
}
