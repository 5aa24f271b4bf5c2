//! States of callbacks as checkpoints hold them, damaged: a checkpoint may be a stranger's.

use std::cell::RefCell;

use fuzzing::{Counting, fuzz};
use plugin_api::Callback;
use plugin_api::testing::{FakeHost, json};

use crate::checks::spike_detection::SpikeDetection;
use crate::control::early_stopping::EarlyStopping;
use crate::control::time_limit::TimeLimit;
use crate::files::csv::Csv;
use crate::files::json_lines::JsonLines;
use crate::hyper_parameters::lr_schedule::LrSchedule;
use crate::hyper_parameters::reduce_on_plateau::ReduceOnPlateau;
use crate::measures::moving_average::MovingAverage;
use crate::weights::gradient_clip::GradientClip;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A kind that saves a state.
struct Saved {
    make: fn() -> FakeHost,
    state: Vec<u8>,
}

fn host<T: Callback>(options: serde_json::Value) -> FakeHost {
    let mut host = FakeHost::new::<T>(options).unwrap().with_info(|info| {
        info.total_steps = 100;
        info.steps_per_epoch = 10;
        info.data.splits = [("train".to_owned(), 100), ("val".to_owned(), 20)].into();
    });
    measure(&mut host, 1.0);
    host
}

fn measure(host: &mut FakeHost, loss: f64) {
    host.put_metric("val_loss", loss);
    host.put_metric("train_loss", loss);
}

/// Trains an epoch of a step, after a start; an error is an answer, and the panic of a hook is none.
fn train(host: &mut FakeHost, epoch: u64) {
    measure(host, 1.0 / epoch as f64);
    for done in [host.train_start(), host.step_end(epoch * 10), host.epoch_end(epoch)] {
        if let Err(error) = done {
            assert!(!error.message().contains("panicked"), "{error}");
        }
    }
}

fn saved(make: fn() -> FakeHost) -> Saved {
    let mut host = make();
    for epoch in 1..4 {
        train(&mut host, epoch);
    }
    Saved { make, state: host.save_state().unwrap() }
}

#[test]
fn states() {
    let kinds = [
        saved(|| host::<EarlyStopping>(json!({}))),
        saved(|| host::<ReduceOnPlateau>(json!({}))),
        saved(|| host::<TimeLimit>(json!({ "limit": "1 h" }))),
        saved(|| host::<MovingAverage>(json!({ "metrics": ["*"] }))),
        saved(|| host::<SpikeDetection>(json!({}))),
        saved(|| host::<LrSchedule>(json!({ "points": [[1, 0.5], [3, 0.1]] }))),
        saved(|| host::<GradientClip>(json!({}))),
        saved(|| host::<JsonLines>(json!({ "every_steps": 5 }))),
        saved(|| host::<Csv>(json!({ "every_steps": 5 }))),
    ];
    let seeds: Vec<Vec<u8>> = kinds.iter().map(|kind| kind.state.clone()).collect();
    let turn = RefCell::new(kinds.iter().cycle());
    fuzz("plugin state", &seeds, |state| {
        // Each seed is that of the kind whose turn it is; a state of another kind is damage, too.
        let Some(kind) = turn.borrow_mut().next() else { return false };
        let mut host = (kind.make)();
        host.set_position(3, 30);
        match host.load_state(state) {
            Ok(()) => {
                train(&mut host, 4);
                let _ = host.save_state().map_err(|error| assert!(!error.message().contains("panicked"), "{error}"));
                true
            }
            Err(error) => {
                assert!(!error.message().contains("panicked"), "{error}");
                false
            }
        }
    });
}
