//! Parameter groups: parameters, their hyper-parameters and their state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{OptimizerError, error::quoted, hyper_parameters::HyperParameters};
use crate::{
    model::NamedTensor,
    torch::{
        TensorList, TorchError,
        optimizer_kernels::{fused_adamw, fused_sgd},
    },
};

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
    state: State,
    /// The tensors of `parameters`, as the kernels take them.
    list: TensorList,
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
        self.hyper_parameters.get(name).ok_or_else(|| self.unknown(name))
    }

    pub(super) fn new(
        name: &str,
        indices: Vec<usize>,
        parameters: Vec<NamedTensor>,
        hyper_parameters: HyperParameters,
    ) -> Result<ParameterGroup, TorchError> {
        Ok(ParameterGroup {
            name: name.to_owned(),
            indices,
            base_learning_rate: hyper_parameters.get("learning_rate").unwrap_or(0.0),
            scheduled: true,
            state: State::zeros(&hyper_parameters, &parameters)?,
            list: list(&parameters)?,
            parameters,
            hyper_parameters,
        })
    }

    pub(super) fn step(&self) -> Result<(), TorchError> {
        match (&self.hyper_parameters, self.state.lists.as_slice()) {
            (HyperParameters::Sgd(sgd), buffers) => fused_sgd(&self.list, buffers.first(), *sgd),
            (HyperParameters::AdamW(adamw), [exp_avgs, exp_avg_sqs, steps]) => {
                fused_adamw(&self.list, exp_avgs, exp_avg_sqs, steps, *adamw)
            }
            // A group without parameters has no state to list.
            (HyperParameters::AdamW(_), _) => Ok(()),
        }
    }

    pub(super) fn schedule(&mut self, factor: f64) {
        if self.scheduled {
            let learning_rate = self.base_learning_rate * factor;
            match &mut self.hyper_parameters {
                HyperParameters::Sgd(sgd) => sgd.learning_rate = learning_rate,
                HyperParameters::AdamW(adamw) => adamw.learning_rate = learning_rate,
            }
        }
    }

    pub(super) fn set(&mut self, name: &str, value: f64) -> Result<(), OptimizerError> {
        let mut changed = self.hyper_parameters;
        match changed.slot(name) {
            Some(slot) => *slot = value,
            None => return Err(self.unknown(name)),
        }
        changed.check()?;
        if changed.state_names() != self.hyper_parameters.state_names() {
            self.state = State::zeros(&changed, &self.parameters)?;
        }
        self.hyper_parameters = changed;
        self.scheduled &= name != "learning_rate";
        Ok(())
    }

    pub(super) fn state_tensors(&self) -> &[NamedTensor] {
        &self.state.tensors
    }

    pub(super) fn saved(&self) -> GroupState {
        let hyper_parameters = self.hyper_parameters.names().iter();
        GroupState {
            name: self.name.clone(),
            hyper_parameters: hyper_parameters
                .filter_map(|name| Some(((*name).to_owned(), self.hyper_parameters.get(name)?)))
                .collect(),
            scheduled: self.scheduled,
        }
    }

    pub(super) fn restore(&mut self, saved: &GroupState) -> Result<(), OptimizerError> {
        for (name, value) in &saved.hyper_parameters {
            self.set(name, *value)?;
        }
        self.scheduled = saved.scheduled;
        Ok(())
    }

    fn unknown(&self, name: &str) -> OptimizerError {
        OptimizerError::UnknownHyperParameter {
            name: name.to_owned(),
            available: quoted(self.hyper_parameters.names().iter().copied()),
        }
    }
}

/// What the optimizer remembers of each parameter.
#[derive(Debug)]
struct State {
    /// `<name>.<parameter>`, all parameters of one name after another.
    tensors: Vec<NamedTensor>,
    /// The same as the kernels take them: one list for each of [`HyperParameters::state_names`].
    lists: Vec<TensorList>,
}

impl State {
    fn zeros(hyper_parameters: &HyperParameters, parameters: &[NamedTensor]) -> Result<State, TorchError> {
        let mut tensors = Vec::new();
        for name in hyper_parameters.state_names() {
            for parameter in parameters {
                let tensor = match *name {
                    // The fused kernels want the step on the parameter's device.
                    "step" => Tensor::f_zeros([0i64; 0], (Kind::Float, parameter.tensor.device()))?,
                    _ => tch::no_grad(|| parameter.tensor.f_zeros_like())?,
                };
                tensors.push(NamedTensor { name: format!("{name}.{}", parameter.name), tensor });
            }
        }
        let lists = tensors.chunks(parameters.len().max(1)).map(list).collect::<Result<_, _>>()?;
        Ok(State { tensors, lists })
    }
}

pub(super) fn list(tensors: &[NamedTensor]) -> Result<TensorList, TorchError> {
    TensorList::new(tensors.iter().map(|named| &named.tensor))
}
