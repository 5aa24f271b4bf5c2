//! What each hook costs the run.
//!
//! Reading the processor's clock takes longer than entering a hook that does nothing. So of the hooks that come every
//! step, fast ones are timed in one pass of sixteen, chosen at random so that it never follows a rhythm of a plugin,
//! and each of these times stands for sixteen. Slow ones are timed at every call.

use std::time::Duration;

use plugin_api::abi::kinds::EventKind;

/// The total time of one plugin's hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTime {
    /// The instance.
    pub instance: String,
    /// The hook, by its event's name; `waiting` for the time that the loop waited for the plugin in the background.
    pub hook: &'static str,
    /// Whether it ran on a thread of its own: then only `waiting` cost the run time.
    pub background: bool,
    /// How many calls.
    pub calls: u64,
    /// Their time; for hooks of every step that take less than a quarter of a microsecond, an estimate.
    pub total: Duration,
    /// The longest call that was timed.
    pub longest: Duration,
}

impl From<&HookTime> for plugin_api::protocol::HookTime {
    fn from(time: &HookTime) -> Self {
        Self {
            instance: time.instance.clone(),
            hook: time.hook.to_owned(),
            background: time.background,
            calls: time.calls,
            seconds: time.total.as_secs_f64(),
            longest_seconds: time.longest.as_secs_f64(),
        }
    }
}

/// One instance's account. Times are in the clock's ticks, so that a call costs two additions.
#[derive(Clone, Default)]
pub(super) struct Account {
    hooks: Box<[Entry]>,
    waiting: Entry,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    calls: u64,
    total: u64,
    longest: u64,
    is_slow: bool,
}

impl Entry {
    /// Adds one call, which counts `weight` times in the total. A hook is slow from `slow` ticks a call on.
    #[inline]
    fn add(&mut self, ticks: u64, weight: u64, slow: u64) {
        self.calls += 1;
        self.total += ticks * weight;
        self.longest = self.longest.max(ticks);
        self.is_slow = self.total > self.calls.saturating_mul(slow);
    }
}

/// Passes of frequent events that are all timed before sampling begins: a run of a few steps has exact times.
const TIMED_AT_FIRST: u32 = 64;

/// On average, one pass in this many is timed.
const SAMPLED: u64 = 16;

/// A hook that takes longer than this on average is slow: reading the clock twice is a tenth of it.
const SLOW_NANOSECONDS: u64 = 250;

/// How the hooks of a pass are timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// Each.
    All,
    /// Each; one that is not slow counts as [`SAMPLED`] calls.
    Sample,
    /// Only slow ones.
    Slow,
}

/// Chooses the passes of frequent events that are timed.
pub(super) struct Sampling {
    clock: quanta::Clock,
    /// [`SLOW_NANOSECONDS`] in ticks.
    slow: u64,
    timed_at_first: u32,
    /// Passes until the next timed one.
    distance: u32,
    /// The state of a linear congruential generator (Knuth's MMIX); nothing else draws from it.
    state: u64,
}

impl Sampling {
    pub(super) fn new(clock: quanta::Clock) -> Self {
        // The clock converts only ticks to time.
        let nanoseconds = clock.delta_as_nanos(0, 1 << 20).max(1);
        Self {
            clock,
            slow: (SLOW_NANOSECONDS << 20) / nanoseconds,
            timed_at_first: TIMED_AT_FIRST,
            distance: 1,
            state: 1,
        }
    }

    /// For the next pass; a `frequent` event comes every step or more often.
    #[inline]
    pub(super) fn next(&mut self, frequent: bool) -> Stopwatch<'_> {
        let timing = if frequent { self.draw() } else { Timing::All };
        Stopwatch { clock: &self.clock, slow: self.slow, timing, before: None }
    }

    #[inline]
    fn draw(&mut self) -> Timing {
        if self.timed_at_first > 0 {
            self.timed_at_first -= 1;
            return Timing::All;
        }
        self.distance -= 1;
        if self.distance > 0 {
            return Timing::Slow;
        }
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // From 1 to 31: SAMPLED on average.
        self.distance = 1 + ((self.state >> 33) % (2 * SAMPLED - 1)) as u32;
        Timing::Sample
    }
}

/// Times the hooks of one pass.
pub(super) struct Stopwatch<'a> {
    clock: &'a quanta::Clock,
    slow: u64,
    timing: Timing,
    /// The end of one hook is the beginning of the next: one reading a hook.
    before: Option<u64>,
}

impl Stopwatch<'_> {
    /// Runs `hook`, which is one of `event`, on `account`.
    #[inline]
    pub(super) fn time<R>(&mut self, account: &mut Account, event: EventKind, hook: impl FnOnce() -> R) -> R {
        let Some(entry) = account.hooks.get_mut(event.0 as usize) else { return hook() };
        if self.timing == Timing::Slow && !entry.is_slow {
            entry.calls += 1;
            self.before = None;
            return hook();
        }
        let began = self.before.unwrap_or_else(|| self.clock.raw());
        let result = hook();
        let ended = self.clock.raw();
        let weight = if self.timing == Timing::Sample && !entry.is_slow { SAMPLED } else { 1 };
        entry.add(ended - began, weight, self.slow);
        self.before = Some(ended);
        result
    }
}

impl Account {
    pub(super) fn new() -> Self {
        Self { hooks: vec![Entry::default(); EventKind::COUNT].into(), waiting: Entry::default() }
    }

    /// Adds a call of `event` that took `time`, on any thread.
    pub(super) fn add(&mut self, event: EventKind, ticks: u64) {
        if let Some(entry) = self.hooks.get_mut(event.0 as usize) {
            entry.add(ticks, 1, u64::MAX);
        }
    }

    pub(super) fn wait(&mut self, ticks: u64) {
        self.waiting.add(ticks, 1, u64::MAX);
    }

    /// `background`: whether the hooks ran in the background.
    pub(super) fn times(&self, instance: &str, background: bool, clock: &quanta::Clock) -> Vec<HookTime> {
        let time = |hook, background, entry: &Entry| HookTime {
            instance: instance.to_owned(),
            hook,
            background,
            calls: entry.calls,
            total: Duration::from_nanos(clock.delta_as_nanos(0, entry.total)),
            longest: Duration::from_nanos(clock.delta_as_nanos(0, entry.longest)),
        };
        let mut times: Vec<HookTime> = EventKind::ALL
            .iter()
            .filter_map(|event| self.hooks.get(event.0 as usize).map(|entry| (event, entry)))
            .filter(|(_, entry)| entry.calls > 0)
            .map(|(event, entry)| time(event.name(), background, entry))
            .collect();
        if self.waiting.calls > 0 {
            times.push(time("waiting", false, &self.waiting));
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sampled_adds_up_to_what_was_spent() {
        let (clock, ticks) = quanta::Clock::mock();
        let mut sampling = Sampling::new(clock.clone());
        let (mut fast, mut bursts, mut steady) = (Account::new(), Account::new(), Account::new());
        const STEPS: u64 = 20_000;
        for step in 0..STEPS {
            let mut stopwatch = sampling.next(true);
            stopwatch.time(&mut fast, EventKind::STEP_END, || ticks.increment(10u64));
            // A rhythm that sampling every sixteenth pass would always or never meet.
            stopwatch.time(&mut bursts, EventKind::STEP_END, || {
                ticks.increment(if step % 16 == 3 { 2_000u64 } else { 0 });
            });
            stopwatch.time(&mut steady, EventKind::STEP_END, || ticks.increment(1_000u64));
        }
        let total = |account: &Account| account.times("some", false, &clock)[0].total.as_nanos() as u64;
        assert!(total(&fast).abs_diff(STEPS * 10) < STEPS, "{}", total(&fast));
        assert!(total(&bursts).abs_diff(STEPS / 16 * 2_000) < STEPS / 16 * 400, "{}", total(&bursts));
        assert_eq!(total(&steady), STEPS * 1_000, "a slow hook is timed at every call");
        assert_eq!(fast.times("some", false, &clock)[0].calls, STEPS);
    }

    #[test]
    fn rare_events_are_always_timed() {
        let (clock, ticks) = quanta::Clock::mock();
        let mut sampling = Sampling::new(clock.clone());
        let mut account = Account::new();
        for _ in 0..1_000 {
            sampling.next(false).time(&mut account, EventKind::EPOCH_END, || ticks.increment(7u64));
        }
        assert_eq!(account.times("some", false, &clock)[0].total.as_nanos(), 7_000);
    }
}
