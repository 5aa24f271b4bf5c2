//! The values that steer a parameter group, and the state that each kind of optimizer keeps.

use super::OptimizerError;
use super::error::range;
use crate::torch::optimizer_kernels::{
    self as kernels, Adagrad, Adam, RmsProp, Sgd, fused_adagrad, fused_adam, fused_sgd,
};
use crate::torch::{TensorList, TorchError};

/// The values that steer one parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum HyperParameters {
    Sgd(Sgd),
    Adam(Adam),
    RmsProp { scalars: RmsProp, centered: bool },
    Adagrad { scalars: Adagrad, initial_sum: f64 },
}

impl HyperParameters {
    pub(super) fn names(&self) -> &'static [&'static str] {
        match self {
            HyperParameters::Sgd(_) => &["learning_rate", "momentum", "weight_decay"],
            HyperParameters::Adam(_) => &["learning_rate", "beta1", "beta2", "weight_decay", "eps"],
            HyperParameters::RmsProp { .. } => &["learning_rate", "alpha", "momentum", "weight_decay", "eps"],
            HyperParameters::Adagrad { .. } => &["learning_rate", "learning_rate_decay", "weight_decay", "eps"],
        }
    }

    pub(super) fn slot(&mut self, name: &str) -> Option<&mut f64> {
        Some(match self {
            HyperParameters::Sgd(sgd) => match name {
                "learning_rate" => &mut sgd.learning_rate,
                "momentum" => &mut sgd.momentum,
                "weight_decay" => &mut sgd.weight_decay,
                _ => return None,
            },
            HyperParameters::Adam(adam) => match name {
                "learning_rate" => &mut adam.learning_rate,
                "beta1" => &mut adam.beta1,
                "beta2" => &mut adam.beta2,
                "weight_decay" => &mut adam.weight_decay,
                "eps" => &mut adam.eps,
                _ => return None,
            },
            HyperParameters::RmsProp { scalars, centered: _ } => match name {
                "learning_rate" => &mut scalars.learning_rate,
                "alpha" => &mut scalars.alpha,
                "momentum" => &mut scalars.momentum,
                "weight_decay" => &mut scalars.weight_decay,
                "eps" => &mut scalars.eps,
                _ => return None,
            },
            HyperParameters::Adagrad { scalars, initial_sum: _ } => match name {
                "learning_rate" => &mut scalars.learning_rate,
                "learning_rate_decay" => &mut scalars.learning_rate_decay,
                "weight_decay" => &mut scalars.weight_decay,
                "eps" => &mut scalars.eps,
                _ => return None,
            },
        })
    }

    pub(super) fn get(mut self, name: &str) -> Option<f64> {
        self.slot(name).copied()
    }

    #[inline]
    pub(super) fn learning_rate(&mut self) -> &mut f64 {
        match self {
            HyperParameters::Sgd(sgd) => &mut sgd.learning_rate,
            HyperParameters::Adam(adam) => &mut adam.learning_rate,
            HyperParameters::RmsProp { scalars, .. } => &mut scalars.learning_rate,
            HyperParameters::Adagrad { scalars, .. } => &mut scalars.learning_rate,
        }
    }

    #[inline]
    pub(super) fn weight_decay(&mut self) -> &mut f64 {
        match self {
            HyperParameters::Sgd(sgd) => &mut sgd.weight_decay,
            HyperParameters::Adam(adam) => &mut adam.weight_decay,
            HyperParameters::RmsProp { scalars, .. } => &mut scalars.weight_decay,
            HyperParameters::Adagrad { scalars, .. } => &mut scalars.weight_decay,
        }
    }

    /// The ranges that `torch.optim` accepts.
    pub(super) fn check(self) -> Result<(), OptimizerError> {
        for name in self.names() {
            let value = self.get(name).unwrap_or(f64::NAN);
            let (fits, expected) = match *name {
                "alpha" | "beta1" | "beta2" | "momentum" => ((0.0..1.0).contains(&value), "at least 0 and below 1"),
                _ => (value >= 0.0 && value.is_finite(), "at least 0 and finite"),
            };
            if !fits {
                return Err(range(name, value, expected));
            }
        }
        match self {
            HyperParameters::Sgd(sgd) if sgd.nesterov && sgd.momentum == 0.0 => {
                Err(range("momentum", sgd.momentum, "above 0 with `nesterov = true`"))
            }
            _ => Ok(()),
        }
    }

    /// The state that each parameter has, by PyTorch's names: `exp_avg`, `exp_avg_sq`, `square_avg`, `grad_avg`
    /// (moments), `sum` (of squared gradients), `step` (updates so far, f32 scalar), `momentum_buffer`. RMSprop's `step`,
    /// which nothing reads, is left out.
    pub(super) fn state_names(&self) -> &'static [&'static str] {
        match self {
            HyperParameters::Sgd(sgd) if sgd.momentum == 0.0 => &[],
            HyperParameters::Sgd(_) => &["momentum_buffer"],
            HyperParameters::Adam(_) => &["exp_avg", "exp_avg_sq", "step"],
            HyperParameters::RmsProp { scalars, centered } => match (*centered, scalars.momentum != 0.0) {
                (false, false) => &["square_avg"],
                (false, true) => &["square_avg", "momentum_buffer"],
                (true, false) => &["square_avg", "grad_avg"],
                (true, true) => &["square_avg", "grad_avg", "momentum_buffer"],
            },
            HyperParameters::Adagrad { .. } => &["sum", "step"],
        }
    }

    /// The initial value of a state of this name.
    pub(super) fn initial(&self, state: &str) -> f64 {
        match (self, state) {
            (HyperParameters::Adagrad { initial_sum, .. }, "sum") => *initial_sum,
            _ => 0.0,
        }
    }

    /// One update of `parameters`, whose state is in the order of [`HyperParameters::state_names`].
    pub(super) fn update(&self, parameters: &TensorList, state: &[TensorList]) -> Result<(), TorchError> {
        match (self, state) {
            (HyperParameters::Sgd(sgd), buffers) => fused_sgd(parameters, buffers.first(), *sgd),
            (HyperParameters::Adam(adam), [exp_avgs, exp_avg_sqs, steps]) => {
                fused_adam(parameters, exp_avgs, exp_avg_sqs, steps, *adam)
            }
            (HyperParameters::RmsProp { scalars, centered: true }, [squares, means, buffers @ ..]) => {
                kernels::rmsprop(parameters, squares, Some(means), buffers.first(), *scalars)
            }
            (HyperParameters::RmsProp { scalars, centered: false }, [squares, buffers @ ..]) => {
                kernels::rmsprop(parameters, squares, None, buffers.first(), *scalars)
            }
            (HyperParameters::Adagrad { scalars, .. }, [sums, steps]) => {
                fused_adagrad(parameters, sums, steps, *scalars)
            }
            // A group without parameters has no state to list.
            _ => Ok(()),
        }
    }
}
