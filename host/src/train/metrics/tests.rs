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
fn a_state_of_other_outputs_is_not_merged() {
    let state = |metric: Metric, outputs: &Tensor, targets: &Tensor| {
        let mut accumulator = metric.accumulator();
        accumulator.add(outputs, targets).unwrap();
        (accumulator.state().unwrap(), accumulator)
    };
    let class = Tensor::from_slice(&[1i64]);
    for metric in [Metric::F1(Averaging::Micro), Metric::ConfusionMatrix, Metric::Auc, Metric::Mae] {
        let is_of_numbers = metric == Metric::Mae;
        let [two, three] = [&[[0.5f32, 1.0]][..], &[[0.5f32, 1.0], [2.0, 3.0]][..]].map(Tensor::from_slice2);
        let three = three.flatten(0, -1).narrow(0, 0, 3).unsqueeze(0);
        let of = |outputs: &Tensor| state(metric, outputs, if is_of_numbers { outputs } else { &class });
        let ((before, mut accumulator), (other, _)) = (of(&two), of(&three));
        assert_eq!(accumulator.merge(&other), Err(MetricError::Merge { metric: metric.name() }));
        assert_eq!(accumulator.state(), Ok(before), "unchanged");
    }
    let full = AccumulatorState { counts: vec![u64::MAX, u64::MAX], ..AccumulatorState::default() };
    for metric in [Metric::Accuracy, Metric::TopKError(1)] {
        let (_, mut accumulator) = state(metric, &Tensor::from_slice2(&[[1.0f32, 2.0]]), &class);
        assert_eq!(accumulator.merge(&full), Err(MetricError::Merge { metric: metric.name() }));
        let other = state(Metric::Mae, &Tensor::from_slice2(&[[1.0f32]]), &Tensor::from_slice2(&[[0.5f32]])).0;
        assert_eq!(accumulator.merge(&other), Err(MetricError::State { metric: metric.name() }));
    }
}

#[test]
fn a_batch_without_samples_adds_nothing() {
    for metric in Metric::ALL.iter().copied() {
        let of_numbers = matches!(metric, Metric::Mae | Metric::Rmse | Metric::R2);
        let kind = if of_numbers { Kind::Float } else { Kind::Int64 };
        let shapes: [(&[i64], &[i64]); 2] = match of_numbers {
            true => [(&[2, 3], &[2, 3]), (&[2, 1], &[2, 1])],
            false => [(&[2, 3], &[2]), (&[2, 5, 3], &[2, 5])],
        };
        for (outputs, targets) in shapes {
            let outputs = Tensor::rand(outputs, (Kind::Float, tch::Device::Cpu));
            let targets = Tensor::ones(targets, (kind, tch::Device::Cpu));
            let (mut accumulator, mut alone) = (metric.accumulator(), metric.accumulator());
            let add_nothing = |accumulator: &mut Accumulator| {
                accumulator.add(&outputs.narrow(0, 1, 0), &targets.narrow(0, 1, 0)).unwrap();
            };
            add_nothing(&mut accumulator);
            assert_eq!(accumulator.value(), Ok(None), "{metric:?}");
            for accumulator in [&mut accumulator, &mut alone] {
                accumulator.add(&outputs, &targets).unwrap();
            }
            add_nothing(&mut accumulator);
            assert_eq!(accumulator.state(), alone.state(), "{metric:?}");
        }
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

/// `rows` cut at `cuts` into parts, some of which may be empty.
fn parts<T: Clone>(rows: &[T], cuts: &[prop::sample::Index]) -> Vec<Vec<T>> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(rows.len() + 1)).chain([0, rows.len()]).collect();
    ends.sort_unstable();
    ends.windows(2).map(|ends| rows[ends[0]..ends[1]].to_vec()).collect()
}

/// The states of the metric over all `batches` one after another, and over each of them alone and merged.
fn whole_and_merged(metric: Metric, batches: &[(Tensor, Tensor)]) -> [(AccumulatorState, Option<MetricValue>); 2] {
    let (mut whole, mut merged) = (metric.accumulator(), metric.accumulator());
    for (outputs, targets) in batches {
        whole.add(outputs, targets).unwrap();
        let mut part = metric.accumulator();
        part.add(outputs, targets).unwrap();
        merged.merge(&part.state().unwrap()).unwrap();
    }
    [whole, merged].map(|mut accumulator| (accumulator.state().unwrap(), accumulator.value().unwrap()))
}

fn are_close(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-12 * other.abs().max(1.0)
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
    fn merged_metrics_of_classes_are_those_of_the_whole(
        rows in prop::collection::vec((prop::array::uniform3(-40i8..40), 0i64..3), 0..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let batch = |rows: Vec<([i8; 3], i64)>| {
            let outputs: Vec<f32> = rows.iter().flat_map(|(row, _)| row.map(|value| f32::from(value) / 8.0)).collect();
            let targets: Vec<i64> = rows.iter().map(|(_, target)| *target).collect();
            (Tensor::from_slice(&outputs).reshape([rows.len() as i64, 3]), Tensor::from_slice(&targets))
        };
        let batches: Vec<_> = parts(&rows, &cuts).into_iter().map(batch).collect();
        let averaged = Averaging::ALL.into_iter().flat_map(|averaging| {
            [Metric::Precision(averaging), Metric::Recall(averaging), Metric::F1(averaging)]
        });
        let others = [Metric::Accuracy, Metric::TopKError(2), Metric::Auc, Metric::ConfusionMatrix];
        for metric in averaged.chain(others) {
            let [whole, merged] = whole_and_merged(metric, &batches);
            prop_assert_eq!(merged, whole, "{:?}", metric);
        }
        let [(whole, whole_value), (merged, merged_value)] = whole_and_merged(Metric::Perplexity, &batches);
        prop_assert_eq!(merged.counts, whole.counts);
        prop_assert!(are_close(merged.sums[0].0, whole.sums[0].0));
        prop_assert_eq!(merged_value.is_some(), whole_value.is_some());
    }

    #[test]
    fn merged_metrics_of_numbers_are_those_of_the_whole(
        rows in prop::collection::vec(prop::array::uniform4(-1000i16..1000), 0..30),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let batch = |rows: Vec<[i16; 4]>| {
            let half = |first: usize| {
                let numbers = rows.iter().flat_map(|row| [row[first], row[first + 1]]);
                let numbers: Vec<f32> = numbers.map(|number| f32::from(number) / 16.0).collect();
                Tensor::from_slice(&numbers).reshape([rows.len() as i64, 2])
            };
            (half(0), half(2))
        };
        let batches: Vec<_> = parts(&rows, &cuts).into_iter().map(batch).collect();
        for metric in [Metric::Mae, Metric::Rmse, Metric::R2] {
            let [(whole, whole_value), (merged, merged_value)] = whole_and_merged(metric, &batches);
            prop_assert_eq!(merged.counts, whole.counts);
            prop_assert_eq!(merged.sums.len(), whole.sums.len());
            prop_assert!(merged.sums.iter().zip(&whole.sums).all(|(merged, whole)| are_close(merged.0, whole.0)));
            match (merged_value, whole_value) {
                (Some(MetricValue::Number(merged)), Some(MetricValue::Number(whole))) => {
                    prop_assert!((merged - whole).abs() <= 1e-10 * whole.abs().max(1.0), "{} {}", merged, whole);
                }
                (merged, whole) => prop_assert_eq!(merged, whole),
            }
        }
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
