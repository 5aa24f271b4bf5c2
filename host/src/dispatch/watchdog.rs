//! Hooks that do not return: a thread names them and, where the run says so, ends them.
//!
//! A hook cannot be ended from outside. In the background its instance is left alone, and the run goes on as its policy says;
//! on the training thread nothing can go on, so that whoever started the watch ends the process. One in a process of its own is
//! ended by who waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::hook::Identity;
use super::inbox::{Inbox, Message};
use super::pulse::{Beat, Pulse};
use super::remote::RemoteHub;
use crate::plugins::Fault;

/// How long a hook may take.
#[derive(Clone, Copy, Debug, Default)]
pub struct HookLimits {
    /// After so long it is named.
    pub warning: Option<Duration>,
    /// After so long it is ended.
    pub timeout: Option<Duration>,
}

/// How long a hook in the background may still take when the run has ended, without a timeout: it may upload something.
const AT_THE_END: Duration = Duration::from_secs(600);

/// How often hooks are looked at, at most and at least.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(20), Duration::from_secs(1)];

/// What is told of a hook on the training thread that is ended: the instance, the hook, and how long it has taken, `90 s`.
pub type OnHang = dyn Fn(&str, &'static str, &str) + Send;

/// What the watchdog and the thread of a callback share.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) pulse: Pulse,
    /// Nobody waits for the thread any more.
    pub(super) abandoned: AtomicBool,
}

/// Watches the hooks of a run until it is dropped.
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    workers: Vec<(Arc<Identity>, Arc<Watched>)>,
    run_has_ended: bool,
    is_over: bool,
}

impl Watchdog {
    /// Watches the hooks on the training thread.
    pub(super) fn start(
        limits: HookLimits,
        instances: Vec<Arc<Identity>>,
        hub: Arc<RemoteHub>,
        inbox: Arc<Inbox>,
        on_hang: Box<OnHang>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), ended: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let watch =
            move || Watch { limits, instances, hub, inbox, on_hang, inline: None, workers: Vec::new() }.run(&of_thread);
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Watches the thread of a callback, too.
    pub(super) fn add(&self, identity: &Arc<Identity>, watched: &Arc<Watched>) {
        self.shared.state().workers.push((Arc::clone(identity), Arc::clone(watched)));
    }

    /// The run has ended: whatever still takes long is in the way.
    pub(super) fn run_has_ended(&self) {
        self.shared.state().run_has_ended = true;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.state().is_over = true;
        self.shared.ended.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been told.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hook that was in progress when it was last looked at.
#[derive(Clone, Copy)]
struct Seen {
    beat: Beat,
    since: Instant,
    is_told: bool,
}

struct Watch {
    limits: HookLimits,
    instances: Vec<Arc<Identity>>,
    hub: Arc<RemoteHub>,
    inbox: Arc<Inbox>,
    on_hang: Box<OnHang>,
    inline: Option<Seen>,
    workers: Vec<Option<Seen>>,
}

impl Watch {
    fn run(mut self, shared: &Shared) {
        let shortest = self.limits.warning.into_iter().chain(self.limits.timeout).min().unwrap_or(AT_THE_END);
        let every = (shortest / 10).clamp(LOOK_EVERY[0], LOOK_EVERY[1]);
        let mut state = shared.state();
        while !state.is_over {
            state = shared.ended.wait_timeout(state, every).unwrap_or_else(PoisonError::into_inner).0;
            if state.is_over {
                break;
            }
            self.look_at_inline();
            self.look_at_workers(&state);
        }
    }

    fn look_at_inline(&mut self) {
        let Some(seen) = look(&mut self.inline, self.hub.pulse.read()) else { return };
        let taken = seen.since.elapsed();
        let Some(instance) = self.instances.get(seen.beat.index()) else { return };
        warn(&self.limits, &instance.name, seen, taken);
        let is_over = |timeout| taken >= timeout && !instance.is_isolated;
        if self.limits.timeout.is_some_and(is_over) {
            (self.on_hang)(&instance.name, seen.beat.event().name(), &in_words(taken));
        }
    }

    fn look_at_workers(&mut self, state: &State) {
        self.workers.resize(state.workers.len(), None);
        let timeout = self.limits.timeout.or(state.run_has_ended.then_some(AT_THE_END));
        for ((identity, watched), seen) in state.workers.iter().zip(&mut self.workers) {
            if watched.abandoned.load(Ordering::Relaxed) {
                continue;
            }
            let Some(seen) = look(seen, watched.pulse.read()) else { continue };
            let taken = seen.since.elapsed();
            warn(&self.limits, &identity.name, seen, taken);
            // With a timeout, its process is ended by who waits for it.
            let ends_itself = identity.is_isolated && self.limits.timeout.is_some();
            if timeout.is_some_and(|timeout| taken >= timeout && !ends_itself) {
                let message = format!("it did not return within {}, and is left alone", in_words(taken));
                let fault = Fault::new(message);
                let (instance, hook) = (Arc::clone(&identity.name), seen.beat.event());
                self.inbox.post(Message::Fault { instance, hook, fault });
                watched.abandoned.store(true, Ordering::Release);
            }
        }
    }
}

/// The hook in progress, if it was in progress before.
fn look(seen: &mut Option<Seen>, beat: Option<Beat>) -> Option<&mut Seen> {
    match (&seen, beat) {
        (Some(before), Some(beat)) if before.beat == beat => seen.as_mut(),
        (_, beat) => {
            *seen = beat.map(|beat| Seen { beat, since: Instant::now(), is_told: false });
            None
        }
    }
}

fn warn(limits: &HookLimits, instance: &str, seen: &mut Seen, taken: Duration) {
    if limits.warning.is_some_and(|warning| taken >= warning) && !std::mem::replace(&mut seen.is_told, true) {
        tracing::warn!("`{instance}` has been in its hook `{}` for {}", seen.beat.event().name(), in_words(taken));
    }
}

/// `90 s`.
fn in_words(taken: Duration) -> String {
    format!("{:.0} s", taken.as_secs_f64())
}
