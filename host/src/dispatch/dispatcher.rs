//! Calls the callbacks: one pass an event, the mail of other threads, the rounds of queued events,
//! and what follows from a failure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plugin_api::abi::kinds::{EventKind, Status};

use super::account::{HookTime, Sampling};
use super::background::{Leases, Shared, Worker, waits_for_answer};
use super::emitter::Emitter;
use super::event::{Event, EventData};
use super::failure::{Failure, NEW};
use super::hook::{Left, fault};
use super::inline::{Inline, Stopped, Target};
use super::mailbox::{Letter, Mailbox};
use super::plan::{Mode, OnError, Order, options_document};
use super::remote::RemoteHub;
use super::schedule::{Moment, ScheduleState};
use super::services::{Caller, Reply, Request, Services, SnapshotNeeds};
use super::subscriber::{Runner, Subscriber};
use crate::plugins::{Fault, Instance};
use crate::record::Position;

/// Rounds of records and custom events that follow from one hook. More is a loop of callbacks that
/// answer each other.
const ROUNDS: usize = 8;

/// The callbacks of a run, in order.
pub struct Dispatcher {
    subscribers: Vec<Subscriber>,
    /// Their names, apart from them: a callback's services need them while it is borrowed.
    names: Vec<Arc<str>>,
    /// For each event, who wants it, in order.
    by_event: Vec<Arc<[Target]>>,
    /// The same as one bit an event.
    wanted: u64,
    triggers_by_step: bool,
    mailbox: Arc<Mailbox>,
    hub: Arc<RemoteHub>,
    leases: Arc<Leases>,
    clock: quanta::Clock,
    sampling: Sampling,
    failures: Vec<Failure>,
    /// The first failure that stops the run and was not returned yet.
    stopping: Option<Box<Failure>>,
}

impl Dispatcher {
    /// Makes the instances of `order`, in order.
    ///
    /// On a failure the instances made so far come with it, so that they see `teardown`.
    pub fn create(order: Order) -> (Self, Result<(), Box<Failure>>) {
        let mailbox = Arc::new(Mailbox::default());
        let clock = quanta::Clock::new();
        let mut dispatcher = Self {
            subscribers: Vec::new(),
            names: Vec::new(),
            by_event: Vec::new(),
            wanted: 0,
            triggers_by_step: false,
            hub: RemoteHub::new(Arc::clone(&mailbox)),
            mailbox,
            leases: Arc::default(),
            sampling: Sampling::new(clock.clone()),
            clock,
            failures: Vec::new(),
            stopping: None,
        };
        let mut outcome = Ok(());
        for planned in order.planned {
            match Instance::create(&planned.kind, planned.name(), &options_document(&planned)) {
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
        dispatcher.names = dispatcher.subscribers.iter().map(|subscriber| Arc::clone(&subscriber.name)).collect();
        dispatcher.index();
        (dispatcher, outcome)
    }

    /// Moves the instances that run in the background to their threads, and opens remotes' reading.
    /// After `setup` and `load_state`, which are answered at once whatever an instance's mode.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub fn begin(&mut self, services: &dyn Services) -> std::io::Result<()> {
        self.hub.begin(services.reader());
        for subscriber in &mut self.subscribers {
            if subscriber.planned.mode != Mode::Background {
                continue;
            }
            match std::mem::replace(&mut subscriber.runner, Runner::Gone) {
                Runner::Inline(instance) => {
                    let (mailbox, hub) = (Arc::clone(&self.mailbox), Arc::clone(&self.hub));
                    let once = subscriber.on_error() == OnError::Disable;
                    let worker =
                        Worker::start(Arc::clone(&subscriber.name), instance, once, mailbox, hub, self.clock.clone())?;
                    subscriber.runner = Runner::Background(worker);
                }
                other => subscriber.runner = other,
            }
        }
        self.index();
        Ok(())
    }

    /// Sends custom events to the callbacks in the name of `author`, which is no instance.
    pub fn emitter(&self, author: &str) -> Emitter {
        Emitter::new(author, Arc::clone(&self.mailbox))
    }

    /// Rebuilds who wants what.
    fn index(&mut self) {
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
    /// The first failure whose policy stops the run; the pass was finished by then.
    #[inline]
    pub fn fire_at(
        &mut self,
        kind: EventKind,
        position: Position,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        if self.mailbox.is_empty() && !self.wants(kind) {
            return Ok(());
        }
        self.fire(&Event::at(kind, position), services)
    }

    /// One pass of an event over its subscribers, after the mail that came before it.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn fire(&mut self, event: &Event, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        self.read_mail(event.position, services);
        if matches!(event.kind, EventKind::EPOCH_END | EventKind::TRAIN_END) {
            self.publish_times();
        }
        let Some(targets) = self.by_event.get(event.kind.0 as usize).filter(|targets| !targets.is_empty()) else {
            return self.take_failure();
        };
        // Plain hooks that leave nothing behind, most passes' only ones, cannot change who the targets are.
        let (subscribers, names) = (&mut self.subscribers, &self.names);
        let (inline, mut next) = (Inline { subscribers, names, hub: &self.hub, sampling: &mut self.sampling }, 0);
        let stopped = inline.run(event, targets, &mut next, services);
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
        position: Position,
        elapsed: impl FnOnce() -> Duration,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        if moment == Moment::StepEnd && !self.triggers_by_step || !self.wants(EventKind::TRIGGER) {
            return Ok(());
        }
        self.trigger_due(moment, position, elapsed(), services)
    }

    fn trigger_due(
        &mut self,
        moment: Moment,
        position: Position,
        elapsed: Duration,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        let mut checkpoint_follows = false;
        for target in self.targets(EventKind::TRIGGER).iter() {
            let subscriber = &mut self.subscribers[target.index];
            if let Some(cause) = subscriber.schedule.due(moment, position, elapsed, |name| services.metric(name)) {
                checkpoint_follows |= subscriber.is_background() && subscriber.wants(EventKind::CHECKPOINT);
                let event = Event::with_texts(EventKind::TRIGGER, position, [&cause, "", ""]);
                self.deliver(&event, &[*target], services);
            }
        }
        // A checkpoint is of the position that triggered it, not of where the loop is once the request has arrived. It
        // waits for all that is queued anyway.
        if checkpoint_follows { self.flush(position, services) } else { self.take_failure() }
    }

    /// Triggers every instance once, whatever its schedule says: for a trial.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn trigger_all(&mut self, position: Position, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        self.fire(&Event::with_texts(EventKind::TRIGGER, position, ["trial", "", ""]), services)
    }

    /// Collects every instance's state, in order, each after everything queued for it. An instance
    /// that panicked gives what it last saved.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn save_states(
        &mut self,
        position: Position,
        services: &mut dyn Services,
    ) -> Result<BTreeMap<String, Vec<u8>>, Box<Failure>> {
        let event = Event::at(EventKind::SAVE_STATE, position);
        for target in self.targets(EventKind::SAVE_STATE).iter() {
            if self.subscribers[target.index].is_background() {
                let shared = self.share(&event, &[], services);
                let Runner::Background(worker) = &self.subscribers[target.index].runner else { continue };
                match shared.and_then(|shared| worker.save_state(event.clone(), shared).unwrap_or(Ok(Vec::new()))) {
                    Ok(state) => self.subscribers[target.index].state = Some(state),
                    Err(fault) => self.failed(target.index, event.kind, position, fault, services),
                }
            } else {
                self.deliver(&event, &[*target], services);
            }
        }
        self.take_failure()?;
        Ok(self
            .subscribers
            .iter()
            .filter_map(|subscriber| Some((subscriber.name.to_string(), subscriber.state.clone()?)))
            .collect())
    }

    /// Gives every instance the state that it saved under its name.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn load_states(
        &mut self,
        states: &BTreeMap<String, Vec<u8>>,
        position: Position,
        services: &mut dyn Services,
    ) -> Result<(), Box<Failure>> {
        for target in self.targets(EventKind::LOAD_STATE).iter() {
            let Some(state) = states.get(&*self.subscribers[target.index].name) else { continue };
            self.subscribers[target.index].state = Some(state.clone());
            let data = EventData::State(state.as_slice().into());
            let event = Event { kind: EventKind::LOAD_STATE, position, data };
            self.deliver(&event, &[*target], services);
        }
        self.take_failure()
    }

    /// What the schedules must remember across a resume, by instance.
    pub fn schedule_states(&self) -> BTreeMap<String, ScheduleState> {
        self.subscribers
            .iter()
            .map(|subscriber| (subscriber.name.to_string(), subscriber.schedule.state.clone()))
            .collect()
    }

    /// Puts the schedules where they were.
    pub fn restore_schedules(&mut self, states: &BTreeMap<String, ScheduleState>) {
        for subscriber in &mut self.subscribers {
            if let Some(state) = states.get(&*subscriber.name) {
                subscriber.schedule.state = state.clone();
            }
        }
    }

    /// Waits until everything queued in the background is done, and takes the mail that it left.
    ///
    /// # Errors
    ///
    /// As [`Self::fire_at`].
    pub fn flush(&mut self, position: Position, services: &mut dyn Services) -> Result<(), Box<Failure>> {
        for subscriber in &mut self.subscribers {
            if let Runner::Background(worker) = &subscriber.runner {
                let before = self.clock.raw();
                worker.flush();
                subscriber.account.wait(self.clock.raw() - before);
            }
        }
        self.read_mail(position, services);
        self.take_failure()
    }

    /// Closes the remotes: after `train_end`.
    pub fn close_remotes(&self) {
        self.hub.close();
    }

    /// Every failure so far, those that the run went on after too.
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

    /// Lets callbacks read what the hooks have cost up to now.
    fn publish_times(&self) {
        self.hub.put_times(self.times().iter().map(Into::into).collect());
    }

    fn targets(&self, event: EventKind) -> Arc<[Target]> {
        self.by_event.get(event.0 as usize).map_or_else(|| Arc::from([]), Arc::clone)
    }

    #[inline]
    fn take_failure(&mut self) -> Result<(), Box<Failure>> {
        self.stopping.take().map_or(Ok(()), Err)
    }

    /// A pass, and the rounds of what its hooks put. Who failed in it is told behind it, so that nobody hears of an
    /// error in an event that is yet to come.
    fn deliver(&mut self, event: &Event, targets: &[Target], services: &mut dyn Services) {
        self.deliver_from(0, Vec::new(), event, targets, services);
    }

    /// The pass from `next` on, after `left`, which the hooks before it left behind.
    fn deliver_from(
        &mut self,
        mut next: usize,
        mut left: Vec<Event>,
        event: &Event,
        targets: &[Target],
        services: &mut dyn Services,
    ) {
        let mut shared = None;
        let mut targets = Cow::Borrowed(targets);
        let mut errors = Vec::new();
        loop {
            let (failed, queued): (Vec<Event>, Vec<Event>) =
                left.into_iter().partition(|event| event.kind == EventKind::ERROR);
            let failures = self.failures.len();
            if !queued.is_empty() {
                // One of the rounds may need a snapshot, and waits until nobody holds this one.
                shared = None;
                self.deliver_rounds(queued, services);
            }
            if self.failures.len() > failures {
                // Who was disabled in a round sees nothing of the rest.
                let stays = |target: &&Target| self.subscribers[target.index].wants(event.kind);
                targets = targets[next..].iter().filter(stays).copied().collect();
                next = 0;
            }
            errors.extend(failed);
            if next == targets.len() {
                break;
            }
            left = self.pass(event, &targets, &mut next, &mut shared, services);
        }
        self.deliver_rounds(errors, services);
    }

    /// Events that hooks put: each round's hooks put those of the next.
    fn deliver_rounds(&mut self, mut pending: Vec<Event>, services: &mut dyn Services) {
        let mut rounds = Vec::new();
        while !pending.is_empty() {
            if rounds.len() == ROUNDS {
                rounds.push(pending);
                self.loop_of_callbacks(&rounds);
                return;
            }
            let mut following = Vec::new();
            for event in &pending {
                let targets = self.targets(event.kind);
                let (mut next, mut shared) = (0, None);
                while next < targets.len() {
                    following.extend(self.pass(event, &targets, &mut next, &mut shared, services));
                }
            }
            rounds.push(std::mem::replace(&mut pending, following));
        }
    }

    /// Calls the hooks from `targets[*next]` on, until one leaves events behind or the pass is done;
    /// gives those events.
    fn pass(
        &mut self,
        event: &Event,
        targets: &[Target],
        next: &mut usize,
        shared: &mut Option<Shared>,
        services: &mut dyn Services,
    ) -> Vec<Event> {
        while let Some(&target) = targets.get(*next) {
            if target.plain {
                if let Some(stopped) = self.run_plain(event, targets, next, services) {
                    return self.settle(event, stopped);
                }
                continue;
            }
            *next += 1;
            let subscriber = &self.subscribers[target.index];
            if !subscriber.wants(event.kind) {
                continue;
            }
            if let Some(condition) = subscriber.gate(event.kind)
                && !condition.holds(|name| services.metric(name))
            {
                continue;
            }
            if subscriber.is_background() && !waits_for_answer(event.kind) {
                if let Err(fault) = self.send(target.index, event, targets, shared, services) {
                    return self.settle_fault(target.index, event.kind, event.position, fault);
                }
                continue;
            }
            let alone = [Target { index: target.index, plain: true }];
            if let Some(stopped) = self.run_plain(event, &alone, &mut 0, services) {
                return self.settle(event, stopped);
            }
        }
        Vec::new()
    }

    /// Calls inline hooks one behind the other; see [`Inline::run`].
    fn run_plain(
        &mut self,
        event: &Event,
        targets: &[Target],
        next: &mut usize,
        services: &mut dyn Services,
    ) -> Option<Stopped> {
        let Self { subscribers, names, hub, sampling, .. } = self;
        Inline { subscribers, names, hub, sampling }.run(event, targets, next, services)
    }

    /// What follows from a hook that failed or left something behind; gives the events.
    fn settle(&mut self, event: &Event, stopped: Stopped) -> Vec<Event> {
        let Stopped { index, status, left: Left { fault: told, state, mut events } } = stopped;
        if let Some(state) = state {
            self.subscribers[index].state = Some(state);
        }
        if status != Status::OK && status != Status::UNKNOWN {
            events.extend(self.settle_fault(index, event.kind, event.position, fault(status, told)));
        }
        events
    }

    fn settle_fault(&mut self, index: usize, hook: EventKind, position: Position, fault: Fault) -> Vec<Event> {
        let event = self.record_failure(index, hook, position, fault);
        // A failing `error` hook must not call itself.
        if hook == EventKind::ERROR { Vec::new() } else { vec![event] }
    }

    /// A failure outside a pass: the `error` event is delivered at once.
    fn failed(&mut self, index: usize, hook: EventKind, position: Position, fault: Fault, services: &mut dyn Services) {
        let events = self.settle_fault(index, hook, position, fault);
        self.deliver_rounds(events, services);
    }

    /// Applies the policy, and gives the `error` event.
    fn record_failure(&mut self, index: usize, hook: EventKind, position: Position, fault: Fault) -> Event {
        let subscriber = &mut self.subscribers[index];
        let failure = Failure {
            instance: subscriber.name.to_string(),
            kind: subscriber.planned.kind.descriptor().kind.clone(),
            path: subscriber.planned.kind.path().to_owned(),
            hook: hook.name(),
            fault,
            on_error: subscriber.on_error(),
        };
        tracing::error!(
            plugin = %failure.instance,
            hook = failure.hook,
            place = %failure.fault.place,
            panicked = failure.fault.panicked,
            "{failure}"
        );
        if failure.fault.panicked {
            // What a panic left half done must not run again, not even its destructor.
            if let Runner::Inline(instance) = std::mem::replace(&mut subscriber.runner, Runner::Gone) {
                std::mem::forget(instance);
            }
        } else if failure.on_error == OnError::Disable {
            subscriber.hooks &= 1 << EventKind::TEARDOWN.0;
        }
        self.index();
        let event =
            Event::with_texts(EventKind::ERROR, position, [&failure.instance, failure.hook, &failure.fault.message]);
        if failure.on_error == OnError::Stop && self.stopping.is_none() {
            self.stopping = Some(Box::new(failure.clone()));
        }
        self.failures.push(failure);
        event
    }

    /// Fails the author of the round that is one too many. The rounds before it name the loop; what began it is in the
    /// first ones and no part of it.
    fn loop_of_callbacks(&mut self, rounds: &[Vec<Event>]) {
        let pending = rounds.last().map_or(&[] as &[Event], Vec::as_slice);
        let texts = rounds.iter().skip(ROUNDS / 2).flatten().filter_map(|event| match &event.data {
            EventData::Record { author, record } => Some(format!("`{author}` puts the record `{}`", record.name)),
            EventData::Custom { author, name, .. } => Some(format!("`{author}` sends `{name}`")),
            EventData::Texts([kind, _, author]) => Some(format!("`{author}` publishes `{kind}`")),
            _ => None,
        });
        let mut links: Vec<String> = Vec::new();
        for text in texts {
            if !links.contains(&text) {
                links.push(text);
            }
        }
        let message = format!("after {ROUNDS} rounds callbacks still answer each other: {}", links.join(", "));
        let author = pending.iter().find_map(|event| match &event.data {
            EventData::Record { author, .. } | EventData::Custom { author, .. } => Some(Arc::clone(author)),
            _ => None,
        });
        let index = author
            .and_then(|author| self.subscribers.iter().position(|subscriber| subscriber.name == author))
            .unwrap_or(0);
        let fault = Fault { message, panicked: false, place: String::new() };
        let (hook, position) =
            pending.first().map_or((EventKind::CUSTOM, Position::default()), |event| (event.kind, event.position));
        // No `error` event: it would be the ninth round.
        self.record_failure(index, hook, position, fault);
    }

    /// Queues an event for a callback in the background.
    fn send(
        &mut self,
        index: usize,
        event: &Event,
        targets: &[Target],
        shared: &mut Option<Shared>,
        services: &mut dyn Services,
    ) -> Result<(), Fault> {
        let before = self.clock.raw();
        if shared.is_none() {
            *shared = Some(self.share(event, targets, services)?);
        }
        let subscriber = &mut self.subscribers[index];
        if let (Runner::Background(worker), Some(shared)) = (&subscriber.runner, shared) {
            worker.send(event.clone(), shared.clone());
        }
        subscriber.account.wait(self.clock.raw() - before);
        Ok(())
    }

    /// The snapshot that `targets` share for `event`.
    fn share(&mut self, event: &Event, targets: &[Target], services: &mut dyn Services) -> Result<Shared, Fault> {
        let mut needs = SnapshotNeeds::default();
        for target in targets {
            let subscriber = &self.subscribers[target.index];
            let gated = subscriber.gate(event.kind).is_some_and(|gate| !gate.holds(|name| services.metric(name)));
            if subscriber.is_background() && !gated {
                subscriber.needs(event.kind, &mut needs);
            }
        }
        let lease = (!needs.is_empty()).then(|| self.leases.take());
        let answers = services.snapshot(event.kind, &needs).map_err(|error| Fault {
            message: format!("the host could not copy what it needs: {error}"),
            panicked: false,
            place: String::new(),
        })?;
        Ok(Shared { answers, _lease: lease })
    }

    /// Does what other threads asked for since the last event.
    #[inline]
    fn read_mail(&mut self, position: Position, services: &mut dyn Services) {
        while !self.mailbox.is_empty() {
            for letter in self.mailbox.take() {
                self.read_letter(letter, position, services);
            }
        }
    }

    fn read_letter(&mut self, letter: Letter, position: Position, services: &mut dyn Services) {
        let index_of =
            |this: &Self, name: &str| this.subscribers.iter().position(|subscriber| &*subscriber.name == name);
        match letter {
            Letter::Call { instance, hook, service, payload } => {
                let caller = Caller { instance: &instance, hook, position };
                let (mut ignored, mut kept) = (Vec::new(), Vec::new());
                let table = crate::plugins::reply_into(&mut ignored);
                let mut reply = Reply::new(&table, &mut kept);
                let request = Request { payload: &payload, tensors: &[] };
                if let Err(error) = Services::call(services, &caller, service, &request, &mut reply)
                    && let Some(index) = index_of(self, &instance)
                {
                    let message = format!("`{}` asked for in the background: {error}", service.name());
                    let fault = Fault { message, panicked: false, place: String::new() };
                    self.failed(index, hook, position, fault, services);
                }
            }
            Letter::Events(mut events) => {
                for event in &mut events {
                    // A remote does not know where the run is.
                    if event.position == Position::default() {
                        event.position = position;
                    }
                }
                self.deliver_rounds(events, services);
            }
            Letter::Times => self.publish_times(),
            Letter::Fault { instance, hook, fault } => {
                if let Some(index) = index_of(self, &instance) {
                    self.failed(index, hook, position, fault, services);
                }
            }
        }
    }
}
