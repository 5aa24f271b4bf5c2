//! Programs that `torch.export.save` wrote (`.pt2`): their tensors, and a forward pass through libtorch's operators.
//!
//! ```text
//! archive.rs    the zip file: its parts, and the bytes of its tensors
//! document.rs   models/model.json
//! tensors.rs    parameters, buffers and constants; those of an evaluation are the training's
//! interface.rs  what its arguments get of a batch, and which of what it returns counts
//! builder.rs    the nodes of the document as a program for libtorch
//! arguments.rs  their arguments
//! regions.rs    the parts that run in another mode, or under a condition
//! operators.rs  which operators a program may call
//! uses.rs       what it computes with each parameter
//! lower/        the same nodes as the host's own graph, where it has all of their operators
//! ```
//!
//! The program is what is computed. The graph describes it, for exporters and for people.
//!
//! A program is a stranger's file. It is data: nothing in it is executed but operators of a written list, which touch no file,
//! process or network. The format has no specification; it is what PyTorch 2.9 to 2.15 write (`torch/_export/serde/schema.py`,
//! schema 8).

mod archive;
mod arguments;
mod builder;
mod document;
mod error;
mod interface;
mod lower;
mod operators;
mod regions;
mod tensors;
mod uses;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::model::{Dtype, Forwarded, Graph, Layout, ModelBatch, Node, Roles};
use crate::torch::TorchError;
use crate::torch::program::{Program, Slot};

use crate::refusal::Refusal;
pub use error::ExportedError;
use error::ExportedRefusal;
use interface::Argument;
pub use interface::{BatchTargets, Interface};

/// The slots of the values that there are so far, by their names.
type Scope = BTreeMap<String, Slot>;

/// The name of the samples in a batch that has nothing else.
const SAMPLES: &str = "inputs";

/// A program with its tensors.
#[derive(Debug)]
pub struct Exported {
    program: Program,
    /// The parameters and the persistent buffers, by PyTorch's names. One with several names is listed under the first.
    pub tensors: Vec<(String, Tensor)>,
    /// What it takes.
    arguments: Vec<Argument>,
    /// Whether it returns its own loss after its output.
    gives_loss: bool,
    /// Whether its output depends on the targets.
    reads_targets: bool,
    normalizations: Vec<Normalization>,
    /// What it computes with each of its tensors that is saved, and the slots of these.
    roles: Roles,
    slots: BTreeMap<String, Vec<Slot>>,
    /// The graph that describes it, or why there is none.
    graph: Result<Described, Refusal>,
    /// What evaluates in its place, over the same tensors.
    evaluation: Option<Box<Exported>>,
}

/// A batch norm: the names of its parameters, and its buffers by name and slot.
#[derive(Debug)]
struct Normalization {
    parameters: Vec<String>,
    buffers: Vec<(String, Slot)>,
}

/// The host's own graph of a program.
#[derive(Debug)]
struct Described {
    graph: Arc<Graph>,
    /// For each node the slot of its value, which may have another shape there, and how many of a sample's values come before
    /// the batch in memory; `None` where the value is the same for each sample.
    values: Vec<(Slot, Option<i64>)>,
}

/// What a program is made for.
#[derive(Clone, Copy, Debug)]
enum Purpose<'t> {
    /// Training and evaluation, by its flags.
    Both,
    /// Training only.
    Training,
    /// Evaluation only, with the tensors of the program for training.
    Evaluation(&'t [(String, Tensor)]),
}

/// A tensor that a program takes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Input {
    name: String,
    slot: Slot,
    kind: Kind,
    /// Its sizes; `None` for one that may be any, such as the batch.
    sizes: Vec<Option<i64>>,
}

impl Exported {
    /// The program in a file, with its tensors on `device`. Where evaluation differs by more than flags, `evaluation` is the
    /// file of the same program, exported in evaluation mode.
    ///
    /// # Errors
    ///
    /// See [`ExportedError`].
    pub fn open_with(
        path: &Path,
        evaluation: Option<&Path>,
        interface: &Interface<'_>,
        device: Device,
    ) -> Result<Self, ExportedError> {
        let Some(evaluation) = evaluation else { return Self::read(path, device, Purpose::Both, interface) };
        let mut program = Self::read(path, device, Purpose::Training, interface)?;
        let evaluation = Self::read(evaluation, device, Purpose::Evaluation(&program.tensors), interface)?;
        program.evaluation = Some(Box::new(evaluation));
        Ok(program)
    }

    /// The same for a program that takes the samples only; of several outputs, `output` is the one that counts.
    ///
    /// # Errors
    ///
    /// See [`ExportedError`].
    pub fn open(
        path: &Path,
        evaluation: Option<&Path>,
        output: Option<&str>,
        device: Device,
    ) -> Result<Self, ExportedError> {
        let (arguments, inputs) = (BTreeMap::new(), [SAMPLES.to_owned()]);
        let interface = Interface { output, gives_loss: false, arguments: &arguments, inputs: &inputs, targets: None };
        Self::open_with(path, evaluation, &interface, device)
    }

    fn read(
        path: &Path,
        device: Device,
        purpose: Purpose<'_>,
        interface: &Interface<'_>,
    ) -> Result<Self, ExportedError> {
        let refused = |refusal| ExportedError::Refused { path: path.to_owned(), refusal };
        let file = std::fs::File::open(path).map_err(|source| ExportedError::Read { path: path.to_owned(), source })?;
        let mut archive = archive::Archive::open(file).map_err(refused)?;
        let document =
            document::Document::read(&archive.text("models/model.json").map_err(refused)?).map_err(refused)?;
        builder::build(&document, &mut archive, device, purpose, interface).map_err(|refusal| match refusal {
            ExportedRefusal::Program(refusal) => refused(refusal),
            ExportedRefusal::Arguments(refusal) => ExportedError::Arguments { path: path.to_owned(), refusal },
        })
    }

    /// The host's graph of the program: the same function in evaluation, with the same names of tensors.
    ///
    /// # Errors
    ///
    /// What in the program is not in a graph.
    pub fn graph(&self) -> Result<&Arc<Graph>, &Refusal> {
        self.of_evaluation().graph.as_ref().map(|described| &described.graph)
    }

    fn of_evaluation(&self) -> &Self {
        self.evaluation.as_deref().unwrap_or(self)
    }

    /// Forgets the graph, for this reason.
    pub fn withdraw_graph(&mut self, reason: String) {
        let graph = match &mut self.evaluation {
            Some(evaluation) => &mut evaluation.graph,
            None => &mut self.graph,
        };
        *graph = Err(Refusal::new(reason));
    }

    /// From now on, training leaves the statistics of the batch norms as they are whose parameters `are_frozen`, and they
    /// normalize with them. Returns the names of the buffers that stay.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn freeze_statistics(&mut self, are_frozen: impl Fn(&[String]) -> bool) -> Result<Vec<String>, TorchError> {
        let frozen =
            self.normalizations.iter().filter(|norm| !norm.parameters.is_empty() && are_frozen(&norm.parameters));
        let (names, slots): (Vec<String>, Vec<Slot>) = frozen.flat_map(|norm| norm.buffers.iter().cloned()).unzip();
        self.program.set_still(&slots)?;
        Ok(names)
    }

    /// What it computes with each of its tensors that is saved.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// From now on, each forward pass is given the values of the parameters of these names, in place of those that they have.
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn give_anew<'n>(&mut self, names: impl Iterator<Item = &'n str> + Clone) -> Result<(), TorchError> {
        let slots: Vec<Slot> = names.clone().filter_map(|name| self.slots.get(name)).flatten().copied().collect();
        self.program.unbind(&slots)?;
        match &mut self.evaluation {
            Some(evaluation) => evaluation.give_anew(names),
            None => Ok(()),
        }
    }

    /// What it gives for a batch, in training or in evaluation, with copies of the values of the nodes at the indices `wanted`
    /// of the graph. `given` are the values of parameters that are given anew.
    ///
    /// # Errors
    ///
    /// An input of another rank, size or type than the program was exported for, the failure of an operator, a node that there
    /// is not, and a batch without targets if the output depends on them.
    pub fn run(
        &self,
        batch: ModelBatch<'_>,
        training: bool,
        given: &[(&str, &Tensor)],
        wanted: &[usize],
    ) -> Result<Forwarded, Refusal> {
        match &self.evaluation {
            Some(evaluation) if !training => return evaluation.run(batch, false, given, wanted),
            Some(_) if !wanted.is_empty() => {
                return Err(Refusal::new("with `exported_eval`, values within the model are known in evaluation only"));
            }
            _ => {}
        }
        if self.reads_targets && batch.targets.is_none() {
            return Err(Refusal::new("its output depends on the targets, so that it cannot predict without them"));
        }
        let nodes = wanted.iter().map(|&index| self.node(index)).collect::<Result<Vec<_>, _>>()?;
        let slots: Vec<Slot> = nodes.iter().map(|node| node.slot).collect();
        let of_name = |name: &str| self.slots.get(name).into_iter().flatten().copied();
        let anew = given.iter().flat_map(|(name, tensor)| of_name(name).map(|slot| (slot, *tensor)));
        let (outputs, inner) = match &self.arguments[..] {
            [argument] if given.is_empty() => {
                self.program.run(&[(argument.input.slot, argument.of(&batch, None)?)], training, &slots)?
            }
            several => {
                let missing = several.iter().find_map(|argument| argument.missing(&batch));
                let missing = missing.transpose().map_err(TorchError::from)?;
                let mut inputs = several
                    .iter()
                    .map(|argument| Ok((argument.input.slot, argument.of(&batch, missing.as_ref())?)))
                    .collect::<Result<Vec<_>, Refusal>>()?;
                inputs.extend(anew);
                self.program.run(&inputs, training, &slots)?
            }
        };
        let mut outputs = outputs.into_iter();
        let output = outputs.next().ok_or_else(|| Refusal::new("it returns no tensor"))?;
        let loss = if self.gives_loss { outputs.next() } else { None };
        let size = batch.inputs.size().first().copied().unwrap_or(1);
        let values = inner.into_iter().zip(nodes).map(|(value, node)| {
            let value = node.of_batch(&value, size).map_err(TorchError::from)?;
            Ok(value)
        });
        let values = values.collect::<Result<_, Refusal>>()?;
        Ok(Forwarded { output, loss, values })
    }

    /// The output for the samples of a batch, and copies of values, as [`Self::run`] gives them.
    #[cfg(test)]
    pub fn forward(&self, input: &Tensor, training: bool, wanted: &[usize]) -> Result<(Tensor, Vec<Tensor>), Refusal> {
        let Forwarded { output, values, .. } = self.run(input.into(), training, &[], wanted)?;
        Ok((output, values))
    }

    /// Checks that a batch is what the program was exported for; nothing is computed.
    ///
    /// # Errors
    ///
    /// An input of another rank, size or type.
    pub fn check(&self, batch: &ModelBatch<'_>) -> Result<(), Refusal> {
        let missing = self.arguments.iter().find_map(|argument| argument.missing(batch));
        let missing = missing.transpose().map_err(TorchError::from)?;
        self.arguments.iter().try_for_each(|argument| argument.of(batch, missing.as_ref()).map(drop))
    }

    /// Whether it gives its own loss.
    pub fn gives_loss(&self) -> bool {
        self.gives_loss
    }

    /// Where the value of a node of the graph is.
    fn node(&self, index: usize) -> Result<NodeValue<'_>, Refusal> {
        let described = self.graph.as_ref().map_err(|refusal| Refusal::new(refusal.to_string()))?;
        let node = described.values.get(index).zip(described.graph.nodes().get(index));
        let (&(slot, before), node) = node.ok_or_else(|| Refusal::new(format!("its graph has no node {index}")))?;
        Ok(NodeValue { slot, before, node })
    }
}

/// Where the value of a node is.
struct NodeValue<'g> {
    slot: Slot,
    before: Option<i64>,
    node: &'g Node,
}

impl NodeValue<'_> {
    /// The program's value as the node's for a batch.
    fn of_batch(&self, value: &Tensor, batch: i64) -> Result<Tensor, tch::TchError> {
        let Node { op, shape: sample, .. } = self.node;
        let shape: Vec<i64> = std::iter::once(batch).chain(sample.iter().copied()).collect();
        // Truth values are numbers in the graph.
        let value = match (op.output_dtype(), value.kind()) {
            (Dtype::F32, Kind::Bool | Kind::Int64) => value.f_to_kind(Kind::Float)?,
            (Dtype::I64, Kind::Bool) => value.f_to_kind(Kind::Int64)?,
            _ => value.shallow_clone(),
        };
        match self.before {
            Some(1) => value.f_reshape(shape)?.f_contiguous(),
            Some(before) => value.f_reshape([before, batch, -1])?.f_transpose(0, 1)?.f_reshape(shape)?.f_contiguous(),
            None => value.f_reshape(sample)?.f_unsqueeze(0)?.f_expand(shape, false)?.f_contiguous(),
        }
    }
}

#[cfg(test)]
mod archives;
#[cfg(test)]
mod tests;
