//! The order of events of the simulated run.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::abi::kinds::EventKind;
use plugin_api::protocol::{Record, RecordValue};

use super::progress::Observer;
use super::services::Simulated;
use super::world::{BATCH, EPOCHS, EVALUATION_BATCHES, STEPS, World};
use crate::dispatch::{Dispatcher, Event, EventData, Failure, HookTime, Order, Planned, SavedState};
use crate::history::{History, Metrics, Position};
use crate::report::Problem;

/// The instance that the simulated run's records and events come from.
const AUTHOR: &str = "another-plugin";

/// What a simulated run showed.
#[derive(Default)]
pub(super) struct Shown {
    /// Every failure.
    pub(super) failures: Vec<Failure>,
    /// The cost of the hooks, without those in the background.
    pub(super) times: Vec<HookTime>,
    /// What `save_state` returned after the first epoch, by instance.
    pub(super) states: BTreeMap<String, SavedState>,
    /// The metrics and history at that point: a checkpoint holds them too.
    pub(super) known: (History, Metrics),
}

/// One run of instances through every event.
pub(super) struct Simulation<'a> {
    dispatcher: Dispatcher,
    services: Simulated,
    /// Events that are left out: a hook that panicked would hide those after it.
    skipped: &'a BTreeSet<EventKind>,
    observer: &'a mut dyn Observer,
    shown: Shown,
}

impl<'a> Simulation<'a> {
    /// Runs `planned` through a whole training, or, after loading `states`, through the rest of one, and
    /// through the events of the other jobs.
    pub(super) fn run(
        planned: Vec<Planned>,
        world: World,
        states: Option<&BTreeMap<String, SavedState>>,
        skipped: &'a BTreeSet<EventKind>,
        observer: &'a mut dyn Observer,
    ) -> Result<Shown, Problem> {
        observer.hook("new");
        let (dispatcher, created) = Dispatcher::create(Order { planned, ..Order::default() });
        let mut simulation =
            Self { dispatcher, services: Simulated::new(world), skipped, observer, shown: Shown::default() };
        match created {
            Err(failure) => simulation.shown.failures.push(*failure),
            Ok(()) => {
                simulation.dispatcher.connect_remotes(&simulation.services);
                simulation.at(EventKind::SETUP);
                // A run gives an instance whose `setup` failed no hook but `teardown`; what it would do in others is
                // no finding.
                if simulation.dispatcher.failures().is_empty() {
                    if let Some(states) = states {
                        simulation.load_states(states);
                    }
                    simulation.begin()?;
                    simulation.training(states.is_some());
                    simulation.other_jobs();
                }
            }
        }
        simulation.at(EventKind::TEARDOWN);
        Ok(simulation.end())
    }

    fn begin(&mut self) -> Result<(), Problem> {
        self.dispatcher.begin().map_err(|error| Problem::new("cannot start a plugin's thread").with_cause(&error))
    }

    fn training(&mut self, resumed: bool) {
        if resumed {
            self.services.position = at_end_of(1);
            // The saved state must equal the loaded one; later hooks may change it.
            self.save_states();
        }
        self.at(EventKind::TRAIN_START);
        for epoch in self.services.position.epoch + 1..=EPOCHS {
            self.epoch(epoch);
            self.messages();
            if !resumed && epoch == 1 {
                self.save_states();
            }
        }
        let (by, why) = self.services.stop.clone().unwrap_or_else(|| ("host".to_owned(), "the check ends".to_owned()));
        self.texts(EventKind::STOPPING, [&by, &why, ""]);
        self.at(EventKind::TRAINED);
        self.texts(EventKind::ERROR, [AUTHOR, "step_end", "simulated by the check"]);
        self.texts(EventKind::TRAIN_END, ["finished", "", ""]);
        self.flush();
        self.dispatcher.close_remotes();
    }

    fn epoch(&mut self, epoch: u64) {
        self.services.position.epoch = epoch;
        self.services.position.step = 0;
        self.at(EventKind::EPOCH_START);
        for step in 1..=STEPS {
            self.services.world.batch = self.services.world.task.batch(self.services.position.global_step);
            self.services.position.step = step;
            self.services.position.global_step += 1;
            self.at(EventKind::STEP_START);
            self.at(EventKind::GRADIENTS);
            self.services.position.samples += BATCH.unsigned_abs();
            self.services.world.after_step(self.services.position);
            self.at(EventKind::STEP_END);
        }
        self.services.world.after_epoch(self.services.position);
        self.at(EventKind::EPOCH_TRAINED);
        self.evaluation();
        self.at(EventKind::EPOCH_END);
        self.texts(EventKind::TRIGGER, ["epoch", "", ""]);
        self.texts(EventKind::CHECKPOINT, [AUTHOR, "simulated by the check", ""]);
        let queued = std::mem::take(&mut self.services.queued);
        for path in if queued.is_empty() { vec!["simulated".to_owned()] } else { queued } {
            self.fire(EventKind::CHECKPOINT_WRITTEN, EventData::Written { path, written: Ok(1) });
        }
    }

    fn evaluation(&mut self) {
        let mut evaluate = |kind, batch| {
            let (mid_epoch, batches) = (false, EVALUATION_BATCHES);
            self.fire(kind, EventData::Evaluation { split: "val".into(), mid_epoch, batch, batches });
        };
        evaluate(EventKind::EVAL_START, 0);
        for batch in 1..=EVALUATION_BATCHES {
            evaluate(EventKind::EVAL_STEP_START, batch);
            evaluate(EventKind::EVAL_STEP_END, batch);
        }
        self.services.world.after_evaluation(self.services.position);
        let end =
            EventData::Evaluation { split: "val".into(), mid_epoch: false, batch: 0, batches: EVALUATION_BATCHES };
        self.fire(EventKind::EVAL_END, end);
    }

    /// Events that other plugins would send.
    fn messages(&mut self) {
        let scalar = RecordValue::Scalar { value: 0.5 };
        let text = RecordValue::Text { text: "simulated by the check".to_owned() };
        let histogram = RecordValue::Histogram { edges: vec![0.0, 0.5, 1.0], counts: vec![3.0, 5.0] };
        for (name, value) in [("check/scalar", scalar), ("check/text", text), ("check/histogram", histogram)] {
            let record = Record { name: name.to_owned(), value }.into();
            self.fire(EventKind::RECORD, EventData::Record { author: AUTHOR.into(), record });
        }
        let custom = EventData::Custom {
            name: "check".to_owned(),
            author: AUTHOR.into(),
            payload: b"simulated".as_slice().into(),
        };
        self.fire(EventKind::CUSTOM, custom);
        self.texts(EventKind::ARTIFACT, ["metrics", "metrics.jsonl", AUTHOR]);
    }

    /// The events of jobs that do not train.
    fn other_jobs(&mut self) {
        let mut predict = |kind, batch| {
            let (mid_epoch, batches) = (false, EVALUATION_BATCHES);
            self.fire(kind, EventData::Evaluation { split: "data".into(), mid_epoch, batch, batches });
        };
        predict(EventKind::PREDICT_START, 0);
        for batch in 1..=EVALUATION_BATCHES {
            predict(EventKind::PREDICT_STEP, batch);
        }
        predict(EventKind::PREDICT_END, 0);
        self.at(EventKind::EXPORT);
    }

    fn at(&mut self, kind: EventKind) {
        self.fire(kind, EventData::None);
    }

    fn texts(&mut self, kind: EventKind, texts: [&str; 3]) {
        self.fire(kind, EventData::Texts(texts.map(str::to_owned)));
    }

    fn fire(&mut self, kind: EventKind, data: EventData) {
        if self.skipped.contains(&kind) || !self.dispatcher.wants(kind) {
            return;
        }
        self.observer.hook(kind.name());
        self.services.show();
        let event = Event { kind, position: self.services.position, data };
        // All failures are read at the end.
        let _ = self.dispatcher.fire(&event, &mut self.services);
    }

    fn save_states(&mut self) {
        if self.skipped.contains(&EventKind::SAVE_STATE) {
            return;
        }
        self.observer.hook(EventKind::SAVE_STATE.name());
        if let Ok(states) = self.dispatcher.save_states(&mut self.services) {
            self.shown.states = states;
            let world = &self.services.world;
            self.shown.known = (world.history.clone(), world.metrics.clone());
        }
    }

    fn load_states(&mut self, states: &BTreeMap<String, SavedState>) {
        if self.skipped.contains(&EventKind::LOAD_STATE) {
            return;
        }
        self.observer.hook(EventKind::LOAD_STATE.name());
        self.services.position = at_end_of(1);
        let _ = self.dispatcher.load_states(states, &mut self.services);
    }

    fn flush(&mut self) {
        let _ = self.dispatcher.flush(&mut self.services);
    }

    fn end(mut self) -> Shown {
        self.flush();
        self.shown.failures.extend(self.dispatcher.failures().iter().cloned());
        self.shown.times = self.dispatcher.times();
        // Dropping the dispatcher drops the instances.
        self.observer.hook("drop");
        drop(self.dispatcher);
        self.observer.hook("");
        self.shown
    }
}

fn at_end_of(epoch: u64) -> Position {
    let global_step = epoch * STEPS;
    Position { epoch, step: STEPS, global_step, samples: global_step * BATCH.unsigned_abs() }
}
