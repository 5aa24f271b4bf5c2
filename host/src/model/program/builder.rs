//! The nodes of a document as a program for libtorch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use tch::Device;

use super::archive::Archive;
use super::arguments::argument;
use super::document::{Document, Graph, Node, entry, input_name, names};
use super::interface::{Interface, Outputs, arguments, outputs};
use super::lower::{Lowered, Place, SavedTensors, evaluate, lower};
use super::operators::{Target, target};
use super::uses::Uses;
use super::{Described, Exported, ExportedRefusal, Normalization, Purpose, Scope, regions, tensors};
use crate::refusal::Refusal;
use crate::torch::program::{self, Argument, NO_SLOT, Output, Program, Size, Slot, Symbol};

/// What an evaluation that no flag makes needs.
const HOW_EVALUATED: &str =
    "export the model after `model.eval()`, too, and name that file: `exported_eval = \"model_eval.pt2\"`";

/// The program of a document, with its tensors on `device`, used by an `interface`.
pub(super) fn build(
    document: &Document,
    archive: &mut Archive,
    device: Device,
    purpose: Purpose<'_>,
    interface: &Interface<'_>,
) -> Result<Exported, ExportedRefusal> {
    let graph = &document.graph_module.graph;
    let bound = tensors::read(document, archive, device, purpose)?;
    let mut builder = Builder::new(device, purpose)?;
    for spec in &document.graph_module.signature.input_specs {
        // The others are the model's tensors.
        if let Some(name) = input_name(spec).filter(|_| spec.get("user_input").or(spec.get("constant_input")).is_some())
        {
            builder.declare(name);
        }
    }
    let mut saved_slots: BTreeMap<Slot, &str> = BTreeMap::new();
    for tensor in &bound {
        let slot = builder.declare(tensor.input);
        saved_slots.extend(tensor.saved.map(|name| (slot, name)));
        builder.program.bind(slot, &tensor.tensor, tensor.is_buffer)?;
    }
    builder.nodes(graph)?;
    let Builder { mut program, scope, normalizations, uses, .. } = builder;
    let arguments = arguments(document, &scope, interface).map_err(ExportedRefusal::Arguments)?;
    let Outputs { output, loss, called } = outputs(document, interface)?;
    let made = |name: &str| scope.get(name).copied().ok_or_else(|| Refusal::new("its output is made by no node"));
    let places = std::iter::once(output).chain(loss).map(made).collect::<Result<Vec<_>, _>>()?;
    program.finish(&places)?;
    let constants = evaluate(document, &bound, device);
    let normalizations = normalizations.iter().map(|slots| normalization(slots, &saved_slots)).collect();
    let mut slots: BTreeMap<String, Vec<Slot>> = BTreeMap::new();
    for (slot, name) in &saved_slots {
        slots.entry((*name).to_owned()).or_default().push(*slot);
    }
    let roles = slots.iter().map(|(name, slots)| (name.clone(), uses.role(slots))).collect();
    let mut tensors: Vec<(String, tch::Tensor)> = Vec::new();
    let (mut names, mut listed, mut buffers) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    for tensors::Bound { input, saved, is_buffer, tensor } in bound {
        let Some(saved) = saved else { continue };
        names.insert(input.to_owned(), saved.to_owned());
        if is_buffer {
            buffers.insert(saved);
        }
        if listed.insert(saved) {
            tensors.push((saved.to_owned(), tensor));
        }
    }
    let targets = arguments.iter().find(|argument| argument.is_targets()).map(|targets| targets.input.name.as_str());
    let reads_targets = targets.is_some_and(|targets| depends(graph, output, targets));
    let saved = tensors.iter().map(|(name, tensor)| (name.as_str(), (tensor.size(), tensor.kind())));
    let saved_tensors = SavedTensors { names: &names, saved: saved.collect(), buffers, targets };
    let mut given: Vec<(usize, &str)> =
        arguments.iter().filter_map(|argument| Some((argument.place()?, argument.input.name.as_str()))).collect();
    given.sort_unstable();
    // Of several, the name in a batch tells which one it is.
    let of_batch = |place: usize| interface.inputs.get(place).filter(|_| given.len() > 1).map(String::as_str);
    let inputs: Vec<(&str, &str)> =
        given.iter().map(|(place, name)| (*name, of_batch(*place).unwrap_or(name))).collect();
    let lowered = lower(document, &saved_tensors, &inputs, constants, called.as_deref());
    let graph = lowered.map(|Lowered { graph, values }| Described {
        graph: Arc::new(graph),
        values: values
            .iter()
            .map(|Place { name, before }| (scope.get(name).copied().unwrap_or(NO_SLOT), *before))
            .collect(),
    });
    let gives_loss = loss.is_some();
    Ok(Exported {
        program,
        tensors,
        arguments,
        gives_loss,
        reads_targets,
        normalizations,
        roles,
        slots,
        graph,
        evaluation: None,
    })
}

/// Whether a value is computed from another one, or from its size.
fn depends(graph: &Graph, value: &str, on: &str) -> bool {
    let mut read = BTreeSet::from([value]);
    // Nodes come after those that they read.
    for node in graph.nodes.iter().rev() {
        if node.outputs.iter().flat_map(names).any(|made| read.contains(made)) {
            read.extend(node.inputs.iter().flat_map(|input| names(&input.arg)));
        }
    }
    read.contains(on)
}

/// What of a normalization is in the state dict, by the slots of its arguments.
fn normalization(slots: &BTreeMap<String, Slot>, saved: &BTreeMap<Slot, &str>) -> Normalization {
    let of = |arguments: [&str; 2]| {
        let slots = arguments.into_iter().filter_map(|argument| slots.get(argument).copied());
        slots.filter_map(|slot| Some(((*saved.get(&slot)?).to_owned(), slot))).collect::<Vec<_>>()
    };
    let mut buffers = of(["running_mean", "running_var"]);
    // The counter is no argument; it has the module's name.
    let module = buffers.first().and_then(|(name, _)| name.strip_suffix("running_mean"));
    let counter = module.map(|module| format!("{module}num_batches_tracked"));
    buffers.extend(
        saved
            .iter()
            .filter(|(_, name)| Some(**name) == counter.as_deref())
            .map(|(slot, name)| ((*name).to_owned(), *slot)),
    );
    let parameters = of(["weight", "bias"]).into_iter().map(|(name, _)| name).collect();
    Normalization { parameters, buffers }
}

/// A program in the making.
pub(super) struct Builder<'p> {
    pub(super) program: Program,
    /// The names of the graph that is read: the document's, or that of a region in it.
    pub(super) scope: Scope,
    slots: Slot,
    purpose: Purpose<'p>,
    /// The slots of the arguments of each batch norm.
    normalizations: Vec<BTreeMap<String, Slot>>,
    uses: Uses,
}

impl<'p> Builder<'p> {
    /// An empty program on `device`.
    pub(super) fn new(device: Device, purpose: Purpose<'p>) -> Result<Self, Refusal> {
        let program = Program::new(device)?;
        Ok(Self { program, scope: Scope::new(), slots: 0, purpose, normalizations: Vec::new(), uses: Uses::default() })
    }

    /// The slot of a value of this name from now on.
    pub(super) fn declare(&mut self, name: &str) -> Slot {
        let slot = self.slots;
        self.slots += 1;
        self.scope.insert(name.to_owned(), slot);
        slot
    }

    /// Adds the nodes of a graph.
    pub(super) fn nodes(&mut self, graph: &Graph) -> Result<(), Refusal> {
        for node in &graph.nodes {
            let label = node.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&node.target);
            self.node(node, label).map_err(|refusal| {
                let message = refusal.to_string();
                refusal.with_message(format!("node `{label}` (`{}`): {message}", node.target))
            })?;
        }
        Ok(())
    }

    /// Adds a node.
    pub(super) fn node(&mut self, node: &Node, label: &str) -> Result<(), Refusal> {
        match target(&node.target)? {
            Target::Nothing => Ok(()),
            Target::Region(region) => regions::add(self, region, node, label),
            Target::Python(name) => {
                let symbol = symbol(name)
                    .ok_or_else(|| Refusal::new(format!("it computes `{name}` of sizes, which is not supported")))?;
                let arguments = self.arguments(node)?;
                let operands = arguments.iter().map(|(_, argument)| match argument {
                    Argument::Integer(value) => Ok(Size::Fixed(*value)),
                    Argument::Slot(slot) => Ok(Size::Slot(*slot)),
                    _ => Err(Refusal::new("an operand is no size")),
                });
                let operands = operands.collect::<Result<Vec<_>, _>>()?;
                let [Output::One(output)] = self.outputs(node)?[..] else {
                    return Err(Refusal::new("it has not one result"));
                };
                Ok(self.program.symbol(label, symbol, &operands, output)?)
            }
            Target::Operator(name, overload) => {
                if !program::knows(&name, overload) {
                    return Err(Refusal::new(format!("libtorch does not have the operator `{name}`"))
                        .with_hint("it is of another version of PyTorch: export with 2.11"));
                }
                let arguments = self.arguments(node)?;
                let outputs = self.outputs(node)?;
                if name == "aten::batch_norm" {
                    let slots = arguments.iter().filter_map(|(name, argument)| match argument {
                        Argument::Slot(slot) => Some((name.clone(), *slot)),
                        _ => None,
                    });
                    self.normalizations.push(slots.collect());
                }
                self.uses.note(&name, &arguments);
                let is_random = self.program.call(label, (&name, overload), &arguments, &outputs)?;
                match self.purpose {
                    Purpose::Both | Purpose::Evaluation(_) if is_random => {
                        Err(Refusal::new("it draws random numbers in evaluation, too").with_hint(HOW_EVALUATED))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    fn arguments(&self, node: &Node) -> Result<Vec<(String, Argument)>, Refusal> {
        let arguments = node.inputs.iter().map(|given| {
            let argument = argument(&given.arg, &self.scope)
                .map_err(|what| Refusal::new(format!("its argument `{}` {what}", given.name)))?;
            Ok((given.name.clone(), argument))
        });
        arguments.collect()
    }

    /// The places of what a node returns.
    fn outputs(&mut self, node: &Node) -> Result<Vec<Output>, Refusal> {
        node.outputs.iter().map(|output| self.output(output)).collect()
    }

    fn output(&mut self, value: &Value) -> Result<Output, Refusal> {
        match entry(value) {
            Some(("as_tensors", Value::Array(_))) => {
                Ok(Output::List(names(value).into_iter().map(|name| self.declare(name)).collect()))
            }
            Some(("as_none", _)) => Ok(Output::One(NO_SLOT)),
            Some(("as_tensor" | "as_sym_int" | "as_sym_bool" | "as_sym_float", _)) => {
                Ok(Output::One(names(value).first().map_or(NO_SLOT, |name| self.declare(name))))
            }
            _ => Err(Refusal::new(format!("it returns {value}, which is not supported"))),
        }
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
