//! Programs that `torch.export.save` wrote (`.pt2`): their tensors, and a forward pass through libtorch's operators.
//!
//! ```text
//! archive.rs    the zip file: its parts, and the bytes of its tensors
//! document.rs   models/model.json
//! tensors.rs    parameters, buffers and constants; those of an evaluation are the training's
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
mod lower;
mod operators;
mod regions;
mod tensors;
mod uses;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use crate::model::{Graph, Layout, Roles};
use crate::torch::TorchError;
use crate::torch::program::{Program, Slot};

use crate::refusal::Refusal;
pub use error::ExportedError;

/// A program with its tensors.
#[derive(Debug)]
pub struct Exported {
    program: Program,
    /// The parameters and the persistent buffers, by PyTorch's names. One with several names is listed under the first.
    pub tensors: Vec<(String, Tensor)>,
    input: Input,
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

/// What the program takes.
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
    /// file of the same program, exported in evaluation mode. Of several outputs, `output` is the key or the position of the
    /// one that counts.
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
        let Some(evaluation) = evaluation else { return Self::read(path, device, Purpose::Both, output) };
        let mut program = Self::read(path, device, Purpose::Training, output)?;
        let evaluation = Self::read(evaluation, device, Purpose::Evaluation(&program.tensors), output)?;
        program.evaluation = Some(Box::new(evaluation));
        Ok(program)
    }

    fn read(path: &Path, device: Device, purpose: Purpose<'_>, output: Option<&str>) -> Result<Self, ExportedError> {
        let refused = |refusal| ExportedError::Refused { path: path.to_owned(), refusal };
        let file = std::fs::File::open(path).map_err(|source| ExportedError::Read { path: path.to_owned(), source })?;
        let mut archive = archive::Archive::open(file).map_err(refused)?;
        let document =
            document::Document::read(&archive.text("models/model.json").map_err(refused)?).map_err(refused)?;
        builder::build(&document, &mut archive, device, purpose, output).map_err(refused)
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

    /// The output for a batch, in training or in evaluation, and copies of the values of the nodes at the indices `wanted` of
    /// the graph, in that order. `given` are the values of parameters that are given anew.
    ///
    /// # Errors
    ///
    /// An input of another rank, size or type than the program was exported for, the failure of an operator, and a node that
    /// there is not.
    pub fn forward(
        &self,
        input: &Tensor,
        training: bool,
        given: &[(&str, &Tensor)],
        wanted: &[usize],
    ) -> Result<(Tensor, Vec<Tensor>), Refusal> {
        match &self.evaluation {
            Some(evaluation) if !training => return evaluation.forward(input, false, given, wanted),
            Some(_) if !wanted.is_empty() => {
                return Err(Refusal::new("with `exported_eval`, values within the model are known in evaluation only"));
            }
            _ => {}
        }
        self.input.check(input)?;
        let nodes = wanted.iter().map(|&index| self.node(index)).collect::<Result<Vec<_>, _>>()?;
        let slots: Vec<Slot> = nodes.iter().map(|node| node.slot).collect();
        let of_name = |name: &str| self.slots.get(name).into_iter().flatten().copied();
        let given = given.iter().flat_map(|(name, tensor)| of_name(name).map(|slot| (slot, *tensor)));
        let inputs: Vec<(Slot, &Tensor)> = std::iter::once((self.input.slot, input)).chain(given).collect();
        let (mut outputs, inner) = self.program.run(&inputs, training, &slots)?;
        let output = outputs.pop().ok_or_else(|| Refusal::new("it returns no tensor"))?;
        let batch = input.size().first().copied().unwrap_or(1);
        let values = inner.into_iter().zip(nodes).map(|(value, node)| {
            let value = node.of_batch(&value, batch).map_err(crate::torch::TorchError::from)?;
            Ok(value)
        });
        let values = values.collect::<Result<_, Refusal>>()?;
        Ok((output, values))
    }

    /// Where the value of a node of the graph is.
    fn node(&self, index: usize) -> Result<NodeValue<'_>, Refusal> {
        let described = self.graph.as_ref().map_err(|refusal| Refusal::new(refusal.to_string()))?;
        let node = described.values.get(index).zip(described.graph.nodes().get(index));
        let (&(slot, before), node) = node.ok_or_else(|| Refusal::new(format!("its graph has no node {index}")))?;
        Ok(NodeValue { slot, before, shape: &node.shape })
    }
}

/// Where the value of a node is, and the node's shape for a sample.
struct NodeValue<'g> {
    slot: Slot,
    before: Option<i64>,
    shape: &'g [i64],
}

impl NodeValue<'_> {
    /// The program's value as the node's for a batch.
    fn of_batch(&self, value: &Tensor, batch: i64) -> Result<Tensor, tch::TchError> {
        let shape: Vec<i64> = std::iter::once(batch).chain(self.shape.iter().copied()).collect();
        match self.before {
            Some(1) => value.f_reshape(shape)?.f_contiguous(),
            Some(before) => value.f_reshape([before, batch, -1])?.f_transpose(0, 1)?.f_reshape(shape)?.f_contiguous(),
            None => value.f_reshape(self.shape)?.f_unsqueeze(0)?.f_expand(shape, false)?.f_contiguous(),
        }
    }
}

impl Input {
    fn check(&self, input: &Tensor) -> Result<(), Refusal> {
        let sizes = input.size();
        let fits = sizes.len() == self.sizes.len()
            && sizes.iter().zip(&self.sizes).all(|(size, wanted)| wanted.is_none_or(|wanted| wanted == *size));
        if fits && input.kind() == self.kind {
            return Ok(());
        }
        let wanted: Vec<String> =
            self.sizes.iter().map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string())).collect();
        Err(Refusal::new(format!(
            "its input `{}` is {} of the shape [{}], and it is given {} of the shape {sizes:?}",
            self.name,
            document::dtype_name(self.kind),
            wanted.join(", "),
            document::dtype_name(input.kind()),
        )))
    }
}

#[cfg(test)]
mod archives;
#[cfg(test)]
mod tests;
