//! Optimizers over libtorch's kernels, with their state in tensors that have names.

mod error;
mod group;
mod hyper_parameters;
mod layer_decay;
mod options;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use tch::Tensor;

pub use error::OptimizerError;
use error::quoted;
pub use group::{GroupState, ParameterGroup};
pub use options::{Decay, GroupOptions, OptimizerOptions};

use crate::{
    model::NamedTensor,
    torch::{TensorList, TorchError, gradients},
};

/// The group that every parameter is in unless the run file makes groups.
const ALL: &str = "all";

/// The group of the parameters that are in none of the run file's groups.
const REST: &str = "rest";

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
    /// An optimizer over `parameters` in the groups that the options make.
    pub fn new(options: &OptimizerOptions, parameters: &[NamedTensor]) -> Result<Optimizer, OptimizerError> {
        options.check()?;
        let names: Vec<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        let mut groups = Vec::new();
        for Members { name, group, layer_factor, indices } in members(options, &names)? {
            let shared = indices.iter().map(|index| NamedTensor {
                name: parameters[*index].name.clone(),
                tensor: parameters[*index].tensor.shallow_clone(),
            });
            let mut own = options.hyper_parameters_of(group);
            if let Some(rate) = own.slot("learning_rate") {
                *rate *= layer_factor;
            }
            let decay = match group {
                Some(group) if group.weight_decay.is_some() => Decay::All,
                _ => options.decay(),
            };
            groups.push(ParameterGroup::new(&name, indices.clone(), shared.collect(), own, decay)?);
        }
        Ok(Optimizer { groups, parameters: TensorList::new(parameters.iter().map(|parameter| &parameter.tensor))? })
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

    /// Divides the gradients by `scale`, a power of two; returns whether all are finite.
    pub fn unscale_gradients(&mut self, scale: f64) -> Result<bool, OptimizerError> {
        Ok(gradients::unscale(&self.parameters, scale)?)
    }

    /// Sets the learning rate of each group that the schedule owns to `factor` times its own.
    pub fn schedule(&mut self, factor: f64) {
        for group in &mut self.groups {
            group.schedule(factor);
        }
    }

    /// Sets the present learning rate of the group at `index`, which the schedule still owns.
    pub(super) fn restore_learning_rate(&mut self, index: usize, value: f64) {
        if let Some(group) = self.groups.get_mut(index) {
            group.restore_learning_rate(value);
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

    /// Sets a hyper-parameter of a group for the next updates. Setting `learning_rate` takes it from the schedule
    /// permanently. Setting `momentum` to or from 0 drops or creates its buffers, which start at zeros.
    pub fn set(&mut self, group: &str, name: &str, value: f64) -> Result<(), OptimizerError> {
        self.group_mut(group)?.set(name, value)
    }

    /// The state's tensors by name, `exp_avg.conv1.weight`. They are the optimizer's own: they change with the next
    /// step, so copy them to keep them.
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

    /// The part of the groups in a checkpoint that is not tensors.
    pub fn group_states(&self) -> Vec<GroupState> {
        self.groups.iter().map(ParameterGroup::saved).collect()
    }

    /// Restores what [`Optimizer::group_states`] returned. The schedule's base stays that of the options.
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

/// A parameter group in the making.
struct Members<'a> {
    name: String,
    /// `None` for parameters in no other group.
    group: Option<&'a GroupOptions>,
    /// What its learning rate is multiplied by.
    layer_factor: f64,
    indices: Vec<usize>,
}

/// The parameters of each group, in the order of the options; parameters in none come last. With `layer_decay`, each group is
/// one for each layer in it.
fn members<'a>(options: &'a OptimizerOptions, names: &[&str]) -> Result<Vec<Members<'a>>, OptimizerError> {
    let of = |group: Option<&'a GroupOptions>| {
        let name = match group {
            Some(group) => group.name(),
            None if options.groups().is_empty() => ALL,
            None => REST,
        };
        Members { name: name.to_owned(), group, layer_factor: 1.0, indices: Vec::new() }
    };
    let mut all: Vec<Members<'_>> = options.groups().iter().map(Some).chain([None]).map(of).collect();
    for (index, name) in names.iter().enumerate() {
        let taker = all.iter_mut().find(|members| members.group.is_none_or(|group| group.fits(name)));
        taker.into_iter().for_each(|members| members.indices.push(index));
    }
    for members in &all {
        if let (Some(group), true) = (members.group, members.indices.is_empty()) {
            let why = match names.iter().any(|name| group.fits(name)) {
                true => "earlier groups have all of the names like",
                false => "none has a name like",
            };
            return Err(OptimizerError::EmptyGroup {
                group: group.name().to_owned(),
                pattern: group.pattern.clone(),
                why,
                parameters: names.iter().map(|name| (*name).to_owned()).collect(),
            });
        }
    }
    // Without groups there is always this one, so that callbacks find it even if a model has no parameters.
    all.retain(|members| !members.indices.is_empty() || options.groups().is_empty());
    match options.layer_decay() {
        Some(decay) => by_layer(all, decay, names),
        None => Ok(all),
    }
}

/// The groups, each split into its layers.
fn by_layer<'a>(groups: Vec<Members<'a>>, decay: f64, names: &[&str]) -> Result<Vec<Members<'a>>, OptimizerError> {
    let layers = layer_decay::layers(names);
    let last = layers.iter().copied().max().unwrap_or(0);
    if last == 0 {
        return Err(OptimizerError::NoLayers { parameters: names.iter().map(|name| (*name).to_owned()).collect() });
    }
    let mut split: Vec<Members<'a>> = Vec::new();
    for Members { name, group, indices, .. } in groups {
        for layer in 0..=last {
            let indices: Vec<usize> = indices.iter().copied().filter(|&index| layers[index] == layer).collect();
            if indices.is_empty() {
                continue;
            }
            let name = if name == ALL { format!("layer_{layer}") } else { format!("{name}_layer_{layer}") };
            if split.iter().any(|other| other.name == name) {
                return Err(OptimizerError::GroupName { name });
            }
            let layer_factor = decay.powi(i32::try_from(last - layer).unwrap_or(i32::MAX));
            split.push(Members { name, group, layer_factor, indices });
        }
    }
    Ok(split)
}

impl OptimizerOptions {
    /// Checks that each group has parameters among those of these names.
    pub fn check_groups(&self, names: &[&str]) -> Result<(), OptimizerError> {
        members(self, names).map(drop)
    }

    /// The metrics that hold the learning rates of a model with parameters of these names.
    pub fn learning_rate_names(&self, names: &[&str]) -> Vec<String> {
        let groups = members(self, names).unwrap_or_default();
        learning_rate_names(groups.iter().map(|members| members.name.as_str()))
    }
}

/// The metric of each group's learning rate; a run without groups has one.
pub(super) fn learning_rate_names<'a>(groups: impl ExactSizeIterator<Item = &'a str>) -> Vec<String> {
    match groups.len() {
        0 | 1 => vec!["learning_rate".to_owned()],
        _ => groups.map(|group| format!("learning_rate_{group}")).collect(),
    }
}

fn mismatch(what: &'static str, name: &str) -> OptimizerError {
    OptimizerError::StateMismatch { what, name: name.to_owned() }
}
