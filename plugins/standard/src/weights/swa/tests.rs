use plugin_api::testing::{FakeHost, Value, json};
use plugin_api::{EventKind, Tensor};

use super::*;

/// A run of 8 epochs.
fn host(options: Value) -> FakeHost {
    let mut host = FakeHost::new::<Swa>(options).unwrap().with_info(|info| {
        info.epochs = 8;
        info.total_steps = 80;
    });
    host.put_hyper_parameter("all", LEARNING_RATE, 1.0);
    put(&mut host, 0.0);
    host
}

fn put(host: &mut FakeHost, weight: f32) {
    host.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[1], &[weight]).unwrap());
    host.put_tensor(TensorSet::Buffers, Tensor::new("mean", &[1], &[weight]).unwrap());
}

/// Trains some epochs, each of which ends with the weights `of` it.
fn train(host: &mut FakeHost, epochs: std::ops::RangeInclusive<u64>, of: impl Fn(u64) -> f32) {
    host.train_start().unwrap();
    for epoch in epochs {
        host.epoch_start(epoch).unwrap();
        put(host, of(epoch));
        host.epoch_trained(epoch).unwrap();
        host.epoch_end(epoch).unwrap();
        host.trigger("epoch").unwrap();
    }
}

fn number(host: &FakeHost, set: TensorSet, name: &str) -> f32 {
    host.tensor(&set, name).unwrap().view().to_vec::<f32>().unwrap()[0]
}

fn weight(host: &FakeHost) -> f32 {
    number(host, TensorSet::Parameters, "weight")
}

#[test]
fn the_run_ends_with_the_equal_average_from_the_start_on() {
    let average_from = |start: Value| {
        let mut host = host(json!({ "start": start }));
        train(&mut host, 1..=8, |epoch| (epoch * epoch) as f32);
        assert_eq!(weight(&host), 64.0, "training goes on from its own weights");
        host.trained().unwrap();
        weight(&host)
    };
    let mean = |first: u64| (first..=8).map(|epoch| (epoch * epoch) as f32).sum::<f32>() / (9 - first) as f32;
    for (start, first) in
        [(json!(0.75), 7), (json!(0.5), 5), (json!(6), 6), (json!(8.0), 8), (json!(0), 1), (json!(1), 1)]
    {
        let average = average_from(start.clone());
        assert!((average - mean(first)).abs() < 1e-4, "{start}: {average}, not {}", mean(first));
    }
}

#[test]
fn a_plan_in_steps_has_shares_too() {
    let info = |total_steps| RunInfo { steps_per_epoch: 10, total_steps, ..RunInfo::default() };
    let first = |start, total_steps| Options { start, ..Options::default() }.first_epoch(&info(total_steps));
    assert_eq!([first(0.75, 80), first(0.75, 85), first(0.75, 5)], [7, 7, 1]);
}

#[test]
fn statistics_are_estimated_once_for_the_average_over_the_whole_training_split() {
    let mut host = host(json!({ "start": 7 }));
    train(&mut host, 1..=8, |epoch| epoch as f32);
    assert!(host.recalibrations().is_empty());
    host.trained().unwrap();
    host.trigger("end").unwrap();
    let [asked] = host.recalibrations() else { panic!("{:?}", host.recalibrations()) };
    assert_eq!((asked.split.as_str(), asked.batches), ("train", u64::MAX));
    // Averages of statistics are the statistics of nothing.
    assert_eq!((weight(&host), number(&host, TensorSet::Buffers, "mean")), (7.5, 8.0));
}

#[test]
fn weights_count_once() {
    let mut host = host(json!({ "start": 1 }));
    train(&mut host, 1..=1, |_| 4.0);
    host.trigger("at").unwrap();
    host.set_position(2, 20);
    put(&mut host, 8.0);
    host.trigger("epoch").unwrap();
    host.trained().unwrap();
    assert_eq!(weight(&host), 6.0);
}

#[test]
fn the_learning_rate_goes_to_its_goal_and_stays() {
    let rates = |options: Value| {
        let mut host = host(options);
        host.train_start().unwrap();
        let mut rates = Vec::new();
        for epoch in 1..=8 {
            host.epoch_start(epoch).unwrap();
            rates.push(host.hyper_parameter(LEARNING_RATE).unwrap());
        }
        rates
    };
    let annealed = rates(json!({ "start": 3, "learning_rate": 0.2, "anneal_epochs": 4 }));
    let expected = [1.0, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2];
    assert!(annealed.iter().zip(expected).all(|(rate, expected)| (rate - expected).abs() < 1e-12), "{annealed:?}");
    assert_eq!(rates(json!({ "start": 8, "learning_rate": 0.2, "anneal_epochs": 0 }))[6..], [1.0, 0.2]);
    assert_eq!(rates(json!({ "start": 1 })), [1.0; 8]);
}

#[test]
fn a_resumed_run_ends_as_an_unbroken_one() {
    let of = |epoch: u64| (epoch as f32).sin();
    let options = json!({ "start": 3, "learning_rate": 0.2, "anneal_epochs": 4 });
    let mut unbroken = host(options.clone());
    train(&mut unbroken, 1..=8, of);
    for broken in 1..8 {
        let mut first = host(options.clone());
        train(&mut first, 1..=broken, of);
        let mut resumed = host(options.clone());
        resumed.put_hyper_parameter("all", LEARNING_RATE, first.hyper_parameter(LEARNING_RATE).unwrap());
        put(&mut resumed, of(broken));
        resumed.load_state(&first.save_state().unwrap()).unwrap();
        train(&mut resumed, broken + 1..=8, of);
        assert_eq!(resumed.save_state().unwrap(), unbroken.save_state().unwrap(), "broken after {broken}");
        assert_eq!(resumed.hyper_parameter(LEARNING_RATE), unbroken.hyper_parameter(LEARNING_RATE));
    }
}

#[test]
fn a_run_that_is_extended_does_not_begin_again() {
    let mut first = host(json!({ "start": 0.5 }));
    train(&mut first, 1..=5, |epoch| epoch as f32);
    let mut extended = host(json!({ "start": 0.5 })).with_info(|info| info.total_steps = 200);
    extended.load_state(&first.save_state().unwrap()).unwrap();
    train(&mut extended, 6..=6, |epoch| epoch as f32);
    extended.trained().unwrap();
    assert_eq!(weight(&extended), 5.5);
}

#[test]
fn a_start_after_the_end_is_a_warning_and_changes_nothing() {
    let mut host = host(json!({ "start": 9 }));
    train(&mut host, 1..=8, |epoch| epoch as f32);
    assert!(host.logs()[0].contains("the run ends before epoch 9"), "{:?}", host.logs());
    host.trained().unwrap();
    assert_eq!((weight(&host), host.recalibrations().len()), (8.0, 0));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for options in [json!({ "start": -1 }), json!({ "start": 2.5 }), json!({ "learning_rate": 0 })] {
        assert!(FakeHost::new::<Swa>(options).is_err());
    }
    assert!(host(json!({})).subscribes(EventKind::TRIGGER));
}
