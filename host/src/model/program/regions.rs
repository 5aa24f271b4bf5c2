//! Parts of a program that run in another mode or under a condition: the higher-order operators
//! `wrap_with_set_grad_enabled`, `wrap_with_autocast` and `cond`.

use serde_json::Value;

use super::builder::Builder;
use super::document::{Graph, Node, dtype_number, entry, names, text_of};
use super::operators::Region;
use crate::refusal::Refusal;
use crate::torch::program::{Slot, Step};

/// Adds the steps of a region.
pub(super) fn add(builder: &mut Builder<'_>, region: Region, node: &Node, label: &str) -> Result<(), Refusal> {
    let arguments: Vec<&Value> = node.inputs.iter().map(|input| &input.arg).collect();
    match (region, &arguments[..]) {
        (Region::Gradients, [enabled, body, operands @ ..]) => {
            let step = Step::Gradients { enabled: truth(enabled)? };
            wrapped(builder, step, body, operands, node, label)
        }
        (Region::Autocast, [_, dtype, enabled, cache, body, operands @ ..]) => {
            let dtype = match entry(dtype) {
                Some(("as_none", _)) => None,
                Some(("as_scalar_type", number)) => Some(
                    number
                        .as_i64()
                        .and_then(dtype_number)
                        .ok_or_else(|| Refusal::new(format!("its dtype is {number}, which is not known")))?,
                ),
                _ => return Err(Refusal::new(format!("its dtype is {dtype}, which is not known"))),
            };
            // Not given, PyTorch keeps what it has cast.
            let cache = matches!(entry(cache), Some(("as_none", _))) || truth(cache)?;
            let step = Step::Autocast { dtype, enabled: truth(enabled)?, cache };
            wrapped(builder, step, body, operands, node, label)
        }
        (Region::Condition, [condition, if_true, if_false, operands @ ..]) => {
            branches(builder, condition, [if_true, if_false], operands, node, label)
        }
        _ => Err(Refusal::new(format!("it has {} arguments, which is not enough", arguments.len()))),
    }
}

/// A region whose steps run in another mode.
fn wrapped(
    builder: &mut Builder<'_>,
    step: Step,
    body: &Value,
    operands: &[&Value],
    node: &Node,
    label: &str,
) -> Result<(), Refusal> {
    let operands = slots(builder, operands)?;
    builder.program.step(label, step)?;
    let made = inline(builder, body, &operands)?;
    builder.program.step(label, Step::Leave)?;
    for (name, slot) in results(node, made.len())?.into_iter().zip(made) {
        builder.scope.insert(name.to_owned(), slot);
    }
    Ok(())
}

/// Two regions, of which one runs.
fn branches(
    builder: &mut Builder<'_>,
    condition: &Value,
    [if_true, if_false]: [&Value; 2],
    operands: &[&Value],
    node: &Node,
    label: &str,
) -> Result<(), Refusal> {
    let condition = slots(builder, &[condition])?;
    let [condition] = condition[..] else { return Err(Refusal::new("it has not one condition")) };
    let operands = slots(builder, operands)?;
    builder.program.step(label, Step::If(condition))?;
    let made = inline(builder, if_true, &operands)?;
    let returned = results(node, made.len())?;
    let places: Vec<Slot> = returned.iter().map(|name| builder.declare(name)).collect();
    copy(builder, label, &made, &places)?;
    builder.program.step(label, Step::Else)?;
    let made = inline(builder, if_false, &operands)?;
    if made.len() != places.len() {
        return Err(Refusal::new(format!("its branches return {} and {} values", places.len(), made.len())));
    }
    copy(builder, label, &made, &places)?;
    Ok(builder.program.step(label, Step::End)?)
}

fn copy(builder: &mut Builder<'_>, label: &str, from: &[Slot], to: &[Slot]) -> Result<(), Refusal> {
    from.iter().zip(to).try_for_each(|(&from, &to)| Ok(builder.program.step(label, Step::Copy(from, to))?))
}

/// Adds the nodes of a region's graph, which reads the values of `operands`; returns the slots of its results.
fn inline(builder: &mut Builder<'_>, body: &Value, operands: &[Slot]) -> Result<Vec<Slot>, Refusal> {
    let Some(("as_graph", body)) = entry(body) else { return Err(Refusal::new("it has no graph where one is needed")) };
    let graph: Graph = serde_json::from_value(body.get("graph").cloned().unwrap_or_default())
        .map_err(|error| Refusal::new(format!("its graph is not understood: {error}")))?;
    let inputs: Vec<&str> = graph.inputs.iter().flat_map(names).collect();
    if inputs.len() != operands.len() || graph.inputs.len() != operands.len() {
        return Err(Refusal::new(format!(
            "its graph takes {} values, and is given {}",
            graph.inputs.len(),
            operands.len()
        )));
    }
    let inside = inputs.into_iter().map(str::to_owned).zip(operands.iter().copied()).collect();
    let outside = std::mem::replace(&mut builder.scope, inside);
    let added = builder.nodes(&graph);
    let inside = std::mem::replace(&mut builder.scope, outside);
    added?;
    let made = graph.outputs.iter().map(|output| match names(output)[..] {
        [name] => {
            inside.get(name).copied().ok_or_else(|| Refusal::new(format!("its result `{name}` is made by no node")))
        }
        _ => Err(Refusal::new(format!("its graph returns {output}, which is not supported"))),
    });
    made.collect()
}

/// The names of the `count` values that the node returns.
fn results(node: &Node, count: usize) -> Result<Vec<&str>, Refusal> {
    let names: Vec<&str> = node.outputs.iter().flat_map(names).collect();
    if names.len() != count {
        return Err(Refusal::new(format!("its graph returns {count} values, and it {}", names.len())));
    }
    Ok(names)
}

/// The slots of the values that it is given.
fn slots(builder: &Builder<'_>, given: &[&Value]) -> Result<Vec<Slot>, Refusal> {
    let mut slots = Vec::new();
    for value in given {
        let names: Vec<&str> = match entry(value) {
            Some(("as_tensor", tensor)) => text_of(tensor, "name").into_iter().collect(),
            Some(("as_tensors" | "as_sym_int" | "as_sym_bool", _)) => names(value),
            _ => Vec::new(),
        };
        let is_empty_list = value.get("as_tensors").and_then(Value::as_array).is_some_and(Vec::is_empty);
        if names.is_empty() && !is_empty_list {
            return Err(Refusal::new(format!("it is given {value}, which is not supported")));
        }
        for name in names {
            let slot = builder.scope.get(name);
            slots.push(*slot.ok_or_else(|| Refusal::new(format!("it is given `{name}`, which no node before makes")))?);
        }
    }
    Ok(slots)
}

fn truth(value: &Value) -> Result<bool, Refusal> {
    value
        .get("as_bool")
        .and_then(Value::as_bool)
        .ok_or_else(|| Refusal::new(format!("it is given {value}, not true or false")))
}
