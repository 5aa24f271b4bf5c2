//! Optimizers over libtorch's fused kernels, with their state in tensors that have names.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    model::NamedTensor,
    torch::{
        TensorList, TorchError, gradients,
        optimizer_kernels::{AdamW, Sgd, fused_adamw, fused_sgd},
    },
};

/// The group that every parameter is in unless the run file makes others.
const DEFAULT_GROUP: &str = "all";

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

/// An optimizer that cannot be made, set or restored.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum OptimizerError {
    /// A hyper-parameter is out of range.
    #[error("hyper-parameter `{name}` = `{value}` must be {expected}")]
    Range {
        /// Its name.
        name: String,
        /// The value.
        value: f64,
        /// What it may be.
        expected: &'static str,
    },
    /// The optimizer has no such hyper-parameter.
    #[error("the optimizer has no hyper-parameter `{name}`; it has {available}")]
    UnknownHyperParameter {
        /// The name.
        name: String,
        /// Those there are.
        available: String,
    },
    /// There is no such parameter group.
    #[error("the optimizer has no parameter group `{name}`; it has {available}")]
    UnknownGroup {
        /// The name.
        name: String,
        /// Those there are.
        available: String,
    },
    /// A state is restored that is not this optimizer's.
    #[error("the optimizer's state {what} `{name}`; it was saved by another optimizer or model")]
    StateMismatch {
        /// `lacks`, `has an unknown` or `has another shape or dtype for`.
        what: &'static str,
        /// The tensor.
        name: String,
    },
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// The values that steer one parameter group.
#[derive(Clone, Copy, Debug, PartialEq)]
enum HyperParameters {
    Sgd(Sgd),
    AdamW(AdamW),
}

impl HyperParameters {
    fn new(options: &OptimizerOptions) -> HyperParameters {
        match *options {
            OptimizerOptions::Sgd {
                learning_rate,
                momentum,
                nesterov,
                weight_decay,
            } => HyperParameters::Sgd(Sgd {
                learning_rate,
                momentum,
                weight_decay,
                nesterov,
            }),
            OptimizerOptions::Adamw {
                learning_rate,
                betas: [beta1, beta2],
                eps,
                weight_decay,
            } => HyperParameters::AdamW(AdamW {
                learning_rate,
                beta1,
                beta2,
                weight_decay,
                eps,
            }),
        }
    }

    fn names(&self) -> &'static [&'static str] {
        match self {
            HyperParameters::Sgd(_) => &["learning_rate", "momentum", "weight_decay"],
            HyperParameters::AdamW(_) => {
                &["learning_rate", "beta1", "beta2", "weight_decay", "eps"]
            }
        }
    }

    fn slot(&mut self, name: &str) -> Option<&mut f64> {
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

    fn get(mut self, name: &str) -> Option<f64> {
        self.slot(name).copied()
    }

    /// The ranges that `torch.optim` accepts.
    fn check(self) -> Result<(), OptimizerError> {
        for name in self.names() {
            let value = self.get(name).unwrap_or(f64::NAN);
            let (fits, expected) = match *name {
                "beta1" | "beta2" | "momentum" => {
                    ((0.0..1.0).contains(&value), "at least 0 and below 1")
                }
                _ => (value >= 0.0 && value.is_finite(), "at least 0 and finite"),
            };
            if !fits {
                return Err(range(name, value, expected));
            }
        }
        match self {
            HyperParameters::Sgd(sgd) if sgd.nesterov && sgd.momentum == 0.0 => Err(range(
                "momentum",
                sgd.momentum,
                "above 0 with `nesterov = true`",
            )),
            _ => Ok(()),
        }
    }
}

/// Parameters that share their hyper-parameters, and their state.
#[derive(Debug)]
pub struct ParameterGroup {
    name: String,
    /// Places in the model's list of parameters.
    indices: Vec<usize>,
    /// Shared with the model, in the order of `indices`.
    parameters: Vec<NamedTensor>,
    hyper_parameters: HyperParameters,
    /// The learning rate that the schedule's factor is applied to.
    base_learning_rate: f64,
    /// False once a callback has set the learning rate: then it is the callback's.
    scheduled: bool,
    /// `<prefix>.<parameter>` with its tensor, prefix by prefix.
    state: Vec<NamedTensor>,
    lists: Lists,
}

/// A group's tensors as the kernels take them.
#[derive(Debug)]
struct Lists {
    parameters: TensorList,
    /// One for each of [`state_prefixes`].
    state: Vec<TensorList>,
}

/// What a checkpoint keeps of a group besides tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupState {
    /// The group's name.
    pub name: String,
    /// Hyper-parameters by name, as they are now.
    pub hyper_parameters: BTreeMap<String, f64>,
    /// Whether the schedule still owns the learning rate.
    pub scheduled: bool,
}

impl ParameterGroup {
    /// Its name: `all`, unless the run file makes groups.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The places of its parameters in [`crate::model::Network::parameters`].
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    /// The names of its hyper-parameters.
    pub fn hyper_parameter_names(&self) -> &'static [&'static str] {
        self.hyper_parameters.names()
    }

    /// The present learning rate.
    pub fn learning_rate(&self) -> f64 {
        match self.hyper_parameters {
            HyperParameters::Sgd(sgd) => sgd.learning_rate,
            HyperParameters::AdamW(adamw) => adamw.learning_rate,
        }
    }

    /// Whether the schedule owns the learning rate.
    pub fn scheduled(&self) -> bool {
        self.scheduled
    }

    /// A hyper-parameter's present value.
    pub fn get(&self, name: &str) -> Result<f64, OptimizerError> {
        self.hyper_parameters
            .get(name)
            .ok_or_else(|| self.unknown(name))
    }

    fn new(
        name: &str,
        indices: Vec<usize>,
        parameters: Vec<NamedTensor>,
        hyper_parameters: HyperParameters,
    ) -> Result<ParameterGroup, TorchError> {
        let state = new_state(&hyper_parameters, &parameters)?;
        let lists = Lists {
            parameters: list(&parameters)?,
            state: state_lists(&state, parameters.len())?,
        };
        Ok(ParameterGroup {
            name: name.to_owned(),
            indices,
            parameters,
            base_learning_rate: hyper_parameters.get("learning_rate").unwrap_or(0.0),
            hyper_parameters,
            scheduled: true,
            state,
            lists,
        })
    }

    fn step(&self) -> Result<(), TorchError> {
        let Lists { parameters, state } = &self.lists;
        match (&self.hyper_parameters, state.as_slice()) {
            (HyperParameters::Sgd(sgd), buffers) => {
                let buffers = buffers.first().filter(|_| sgd.momentum != 0.0);
                fused_sgd(parameters, buffers, *sgd)
            }
            (HyperParameters::AdamW(adamw), [exp_avgs, exp_avg_sqs, steps]) => {
                fused_adamw(parameters, exp_avgs, exp_avg_sqs, steps, *adamw)
            }
            // An empty group has no state to list.
            (HyperParameters::AdamW(_), _) => Ok(()),
        }
    }

    fn set(&mut self, name: &str, value: f64) -> Result<(), OptimizerError> {
        let mut changed = self.hyper_parameters;
        match changed.slot(name) {
            Some(slot) => *slot = value,
            None => return Err(self.unknown(name)),
        }
        changed.check()?;
        if self.state.is_empty() {
            self.state = new_state(&changed, &self.parameters)?;
            self.lists.state = state_lists(&self.state, self.parameters.len())?;
        }
        self.hyper_parameters = changed;
        self.scheduled &= name != "learning_rate";
        Ok(())
    }

    fn unknown(&self, name: &str) -> OptimizerError {
        OptimizerError::UnknownHyperParameter {
            name: name.to_owned(),
            available: quoted(self.hyper_parameters.names().iter().copied()),
        }
    }
}

/// An optimizer over a model's parameters. Belongs to the training thread.
///
/// Its state is zeros at first and changes in place; a parameter without a gradient is skipped, as in `torch.optim`.
#[derive(Debug)]
pub struct Optimizer {
    groups: Vec<ParameterGroup>,
    /// All groups' parameters, in the model's order.
    parameters: TensorList,
}

impl Optimizer {
    /// An optimizer over `parameters` in one group, with decay on all of them, as PyTorch leaves it.
    pub fn new(
        options: &OptimizerOptions,
        parameters: &[NamedTensor],
    ) -> Result<Optimizer, OptimizerError> {
        let hyper_parameters = HyperParameters::new(options);
        hyper_parameters.check()?;
        let shared = parameters
            .iter()
            .map(|parameter| NamedTensor {
                name: parameter.name.clone(),
                tensor: parameter.tensor.shallow_clone(),
            })
            .collect();
        let indices = (0..parameters.len()).collect();
        Ok(Optimizer {
            groups: vec![ParameterGroup::new(
                DEFAULT_GROUP,
                indices,
                shared,
                hyper_parameters,
            )?],
            parameters: list(parameters)?,
        })
    }

    /// Updates every parameter that has a gradient.
    pub fn step(&mut self) -> Result<(), OptimizerError> {
        for group in &self.groups {
            group.step()?;
        }
        Ok(())
    }

    /// Removes all gradients.
    pub fn clear_gradients(&mut self) -> Result<(), OptimizerError> {
        Ok(gradients::clear(&self.parameters)?)
    }

    /// The L2 norm over all gradients.
    pub fn gradient_norm(&self) -> Result<f64, OptimizerError> {
        Ok(gradients::norm(&self.parameters)?)
    }

    /// Scales the gradients so that their norm is at most `maximum`; returns the norm from before.
    pub fn clip_gradient_norm(&mut self, maximum: f64) -> Result<f64, OptimizerError> {
        Ok(gradients::clip_norm(&self.parameters, maximum)?)
    }

    /// Sets the learning rate of each group that the schedule owns to `factor` times its own.
    pub fn schedule(&mut self, factor: f64) {
        for group in &mut self.groups {
            if group.scheduled {
                let learning_rate = group.base_learning_rate * factor;
                match &mut group.hyper_parameters {
                    HyperParameters::Sgd(sgd) => sgd.learning_rate = learning_rate,
                    HyperParameters::AdamW(adamw) => adamw.learning_rate = learning_rate,
                }
            }
        }
    }

    /// The parameter groups.
    pub fn groups(&self) -> &[ParameterGroup] {
        &self.groups
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Result<&ParameterGroup, OptimizerError> {
        self.groups
            .iter()
            .find(|group| group.name == name)
            .ok_or_else(|| self.unknown_group(name))
    }

    /// Sets a hyper-parameter of a group for the updates to come. Who sets `learning_rate` takes it from the schedule
    /// for good. Setting `momentum` where there was none makes buffers of zeros.
    pub fn set(&mut self, group: &str, name: &str, value: f64) -> Result<(), OptimizerError> {
        match self
            .groups
            .iter_mut()
            .find(|candidate| candidate.name == group)
        {
            Some(group) => group.set(name, value),
            None => Err(self.unknown_group(group)),
        }
    }

    /// The state's tensors by name, `exp_avg.conv1.weight`. They are the optimizer's own: they change with the next
    /// step, and whoever keeps them copies them.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.state_tensors()
            .map(|named| (named.name.clone(), named.tensor.shallow_clone()))
            .collect()
    }

    /// Copies a state in: exactly the tensors that [`Optimizer::state`] names, in any order, on any device. Nothing is
    /// written when one is missing, unknown or of another shape or dtype. Comes after
    /// [`Optimizer::load_group_states`], since hyper-parameters decide which state there is.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), OptimizerError> {
        let mut given: BTreeMap<&str, &Tensor> = state
            .iter()
            .map(|(name, tensor)| (name.as_str(), tensor))
            .collect();
        let mut copies = Vec::with_capacity(state.len());
        for own in self.state_tensors() {
            let Some(value) = given.remove(own.name.as_str()) else {
                return Err(mismatch("lacks", &own.name));
            };
            if value.size() != own.tensor.size() || value.kind() != own.tensor.kind() {
                return Err(mismatch("has another shape or dtype for", &own.name));
            }
            copies.push((own.tensor.shallow_clone(), value));
        }
        if let Some(name) = given.keys().next() {
            return Err(mismatch("has an unknown", name));
        }
        for (mut own, value) in copies {
            own.f_copy_(value).map_err(TorchError::from)?;
        }
        Ok(())
    }

    /// What a checkpoint keeps of the groups besides tensors.
    pub fn group_states(&self) -> Vec<GroupState> {
        self.groups
            .iter()
            .map(|group| GroupState {
                name: group.name.clone(),
                hyper_parameters: group
                    .hyper_parameters
                    .names()
                    .iter()
                    .filter_map(|name| {
                        Some(((*name).to_owned(), group.hyper_parameters.get(name)?))
                    })
                    .collect(),
                scheduled: group.scheduled,
            })
            .collect()
    }

    /// Restores what [`Optimizer::group_states`] gave. The schedule's base stays that of the options.
    pub fn load_group_states(&mut self, states: &[GroupState]) -> Result<(), OptimizerError> {
        for state in states {
            for (name, value) in &state.hyper_parameters {
                self.set(&state.name, name, *value)?;
            }
            if let Some(group) = self
                .groups
                .iter_mut()
                .find(|group| group.name == state.name)
            {
                group.scheduled = state.scheduled;
            }
        }
        Ok(())
    }

    fn state_tensors(&self) -> impl Iterator<Item = &NamedTensor> {
        self.groups.iter().flat_map(|group| &group.state)
    }

    fn unknown_group(&self, name: &str) -> OptimizerError {
        OptimizerError::UnknownGroup {
            name: name.to_owned(),
            available: quoted(self.groups.iter().map(|group| group.name.as_str())),
        }
    }
}

fn mismatch(what: &'static str, name: &str) -> OptimizerError {
    OptimizerError::StateMismatch {
        what,
        name: name.to_owned(),
    }
}

fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn range(name: &str, value: f64, expected: &'static str) -> OptimizerError {
    OptimizerError::Range {
        name: name.to_owned(),
        value,
        expected,
    }
}

fn list(tensors: &[NamedTensor]) -> Result<TensorList, TorchError> {
    TensorList::new(tensors.iter().map(|named| &named.tensor))
}

/// The state that a parameter has, by PyTorch's names: `exp_avg` and `exp_avg_sq` (moments), `step` (updates so far,
/// f32 scalar), `momentum_buffer`.
fn state_prefixes(hyper_parameters: &HyperParameters) -> &'static [&'static str] {
    match hyper_parameters {
        HyperParameters::Sgd(sgd) if sgd.momentum == 0.0 => &[],
        HyperParameters::Sgd(_) => &["momentum_buffer"],
        HyperParameters::AdamW(_) => &["exp_avg", "exp_avg_sq", "step"],
    }
}

/// Zeros for every parameter, prefix by prefix.
fn new_state(
    hyper_parameters: &HyperParameters,
    parameters: &[NamedTensor],
) -> Result<Vec<NamedTensor>, TorchError> {
    let mut state = Vec::new();
    for prefix in state_prefixes(hyper_parameters) {
        for parameter in parameters {
            let tensor = match *prefix {
                // The fused kernels want the step on the parameter's device.
                "step" => Tensor::f_zeros([0i64; 0], (Kind::Float, parameter.tensor.device()))?,
                _ => tch::no_grad(|| parameter.tensor.f_zeros_like())?,
            };
            state.push(NamedTensor {
                name: format!("{prefix}.{}", parameter.name),
                tensor,
            });
        }
    }
    Ok(state)
}

fn state_lists(state: &[NamedTensor], parameters: usize) -> Result<Vec<TensorList>, TorchError> {
    state.chunks(parameters.max(1)).map(list).collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    const STEPS: usize = 30;

    /// Two parameters; the gradient of an element is a fixed function of its value and place.
    fn parameters() -> Vec<NamedTensor> {
        [("fc1.weight", vec![2i64, 3]), ("fc1.bias", vec![3])]
            .into_iter()
            .map(|(name, shape)| {
                let tensor = Tensor::linspace(
                    -1.0,
                    1.0,
                    shape.iter().product(),
                    (Kind::Float, Device::Cpu),
                );
                NamedTensor {
                    name: name.to_owned(),
                    tensor: tensor.reshape(shape).set_requires_grad(true),
                }
            })
            .collect()
    }

    /// Gradient `0.3 x + 0.5`, which is far from zero at every start: AdamW divides small gradients by themselves.
    fn backward(parameters: &[NamedTensor]) {
        for parameter in parameters {
            let x = &parameter.tensor;
            let loss = (x.square() * 0.15 + x * 0.5).sum(Kind::Float);
            loss.backward();
        }
    }

    fn gradient(x: f64) -> f64 {
        0.3 * x + 0.5
    }

    fn values(parameters: &[NamedTensor]) -> Vec<f64> {
        parameters
            .iter()
            .flat_map(|parameter| {
                Vec::<f64>::try_from(parameter.tensor.detach().reshape([-1])).unwrap()
            })
            .collect()
    }

    fn train(optimizer: &mut Optimizer, parameters: &[NamedTensor], steps: usize) {
        for _ in 0..steps {
            optimizer.clear_gradients().unwrap();
            backward(parameters);
            optimizer.step().unwrap();
        }
    }

    /// Trains with the kernels and with `update` in f64, which changes (value, state) by a gradient.
    fn compare(
        options: &OptimizerOptions,
        mut update: impl FnMut(&mut f64, &mut [f64; 2], f64, i32),
    ) {
        let parameters = parameters();
        let mut expected = values(&parameters);
        let mut state = vec![[0.0; 2]; expected.len()];
        let mut optimizer = Optimizer::new(options, &parameters).unwrap();
        train(&mut optimizer, &parameters, STEPS);
        for step in 1..=STEPS {
            for (value, state) in expected.iter_mut().zip(&mut state) {
                let gradient = gradient(*value);
                update(value, state, gradient, step as i32);
            }
        }
        for (found, expected) in values(&parameters).iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    fn adamw() -> OptimizerOptions {
        toml::from_str("type = \"adamw\"\nlearning_rate = 0.01").unwrap()
    }

    fn sgd(momentum: f64, nesterov: bool) -> OptimizerOptions {
        OptimizerOptions::Sgd {
            learning_rate: 0.05,
            momentum,
            nesterov,
            weight_decay: 0.1,
        }
    }

    #[test]
    fn adamw_computes_what_its_paper_says() {
        let (rate, beta1, beta2, eps, decay) = (0.01, 0.9, 0.999, 1e-8, 0.01);
        compare(&adamw(), |value, [first, second], gradient, step| {
            *value -= rate * decay * *value;
            *first = beta1 * *first + (1.0 - beta1) * gradient;
            *second = beta2 * *second + (1.0 - beta2) * gradient * gradient;
            let mean = *first / (1.0 - f64::powi(beta1, step));
            let square = *second / (1.0 - f64::powi(beta2, step));
            *value -= rate * mean / (square.sqrt() + eps);
        });
    }

    #[test]
    fn sgd_computes_what_torch_documents() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            compare(
                &sgd(momentum, nesterov),
                |value, [buffer, _], gradient, step| {
                    let gradient = gradient + 0.1 * *value;
                    *buffer = if step == 1 {
                        gradient
                    } else {
                        momentum * *buffer + gradient
                    };
                    *value -= 0.05
                        * if nesterov {
                            gradient + momentum * *buffer
                        } else {
                            *buffer
                        };
                },
            );
        }
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        for options in [adamw(), sgd(0.9, true), sgd(0.0, false)] {
            let unbroken = parameters();
            let mut optimizer = Optimizer::new(&options, &unbroken).unwrap();
            train(&mut optimizer, &unbroken, 5);
            optimizer.schedule(0.5);
            let saved: Vec<_> = optimizer
                .state()
                .into_iter()
                .map(|(name, tensor)| (name, tensor.copy()))
                .collect();
            let groups = optimizer.group_states();
            let resumed: Vec<_> = unbroken
                .iter()
                .map(|parameter| NamedTensor {
                    name: parameter.name.clone(),
                    tensor: parameter.tensor.detach().copy().set_requires_grad(true),
                })
                .collect();
            train(&mut optimizer, &unbroken, 5);

            let mut optimizer = Optimizer::new(&options, &resumed).unwrap();
            optimizer.load_group_states(&groups).unwrap();
            optimizer.load_state(&saved).unwrap();
            train(&mut optimizer, &resumed, 5);
            assert_eq!(values(&unbroken), values(&resumed));
        }
    }

    #[test]
    fn the_state_has_pytorchs_names() {
        let names = |options| -> Vec<String> {
            let optimizer = Optimizer::new(&options, &parameters()).unwrap();
            optimizer
                .state()
                .into_iter()
                .map(|(name, _)| name)
                .collect()
        };
        assert_eq!(
            names(adamw()),
            [
                "exp_avg.fc1.weight",
                "exp_avg.fc1.bias",
                "exp_avg_sq.fc1.weight",
                "exp_avg_sq.fc1.bias",
                "step.fc1.weight",
                "step.fc1.bias"
            ]
        );
        assert_eq!(
            names(sgd(0.9, false)),
            ["momentum_buffer.fc1.weight", "momentum_buffer.fc1.bias"]
        );
        assert!(names(sgd(0.0, false)).is_empty());
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_whole() {
        let parameters = parameters();
        let mut optimizer = Optimizer::new(&adamw(), &parameters).unwrap();
        let state = || -> Vec<(String, Tensor)> {
            optimizer
                .state()
                .into_iter()
                .map(|(name, tensor)| (name, tensor.ones_like()))
                .collect()
        };
        let (mut missing, mut unknown, mut reshaped) = (state(), state(), state());
        missing.pop();
        unknown.push(("exp_avg.fc2.weight".to_owned(), Tensor::from(0f32)));
        reshaped[1].1 = Tensor::from(0f32);
        for (state, what) in [
            (missing, "lacks `step.fc1.bias`"),
            (unknown, "has an unknown `exp_avg.fc2.weight`"),
            (
                reshaped,
                "has another shape or dtype for `exp_avg.fc1.bias`",
            ),
        ] {
            let error = optimizer.load_state(&state).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(
            optimizer
                .state()
                .iter()
                .all(|(_, tensor)| tensor.sum(Kind::Float).double_value(&[]) == 0.0)
        );
    }

    #[test]
    fn a_parameter_without_a_gradient_is_left_alone() {
        let parameters = parameters();
        let mut optimizer = Optimizer::new(&adamw(), &parameters).unwrap();
        let before = values(&parameters);
        backward(&parameters[1..]);
        optimizer.step().unwrap();
        let after = values(&parameters);
        assert_eq!(before[..6], after[..6]);
        assert_ne!(before[6..], after[6..]);
        let steps: Vec<f64> = optimizer.state()[4..]
            .iter()
            .map(|(_, step)| step.double_value(&[]))
            .collect();
        assert_eq!(steps, [0.0, 1.0]);
    }

    #[test]
    fn the_schedule_owns_the_learning_rate_until_it_is_set() {
        let mut optimizer = Optimizer::new(&adamw(), &parameters()).unwrap();
        optimizer.schedule(0.5);
        assert_eq!(optimizer.group("all").unwrap().learning_rate(), 0.005);
        optimizer.set("all", "weight_decay", 0.2).unwrap();
        assert!(optimizer.groups()[0].scheduled());
        optimizer.set("all", "learning_rate", 0.3).unwrap();
        optimizer.schedule(0.1);
        assert_eq!(optimizer.groups()[0].get("learning_rate"), Ok(0.3));
        assert_eq!(optimizer.groups()[0].get("weight_decay"), Ok(0.2));
    }

    #[test]
    fn momentum_may_begin_in_mid_run() {
        let parameters = parameters();
        let mut optimizer = Optimizer::new(&sgd(0.0, false), &parameters).unwrap();
        train(&mut optimizer, &parameters, 1);
        optimizer.set("all", "momentum", 0.9).unwrap();
        train(&mut optimizer, &parameters, 1);
        let buffers = optimizer.state();
        assert_eq!(buffers.len(), 2);
        assert!(buffers[0].1.abs().sum(Kind::Float).double_value(&[]) > 0.0);
    }

    #[test]
    fn names_and_ranges_are_checked() {
        let mut optimizer = Optimizer::new(&adamw(), &parameters()).unwrap();
        let mut message = |group: &str, name: &str, value| {
            optimizer.set(group, name, value).unwrap_err().to_string()
        };
        assert_eq!(
            message("some", "eps", 0.1),
            "the optimizer has no parameter group `some`; it has `all`"
        );
        assert_eq!(
            message("all", "momentum", 0.1),
            "the optimizer has no hyper-parameter `momentum`; it has `learning_rate`, `beta1`, `beta2`, `weight_decay`, `eps`"
        );
        assert_eq!(
            message("all", "beta1", 1.0),
            "hyper-parameter `beta1` = `1` must be at least 0 and below 1"
        );
        assert!(message("all", "learning_rate", f64::NAN).contains("`NaN`"));
        assert!(Optimizer::new(&sgd(0.0, true), &parameters()).is_err());
    }
}
