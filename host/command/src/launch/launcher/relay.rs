//! What the ranks without the console write to stderr.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStderr, ExitStatus};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::{Event, REFUSED};

/// Longer lines are cut into several.
const LONGEST_LINE: u64 = 16 << 10;

/// How long lines are held back: a run that is refused is refused by every rank, and told once.
const HELD_FOR: Duration = Duration::from_secs(2);

/// The most lines that are held back.
const MOST_HELD: usize = 1000;

/// Sends an event for each line that a rank writes, on a thread of its own, until nobody writes or listens any more.
///
/// # Errors
///
/// When the system has no thread left.
pub(super) fn read(stderr: ChildStderr, rank: usize, events: Sender<Event>) -> io::Result<()> {
    let forever = move || {
        let mut stderr = BufReader::new(stderr);
        let mut line = Vec::new();
        while matches!(stderr.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line), Ok(read) if read > 0) {
            while line.last().is_some_and(u8::is_ascii_whitespace) {
                line.pop();
            }
            if events.send(Event::Line(rank, std::mem::take(&mut line))).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Closed);
    };
    std::thread::Builder::new().name(format!("rank {rank}")).spawn(forever).map(drop)
}

/// Lines of ranks that are soon shown.
#[derive(Default)]
pub(super) struct Held {
    lines: VecDeque<(Instant, usize, Vec<u8>)>,
}

impl Held {
    /// Takes a line of a rank.
    pub(super) fn push(&mut self, rank: usize, line: Vec<u8>) {
        self.lines.push_back((Instant::now() + HELD_FOR, rank, line));
    }

    /// Shows the lines that were held back long enough.
    pub(super) fn show_due(&mut self, shown: &mut dyn Write) {
        let now = Instant::now();
        while self.lines.front().is_some_and(|(due, ..)| *due <= now) || self.lines.len() > MOST_HELD {
            self.show_first(shown);
        }
    }

    /// Shows all lines, except those of ranks that were refused as rank 0 was, which has told why.
    pub(super) fn show_all(&mut self, status: impl Fn(usize) -> Option<ExitStatus>, shown: &mut dyn Write) {
        let is_refused = |rank| status(rank).and_then(|status| status.code()) == Some(i32::from(REFUSED));
        if is_refused(0) {
            self.lines.retain(|(_, rank, _)| !is_refused(*rank));
        }
        while !self.lines.is_empty() {
            self.show_first(shown);
        }
    }

    fn show_first(&mut self, shown: &mut dyn Write) {
        if let Some((_, rank, line)) = self.lines.pop_front() {
            // Someone who reads nothing more does not end the run.
            let _ = writeln!(shown, "rank {rank}: {}", String::from_utf8_lossy(&line));
        }
    }
}
