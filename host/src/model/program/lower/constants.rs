//! What a program computes from sizes alone: positions, masks, zeros. It is computed while the program is lowered, by the
//! operators of the program.
//!
//! A value may have the batch among its dimensions, but not depend on it: it is computed for batches of two sizes, and counts
//! only if all samples of both are the same.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tch::{Device, Kind, Tensor};

use super::arguments::Call;
use super::layout::{Extent, Layout};
use super::{Reason, extents};
use crate::model::program::Purpose;
use crate::model::program::builder::Builder;
use crate::model::program::document::{Document, Node, input_name, kind_of, names};
use crate::model::program::tensors::Bound;
use crate::refusal::Refusal;
use crate::torch::TorchError;
use crate::torch::program::Slot;

/// The sizes of the batches.
const BATCHES: [i64; 2] = [2, 3];

/// The most elements of a value for a batch: a mask of a few thousand positions.
const MOST_ELEMENTS: i64 = 1 << 25;

/// What does not depend on what a batch holds.
#[derive(Debug, Default)]
pub(in crate::model::program) struct Constants {
    /// The places of the nodes that compute it.
    pub(super) nodes: HashSet<usize>,
    /// The values of it that other nodes read, for a sample.
    pub(super) values: BTreeMap<String, Tensor>,
    /// The names of those that are the index of each sample in its batch, first among dimensions of 1.
    pub(super) positions: BTreeSet<String>,
}

/// The constants of a document. Where they cannot be computed, there are none.
pub(in crate::model::program) fn evaluate(document: &Document, bound: &[Bound<'_>], device: Device) -> Constants {
    evaluated(document, bound, device).unwrap_or_default()
}

fn evaluated(document: &Document, bound: &[Bound<'_>], device: Device) -> Result<Constants, Refusal> {
    let nodes = &document.graph_module.graph.nodes;
    let inputs: Vec<&str> = document
        .graph_module
        .signature
        .input_specs
        .iter()
        .filter(|spec| spec.get("user_input").is_some())
        .filter_map(input_name)
        .collect();
    // What is not in the state dict is neither trained nor loaded.
    let given: Vec<&Bound<'_>> = bound.iter().filter(|tensor| tensor.saved.is_none()).collect();
    let mut known: HashSet<&str> = given.iter().map(|tensor| tensor.input).collect();
    let mut found = Constants::default();
    for (place, node) in nodes.iter().enumerate() {
        if is_constant(document, node, &inputs, &known) {
            known.extend(node.outputs.iter().flat_map(names));
            found.nodes.insert(place);
        }
    }
    let changed = changed(nodes, &found.nodes);
    let wanted: BTreeSet<&str> = nodes
        .iter()
        .enumerate()
        .filter(|(place, _)| !found.nodes.contains(place))
        .flat_map(|(_, node)| node.inputs.iter().flat_map(|input| names(&input.arg)))
        .filter(|name| known.contains(name) && !changed.contains(name))
        .filter(|name| document.graph_module.graph.tensor_values.contains_key(*name))
        .collect();
    if wanted.is_empty() {
        return Ok(found);
    }
    let run = |batch: i64| -> Result<Vec<Tensor>, Refusal> {
        let mut builder = Builder::new(device, Purpose::Training)?;
        let places: Vec<Slot> = inputs.iter().map(|name| builder.declare(name)).collect();
        for tensor in &given {
            let slot = builder.declare(tensor.input);
            // A copy: it may be written in place, and the tensors of the program that is trained stay as they are.
            let own = tensor.tensor.f_detach().and_then(|tensor| tensor.f_clone(&tensor)).map_err(TorchError::from)?;
            builder.program.bind(slot, &own, false)?;
        }
        for (place, node) in nodes.iter().enumerate() {
            if found.nodes.contains(&place) {
                builder.node(node, Call::new(node).label())?;
            }
        }
        builder.program.finish(&[])?;
        let slots: Vec<Slot> = wanted.iter().filter_map(|name| builder.scope.get(*name).copied()).collect();
        let zeros = inputs.iter().map(|name| zeros(document, name, batch, device));
        let zeros = zeros.collect::<Result<Vec<_>, Refusal>>()?;
        let pairs: Vec<(Slot, &Tensor)> = places.iter().copied().zip(&zeros).collect();
        Ok(tch::no_grad(|| builder.program.run(&pairs, false, &slots))?.1)
    };
    let [small, large] = [run(BATCHES[0])?, run(BATCHES[1])?];
    let batch = batch_of(document);
    for ((name, small), large) in wanted.into_iter().zip(small).zip(large) {
        let extents = batch.and_then(|batch| extents(document, name, batch).ok());
        if let Some(value) = extents.and_then(|extents| for_sample(&extents, [&small, &large]).ok().flatten()) {
            found.values.insert(name.to_owned(), value);
        } else if are_positions(&small)? && are_positions(&large)? {
            found.positions.insert(name.to_owned());
        }
    }
    Ok(found)
}

/// Whether a node's values depend on sizes and on other constants only.
fn is_constant(document: &Document, node: &Node, inputs: &[&str], known: &HashSet<&str>) -> bool {
    let call = Call::new(node);
    let mut reads = node.inputs.iter().flat_map(|input| names(&input.arg));
    let makes_something = node.outputs.iter().flat_map(names).next().is_some();
    // Of a region, not all that is read is an argument.
    let is_call = node.target.starts_with("torch.ops.aten.") || node.target.starts_with("_operator.");
    let reads_sizes = call.reads_sizes_only();
    makes_something
        && is_call
        && reads.all(|name| known.contains(name) || (reads_sizes && inputs.contains(&name)))
        && node.outputs.iter().flat_map(names).all(|name| is_small(document, name))
}

fn is_small(document: &Document, name: &str) -> bool {
    // What is not described is a size.
    let Some(meta) = document.graph_module.graph.tensor_values.get(name) else { return true };
    let length = |size: &crate::model::program::document::Size| size.fixed().unwrap_or(BATCHES[1]);
    let elements = meta.sizes.iter().try_fold(1i64, |all, size| all.checked_mul(length(size)));
    elements.is_some_and(|elements| elements <= MOST_ELEMENTS)
}

/// The names whose values a constant's node changes in place, with those that they are views of: their first values are not those
/// that later nodes read.
fn changed<'d>(nodes: &'d [Node], constant: &HashSet<usize>) -> HashSet<&'d str> {
    let mut viewed: HashMap<&str, &str> = HashMap::new();
    let mut changed = HashSet::new();
    for (_, node) in nodes.iter().enumerate().filter(|(place, _)| constant.contains(place)) {
        let call = Call::new(node);
        let Some(first) = call.first_tensor() else { continue };
        if call.is_in_place() {
            let mut name = Some(first);
            while let Some(current) = name.filter(|current| changed.insert(*current)) {
                name = viewed.get(current).copied();
            }
        }
        if call.is_in_place() || call.is_view() {
            viewed.extend(node.outputs.iter().flat_map(names).map(|output| (output, first)));
        }
    }
    changed
}

/// The expression of the size of the batch of the first input.
fn batch_of(document: &Document) -> Option<&str> {
    let specs = document.graph_module.signature.input_specs.iter();
    let name = specs.filter(|spec| spec.get("user_input").is_some()).find_map(input_name)?;
    document.graph_module.graph.tensor_values.get(name)?.sizes.first()?.expression()
}

fn zeros(document: &Document, name: &str, batch: i64, device: Device) -> Result<Tensor, Refusal> {
    let meta = document.graph_module.graph.tensor_values.get(name);
    let kind = meta.and_then(|meta| kind_of(meta.dtype));
    let (meta, kind) = meta.zip(kind).ok_or_else(|| Refusal::new("an input is not described"))?;
    let shape: Vec<i64> = meta.sizes.iter().map(|size| size.fixed().unwrap_or(batch)).collect();
    Ok(Tensor::f_zeros(shape, (kind, device)).map_err(TorchError::from)?)
}

/// The value of a sample, if it is the same for all samples of both batches.
fn for_sample(extents: &[Extent], batches: [&Tensor; 2]) -> Result<Option<Tensor>, TorchError> {
    let place = extents.iter().position(|extent| matches!(extent, Extent::Batch(_)));
    let Some(place) = place.map(|place| place as i64) else {
        let [small, large] = batches;
        if small.size() != large.size() || !small.f_equal(large)? {
            return Ok(None);
        }
        let shape = match Layout::of(extents) {
            Ok((_, shape)) => shape,
            Err(Reason { .. }) => return Ok(None),
        };
        return Ok(Some(small.f_reshape(shape)?));
    };
    let first = batches[0].f_narrow(place, 0, 1)?;
    for batch in batches {
        if batch.size().len() != extents.len() || !first.f_expand_as(batch)?.f_equal(batch)? {
            return Ok(None);
        }
    }
    Ok(Some(first.f_squeeze_dim(place)?))
}

/// Whether a value is the index of each sample in its batch, `[batch, 1, …]`.
fn are_positions(value: &Tensor) -> Result<bool, TorchError> {
    let size = value.size();
    let is_batch = size.split_first().is_some_and(|(_, rest)| rest.iter().all(|length| *length == 1));
    Ok(is_batch && counts(value)?)
}

/// Whether a value is 0, 1, 2, … in row-major order.
pub(super) fn counts(value: &Tensor) -> Result<bool, TorchError> {
    if value.kind() != Kind::Int64 {
        return Ok(false);
    }
    let count = i64::try_from(value.numel()).unwrap_or(i64::MAX);
    let positions = Tensor::f_arange(count, (Kind::Int64, value.device()))?;
    Ok(value.f_reshape([-1])?.f_equal(&positions)?)
}

/// Whether all of its elements are zero.
pub(super) fn is_zero(value: &Tensor) -> bool {
    let all = || value.f_eq(0)?.f_all()?.f_int64_value(&[]);
    all().is_ok_and(|all| all == 1)
}

/// Its one number, if it has one.
pub(super) fn number(value: &Tensor) -> Option<f64> {
    if value.numel() != 1 || !matches!(value.kind(), Kind::Float | Kind::Double | Kind::Int64 | Kind::Int) {
        return None;
    }
    value.f_reshape([1]).and_then(|value| value.f_double_value(&[0])).ok()
}
