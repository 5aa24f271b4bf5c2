//! `[train] optimizer` of the run file.

use plugin_api::services::fits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OptimizerError;
use super::error::range;
use super::hyper_parameters::HyperParameters;
use crate::torch::optimizer_kernels::{Adagrad, Adam, RmsProp, Sgd};

/// `[train] optimizer`: how gradients change the parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerOptions {
    /// Stochastic gradient descent (`torch.optim.SGD`).
    Sgd {
        /// The step size, before the schedule.
        #[schemars(range(min = 0))]
        learning_rate: f64,
        /// The decay of the running sum of gradients; 0 for none.
        #[serde(default)]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        momentum: f64,
        /// Whether the momentum is Nesterov's.
        #[serde(default)]
        nesterov: bool,
        /// The L2 penalty.
        #[serde(default)]
        #[schemars(range(min = 0))]
        weight_decay: f64,
        /// What `weight_decay` is for.
        #[serde(default)]
        decay: Decay,
        /// The learning rate of each layer as a multiple of that of the next one; the last has the learning rate itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        layer_decay: Option<f64>,
        /// Parameters with values of their own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupOptions>,
    },
    /// Adam, whose weight decay is an L2 penalty (`torch.optim.Adam`; Kingma and Ba 2015).
    Adam {
        /// The step size, before the schedule.
        #[serde(default = "thousandth")]
        #[schemars(range(min = 0))]
        learning_rate: f64,
        /// The decays of the first and second moments.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the denominator.
        #[serde(default = "adam_eps")]
        #[schemars(range(min = 0))]
        eps: f64,
        /// The L2 penalty.
        #[serde(default)]
        #[schemars(range(min = 0))]
        weight_decay: f64,
        /// What `weight_decay` is for.
        #[serde(default)]
        decay: Decay,
        /// The learning rate of each layer as a multiple of that of the next one; the last has the learning rate itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        layer_decay: Option<f64>,
        /// Parameters with values of their own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupOptions>,
    },
    /// Adam with decoupled weight decay (`torch.optim.AdamW`; Loshchilov and Hutter 2019).
    Adamw {
        /// The step size, before the schedule.
        #[serde(default = "thousandth")]
        #[schemars(range(min = 0))]
        learning_rate: f64,
        /// The decays of the first and second moments.
        #[serde(default = "betas")]
        betas: [f64; 2],
        /// Added to the denominator.
        #[serde(default = "adam_eps")]
        #[schemars(range(min = 0))]
        eps: f64,
        /// The weight decay.
        #[serde(default = "hundredth")]
        #[schemars(range(min = 0))]
        weight_decay: f64,
        /// What `weight_decay` is for.
        #[serde(default)]
        decay: Decay,
        /// The learning rate of each layer as a multiple of that of the next one; the last has the learning rate itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        layer_decay: Option<f64>,
        /// Parameters with values of their own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupOptions>,
    },
    /// RMSprop (`torch.optim.RMSprop`; Tieleman and Hinton 2012).
    Rmsprop {
        /// The step size, before the schedule.
        #[serde(default = "hundredth")]
        #[schemars(range(min = 0))]
        learning_rate: f64,
        /// The decay of the mean of the squared gradients.
        #[serde(default = "alpha")]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        alpha: f64,
        /// Added to the denominator.
        #[serde(default = "adam_eps")]
        #[schemars(range(min = 0))]
        eps: f64,
        /// The decay of the running sum of updates; 0 for none.
        #[serde(default)]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        momentum: f64,
        /// Whether the squared mean of the gradients is taken off the mean of their squares.
        #[serde(default)]
        centered: bool,
        /// The L2 penalty.
        #[serde(default)]
        #[schemars(range(min = 0))]
        weight_decay: f64,
        /// What `weight_decay` is for.
        #[serde(default)]
        decay: Decay,
        /// The learning rate of each layer as a multiple of that of the next one; the last has the learning rate itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        layer_decay: Option<f64>,
        /// Parameters with values of their own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupOptions>,
    },
    /// Adagrad (`torch.optim.Adagrad`; Duchi, Hazan and Singer 2011).
    Adagrad {
        /// The step size, before the schedule.
        #[serde(default = "hundredth")]
        #[schemars(range(min = 0))]
        learning_rate: f64,
        /// The step size is divided by one plus this times the updates so far (`lr_decay`).
        #[serde(default)]
        #[schemars(range(min = 0))]
        learning_rate_decay: f64,
        /// What the sums of squared gradients begin with.
        #[serde(default)]
        #[schemars(range(min = 0))]
        initial_accumulator_value: f64,
        /// Added to the denominator.
        #[serde(default = "adagrad_eps")]
        #[schemars(range(min = 0))]
        eps: f64,
        /// The L2 penalty.
        #[serde(default)]
        #[schemars(range(min = 0))]
        weight_decay: f64,
        /// What `weight_decay` is for.
        #[serde(default)]
        decay: Decay,
        /// The learning rate of each layer as a multiple of that of the next one; the last has the learning rate itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
        layer_decay: Option<f64>,
        /// Parameters with values of their own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupOptions>,
    },
}

/// Which parameters `weight_decay` is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Those of two dimensions or more: not the biases, and not the scales of norms.
    #[default]
    Weights,
    /// All of them, as PyTorch does unless it is given groups.
    All,
}

/// `[[train.optimizer.groups]]`: parameters with values of their own. Each parameter is in the first group whose pattern
/// fits its name; those that fit none are in the group `rest`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupOptions {
    /// Names of parameters, where `*` stands for any text: `*.bias`, `encoder.*`.
    pub pattern: String,
    /// What metrics (`learning_rate_<name>`) and callbacks call it. Without it, the pattern without its outer `*` and
    /// dots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its step size, before the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub learning_rate: Option<f64>,
    /// Its step size as a multiple of the optimizer's; either this or `learning_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub learning_rate_factor: Option<f64>,
    /// Its weight decay, on all of its parameters whatever the optimizer's `decay` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub weight_decay: Option<f64>,
}

fn thousandth() -> f64 {
    1e-3
}

fn hundredth() -> f64 {
    1e-2
}

fn betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn alpha() -> f64 {
    0.99
}

fn adam_eps() -> f64 {
    1e-8
}

fn adagrad_eps() -> f64 {
    1e-10
}

impl GroupOptions {
    /// Its name, as the field says.
    pub fn name(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None => match self.pattern.trim_matches(['*', '.']) {
                "" => "everything",
                name => name,
            },
        }
    }

    /// Whether a parameter of this name belongs to it.
    pub(super) fn fits(&self, parameter: &str) -> bool {
        fits(&self.pattern, parameter)
    }
}

impl OptimizerOptions {
    /// Checks all values, without a model.
    pub fn check(&self) -> Result<(), OptimizerError> {
        self.hyper_parameters().check()?;
        if let OptimizerOptions::Adagrad { initial_accumulator_value: value, .. } = self
            && !(*value >= 0.0 && value.is_finite())
        {
            return Err(range("initial_accumulator_value", *value, "at least 0 and finite"));
        }
        if let Some(decay) = self.layer_decay()
            && !(decay > 0.0 && decay <= 1.0)
        {
            return Err(range("layer_decay", decay, "above 0 and at most 1"));
        }
        for (index, group) in self.groups().iter().enumerate() {
            if group.learning_rate.is_some() && group.learning_rate_factor.is_some() {
                return Err(OptimizerError::TwoLearningRates { group: group.name().to_owned() });
            }
            if self.groups()[..index].iter().any(|earlier| earlier.name() == group.name())
                || group.name() == super::REST
            {
                return Err(OptimizerError::GroupName { name: group.name().to_owned() });
            }
            self.hyper_parameters_of(Some(group)).check()?;
        }
        Ok(())
    }

    /// What `weight_decay` is for.
    pub fn decay(&self) -> Decay {
        match self {
            OptimizerOptions::Sgd { decay, .. }
            | OptimizerOptions::Adam { decay, .. }
            | OptimizerOptions::Adamw { decay, .. }
            | OptimizerOptions::Rmsprop { decay, .. }
            | OptimizerOptions::Adagrad { decay, .. } => *decay,
        }
    }

    /// The learning rate of each layer as a multiple of that of the next one.
    pub(super) fn layer_decay(&self) -> Option<f64> {
        match self {
            OptimizerOptions::Sgd { layer_decay, .. }
            | OptimizerOptions::Adam { layer_decay, .. }
            | OptimizerOptions::Adamw { layer_decay, .. }
            | OptimizerOptions::Rmsprop { layer_decay, .. }
            | OptimizerOptions::Adagrad { layer_decay, .. } => *layer_decay,
        }
    }

    /// The groups besides `rest`.
    pub fn groups(&self) -> &[GroupOptions] {
        match self {
            OptimizerOptions::Sgd { groups, .. }
            | OptimizerOptions::Adam { groups, .. }
            | OptimizerOptions::Adamw { groups, .. }
            | OptimizerOptions::Rmsprop { groups, .. }
            | OptimizerOptions::Adagrad { groups, .. } => groups,
        }
    }

    pub(super) fn hyper_parameters(&self) -> HyperParameters {
        match *self {
            OptimizerOptions::Sgd { learning_rate, momentum, nesterov, weight_decay, .. } => {
                HyperParameters::Sgd(Sgd { learning_rate, momentum, weight_decay, nesterov })
            }
            OptimizerOptions::Adam { learning_rate, betas: [beta1, beta2], eps, weight_decay, .. } => {
                HyperParameters::Adam(Adam { learning_rate, beta1, beta2, weight_decay, eps, decoupled: false })
            }
            OptimizerOptions::Adamw { learning_rate, betas: [beta1, beta2], eps, weight_decay, .. } => {
                HyperParameters::Adam(Adam { learning_rate, beta1, beta2, weight_decay, eps, decoupled: true })
            }
            OptimizerOptions::Rmsprop { learning_rate, alpha, eps, momentum, centered, weight_decay, .. } => {
                let scalars = RmsProp { learning_rate, alpha, momentum, weight_decay, eps };
                HyperParameters::RmsProp { scalars, centered }
            }
            OptimizerOptions::Adagrad {
                learning_rate,
                learning_rate_decay,
                initial_accumulator_value,
                eps,
                weight_decay,
                ..
            } => {
                let scalars = Adagrad { learning_rate, learning_rate_decay, weight_decay, eps };
                HyperParameters::Adagrad { scalars, initial_sum: initial_accumulator_value }
            }
        }
    }

    /// Those of a group, or of the parameters in none.
    pub(super) fn hyper_parameters_of(&self, group: Option<&GroupOptions>) -> HyperParameters {
        let mut own = self.hyper_parameters();
        let Some(group) = group else { return own };
        let mut set = |name, value: Option<f64>| {
            if let (Some(slot), Some(value)) = (own.slot(name), value) {
                *slot = value;
            }
        };
        set("learning_rate", group.learning_rate);
        set("weight_decay", group.weight_decay);
        if let (Some(factor), Some(rate)) = (group.learning_rate_factor, own.slot("learning_rate")) {
            *rate *= factor;
        }
        own
    }
}
