//! The socket on which the waiting run answers: one client at a time, until one says that the run goes on.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_api::event::Position;
use plugin_api::{Error, Result, Run, tracing};
use tempfile::TempDir;

use super::super::control_files::RequestFile;
use super::commands::{self, Next};

/// How often it looks for a client, or whether the time is over, and says that it waits on purpose.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long a client that does not read may hold up an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest line that is read, in bytes.
const LONGEST_LINE: usize = 4096;

/// The most bytes of a socket's path that every Unix takes; Linux takes 107.
const LONGEST_PATH: usize = 103;

const PROMPT: &[u8] = b"> ";

/// Whether the file asks for a prompt: an empty file of the user who trains.
pub(super) fn asks(file: &RequestFile) -> bool {
    let Ok(metadata) = file.path().symlink_metadata() else { return false };
    if !metadata.is_file() {
        file.tell(format_args!("it is no file"));
        return false;
    }
    if file.has_content() {
        return false;
    }
    match own_user() {
        Ok(own) => is_of(file, metadata.uid(), own),
        Err(error) => {
            file.tell(format_args!("whose it is cannot be found out: {error}"));
            false
        }
    }
}

/// Whether the file's owner is the user who trains; of another, it would give that user the rights of this one.
pub(super) fn is_of(file: &RequestFile, owner: u32, own: u32) -> bool {
    if owner != own {
        file.tell(format_args!("it belongs to user {owner}, and user {own} trains"));
    }
    owner == own
}

/// Who trains: whoever owns what this process makes.
fn own_user() -> std::io::Result<u32> {
    Ok(tempfile::tempfile()?.metadata()?.uid())
}

/// Where the path of the socket is written: beside the file, with the ending `socket`.
fn note(file: &RequestFile) -> PathBuf {
    file.path().with_extension("socket")
}

/// Removes what tells where a socket is.
pub(super) fn forget_socket(file: &RequestFile) {
    let _ = fs::remove_file(note(file));
}

/// Answers until somebody says that the run goes on, or nobody has said anything for `timeout`.
///
/// # Errors
///
/// When the socket cannot be made, or the run fails.
pub(super) fn serve(run: &mut Run<'_>, at: &Position, file: &RequestFile, timeout: Duration) -> Result<()> {
    let (listener, folder) = match open(&note(file)) {
        Ok(open) => open,
        // The run goes on, and the file is not looked at again and again.
        Err(error) => {
            tracing::warn!("no prompt can be opened: {error}");
            file.take();
            return Ok(());
        }
    };
    let socket = folder.path().join(SOCKET);
    let run_folder = run.info()?.folder;
    run.console_line(&format!(
        "the run waits: `host attach {run_folder} --shell` opens a prompt, which is at `{}`",
        socket.display()
    ))?;
    let mut prompt = Prompt { run, at, timeout, last: Instant::now() };
    let served = prompt.serve(&listener);
    forget_socket(file);
    drop((listener, folder));
    file.take();
    let why = match served? {
        Left::Asked => "as the prompt said".to_owned(),
        Left::TimedOut => format!("nobody has written a line for {} s", timeout.as_secs()),
    };
    run.console_line(&format!("the run goes on: {why}"))
}

const SOCKET: &str = "shell";

/// Listens in a folder of its own, which only this user may enter, and writes where.
fn open(note: &Path) -> Result<(UnixListener, TempDir)> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_dir());
    let folders = runtime.into_iter().chain([std::env::temp_dir(), PathBuf::from("/tmp")]);
    let mut told = Error::new("no folder has a path that is short enough for a socket");
    for parent in folders {
        if parent.as_os_str().as_bytes().len() + "/host-123456/".len() + SOCKET.len() > LONGEST_PATH {
            continue;
        }
        match listen_in(&parent, note) {
            Ok(listening) => return Ok(listening),
            Err(error) => told = Error::from(error).context(format!("cannot listen in `{}`", parent.display())),
        }
    }
    Err(told)
}

fn listen_in(parent: &Path, note: &Path) -> std::io::Result<(UnixListener, TempDir)> {
    let folder =
        tempfile::Builder::new().prefix("host-").permissions(Permissions::from_mode(0o700)).tempdir_in(parent)?;
    let path = folder.path().join(SOCKET);
    let listener = UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    // Whole, or not at all: somebody may be waiting for it.
    let partial = note.with_extension("socket.partial");
    fs::write(&partial, path.as_os_str().as_bytes())?;
    fs::rename(&partial, note)?;
    Ok((listener, folder))
}

/// Why the run goes on.
enum Left {
    Asked,
    TimedOut,
}

struct Prompt<'p, 'hook> {
    run: &'p mut Run<'hook>,
    at: &'p Position,
    timeout: Duration,
    /// When somebody last came or wrote a line.
    last: Instant,
}

impl Prompt<'_, '_> {
    fn serve(&mut self, listener: &UnixListener) -> Result<Left> {
        loop {
            self.run.keep_alive()?;
            match listener.accept() {
                Ok((stream, _)) => {
                    self.last = Instant::now();
                    // Whoever goes away leaves the prompt to the next.
                    if let Some(left) = self.converse(&stream)? {
                        return Ok(left);
                    }
                }
                Err(_) if self.last.elapsed() >= self.timeout => return Ok(Left::TimedOut),
                // Nobody is there, or somebody came and went.
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Answers one client; `None` if it went away.
    fn converse(&mut self, mut stream: &UnixStream) -> Result<Option<Left>> {
        let set = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(LOOK_EVERY)));
        if set.and_then(|()| stream.set_write_timeout(Some(PATIENCE))).is_err() {
            return Ok(None);
        }
        let (name, step) = (self.run.info()?.name, self.at.global_step);
        let greeting = format!(
            "`{name}` waits after step {step} of epoch {}; `help` lists what it answers, `continue` lets it go on\n",
            self.at.epoch
        );
        if stream.write_all(greeting.as_bytes()).and_then(|()| stream.write_all(PROMPT)).is_err() {
            return Ok(None);
        }
        let (mut line, mut bytes) = (Vec::new(), [0; 512]);
        loop {
            self.run.keep_alive()?;
            let read = match stream.read(&mut bytes) {
                Ok(0) => {
                    let _ = stream.write_all(b"\nthe run still waits: nobody has said `continue`\n");
                    return Ok(None);
                }
                Ok(read) => &bytes[..read],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.last.elapsed() < self.timeout {
                        continue;
                    }
                    let _ = stream.write_all(b"\nthe run goes on: nobody has written a line in time\n");
                    return Ok(Some(Left::TimedOut));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(None),
            };
            for &byte in read {
                if byte != b'\n' {
                    // The rest of a line that is too long is dropped: no command is.
                    if line.len() < LONGEST_LINE {
                        line.push(byte);
                    }
                    continue;
                }
                self.last = Instant::now();
                let command = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                let (answer, next) = commands::answer(self.run, command.trim());
                let goes_on = next == Next::GoOn;
                let written = stream.write_all(answer.as_bytes());
                let written = if goes_on { written } else { written.and_then(|()| stream.write_all(PROMPT)) };
                if goes_on {
                    return Ok(Some(Left::Asked));
                }
                if written.is_err() {
                    return Ok(None);
                }
            }
        }
    }
}
