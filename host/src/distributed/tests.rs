//! Ranks as threads, over loopback.
//!
//! Each test has a process of its own with one group: where several stores live in one process, connections of one stand still when
//! another one ends (libtorch 2.11).

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use super::*;
use crate::torch::c10d::Serving;
use crate::torch::sync_batch_norm::{BatchNorm, sync_batch_norm};
use crate::torch::{TensorList, gradients};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Set in the process of a test.
const OWN_PROCESS: &str = "HOST_TEST_OWN_PROCESS";

/// Runs `test`, which has this name, in a process of its own.
fn alone(name: &str, test: impl FnOnce()) {
    if std::env::var_os(OWN_PROCESS).is_some() {
        return test();
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("distributed::tests::{name}"), "--nocapture"]).env(OWN_PROCESS, "1");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

/// The meetings of so many ranks.
fn meetings(world_size: usize) -> Vec<Meeting> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut serving = Serving::Listening;
    let meeting = |rank| Meeting {
        rank,
        world_size,
        address: "127.0.0.1".to_owned(),
        port,
        serving: std::mem::replace(&mut serving, Serving::No),
        zero_serves: true,
        loopback: true,
        attempt: 0,
        timeout: TIMEOUT,
    };
    (0..world_size).map(meeting).collect()
}

/// Runs `each` on every rank, and returns what they return, in their order.
fn on_each<T: Send>(world_size: usize, each: impl Fn(&ProcessGroup) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let each = &each;
        let ranks: Vec<_> = meetings(world_size)
            .into_iter()
            .map(|meeting| {
                scope.spawn(move || {
                    let group = ProcessGroup::join(&meeting).unwrap();
                    let value = each(&group);
                    group.rank_end().leave();
                    value
                })
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn bytes_of_any_length_are_exchanged_in_the_order_of_ranks() {
    alone("bytes_of_any_length_are_exchanged_in_the_order_of_ranks", || {
        let bytes = |rank: usize| vec![rank as u8 + 1; [0, 248, 249, 5000][rank]];
        let expected: Vec<Vec<u8>> = (0..4).map(bytes).collect();
        for found in on_each(4, |group| group.exchange(bytes(group.rank())).unwrap()) {
            assert_eq!(found, expected);
        }
        assert_eq!(ProcessGroup::single().exchange(vec![7]).unwrap(), [[7]]);
    });
}

#[test]
fn all_get_the_tensors_of_rank_zero() {
    alone("all_get_the_tensors_of_rank_zero", || {
        let tensors =
            |seed: i64| [Tensor::full([2, 3], seed, (Kind::Float, Device::Cpu)), Tensor::from_slice(&[seed, 2])];
        for found in on_each(3, |group| {
            let tensors = tensors(group.rank() as i64 + 5);
            group.broadcast(&tensors).unwrap();
            tensors
        }) {
            assert_eq!(found, tensors(5));
        }
    });
}

/// Three layers, the second of them frozen, and one that nothing uses.
fn parameters() -> Vec<Tensor> {
    let numbers = |shape: &[i64], seed: f64| {
        let count: i64 = shape.iter().product();
        (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.37 + seed).sin().reshape(shape)
    };
    [[8, 4], [8, 8], [1, 8], [3, 3]]
        .iter()
        .zip([true, false, true, true])
        .enumerate()
        .map(|(index, (shape, learns))| numbers(shape, index as f64).set_requires_grad(learns))
        .collect()
}

fn loss(parameters: &[Tensor], inputs: &Tensor) -> Tensor {
    let hidden = inputs.linear(&parameters[0], None::<&Tensor>).tanh().linear(&parameters[1], None::<&Tensor>).tanh();
    hidden.linear(&parameters[2], None::<&Tensor>).square().mean(Kind::Float)
}

fn copies_of_gradients(parameters: &[Tensor]) -> Vec<Option<Tensor>> {
    parameters
        .iter()
        .map(|parameter| Some(parameter.grad()).filter(Tensor::defined).map(|gradient| gradient.copy()))
        .collect()
}

#[test]
fn gradients_of_uneven_and_empty_shares_are_those_of_the_whole() {
    alone("gradients_of_uneven_and_empty_shares_are_those_of_the_whole", || {
        let inputs = || (Tensor::arange(5 * 4, (Kind::Float, Device::Cpu)) * 0.11).cos().reshape([5, 4]);
        let whole = parameters();
        loss(&whole, &inputs()).backward();
        let expected = copies_of_gradients(&whole);
        // Rank 1 has nothing, and buckets of all sizes give the same.
        let shares = [(0, 3), (3, 0), (3, 2)];
        let found = on_each(3, |group| {
            let (start, count) = shares[group.rank()];
            let share = count as f64 / 5.0;
            // Each rank may weigh its loss itself, or have its gradients weighed.
            let (weighed, scale) = if group.rank() == 0 { (share, 1.0) } else { (1.0, share) };
            let mut steps = Vec::new();
            for bytes in [1, 200, 1 << 20] {
                let own = parameters();
                let sizes = BucketSizes { first: bytes, other: bytes };
                let mut buckets = group.buckets(&own, sizes, 2).unwrap().unwrap();
                for _ in 0..2 {
                    buckets.begin(&[share as f32, group.rank() as f32], scale).unwrap();
                    if count > 0 {
                        (loss(&own, &inputs().narrow(0, start, count)) * weighed).backward();
                    }
                    let slots = group.finish(&mut buckets).unwrap();
                    assert_eq!(slots[1], 3.0);
                    steps.push(copies_of_gradients(&own));
                    gradients::clear(&TensorList::new(&own).unwrap()).unwrap();
                }
            }
            steps
        });
        for steps in &found {
            assert_eq!(steps.len(), 6);
            assert_eq!(steps, &found[0], "the same bits on all ranks");
            for (found, expected) in steps.iter().flat_map(|step| step.iter().zip(&expected)) {
                match (found, expected) {
                    (Some(found), Some(expected)) => assert!(found.allclose(expected, 1e-5, 1e-7, false)),
                    (found, expected) => assert!(found.is_none() && expected.is_none()),
                }
            }
        }
    });
}

/// Values `[7, 3, 2]`, a weight for each, and the scale, the shift, the mean and the variance of three channels.
fn batch_norm() -> [Tensor; 6] {
    let numbers = |shape: &[i64], seed: f64| {
        let count: i64 = shape.iter().product();
        (Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.53 + seed).sin().reshape(shape)
    };
    let learns = |shape: &[i64], seed| numbers(shape, seed).set_requires_grad(true);
    let (mean, variance) = (numbers(&[3], 0.1), numbers(&[3], 0.2).abs());
    [learns(&[7, 3, 2], 0.3), numbers(&[7, 3, 2], 0.4), learns(&[3], 0.5), learns(&[3], 0.6), mean, variance]
}

#[test]
fn batch_normalization_of_all_ranks_is_that_of_the_whole() {
    alone("batch_normalization_of_all_ranks_is_that_of_the_whole", || {
        let [input, weights, weight, bias, mean, variance] = batch_norm();
        let whole = input.batch_norm(Some(&weight), Some(&bias), Some(&mean), Some(&variance), true, 0.1, 1e-5, true);
        (&whole * &weights).sum(Kind::Float).backward();
        let near = |found: &Tensor, expected: &Tensor| {
            assert!(found.allclose(expected, 1e-5, 1e-6, false), "{found} {expected}")
        };
        // Rank 1 has no sample.
        let shares = [(0, 4), (4, 0), (4, 3)];
        let found = on_each(3, |group| {
            let statistics = group.statistics().unwrap();
            let [input, weights, weight, bias, running_mean, running_variance] = batch_norm();
            let (start, count) = shares[group.rank()];
            let norm = BatchNorm {
                weight: &weight,
                bias: &bias,
                running_mean: &running_mean,
                running_variance: &running_variance,
                momentum: 0.1,
                epsilon: 1e-5,
            };
            let output = sync_batch_norm(&statistics, &input.narrow(0, start, count), norm).unwrap();
            (&output * weights.narrow(0, start, count)).sum(Kind::Float).backward();
            let own = input.grad().narrow(0, start, count).copy();
            [output.detach(), own, weight.grad(), bias.grad(), running_mean.copy(), running_variance.copy()]
        });
        let together = |index: usize| Tensor::cat(&found.iter().map(|rank| &rank[index]).collect::<Vec<_>>(), 0);
        near(&together(0), &whole);
        near(&together(1), &input.grad());
        let sum = |index: usize| &found[0][index] + &found[1][index] + &found[2][index];
        near(&sum(2), &weight.grad());
        near(&sum(3), &bias.grad());
        for rank in &found {
            near(&rank[4], &mean);
            near(&rank[5], &variance);
            assert_eq!(rank[4..], found[0][4..], "the same bits");
        }
    });
}

#[test]
fn a_rank_of_another_run_is_named_on_all() {
    alone("a_rank_of_another_run_is_named_on_all", || {
        let found = on_each(3, |group| {
            let own = if group.rank() == 2 { "b" } else { "a" };
            let compared = group.compare("another model", own).and_then(|()| group.exchange(Vec::new()).map(drop));
            group.rank_end().fail("lost");
            compared.unwrap_err().to_string()
        });
        assert_eq!(found[2], "rank 2 has another model than rank 0: b instead of a");
        for other in &found[..2] {
            assert_eq!(other, &found[2]);
        }
    });
}

#[test]
fn a_rank_that_never_comes_is_named() {
    alone("a_rank_that_never_comes_is_named", || {
        let mut first = meetings(2).swap_remove(0);
        first.timeout = Duration::from_millis(300);
        let error = ProcessGroup::join(&first).unwrap_err();
        assert!(error.to_string().starts_with("rank 1 of 2 has not started"), "{error}");
    });
}

#[test]
fn a_rank_that_computes_for_ever_is_named_and_one_in_a_callback_is_waited_for() {
    alone("a_rank_that_computes_for_ever_is_named_and_one_in_a_callback_is_waited_for", || {
        let [first, second] = meetings(2).try_into().unwrap();
        let timeout = Duration::from_millis(1500);
        let [first, second] = [first, second].map(|meeting: Meeting| Meeting { timeout, ..meeting });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let group = ProcessGroup::join(&second).unwrap();
                // A long callback, then a computation without an end.
                std::thread::sleep(Duration::from_secs(3));
                group.exchange(Vec::new()).unwrap();
                group.set_computing(true);
                std::thread::sleep(Duration::from_secs(6));
            });
            let group = ProcessGroup::join(&first).unwrap();
            group.exchange(Vec::new()).unwrap();
            let error = group.exchange(Vec::new()).unwrap_err().to_string();
            assert!(error.starts_with("rank 1 (process ") && error.ends_with("without an end"), "{error}");
        });
    });
}
