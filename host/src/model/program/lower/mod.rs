//! The nodes of a document as the host's own graph, for exporters and for people: the program is what is computed.
//!
//! ```text
//! arguments.rs  the arguments of a node
//! constants.rs  what is computed from sizes alone
//! layout.rs     where the batch is in a value
//! operators.rs  what each operator becomes
//! views.rs      those that only move values
//! attention.rs  attention, and its mask
//! masks.rs      masks that are made of what a batch holds
//! layers.rs     operators with tensors of their own
//! recurrent.rs  LSTM and GRU, with the values around them
//! ```
//!
//! The graph is that of evaluation. It has the sizes of one sample: the batch's size is the only one that is not fixed. Its
//! tensors are exactly those that the program saves, under their names in PyTorch's state dict: the layer with
//! `layer1.0.conv1.weight` is the node `layer1.0.conv1`. Other nodes have the names of the program. A tensor that two layers
//! share is that of both nodes; one that is no layer's is the value of a node.
//!
//! A batch may have several inputs, in its order and under its names. Of a mask among them, the graph computes with numbers: 1 is
//! true and 0 false.
//!
//! Positions and masks that depend on sizes alone are computed here: a mask of ones goes away, and one of earlier positions
//! becomes an attribute.
//!
//! What has no operator is told only where something of the graph reads it: exports have nodes that only masks or checks read.

mod arguments;
mod attention;
mod constants;
mod layers;
mod layout;
mod masks;
mod operators;
mod recurrent;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tch::{Kind, Tensor};

use self::arguments::Call;
pub(super) use self::constants::{Constants, evaluate};
use self::layout::{Extent, Layout};
use super::document::{Document, Node, Size, entry, input_name, kind_of, names, output, text_of};
use crate::model::{Dtype, Graph, GraphBuilder, Input, ModelError, Op};
use crate::refusal::Refusal;

/// A graph, and where the values of its nodes are in the document.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) graph: Graph,
    /// Where the value of each node is.
    pub(super) values: Vec<Place>,
}

/// Where a value is in the document.
#[derive(Debug)]
pub(super) struct Place {
    /// Its name; it may have another shape there.
    pub(super) name: String,
    /// How many of a sample's values come before the batch in memory; `None` for a value that is the same for each sample.
    pub(super) before: Option<i64>,
}

/// The tensors of a program that have names of PyTorch's state dict.
pub(super) struct SavedTensors<'a> {
    /// The name of each, by its name in the document's graph; tied ones have one name.
    pub(super) names: &'a BTreeMap<String, String>,
    /// Shapes and dtypes by name.
    pub(super) saved: BTreeMap<&'a str, (Vec<i64>, Kind)>,
    /// Which of these are buffers.
    pub(super) buffers: BTreeSet<&'a str>,
    /// The name in the graph of the targets, if the program takes them: its loss reads them, and no output.
    pub(super) targets: Option<&'a str>,
}

/// Why a node is not in the graph.
#[derive(Clone, Debug)]
struct Reason {
    text: String,
    /// Whether the text says at which node.
    has_place: bool,
}

impl From<String> for Reason {
    fn from(text: String) -> Self {
        Self { text, has_place: false }
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Reason {
    fn at(self, call: &Call<'_>) -> Self {
        if self.has_place {
            return self;
        }
        Self { text: format!("node `{}` (`{}`): {}", call.label(), call.target(), self.text), has_place: true }
    }
}

/// What a name of the document stands for.
#[derive(Debug)]
enum Value {
    /// The value of a node of the graph, or its input.
    Known(Known),
    /// A tensor of the model, by its name in the state dict.
    Tensor(String),
    /// Values of the graph that the document has repeated along dimensions of 1, for what does so by itself; and why they are
    /// no value.
    Repeated(Known, Reason),
    /// Numbers that depend on sizes alone, for a sample.
    Constant(Tensor),
    /// The index of each sample in its batch.
    Positions,
    /// Zeros, of any shape.
    Zeros,
    /// A size.
    Size,
    /// Nothing that the graph has.
    Missing(Reason),
}

/// A value of the graph.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    /// Its name in the graph.
    name: String,
    /// For one sample.
    shape: Vec<i64>,
    /// Where the program has the batch in it.
    layout: Layout,
    /// The memory that the program has it in, which views share, and how often that had changed when it was made.
    memory: usize,
    version: u32,
}

struct Lowering<'d> {
    document: &'d Document,
    tensors: &'d SavedTensors<'d>,
    constants: Constants,
    /// PyTorch's own name of each tensor of the model: of tied ones, each has another.
    own_names: HashMap<&'d str, &'d str>,
    /// The expression of the batch's size.
    batch: &'d str,
    builder: GraphBuilder,
    values: HashMap<&'d str, Value>,
    /// How often each memory has changed.
    versions: Vec<u32>,
    /// Names that a node without tensors cannot have: of tensors, of the nodes that own them, and those in use.
    taken: HashSet<String>,
    /// How many other names each name was replaced by.
    counts: HashMap<String, u32>,
    /// The nodes that own tensors so far.
    owners: HashSet<String>,
    /// The nodes of tensors that are values, by the tensors' names.
    parameters: HashMap<&'d str, Known>,
    /// Where each node's value is.
    made: Vec<Place>,
    /// The names in the document of the whole numbers of the graph, by their names in it; and the nodes of them as floating
    /// point.
    whole: HashMap<String, &'d str>,
    floats: HashMap<String, String>,
    /// The places of the nodes that read each value.
    readers: HashMap<&'d str, Vec<usize>>,
    /// Nodes that were lowered with an earlier one.
    done: HashSet<usize>,
    output: &'d str,
}

/// The graph of a document, up to the output called `wanted`, if it has several. `inputs` are the names of what it takes from a
/// batch, and those of the graph's inputs, in the batch's order. `constants` are those of the document.
///
/// # Errors
///
/// The first node, on the way to the output, that is not in it.
pub(super) fn lower(
    document: &Document,
    tensors: &SavedTensors<'_>,
    inputs: &[(&str, &str)],
    constants: Constants,
    wanted: Option<&str>,
) -> Result<Lowered, Refusal> {
    let mut lowering = Lowering::new(document, tensors, inputs, constants, wanted)?;
    for (place, node) in document.graph_module.graph.nodes.iter().enumerate() {
        if lowering.constants.nodes.contains(&place) {
            lowering.constant(node);
        } else if !lowering.done.contains(&place) {
            lowering.node(node)?;
        }
    }
    lowering.finish()
}

/// The lengths of a value of a document, in which `batch` is the expression of the batch's size.
fn extents(document: &Document, name: &str, batch: &str) -> Result<Vec<Extent>, Reason> {
    let meta = document.graph_module.graph.tensor_values.get(name);
    let meta = meta.ok_or_else(|| format!("the value `{name}` is not described"))?;
    let extent = |size: &Size| match (size.fixed(), size.expression()) {
        // Sums and products of sizes must not overflow.
        (Some(length), _) => (1..=i64::from(u32::MAX)).contains(&length).then_some(Extent::Fixed(length)),
        (None, Some(expression)) => times(expression, batch).map(Extent::Batch),
        (None, None) => None,
    };
    let extents = meta.sizes.iter().map(extent).collect::<Option<Vec<_>>>();
    extents.ok_or_else(|| Reason::from(format!("the sizes of `{name}` are not fixed")))
}

/// How many times the size of the batch an expression is, as SymPy's `srepr` writes products.
fn times(expression: &str, batch: &str) -> Option<i64> {
    if expression == batch {
        return Some(1);
    }
    let (number, symbol) = expression.strip_prefix("Mul(Integer(")?.strip_suffix(')')?.split_once("), ")?;
    number.parse().ok().filter(|times| symbol == batch && (1..=i64::from(u32::MAX)).contains(times))
}

impl<'d> Lowering<'d> {
    fn new(
        document: &'d Document,
        tensors: &'d SavedTensors<'d>,
        inputs: &[(&'d str, &str)],
        constants: Constants,
        wanted: Option<&str>,
    ) -> Result<Self, Refusal> {
        let specs = &document.graph_module.signature.input_specs;
        let mut values = HashMap::new();
        let mut own_names = HashMap::new();
        for spec in specs {
            let Some(name) = input_name(spec) else { continue };
            if spec.get("user_input").is_some() {
                if tensors.targets == Some(name) {
                    values.insert(name, Value::Missing(Reason::from(format!("it reads the targets `{name}`"))));
                }
                continue;
            }
            let own = entry(spec).and_then(|(kind, fields)| text_of(fields, &format!("{kind}_name")));
            own_names.extend(own.map(|own| (name, own)));
            let value = match (tensors.names.get(name), constants.values.get(name)) {
                (Some(saved), _) => Value::Tensor(saved.clone()),
                (None, Some(constant)) => Value::Constant(constant.shallow_clone()),
                (None, None) => Value::Missing(Reason::from(format!("it reads the constant `{name}`"))),
            };
            values.insert(name, value);
        }
        let described = inputs.first().and_then(|(name, _)| document.graph_module.graph.tensor_values.get(*name));
        let meta = described.ok_or_else(|| Refusal::new("its input is not described"))?;
        let batch = meta.sizes.first().and_then(|size| size.expression());
        let batch = batch.ok_or_else(|| Refusal::new("the size of its batch has no name"))?;
        let mut taken: HashSet<String> = tensors.saved.keys().map(|name| (*name).to_owned()).collect();
        taken.extend(tensors.saved.keys().filter_map(|name| Some(name.rsplit_once('.')?.0.to_owned())));
        let mut readers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, node) in document.graph_module.graph.nodes.iter().enumerate() {
            for read in node.inputs.iter().flat_map(|input| names(&input.arg)) {
                readers.entry(read).or_default().push(place);
            }
        }
        let mut lowering = Self {
            document,
            tensors,
            constants,
            own_names,
            batch,
            builder: GraphBuilder::default(),
            values,
            versions: Vec::new(),
            taken,
            counts: HashMap::new(),
            owners: HashSet::new(),
            parameters: HashMap::new(),
            made: Vec::new(),
            whole: HashMap::new(),
            floats: HashMap::new(),
            readers,
            done: HashSet::new(),
            output: output(document, wanted)?,
        };
        for (name, called) in inputs {
            lowering.take_input(name, called).map_err(|reason| Refusal::new(reason.text))?;
        }
        Ok(lowering)
    }

    /// Takes an input, which is `called` so in the graph.
    fn take_input(&mut self, name: &'d str, called: &str) -> Result<(), Reason> {
        let dtype = match self.kind(name) {
            Some(Kind::Float) => Dtype::F32,
            Some(Kind::Int64) => Dtype::I64,
            _ => return Err(Reason::from(format!("its input `{name}` is neither float32 nor int64"))),
        };
        let (layout, shape) = Layout::of(&self.extents(name)?)?;
        if layout != Layout::PLAIN {
            return Err(Reason::from(format!("its input `{name}` does not begin with the batch")));
        }
        let unique = self.unique(called);
        if dtype == Dtype::I64 {
            self.whole.insert(unique.clone(), name);
        }
        let input = Input { name: unique.clone(), shape: shape.clone(), dtype };
        self.builder.input(input).map_err(|error| Reason::from(error.to_string()))?;
        let memory = self.new_memory();
        self.values.insert(name, Value::Known(Known { name: unique, shape, layout, memory, version: 0 }));
        Ok(())
    }

    /// Takes what a node computes from sizes alone, as far as others read it.
    fn constant(&mut self, node: &'d Node) {
        for name in node.outputs.iter().flat_map(names) {
            let value = match self.constants.values.get(name) {
                Some(constant) => Value::Constant(constant.shallow_clone()),
                None if self.constants.positions.contains(name) => Value::Positions,
                None => Value::Missing(Reason::from(format!("`{name}` is not the same for each sample"))),
            };
            self.values.insert(name, value);
        }
    }

    fn node(&mut self, node: &'d Node) -> Result<(), Refusal> {
        let call = Call::new(node);
        let Err(reason) = self.operator(&call) else { return Ok(()) };
        let reason = reason.at(&call);
        // What else it changes is not known.
        if call.is_in_place() {
            return Err(Refusal::new(reason.text));
        }
        for name in node.outputs.iter().flat_map(names) {
            self.values.insert(name, Value::Missing(reason.clone()));
        }
        Ok(())
    }

    fn finish(self) -> Result<Lowered, Refusal> {
        let output = self.known(self.output).map_err(|reason| Refusal::new(reason.text))?;
        if output.layout != Layout::PLAIN {
            return Err(Refusal::new(format!("its output `{}` does not begin with the batch", self.output)));
        }
        let graph = self.builder.finish(&output.name).map_err(|error| Refusal::new(error.to_string()))?;
        let mut unused = self.tensors.saved.clone();
        for spec in graph.tensors() {
            let kind = match spec.dtype {
                Dtype::F32 => Kind::Float,
                Dtype::I64 => Kind::Int64,
            };
            if unused.remove(spec.name.as_str()) != Some((spec.shape.clone(), kind)) {
                let what = format!("its tensor `{}` is not {:?} of the shape {:?}", spec.name, spec.dtype, spec.shape);
                return Err(Refusal::new(what));
            }
        }
        match unused.keys().next() {
            Some(name) => Err(Refusal::new(format!("its tensor `{name}` is that of no layer"))),
            None => Ok(Lowered { graph, values: self.made }),
        }
    }

    /// The lengths of a value of the document.
    fn extents(&self, name: &str) -> Result<Vec<Extent>, Reason> {
        extents(self.document, name, self.batch)
    }

    /// The dtype of a value of the document.
    fn kind(&self, name: &str) -> Option<Kind> {
        kind_of(self.document.graph_module.graph.tensor_values.get(name)?.dtype)
    }

    fn new_memory(&mut self) -> usize {
        self.versions.push(0);
        self.versions.len() - 1
    }

    /// A name of the graph that nothing else has.
    fn unique(&mut self, name: &str) -> String {
        let mut unique = name.to_owned();
        while !self.taken.insert(unique.clone()) {
            // Each name counts on from its last one: a file may have one name many times.
            let count = self.counts.entry(name.to_owned()).or_default();
            *count += 1;
            unique = format!("{name}_{count}");
        }
        unique
    }

    /// The value of the graph that a name of the document stands for.
    fn known(&self, name: &str) -> Result<Known, Reason> {
        match self.values.get(name) {
            Some(Value::Known(known)) if self.versions.get(known.memory) == Some(&known.version) => Ok(known.clone()),
            Some(Value::Known(_)) => {
                Err(Reason::from(format!("it reads `{name}`, which another node has changed in place")))
            }
            Some(Value::Tensor(tensor)) => Err(Reason::from(format!("it reads the tensor `{tensor}` as a value"))),
            Some(Value::Repeated(_, reason)) => Err(reason.clone()),
            Some(Value::Constant(_) | Value::Positions | Value::Zeros | Value::Size) => {
                Err(Reason::from(format!("it reads the constant `{name}` as a value")))
            }
            Some(Value::Missing(reason)) => Err(reason.clone()),
            None => Err(Reason::from(format!("it reads `{name}`, which is not described"))),
        }
    }

    /// As [`Lowering::known`], also of a tensor of the model, which becomes the value of a node.
    fn read(&mut self, name: &'d str) -> Result<Known, Reason> {
        let Some(Value::Tensor(_)) = self.values.get(name) else { return self.known(name) };
        let tensor = self.tensor(name)?;
        if let Some(known) = self.parameters.get(tensor) {
            return Ok(known.clone());
        }
        let shape = self.tensor_shape(tensor).to_vec();
        if self.tensors.saved.get(tensor).is_none_or(|(_, kind)| *kind != Kind::Float) {
            return Err(Reason::from(format!("it reads the tensor `{tensor}` as a value, which is not float32")));
        }
        let extents: Vec<Extent> = shape.iter().copied().map(Extent::Fixed).collect();
        let (layout, _) = Layout::of(&extents)?;
        let op = Op::Parameter { shape, is_buffer: self.tensors.buffers.contains(tensor) };
        let unique = self.unique(name);
        let shape = self.inner((name, layout), &unique, op, &[], &[tensor])?;
        let known = Known { name: unique, shape, layout, memory: self.new_memory(), version: 0 };
        self.parameters.insert(tensor, known.clone());
        Ok(known)
    }

    /// The tensor of the model that a name of the document stands for.
    fn tensor(&self, name: &str) -> Result<&'d str, Reason> {
        let saved = match self.values.get(name) {
            Some(Value::Tensor(saved)) => self.tensors.saved.get_key_value(saved.as_str()),
            Some(Value::Missing(reason)) => return Err(reason.clone()),
            _ => None,
        };
        saved.map(|(name, _)| *name).ok_or_else(|| Reason::from(format!("its `{name}` is no tensor of the model")))
    }

    /// The shape of a tensor of the model.
    fn tensor_shape(&self, name: &str) -> &'d [i64] {
        self.tensors.saved.get(name).map_or(&[], |(shape, _)| shape)
    }

    /// The name of a node over these tensors of the document: that of their module, or that of the call, where they are those of
    /// several modules, or of an earlier node, too.
    fn owner(&mut self, call: &Call<'d>, op: &Op, tensors: &[&'d str]) -> Result<String, Reason> {
        let saved = |argument: &'d str| self.tensor(argument).ok();
        let own = |argument: &'d str| self.own_names.get(argument).copied();
        for module in [module_of(op, tensors, saved), module_of(op, tensors, own)].into_iter().flatten() {
            if self.owners.insert(module.to_owned()) {
                self.taken.insert(module.to_owned());
                return Ok(module.to_owned());
            }
        }
        Ok(self.unique(call.output()?))
    }

    /// Adds a node without tensors, named after the document's. Its value has the batch where its inputs have it.
    fn value(&mut self, call: &Call<'d>, op: Op, inputs: &[&Known]) -> Result<(), Reason> {
        let layout = inputs.iter().map(|known| known.layout).find(|layout| layout.is_batched());
        let layout = layout.or_else(|| Some(inputs.first()?.layout)).unwrap_or(Layout::PLAIN);
        self.value_as(call, call.output()?, op, inputs, layout)
    }

    /// Adds a node without tensors whose value is `output` in the document.
    fn value_as(
        &mut self,
        call: &Call<'d>,
        output: &'d str,
        op: Op,
        inputs: &[&Known],
        layout: Layout,
    ) -> Result<(), Reason> {
        let name = self.unique(output);
        self.add(call, (output, layout), name, op, inputs, &[])
    }

    /// Adds a node over tensors of the model, which has the value of the call.
    fn layer(&mut self, call: &Call<'d>, op: Op, input: &Known, tensors: &[&'d str]) -> Result<(), Reason> {
        self.layer_as(call, call.output()?, op, input, tensors)
    }

    /// Adds a node over tensors of the model whose value is `output` in the document.
    fn layer_as(
        &mut self,
        call: &Call<'d>,
        output: &'d str,
        op: Op,
        input: &Known,
        tensors: &[&'d str],
    ) -> Result<(), Reason> {
        let saved = tensors.iter().map(|tensor| self.tensor(tensor)).collect::<Result<Vec<_>, _>>()?;
        let owner = self.owner(call, &op, tensors)?;
        self.add(call, (output, input.layout), owner, op, &[input], &saved)
    }

    /// Adds a node whose value is `output` in the document, with the batch where `layout` says.
    fn add(
        &mut self,
        call: &Call<'d>,
        (output, layout): (&'d str, Layout),
        name: String,
        op: Op,
        inputs: &[&Known],
        tensors: &[&str],
    ) -> Result<(), Reason> {
        if !masks::takes(&op, self.kind(output)) {
            return Err(Reason::from("its value is not float32"));
        }
        let shape = self.inner((output, layout), &name, op, inputs, tensors)?;
        let known = match (call.is_in_place(), inputs.first()) {
            (true, Some(changed)) => self.changed(call, name, changed),
            (false, Some(viewed)) if call.is_view() => Known { name, shape, layout, ..(*viewed).clone() },
            _ => Known { name, shape, layout, memory: self.new_memory(), version: 0 },
        };
        self.bind(output, known)
    }

    /// Adds a node whose value is, perhaps in another shape, the document's `output`. Returns its shape.
    fn inner(
        &mut self,
        (output, layout): (&str, Layout),
        name: &str,
        op: Op,
        inputs: &[&Known],
        tensors: &[&str],
    ) -> Result<Vec<i64>, Reason> {
        let takes_floats = op.input_dtype() == Dtype::F32;
        let inputs = inputs.iter().map(|known| if takes_floats { self.float(known) } else { Ok(known.name.clone()) });
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.builder.node_over(name.to_owned(), op, &inputs, tensors).map_err(misfit)?;
        let shape = self.builder.shape(name, name).map_err(misfit)?.to_vec();
        self.made.push(Place { name: output.to_owned(), before: layout.before(&shape) });
        Ok(shape)
    }

    /// Makes a value that of `output`, which must have its lengths in the document.
    fn bind(&mut self, output: &'d str, known: Known) -> Result<(), Reason> {
        let (found, expected) = (known.layout.extents(&known.shape), self.extents(output)?);
        if found != expected {
            let has_batch = expected.iter().any(|extent| matches!(extent, Extent::Batch(_)));
            if known.layout == Layout::PLAIN && !has_batch {
                return Err(Reason::from(format!("the value `{output}` does not begin with the batch")));
            }
            let shape = &known.shape;
            return Err(Reason::from(format!("its value has not the shape {shape:?} of the graph for a sample")));
        }
        self.values.insert(output, Value::Known(known));
        Ok(())
    }

    /// The value after an operator has changed it in place. The name before stands for the same tensor, and so for the new
    /// value; that of a view is no longer known.
    fn changed(&mut self, call: &Call<'d>, name: String, before: &Known) -> Known {
        let version = self.versions.get_mut(before.memory).map_or(0, |version| {
            *version += 1;
            *version
        });
        let known = Known { name, version, ..before.clone() };
        if let Some(argument) = call.first_tensor() {
            self.values.insert(argument, Value::Known(known.clone()));
        }
        known
    }

    /// The call's output is another name for what it reads first.
    fn alias(&mut self, call: &Call<'d>) -> Result<(), Reason> {
        let known = self.input(call)?;
        self.alias_of(call, known)
    }

    /// The call's output is another name for a value, perhaps with the batch in another place.
    fn alias_of(&mut self, call: &Call<'d>, known: Known) -> Result<(), Reason> {
        let output = call.output()?;
        if let Some(read) = call.first_tensor()
            && self.kind(output) != self.kind(read)
        {
            return Err(Reason::from("its value has another dtype than what it reads"));
        }
        self.bind(output, known)
    }
}

/// Why the graph does not take a node.
fn misfit(error: ModelError) -> Reason {
    Reason::from(match error {
        ModelError::Shape { expected, found, .. } => format!("it expects {expected}, but gets the shape {found:?}"),
        ModelError::Option { option, value, expected, .. } => {
            format!("its `{option}` is `{value}`, which must be {expected}")
        }
        other => other.to_string(),
    })
}

/// The module that has all of these tensors under the names of the operator, if there is one; `name` is the whole name of each.
fn module_of<'d>(op: &Op, tensors: &[&'d str], name: impl Fn(&'d str) -> Option<&'d str>) -> Option<&'d str> {
    let own = op.parameter_names().into_iter().chain(op.buffer_names());
    let mut modules = own.zip(tensors).map(|(own, tensor)| name(tensor)?.strip_suffix(&own)?.strip_suffix('.'));
    let first = modules.next()??;
    modules.all(|module| module == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests;
