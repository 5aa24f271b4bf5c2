//! The parameters, buffers and constants of a program.

use std::collections::BTreeMap;

use serde_json::Value;
use tch::{Device, Tensor};

use super::Purpose;
use super::archive::{Archive, Payload, Payloads};
use super::document::{Document, entry, input_name, text_of};
use crate::refusal::Refusal;

const WEIGHTS: &str = "data/weights";
const CONSTANTS: &str = "data/constants";

/// A tensor of the model.
pub(super) struct Bound<'d> {
    /// Its name in the graph.
    pub(super) input: &'d str,
    /// PyTorch's name; that of the first, of tied ones. `None` for one that is not in the state dict.
    pub(super) saved: Option<&'d str>,
    pub(super) is_buffer: bool,
    pub(super) tensor: Tensor,
}

/// Where a tensor lies in the archive. Tied ones lie at the same place.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    folder: &'static str,
    path: String,
    dtype: i64,
    sizes: Vec<i64>,
    strides: Vec<i64>,
    offset: Option<i64>,
    learns: bool,
}

/// The tensors of the model, on `device`: read from the archive, or those of the program for training.
pub(super) fn read<'d>(
    document: &'d Document,
    archive: &mut Archive,
    device: Device,
    purpose: Purpose<'_>,
) -> Result<Vec<Bound<'d>>, Refusal> {
    let weights = archive.payloads(&format!("{WEIGHTS}/model_weights_config.json"))?;
    let constants = archive.payloads(&format!("{CONSTANTS}/model_constants_config.json"))?;
    let mut tensors = Vec::new();
    // The tensors so far, each with its first name in the state dict.
    let mut tied: BTreeMap<Place, (Tensor, Option<&str>)> = BTreeMap::new();
    for spec in &document.graph_module.signature.input_specs {
        let Some((kind, fields)) = entry(spec) else { continue };
        let (key, learns) = match kind {
            "parameter" => ("parameter_name", true),
            "buffer" => ("buffer_name", false),
            "tensor_constant" => ("tensor_constant_name", false),
            "user_input" | "constant_input" => continue,
            other => {
                return Err(Refusal::new(format!("it has an input of the kind `{other}`, which is not supported")));
            }
        };
        let (name, input) = text_of(fields, key)
            .zip(input_name(spec))
            .ok_or_else(|| Refusal::new("an input of its graph has no name"))?;
        let is_saved = kind != "tensor_constant" && fields.get("persistent") != Some(&Value::Bool(false));
        let of = |payloads: &Payloads, folder| payloads.config.contains_key(name).then_some(folder);
        let (folder, payloads) = match of(&weights, WEIGHTS) {
            Some(folder) => (folder, &weights),
            None => (CONSTANTS, &constants),
        };
        let payload = payloads
            .config
            .get(name)
            .ok_or_else(|| Refusal::new(format!("the values of `{name}` are not in the archive")))?;
        let learns = learns && payload.tensor_meta.requires_grad;
        let place = Place::of(folder, payload, learns);
        let (tensor, first) = match (tied.get(&place), purpose) {
            (Some((tensor, first)), _) => (tensor.shallow_clone(), *first),
            (None, Purpose::Evaluation(shared)) if is_saved => (of_training(shared, name, payload)?, None),
            (None, _) => (on(archive.tensor(folder, name, payload, learns)?, device, learns)?, None),
        };
        let saved = is_saved.then(|| first.unwrap_or(name));
        tied.insert(place, (tensor.shallow_clone(), first.or(saved)));
        tensors.push(Bound { input, saved, is_buffer: kind == "buffer", tensor });
    }
    Ok(tensors)
}

impl Place {
    fn of(folder: &'static str, payload: &Payload, learns: bool) -> Self {
        let meta = &payload.tensor_meta;
        // Without fixed sizes, the archive refuses it.
        let (sizes, strides) = meta.fixed().unwrap_or_default();
        let offset = meta.storage_offset.fixed();
        Self { folder, path: payload.path_name.clone(), dtype: meta.dtype, sizes, strides, offset, learns }
    }
}

/// The tensor of this name of the program for training, for one that evaluates.
fn of_training(shared: &[(String, Tensor)], name: &str, payload: &Payload) -> Result<Tensor, Refusal> {
    let own = shared.iter().find(|(own, _)| own == name).map(|(_, tensor)| tensor);
    let own = own.ok_or_else(|| {
        Refusal::new(format!("its tensor `{name}` is not in the program for training")).with_hint(
            "export both from one model: in training mode for `exported`, in evaluation mode for `exported_eval`",
        )
    })?;
    let (sizes, _) = payload.tensor_meta.fixed().unwrap_or_default();
    if own.size() != sizes {
        return Err(Refusal::new(format!(
            "its tensor `{name}` has the shape {sizes:?}, and that of the program for training {:?}",
            own.size()
        )));
    }
    Ok(own.shallow_clone())
}

/// The tensor on `device`.
fn on(tensor: Tensor, device: Device, learns: bool) -> Result<Tensor, Refusal> {
    if device == Device::Cpu {
        return Ok(tensor);
    }
    let moved = tensor.f_detach().and_then(|tensor| tensor.f_to_device(device));
    let moved = moved.and_then(|tensor| tensor.f_set_requires_grad(learns));
    moved.map_err(|error| crate::torch::TorchError::from(error).into())
}
