//! A model with its tensors on a device.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use tch::{Device, Tensor};

use super::{
    batch::{Forwarded, ModelBatch},
    custom::{BoxError, Forward, check_tensors},
    error::ModelError,
    execute::{ExecutionPlan, Mode, Weights},
    exported,
    frozen::Frozen,
    graph::Graph,
    initialize::initialize,
    lora::{self, Lora, Roles},
    named_tensor::NamedTensor,
    op::TensorSpec,
};
use crate::model::program::Exported;
use crate::torch::{TorchError, c10d::Group};

/// A model that can be executed: a graph or another forward pass, its parameters (which require gradients) and its
/// buffers.
///
/// Belongs to the training thread. Its tensors stay the same objects for its whole life, and values are written in
/// place, so an optimizer may hold them.
#[derive(Debug)]
pub struct Network {
    computation: Computation,
    parameters: Vec<NamedTensor>,
    buffers: Vec<NamedTensor>,
    device: Device,
    pub(super) frozen: Frozen,
    /// Whether a buffer is a frozen batch norm's: those are not moved.
    pub(super) still: Vec<bool>,
    /// The adapters of some of its weights, whose tensors come after the other parameters.
    lora: Option<Arc<Lora>>,
    /// The ranks whose samples batch normalization counts together in training.
    statistics: Option<Rc<Group>>,
    /// The index of each name: parameters first, then buffers.
    positions: HashMap<String, usize>,
    /// The shape of the output for one sample, if it is known.
    output_shape: Option<Vec<i64>>,
}

/// How the output is computed.
#[derive(Debug)]
enum Computation {
    Graph {
        graph: Arc<Graph>,
        plan: ExecutionPlan,
    },
    Custom(Forward),
    /// A program, which may have a graph that describes it.
    Exported(Box<Exported>),
}

impl Network {
    /// A network with PyTorch's default initial values, a pure function of `graph` and `seed`. It does not draw from a
    /// default generator.
    pub fn new(graph: Arc<Graph>, seed: u64, device: Device) -> Result<Network, ModelError> {
        let (parameters, buffers) = initialize(&graph, seed, device)?;
        let plan = ExecutionPlan::new(&graph)?;
        let output_shape = Some(graph.output_shape().to_vec());
        Ok(Network::of(Computation::Graph { graph, plan }, parameters, buffers, device, output_shape))
    }

    /// A network that executes a graph over tensors that exist, all on `device`, such as copies of another network's: all of
    /// the graph's, in any order. They are not copied.
    ///
    /// # Errors
    ///
    /// A tensor of the graph is missing.
    pub fn over(graph: Arc<Graph>, tensors: Vec<NamedTensor>, device: Device) -> Result<Network, ModelError> {
        let mut tensors = tensors.into_iter().map(|named| (named.name.clone(), named)).collect();
        let parameters = in_order(graph.parameters(), &mut tensors)?;
        let buffers = in_order(graph.buffers(), &mut tensors)?;
        let plan = ExecutionPlan::new(&graph)?;
        let output_shape = Some(graph.output_shape().to_vec());
        Ok(Network::of(Computation::Graph { graph, plan }, parameters, buffers, device, output_shape))
    }

    /// A network without a graph: a program's own `forward` over its own `tensors`, all on `device`. Those that require
    /// gradients are its parameters, the others its buffers; both are in every checkpoint.
    ///
    /// `forward` is called on the training thread with a batch of inputs on `device`, and returns an output whose first
    /// dimension is the batch. In [`Mode::Train`] it may draw from the default generators, whose state is in
    /// checkpoints, and change buffers; in [`Mode::Evaluate`] neither. It computes with the tensors given here, whose
    /// values are written in place. An error or a panic in it becomes a [`ModelError::Forward`].
    ///
    /// # Errors
    ///
    /// Duplicate names, names with a `/`, and tensors of which none requires a gradient.
    pub fn custom(
        tensors: Vec<NamedTensor>,
        device: Device,
        forward: impl Fn(&Tensor, Mode) -> Result<Tensor, BoxError> + 'static,
    ) -> Result<Network, ModelError> {
        check_tensors(&tensors)?;
        let (parameters, buffers) = tensors.into_iter().partition(|named| named.tensor.requires_grad());
        Ok(Network::of(Computation::Custom(Forward(Box::new(forward))), parameters, buffers, device, None))
    }

    /// An exported program over its tensors, which [`Network::custom`] would take.
    pub(super) fn of_program(
        program: Exported,
        tensors: Vec<NamedTensor>,
        device: Device,
    ) -> Result<Network, ModelError> {
        check_tensors(&tensors)?;
        let (parameters, buffers) = tensors.into_iter().partition(|named| named.tensor.requires_grad());
        Ok(Network::of(Computation::Exported(Box::new(program)), parameters, buffers, device, None))
    }

    /// Compares the outputs of an exported program and of its graph, and forgets the graph where they are not those of one
    /// function: then nothing is exported from it.
    pub(super) fn check_graph(&mut self) {
        let Computation::Exported(program) = &mut self.computation else { return };
        let Ok(graph) = program.graph() else { return };
        let views = self.parameters.iter().chain(&self.buffers).map(|named| {
            let tensor = named.tensor.f_detach()?;
            Ok(NamedTensor { name: named.name.clone(), tensor })
        });
        let difference = views
            .collect::<Result<_, ModelError>>()
            .and_then(|views| Network::over(Arc::clone(graph), views, self.device))
            .and_then(|network| exported::difference(program, &network));
        let what = "the graph that it was lowered to";
        match difference {
            Ok(difference) if exported::agree(difference) => {}
            Ok(difference) => program.withdraw_graph(format!(
                "the output of {what} differs from its own by {difference:.1e} of the largest value"
            )),
            Err(error) => program.withdraw_graph(format!("{what} cannot be compared with it: {error}")),
        }
    }

    fn of(
        computation: Computation,
        parameters: Vec<NamedTensor>,
        buffers: Vec<NamedTensor>,
        device: Device,
        output_shape: Option<Vec<i64>>,
    ) -> Network {
        let positions = positions(&parameters, &buffers);
        let (frozen, still) = (Frozen::default(), vec![false; buffers.len()]);
        let (lora, statistics) = (None, None);
        Network { computation, parameters, buffers, device, frozen, still, lora, statistics, positions, output_shape }
    }

    /// The graph that it executes, or that describes the exported program that it executes: in evaluation, both compute the
    /// same but for rounding.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoGraph`] for a model without one.
    pub fn graph(&self) -> Result<&Arc<Graph>, ModelError> {
        let no_graph = |reason: String| ModelError::NoGraph { reason };
        match &self.computation {
            Computation::Graph { graph, .. } => Ok(graph),
            Computation::Custom(_) => Err(no_graph("it is a program's own, or a TorchScript module".to_owned())),
            Computation::Exported(program) => program.graph().map_err(|refusal| no_graph(refusal.to_string())),
        }
    }

    /// The exported program, if that is what it computes.
    pub(super) fn program_mut(&mut self) -> Option<&mut Exported> {
        match &mut self.computation {
            Computation::Exported(program) => Some(program),
            Computation::Graph { .. } | Computation::Custom(_) => None,
        }
    }

    /// The graph, if that is what it executes.
    pub(super) fn executed_graph(&self) -> Option<&Arc<Graph>> {
        match &self.computation {
            Computation::Graph { graph, .. } => Some(graph),
            Computation::Custom(_) | Computation::Exported(_) => None,
        }
    }

    /// The shape of the output for one sample; `None` for a model without a graph until [`Network::try_on`].
    pub fn output_shape(&self) -> Option<&[i64]> {
        self.output_shape.as_deref()
    }

    pub(super) fn set_output_shape(&mut self, shape: Vec<i64>) {
        self.output_shape = Some(shape);
    }

    /// The tensors that training changes, in the order of the nodes of the graph that it executes, or else the model's own.
    pub fn parameters(&self) -> &[NamedTensor] {
        &self.parameters
    }

    /// The other tensors of its state, in the same order.
    pub fn buffers(&self) -> &[NamedTensor] {
        &self.buffers
    }

    /// All parameters and buffers, parameters first.
    pub fn tensors(&self) -> impl Iterator<Item = &NamedTensor> {
        self.parameters.iter().chain(&self.buffers)
    }

    /// The device of its tensors.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The output for a batch: `input` is `[batch, …sample shape]` on the network's device.
    ///
    /// In [`Mode::Train`], dropout draws from the device's default generator and batch normalization updates its
    /// running statistics. [`Mode::Evaluate`] draws nothing and changes nothing. The caller decides whether an autograd
    /// graph is recorded (`tch::no_grad`).
    pub fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, ModelError> {
        match &self.computation {
            Computation::Graph { graph, plan } => plan.run(self.weights(graph, &self.sums()?), input.into(), mode),
            Computation::Custom(forward) => forward.run(input, mode),
            Computation::Exported(_) => Ok(self.compute(input.into(), mode, &[])?.output),
        }
    }

    /// What it gives for a batch: like [`Network::forward`] and [`Network::forward_with`], and for an exported program that
    /// gives its own loss. A program and a graph may take several inputs; any other model takes the samples only.
    ///
    /// # Errors
    ///
    /// Those of [`Network::forward_with`].
    pub fn compute(&self, batch: ModelBatch<'_>, mode: Mode, wanted: &[usize]) -> Result<Forwarded, ModelError> {
        let (output, values) = match &self.computation {
            Computation::Exported(program) => {
                // Says why there are no nodes.
                if !wanted.is_empty() {
                    self.graph()?;
                }
                return exported::run(program, batch, mode, &self.named(&self.sums()?), wanted);
            }
            Computation::Graph { graph, plan } if wanted.is_empty() => {
                (plan.run(self.weights(graph, &self.sums()?), batch, mode)?, Vec::new())
            }
            Computation::Graph { graph, plan } => {
                plan.run_with(self.weights(graph, &self.sums()?), batch, mode, wanted)?
            }
            Computation::Custom(_) if wanted.is_empty() => (self.forward(batch.inputs, mode)?, Vec::new()),
            Computation::Custom(_) => self.forward_with(batch.inputs, mode, wanted)?,
        };
        Ok(Forwarded { output, loss: None, values })
    }

    /// Whether it is a program that gives its own loss.
    pub fn gives_loss(&self) -> bool {
        matches!(&self.computation, Computation::Exported(program) if program.gives_loss())
    }

    /// Like [`Network::forward`], with the values of the nodes at the indices `wanted` of [`Graph::nodes`], in that
    /// order. They share storage with the computation: copy them to keep them. A model without a graph has no nodes; an
    /// exported program gives its own values, which its graph names.
    pub fn forward_with(
        &self,
        input: &Tensor,
        mode: Mode,
        wanted: &[usize],
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        match &self.computation {
            Computation::Graph { graph, plan } => {
                plan.run_with(self.weights(graph, &self.sums()?), input.into(), mode, wanted)
            }
            Computation::Custom(forward) => {
                if !wanted.is_empty() {
                    self.graph()?;
                }
                Ok((forward.run(input, mode)?, Vec::new()))
            }
            Computation::Exported(_) => {
                let Forwarded { output, values, .. } = self.compute(input.into(), mode, wanted)?;
                Ok((output, values))
            }
        }
    }

    fn weights<'n>(&'n self, graph: &'n Graph, sums: &'n [(usize, Tensor)]) -> Weights<'n> {
        let Network { parameters, buffers, still, .. } = self;
        Weights { graph, parameters, buffers, still, sums, statistics: self.statistics.as_deref() }
    }

    /// From now on, batch normalization in training counts the samples of all ranks of `group` together, and each forward pass
    /// in training is one of all of them, also for a batch without samples.
    ///
    /// Returns whether it is a model of layers on the CPU; for others nothing changes.
    pub fn synchronize(&mut self, group: Rc<Group>) -> bool {
        let can = self.executed_graph().is_some() && self.device == Device::Cpu;
        if can {
            self.statistics = Some(group);
        }
        can
    }

    /// Whether forward passes in training are those of all ranks together.
    pub fn is_synchronized(&self) -> bool {
        self.statistics.is_some()
    }

    /// The adapters, if there are some.
    pub fn lora(&self) -> Option<&Arc<Lora>> {
        self.lora.as_ref()
    }

    /// What takes the places of adapted weights, by these places among the parameters.
    fn sums(&self) -> Result<Vec<(usize, Tensor)>, ModelError> {
        self.lora.as_ref().map_or_else(|| Ok(Vec::new()), |lora| lora.sums(&self.parameters, self.device))
    }

    fn named<'n>(&'n self, sums: &'n [(usize, Tensor)]) -> Vec<(&'n str, &'n Tensor)> {
        let name = |place: &usize| self.parameters.get(*place).map(|named| named.name.as_str());
        sums.iter().filter_map(|(place, sum)| Some((name(place)?, sum))).collect()
    }

    /// How its parameters take part in the computation; `None` of a program's own code.
    pub(super) fn roles(&self) -> Option<Roles> {
        match &self.computation {
            Computation::Graph { graph, .. } => Some(lora::roles(graph)),
            Computation::Exported(program) => Some(program.roles().clone()),
            Computation::Custom(_) => None,
        }
    }

    /// Adds the adapters' tensors to the parameters.
    pub(super) fn add_adapters(&mut self, lora: Lora, tensors: Vec<NamedTensor>) -> Result<(), ModelError> {
        if let Some(known) = tensors.iter().find(|named| self.positions.contains_key(&named.name)) {
            return Err(ModelError::DuplicateTensor { name: known.name.clone() });
        }
        if let Computation::Exported(program) = &mut self.computation {
            program.give_anew(lora.adapted())?;
        }
        self.parameters.extend(tensors);
        self.positions = positions(&self.parameters, &self.buffers);
        self.lora = Some(Arc::new(lora));
        Ok(())
    }

    /// The parameter or buffer of this name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, ModelError> {
        self.positions
            .get(name)
            .and_then(|position| self.tensors().nth(*position))
            .map(|named| &named.tensor)
            .ok_or_else(|| ModelError::UnknownTensor { name: name.to_owned() })
    }

    /// The gradient of the parameter of this name, from the last backward pass; `None` if there is none.
    /// It shares storage with the gradient that the optimizer reads.
    pub fn gradient(&self, name: &str) -> Result<Option<Tensor>, ModelError> {
        let gradient = self.tensor(name)?.grad();
        Ok(gradient.defined().then_some(gradient))
    }

    /// Copies `value` over the gradient of the parameter of this name. `value` has the parameter's shape and dtype, on
    /// any device. Returns false, and writes nothing, if there is no gradient.
    pub fn write_gradient(&mut self, name: &str, value: &Tensor) -> Result<bool, ModelError> {
        self.check(name, value)?;
        let Some(mut gradient) = self.gradient(name)? else {
            return Ok(false);
        };
        tch::no_grad(|| gradient.f_copy_(value)).map_err(TorchError::from)?;
        Ok(true)
    }

    /// Copies `value` into the parameter or buffer of this name. `value` has its shape and dtype, on any device.
    pub fn write(&mut self, name: &str, value: &Tensor) -> Result<(), ModelError> {
        self.check(name, value)?;
        let mut target = self.tensor(name)?.shallow_clone();
        tch::no_grad(|| target.f_copy_(value)).map_err(TorchError::from)?;
        Ok(())
    }

    /// Copies all of `values`, or none of them if one does not fit.
    pub fn write_all(&mut self, values: &[NamedTensor]) -> Result<(), ModelError> {
        for value in values {
            self.check(&value.name, &value.tensor)?;
        }
        for value in values {
            self.write(&value.name, &value.tensor)?;
        }
        Ok(())
    }

    /// Copies of all parameters and buffers, on the network's device, detached: the input of [`Network::write_all`].
    pub fn copy(&self) -> Result<Vec<NamedTensor>, ModelError> {
        self.tensors()
            .map(|named| {
                let copy = || -> Result<Tensor, TorchError> {
                    let mut copy = named.tensor.f_empty_like()?;
                    copy.f_copy_(&named.tensor)?;
                    Ok(copy)
                };
                Ok(NamedTensor { name: named.name.clone(), tensor: tch::no_grad(copy)? })
            })
            .collect()
    }

    /// Converts its tensors to another dtype, for finite differences.
    #[cfg(test)]
    pub(super) fn convert(&mut self, kind: tch::Kind) {
        for named in &mut self.parameters {
            named.tensor = named.tensor.detach().to_kind(kind).set_requires_grad(true);
        }
        for named in self.buffers.iter_mut().filter(|named| named.tensor.is_floating_point()) {
            named.tensor = named.tensor.to_kind(kind);
        }
    }

    fn check(&self, name: &str, value: &Tensor) -> Result<(), ModelError> {
        let target = self.tensor(name)?;
        let (expected, found) = (target.size(), value.size());
        if expected == found && target.kind() == value.kind() {
            return Ok(());
        }
        Err(ModelError::TensorMismatch {
            name: name.to_owned(),
            expected,
            expected_kind: target.kind(),
            found,
            found_kind: value.kind(),
        })
    }
}

/// The index of each name: parameters first, then buffers.
fn positions(parameters: &[NamedTensor], buffers: &[NamedTensor]) -> HashMap<String, usize> {
    let names = parameters.iter().chain(buffers).map(|tensor| tensor.name.clone());
    names.enumerate().map(|(position, name)| (name, position)).collect()
}

/// Takes the tensors of `specs`, in their order.
fn in_order<'g>(
    specs: impl Iterator<Item = &'g TensorSpec>,
    tensors: &mut HashMap<String, NamedTensor>,
) -> Result<Vec<NamedTensor>, ModelError> {
    let unknown = |name: &str| ModelError::UnknownTensor { name: name.to_owned() };
    specs.map(|spec| tensors.remove(&spec.name).ok_or_else(|| unknown(&spec.name))).collect()
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::{
        model::{Dtype, Layer, ModelOptions, Size2d},
        torch::{manual_seed, random, test_support},
    };

    const CONVOLUTION: &str = r#"
        layers = [
          { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, stride = [2, 1] },
          { type = "batch_norm" },
          { type = "relu" },
          { type = "residual", layers = [
            { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, groups = 2, bias = false },
            { type = "batch_norm" },
          ] },
          { type = "max_pool2d", kernel_size = 3, stride = 2, padding = 1 },
          { type = "flatten" },
          { type = "dropout", p = 0.5 },
          { type = "linear", out_features = 3 },
        ]
    "#;

    fn network(toml: &str, shape: &[i64], seed: u64) -> Network {
        let options: ModelOptions = toml::from_str(toml).unwrap();
        Network::new(Arc::new(options.lower(shape, Dtype::F32).unwrap()), seed, Device::Cpu).unwrap()
    }

    fn images(count: i64) -> Tensor {
        Tensor::arange(count * 64, (Kind::Float, Device::Cpu)).sin().reshape([count, 1, 8, 8])
    }

    #[test]
    fn the_shapes_of_the_graph_are_the_shapes_of_the_values() {
        let network = network(CONVOLUTION, &[1, 8, 8], 1);
        let graph = network.graph().unwrap();
        let wanted: Vec<usize> = (0..graph.nodes().len()).collect();
        let (output, values) = network.forward_with(&images(5), Mode::Evaluate, &wanted).unwrap();
        assert_eq!(output.size(), [5, 3]);
        assert_eq!(network.output_shape(), Some(&[3i64][..]));
        for (node, value) in graph.nodes().iter().zip(&values) {
            assert_eq!(value.size()[1..], node.shape, "{}", node.name);
        }
        assert_eq!(values.last(), Some(&output));
    }

    #[test]
    fn the_initial_values_are_a_function_of_the_seed_and_move_no_generator() {
        let _generator = test_support::default_generator();
        manual_seed(5);
        let before = random::generator_state(Device::Cpu).unwrap();
        let first = network(CONVOLUTION, &[1, 8, 8], 3).copy().unwrap();
        assert_eq!(before, random::generator_state(Device::Cpu).unwrap());
        let second = network(CONVOLUTION, &[1, 8, 8], 3);
        for tensor in &first {
            assert_eq!(&tensor.tensor, second.tensor(&tensor.name).unwrap(), "{}", tensor.name);
        }
        let other = network(CONVOLUTION, &[1, 8, 8], 4);
        assert_ne!(&first[0].tensor, other.tensor("conv1.weight").unwrap());
    }

    #[test]
    fn initial_values_follow_pytorchs_bounds() {
        let network = network(r#"layers = [{ type = "linear", out_features = 400 }]"#, &[100], 2);
        for name in ["fc1.weight", "fc1.bias"] {
            let tensor = network.tensor(name).unwrap();
            let largest = tensor.abs().max().double_value(&[]);
            assert!((0.099..=0.1).contains(&largest), "{name}: {largest}");
        }
    }

    /// What `torch.manual_seed(0); torch.nn.Linear(2, 3)` prints.
    #[test]
    fn initial_values_are_pytorchs() {
        let network = network(r#"layers = [{ type = "linear", out_features = 3 }]"#, &[2], 0);
        for (name, expected) in [
            ("fc1.weight", vec![-0.0053, 0.3793, -0.5820, -0.5204, -0.2723, 0.1896]),
            ("fc1.bias", vec![-0.0140, 0.5607, -0.0628]),
        ] {
            let found = network.tensor(name).unwrap().detach().reshape([-1]);
            for (found, expected) in Vec::<f64>::try_from(found).unwrap().iter().zip(expected) {
                assert!((found - expected).abs() < 5.1e-5, "{name}: {found} {expected}");
            }
        }
    }

    #[test]
    fn evaluation_changes_neither_buffers_nor_the_generator_and_training_does() {
        let _generator = test_support::default_generator();
        let network = network(CONVOLUTION, &[1, 8, 8], 1);
        manual_seed(9);
        let before = random::generator_state(Device::Cpu).unwrap();
        let mean = network.tensor("bn1.running_mean").unwrap().copy();
        let first = network.forward(&images(4), Mode::Evaluate).unwrap();
        assert_eq!(first, network.forward(&images(4), Mode::Evaluate).unwrap());
        assert_eq!(&mean, network.tensor("bn1.running_mean").unwrap());
        assert_eq!(before, random::generator_state(Device::Cpu).unwrap());

        let trained = network.forward(&images(4), Mode::Train).unwrap();
        assert_ne!(trained, network.forward(&images(4), Mode::Train).unwrap(), "dropout draws again");
        assert_ne!(&mean, network.tensor("bn1.running_mean").unwrap());
        let batches = network.tensor("bn1.num_batches_tracked").unwrap();
        assert_eq!(batches.int64_value(&[]), 2);
    }

    #[test]
    fn every_parameter_gets_a_gradient_that_can_be_read_and_changed() {
        let _generator = test_support::default_generator();
        let mut network = network(CONVOLUTION, &[1, 8, 8], 1);
        let output = network.forward(&images(6), Mode::Train).unwrap();
        output.square().sum(Kind::Float).backward();
        for parameter in network.parameters() {
            let gradient = network.gradient(&parameter.name).unwrap();
            assert!(gradient.is_some(), "{}", parameter.name);
        }
        assert_eq!(network.gradient("bn1.running_mean").unwrap(), None);

        let ones = Tensor::ones([3], (Kind::Float, Device::Cpu));
        assert!(network.write_gradient("fc1.bias", &ones).unwrap());
        assert_eq!(network.tensor("fc1.bias").unwrap().grad(), ones);
        assert!(network.write_gradient("fc1.bias", &ones.narrow(0, 0, 2)).is_err());
        let mean = Tensor::zeros([4], (Kind::Float, Device::Cpu));
        assert!(!network.write_gradient("bn1.running_mean", &mean).unwrap());
    }

    #[test]
    fn values_are_written_in_place_and_checked_first() {
        let mut written = network(CONVOLUTION, &[1, 8, 8], 1);
        let source = network(CONVOLUTION, &[1, 8, 8], 2);
        let held = written.tensor("fc1.weight").unwrap().shallow_clone();
        written.write_all(&source.copy().unwrap()).unwrap();
        assert_eq!(&held, source.tensor("fc1.weight").unwrap());
        assert!(held.requires_grad());

        let mut values = network(CONVOLUTION, &[1, 8, 8], 3).copy().unwrap();
        values
            .push(NamedTensor { name: "fc1.bias".to_owned(), tensor: Tensor::zeros([4], (Kind::Float, Device::Cpu)) });
        assert!(matches!(written.write_all(&values), Err(ModelError::TensorMismatch { .. })));
        assert_eq!(&held, source.tensor("fc1.weight").unwrap(), "nothing was written");
        let error = written.write("fc9.bias", &held).unwrap_err();
        assert_eq!(error.to_string(), "the model has no tensor `fc9.bias`");
    }

    #[test]
    fn a_batch_of_one_vector_cannot_be_normalized() {
        let options = ModelOptions {
            layers: vec![Layer::Flatten { name: None }, Layer::BatchNorm { name: None, eps: 1e-5, momentum: 0.1 }],
            ..ModelOptions::default()
        };
        let graph = Arc::new(options.lower(&[1, 8, 8], Dtype::F32).unwrap());
        let network = Network::new(graph, 0, Device::Cpu).unwrap();
        assert!(matches!(network.forward(&images(1), Mode::Train), Err(ModelError::SingleValuePerChannel { .. })));
        assert!(network.forward(&images(1), Mode::Evaluate).is_ok());
    }

    #[test]
    fn a_batch_that_does_not_fit_names_the_node() {
        let options = ModelOptions {
            layers: vec![Layer::Conv2d {
                name: Some("stem".to_owned()),
                out_channels: 2,
                kernel_size: Size2d::Square(3),
                stride: Size2d::Square(1),
                padding: Size2d::Square(0),
                dilation: Size2d::Square(1),
                groups: 1,
                bias: true,
                initialization: None,
            }],
            ..ModelOptions::default()
        };
        let graph = Arc::new(options.lower(&[1, 8, 8], Dtype::F32).unwrap());
        let network = Network::new(graph, 0, Device::Cpu).unwrap();
        let batch = Tensor::zeros([2, 3, 8, 8], (Kind::Float, Device::Cpu));
        let error = network.forward(&batch, Mode::Evaluate).unwrap_err();
        assert!(error.to_string().starts_with("node `stem` failed"), "{error}");
        assert!(!error.to_string().contains("frame #"), "{error}");
    }
}
