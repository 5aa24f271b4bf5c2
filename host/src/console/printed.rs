//! What plugins print to stdout: it goes to the log, line by line.
//!
//! A plugin's `print` is no result of the run, and the program that reads the run's stdout must not find it there. The lines
//! are in `log.jsonl` with the target `plugin`, as many as fit within bounds; jobs without that file show them with `-v`.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use host_command::stdout;

use crate::report::printable_line;

/// The target of the log's lines.
const TARGET: &str = "plugin";

/// The most bytes of a line; the rest is a line of its own.
const LINE_BYTES: usize = 4096;

/// What a line of the log costs beside its text, in bytes.
const LINE_COST: u64 = 128;

/// The most bytes of a process that are logged.
const LOGGED_BYTES: u64 = 4 << 20;

/// How long the end of a job waits until what was printed is in the log.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the thread that waits writes, after a line break and at once. A plugin may print the same, which then does no more than
/// end a wait early.
const MARK: &[u8] = b"\0\0until here\0\0\n";

/// The way to the thread that reads.
struct Way {
    pipe: File,
    seen: Mutex<Receiver<()>>,
}

static WAY: OnceLock<Way> = OnceLock::new();

/// From now on stdout is the host's own, and what anybody else in this process prints is logged.
///
/// # Errors
///
/// When the system gives no pipe, descriptor or thread. Stdout then is what it was.
pub fn log_what_is_printed() -> std::io::Result<()> {
    let (reader, writer) = std::io::pipe()?;
    let (seen, seen_here) = sync_channel(1);
    std::thread::Builder::new().name("printed".to_owned()).spawn(move || Printed::default().read(reader, &seen))?;
    begin(writer, seen_here)
}

fn begin(writer: PipeWriter, seen: Receiver<()>) -> std::io::Result<()> {
    stdout::keep_for_results(&writer)?;
    // A line at a time, as on a terminal: what C keeps until its buffer is full would be behind in the log, and lost in a crash.
    // SAFETY: the stream of this process; glibc and others allow it at any time before the first write.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    unsafe {
        libc::setvbuf(STDOUT, std::ptr::null_mut(), libc::_IOLBF, 0);
    }
    let pipe = File::from(std::os::fd::OwnedFd::from(writer));
    let _ = WAY.set(Way { pipe, seen: Mutex::new(seen) });
    Ok(())
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
unsafe extern "C" {
    #[link_name = "stdout"]
    static STDOUT: *mut libc::FILE;
}

/// Waits until what has been printed is in the log, but not for long.
pub fn settle_what_is_printed() {
    let Some(way) = WAY.get() else { return };
    let seen = way.seen.lock().unwrap_or_else(PoisonError::into_inner);
    while seen.try_recv().is_ok() {}
    if (&way.pipe).write_all(&[b"\n", MARK].concat()).is_ok() {
        let _ = seen.recv_timeout(PATIENCE);
    }
}

/// What has been printed.
#[derive(Default)]
struct Printed {
    /// The bytes that were logged.
    logged: u64,
    /// The bytes that were not, and of these, those that were told.
    left_out: u64,
    told: u64,
    line: Vec<u8>,
}

impl Printed {
    fn read(mut self, mut pipe: PipeReader, seen: &SyncSender<()>) {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => {
                    let marks = self.take(buffer.get(..read).unwrap_or_default(), &mut log);
                    if marks {
                        let _ = seen.try_send(());
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// Logs the lines that are whole; returns whether somebody waits.
    fn take(&mut self, bytes: &[u8], log: &mut impl FnMut(Said<'_>)) -> bool {
        let mut is_awaited = false;
        for mut part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            while !part.is_empty() {
                let room = LINE_BYTES.saturating_sub(self.line.len()).min(part.len());
                let (fits, rest) = part.split_at(room);
                self.line.extend_from_slice(fits);
                part = rest;
                let is_whole = self.line.len() == LINE_BYTES || matches!(self.line.last(), Some(b'\n' | b'\r'));
                if self.line == MARK {
                    self.line.clear();
                    self.tell_what_is_left_out(log);
                    is_awaited = true;
                } else if is_whole {
                    let line = std::mem::take(&mut self.line);
                    self.log(&line, log);
                }
            }
        }
        is_awaited
    }

    fn log(&mut self, line: &[u8], log: &mut impl FnMut(Said<'_>)) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        if self.logged >= LOGGED_BYTES {
            self.left_out += line.len() as u64;
            return;
        }
        if self.logged == 0 {
            log(Said::First);
        }
        self.logged += line.len() as u64 + LINE_COST;
        let text = String::from_utf8_lossy(line);
        log(Said::Line(printable_line(&text).trim_end()));
    }

    fn tell_what_is_left_out(&mut self, log: &mut impl FnMut(Said<'_>)) {
        if self.left_out > self.told {
            self.told = self.left_out;
            log(Said::LeftOut(self.left_out));
        }
    }
}

/// What is told of what was printed.
#[derive(Debug, PartialEq)]
enum Said<'a> {
    /// Something was printed.
    First,
    Line(&'a str),
    /// So many bytes are not in the log.
    LeftOut(u64),
}

fn log(said: Said<'_>) {
    match said {
        Said::First => tracing::warn!(
            "a plugin prints to stdout, which is for results: its lines go to the log, with the target `plugin`"
        ),
        Said::Line(line) => tracing::info!(target: TARGET, "{line}"),
        Said::LeftOut(bytes) => {
            tracing::warn!(
                "plugins printed too much: {bytes} bytes after the first {} MiB are left out",
                LOGGED_BYTES >> 20
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(printed: &mut Printed, bytes: &[u8]) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let awaited = printed.take(bytes, &mut |said| {
            lines.push(match said {
                Said::First => "first".to_owned(),
                Said::Line(line) => line.to_owned(),
                Said::LeftOut(bytes) => format!("left out {bytes}"),
            })
        });
        (lines, awaited)
    }

    #[test]
    fn lines_come_whole_and_clean() {
        let mut printed = Printed::default();
        assert_eq!(said(&mut printed, b"on"), (vec![], false));
        let (lines, _) = said(&mut printed, b"e\n\n10 %\r20 %\r\n\x1b[2Jtwo\n\xff");
        assert_eq!(lines, ["first", "one", "10 %", "20 %", "two"]);
        let (lines, awaited) = said(&mut printed, &[b"end\n", MARK].concat());
        assert_eq!((lines, awaited), (vec!["\u{fffd}end".to_owned()], true));
    }

    #[test]
    fn a_flood_is_bounded_and_counted() {
        let mut printed = Printed::default();
        let chunk = vec![b'x'; 1 << 20];
        let mut logged = 0;
        for _ in 0..64 {
            logged += said(&mut printed, &chunk).0.iter().map(String::len).sum::<usize>();
            assert!(printed.line.capacity() < 4 * LINE_BYTES);
        }
        assert!(logged <= (LOGGED_BYTES as usize) + 2 * LINE_BYTES, "{logged}");
        let (lines, awaited) = said(&mut printed, &[b"\n", MARK].concat());
        assert!(awaited && lines.len() == 1 && lines[0].starts_with("left out "), "{lines:?}");
        assert_eq!(said(&mut printed, MARK), (vec![], true), "it is told once");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_parts(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let mut printed = Printed::default();
            let (first, rest) = bytes.split_at(cut.min(bytes.len()));
            let mut lines = said(&mut printed, first).0;
            lines.extend(said(&mut printed, rest).0);
            for line in lines {
                prop_assert!(!line.chars().any(char::is_control), "{line:?}");
            }
        }
    }
}
