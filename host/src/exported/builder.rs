//! The nodes of a document as a program for libtorch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tch::{Device, Tensor};

use super::archive::{Archive, Payloads};
use super::document::{
    Document, Node, double, dtype_number, entry, input_name, kind_of, layout_number, memory_format_number, names,
    output, text_of,
};
use super::error::Refusal;
use super::lower::{Lowered, SavedTensors, lower};
use super::operators::{Target, target};
use super::{Described, Exported, Input};
use crate::torch::program::{self, Argument, NO_SLOT, Output, Program, Size, Slot, Symbol};

const WEIGHTS: &str = "data/weights";
const CONSTANTS: &str = "data/constants";

/// What a batch that may have any size needs.
const HOW_DYNAMIC: &str =
    "export it with `dynamic_shapes=({0: torch.export.Dim(\"batch\", min=1)},)` and an example of 2 samples or more";

/// The program of a document, with its tensors on `device`.
pub(super) fn build(document: &Document, archive: &mut Archive, device: Device) -> Result<Exported, Refusal> {
    let slots = Slots::of(document);
    let mut program = Program::new(device, slots.count())?;
    let Bound { tensors, names } = bind(document, archive, &slots, &mut program, device)?;
    let mut known: BTreeSet<Slot> = BTreeSet::new();
    for spec in &document.graph_module.signature.input_specs {
        known.extend(input_name(spec).and_then(|name| slots.get(name)));
    }
    for node in &document.graph_module.graph.nodes {
        let label = node.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&node.target);
        let context = |refusal: Refusal| {
            let message = refusal.to_string();
            refusal.in_node(format!("node `{label}` (`{}`): {message}", node.target))
        };
        add(node, label, &slots, &mut known, &mut program).map_err(context)?;
    }
    let input = input(document, &slots)?;
    let output = output(document)?;
    let output = slots.get(output).filter(|slot| known.contains(slot));
    program.finish(&[output.ok_or_else(|| Refusal::new("its output is made by no node"))?])?;
    let saved = tensors.iter().map(|(name, tensor)| (name.as_str(), (tensor.size(), tensor.kind())));
    let lowered = lower(document, &SavedTensors { names: &names, saved: saved.collect() });
    let graph = lowered.map(|Lowered { graph, values }| Described {
        graph: Arc::new(graph),
        values: values.iter().map(|value| slots.get(value).unwrap_or(NO_SLOT)).collect(),
    });
    Ok(Exported { program, tensors, input, graph })
}

/// The tensors of a program.
struct Bound {
    /// Those with names of PyTorch's state dict; of tied ones the first.
    tensors: Vec<(String, Tensor)>,
    /// The name among them of each that has one, by its name in the document's graph.
    names: BTreeMap<String, String>,
}

/// The slots of the names of a graph.
struct Slots<'d>(BTreeMap<&'d str, Slot>);

impl<'d> Slots<'d> {
    fn of(document: &'d Document) -> Self {
        let graph = &document.graph_module.graph;
        let inputs = document.graph_module.signature.input_specs.iter().filter_map(input_name);
        let made = graph.nodes.iter().flat_map(|node| node.outputs.iter().flat_map(names));
        let mut slots = BTreeMap::new();
        for name in inputs.chain(made) {
            let next = slots.len() as Slot;
            slots.entry(name).or_insert(next);
        }
        Self(slots)
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn get(&self, name: &str) -> Option<Slot> {
        self.0.get(name).copied()
    }
}

/// Reads the tensors of the model and binds them.
fn bind(
    document: &Document,
    archive: &mut Archive,
    slots: &Slots<'_>,
    program: &mut Program,
    device: Device,
) -> Result<Bound, Refusal> {
    let weights = archive.payloads(&format!("{WEIGHTS}/model_weights_config.json"))?;
    let constants = archive.payloads(&format!("{CONSTANTS}/model_constants_config.json"))?;
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    let mut names = BTreeMap::new();
    // Tied ones are one tensor: the same part of the same storage.
    let mut tied: BTreeMap<String, (Tensor, String)> = BTreeMap::new();
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
        let (name, (in_graph, slot)) = text_of(fields, key)
            .zip(input_name(spec).and_then(|name| Some((name, slots.get(name)?))))
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
        let place = format!("{folder} {payload:?} {learns}");
        let (tensor, first) = match tied.get(&place) {
            Some((tensor, first)) => (tensor.shallow_clone(), first.clone()),
            None => (on(archive.tensor(folder, name, payload, learns)?, device, learns)?, name.to_owned()),
        };
        program.bind(slot, &tensor, kind == "buffer")?;
        if is_saved {
            if first == name {
                tensors.push((name.to_owned(), tensor.shallow_clone()));
            }
            names.insert(in_graph.to_owned(), first.clone());
        }
        tied.entry(place).or_insert((tensor, first));
    }
    Ok(Bound { tensors, names })
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

fn add(
    node: &Node,
    label: &str,
    slots: &Slots<'_>,
    known: &mut BTreeSet<Slot>,
    program: &mut Program,
) -> Result<(), Refusal> {
    let call = target(&node.target)?;
    if call == Target::Nothing {
        return Ok(());
    }
    let arguments = node
        .inputs
        .iter()
        .map(|given| {
            let argument = argument(&given.arg, slots, known)
                .map_err(|what| Refusal::new(format!("its argument `{}` {what}", given.name)))?;
            Ok((given.name.clone(), argument))
        })
        .collect::<Result<Vec<_>, Refusal>>()?;
    let outputs = node.outputs.iter().map(|output| made(output, slots)).collect::<Result<Vec<_>, _>>()?;
    match call {
        Target::Nothing => {}
        Target::Python(name) => {
            let symbol = symbol(name)
                .ok_or_else(|| Refusal::new(format!("it computes `{name}` of sizes, which is not supported")))?;
            let operands = arguments.iter().map(|(_, argument)| match argument {
                Argument::Integer(value) => Ok(Size::Fixed(*value)),
                Argument::Slot(slot) => Ok(Size::Slot(*slot)),
                _ => Err(Refusal::new("an operand is no size")),
            });
            let [Output::One(output)] = outputs[..] else { return Err(Refusal::new("it has not one result")) };
            program.symbol(label, symbol, &operands.collect::<Result<Vec<_>, _>>()?, output)?;
        }
        Target::Operator(name, overload) => {
            if !program::knows(&name, overload) {
                return Err(Refusal::new(format!("libtorch does not have the operator `{name}`"))
                    .with_hint("it is of another version of PyTorch: export with 2.11"));
            }
            if program.call(label, (&name, overload), &arguments, &outputs)? {
                return Err(Refusal::new("it draws random numbers in evaluation, too").with_hint(
                    "randomness that is no dropout cannot be switched off in a program: drop path and its like need a rate of 0",
                ));
            }
        }
    }
    for output in outputs {
        match output {
            Output::One(slot) => known.extend([slot]),
            Output::List(slots) => known.extend(slots),
        }
    }
    known.remove(&NO_SLOT);
    Ok(())
}

/// An argument of a node; the error continues "its argument `x` …".
fn argument(value: &Value, slots: &Slots<'_>, known: &BTreeSet<Slot>) -> Result<Argument, String> {
    let (kind, value) = entry(value).ok_or("has no value")?;
    let slot = |name: Option<&str>| -> Result<Slot, String> {
        let name = name.ok_or("has no name")?;
        let slot = slots.get(name).filter(|slot| known.contains(slot));
        slot.ok_or_else(|| format!("is `{name}`, which no node before makes"))
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

/// What a node returns in one place.
fn made(value: &Value, slots: &Slots<'_>) -> Result<Output, Refusal> {
    let slot = |name: &str| slots.get(name).unwrap_or(NO_SLOT);
    match entry(value) {
        Some(("as_tensors", Value::Array(_))) => Ok(Output::List(names(value).into_iter().map(slot).collect())),
        Some(("as_none", _)) => Ok(Output::One(NO_SLOT)),
        Some(("as_tensor" | "as_sym_int" | "as_sym_bool" | "as_sym_float", _)) => {
            Ok(Output::One(names(value).first().map_or(NO_SLOT, |name| slot(name))))
        }
        _ => Err(Refusal::new(format!("it returns {value}, which is not supported"))),
    }
}

fn symbol(name: &str) -> Option<Symbol> {
    Some(match name {
        "add" => Symbol::Add,
        "sub" => Symbol::Subtract,
        "mul" => Symbol::Multiply,
        "floordiv" => Symbol::FloorDivide,
        "mod" => Symbol::Modulo,
        "neg" => Symbol::Negate,
        "eq" => Symbol::Equal,
        "ne" => Symbol::NotEqual,
        "lt" => Symbol::Less,
        "le" => Symbol::LessEqual,
        "gt" => Symbol::Greater,
        "ge" => Symbol::GreaterEqual,
        _ => return None,
    })
}

/// The one tensor that the program takes.
fn input(document: &Document, slots: &Slots<'_>) -> Result<Input, Refusal> {
    let signature = &document.graph_module.signature;
    let given = signature.input_specs.iter().filter_map(|spec| {
        let argument = spec.get("user_input")?.get("arg")?;
        text_of(argument.get("as_tensor")?, "name")
    });
    let given: Vec<&str> = given.collect();
    let [name] = given[..] else {
        return Err(Refusal::new(format!("it takes {} tensors ({}), not one", given.len(), given.join(", ")))
            .with_hint("wrap the model in a module that takes one tensor, the samples of a batch"));
    };
    let meta = document.graph_module.graph.tensor_values.get(name);
    let (slot, meta) =
        slots.get(name).zip(meta).ok_or_else(|| Refusal::new(format!("its input `{name}` is not described")))?;
    let kind = kind_of(meta.dtype).ok_or_else(|| Refusal::new(format!("the dtype of `{name}` is not known")))?;
    let sizes: Vec<Option<i64>> = meta.sizes.iter().map(super::document::Size::fixed).collect();
    match sizes.first() {
        Some(None) => Ok(Input { name: name.to_owned(), slot, kind, sizes }),
        Some(Some(batch)) => {
            Err(Refusal::new(format!("its batch is fixed: `{name}` always has {batch} samples")).with_hint(HOW_DYNAMIC))
        }
        None => Err(Refusal::new(format!("its input `{name}` has no dimension for the batch")).with_hint(HOW_DYNAMIC)),
    }
}
