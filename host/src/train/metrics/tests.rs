//! Metrics against scikit-learn, and what holds for all of them.

use proptest::prelude::*;
use serde_json::Value;
use tch::{Kind, Tensor};

use super::*;
use crate::report::Report;
use crate::train::figures;

/// A metric's numbers and scikit-learn's; `None` if it has no value.
#[derive(Debug, PartialEq)]
struct Measured {
    name: String,
    found: Option<Vec<f64>>,
    expected: Option<Vec<f64>>,
}

/// The metrics of `expected` over the batches, with a checkpoint after `interrupted` of them.
fn measured(case: &Value, interrupted: usize) -> Vec<Measured> {
    let expected = case["expected"].as_object().unwrap();
    let measure = |(name, expected): (&String, &Value)| {
        let metric = Metric::from_name(name).unwrap();
        let mut accumulator = metric.accumulator();
        for (index, batch) in case["batches"].as_array().unwrap().iter().enumerate() {
            if index == interrupted {
                let written = serde_json::to_string(&accumulator.state().unwrap()).unwrap();
                accumulator = metric.accumulator();
                accumulator.restore(&serde_json::from_str(&written).unwrap()).unwrap();
            }
            let tensor = |part: usize| {
                let rows = batch[part].as_array().unwrap();
                let numbers = Tensor::from_slice(&figures::numbers(&batch[part]));
                match rows[0].as_array() {
                    Some(_) => numbers.reshape([rows.len() as i64, -1]).to_kind(Kind::Float),
                    None => numbers.to_kind(Kind::Int64),
                }
            };
            accumulator.add(&tensor(0), &tensor(1)).unwrap();
        }
        let found = accumulator.value().unwrap().map(|value| match value {
            MetricValue::Number(number) => vec![number],
            MetricValue::Array { values, .. } => values.into_iter().map(f64::from).collect(),
        });
        let expected = (!expected.is_null()).then(|| figures::numbers(expected));
        Measured { name: name.clone(), found, expected }
    };
    expected.iter().map(measure).collect()
}

fn compare(family: &str, tolerance: impl Fn(&str) -> f64) {
    for case in figures::scikit_learn()[family].as_array().unwrap() {
        for Measured { name, found, expected } in measured(case, usize::MAX) {
            let place = format!("{name} of {}: {found:?} {expected:?}", case["name"]);
            assert_eq!(found.as_ref().map(Vec::len), expected.as_ref().map(Vec::len), "{place}");
            let pairs = found.into_iter().flatten().zip(expected.into_iter().flatten());
            for (found, expected) in pairs {
                assert!((found - expected).abs() <= tolerance(&name) * expected.abs().max(1.0), "{place}");
            }
        }
    }
}

#[test]
fn metrics_of_classes_are_those_of_scikit_learn() {
    // The log-likelihoods are summed in f32.
    compare("classification", |name| if name == "perplexity" { 1e-6 } else { 1e-12 });
}

#[test]
fn metrics_of_numbers_are_those_of_scikit_learn() {
    compare("regression", |_| 1e-9);
}

#[test]
fn the_positive_class_may_be_the_first_one() {
    let case = &figures::scikit_learn()["positive"];
    let [outputs, targets] = [0, 1].map(|part| figures::numbers(&case["batch"][part]));
    let outputs = Tensor::from_slice(&outputs).reshape([-1, 2]).to_kind(Kind::Float);
    let targets = Tensor::from_slice(&targets).to_kind(Kind::Int64);
    for positive in [0, 1] {
        for (name, expected) in case["expected"][usize::from(positive)].as_object().unwrap() {
            let mut accumulator = Metric::from_name(name).unwrap().of_class(positive).accumulator();
            accumulator.add(&outputs, &targets).unwrap();
            let expected = MetricValue::Number(expected.as_f64().unwrap());
            assert_eq!(accumulator.value(), Ok(Some(expected)), "{name} of {positive}");
        }
    }
}

#[test]
fn outputs_that_differ_little_are_ranked_in_f64() {
    // The probabilities of class 0 are 1 as f32, whichever sample it is.
    let outputs = Tensor::from_slice2(&[[30.0f32, 0.0, 0.0], [29.0, 0.0, 0.0], [28.0, 0.0, 0.0], [27.0, 0.0, 0.0]]);
    let mut auc = Metric::Auc.accumulator();
    auc.add(&outputs, &Tensor::from_slice(&[0i64, 0, 1, 1])).unwrap();
    // For class 0 all pairs are in order; for class 1, too: its probability rises where that of class 0 falls.
    assert_eq!(auc.value(), Ok(Some(MetricValue::Number(1.0))));
}

#[test]
fn a_restored_metric_goes_on_bit_for_bit() {
    let figures = figures::scikit_learn();
    for case in ["classification", "regression"].iter().flat_map(|family| figures[*family].as_array().unwrap()) {
        let unbroken = measured(case, usize::MAX);
        for interrupted in 0..2 {
            assert_eq!(measured(case, interrupted), unbroken, "{}", case["name"]);
        }
    }
}

#[test]
fn a_state_of_another_metric_is_refused() {
    let state = |metric: Metric| {
        let mut accumulator = metric.accumulator();
        let (outputs, targets) = if metric == Metric::Mae {
            (Tensor::from_slice2(&[[1.0f32]]), Tensor::from_slice2(&[[0.5f32]]))
        } else {
            (Tensor::from_slice2(&[[1.0f32, 2.0, 3.0]]), Tensor::from_slice(&[2i64]))
        };
        accumulator.add(&outputs, &targets).unwrap();
        accumulator.state().unwrap()
    };
    for (metric, other) in [
        (Metric::Accuracy, Metric::F1(Averaging::USUAL)),
        (Metric::TopKError(2), Metric::Mae),
        (Metric::ConfusionMatrix, Metric::Accuracy),
        (Metric::Auc, Metric::Mae),
        (Metric::Perplexity, Metric::Accuracy),
        (Metric::R2, Metric::F1(Averaging::USUAL)),
    ] {
        let refused = metric.accumulator().restore(&state(other));
        assert_eq!(refused, Err(MetricError::State { metric: metric.name() }), "{metric:?} {other:?}");
    }
}

#[test]
fn names_lead_to_their_metrics() {
    let others =
        [Metric::TopKError(1), Metric::TopKError(12), Metric::F1(Averaging::Micro), Metric::Recall(Averaging::Macro)];
    for metric in Metric::ALL.iter().copied().chain(others) {
        assert_eq!(Metric::from_name(&metric.name()), Some(metric));
        assert_eq!(metric.accumulator().value(), Ok(None));
    }
    for name in [
        "",
        "loss",
        "top_error",
        "top0_error",
        "top05_error",
        "top+5_error",
        "top-1_error",
        "Accuracy",
        "f1_",
        "_macro",
        "auc_macro",
    ] {
        assert_eq!(Metric::from_name(name), None, "{name}");
    }
}

#[test]
fn metrics_fit_the_data_and_the_model() {
    let numbers = Target::Values { names: vec!["y".to_owned()], within_unit: false };
    for metric in Metric::ALL.iter().copied() {
        let fits = (metric.check(&[10], &Target::classes(10)), metric.check(&[1], &numbers));
        assert!(fits.0.is_ok() != fits.1.is_ok(), "{metric:?}");
    }
    for (metric, shape, target, message) in [
        (Metric::Mae, [10], Target::classes(10), "the metric `mae` takes numbers, but the data has classes"),
        (Metric::F1(Averaging::USUAL), [1], numbers, "the metric `f1` takes classes, but the data has numbers"),
        (
            Metric::TopKError(3),
            [3],
            Target::classes(3),
            "the metric `top3_error` takes more classes than it counts, but the data has 3 classes",
        ),
        (
            Metric::Perplexity,
            [1],
            Target::classes(2),
            "the metric `perplexity` takes an output for each class, but the model has one for both",
        ),
    ] {
        let error = metric.check(&shape, &target).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.hint().is_some());
    }
}

#[test]
fn each_position_counts_as_a_sample() {
    let outputs = Tensor::from_slice(&[2.0f32, 0.0, 0.0, 1.0, 0.0, 1.0, 3.0, 0.0]).reshape([2, 2, 2]);
    let targets = Tensor::from_slice(&[0i64, 1, 0, 0]).reshape([2, 2]);
    for metric in
        [Metric::Accuracy, Metric::Recall(Averaging::USUAL), Metric::Perplexity, Metric::Auc, Metric::TopKError(1)]
    {
        let (mut whole, mut flat) = (metric.accumulator(), metric.accumulator());
        whole.add(&outputs, &targets).unwrap();
        flat.add(&outputs.reshape([4, 2]), &targets.reshape([4])).unwrap();
        assert_eq!(whole.value(), flat.value());
    }
    let mut accuracy = Metric::Accuracy.accumulator();
    accuracy.add(&outputs, &targets).unwrap();
    assert_eq!(accuracy.value(), Ok(Some(MetricValue::Number(0.75))));
}

#[test]
fn an_area_has_no_value_where_a_score_is_no_number() {
    let mut auc = Metric::Auc.accumulator();
    auc.add(&Tensor::from_slice2(&[[0.0f32, f32::NAN], [1.0, 0.0]]), &Tensor::from_slice(&[0i64, 1])).unwrap();
    assert_eq!(auc.value(), Ok(None));
}

fn output() -> impl Strategy<Value = f32> {
    // Few values, so that ties are common.
    prop::sample::select(vec![-1.0f32, 0.0, 0.5, 2.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
}

proptest! {
    #[test]
    fn predictions_are_those_of_torch(
        rows in prop::collection::vec((prop::array::uniform4(output()), 0i64..4), 1..30),
    ) {
        let outputs = Tensor::from_slice2(&rows.iter().map(|(row, _)| *row).collect::<Vec<_>>());
        let targets = Tensor::from_slice(&rows.iter().map(|(_, target)| *target).collect::<Vec<_>>());
        let expected = outputs.argmax(-1, false).eq_tensor(&targets).to_kind(Kind::Double).mean(Kind::Double);
        let mut accuracy = Metric::Accuracy.accumulator();
        accuracy.add(&outputs, &targets).unwrap();
        let MetricValue::Number(found) = accuracy.value().unwrap().unwrap() else { unreachable!() };
        prop_assert!((found - expected.double_value(&[])).abs() < 1e-12);
        // A tensor that is not contiguous is copied first.
        let mut strided = Metric::Accuracy.accumulator();
        strided.add(&outputs.tr().contiguous().tr(), &targets).unwrap();
        prop_assert_eq!(strided.value(), accuracy.value());
    }

    #[test]
    fn how_samples_are_batched_makes_no_difference(
        rows in prop::collection::vec((prop::array::uniform3(-3i8..3), 0i64..3), 2..30),
        cut in any::<prop::sample::Index>(),
    ) {
        let outputs = Tensor::from_slice2(&rows.iter().map(|(row, _)| row.map(f32::from)).collect::<Vec<_>>());
        let targets = Tensor::from_slice(&rows.iter().map(|(_, target)| *target).collect::<Vec<_>>());
        let (count, cut) = (rows.len() as i64, cut.index(rows.len()) as i64);
        for metric in [Metric::Accuracy, Metric::TopKError(2), Metric::F1(Averaging::USUAL), Metric::Auc, Metric::ConfusionMatrix] {
            let (mut whole, mut parts) = (metric.accumulator(), metric.accumulator());
            whole.add(&outputs, &targets).unwrap();
            for (start, size) in [(0, cut), (cut, count - cut)] {
                parts.add(&outputs.narrow(0, start, size), &targets.narrow(0, start, size)).unwrap();
            }
            prop_assert_eq!(whole.value(), parts.value());
        }
    }
}
