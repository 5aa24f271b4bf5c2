//! The callbacks of a run: creates, calls, triggers and times them.
//!
//! `passes.rs` has the passes, `policy.rs` the consequences of failures, `inbox.rs` the requests of other threads,
//! `states.rs` what callbacks save in a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::kinds::EventKind;

use super::account::{HookTime, Sampling};
use super::background::Worker;
use super::create::create;
use super::event::{Event, EventData};
use super::failure::{Failure, NEW};
use super::guard::{Computing, Guard};
use super::hook::Identity;
use super::inbox::Inbox;
use super::inline::{Inline, Target};
use super::plan::{Dispatch, OnError, Order};
use super::policy::LeftOut;
use super::remote::RemoteHub;
use super::schedule::Moment;
use super::sent::{EventTensors, Sent};
use super::snapshots::Leases;
use super::states::SavedState;
use super::subscriber::{Runner, Subscriber};
use super::watchdog::{HookLimits, OnHang, Watchdog};
use super::written::WrittenCheckpoints;
use crate::services::{Lent, Services};

/// The callbacks of a run, in order.
pub struct Dispatcher {
    pub(super) subscribers: Vec<Subscriber>,
    /// Their identities, stored separately: a callback's services need them while the callback is borrowed.
    pub(super) instances: Vec<Arc<Identity>>,
    /// For each event, its subscribers, in order.
    pub(super) by_event: Vec<Arc<[Target]>>,
    /// The events that have subscribers, one bit each.
    wanted: u64,
    triggers_by_step: bool,
    pub(super) inbox: Arc<Inbox>,
    pub(super) hub: Arc<RemoteHub>,
    pub(super) leases: Arc<Leases>,
    pub(super) clock: quanta::Clock,
    pub(super) sampling: Sampling,
    pub(super) guard: Guard,
    pub(super) left_out: BTreeMap<Arc<str>, LeftOut>,
    pub(super) failures: Vec<Failure>,
    /// The first failure that stops the run and has not been returned yet.
    pub(super) stopping: Option<Box<Failure>>,
    watchdog: Option<Watchdog>,
    /// Whether those of the background are on their threads.
    pub(super) has_begun: bool,
    /// Saved states of instances that this run does not have.
    pub(super) carried: BTreeMap<String, SavedState>,
}

impl Dispatcher {
    /// Creates the instances of `order`, in order.
    ///
    /// A failure comes with the instances created so far, so that they get `teardown`.
    pub fn create(order: Order) -> (Self, Result<(), Box<Failure>>) {
        let inbox = Arc::new(Inbox::default());
        let clock = quanta::Clock::new();
        let mut dispatcher = Self {
            subscribers: Vec::new(),
            instances: Vec::new(),
            by_event: Vec::new(),
            wanted: 0,
            triggers_by_step: false,
            hub: RemoteHub::new(Arc::clone(&inbox)),
            inbox,
            leases: Arc::default(),
            sampling: Sampling::new(clock.clone()),
            guard: Guard::new(),
            left_out: BTreeMap::new(),
            clock,
            failures: Vec::new(),
            stopping: None,
            watchdog: None,
            has_begun: false,
            carried: BTreeMap::new(),
        };
        let mut outcome = Ok(());
        let is_one_of_several = order.world_size > 1;
        for planned in order.planned {
            let identity = Arc::new(Identity {
                name: planned.name().into(),
                options: planned.options.options.clone().into(),
                needs: planned.kind.descriptor().needs.clone(),
                exports: planned.handles(EventKind::EXPORT),
                presence: planned.presence(is_one_of_several),
                is_isolated: planned.isolation.is_some(),
            });
            let before = Computing::of_this_thread();
            dispatcher.instances.push(Arc::clone(&identity));
            let (instances, index) = (&dispatcher.instances, dispatcher.instances.len() - 1);
            let made = create(&planned.kind, planned.isolation.as_ref(), instances, index, &dispatcher.hub);
            if !before.rounds_as_before(false) {
                dispatcher.guard.round_again(before, &identity.name, EventKind::CREATE);
            }
            if !before.has_its_threads() {
                dispatcher.guard.thread_again(before, &identity.name, EventKind::CREATE);
            }
            match made {
                Ok(instance) => dispatcher.subscribers.push(Subscriber::new(planned, Runner::Inline(instance))),
                Err(fault) => {
                    outcome = Err(Box::new(Failure {
                        instance: planned.name().to_owned(),
                        kind: planned.kind.descriptor().kind.clone(),
                        path: planned.kind.path().to_owned(),
                        hook: NEW,
                        fault,
                        on_error: OnError::Stop,
                    }));
                    break;
                }
            }
        }
        dispatcher.index();
        (dispatcher, outcome)
    }

    /// Lets remotes read the metrics: before `setup`, which may open one.
    pub fn connect_remotes(&self, services: &dyn Services) {
        self.hub.begin(services.live_metrics());
    }

    /// Watches how long hooks take from now on; `on_hang` ends the process when one on the training thread takes longer than
    /// the timeout.
    ///
    /// # Errors
    ///
    /// When the system cannot start a thread.
    pub fn watch(&mut self, limits: HookLimits, on_hang: Box<OnHang>) -> std::io::Result<()> {
        let (instances, hub, inbox) = (self.instances.clone(), Arc::clone(&self.hub), Arc::clone(&self.inbox));
        self.watchdog = Some(Watchdog::start(limits, instances, hub, inbox, on_hang)?);
        Ok(())
    }

    /// Moves the instances that run in the background to their threads.
    /// Comes after `setup` and `load_state`, which run on the training thread for every instance.
    ///
    /// # Errors
    ///
    /// When the system cannot start a thread.
    pub fn begin(&mut self) -> std::io::Result<()> {
        for (subscriber, identity) in self.subscribers.iter_mut().zip(&self.instances) {
            if subscriber.planned.dispatch != Dispatch::Background {
                continue;
            }
            match std::mem::replace(&mut subscriber.runner, Runner::Gone) {
                Runner::Inline(instance) => {
                    let (inbox, hub) = (Arc::clone(&self.inbox), Arc::clone(&self.hub));
                    let once = subscriber.on_error() == OnError::Disable;
                    let worker = Worker::start(Arc::clone(identity), instance, once, inbox, hub, self.clock.clone())?;
                    if let Some(watchdog) = &self.watchdog {
                        watchdog.add(identity, worker.watched());
                    }
                    subscriber.runner = Runner::Background(worker);
                }
                other => subscriber.runner = other,
            }
        }
        self.has_begun = true;
        self.index();
        Ok(())
    }

    /// Tells the callbacks of checkpoints that are written on another thread.
    pub fn written_checkpoints(&self) -> WrittenCheckpoints {
        WrittenCheckpoints::new(Arc::clone(&self.inbox))
    }

    /// Sends a custom event of `author`, which is not an instance, with `tensors`. Its listeners on this thread run before
    /// this returns; a failure of one that stops the run is returned by [`Self::check`] or by the next event.
    pub fn send_custom(
        &mut self,
        author: &str,
        name: &str,
        payload: &[u8],
        tensors: impl IntoIterator<Item = Lent>,
        services: &mut dyn Services,
    ) {
        if !self.wants(EventKind::CUSTOM) {
            return;
        }
        self.read_inbox(services);
        let data = EventData::Custom { name: name.to_owned(), author: author.into(), payload: payload.into() };
        let event = Event { kind: EventKind::CUSTOM, position: services.position(), data };
        let tensors = EventTensors::Lent(tensors.into_iter().collect());
        self.deliver_rounds(vec![Sent { event, tensors }], services);
    }

    /// The failure of an earlier hook that stops the run, if there is one that was not returned yet.
    ///
    /// # Errors
    ///
    /// That failure.
    pub fn check(&mut self) -> Result<(), Box<Failure>> {
        self.take_failure()
    }

    /// Updates the subscribers of each event.
    pub(super) fn index(&mut self) {
        let targets = |event: EventKind| -> Arc<[Target]> {
            self.subscribers
                .iter()
                .enumerate()
                .filter(|(_, subscriber)| subscriber.wants(event))
                .map(|(index, subscriber)| Target {
                    index,
                    plain: matches!(subscriber.runner, Runner::Inline(_)) && subscriber.gate(event).is_none(),
                })
                .collect()
        };
        self.by_event = (0..EventKind::COUNT as u32).map(|kind| targets(EventKind(kind))).collect();
        self.wanted = self
            .by_event
            .iter()
            .enumerate()
            .filter(|(_, targets)| !targets.is_empty())
            .fold(0, |wanted, (kind, _)| wanted | 1 << kind);
        self.hub.set_listeners(self.wants(EventKind::CUSTOM));
        self.triggers_by_step = self
            .subscribers
            .iter()
            .any(|subscriber| subscriber.wants(EventKind::TRIGGER) && subscriber.schedule.by_step());
    }

    /// Whether any callback wants `event`.
    #[inline]
    pub fn wants(&self, event: EventKind) -> bool {
        self.wanted & (1 << event.0) != 0
    }

    /// One pass of an event that carries nothing but its position.
    ///
    /// # Errors
    ///
    /// The first failure whose policy stops the run; the pass is finished first.
    #[inline]
    pub fn fire_at(&mut self, kind: EventKind, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        if self.inbox.is_empty() && !self.wants(kind) {
            return Ok(());
        }
        self.fire(&Event::at(kind, services.position()), services)
    }

    /// Fires the event of the next minor version of the ABI, at each safe point of the loop; does nothing in this one.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    #[inline]
    pub fn safe_point(&mut self, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        #[cfg(feature = "next-minor")]
        return self.fire_at(EventKind::SAFE_POINT, services);
        #[cfg(not(feature = "next-minor"))]
        {
            let _ = services;
            Ok(())
        }
    }

    /// One pass of an event over its subscribers, after the earlier requests of other threads.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn fire(&mut self, event: &Event, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        self.read_inbox(services);
        if matches!(event.kind, EventKind::EPOCH_END | EventKind::TRAIN_END) {
            self.publish_times();
        }
        if event.kind == EventKind::TEARDOWN {
            self.tell_all_left_out();
        }
        if let (EventKind::TRAIN_END, Some(watchdog)) = (event.kind, &self.watchdog) {
            watchdog.run_has_ended();
        }
        let Some(targets) = self.by_event.get(event.kind.0 as usize).filter(|targets| !targets.is_empty()) else {
            return self.take_failure();
        };
        // Most passes have only plain hooks that leave nothing; those cannot change the targets.
        let (subscribers, instances) = (&mut self.subscribers, &self.instances);
        let (hub, sampling, guard) = (&self.hub, &mut self.sampling, &mut self.guard);
        let (inline, mut next) = (Inline { subscribers, instances, hub, sampling, guard }, 0);
        let stopped = inline.run(event, &EventTensors::None, targets, &mut next, services);
        if stopped.is_some() || next < targets.len() {
            let targets = Arc::clone(targets);
            let left = stopped.map_or_else(Vec::new, |stopped| self.settle(event, stopped));
            self.deliver_from(next, left, event, &targets, services);
        }
        self.take_failure()
    }

    /// Triggers the instances whose schedule says so, in order.
    ///
    /// `elapsed` is the run's time over all its processes.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    #[inline]
    pub fn trigger(
        &mut self,
        moment: Moment,
        elapsed: impl FnOnce() -> Duration,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        if moment == Moment::StepEnd && !self.triggers_by_step || !self.wants(EventKind::TRIGGER) {
            return Ok(());
        }
        self.trigger_due(moment, elapsed(), services)
    }

    fn trigger_due(
        &mut self,
        moment: Moment,
        elapsed: Duration,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        let (mut checkpoint_follows, position) = (false, services.position());
        for target in self.targets(EventKind::TRIGGER).iter() {
            let subscriber = &mut self.subscribers[target.index];
            // What has failed is not asked to act on its own failure.
            if moment == Moment::Failure && self.failures.iter().any(|failed| *failed.instance == *subscriber.name) {
                continue;
            }
            if let Some(cause) = subscriber.schedule.due(moment, position, elapsed, |name| services.metric(name)) {
                checkpoint_follows |= subscriber.is_background() && subscriber.wants(EventKind::CHECKPOINT);
                let event = Event::with_texts(EventKind::TRIGGER, position, [&cause, "", ""]);
                self.deliver(&event, &[*target], services);
            }
        }
        // A checkpoint belongs to the position that triggered it, not to the one at which the request arrives. It
        // waits for the queue in any case.
        if checkpoint_follows { self.flush(services) } else { self.take_failure() }
    }

    /// Triggers every instance once, whatever its schedule says: for a trial.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn trigger_all(&mut self, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        self.fire(&Event::with_texts(EventKind::TRIGGER, services.position(), ["trial", "", ""]), services)
    }

    /// Waits until everything queued in the background is done, and then handles its requests.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn flush(&mut self, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        for subscriber in &mut self.subscribers {
            if let Runner::Background(worker) = &subscriber.runner {
                let before = self.clock.raw();
                worker.flush();
                subscriber.account.wait(self.clock.raw() - before);
            }
        }
        self.read_inbox(services);
        self.take_failure()
    }

    /// Closes the remotes: after `train_end`.
    pub fn close_remotes(&self) {
        self.hub.close();
    }

    /// Every failure so far, also those that the run survived.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// What each hook cost, most expensive first.
    pub fn times(&self) -> Vec<HookTime> {
        let of = |subscriber: &Subscriber| {
            let mut times = subscriber.account.times(&subscriber.name, false, &self.clock);
            if let Runner::Background(worker) = &subscriber.runner {
                times.extend(worker.times(&subscriber.name, &self.clock));
            }
            times
        };
        let mut times: Vec<HookTime> = self.subscribers.iter().flat_map(of).collect();
        times.sort_by_key(|time| std::cmp::Reverse(time.total));
        times
    }

    /// Publishes the cost of the hooks so far for callbacks.
    pub(super) fn publish_times(&self) {
        self.hub.put_times(self.times().iter().map(Into::into).collect());
    }

    pub(super) fn targets(&self, event: EventKind) -> Arc<[Target]> {
        self.by_event.get(event.0 as usize).map_or_else(|| Arc::from([]), Arc::clone)
    }

    pub(super) fn index_of(&self, instance: &str) -> Option<usize> {
        self.subscribers.iter().position(|subscriber| &*subscriber.name == instance)
    }

    #[inline]
    pub(super) fn take_failure(&mut self) -> Result<(), Box<Failure>> {
        self.stopping.take().map_or(Ok(()), Err)
    }
}
