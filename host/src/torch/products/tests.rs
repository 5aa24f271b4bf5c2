use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use super::*;
use crate::torch::test_support;

/// How a matrix lies in memory.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Rows,
    Columns,
    EverySecondColumn,
    PaddedRows,
    Repeated,
}

const LAYOUTS: [Layout; 5] =
    [Layout::Rows, Layout::Columns, Layout::EverySecondColumn, Layout::PaddedRows, Layout::Repeated];

/// Numbers that are not the same twice in a row or column.
fn numbers(shape: &[i64], seed: f64) -> Tensor {
    let count = shape.iter().product::<i64>();
    (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.7 + seed).sin().reshape(shape)
}

fn matrix(batch: Option<i64>, rows: i64, columns: i64, layout: Layout, seed: f64) -> Tensor {
    let shape = |rows, columns| batch.into_iter().chain([rows, columns]).collect::<Vec<_>>();
    match layout {
        Layout::Rows => numbers(&shape(rows, columns), seed),
        Layout::Columns => numbers(&shape(columns, rows), seed).transpose(-1, -2),
        Layout::EverySecondColumn => numbers(&shape(rows, 2 * columns), seed).slice(-1, 0, None, 2),
        Layout::PaddedRows => numbers(&shape(rows, columns + 3), seed).narrow(-1, 1, columns),
        Layout::Repeated => numbers(&shape(1, columns), seed).expand(shape(rows, columns), false),
    }
}

/// The largest difference from what f64 gives, in parts of the sum of the terms' absolute values.
fn error(found: &Tensor, left: &Tensor, right: &Tensor, start: Option<&Tensor>) -> f64 {
    let [left, right] = [left, right].map(|factor| factor.to_kind(Kind::Double));
    let mut expected = left.matmul(&right);
    let mut size = left.abs().matmul(&right.abs());
    if let Some(start) = start.map(|start| start.to_kind(Kind::Double)) {
        expected += &start;
        size += start.abs();
    }
    assert_eq!(found.size(), expected.size());
    assert_eq!(found.kind(), Kind::Float);
    ((found.to_kind(Kind::Double) - expected).abs() / (size + 1e-30)).max().double_value(&[])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn products_of_any_shape_and_layout_are_right(
        (rows, columns, depth) in (1i64..70, 1i64..70, 1i64..70),
        (left, right, start) in (0usize..5, 0usize..5, 0usize..6),
        batch in 1i64..4,
    ) {
        let _ours = enter(Products::Gemm).unwrap();
        let factors = |batch| (
            matrix(batch, rows, depth, LAYOUTS[left], 0.1),
            matrix(batch, depth, columns, LAYOUTS[right], 0.2),
        );
        let (a, b) = factors(None);
        prop_assert!(error(&a.mm(&b), &a, &b, None) < 1e-6);
        let start = match start {
            0 => numbers(&[columns], 0.3),
            1 => numbers(&[1, columns], 0.3),
            2 => numbers(&[rows, 1], 0.3),
            3 => numbers(&[rows, columns], 0.3),
            4 => numbers(&[columns, rows], 0.3).tr(),
            _ => numbers(&[], 0.3),
        };
        prop_assert!(error(&start.addmm(&a, &b), &a, &b, Some(&start)) < 1e-6);
        let (a, b) = factors(Some(batch));
        prop_assert!(error(&a.bmm(&b), &a, &b, None) < 1e-6);
    }
}

/// Shapes that are cut into parts for several threads, and into panels.
#[test]
fn large_products_are_right_and_the_same_bits_twice_for_any_number_of_threads() {
    let _threads = test_support::default_generator();
    let before = tch::get_num_threads();
    let _ours = enter(Products::Gemm).unwrap();
    for threads in [1, 2, 3, 4] {
        tch::set_num_threads(threads);
        for (rows, columns, depth) in [(64, 300, 2100), (700, 130, 70), (33, 1000, 129), (1, 4000, 300)] {
            for right in [Layout::Rows, Layout::Columns] {
                let (a, b) = (matrix(None, rows, depth, Layout::Rows, 0.1), matrix(None, depth, columns, right, 0.2));
                let product = a.mm(&b);
                assert!(error(&product, &a, &b, None) < 1e-6, "{threads} {rows} {columns} {depth} {right:?}");
                assert_eq!(product, a.mm(&b));
            }
        }
        for count in [2, 40] {
            let (a, b) = (numbers(&[count, 64, 300], 0.1), numbers(&[count, 300, 64], 0.2));
            assert!(error(&a.bmm(&b), &a, &b, None) < 1e-6);
        }
    }
    tch::set_num_threads(before);
}

#[test]
fn gradients_of_first_and_second_order_are_those_of_libtorch() {
    let gradients = |products| {
        let _products = enter(products).unwrap();
        let leaf = |shape: &[i64], seed| numbers(shape, seed).set_requires_grad(true);
        let (input, weight, bias) = (leaf(&[6, 40], 0.1), leaf(&[24, 40], 0.2), leaf(&[24], 0.3));
        let loss = input.linear(&weight, Some(&bias)).tanh().square().sum(Kind::Float);
        let first = Tensor::run_backward(&[&loss], &[&input, &weight, &bias], true, true);
        let size = first.iter().map(|gradient| gradient.square().sum(Kind::Float)).sum::<Tensor>();
        let second = Tensor::run_backward(&[size], &[&input, &weight, &bias], false, false);
        first.into_iter().chain(second).map(|gradient| gradient.detach()).collect::<Vec<_>>()
    };
    let (ours, theirs) = (gradients(Products::Gemm), gradients(Products::Libtorch));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(ours.allclose(theirs, 1e-4, 1e-4, false));
    }
}

#[test]
fn what_is_no_product_of_f32_is_libtorchs() {
    let on = (Kind::Float, Device::Cpu);
    let values = |kind: Kind| (numbers(&[5, 7], 0.1).to_kind(kind), numbers(&[7, 3], 0.2).to_kind(kind));
    let theirs = |kind| {
        let (a, b) = values(kind);
        a.mm(&b)
    };
    let expected = [Kind::Double, Kind::BFloat16].map(theirs);
    let _ours = enter(Products::Gemm).unwrap();
    assert_eq!([Kind::Double, Kind::BFloat16].map(theirs), expected);
    assert_eq!(Tensor::zeros([0, 4], on).mm(&Tensor::zeros([4, 3], on)).size(), [0, 3]);
    assert_eq!(Tensor::zeros([2, 0], on).mm(&Tensor::zeros([0, 3], on)), Tensor::zeros([2, 3], on));
    let (a, b) = values(Kind::Float);
    let start = Tensor::full([3], f64::NAN, on);
    assert!(start.f_addmm(&b.tr(), &a.tr()).is_err());
    assert!(a.f_mm(&a).unwrap_err().to_string().contains("cannot be multiplied"));
    assert!(a.f_mm(&b.to_kind(Kind::Double)).is_err());
}

#[test]
fn the_choice_is_a_threads_own_and_guards_nest() {
    let (a, b) = (numbers(&[9, 5000], 0.1), numbers(&[5000, 9], 0.2));
    let theirs = a.mm(&b);
    let gemm = enter(Products::Gemm).unwrap();
    let ours = a.mm(&b);
    assert_ne!(ours, theirs);
    {
        let _libtorch = enter(Products::Libtorch).unwrap();
        assert_eq!(a.mm(&b), theirs);
    }
    assert_eq!(a.mm(&b), ours);
    let elsewhere = std::thread::scope(|scope| {
        scope.spawn(|| numbers(&[9, 5000], 0.1).mm(&numbers(&[5000, 9], 0.2))).join().unwrap()
    });
    assert_eq!(elsewhere, theirs);
    drop(gemm);
    assert_eq!(a.mm(&b), theirs);
}
