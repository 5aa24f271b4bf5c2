//! Sets of tensors: listed, lent, and written.

use std::rc::Rc;

use plugin_api::TensorView;
use plugin_api::abi::kinds::EventKind;
use plugin_api::abi::{DataType, Device as AbiDevice, TensorTable};
use plugin_api::protocol::requests::TensorsRequest;
use plugin_api::protocol::{TapOf, TapReduce, TensorInfo, TensorSet};
use tch::{Device, Kind, Tensor};

use super::super::checkpointing::HostTensor;
use super::super::dtype::{data_type, kind};
use super::super::error::TrainError;
use super::super::kept::Kept;
use super::super::learner::Learner;
use crate::data::{INPUTS, TARGETS};
use crate::model::NamedTensor;
use crate::services::{Lent, Reply, ServiceError, SharedTensor, contiguous_strides};

/// The tensors of a set as they are at `hook`, sharing the loop's memory.
pub(super) fn of_set(
    learner: &Learner,
    kept: &Kept,
    set: &TensorSet,
    hook: EventKind,
) -> Result<Vec<(String, Tensor)>, ServiceError> {
    let shared = |named: &[NamedTensor]| -> Vec<(String, Tensor)> {
        named.iter().map(|named| (named.name.clone(), named.tensor.detach())).collect()
    };
    let not_here = || ServiceError::NotAllowed(format!("there are no `{set}` in `{}`", hook.name()));
    let in_evaluation = matches!(hook, EventKind::EVAL_STEP_START | EventKind::EVAL_STEP_END | EventKind::PREDICT_STEP);
    Ok(match set {
        TensorSet::Parameters => shared(learner.network.parameters()),
        TensorSet::Buffers => shared(learner.network.buffers()),
        TensorSet::Optimizer => learner.optimizer.state(),
        TensorSet::Gradients => learner
            .network
            .parameters()
            .iter()
            .map(|named| (named.name.clone(), named.tensor.grad()))
            .filter(|(_, gradient)| gradient.defined())
            .collect(),
        TensorSet::Batch => {
            let step = &learner.step;
            let (inputs, others, targets) = match (&learner.evaluation, &step.inputs, &step.targets) {
                (Some(batch), ..) if in_evaluation => (&batch.inputs, &batch.others, &batch.targets),
                (_, Some(inputs), Some(targets)) if !in_evaluation && step_is_at_hand(hook) => {
                    (inputs, &step.others, targets)
                }
                _ => return Err(not_here()),
            };
            named_batch(&learner.input_names, [inputs, targets], others)
        }
        TensorSet::Outputs => {
            let outputs = match (&learner.evaluation, &learner.step.outputs) {
                (Some(batch), _) if in_evaluation => batch.outputs.as_ref(),
                (_, outputs) if step_is_at_hand(hook) => outputs.as_ref(),
                _ => None,
            };
            let outputs = outputs.ok_or_else(not_here)?.f_detach().map_err(TrainError::from)?;
            vec![("outputs".to_owned(), outputs)]
        }
        TensorSet::Taps => tapped(learner, hook).map_err(TrainError::from)?.ok_or_else(not_here)?,
        TensorSet::Copy(name) => match kept.copies.get(name) {
            Some(copy) => shared(&copy.tensors),
            None => {
                let names = kept.copies.keys().map(String::as_str);
                return Err(ServiceError::no_such_name("copy of the weights", name, names));
            }
        },
        _ => return Err(ServiceError::NoSuchName(format!("there is no tensor set `{set}`"))),
    })
}

/// The tensors of a set as a callback reads them. One that exports reads the weights as they compute: merged with their adapters,
/// which it gets only by their `names`.
pub(super) fn as_read_by(
    exports: bool,
    learner: &Learner,
    tensors: Vec<(String, Tensor)>,
    set: &TensorSet,
    names: &[String],
) -> Result<Vec<(String, Tensor)>, ServiceError> {
    match learner.network.lora() {
        Some(lora) if exports && has_weights(set) => Ok(lora.merged(tensors, names).map_err(TrainError::from)?),
        _ => Ok(tensors),
    }
}

/// Whether a set has the model's parameters.
pub(super) fn has_weights(set: &TensorSet) -> bool {
    matches!(set, TensorSet::Parameters | TensorSet::Copy(_))
}

/// The samples and targets of a batch, then its other inputs; `names` are those of the inputs, that of the samples first.
pub(super) fn named_batch(
    names: &[String],
    [inputs, targets]: [&Tensor; 2],
    others: &[Tensor],
) -> Vec<(String, Tensor)> {
    let mut names = names.iter();
    let samples = names.next().map_or(INPUTS, String::as_str);
    let own = [(samples.to_owned(), inputs.shallow_clone()), (TARGETS.to_owned(), targets.shallow_clone())];
    own.into_iter().chain(names.cloned().zip(others.iter().map(Tensor::shallow_clone))).collect()
}

fn step_is_at_hand(hook: EventKind) -> bool {
    matches!(hook, EventKind::STEP_START | EventKind::GRADIENTS | EventKind::STEP_END | EventKind::TRIGGER)
}

/// The tapped values, reduced; `None` if there are none yet.
fn tapped(learner: &Learner, hook: EventKind) -> Result<Option<Vec<(String, Tensor)>>, tch::TchError> {
    let values = match (hook, &learner.evaluation) {
        (EventKind::EVAL_STEP_END | EventKind::PREDICT_STEP, Some(batch)) => &batch.tapped,
        (EventKind::GRADIENTS | EventKind::STEP_END | EventKind::TRIGGER, _) => &learner.step.tapped,
        _ => return Ok(None),
    };
    let mut activations = values.iter();
    let mut named = Vec::new();
    for planned in &learner.taps {
        let value = match planned.tap.of {
            TapOf::Activation => activations.next().map(Tensor::shallow_clone),
            // An evaluation has no gradients.
            TapOf::Gradient if matches!(hook, EventKind::EVAL_STEP_END | EventKind::PREDICT_STEP) => None,
            TapOf::Gradient => learner.network.tensor(&planned.tap.node).ok().map(Tensor::grad).filter(Tensor::defined),
        };
        if let Some(value) = value {
            named.push((planned.tap.name.clone(), reduce(&value, planned.tap.reduce)?));
        }
    }
    Ok(Some(named))
}

/// Writes a set's tensors, `targets`, by the names in the request: all of them, or none if one does not fit.
pub(super) fn write(
    targets: &[(String, Tensor)],
    request: &TensorsRequest,
    tables: &[TensorTable],
) -> Result<(), ServiceError> {
    if request.names.len() != tables.len() {
        let (names, tensors) = (request.names.len(), tables.len());
        return Err(ServiceError::Failed(format!("{names} names came with {tensors} tensors")));
    }
    let mut pairs = Vec::with_capacity(tables.len());
    for (name, table) in request.names.iter().zip(tables) {
        let target =
            targets.iter().find(|(target, _)| target == name).map(|(_, tensor)| tensor).ok_or_else(|| {
                ServiceError::no_such_name("tensor", name, targets.iter().map(|(name, _)| name.as_str()))
            })?;
        let value = borrowed(table)?;
        if target.size() != value.size() || target.kind() != value.kind() {
            return Err(ServiceError::Failed(format!(
                "tensor `{name}` is {:?} of {:?}, not {:?} of {:?}",
                target.size(),
                target.kind(),
                value.size(),
                value.kind()
            )));
        }
        pairs.push((target.shallow_clone(), value));
    }
    // Nothing is written unless everything fits.
    tch::no_grad(|| {
        for (mut target, value) in pairs {
            target.f_copy_(&value)?;
        }
        Ok(())
    })
    .map_err(|error: tch::TchError| TrainError::from(error).into())
}

/// The description of a tensor in `tensor_list`.
pub(super) fn info(name: &str, tensor: &Tensor) -> TensorInfo {
    let dtype = data_type(tensor.kind()).map_or_else(|| format!("{:?}", tensor.kind()), DataType::name);
    TensorInfo { name: name.to_owned(), shape: tensor.size(), dtype }
}

/// Lends those of `tensors` that `names` asks for, or all.
pub(super) fn lend_named(
    tensors: Vec<(String, Tensor)>,
    set: &TensorSet,
    names: &[String],
    reply: &mut Reply<'_>,
) -> Result<(), ServiceError> {
    for name in names {
        if !tensors.iter().any(|(known, _)| known == name) {
            let what = format!("tensor in `{set}` called");
            return Err(ServiceError::no_such_name(&what, name, tensors.iter().map(|(name, _)| name.as_str())));
        }
    }
    for (name, tensor) in tensors {
        if names.is_empty() || names.contains(&name) {
            lend(name, tensor, reply)?;
        }
    }
    Ok(())
}

/// Lends a tensor without a copy, once its device has finished with it.
pub(super) fn lend(name: String, tensor: Tensor, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    reply.lend(loan(name, tensor)?);
    Ok(())
}

/// A loan of a tensor, once its device has finished with it.
pub(in super::super) fn loan(name: String, tensor: Tensor) -> Result<Lent, ServiceError> {
    let dtype = data_type(tensor.kind())
        .ok_or_else(|| ServiceError::Failed(format!("tensor `{name}` has the type {:?}", tensor.kind())))?;
    let device = match tensor.device() {
        Device::Cpu => AbiDevice { kind: 1, index: 0 },
        Device::Cuda(index) => {
            tch::Cuda::synchronize(index as i64);
            AbiDevice { kind: 2, index: index as i32 }
        }
        other => return Err(ServiceError::Failed(format!("tensor `{name}` lies on {other:?}"))),
    };
    let data = if tensor.numel() == 0 { std::ptr::null_mut() } else { tensor.data_ptr() };
    let (shape, strides) = (tensor.size(), tensor.stride());
    Ok(Lent { name, shape, strides, data, dtype, device, owner: Rc::new(tensor) })
}

/// A copy on the CPU of each tensor that the plugin passes back.
pub(super) fn to_host(tables: &[TensorTable], reply: &mut Reply<'_>) -> Result<(), ServiceError> {
    for table in tables {
        // SAFETY: the plugin passes a view that the host lent it, within the same hook.
        let name = unsafe { TensorView::from_table(*table) }.name().to_owned();
        let copy = borrowed(table)?.f_to_device(Device::Cpu).and_then(|tensor| tensor.f_contiguous());
        lend(name, copy.map_err(TrainError::from)?, reply)?;
    }
    Ok(())
}

/// A copy that any thread may read.
pub(super) fn shared_copy(table: &TensorTable) -> Result<SharedTensor, ServiceError> {
    // SAFETY: the plugin's table is valid until the call returns.
    let name = unsafe { TensorView::from_table(*table) }.name().to_owned();
    Ok(HostTensor::share(&name, &borrowed(table)?)?)
}

/// A tensor over a plugin's memory; it must not outlive the call.
pub(super) fn borrowed(table: &TensorTable) -> Result<Tensor, ServiceError> {
    // SAFETY: the plugin's table is valid until the call returns, and so is what it points to.
    let view = unsafe { TensorView::from_table(*table) };
    let name = view.name();
    let kind = kind(view.dtype())
        .ok_or_else(|| ServiceError::Failed(format!("tensor `{name}` has the type `{}`", view.dtype().name())))?;
    let device = match view.device() {
        AbiDevice { kind: 1, .. } => Device::Cpu,
        AbiDevice { kind: 2, index } if index >= 0 => Device::Cuda(index as usize),
        device => return Err(ServiceError::Failed(format!("tensor `{name}` lies on device {device:?}"))),
    };
    let shape = view.shape();
    if shape.iter().any(|&size| size < 0) {
        return Err(ServiceError::Failed(format!("tensor `{name}` has the shape {shape:?}")));
    }
    if view.is_empty() {
        return Tensor::f_empty(shape, (kind, device)).map_err(|error| TrainError::from(error).into());
    }
    let contiguous: Vec<i64>;
    let strides = match view.strides() {
        Some(strides) => strides,
        None => {
            contiguous = contiguous_strides(shape);
            &contiguous
        }
    };
    let data = table.tensor.data.cast::<u8>().wrapping_add(table.tensor.byte_offset as usize);
    // SAFETY: the plugin says that this memory holds such a tensor until the call returns; the result does not
    // outlive the call.
    unsafe { Tensor::f_from_blob(data, shape, strides, kind, device) }.map_err(|error| TrainError::from(error).into())
}

/// Counts of a tapped histogram.
const BINS: i64 = 64;

fn reduce(value: &Tensor, to: TapReduce) -> Result<Tensor, tch::TchError> {
    tch::no_grad(|| match to {
        TapReduce::Whole => value.f_detach(),
        TapReduce::Mean => value.f_mean(Kind::Float),
        TapReduce::Norm => value.f_norm(),
        TapReduce::MinMax => Tensor::f_stack(&[value.f_min()?, value.f_max()?], 0),
        // Without bounds, `torch.histc` uses the least and the greatest element; it refuses values that are not finite.
        TapReduce::Histogram => {
            let finite = value.f_masked_select(&value.f_isfinite()?)?;
            finite.f_to_device(Device::Cpu)?.f_histc(BINS)
        }
        TapReduce::NonFinite => value.f_isfinite()?.f_logical_not()?.f_sum(Kind::Float),
    })
}
