//! Starts the process of a plugin.

use std::io::{self, BufRead, BufReader, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use host_command::report::printable_line;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::Isolation;
use super::link::{self, Link, LinkError};
use super::messages::{Open, Opened, Order, PROTOCOL, Report};
use crate::descriptor_cache::Description;
use crate::error::LoadError;
use crate::lock::Expected;
use crate::log;

/// The program that holds a library in a process of its own, beside the host's.
const PROGRAM: &str = "host-plugin";

/// The environment variable that names the program, for a host that is part of another program.
const VARIABLE: &str = "HOST_PLUGIN_PROGRAM";

/// How long a process that was told to end may take for it.
const TO_END: Duration = Duration::from_secs(5);

/// What a line of the log costs beside its text, in bytes.
const LINE_COST: u64 = 128;

/// The most bytes of what a process prints that are logged; of the rest, only the length is told.
const MOST_BYTES: u64 = 4 << 20;

/// The longest line of a process that is logged whole, in bytes.
const LONGEST_LINE: usize = 4096;

/// The process of a plugin, which ends when this is dropped.
pub(super) struct Process {
    child: Child,
    pub(super) control: UnixStream,
    output: Option<JoinHandle<()>>,
    /// What it printed last.
    last_line: Arc<Mutex<String>>,
    /// Whether it was waited for, and how it ended.
    is_gone: bool,
    status: Option<ExitStatus>,
}

/// Why somebody does not wait any more.
#[derive(Debug)]
pub(super) enum Stop {
    /// The process has ended.
    Ended,
    /// It has taken longer than it may.
    TooLong,
}

impl Process {
    /// Starts a process, which waits for the order to open a plugin; `name` is what its lines in the log are marked with.
    pub(super) fn start(mut command: Command, name: &str) -> io::Result<Self> {
        let (control, of_child) = UnixStream::pair()?;
        let (output, writer) = io::pipe()?;
        // A signal of the terminal is for the host, which then ends its hooks in order.
        command.process_group(0);
        command.stdin(OwnedFd::from(of_child)).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn()?;
        // Otherwise this process holds the other ends, too, and hears of no end.
        drop(command);
        let last_line = Arc::<Mutex<String>>::default();
        let (thread, name, last) = (name, name.to_owned(), Arc::clone(&last_line));
        let mut process = Self { child, control, output: None, last_line, is_gone: false, status: None };
        let relay = move || relay(BufReader::new(output), &name, &last);
        process.output = Some(std::thread::Builder::new().name(format!("output of {thread}")).spawn(relay)?);
        Ok(process)
    }

    /// Lets it open a plugin. Without a `timeout` it may take any time for it.
    pub(super) fn open(&mut self, open: Open, timeout: Option<Duration>) -> Result<Opened, LoadError> {
        let path = PathBuf::from(&open.path);
        let failed = |detail: String| LoadError::Process { path: path.clone(), detail };
        let control = self.control.try_clone().and_then(Link::socket);
        let mut control = control.map_err(|error| failed(error.to_string()))?;
        let (since, order) = (Instant::now(), Order::Open(open));
        let mut send = |process: &mut Self| -> Result<Report, LinkError<Stop>> {
            control.send(&order, || process.goes_on(since, timeout))?;
            loop {
                match control.receive(|| process.goes_on(since, timeout))? {
                    Report::Log { level, target, message } => {
                        log::record(level, &target, &message);
                        process.has_time(since, timeout).map_err(LinkError::GaveUp)?;
                    }
                    report => return Ok(report),
                }
            }
        };
        let report = send(self);
        // From here on somebody waits as long as it takes.
        let waits = |time| self.control.set_read_timeout(time).and_then(|()| self.control.set_write_timeout(time));
        waits(None).map_err(|error| failed(error.to_string()))?;
        match report {
            Ok(Report::Opened(opened)) if opened.protocol == PROTOCOL => Ok(opened),
            Ok(Report::Opened(opened)) => {
                Err(failed(format!("it speaks version {} of the protocol, this host {PROTOCOL}", opened.protocol)))
            }
            Ok(Report::Refused { message, hint }) => Err(LoadError::Refused { message, hint }),
            Ok(_) => Err(failed("it calls the host before there is an instance".to_owned())),
            Err(error) => Err(failed(self.reason(error, since.elapsed()))),
        }
    }

    /// Sends an order over control, with descriptors.
    pub(super) fn send_with(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut frame = Vec::new();
        link::encode::<()>(order, &mut frame).map_err(io::Error::other)?;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The descriptors go with the first byte.
        let sent =
            rustix::net::sendmsg(self.control.as_fd(), &[IoSlice::new(&frame)], &mut ancillary, SendFlags::NOSIGNAL)?;
        io::Write::write_all(&mut &self.control, &frame[sent..])
    }

    /// Whether it still runs and has time left since `since`.
    pub(super) fn goes_on(&mut self, since: Instant, timeout: Option<Duration>) -> Result<(), Stop> {
        if self.has_ended() {
            return Err(Stop::Ended);
        }
        self.has_time(since, timeout)
    }

    /// Whether it has time left since `since`.
    pub(super) fn has_time(&self, since: Instant, timeout: Option<Duration>) -> Result<(), Stop> {
        if timeout.is_some_and(|timeout| since.elapsed() >= timeout) { Err(Stop::TooLong) } else { Ok(()) }
    }

    /// Whether it has ended; its number stays its own until it is waited for.
    fn has_ended(&self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Some(own) = self.group() else { return true };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        waitid(WaitId::Pid(own), look).is_ok_and(|status| status.is_some())
    }

    /// Ends it, and says what was wrong.
    pub(super) fn reason(&mut self, error: LinkError<Stop>, taken: Duration) -> String {
        match error {
            LinkError::GaveUp(Stop::TooLong) => {
                self.kill();
                format!("it did not return within {:.1} s, and its process was ended", taken.as_secs_f64())
            }
            LinkError::GaveUp(Stop::Ended) | LinkError::Gone => {
                let status = self.wait();
                self.words(status)
            }
            other => {
                self.kill();
                format!("its process and the host do not understand each other: {other}")
            }
        }
    }

    /// Ends it at once, with the processes that it has started.
    pub(super) fn kill(&mut self) {
        // One that was waited for has no number any more that is its own.
        if !std::mem::replace(&mut self.is_gone, true) {
            if let Some(group) = self.group() {
                // What it has started may go on after it.
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            self.status = self.child.wait().ok();
        }
    }

    fn group(&self) -> Option<rustix::process::Pid> {
        i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw)
    }

    /// Waits until it has ended; ends it if it does not.
    pub(super) fn wait(&mut self) -> Option<ExitStatus> {
        let since = Instant::now();
        while !self.is_gone && !self.has_ended() {
            if since.elapsed() >= TO_END {
                self.kill();
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill();
        self.status
    }

    /// How it ended, and what it said last.
    fn words(&mut self, status: Option<ExitStatus>) -> String {
        if let Some(output) = self.output.take_if(|output| output.is_finished() || status.is_some()) {
            finish(output);
        }
        let how = match status.map(|status| (status.signal(), status.code())) {
            Some((Some(signal), _)) => match signal_hook::low_level::signal_name(signal) {
                Some(name) => format!("its process was ended by signal {signal} ({name})"),
                None => format!("its process was ended by signal {signal}"),
            },
            Some((None, Some(code))) => format!("its process ended itself with exit code {code}"),
            _ => "its process closed its connection to the host, and was ended".to_owned(),
        };
        let last = self.last_line.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if last.is_empty() { how } else { format!("{how}; it said last: {last}") }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        // The thread of control ends, even where a process that the plugin has started holds the other end.
        let _ = self.control.shutdown(std::net::Shutdown::Both);
        if let Some(output) = self.output.take() {
            finish(output);
        }
    }
}

/// Waits for the thread of the output a moment: another process may hold the pipe for as long as it likes.
fn finish(output: JoinHandle<()>) {
    let since = Instant::now();
    while !output.is_finished() && since.elapsed() < Duration::from_millis(200) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes what a process prints to the log, line by line.
fn relay(mut output: impl BufRead, name: &str, last: &Mutex<String>) {
    let (mut line, mut bytes) = (Vec::new(), 0u64);
    loop {
        line.clear();
        match read_line(&mut output, &mut line) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
        bytes += line.len() as u64 + LINE_COST;
        let text = String::from_utf8_lossy(&line);
        let text = printable_line(&text);
        let text = text.trim_end();
        if text.is_empty() {
            continue;
        }
        // What follows the words of a failure, and says how to learn more, is none.
        if !text.starts_with("note: ") {
            text.clone_into(&mut last.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if bytes <= MOST_BYTES {
            tracing::info!(target: "plugin", plugin = name, "{text}");
        }
    }
    if let Some(more) = bytes.checked_sub(MOST_BYTES).filter(|more| *more > 0) {
        tracing::warn!(
            plugin = name,
            "`{name}` printed too much: {more} bytes after the first {} MiB are left out",
            MOST_BYTES >> 20
        );
    }
}

/// Reads a line, of which the rest after [`LONGEST_LINE`] is left out. Whether there was one.
fn read_line(output: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    let mut read = false;
    loop {
        let part = match output.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            part => part?,
        };
        if part.is_empty() {
            return Ok(read);
        }
        read = true;
        let end = memchr::memchr(b'\n', part);
        let count = end.map_or(part.len(), |end| end + 1);
        line.extend_from_slice(&part[..count.min(LONGEST_LINE.saturating_sub(line.len()))]);
        output.consume(count);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// The command that starts the process of a library.
///
/// # Errors
///
/// When the program is not beside this one.
pub(crate) fn command(path: &Path) -> Result<Command, LoadError> {
    if let Some(program) = std::env::var_os(VARIABLE).filter(|program| !program.is_empty()) {
        return Ok(Command::new(program));
    }
    let own = std::env::current_exe().unwrap_or_default();
    let real = own.canonicalize().unwrap_or_default();
    // A program that Cargo built for tests is in a folder below.
    let folders = [own.parent(), real.parent(), own.parent().and_then(Path::parent)];
    let places = folders.into_iter().flatten().map(|folder| folder.join(PROGRAM));
    let found = places.into_iter().find(|place| place.is_file());
    found.map(Command::new).ok_or_else(|| LoadError::NoProgram { path: path.to_owned(), program: own })
}

/// What the plugin at `path` says of itself, in a process that ends then.
///
/// # Errors
///
/// When it cannot be opened there.
pub(crate) fn describe(
    path: &Path,
    expected: Option<&Expected>,
    isolation: &Isolation,
) -> Result<Description, LoadError> {
    let failed = |error: io::Error| LoadError::Process { path: path.to_owned(), detail: error.to_string() };
    describe_by(command(path)?, path, expected, isolation, failed)
}

/// The same in a process that `command` starts. `not_started` says what to say where it cannot be started.
///
/// # Errors
///
/// Those of [`describe`].
pub(crate) fn describe_by(
    command: Command,
    path: &Path,
    expected: Option<&Expected>,
    isolation: &Isolation,
    not_started: impl FnOnce(io::Error) -> LoadError,
) -> Result<Description, LoadError> {
    let failed = |detail: String| LoadError::Process { path: path.to_owned(), detail };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut process = Process::start(command, &name).map_err(not_started)?;
    let open = Open {
        protocol: PROTOCOL,
        path: path.to_string_lossy().into_owned(),
        sha256: expected.map(|expected| expected.sha256),
        beside: expected.map(|expected| expected.beside.clone()).unwrap_or_default(),
        limits: isolation.limits,
    };
    let opened = process.open(open, isolation.timeout)?;
    let descriptors = opened.descriptors().map_err(|error| failed(format!("it does not describe itself: {error}")))?;
    Ok(Description { descriptors, build: opened.build })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let text = [vec![b'a'; 3 * LONGEST_LINE], b"\nnext\nlast".to_vec()].concat();
        let mut output = BufReader::with_capacity(100, text.as_slice());
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while read_line(&mut output, &mut line).unwrap() {
            lines.push(String::from_utf8(std::mem::take(&mut line)).unwrap());
        }
        assert_eq!(lines[0].len(), LONGEST_LINE);
        assert_eq!(lines[1..], ["next\n", "last"]);
    }

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command, "test").unwrap()
    }

    fn open(script: &str, timeout: Option<Duration>) -> String {
        let open = Open { protocol: PROTOCOL, path: "libmine.so".to_owned(), ..Open::default() };
        shell(script).open(open, timeout).unwrap_err().to_string()
    }

    #[test]
    fn how_a_process_ended_is_told() {
        let start = "the process of `libmine.so` failed: ";
        assert_eq!(open("exit 3", None), format!("{start}its process ended itself with exit code 3"));
        assert_eq!(
            open("echo ouch; kill -SEGV $$", None),
            format!("{start}its process was ended by signal 11 (SIGSEGV); it said last: ouch")
        );
        assert_eq!(
            open("sleep 100", Some(Duration::from_millis(100))),
            format!("{start}it did not return within 0.1 s, and its process was ended")
        );
        assert!(open("printf 'no frame at all' >&0; sleep 100", None).contains("do not understand each other"));
    }
}
