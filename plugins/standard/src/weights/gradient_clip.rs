//! `gradient-clip`: limits the gradients before the optimizer uses them.
//!
//! * `norm`: all gradients are scaled so that their common L2 norm is at most `limit` (Pascanu et al. 2013, "On the
//!   difficulty of training recurrent neural networks"; `torch.nn.utils.clip_grad_norm_`);
//! * `value`: each number is cut to `-limit` to `limit` (`torch.nn.utils.clip_grad_value_`);
//! * `adaptive`: the gradient of each unit is scaled so that its norm is at most `limit` times the norm of the unit's
//!   weights, or times 0.001 where that is larger (Brock et al. 2021, "High-Performance Large-Scale Image Recognition
//!   Without Normalization").
//!
//! Gradients that are not finite stay as they are: a scaled NaN or infinity is NaN, and would make the others NaN too.

use plugin_api::event::At;
use plugin_api::protocol::TensorSet;
use plugin_api::{
    Callback, Creation, Error, Need, Ranks, Result, Run, Tensor, TensorView, decode_state, encode_state, plugin,
};
use serde::{Deserialize, Serialize};

use super::values::{f32_values, norm, sum_of_squares};

/// The least norm of a unit's weights, so that weights that begin as zero can move.
const LEAST_NORM: f64 = 1e-3;
/// `torch.nn.utils.clip_grad_norm_` adds it to the norm that it divides by.
const NORM_OFFSET: f64 = 1e-6;

/// Options of `gradient-clip`.
#[plugin]
pub(crate) struct Options {
    /// What is limited.
    by: By,
    /// The limit: of the norm, of each number, or of the ratio of norms. Where gradients are clipped by their norm, 1 is
    /// usual; adaptively, 0.01.
    #[schemars(range(min = 0.0))]
    limit: f64,
}

/// What is limited.
#[plugin]
#[derive(Copy, PartialEq)]
enum By {
    /// The norm of all gradients together.
    Norm,
    /// The magnitude of each number.
    Value,
    /// The norm of each unit's gradient, relative to that of its weights. A unit is a row of the first dimension: an output
    /// of a linear layer, a channel of a convolution; a tensor of one dimension is one unit.
    Adaptive,
}

impl Default for Options {
    fn default() -> Self {
        Self { by: By::Norm, limit: 1.0 }
    }
}

/// The state in checkpoints: of the epoch in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// The norm of the last step's gradients.
    norm: Option<f64>,
    steps: u64,
    clipped: u64,
}

pub(crate) struct GradientClip {
    options: Options,
    state: State,
}

#[plugin]
impl Callback for GradientClip {
    const KIND: &'static str = "gradient-clip";
    const SUMMARY: &'static str = "Limits the gradients: their norm, each number, or relative to the weights";
    const BY_DEFAULT: bool = false;
    const RANKS: Ranks = Ranks::All;
    const NEEDS: &'static [Need] = &[Need::WRITES_GRADIENTS];
    const PRODUCES: &'static [&'static str] = &["gradient_norm", "clip_fraction"];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if !(options.limit > 0.0 && options.limit.is_finite()) {
            return Err(Error::new(format!("`limit` must be more than 0, not {}", options.limit)));
        }
        Ok(Self { options, state: State::default() })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.state = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.state)
    }

    fn on_gradients(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let (norm, clipped) = self.clip(run)?;
        self.state.norm = Some(norm);
        self.state.steps += 1;
        if !clipped.is_empty() {
            self.state.clipped += 1;
            let views: Vec<_> = clipped.iter().map(Tensor::view).collect();
            run.write(TensorSet::Gradients, &views)?;
        }
        Ok(())
    }

    fn on_epoch_trained(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let State { norm, steps, clipped } = std::mem::take(&mut self.state);
        let Some(norm) = norm else { return Ok(()) };
        run.put_metric("gradient_norm", norm)?;
        run.put_metric("clip_fraction", clipped as f64 / steps as f64)
    }
}

impl GradientClip {
    /// The norm of all gradients, and those that are clipped.
    fn clip(&self, run: &Run<'_>) -> Result<(f64, Vec<Tensor>)> {
        let gradients = run.tensors(TensorSet::Gradients)?;
        let mut squares = 0.0;
        let mut all = Vec::with_capacity(gradients.len());
        for view in &gradients {
            let values = f32_values(run, view)?;
            squares += sum_of_squares(&values);
            all.push((view, values));
        }
        let total = squares.sqrt();
        let limit = self.options.limit;
        let mut clipped = Vec::new();
        if !total.is_finite() {
            return Ok((total, clipped));
        }
        if self.options.by == By::Norm && total <= limit {
            return Ok((total, clipped));
        }
        for (view, values) in all {
            let changed = match self.options.by {
                By::Norm => {
                    let scale = (limit / (total + NORM_OFFSET)) as f32;
                    Some(values.iter().map(|value| value * scale).collect())
                }
                By::Value => cut(&values, limit as f32),
                By::Adaptive => {
                    let weights = run.tensor(TensorSet::Parameters, view.name())?;
                    scale_units(view, &values, &f32_values(run, &weights)?, limit)
                }
            };
            if let Some(changed) = changed {
                clipped.push(Tensor::new(view.name(), view.shape(), &changed)?);
            }
        }
        Ok((total, clipped))
    }
}

/// Each number cut to the limit; `None` if none is beyond it.
fn cut(values: &[f32], limit: f32) -> Option<Vec<f32>> {
    let is_beyond = values.iter().any(|value| value.abs() > limit);
    is_beyond.then(|| values.iter().map(|value| value.clamp(-limit, limit)).collect())
}

/// Each unit scaled to the limit; `None` if none is beyond it.
fn scale_units(view: &TensorView<'_>, gradient: &[f32], weights: &[f32], limit: f64) -> Option<Vec<f32>> {
    let units = match *view.shape() {
        [units, _, ..] => usize::try_from(units).unwrap_or(1),
        _ => 1,
    };
    let size = (gradient.len() / units.max(1)).max(1);
    let mut changed = None;
    for (unit, (values, weights)) in gradient.chunks(size).zip(weights.chunks(size)).enumerate() {
        let (most, found) = (limit * norm(weights).max(LEAST_NORM), norm(values));
        if found > most {
            let scale = (most / found) as f32;
            let changed = changed.get_or_insert_with(|| gradient.to_vec());
            changed.iter_mut().skip(unit * size).take(size).for_each(|value| *value *= scale);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use plugin_api::testing::{FakeHost, Value, json};

    use super::*;

    /// A tensor: its name, its shape, the weights and their gradient.
    type Given<'t> = (&'t str, &'t [i64], &'t [f32], &'t [f32]);

    fn host(options: Value, tensors: &[Given<'_>]) -> FakeHost {
        let mut host = FakeHost::new::<GradientClip>(options).unwrap();
        for (name, shape, weights, gradient) in tensors {
            host.put_tensor(TensorSet::Parameters, Tensor::new(*name, shape, weights).unwrap());
            host.put_tensor(TensorSet::Gradients, Tensor::new(*name, shape, gradient).unwrap());
        }
        host
    }

    fn gradient(host: &FakeHost, name: &str) -> Vec<f32> {
        host.tensor(&TensorSet::Gradients, name).unwrap().view().to_vec().unwrap()
    }

    /// The gradients of two tensors that were (3, 0) and (0, 4): their common norm is 5.
    fn clipped(options: Value) -> [Vec<f32>; 2] {
        let mut host = host(options, &[("a", &[2], &[1.0; 2], &[3.0, 0.0]), ("b", &[2], &[1.0; 2], &[0.0, 4.0])]);
        host.gradients(1).unwrap();
        host.epoch_trained(1).unwrap();
        assert_eq!(host.metric("gradient_norm"), Some(5.0), "it is the norm before clipping");
        ["a", "b"].map(|name| gradient(&host, name))
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}, not {expected:?}");
    }

    #[test]
    fn the_norm_is_that_of_all_gradients_together() {
        let [a, b] = clipped(json!({ "limit": 2.5 }));
        assert_close(&a, &[1.5, 0.0]);
        assert_close(&b, &[0.0, 2.0]);
        assert_eq!(clipped(json!({ "limit": 5.0 })), [vec![3.0, 0.0], vec![0.0, 4.0]]);
    }

    #[test]
    fn each_number_is_cut() {
        let mut host = host(json!({ "by": "value", "limit": 1 }), &[("a", &[3], &[0.0; 3], &[-3.0, 0.5, 3.0])]);
        host.gradients(1).unwrap();
        assert_eq!(gradient(&host, "a"), [-1.0, 0.5, 1.0]);
    }

    #[test]
    fn adaptive_clipping_is_by_unit_and_relative_to_its_weights() {
        // Two rows with the norms 1 and 10; the gradients of both have the norm 2.
        let weights = [0.6, 0.8, 6.0, 8.0];
        let rows: Given<'_> = ("rows", &[2, 2], &weights, &[2.0, 0.0, 2.0, 0.0]);
        let bias: Given<'_> = ("bias", &[2], &[0.0, 0.0], &[3.0, 4.0]);
        let mut host = host(json!({ "by": "adaptive", "limit": 0.5 }), &[rows, bias]);
        host.gradients(1).unwrap();
        assert_close(&gradient(&host, "rows"), &[0.5, 0.0, 2.0, 0.0]);
        // Weights of zero have the least norm, 0.001, so that they move.
        let bias: Vec<f32> = gradient(&host, "bias").iter().map(|value| value * 1000.0).collect();
        assert_close(&bias, &[0.3, 0.4]);
    }

    #[test]
    fn one_gradient_that_is_no_number_does_not_spoil_the_others() {
        for (by, bad) in [("norm", f32::INFINITY), ("norm", f32::NAN), ("adaptive", f32::NAN), ("value", f32::NAN)] {
            let options = json!({ "by": by, "limit": 0.1 });
            let mut host = host(options, &[("a", &[1], &[1.0], &[bad]), ("b", &[1], &[1.0], &[4.0])]);
            host.gradients(1).unwrap();
            assert_eq!((gradient(&host, "a")[0].to_bits(), gradient(&host, "b")), (bad.to_bits(), vec![4.0]), "{by}");
            host.epoch_trained(1).unwrap();
            assert!(!host.metric("gradient_norm").unwrap().is_finite());
        }
    }

    #[test]
    fn an_epoch_says_how_often_it_clipped_also_after_a_resume() {
        let step = |host: &mut FakeHost, number: u64, value: f32| {
            host.put_tensor(TensorSet::Gradients, Tensor::new("a", &[1], &[value]).unwrap());
            host.gradients(number).unwrap();
        };
        let tensors: &[Given<'_>] = &[("a", &[1], &[1.0], &[0.0])];
        let mut first = host(json!({}), tensors);
        step(&mut first, 1, 8.0);
        step(&mut first, 2, 0.5);
        let mut resumed = host(json!({}), tensors);
        resumed.load_state(&first.save_state().unwrap()).unwrap();
        step(&mut resumed, 3, 0.25);
        step(&mut resumed, 4, 0.75);
        resumed.epoch_trained(1).unwrap();
        let told = ["gradient_norm", "clip_fraction"].map(|name| resumed.metric(name));
        assert_eq!(told, [Some(0.75), Some(0.25)]);
        step(&mut resumed, 11, 8.0);
        resumed.epoch_trained(2).unwrap();
        assert_eq!(resumed.metric("clip_fraction"), Some(1.0), "an epoch counts its own steps");
    }

    #[test]
    fn a_limit_that_makes_no_sense_is_refused() {
        for options in [json!({ "limit": 0 }), json!({ "limit": -1 }), json!({ "by": "length" })] {
            assert!(FakeHost::new::<GradientClip>(options).is_err());
        }
    }
}
