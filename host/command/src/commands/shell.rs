//! `host attach --shell`: the prompt of a run that waits for it, which the plugin `shell` serves.

#[cfg(not(unix))]
pub(super) fn run(
    _run: &std::path::Path,
    _file: &std::path::Path,
) -> Result<std::process::ExitCode, crate::report::Problems> {
    Err(crate::report::Problem::new("`--shell` needs Unix sockets, which this system lacks".to_owned())
        .with_hint("`host attach` without it shows the console".to_owned())
        .into())
}

#[cfg(unix)]
pub(super) use connect::run;

#[cfg(unix)]
mod connect {
    use std::fs::OpenOptions;
    use std::io::{self, ErrorKind, Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;
    use std::time::{Duration, Instant};

    use super::super::output::cannot;
    use super::super::request::{self, PATIENCE, SAY_AFTER};
    use crate::report::{Colors, Printable, Problem, Problems};
    use crate::runs::status::FoundRun;
    use crate::stdout::Stdout;

    /// How often it looks for the socket.
    const INTERVAL: Duration = Duration::from_millis(50);

    /// Makes the file that the plugin looks for, waits for its socket, and connects it with stdin and stdout.
    pub(in super::super) fn run(run: &Path, file: &Path) -> Result<ExitCode, Problems> {
        let found = request::find(run)?;
        if !found.is_live() {
            return Ok(request::not_running(&found));
        }
        let file = found.folder.join(file);
        // It is there already while the run waits.
        let made = OpenOptions::new().write(true).create(true).truncate(false).open(&file);
        made.map_err(|error| cannot(&format!("make `{}`", file.display()), &error))?;
        match wait(&found, &file)? {
            Some(stream) => talk(stream),
            None => {
                let _ = std::fs::remove_file(&file);
                Ok(FoundRun::read(&found.folder).map_or(ExitCode::FAILURE, |found| request::not_running(&found)))
            }
        }
    }

    /// Waits until the run opens its prompt; `None` if it ends before.
    fn wait(found: &FoundRun, file: &Path) -> Result<Option<UnixStream>, Problems> {
        let note = file.with_extension("socket");
        let (began, mut said) = (Instant::now(), false);
        loop {
            let socket = std::fs::read_to_string(&note).ok().map(PathBuf::from);
            if let Some(stream) = socket.and_then(|socket| UnixStream::connect(socket).ok()) {
                return Ok(Some(stream));
            }
            if !request::find(&found.folder)?.is_live() {
                return Ok(None);
            }
            if began.elapsed() > PATIENCE {
                // A run without the plugin must not wait for nobody, should it get one.
                let _ = std::fs::remove_file(file);
                return Err(Problem::new(format!("`{}` opens no prompt", found.folder.display()))
                    .with_hint(
                        "the run needs the plugin `shell`, which looks between two steps; a paused run does not"
                            .to_owned(),
                    )
                    .into());
            }
            if began.elapsed() > SAY_AFTER && !std::mem::replace(&mut said, true) {
                eprintln!(
                    "waiting for the next step of `{}`, which opens a prompt if the run has the plugin `shell`",
                    found.folder.display()
                );
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// Copies stdin to the run and its answers to stdout, until the run goes on or stdin has ended.
    fn talk(mut stream: UnixStream) -> Result<ExitCode, Problems> {
        let lost = |error: io::Error| cannot("reach the run", &error);
        let mut to_run = stream.try_clone().map_err(lost)?;
        // It may wait for a person when the run has gone on; the end of this process ends it.
        std::thread::spawn(move || {
            let copied = io::copy(&mut io::stdin().lock(), &mut to_run);
            if copied.is_ok() {
                // The run then says that it still waits, and closes.
                let _ = to_run.shutdown(Shutdown::Write);
            }
        });
        let (mut stdout, mut bytes) = (Printable::new(Stdout, Colors::Keep), [0; 4096]);
        loop {
            let read = match stream.read(&mut bytes) {
                Ok(0) => return Ok(ExitCode::SUCCESS),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(ExitCode::SUCCESS),
                Err(error) => return Err(lost(error)),
            };
            match stdout.write_all(&bytes[..read]).and_then(|()| stdout.flush()) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(ExitCode::SUCCESS),
                written => written.map_err(|error| cannot("write the answer", &error))?,
            }
        }
    }
}
