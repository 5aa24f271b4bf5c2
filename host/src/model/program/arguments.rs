//! The arguments of a node, as libtorch takes them.

use serde_json::Value;

use super::Scope;
use super::document::{double, dtype_number, entry, layout_number, memory_format_number, text_of};
use crate::torch::program::{Argument, NO_SLOT, Size, Slot};

/// An argument of a node; the error continues "its argument `x` …".
pub(super) fn argument(value: &Value, scope: &Scope) -> Result<Argument, String> {
    let (kind, value) = entry(value).ok_or("has no value")?;
    let slot = |name: Option<&str>| -> Result<Slot, String> {
        let name = name.ok_or("has no name")?;
        scope.get(name).copied().ok_or_else(|| format!("is `{name}`, which no node before makes"))
    };
    let list = || value.as_array().ok_or("is no list");
    let integer = |value: &Value| value.as_i64().ok_or_else(|| format!("is {value}, not a whole number"));
    let number =
        |number: Option<i64>| number.map(Argument::Integer).ok_or_else(|| format!("is {value}, which is not known"));
    let size = |value: &Value| match entry(value) {
        Some(("as_int", value)) => integer(value).map(Size::Fixed),
        Some(("as_name", value)) => slot(value.as_str()).map(Size::Slot),
        _ => Err(format!("is {value}, which is not supported")),
    };
    Ok(match kind {
        "as_none" => Argument::None,
        "as_tensor" => Argument::Slot(slot(text_of(value, "name"))?),
        "as_tensors" => {
            Argument::Slots(list()?.iter().map(|value| slot(text_of(value, "name"))).collect::<Result<_, _>>()?)
        }
        "as_optional_tensors" => Argument::Slots(
            list()?
                .iter()
                .map(|value| match value.get("as_tensor") {
                    Some(tensor) => slot(text_of(tensor, "name")),
                    None => Ok(NO_SLOT),
                })
                .collect::<Result<_, _>>()?,
        ),
        "as_int" => Argument::Integer(integer(value)?),
        "as_ints" => {
            Argument::Integers(list()?.iter().map(|value| integer(value).map(Size::Fixed)).collect::<Result<_, _>>()?)
        }
        "as_sym_int" | "as_sym_bool" => match entry(value) {
            Some(("as_bool", value)) => Argument::Bool(value.as_bool().ok_or("is no truth value")?),
            _ => match size(value)? {
                Size::Fixed(value) => Argument::Integer(value),
                Size::Slot(slot) => Argument::Slot(slot),
            },
        },
        "as_sym_ints" => Argument::Integers(list()?.iter().map(size).collect::<Result<_, _>>()?),
        "as_float" => Argument::Double(double(value)?),
        "as_floats" => Argument::Doubles(list()?.iter().map(double).collect::<Result<_, _>>()?),
        "as_bool" => Argument::Bool(value.as_bool().ok_or("is no truth value")?),
        "as_bools" => Argument::Bools(
            list()?.iter().map(|value| value.as_bool().ok_or("is no truth value")).collect::<Result<_, _>>()?,
        ),
        "as_string" => Argument::Text(value.as_str().ok_or("is no text")?.to_owned()),
        "as_device" => Argument::Device,
        "as_scalar_type" => number(value.as_i64().and_then(dtype_number))?,
        "as_memory_format" => number(value.as_i64().and_then(memory_format_number))?,
        "as_layout" => number(value.as_i64().and_then(layout_number))?,
        other => return Err(format!("is of the kind `{other}`, which is not supported")),
    })
}
