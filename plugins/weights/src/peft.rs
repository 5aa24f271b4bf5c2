//! The two files of an adapter in the format of PEFT, Hugging Face's library: `PeftModel.from_pretrained(model, folder)` loads
//! them. See `peft/utils/save_and_load.py` and `peft/tuners/lora/config.py`.

use std::io::Write;

use export::{Origin, Values, Weight, Weights, write_safetensors};
use plugin_api::protocol::LoraInfo;
use plugin_api::{Error, Result, Run};
use serde_json::{Value, json};

/// The files, in the order in which they are published: the one that names what is in the other is last.
pub(crate) const FILES: [&str; 2] = ["adapter_model.safetensors", "adapter_config.json"];

/// What PEFT's names begin with: its own module, and the method's.
const PREFIX: &str = "base_model.model.";

/// The adapters of the run.
///
/// # Errors
///
/// When there are none.
pub(crate) fn adapters(lora: Option<LoraInfo>) -> Result<LoraInfo> {
    lora.ok_or_else(|| {
        Error::new("`formats` has `peft`, which is for adapters, and this run has none: `[model] lora` adds them")
    })
}

/// Writes both files: the adapters, and the modules of `weights` that are trained themselves.
///
/// # Errors
///
/// Errors of the disk and of the services, and numbers that may not be exported.
pub(crate) fn write(
    [tensors, config]: [&mut dyn Write; 2],
    run: &Run<'_>,
    lora: &LoraInfo,
    weights: &Weights<'_>,
    origin: &Origin,
    allow_non_finite: bool,
) -> Result<()> {
    let names: Vec<String> = lora.tensors.iter().map(|name| format!("{PREFIX}{name}")).collect();
    let pairs = lora.tensors.iter().map(String::as_str).zip(names.iter().map(String::as_str));
    let mut written = Weights::read_as(run, pairs, allow_non_finite)?;
    let is_saved = |name: &str| {
        let is_in = |module: &String| name.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with('.'));
        lora.modules_to_save.iter().any(is_in)
    };
    let saved: Vec<(Weight<'_>, String)> = weights
        .iter()
        .filter(|weight| is_saved(weight.name))
        .map(|weight| (weight, format!("{PREFIX}{}", weight.name)))
        .collect();
    for (weight, name) in &saved {
        written.insert(Weight { name, ..*weight });
    }
    let outputs: Vec<Output> =
        lora.target_modules.iter().filter_map(|module| Output::of(module, lora, weights)).collect();
    for Output { names, shapes, zeros } in &outputs {
        for (name, shape) in names.iter().zip(shapes) {
            written.insert(Weight { name, shape, values: Values::F32(zeros) });
        }
    }
    write_safetensors(tensors, &written, origin)?;
    let mut text = serde_json::to_vec_pretty(&configuration(lora))?;
    text.push(b'\n');
    Ok(config.write_all(&text)?)
}

/// The adapter of the output of a multi-head attention: PEFT adapts it with the rest, and the host does not, so that it is zeros.
struct Output {
    names: [String; 2],
    shapes: [[i64; 2]; 2],
    /// The elements of either.
    zeros: Vec<f32>,
}

impl Output {
    /// That of `module`, if it is a multi-head attention.
    fn of(module: &str, lora: &LoraInfo, weights: &Weights<'_>) -> Option<Self> {
        weights.get(&format!("{module}.in_proj_weight")).ok()?;
        let weight = weights.get(&format!("{module}.out_proj.weight")).ok()?;
        let [out, inputs] = *weight.shape else { return None };
        let rank = i64::try_from(lora.rank).ok()?;
        // Square.
        let count = usize::try_from(rank.checked_mul(out)?).ok().filter(|_| out == inputs)?;
        let names = ["lora_A", "lora_B"].map(|matrix| format!("{PREFIX}{module}.base_layer.out_proj.{matrix}.weight"));
        Some(Self { names, shapes: [[rank, inputs], [out, rank]], zeros: vec![0.0; count] })
    }
}

/// `adapter_config.json`.
fn configuration(lora: &LoraInfo) -> Value {
    // PEFT's own are whole numbers.
    let alpha =
        if lora.alpha.fract() == 0.0 && lora.alpha.abs() < 1e15 { json!(lora.alpha as i64) } else { json!(lora.alpha) };
    let modules_to_save = if lora.modules_to_save.is_empty() { Value::Null } else { json!(lora.modules_to_save) };
    json!({
        "peft_type": "LORA",
        "task_type": null,
        "auto_mapping": null,
        "base_model_name_or_path": null,
        "revision": null,
        "inference_mode": true,
        "r": lora.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": lora.target_modules,
        "modules_to_save": modules_to_save,
        "fan_in_fan_out": lora.fan_in_fan_out,
        "bias": "none",
        "init_lora_weights": true,
        "use_rslora": false,
        "use_dora": false,
        "rank_pattern": {},
        "alpha_pattern": {},
        "layers_to_transform": null,
        "layers_pattern": null,
    })
}
