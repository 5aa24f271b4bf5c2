//! Which hook a thread is in, for a thread that watches it.

use std::sync::atomic::{AtomicU64, Ordering};

use plugin_api::abi::kinds::EventKind;

/// The hook that is in progress on a thread; each call has its own number. Writing it costs one store.
#[derive(Debug, Default)]
pub(super) struct Pulse(AtomicU64);

/// The bits that count how often a hook was renewed, between those of its ticket and of its instance.
const RENEWALS: u64 = 0xff << 24;
const RENEWAL: u64 = 1 << 24;

/// A call of a hook, as a [`Pulse`] has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beat(u64);

impl Pulse {
    /// The hook `event` of the instance at `index` begins, with a `ticket` of its own.
    #[inline]
    pub(super) fn enter(&self, ticket: u64, index: usize, event: EventKind) {
        let beat = (ticket << 32) | ((index as u64 & 0xffff) << 8) | ((u64::from(event.0) + 1) & 0xff);
        self.0.store(beat, Ordering::Relaxed);
    }

    /// The hook in progress waits on purpose: to who watches, it begins anew.
    pub(super) fn renew(&self) {
        let beat = self.0.load(Ordering::Relaxed);
        // Only the hook's own thread writes.
        self.0.store((beat & !RENEWALS) | (beat.wrapping_add(RENEWAL) & RENEWALS), Ordering::Relaxed);
    }

    /// No hook is in progress.
    #[inline]
    pub(super) fn leave(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The hook in progress. Between two hooks of one pass, it is the earlier one.
    pub(super) fn read(&self) -> Option<Beat> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            beat => Some(Beat(beat)),
        }
    }
}

impl Beat {
    /// The instance, by its place in the order.
    pub(super) fn index(self) -> usize {
        (self.0 >> 8 & 0xffff) as usize
    }

    /// The hook.
    pub(super) fn event(self) -> EventKind {
        EventKind((self.0 & 0xff) as u32 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_has_its_parts() {
        let pulse = Pulse::default();
        assert_eq!(pulse.read(), None);
        pulse.enter((3 << 40) + 7, 12, EventKind::STEP_END);
        let first = pulse.read().unwrap();
        assert_eq!((first.index(), first.event()), (12, EventKind::STEP_END));
        pulse.enter((3 << 40) + 8, 12, EventKind::STEP_END);
        assert_ne!(pulse.read(), Some(first), "the next call is another");
        let second = pulse.read();
        for _ in 0..300 {
            let before = pulse.read();
            pulse.renew();
            let beat = pulse.read().unwrap();
            assert_ne!(Some(beat), before, "a hook that waits on purpose begins anew");
            assert_eq!((beat.index(), beat.event()), (12, EventKind::STEP_END));
        }
        pulse.enter((3 << 40) + 8, 12, EventKind::STEP_END);
        assert_eq!(pulse.read(), second);
        pulse.leave();
        assert_eq!(pulse.read(), None);
    }
}
