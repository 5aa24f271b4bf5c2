use plugin_api::protocol::TensorSet;
use plugin_api::testing::{FakeHost, Value, json};
use plugin_api::{EventKind, Tensor};

use super::*;

fn put(host: &mut FakeHost, weight: f32) {
    host.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[2], &[weight, -weight]).unwrap());
    host.put_tensor(TensorSet::Buffers, Tensor::new("mean", &[1], &[10.0 * weight]).unwrap());
    host.put_tensor(TensorSet::Buffers, Tensor::new("count", &[1], &[weight as i64]).unwrap());
}

fn host(options: Value, weight: f32) -> FakeHost {
    let mut host = FakeHost::new::<Ema>(options).unwrap();
    put(&mut host, weight);
    host
}

/// Trains a step after which the weights are `weight`.
fn step(host: &mut FakeHost, step: u64, weight: f32) {
    put(host, weight);
    host.step_end(step).unwrap();
}

fn number(host: &FakeHost, set: TensorSet, name: &str) -> f32 {
    host.tensor(&set, name).unwrap().view().to_vec::<f32>().unwrap()[0]
}

fn weight(host: &FakeHost) -> f32 {
    number(host, TensorSet::Parameters, "weight")
}

fn count(host: &FakeHost) -> i64 {
    host.tensor(&TensorSet::Buffers, "count").unwrap().view().to_vec::<i64>().unwrap()[0]
}

#[test]
fn the_run_ends_with_the_average_of_its_steps() {
    let mut host = host(json!({ "decay": 0.5, "warm_up": false }), 0.0);
    host.train_start().unwrap();
    step(&mut host, 1, 4.0);
    step(&mut host, 2, 8.0);
    assert_eq!(weight(&host), 8.0, "training goes on from its own weights");
    host.trained().unwrap();
    // 0 → 2 → 5; the statistics with them, and the counter as it is.
    assert_eq!((weight(&host), number(&host, TensorSet::Buffers, "mean"), count(&host)), (5.0, 50.0, 8));
}

#[test]
fn a_warm_up_forgets_the_first_weights() {
    let mut host = host(json!({}), 100.0);
    host.train_start().unwrap();
    step(&mut host, 1, 0.0);
    step(&mut host, 2, 0.0);
    host.trained().unwrap();
    let expected = 100.0 * (1.0 / 10.0) * (2.0 / 11.0);
    assert!((weight(&host) - expected).abs() < 1e-5, "{}", weight(&host));
}

#[test]
fn a_warm_up_ends_at_the_decay() {
    let options = Options { decay: 0.9, ..Options::default() };
    assert_eq!([0, 1, 1000].map(|update| options.decay_at(update)), [0.1, 2.0 / 11.0, 0.9]);
}

#[test]
fn steps_between_two_updates_do_not_count_and_epochs_do_nothing() {
    let mut host = host(json!({ "decay": 0.5, "warm_up": false, "every_steps": 2 }), 0.0);
    host.train_start().unwrap();
    for (number, weight) in [(1, 100.0), (2, 8.0), (3, 100.0)] {
        step(&mut host, number, weight);
    }
    host.epoch_end(1).unwrap();
    host.trigger("epoch").unwrap();
    host.trained().unwrap();
    assert_eq!(weight(&host), 4.0);
}

#[test]
fn an_evaluation_sees_the_average_and_the_training_does_not() {
    let mut host = host(json!({ "decay": 0.5, "warm_up": false }), 0.0);
    host.train_start().unwrap();
    step(&mut host, 1, 4.0);
    host.evaluation(EventKind::EVAL_START, "val", 0, 2).unwrap();
    assert_eq!((weight(&host), number(&host, TensorSet::Buffers, "mean"), count(&host)), (2.0, 20.0, 4));
    host.evaluation(EventKind::EVAL_END, "val", 0, 2).unwrap();
    assert_eq!((weight(&host), number(&host, TensorSet::Buffers, "mean")), (4.0, 40.0));
    assert_eq!(host.tensor(&TensorSet::Copy("ema-own".to_owned()), "weight"), None);
}

#[test]
fn the_evaluation_after_the_end_sees_the_weights_of_the_end() {
    let mut host = host(json!({ "decay": 0.5, "warm_up": false }), 0.0);
    host.train_start().unwrap();
    step(&mut host, 1, 4.0);
    host.trained().unwrap();
    assert_eq!(weight(&host), 2.0);
    // Another callback ends the run with other weights.
    put(&mut host, 7.0);
    host.evaluation(EventKind::EVAL_START, "test", 0, 2).unwrap();
    assert_eq!(weight(&host), 7.0);
}

#[test]
fn what_is_turned_off_is_not_done() {
    let options = json!({ "decay": 0.5, "warm_up": false, "buffers": false, "evaluate": false, "swap_at_end": false });
    let mut off = host(options, 0.0);
    off.train_start().unwrap();
    step(&mut off, 1, 4.0);
    off.evaluation(EventKind::EVAL_START, "val", 0, 2).unwrap();
    assert_eq!(weight(&off), 4.0);
    off.trained().unwrap();
    assert_eq!(weight(&off), 4.0);

    let mut without_buffers = host(json!({ "decay": 0.5, "warm_up": false, "buffers": false }), 0.0);
    without_buffers.train_start().unwrap();
    step(&mut without_buffers, 1, 4.0);
    without_buffers.trained().unwrap();
    let mean = number(&without_buffers, TensorSet::Buffers, "mean");
    assert_eq!((weight(&without_buffers), mean), (2.0, 40.0));
}

#[test]
fn a_resumed_average_is_that_of_an_unbroken_run() {
    let weights: Vec<f32> = (1..=6).map(|step| (step as f32).sin()).collect();
    let train = |host: &mut FakeHost, steps: std::ops::Range<usize>| {
        host.train_start().unwrap();
        for index in steps {
            step(host, index as u64 + 1, weights[index]);
        }
    };
    let mut unbroken = host(json!({}), 0.3);
    train(&mut unbroken, 0..6);
    let mut first = host(json!({}), 0.3);
    train(&mut first, 0..3);
    let mut resumed = host(json!({}), weights[2]);
    resumed.load_state(&first.save_state().unwrap()).unwrap();
    train(&mut resumed, 3..6);
    assert_eq!(resumed.save_state().unwrap(), unbroken.save_state().unwrap());
    unbroken.trained().unwrap();
    resumed.trained().unwrap();
    assert_eq!(weight(&resumed).to_bits(), weight(&unbroken).to_bits());
    assert_ne!(weight(&resumed), weights[5]);
}

#[test]
fn the_average_of_another_model_is_refused() {
    let mut first = host(json!({}), 1.0);
    first.train_start().unwrap();
    let mut other = host(json!({}), 1.0);
    other.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[3], &[1.0f32; 3]).unwrap());
    other.load_state(&first.save_state().unwrap()).unwrap();
    let error = other.train_start().unwrap_err();
    assert!(error.message().contains("average of `weight` has 8 bytes"), "{error}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [json!({ "decay": 1.0 }), json!({ "decay": -0.1 }), json!({ "every_steps": 0 })] {
        assert!(FakeHost::new::<Ema>(options).is_err());
    }
}
