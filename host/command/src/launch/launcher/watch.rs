//! Watches the ranks of one start until all have ended.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::ended::{Failure, How};
use super::ranks::Ranks;
use super::relay::Held;
use super::signals::{ENDING, PASSED_ON};
use super::{Event, Patience};

/// How long it waits for events before it looks again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long what ranks wrote last may be on its way after their end.
const LAST_LINES: Duration = Duration::from_millis(200);

/// After so many signals that ask for the end, nothing is waited for.
const SIGNALS_THAT_KILL: u32 = 3;

/// How a start of all ranks ended.
pub(super) struct Watched {
    /// The first failure; none if every rank finished.
    pub(super) failure: Option<Failure>,
    /// Whether somebody asked this process or a rank to end.
    pub(super) is_asked_for: bool,
}

/// What the ranks that run are given time for.
#[derive(Clone, Copy)]
enum Stage {
    /// To train.
    Running,
    /// To end by themselves, until then.
    Ending(Instant),
    /// To end after SIGTERM, until then.
    Terminating(Instant),
    /// They were killed.
    Killed,
}

/// Watches the ranks until none is left. Signals to this process go on to them; after a failure the others are ended if they
/// do not end by themselves.
pub(super) fn watch(ranks: Ranks, patience: Patience, events: &Receiver<Event>, shown: &mut dyn Write) -> Watched {
    let mut watch = Watch {
        open: ranks.count().saturating_sub(1),
        ranks,
        patience,
        held: Held::default(),
        failure: None,
        signals: 0,
        first_signal: None,
        stage: Stage::Running,
    };
    loop {
        watch.look();
        let Some(first_running) = watch.ranks.first_running() else { break };
        watch.end_those_that_are_late(first_running);
        watch.held.show_due(shown);
        match events.recv_timeout(PAUSE) {
            Ok(Event::Signal(signal)) => watch.take_signal(signal),
            Ok(Event::Line(rank, line)) => watch.held.push(rank, line),
            Ok(Event::Closed) => watch.open = watch.open.saturating_sub(1),
            Err(RecvTimeoutError::Timeout) => {}
            // The one who started this holds a sender.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(PAUSE),
        }
    }
    watch.read_the_rest(events);
    let Watch { ranks, mut held, failure, signals, .. } = watch;
    held.show_all(|rank| ranks.status(rank), shown);
    let is_asked_for = |failure: &Failure| failure.is_asked_for();
    // Of ranks that end together, the first one knows the signal, if it came to that one.
    let of_zero = ranks.status(0).and_then(|status| Failure::of(0, status)).filter(is_asked_for);
    match failure.filter(is_asked_for) {
        Some(asked_for) => Watched { failure: of_zero.or(Some(asked_for)), is_asked_for: true },
        None => Watched { failure, is_asked_for: signals > 0 },
    }
}

struct Watch {
    ranks: Ranks,
    /// How many of the others' stderr are still written to.
    open: usize,
    patience: Patience,
    held: Held,
    failure: Option<Failure>,
    /// How many signals asked for the end, and the first of them.
    signals: u32,
    first_signal: Option<i32>,
    stage: Stage,
}

impl Watch {
    /// Takes note of the ranks that have ended.
    fn look(&mut self) {
        let ended = self.ranks.newly_ended();
        let failures = ended.iter().filter_map(|&(rank, status)| Failure::of(rank, status));
        // Of several at once, one that was killed did not only lose another.
        let first = failures.min_by_key(|failure| !matches!(failure.how, How::Signal(_)));
        if self.failure.is_none() {
            self.failure = first;
        }
        let as_asked = ended.iter().all(|&(rank, status)| self.is_as_asked(rank, status));
        if !matches!(self.stage, Stage::Running) || ended.is_empty() {
            return;
        }
        if !as_asked {
            self.stage = Stage::Ending(Instant::now() + self.patience.after_failure);
        } else if self.ranks.status(0).is_some() {
            // The others may end before it: it works alone at times, such as in its last hooks.
            self.stage = Stage::Ending(Instant::now() + self.patience.after_rank_zero);
        }
    }

    /// Whether a rank is done, or ended because of a signal that asked for it.
    fn is_as_asked(&self, rank: usize, status: ExitStatus) -> bool {
        Failure::of(rank, status).is_none_or(|failure| failure.is_asked_for())
            || (self.first_signal.is_some() && status.signal() == self.first_signal)
    }

    fn end_those_that_are_late(&mut self, rank: usize) {
        let now = Instant::now();
        match self.stage {
            Stage::Ending(until) if until <= now => {
                let how = How::Late(self.patience.after_rank_zero);
                self.failure.get_or_insert(Failure { rank, how });
                self.ranks.signal(libc::SIGTERM);
                self.stage = Stage::Terminating(now + self.patience.after_sigterm);
            }
            Stage::Terminating(until) if until <= now => self.kill(),
            _ => {}
        }
    }

    fn kill(&mut self) {
        self.ranks.kill();
        self.stage = Stage::Killed;
    }

    fn take_signal(&mut self, signal: i32) {
        if signal == libc::SIGTSTP {
            return self.stand_still();
        }
        if !PASSED_ON.contains(&signal) {
            return;
        }
        if ENDING.contains(&signal) {
            self.signals += 1;
            self.first_signal.get_or_insert(signal);
        }
        match self.signals {
            SIGNALS_THAT_KILL.. => self.kill(),
            _ => self.ranks.signal(signal),
        }
    }

    /// Stops all ranks and this process until somebody continues it, as Ctrl-Z does with one process.
    fn stand_still(&self) {
        self.ranks.signal(libc::SIGSTOP);
        // SAFETY: the call has no pointers; it returns when the process is continued.
        unsafe { libc::raise(libc::SIGSTOP) };
        self.ranks.signal(libc::SIGCONT);
    }

    /// Takes the lines that are still on their way. A program that a rank has started may hold its stderr open for ever.
    fn read_the_rest(&mut self, events: &Receiver<Event>) {
        let until = Instant::now() + LAST_LINES;
        while self.open > 0 {
            match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Event::Line(rank, line)) => self.held.push(rank, line),
                Ok(Event::Closed) => self.open -= 1,
                Ok(Event::Signal(signal)) if ENDING.contains(&signal) => self.signals += 1,
                Ok(Event::Signal(_)) => {}
                Err(_) => return,
            }
        }
    }
}
