use proptest::prelude::*;
use tch::{Device, Kind, Reduction};

use super::*;
use crate::torch::products::{self, Products};

/// Large enough that a row of almost the same numbers has no gradients of hundreds, of which little is left.
const EPS: f64 = 1e-2;

fn numbers(shape: &[i64], seed: f64, scale: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7 + seed).sin() * scale).reshape(shape)
}

fn leaf(shape: &[i64], seed: f64, scale: f64, learns: bool) -> Tensor {
    numbers(shape, seed, scale).set_requires_grad(learns)
}

/// The same in f64, as libtorch gets it.
fn exact(leaf: &Tensor) -> Tensor {
    leaf.detach().to_kind(Kind::Double).set_requires_grad(leaf.requires_grad())
}

/// The output, and the gradients of those leaves that learn, of a weighted sum of it.
fn with_gradients(output: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
    let learning: Vec<&Tensor> = leaves.iter().copied().filter(|leaf| leaf.requires_grad()).collect();
    let mut all = vec![output.detach()];
    if !learning.is_empty() {
        let loss = (output * numbers(&output.size(), 0.9, 1.0).to_kind(output.kind())).sum(None);
        all.extend(Tensor::run_backward(&[loss], &learning, false, false));
    }
    all
}

/// Computes from leaves by the kernels of the processor, twice, and by the plain ones, and compares with libtorch in f64.
/// No sum has more than `summands` terms: each may be rounded by 2^-24 of their size, which is about 1.
fn compare(summands: i64, compute: impl Fn(bool) -> Vec<Tensor>) -> Result<(), TestCaseError> {
    let theirs = compute(false);
    let bound = 5e-6 + summands as f64 * 2f64.powi(-24);
    let _gemm = products::enter(Products::Gemm).unwrap();
    for choice in [Choice::Fastest, Choice::Plain] {
        choose(choice);
        if choice == Choice::Fastest && matches!(Arch::new(), Arch::Scalar) {
            continue;
        }
        let ours = compute(true);
        prop_assert_eq!(&ours, &compute(true));
        prop_assert_eq!(ours.len(), theirs.len());
        for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            prop_assert_eq!(ours.size(), theirs.size());
            let error = (ours - theirs).abs().max();
            let largest = theirs.abs().max().clamp_min(1.0);
            prop_assert!(f64::try_from(&error / &largest).unwrap() < bound, "{} {:?} {}", index, choice, error);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn gelu_is_that_of_libtorch(rows in 1i64..40, width in 1i64..70, scale in 0.1f64..12.0, learns: bool) {
        compare(1, |is_ours| {
            let input = leaf(&[rows, width], 0.3, scale, learns);
            let input = if is_ours { input } else { exact(&input) };
            let output = if is_ours { gelu(&input).unwrap().unwrap() } else { input.gelu("none") };
            with_gradients(&output, &[&input])
        })?;
    }

    #[test]
    fn layer_norm_is_that_of_libtorch(
        rows in 1i64..200,
        // The values of a narrow row may be so near to each other that rounding is much of their differences.
        width in 8i64..70,
        shift in -3.0f64..3.0,
        learns in prop::array::uniform3(any::<bool>()),
    ) {
        compare(rows, |is_ours| {
            let input = (numbers(&[rows, 1, width], 0.3, 1.0) + shift).set_requires_grad(learns[0]);
            let (weight, bias) = (leaf(&[width], 0.1, 1.0, learns[1]), leaf(&[width], 0.2, 1.0, learns[2]));
            let all = [input, weight, bias];
            let [input, weight, bias] = if is_ours { all } else { all.each_ref().map(exact) };
            let output = if is_ours {
                layer_norm(&input, &weight, &bias, EPS).unwrap().unwrap()
            } else {
                input.layer_norm([width], Some(&weight), Some(&bias), EPS, true)
            };
            with_gradients(&output, &[&input, &weight, &bias])
        })?;
    }

    #[test]
    fn layer_norm_of_a_sum_is_that_of_libtorch(
        rows in 1i64..200,
        width in 8i64..70,
        learns in prop::array::uniform4(any::<bool>()),
        uses in 0usize..3,
    ) {
        compare(rows, |is_ours| {
            let values = [0.3, 0.4].map(|seed| numbers(&[rows, 1, width], seed, 1.0));
            let [left, right] = [0, 1].map(|index| values[index].shallow_clone().set_requires_grad(learns[index]));
            let (weight, bias) = (leaf(&[width], 0.1, 1.0, learns[2]), leaf(&[width], 0.2, 1.0, learns[3]));
            let all = [left, right, weight, bias];
            let [left, right, weight, bias] = if is_ours { all } else { all.each_ref().map(exact) };
            let (output, sum) = if is_ours {
                add_and_layer_norm([&left, &right], &weight, &bias, EPS).unwrap().unwrap()
            } else {
                let sum = &left + &right;
                (sum.layer_norm([width], Some(&weight), Some(&bias), EPS, true), sum)
            };
            // Both, one, or the other one is used.
            let value = [&output * 0.7 + &sum, output.shallow_clone(), sum.shallow_clone()][uses].shallow_clone();
            let leaves = if uses == 2 { vec![&left, &right] } else { vec![&left, &right, &weight, &bias] };
            let mut all = with_gradients(&value, &leaves);
            all.extend([output.detach(), sum.detach()]);
            all
        })?;
    }

    #[test]
    fn attention_is_that_of_libtorch(
        batch in 1i64..4,
        length in 1i64..70,
        heads in 1i64..4,
        features in 1i64..40,
        causal: bool,
        learns: bool,
    ) {
        compare(length, |is_ours| {
            let projected = leaf(&[batch, length, 3, heads, features], 0.3, 1.5, learns);
            let projected = if is_ours { projected } else { exact(&projected) };
            let output = if is_ours {
                attention(&projected, causal).unwrap().unwrap()
            } else {
                crate::torch::attention::attend_projected(&projected, 0.0, causal).unwrap()
            };
            with_gradients(&output, &[&projected])
        })?;
    }

    #[test]
    fn cross_entropy_is_that_of_libtorch(size in 1i64..90, classes in 1i64..90, scale in 0.1f64..30.0, learns: bool) {
        compare(1, |is_ours| {
            let outputs = leaf(&[size, classes], 0.3, scale, learns);
            let outputs = if is_ours { outputs } else { exact(&outputs) };
            let targets = (Tensor::arange(size, (Kind::Int64, Device::Cpu)) * 7).remainder(classes);
            let loss = if is_ours {
                cross_entropy(&outputs, &targets).unwrap().unwrap()
            } else {
                outputs.cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Mean, -100, 0.0)
            };
            with_gradients(&loss, &[&outputs])
        })?;
    }
}

fn projected() -> Tensor {
    numbers(&[1, 3, 3, 2, 4], 0.1, 1.0)
}

#[test]
fn where_products_are_libtorchs_so_is_everything_here() {
    let nothing = || {
        let (row, class) = (numbers(&[1, 4], 0.1, 1.0), Tensor::from_slice(&[2i64]));
        let flat = row.reshape([4]);
        let all = [
            gelu(&row),
            layer_norm(&row, &flat, &flat, 1e-5),
            attention(&projected(), true),
            cross_entropy(&row, &class),
        ];
        all.map(|output| output.unwrap().is_none())
    };
    assert_eq!(nothing(), [true; 4]);
    let _gemm = products::enter(Products::Gemm).unwrap();
    {
        let _libtorch = products::enter(Products::Libtorch).unwrap();
        assert_eq!(nothing(), [true; 4]);
    }
    assert_eq!(nothing(), [matches!(Arch::new(), Arch::Scalar); 4]);
    let _bf16 = crate::torch::autocast::enter(Device::Cpu, Kind::BFloat16).unwrap();
    assert_eq!(nothing(), [true; 4]);
}

#[test]
fn other_dtypes_and_layouts_and_classes_out_of_range_are_libtorchs() {
    let _gemm = products::enter(Products::Gemm).unwrap();
    choose(Choice::Plain);
    let rows = numbers(&[3, 5], 0.1, 1.0);
    assert!(gelu(&rows).unwrap().is_some());
    assert!(gelu(&rows.transpose(0, 1)).unwrap().is_none());
    assert!(gelu(&rows.to_kind(Kind::Double)).unwrap().is_none());
    assert!(gelu(&rows.narrow(0, 0, 0)).unwrap().is_none());
    let (five, three) = (numbers(&[5], 0.1, 1.0), numbers(&[3], 0.1, 1.0));
    assert!(layer_norm(&rows, &five, &five, 1e-5).unwrap().is_some());
    assert!(layer_norm(&rows, &three, &three, 1e-5).unwrap().is_none());
    assert!(attention(&numbers(&[1, 257, 3, 1, 1], 0.1, 1.0), true).unwrap().is_none());
    for (targets, is_ours) in [([0i64, 4, 2], true), ([0, 5, 2], false), ([0, -100, 2], false), ([-1, 0, 0], false)] {
        assert_eq!(cross_entropy(&rows, &Tensor::from_slice(&targets)).unwrap().is_some(), is_ours, "{targets:?}");
    }
    assert!(cross_entropy(&rows, &Tensor::from_slice(&[1i64, 2])).unwrap().is_none());
    assert!(cross_entropy(&rows, &rows.softmax(-1, Kind::Float)).unwrap().is_none());
}

#[test]
fn what_is_not_finite_stays_so() {
    let _gemm = products::enter(Products::Gemm).unwrap();
    for choice in [Choice::Fastest, Choice::Plain] {
        choose(choice);
        if matches!(Arch::new(), Arch::Scalar) {
            choose(Choice::Plain);
        }
        let input = Tensor::from_slice(&[f32::NAN, f32::INFINITY, 20.0, -20.0, 0.0]);
        let output = Vec::<f32>::try_from(gelu(&input).unwrap().unwrap()).unwrap();
        assert!(output[0].is_nan());
        assert_eq!(output[1..], [f32::INFINITY, 20.0, 0.0, 0.0]);
        for place in [0, 17] {
            let outputs = numbers(&[2, 18], 0.1, 1.0);
            let _ = outputs.get(1).get(place).fill_(f64::NAN);
            let loss = cross_entropy(&outputs, &Tensor::from_slice(&[0i64, 3])).unwrap().unwrap();
            assert!(f64::try_from(loss).unwrap().is_nan());
            let row = outputs.get(1).reshape([1, 18]);
            let ones = Tensor::ones([18], (Kind::Float, Device::Cpu));
            let normalized = layer_norm(&row, &ones, &ones, 1e-5).unwrap().unwrap();
            assert_eq!(normalized.isnan().sum(Kind::Int64).int64_value(&[]), 18);
        }
        // The query of one position.
        let values = projected();
        let _ = values.get(0).get(1).get(0).get(0).get(0).fill_(f64::NAN);
        let output = attention(&values, true).unwrap().unwrap().isnan().to_kind(Kind::Int64);
        assert_eq!(
            Vec::<i64>::try_from(output.sum_dim_intlist(&[0i64, 2][..], false, Kind::Int64)).unwrap(),
            [0, 4, 0]
        );
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let compute = || {
        let input = leaf(&[8, 50, 3, 4, 16], 0.3, 1.5, true);
        let (weight, bias) = (leaf(&[64], 0.1, 1.0, true), leaf(&[64], 0.2, 1.0, true));
        let attended = attention(&input, true).unwrap().unwrap();
        let normalized = layer_norm(&attended, &weight, &bias, 1e-5).unwrap().unwrap();
        let outputs = gelu(&normalized).unwrap().unwrap().reshape([-1, 64]);
        let targets = Tensor::arange(400, (Kind::Int64, Device::Cpu)).remainder(64);
        let loss = cross_entropy(&outputs, &targets).unwrap().unwrap();
        let mut all = Tensor::run_backward(&[&loss], &[&input, &weight, &bias], false, false);
        all.push(loss.detach());
        all
    };
    let _gemm = products::enter(Products::Gemm).unwrap();
    choose(Choice::Plain);
    let before = tch::get_num_threads();
    let all = [1, 2, 3].map(|threads| {
        tch::set_num_threads(threads);
        compute()
    });
    tch::set_num_threads(before);
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0], all[2]);
}

#[test]
fn values_may_be_used_twice_and_second_derivatives_are_refused() {
    let _gemm = products::enter(Products::Gemm).unwrap();
    choose(Choice::Plain);
    let input = leaf(&[3, 5], 0.1, 1.0, true);
    let twice = |value: &Tensor| (value * 2 + value).sum(Kind::Float);
    let ours = Tensor::run_backward(&[twice(&gelu(&input).unwrap().unwrap())], &[&input], false, false);
    let theirs = Tensor::run_backward(&[twice(&input.gelu("none"))], &[&input], false, false);
    assert!(ours[0].allclose(&theirs[0], 1e-5, 1e-6, false));
    let five = leaf(&[5], 0.1, 1.0, true);
    let heads = projected().set_requires_grad(true);
    let targets = Tensor::from_slice(&[0i64, 4, 2]);
    for (output, leaf) in [
        (gelu(&input), &input),
        (layer_norm(&input, &five, &five, 1e-5), &five),
        (attention(&heads, false), &heads),
        (cross_entropy(&input, &targets), &input),
    ] {
        let loss = output.unwrap().unwrap().sum(Kind::Float);
        let error = Tensor::f_run_backward(&[&loss], &[leaf], true, true).unwrap_err();
        assert!(error.to_string().contains("no second derivative"), "{error}");
    }
}
