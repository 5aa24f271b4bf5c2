//! How often checkpoints are taken where they come faster than it is worth.
//!
//! Taking and writing a checkpoint costs the training time: the copy, a core, the disk. Where triggers come every few
//! milliseconds, one in the time of a hundred writes is enough: a checkpoint is then passed over, if the times between the last
//! triggers say that another one will come before the rest is over. So at most about a second of training can be lost with a
//! process that is killed, and nothing where triggers are far apart.

use std::time::{Duration, Instant};

/// The rest after a write, in times of what it took.
const REST: u32 = 99;

/// The longest rest.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The number of times between triggers that say when the next one comes.
const GAPS: usize = 4;

/// When checkpoints come, and how long they take to write.
#[derive(Default)]
pub(crate) struct Pace {
    last_trigger: Option<Instant>,
    /// The times between the last triggers.
    gaps: [Option<Duration>; GAPS],
    next_gap: usize,
    /// When the checkpoint that is being written was queued, or the one before it was written.
    writes_since: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Pace {
    /// Counts a trigger; true if another one will come before the rest after the last write is over.
    pub(crate) fn another_comes(&mut self, now: Instant) -> bool {
        if let Some(last) = self.last_trigger.replace(now) {
            self.gaps[self.next_gap] = Some(now.saturating_duration_since(last));
            self.next_gap = (self.next_gap + 1) % GAPS;
        }
        let longest = if self.gaps.contains(&None) { None } else { self.gaps.into_iter().flatten().max() };
        match (longest, self.rests_until) {
            (Some(longest), Some(until)) => now + longest < until,
            _ => false,
        }
    }

    /// A checkpoint was queued.
    pub(crate) fn queued(&mut self, now: Instant) {
        self.writes_since.get_or_insert(now);
    }

    /// One of those that were queued is written; `more` of them are not.
    pub(crate) fn written(&mut self, now: Instant, more: bool) {
        if let Some(since) = std::mem::replace(&mut self.writes_since, more.then_some(now)) {
            self.rests_until = Some(now + (now.saturating_duration_since(since) * REST).min(LONGEST_REST));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Triggers after these milliseconds, and which of them are passed over; a write takes `write` milliseconds.
    fn passed_over(write: u32, triggers: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let start = Instant::now();
        let at = |milliseconds: u32| start + MILLISECOND * milliseconds;
        let mut pace = Pace::default();
        let mut writing: Option<u32> = None;
        let mut passed = Vec::new();
        for trigger in triggers {
            if let Some(end) = writing.filter(|&end| end <= trigger) {
                pace.written(at(end), false);
                writing = None;
            }
            if pace.another_comes(at(trigger)) {
                passed.push(trigger);
            } else if writing.is_none() {
                pace.queued(at(trigger));
                writing = Some(trigger + write);
            }
        }
        passed
    }

    #[test]
    fn of_triggers_every_few_milliseconds_one_in_a_hundred_writes_is_taken() {
        let passed = passed_over(5, (0..1000).map(|epoch| epoch * 5));
        assert!((980..=994).contains(&passed.len()), "{}", passed.len());
    }

    #[test]
    fn triggers_that_are_far_apart_are_all_taken() {
        let none = Vec::<u32>::new();
        assert_eq!(passed_over(5, (0..100).map(|epoch| epoch * 600)), none.clone());
        // A second is the longest rest, however long a write takes.
        assert_eq!(passed_over(900, (0..100).map(|epoch| epoch * 2000)), none);
    }

    #[test]
    fn the_second_of_two_before_a_long_time_is_taken() {
        let triggers = (0..20).flat_map(|epoch| [epoch * 5000, epoch * 5000 + 10]);
        assert_eq!(passed_over(5, triggers), Vec::<u32>::new());
    }
}
