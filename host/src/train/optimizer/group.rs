//! Parameter groups: parameters, their hyper-parameters and their state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::{Decay, OptimizerError, error::quoted, hyper_parameters::HyperParameters};
use crate::{
    model::NamedTensor,
    torch::{TensorList, TorchError},
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
    decay: Decay,
    /// The optimizer's state by `<name>.<parameter>`: all parameters of one name, then those of the next.
    state: Vec<NamedTensor>,
    lists: Lists,
}

/// Parameters and state as the kernels take them.
#[derive(Debug)]
enum Lists {
    /// A list of parameters, either all with the group's weight decay or all without.
    Whole { all: List, decays: bool },
    /// Parameters with weight decay and those without are separate; `all` is for a weight decay of 0.
    Split { all: List, with: List, without: List },
}

#[derive(Debug)]
struct List {
    parameters: TensorList,
    /// One for each of [`HyperParameters::state_names`].
    state: Vec<TensorList>,
}

/// The part of a group in a checkpoint that is not tensors.
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
        let mut own = self.hyper_parameters;
        *own.learning_rate()
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
        decay: Decay,
    ) -> Result<ParameterGroup, TorchError> {
        let state = state(&hyper_parameters, &parameters, Vec::new())?;
        Ok(ParameterGroup {
            name: name.to_owned(),
            indices,
            base_learning_rate: hyper_parameters.get("learning_rate").unwrap_or(0.0),
            scheduled: true,
            lists: Lists::new(&parameters, &state, decay)?,
            decay,
            state,
            parameters,
            hyper_parameters,
        })
    }

    pub(super) fn step(&self) -> Result<(), TorchError> {
        let mut undecayed = self.hyper_parameters;
        let has_decay = std::mem::take(undecayed.weight_decay()) != 0.0;
        match &self.lists {
            Lists::Whole { all, decays: true } => all.update(&self.hyper_parameters),
            Lists::Split { with, without, .. } if has_decay => {
                with.update(&self.hyper_parameters)?;
                without.update(&undecayed)
            }
            Lists::Whole { all, decays: false } | Lists::Split { all, .. } => all.update(&undecayed),
        }
    }

    pub(super) fn schedule(&mut self, factor: f64) {
        if self.scheduled {
            *self.hyper_parameters.learning_rate() = self.base_learning_rate * factor;
        }
    }

    pub(super) fn restore_learning_rate(&mut self, value: f64) {
        *self.hyper_parameters.learning_rate() = value;
    }

    pub(super) fn set(&mut self, name: &str, value: f64) -> Result<(), OptimizerError> {
        let mut changed = self.hyper_parameters;
        match changed.slot(name) {
            Some(slot) => *slot = value,
            None => return Err(self.unknown(name)),
        }
        changed.check()?;
        if changed.state_names() != self.hyper_parameters.state_names() {
            self.state = state(&changed, &self.parameters, std::mem::take(&mut self.state))?;
            self.lists = Lists::new(&self.parameters, &self.state, self.decay)?;
        }
        self.hyper_parameters = changed;
        self.scheduled &= name != "learning_rate";
        Ok(())
    }

    pub(super) fn state_tensors(&self) -> &[NamedTensor] {
        &self.state
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

impl Lists {
    fn new(parameters: &[NamedTensor], state: &[NamedTensor], decay: Decay) -> Result<Lists, TorchError> {
        let decays = |parameter: &NamedTensor| decay == Decay::All || parameter.tensor.dim() > 1;
        let all = List::new(parameters, state, |_| true)?;
        if parameters.iter().all(decays) {
            return Ok(Lists::Whole { all, decays: true });
        }
        if !parameters.iter().any(decays) {
            return Ok(Lists::Whole { all, decays: false });
        }
        Ok(Lists::Split {
            all,
            with: List::new(parameters, state, decays)?,
            without: List::new(parameters, state, |parameter| !decays(parameter))?,
        })
    }
}

impl List {
    fn new(
        parameters: &[NamedTensor],
        state: &[NamedTensor],
        takes: impl Fn(&NamedTensor) -> bool,
    ) -> Result<List, TorchError> {
        let taken = |tensors: &[NamedTensor]| {
            let pairs = parameters.iter().zip(tensors).filter(|(parameter, _)| takes(parameter));
            TensorList::new(pairs.map(|(_, named)| &named.tensor))
        };
        let state = state.chunks(parameters.len().max(1)).map(taken).collect::<Result<_, _>>()?;
        Ok(List { parameters: taken(parameters)?, state })
    }

    fn update(&self, hyper_parameters: &HyperParameters) -> Result<(), TorchError> {
        hyper_parameters.update(&self.parameters, &self.state)
    }
}

/// The state of each parameter: that of `before` with its name, if there is one, else a new one.
fn state(
    hyper_parameters: &HyperParameters,
    parameters: &[NamedTensor],
    before: Vec<NamedTensor>,
) -> Result<Vec<NamedTensor>, TorchError> {
    let mut before: BTreeMap<String, Tensor> = before.into_iter().map(|named| (named.name, named.tensor)).collect();
    let mut tensors = Vec::new();
    for state in hyper_parameters.state_names() {
        for parameter in parameters {
            let name = format!("{state}.{}", parameter.name);
            let tensor = match (before.remove(&name), *state) {
                (Some(tensor), _) => tensor,
                // The fused kernels need the step on the parameter's device.
                (None, "step") => Tensor::f_zeros([0i64; 0], (Kind::Float, parameter.tensor.device()))?,
                (None, state) => {
                    let initial = hyper_parameters.initial(state);
                    tch::no_grad(|| parameter.tensor.f_full_like(initial))?
                }
            };
            tensors.push(NamedTensor { name, tensor });
        }
    }
    Ok(tensors)
}
