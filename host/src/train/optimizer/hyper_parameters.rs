//! `[train] optimizer` of the run file, and the values that steer a parameter group.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OptimizerError;
use crate::torch::optimizer_kernels::{AdamW, Sgd};

/// `[train] optimizer`: how gradients change the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerOptions {
    /// Stochastic gradient descent (`torch.optim.SGD`).
    Sgd {
        /// The step size, before the schedule.
        learning_rate: f64,
        /// The decay of the running sum of gradients; 0 for none.
        #[serde(default)]
        momentum: f64,
        /// Whether the momentum is Nesterov's.
        #[serde(default)]
        nesterov: bool,
        /// The L2 penalty, on every parameter.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with decoupled weight decay (`torch.optim.AdamW`; Loshchilov and Hutter 2019).
    Adamw {
        /// The step size, before the schedule.
        #[serde(default = "adamw_learning_rate")]
        learning_rate: f64,
        /// The decays of the first and second moments.
        #[serde(default = "adamw_betas")]
        betas: [f64; 2],
        /// Added to the denominator.
        #[serde(default = "adamw_eps")]
        eps: f64,
        /// The weight decay, on every parameter.
        #[serde(default = "adamw_weight_decay")]
        weight_decay: f64,
    },
}

fn adamw_learning_rate() -> f64 {
    1e-3
}

fn adamw_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn adamw_eps() -> f64 {
    1e-8
}

fn adamw_weight_decay() -> f64 {
    1e-2
}

/// The values that steer one parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum HyperParameters {
    Sgd(Sgd),
    AdamW(AdamW),
}

impl HyperParameters {
    pub(super) fn new(options: &OptimizerOptions) -> HyperParameters {
        match *options {
            OptimizerOptions::Sgd { learning_rate, momentum, nesterov, weight_decay } => {
                HyperParameters::Sgd(Sgd { learning_rate, momentum, weight_decay, nesterov })
            }
            OptimizerOptions::Adamw { learning_rate, betas: [beta1, beta2], eps, weight_decay } => {
                HyperParameters::AdamW(AdamW { learning_rate, beta1, beta2, weight_decay, eps })
            }
        }
    }

    pub(super) fn names(&self) -> &'static [&'static str] {
        match self {
            HyperParameters::Sgd(_) => &["learning_rate", "momentum", "weight_decay"],
            HyperParameters::AdamW(_) => &["learning_rate", "beta1", "beta2", "weight_decay", "eps"],
        }
    }

    pub(super) fn slot(&mut self, name: &str) -> Option<&mut f64> {
        match (self, name) {
            (HyperParameters::Sgd(sgd), "learning_rate") => Some(&mut sgd.learning_rate),
            (HyperParameters::Sgd(sgd), "momentum") => Some(&mut sgd.momentum),
            (HyperParameters::Sgd(sgd), "weight_decay") => Some(&mut sgd.weight_decay),
            (HyperParameters::AdamW(adamw), "learning_rate") => Some(&mut adamw.learning_rate),
            (HyperParameters::AdamW(adamw), "beta1") => Some(&mut adamw.beta1),
            (HyperParameters::AdamW(adamw), "beta2") => Some(&mut adamw.beta2),
            (HyperParameters::AdamW(adamw), "weight_decay") => Some(&mut adamw.weight_decay),
            (HyperParameters::AdamW(adamw), "eps") => Some(&mut adamw.eps),
            _ => None,
        }
    }

    pub(super) fn get(mut self, name: &str) -> Option<f64> {
        self.slot(name).copied()
    }

    /// The ranges that `torch.optim` accepts.
    pub(super) fn check(self) -> Result<(), OptimizerError> {
        for name in self.names() {
            let value = self.get(name).unwrap_or(f64::NAN);
            let (fits, expected) = match *name {
                "beta1" | "beta2" | "momentum" => ((0.0..1.0).contains(&value), "at least 0 and below 1"),
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

    /// The state that each parameter has, by PyTorch's names: `exp_avg` and `exp_avg_sq` (moments), `step` (updates so
    /// far, f32 scalar), `momentum_buffer`.
    pub(super) fn state_names(&self) -> &'static [&'static str] {
        match self {
            HyperParameters::Sgd(sgd) if sgd.momentum == 0.0 => &[],
            HyperParameters::Sgd(_) => &["momentum_buffer"],
            HyperParameters::AdamW(_) => &["exp_avg", "exp_avg_sq", "step"],
        }
    }
}

fn range(name: &str, value: f64, expected: &'static str) -> OptimizerError {
    OptimizerError::Range { name: name.to_owned(), value, expected }
}
