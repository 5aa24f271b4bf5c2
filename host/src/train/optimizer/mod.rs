//! Optimizers over libtorch's fused kernels, with their state in tensors that have names.

mod error;
mod group;
mod hyper_parameters;

use std::collections::BTreeMap;

use tch::Tensor;

pub use error::OptimizerError;
use error::quoted;
use group::list;
pub use group::{GroupState, ParameterGroup};
use hyper_parameters::HyperParameters;
pub use hyper_parameters::OptimizerOptions;

use crate::{
    model::NamedTensor,
    torch::{TensorList, TorchError, gradients},
};

/// The group that every parameter is in unless the run file makes others.
const DEFAULT_GROUP: &str = "all";

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
    pub fn new(options: &OptimizerOptions, parameters: &[NamedTensor]) -> Result<Optimizer, OptimizerError> {
        let hyper_parameters = HyperParameters::new(options);
        hyper_parameters.check()?;
        let shared = parameters
            .iter()
            .map(|parameter| NamedTensor { name: parameter.name.clone(), tensor: parameter.tensor.shallow_clone() })
            .collect();
        let indices = (0..parameters.len()).collect();
        Ok(Optimizer {
            groups: vec![ParameterGroup::new(DEFAULT_GROUP, indices, shared, hyper_parameters)?],
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
            group.schedule(factor);
        }
    }

    /// The parameter groups.
    pub fn groups(&self) -> &[ParameterGroup] {
        &self.groups
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Result<&ParameterGroup, OptimizerError> {
        self.groups.iter().find(|group| group.name() == name).ok_or_else(|| self.unknown_group(name))
    }

    /// Sets a hyper-parameter of a group for the updates to come. Who sets `learning_rate` takes it from the schedule
    /// for good. Setting `momentum` to or from 0 makes or drops its buffers, which start at zeros.
    pub fn set(&mut self, group: &str, name: &str, value: f64) -> Result<(), OptimizerError> {
        self.group_mut(group)?.set(name, value)
    }

    /// The state's tensors by name, `exp_avg.conv1.weight`. They are the optimizer's own: they change with the next
    /// step, and whoever keeps them copies them.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.state_tensors().map(|named| (named.name.clone(), named.tensor.shallow_clone())).collect()
    }

    /// Copies a state in: exactly the tensors that [`Optimizer::state`] names, in any order, on any device. Nothing is
    /// written when one is missing, unknown or of another shape or dtype. Comes after
    /// [`Optimizer::load_group_states`], since hyper-parameters decide which state there is.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), OptimizerError> {
        let mut given: BTreeMap<&str, &Tensor> = state.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
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
        self.groups.iter().map(ParameterGroup::saved).collect()
    }

    /// Restores what [`Optimizer::group_states`] gave. The schedule's base stays that of the options.
    pub fn load_group_states(&mut self, states: &[GroupState]) -> Result<(), OptimizerError> {
        for state in states {
            self.group_mut(&state.name)?.restore(state)?;
        }
        Ok(())
    }

    fn group_mut(&mut self, name: &str) -> Result<&mut ParameterGroup, OptimizerError> {
        match self.groups.iter().position(|group| group.name() == name) {
            Some(index) => Ok(&mut self.groups[index]),
            None => Err(self.unknown_group(name)),
        }
    }

    fn state_tensors(&self) -> impl Iterator<Item = &NamedTensor> {
        self.groups.iter().flat_map(|group| group.state_tensors())
    }

    fn unknown_group(&self, name: &str) -> OptimizerError {
        OptimizerError::UnknownGroup {
            name: name.to_owned(),
            available: quoted(self.groups.iter().map(|group| group.name())),
        }
    }
}

fn mismatch(what: &'static str, name: &str) -> OptimizerError {
    OptimizerError::StateMismatch { what, name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    const STEPS: usize = 30;

    /// Two parameters; the gradient of an element is a fixed function of its value and place.
    fn parameters() -> Vec<NamedTensor> {
        [("fc1.weight", vec![2i64, 3]), ("fc1.bias", vec![3])]
            .into_iter()
            .map(|(name, shape)| {
                let tensor = Tensor::linspace(-1.0, 1.0, shape.iter().product(), (Kind::Float, Device::Cpu));
                NamedTensor { name: name.to_owned(), tensor: tensor.reshape(shape).set_requires_grad(true) }
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
            .flat_map(|parameter| Vec::<f64>::try_from(parameter.tensor.detach().reshape([-1])).unwrap())
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
    fn compare(options: &OptimizerOptions, mut update: impl FnMut(&mut f64, &mut [f64; 2], f64, i32)) {
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
        OptimizerOptions::Sgd { learning_rate: 0.05, momentum, nesterov, weight_decay: 0.1 }
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
            compare(&sgd(momentum, nesterov), |value, [buffer, _], gradient, step| {
                let gradient = gradient + 0.1 * *value;
                *buffer = if step == 1 { gradient } else { momentum * *buffer + gradient };
                *value -= 0.05 * if nesterov { gradient + momentum * *buffer } else { *buffer };
            });
        }
    }

    #[test]
    fn a_restored_state_goes_on_bit_for_bit() {
        for options in [adamw(), sgd(0.9, true), sgd(0.0, false)] {
            let unbroken = parameters();
            let mut optimizer = Optimizer::new(&options, &unbroken).unwrap();
            train(&mut optimizer, &unbroken, 5);
            optimizer.schedule(0.5);
            let saved: Vec<_> = optimizer.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
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
            optimizer.state().into_iter().map(|(name, _)| name).collect()
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
        assert_eq!(names(sgd(0.9, false)), ["momentum_buffer.fc1.weight", "momentum_buffer.fc1.bias"]);
        assert!(names(sgd(0.0, false)).is_empty());
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_whole() {
        let parameters = parameters();
        let mut optimizer = Optimizer::new(&adamw(), &parameters).unwrap();
        let state = || -> Vec<(String, Tensor)> {
            optimizer.state().into_iter().map(|(name, tensor)| (name, tensor.ones_like())).collect()
        };
        let (mut missing, mut unknown, mut reshaped) = (state(), state(), state());
        missing.pop();
        unknown.push(("exp_avg.fc2.weight".to_owned(), Tensor::from(0f32)));
        reshaped[1].1 = Tensor::from(0f32);
        for (state, what) in [
            (missing, "lacks `step.fc1.bias`"),
            (unknown, "has an unknown `exp_avg.fc2.weight`"),
            (reshaped, "has another shape or dtype for `exp_avg.fc1.bias`"),
        ] {
            let error = optimizer.load_state(&state).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        assert!(optimizer.state().iter().all(|(_, tensor)| tensor.sum(Kind::Float).double_value(&[]) == 0.0));
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
        let steps: Vec<f64> = optimizer.state()[4..].iter().map(|(_, step)| step.double_value(&[])).collect();
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
        optimizer.set("all", "momentum", 0.0).unwrap();
        train(&mut optimizer, &parameters, 1);
        assert!(optimizer.state().is_empty());
    }

    #[test]
    fn names_and_ranges_are_checked() {
        let mut optimizer = Optimizer::new(&adamw(), &parameters()).unwrap();
        let mut message = |group: &str, name: &str, value| optimizer.set(group, name, value).unwrap_err().to_string();
        assert_eq!(message("some", "eps", 0.1), "the optimizer has no parameter group `some`; it has `all`");
        assert_eq!(
            message("all", "momentum", 0.1),
            "the optimizer has no hyper-parameter `momentum`; it has `learning_rate`, `beta1`, `beta2`, `weight_decay`, `eps`"
        );
        assert_eq!(message("all", "beta1", 1.0), "hyper-parameter `beta1` = `1` must be at least 0 and below 1");
        assert!(message("all", "learning_rate", f64::NAN).contains("`NaN`"));
        assert!(Optimizer::new(&sgd(0.0, true), &parameters()).is_err());
    }
}
