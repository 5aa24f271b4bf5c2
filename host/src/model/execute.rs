//! Execution of a graph with libtorch's operators.
//!
//! Names are resolved once, into a plan of indices; a forward pass looks nothing up and allocates one vector besides
//! the tensors.

use std::collections::HashMap;

use tch::{TchError, Tensor};

use super::{
    error::ModelError,
    graph::Graph,
    network::{NamedTensor, Network},
    op::Op,
};
use crate::torch::{TorchError, values};

/// Whether layers behave as in training or as in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Dropout drops; batch normalisation uses the batch and updates its running statistics.
    Train,
    /// Dropout is the identity; batch normalisation uses its running statistics.
    Evaluate,
}

/// A graph with its names resolved.
#[derive(Debug)]
pub(super) struct Plan {
    /// One for each node.
    steps: Vec<Step>,
    output: Source,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug)]
enum Source {
    Input,
    Node(usize),
}

#[derive(Debug)]
struct Step {
    kernel: Kernel,
    /// The nodes whose last reader this is: their values are dropped after it, unless autograd keeps them.
    release: Vec<usize>,
}

/// An operator with the places of its operands: of values, of parameters, of buffers.
#[derive(Debug)]
enum Kernel {
    Linear {
        input: Source,
        weight: usize,
        bias: Option<usize>,
    },
    Conv2d {
        input: Source,
        weight: usize,
        bias: Option<usize>,
        stride: [i64; 2],
        padding: [i64; 2],
        dilation: [i64; 2],
        groups: i64,
    },
    BatchNorm {
        input: Source,
        weight: usize,
        bias: usize,
        running_mean: usize,
        running_var: usize,
        num_batches_tracked: usize,
        eps: f64,
        momentum: f64,
    },
    MaxPool2d {
        input: Source,
        kernel_size: [i64; 2],
        stride: [i64; 2],
        padding: [i64; 2],
    },
    Relu {
        input: Source,
    },
    Flatten {
        input: Source,
    },
    Dropout {
        input: Source,
        p: f64,
    },
    /// What leaves its input as it is, such as the flattening of vectors.
    Identity {
        input: Source,
    },
    Add {
        left: Source,
        right: Source,
    },
}

impl Plan {
    pub(super) fn new(graph: &Graph) -> Result<Plan, ModelError> {
        let mut sources: HashMap<&str, Source> =
            graph.inputs().iter().map(|input| (input.name.as_str(), Source::Input)).collect();
        let mut steps: Vec<Step> = Vec::with_capacity(graph.nodes().len());
        let mut last_reader: Vec<Option<usize>> = vec![None; graph.nodes().len()];
        let (mut parameters, mut buffers) = (0, 0);
        let source = |sources: &HashMap<&str, Source>, reader: &str, value: &str| {
            sources
                .get(value)
                .copied()
                .ok_or_else(|| ModelError::UnknownValue { node: reader.to_owned(), value: value.to_owned() })
        };
        for (index, node) in graph.nodes().iter().enumerate() {
            let inputs =
                node.inputs.iter().map(|value| source(&sources, &node.name, value)).collect::<Result<Vec<_>, _>>()?;
            for input in &inputs {
                if let Source::Node(read) = input {
                    last_reader[*read] = Some(index);
                }
            }
            let (input, other) = match inputs.as_slice() {
                [input] => (*input, *input),
                [input, other] => (*input, *other),
                _ => {
                    return Err(ModelError::InputCount {
                        node: node.name.clone(),
                        operator: node.op.name(),
                        expected: node.op.input_count(),
                        found: inputs.len(),
                    });
                }
            };
            let shape = match input {
                Source::Input => graph.inputs().first().map(|input| input.shape.len()),
                Source::Node(read) => Some(graph.nodes()[read].shape.len()),
            };
            steps.push(Step {
                kernel: kernel(&node.op, input, other, shape == Some(1), parameters, buffers),
                release: Vec::new(),
            });
            parameters += node.parameters.len();
            buffers += node.buffers.len();
            sources.insert(&node.name, Source::Node(index));
        }
        let output = source(&sources, "output", graph.output())?;
        for (node, reader) in last_reader.iter().enumerate() {
            let is_output = matches!(output, Source::Node(output) if output == node);
            if let (Some(reader), false) = (reader, is_output) {
                steps[*reader].release.push(node);
            }
        }
        Ok(Plan { steps, output })
    }

    pub(super) fn run(&self, network: &Network, input: &Tensor, mode: Mode) -> Result<Tensor, ModelError> {
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let value = step.kernel.run(network, Values { input, values: &values }, mode);
            values.push(Some(value.map_err(|failure| failure.at(network, index))?));
            for node in &step.release {
                values[*node] = None;
            }
        }
        Ok(self.take_output(input, values))
    }

    pub(super) fn run_with(
        &self,
        network: &Network,
        input: &Tensor,
        mode: Mode,
        wanted: &[usize],
    ) -> Result<(Tensor, Vec<Tensor>), ModelError> {
        let mut values: Vec<Option<Tensor>> = Vec::with_capacity(self.steps.len());
        for (index, step) in self.steps.iter().enumerate() {
            let value = step.kernel.run(network, Values { input, values: &values }, mode);
            values.push(Some(value.map_err(|failure| failure.at(network, index))?));
        }
        let intermediate = wanted
            .iter()
            .map(|node| match values.get(*node) {
                Some(Some(value)) => Ok(value.shallow_clone()),
                _ => Err(ModelError::UnknownNode { name: node.to_string() }),
            })
            .collect::<Result<_, _>>()?;
        Ok((self.take_output(input, values), intermediate))
    }

    fn take_output(&self, input: &Tensor, mut values: Vec<Option<Tensor>>) -> Tensor {
        match self.output {
            Source::Node(node) => values[node].take(),
            Source::Input => None,
        }
        .unwrap_or_else(|| input.shallow_clone())
    }
}

fn kernel(op: &Op, input: Source, other: Source, flat: bool, parameters: usize, buffers: usize) -> Kernel {
    match op {
        Op::Linear { bias, .. } => Kernel::Linear { input, weight: parameters, bias: bias.then_some(parameters + 1) },
        Op::Conv2d { stride, padding, dilation, groups, bias, .. } => Kernel::Conv2d {
            input,
            weight: parameters,
            bias: bias.then_some(parameters + 1),
            stride: *stride,
            padding: *padding,
            dilation: *dilation,
            groups: *groups,
        },
        Op::BatchNorm { eps, momentum, .. } => Kernel::BatchNorm {
            input,
            weight: parameters,
            bias: parameters + 1,
            running_mean: buffers,
            running_var: buffers + 1,
            num_batches_tracked: buffers + 2,
            eps: *eps,
            momentum: *momentum,
        },
        Op::MaxPool2d { kernel_size, stride, padding } => {
            Kernel::MaxPool2d { input, kernel_size: *kernel_size, stride: *stride, padding: *padding }
        }
        Op::Relu => Kernel::Relu { input },
        Op::Flatten if flat => Kernel::Identity { input },
        Op::Flatten => Kernel::Flatten { input },
        Op::Dropout { p } if *p == 0.0 => Kernel::Identity { input },
        Op::Dropout { p } => Kernel::Dropout { input, p: *p },
        Op::Add => Kernel::Add { left: input, right: other },
    }
}

/// The values so far.
#[derive(Clone, Copy)]
struct Values<'a> {
    input: &'a Tensor,
    values: &'a [Option<Tensor>],
}

impl<'a> Values<'a> {
    /// A node's value is there: the graph's order is checked, and it is released after its last reader only.
    fn get(self, source: Source) -> &'a Tensor {
        match source {
            Source::Input => self.input,
            Source::Node(node) => self.values[node].as_ref().unwrap_or(self.input),
        }
    }
}

/// Why a kernel failed; the node's name is added by [`Failure::at`], out of the way of what succeeds.
enum Failure {
    Torch(TorchError),
    SingleValuePerChannel,
}

impl From<TchError> for Failure {
    fn from(error: TchError) -> Failure {
        Failure::Torch(error.into())
    }
}

impl Failure {
    fn at(self, network: &Network, index: usize) -> ModelError {
        let node = network.graph().nodes().get(index).map_or_else(String::new, |node| node.name.clone());
        match self {
            Failure::Torch(source) => ModelError::Execution { node, source },
            Failure::SingleValuePerChannel => ModelError::SingleValuePerChannel { node },
        }
    }
}

fn tensor(tensors: &[NamedTensor], index: usize) -> &Tensor {
    &tensors[index].tensor
}

impl Kernel {
    fn run(&self, network: &Network, values: Values<'_>, mode: Mode) -> Result<Tensor, Failure> {
        let parameters = network.parameters();
        let value = match self {
            Kernel::Linear { input, weight, bias } => {
                values.get(*input).f_linear(tensor(parameters, *weight), bias.map(|bias| tensor(parameters, bias)))?
            }
            Kernel::Conv2d { input, weight, bias, stride, padding, dilation, groups } => values.get(*input).f_conv2d(
                tensor(parameters, *weight),
                bias.map(|bias| tensor(parameters, bias)),
                stride,
                padding,
                dilation,
                *groups,
            )?,
            Kernel::BatchNorm {
                input,
                weight,
                bias,
                running_mean,
                running_var,
                num_batches_tracked,
                eps,
                momentum,
            } => {
                let buffers = network.buffers();
                let input = values.get(*input);
                let training = mode == Mode::Train;
                if training {
                    // The unbiased variance of a single value is no number and would stay in the running statistics;
                    // torch.nn.functional.batch_norm refuses it likewise.
                    let size = input.size();
                    if size.first() == Some(&1) && size.iter().skip(2).all(|length| *length == 1) {
                        return Err(Failure::SingleValuePerChannel);
                    }
                    values::add_one(tensor(buffers, *num_batches_tracked)).map_err(Failure::Torch)?;
                }
                input.f_batch_norm(
                    Some(tensor(parameters, *weight)),
                    Some(tensor(parameters, *bias)),
                    Some(tensor(buffers, *running_mean)),
                    Some(tensor(buffers, *running_var)),
                    training,
                    *momentum,
                    *eps,
                    true,
                )?
            }
            Kernel::MaxPool2d { input, kernel_size, stride, padding } => {
                values.get(*input).f_max_pool2d(kernel_size, stride, padding, [1i64, 1], false)?
            }
            Kernel::Relu { input } => values.get(*input).f_relu()?,
            Kernel::Flatten { input } => values.get(*input).f_flatten(1, -1)?,
            Kernel::Dropout { input, p } => match mode {
                Mode::Train => values.get(*input).f_dropout(*p, true)?,
                Mode::Evaluate => values.get(*input).shallow_clone(),
            },
            Kernel::Identity { input } => values.get(*input).shallow_clone(),
            Kernel::Add { left, right } => values.get(*left).f_add(values.get(*right))?,
        };
        Ok(value)
    }
}
