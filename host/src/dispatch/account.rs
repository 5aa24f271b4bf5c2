//! What each hook costs the run.

use std::time::Duration;

use plugin_api::abi::kinds::EventKind;

/// The time of one plugin's hook, in all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTime {
    /// The instance.
    pub instance: String,
    /// The hook, by its event's name; `waiting` for time that the loop waited for it in the background.
    pub hook: &'static str,
    /// How many calls.
    pub calls: u64,
    /// Their time.
    pub total: Duration,
    /// The longest of them.
    pub longest: Duration,
}

/// One instance's account. Times are in the clock's ticks, so that a call costs two additions.
#[derive(Clone, Default)]
pub(super) struct Account {
    hooks: Vec<Entry>,
    waiting: Entry,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    calls: u64,
    total: u64,
    longest: u64,
}

impl Entry {
    #[inline]
    fn add(&mut self, ticks: u64) {
        self.calls += 1;
        self.total += ticks;
        self.longest = self.longest.max(ticks);
    }
}

impl Account {
    pub(super) fn new() -> Self {
        Self { hooks: vec![Entry::default(); EventKind::COUNT], waiting: Entry::default() }
    }

    #[inline]
    pub(super) fn add(&mut self, event: EventKind, ticks: u64) {
        if let Some(entry) = self.hooks.get_mut(event.0 as usize) {
            entry.add(ticks);
        }
    }

    pub(super) fn wait(&mut self, ticks: u64) {
        self.waiting.add(ticks);
    }

    pub(super) fn times(&self, instance: &str, clock: &quanta::Clock) -> Vec<HookTime> {
        let time = |hook, entry: &Entry| HookTime {
            instance: instance.to_owned(),
            hook,
            calls: entry.calls,
            total: Duration::from_nanos(clock.delta_as_nanos(0, entry.total)),
            longest: Duration::from_nanos(clock.delta_as_nanos(0, entry.longest)),
        };
        let mut times: Vec<HookTime> = EventKind::ALL
            .iter()
            .filter_map(|event| self.hooks.get(event.0 as usize).map(|entry| (event, entry)))
            .filter(|(_, entry)| entry.calls > 0)
            .map(|(event, entry)| time(event.name(), entry))
            .collect();
        if self.waiting.calls > 0 {
            times.push(time("waiting", &self.waiting));
        }
        times
    }
}
