//! Freezing: parameters that training leaves as they are.
//!
//! A frozen parameter requires no gradient, so that nothing is computed for it, or below the first layer that learns, and
//! it has none: what reads gradients, the optimizer above all, skips it with its state.

use std::collections::{BTreeSet, HashSet};

use plugin_api::abi::kinds::Status;
use plugin_api::protocol::requests::Freeze;
use plugin_api::services::{Refusal, fitting, nothing_learns};
use serde::{Deserialize, Serialize};

use super::error::ModelError;
use super::graph::Node;
use super::named_tensor::NamedTensor;
use super::network::Network;
use super::op::Op;
use crate::torch::{TensorList, gradients};

/// What is frozen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Frozen {
    /// The names of the frozen parameters.
    parameters: BTreeSet<String>,
    /// Those of them that leave the statistics of their batch norm moving.
    moving_statistics: BTreeSet<String>,
}

impl Frozen {
    /// These parameters.
    pub(super) fn of(parameters: BTreeSet<String>, moving_statistics: bool) -> Frozen {
        let moving_statistics = if moving_statistics { parameters.clone() } else { BTreeSet::new() };
        Frozen { parameters, moving_statistics }
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Whether the parameter of this name is.
    pub fn contains(&self, parameter: &str) -> bool {
        self.parameters.contains(parameter)
    }

    /// What is frozen after a request, of a model with these parameters.
    ///
    /// # Errors
    ///
    /// A pattern that fits none of the parameters, and patterns that leave none to learn.
    pub fn after(&self, request: &Freeze, parameters: &[&str]) -> Result<Frozen, Refusal> {
        let mut after = self.clone();
        for name in fitting("parameter", &request.patterns, parameters)? {
            after.parameters.remove(name);
            after.moving_statistics.remove(name);
            if request.frozen {
                after.parameters.insert(name.to_owned());
            }
            if request.frozen && request.moving_statistics {
                after.moving_statistics.insert(name.to_owned());
            }
        }
        match parameters.iter().any(|name| !after.contains(name)) {
            true => Ok(after),
            false => Err(nothing_learns()),
        }
    }

    /// Whether all of a batch norm's `parameters` are frozen, and its statistics with them.
    fn stills<'p>(&self, mut parameters: impl Iterator<Item = &'p str>) -> bool {
        parameters.all(|name| self.contains(name) && !self.moving_statistics.contains(name))
    }
}

impl Network {
    /// What is frozen.
    pub fn frozen(&self) -> &Frozen {
        &self.frozen
    }

    /// What is frozen after a request. That of the run file comes `first`: it leaves the adapters of LoRA learning. One that lets
    /// parameters learn again concerns what is not the base of adapters, which stays as it is.
    ///
    /// # Errors
    ///
    /// Those of [`Frozen::after`], and a request to let only parameters of the base learn.
    pub fn frozen_after(&self, request: &Freeze, first: bool) -> Result<Frozen, Refusal> {
        let parameters: Vec<&str> = self.parameters().iter().map(|named| named.name.as_str()).collect();
        let Some(lora) = self.lora() else { return self.frozen.after(request, &parameters) };
        let mut request = request.clone();
        if first {
            let others: Vec<&str> = parameters.iter().copied().filter(|name| !lora.is_adapter(name)).collect();
            let names = fitting("parameter", &request.patterns, &others)?;
            request.patterns = names.into_iter().map(str::to_owned).collect();
        }
        if !first && !request.frozen {
            let names = fitting("parameter", &request.patterns, &parameters)?;
            let base = names.first().copied().unwrap_or_default().to_owned();
            let (_, learn): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| lora.is_base(name));
            if learn.is_empty() {
                let message = format!(
                    "`{base}` stays as it is beside the adapters; `train` of `[model] lora` names what is trained itself"
                );
                return Err(Refusal { status: Status::ERROR, message });
            }
            request.patterns = learn.into_iter().map(str::to_owned).collect();
        }
        self.frozen.after(&request, &parameters)
    }

    /// Freezes exactly what `frozen` says; the others learn.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn set_frozen(&mut self, frozen: Frozen) -> Result<(), ModelError> {
        let mut without_gradient = Vec::new();
        for NamedTensor { name, tensor } in self.parameters() {
            let is_frozen = frozen.contains(name);
            let _ = tensor.f_set_requires_grad(!is_frozen)?;
            if is_frozen {
                without_gradient.push(tensor);
            }
        }
        gradients::clear(&TensorList::new(without_gradient)?)?;
        if let Some(graph) = self.executed_graph() {
            let is_still = |node: &&Node| {
                matches!(node.op, Op::BatchNorm { .. })
                    && frozen.stills(node.parameters.iter().map(|spec| spec.name.as_str()))
            };
            let still: HashSet<&str> = graph
                .nodes()
                .iter()
                .filter(is_still)
                .flat_map(|node| node.buffers.iter().map(|spec| spec.name.as_str()))
                .collect();
            self.still = self.buffers().iter().map(|named| still.contains(named.name.as_str())).collect();
        }
        if let Some(program) = self.program_mut() {
            let all = |parameters: &[String]| frozen.stills(parameters.iter().map(String::as_str));
            let still = program.freeze_statistics(all)?;
            self.still = self.buffers().iter().map(|named| still.contains(&named.name)).collect();
        }
        self.frozen = frozen;
        Ok(())
    }

    /// The buffers that training may move: those of a frozen batch norm are left out.
    pub fn moving_buffers(&self) -> impl Iterator<Item = &NamedTensor> {
        self.buffers().iter().zip(&self.still).filter(|(_, still)| !**still).map(|(named, _)| named)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::model::{Dtype, Mode, ModelOptions};

    const LAYERS: &str = r#"
        layers = [
          { type = "conv2d", out_channels = 2, kernel_size = 3 },
          { type = "batch_norm" },
          { type = "relu" },
          { type = "flatten" },
          { type = "linear", out_features = 3 },
        ]
    "#;

    fn network() -> Network {
        let options: ModelOptions = toml::from_str(LAYERS).unwrap();
        Network::new(Arc::new(options.lower(&[1, 5, 5], Dtype::F32).unwrap()), 1, Device::Cpu).unwrap()
    }

    fn request(patterns: &[&str], frozen: bool, moving_statistics: bool) -> Freeze {
        let patterns = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        Freeze { patterns, frozen, moving_statistics }
    }

    fn freeze(network: &mut Network, request: &Freeze) -> Result<(), Refusal> {
        let names: Vec<&str> = network.parameters().iter().map(|named| named.name.as_str()).collect();
        let frozen = network.frozen().after(request, &names)?;
        network.set_frozen(frozen).unwrap();
        Ok(())
    }

    /// A training step's gradients; returns the values of the graph's nodes.
    fn step(network: &Network) -> Vec<Tensor> {
        let images = Tensor::arange(4 * 25, (Kind::Float, Device::Cpu)).sin().reshape([4, 1, 5, 5]);
        let nodes: Vec<usize> = (0..network.graph().unwrap().nodes().len()).collect();
        let (output, values) = network.forward_with(&images, Mode::Train, &nodes).unwrap();
        output.square().sum(Kind::Float).backward();
        values
    }

    fn with_gradient(network: &Network) -> Vec<&str> {
        let has = |named: &&NamedTensor| named.tensor.grad().defined();
        network.parameters().iter().filter(has).map(|named| named.name.as_str()).collect()
    }

    #[test]
    fn what_is_frozen_has_no_gradient_and_nothing_below_is_computed() {
        let mut network = network();
        step(&network);
        freeze(&mut network, &request(&["conv*", "bn*"], true, false)).unwrap();
        assert_eq!(with_gradient(&network), ["fc1.weight", "fc1.bias"], "those of before are gone at once");
        let values = step(&network);
        assert_eq!(with_gradient(&network), ["fc1.weight", "fc1.bias"]);
        let recorded: Vec<bool> = values.iter().map(Tensor::requires_grad).collect();
        assert_eq!(recorded, [false, false, false, false, true]);

        freeze(&mut network, &request(&["conv1.weight"], false, false)).unwrap();
        step(&network);
        assert_eq!(with_gradient(&network), ["conv1.weight", "fc1.weight", "fc1.bias"]);
    }

    #[test]
    fn statistics_stay_when_all_of_their_batch_norm_is_frozen_unless_they_move() {
        let moved = |request: &Freeze| {
            let mut network = network();
            freeze(&mut network, request).unwrap();
            let before = network.copy().unwrap();
            step(&network);
            let is_moved = |named: &&NamedTensor| named.tensor != *network.tensor(&named.name).unwrap();
            before.iter().filter(is_moved).map(|named| named.name.clone()).collect::<Vec<_>>()
        };
        let statistics = ["bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked"];
        assert_eq!(moved(&request(&["bn1.*"], true, false)), [""; 0]);
        assert_eq!(moved(&request(&["bn1.*"], true, true)), statistics);
        assert_eq!(moved(&request(&["bn1.weight"], true, false)), statistics);
        assert_eq!(moved(&request(&["conv*"], true, false)), statistics);
    }

    #[test]
    fn something_must_learn_and_a_refused_request_changes_nothing() {
        let mut network = network();
        freeze(&mut network, &request(&["conv*", "bn*"], true, false)).unwrap();
        let before = network.frozen().clone();
        assert_eq!(freeze(&mut network, &request(&["fc1.*"], true, false)).unwrap_err(), nothing_learns());
        let unknown = freeze(&mut network, &request(&["fc1.bias", "fx1.*"], true, false)).unwrap_err();
        assert_eq!(unknown.message, "there is no parameter `fx1.*`; did you mean `fc1.*`?");
        assert_eq!(*network.frozen(), before);
    }
}
