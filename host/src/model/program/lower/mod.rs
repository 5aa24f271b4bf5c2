//! The nodes of a document as the host's own graph, for exporters and for people: the program is what is computed.
//!
//! ```text
//! arguments.rs  the arguments of a node
//! operators.rs  what each operator becomes
//! layers.rs     operators with tensors of their own
//! recurrent.rs  LSTM and GRU, with the values around them
//! ```
//!
//! The graph is that of evaluation. It has the sizes of one sample: each of its values begins with the batch, whose size is the
//! only one that is not fixed. Its tensors are exactly those that the program saves, under their names in PyTorch's state dict:
//! the layer with `layer1.0.conv1.weight` is the node `layer1.0.conv1`. Other nodes have the names of the program.
//!
//! What has no operator is told only where something of the graph reads it: exports have nodes that only masks or checks read.

mod arguments;
mod layers;
mod operators;
mod recurrent;

use std::collections::{BTreeMap, HashMap, HashSet};

use tch::Kind;

use self::arguments::Call;
use super::document::{Document, Node, input_name, kind_of, names, output};
use crate::model::{Dtype, Graph, GraphBuilder, Input, LayerPath, Op};
use crate::refusal::Refusal;

/// A graph, and where the values of its nodes are in the document.
#[derive(Debug)]
pub(super) struct Lowered {
    pub(super) graph: Graph,
    /// For each node the name of its value, which may have another shape there.
    pub(super) values: Vec<String>,
}

/// The tensors of a program that have names of PyTorch's state dict.
pub(super) struct SavedTensors<'a> {
    /// The name of each, by its name in the document's graph; tied ones have one name.
    pub(super) names: &'a BTreeMap<String, String>,
    /// Shapes and dtypes by name.
    pub(super) saved: BTreeMap<&'a str, (Vec<i64>, Kind)>,
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
#[derive(Clone, Debug)]
enum Value {
    /// The value of a node of the graph, or its input.
    Known(Known),
    /// A tensor of the model, by its name in the state dict.
    Tensor(String),
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
    /// The memory that the program has it in, which views share, and how often that had changed when it was made.
    memory: usize,
    version: u32,
}

struct Lowering<'d> {
    document: &'d Document,
    tensors: &'d SavedTensors<'d>,
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
    /// The name in the document of each node's value.
    made: Vec<String>,
    /// The places of the nodes that read each value.
    readers: HashMap<&'d str, Vec<usize>>,
    /// Nodes that were lowered with an earlier one.
    done: HashSet<usize>,
    output: &'d str,
}

/// The graph of a document, up to the output called `wanted`, if it has several.
///
/// # Errors
///
/// The first node, on the way to the output, that is not in it.
pub(super) fn lower(document: &Document, tensors: &SavedTensors<'_>, wanted: Option<&str>) -> Result<Lowered, Refusal> {
    let mut lowering = Lowering::new(document, tensors, wanted)?;
    for (place, node) in document.graph_module.graph.nodes.iter().enumerate() {
        if !lowering.done.contains(&place) {
            lowering.node(node)?;
        }
    }
    lowering.finish()
}

impl<'d> Lowering<'d> {
    fn new(document: &'d Document, tensors: &'d SavedTensors<'d>, wanted: Option<&str>) -> Result<Self, Refusal> {
        let specs = &document.graph_module.signature.input_specs;
        let mut values = HashMap::new();
        let mut input = None;
        let given = specs.iter().filter(|spec| spec.get("user_input").is_some()).filter_map(input_name);
        let given: Vec<&str> = given.filter(|name| tensors.targets != Some(*name)).collect();
        if given.len() > 1 {
            let given = crate::report::list(given.iter().copied(), "and");
            return Err(Refusal::new(format!("it takes {given}, and a graph takes the samples only")));
        }
        for spec in specs {
            let Some(name) = input_name(spec) else { continue };
            if spec.get("user_input").is_some() {
                match tensors.targets == Some(name) {
                    true => drop(
                        values.insert(name, Value::Missing(Reason::from(format!("it reads the targets `{name}`")))),
                    ),
                    false => input = Some(name),
                }
                continue;
            }
            let value = match tensors.names.get(name) {
                Some(saved) => Value::Tensor(saved.clone()),
                None => Value::Missing(Reason::from(format!("it reads the constant `{name}`"))),
            };
            values.insert(name, value);
        }
        let described = input.and_then(|name| Some((name, document.graph_module.graph.tensor_values.get(name)?)));
        let (name, meta) = described.ok_or_else(|| Refusal::new("its input is not described"))?;
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
            batch,
            builder: GraphBuilder::default(),
            values,
            versions: Vec::new(),
            taken,
            counts: HashMap::new(),
            owners: HashSet::new(),
            made: Vec::new(),
            readers,
            done: HashSet::new(),
            output: output(document, wanted)?,
        };
        lowering.take_input(name, kind_of(meta.dtype)).map_err(|reason| Refusal::new(reason.text))?;
        Ok(lowering)
    }

    fn take_input(&mut self, name: &'d str, kind: Option<Kind>) -> Result<(), Reason> {
        let dtype = match kind {
            Some(Kind::Float) => Dtype::F32,
            Some(Kind::Int64) => Dtype::I64,
            _ => return Err(Reason::from("its input is neither float32 nor int64")),
        };
        let shape = self.sample_shape(name)?;
        let unique = self.unique(name);
        let input = Input { name: unique.clone(), shape: shape.clone(), dtype };
        self.builder.input(input).map_err(|error| Reason::from(error.to_string()))?;
        let memory = self.new_memory();
        self.values.insert(name, Value::Known(Known { name: unique, shape, memory, version: 0 }));
        Ok(())
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
        let graph = self.builder.finish(&output.name).map_err(|error| Refusal::new(error.to_string()))?;
        let specs = graph.nodes().iter().flat_map(|node| node.parameters.iter().chain(&node.buffers));
        let mut unused = self.tensors.saved.clone();
        for spec in specs {
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

    /// The shape for one sample of a value of the document, which must begin with the batch.
    fn sample_shape(&self, name: &str) -> Result<Vec<i64>, Reason> {
        let meta = self.document.graph_module.graph.tensor_values.get(name);
        let meta = meta.ok_or_else(|| format!("the value `{name}` is not described"))?;
        // Sums and products of sizes must not overflow.
        let is_size = |size: &i64| (1..=i64::from(u32::MAX)).contains(size);
        let fixed = |size: &super::document::Size| size.fixed().filter(is_size);
        match meta.sizes.split_first() {
            Some((batch, sizes)) if batch.expression() == Some(self.batch) => sizes
                .iter()
                .map(fixed)
                .collect::<Option<_>>()
                .ok_or_else(|| Reason::from(format!("the sizes of `{name}` are not fixed"))),
            _ => Err(Reason::from(format!("the value `{name}` does not begin with the batch"))),
        }
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
            Some(Value::Tensor(tensor)) => {
                Err(Reason::from(format!("it reads the tensor `{tensor}` as a value, which only layers read")))
            }
            Some(Value::Zeros | Value::Size) => Err(Reason::from(format!("it reads the constant `{name}` as a value"))),
            Some(Value::Missing(reason)) => Err(reason.clone()),
            None => Err(Reason::from(format!("it reads `{name}`, which is not described"))),
        }
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

    /// The node that owns these tensors, each with the name that it must have in the node.
    fn owner(&mut self, tensors: &[(&str, &str)]) -> Result<String, Reason> {
        let mut owner = None;
        for (own, name) in tensors {
            let module = name.strip_suffix(own).and_then(|module| module.strip_suffix('.'));
            let module = match (module, *name == *own) {
                (Some(module), _) => module,
                (None, true) => {
                    return Err(Reason::from(format!(
                        "its tensor `{name}` has no module's name: wrap the model in a module that holds it"
                    )));
                }
                (None, false) => {
                    return Err(Reason::from(format!("its tensor is named `{name}`, and a layer's is `{own}`")));
                }
            };
            if *owner.get_or_insert(module) != module {
                return Err(Reason::from(format!("its tensor `{name}` is that of another module than its others")));
            }
        }
        let owner = owner.ok_or_else(|| Reason::from("it has no tensors"))?.to_owned();
        if !self.owners.insert(owner.clone()) {
            return Err(Reason::from(format!(
                "its tensors are those of the node `{owner}`, too: they are shared or tied"
            )));
        }
        Ok(owner)
    }

    /// Adds a node without tensors, named after the document's.
    fn value(&mut self, call: &Call<'d>, op: Op, inputs: &[&Known]) -> Result<(), Reason> {
        let name = self.unique(call.output()?);
        self.add(call, name, op, inputs)
    }

    /// Adds a node whose value is the call's output.
    fn add(&mut self, call: &Call<'d>, name: String, op: Op, inputs: &[&Known]) -> Result<(), Reason> {
        let output = call.output()?;
        self.add_as(call, output, name, op, inputs)
    }

    /// Adds a node whose value is `output` in the document.
    fn add_as(
        &mut self,
        call: &Call<'d>,
        output: &'d str,
        name: String,
        op: Op,
        inputs: &[&Known],
    ) -> Result<(), Reason> {
        let expected = self.sample_shape(output)?;
        if self.kind(output) != Some(Kind::Float) {
            return Err(Reason::from("its value is not float32"));
        }
        let shape = self.inner(output, &name, op, inputs)?;
        if shape != expected {
            return Err(Reason::from(format!("its value has the shape {expected:?}, and that of the graph {shape:?}")));
        }
        let known = match (call.is_in_place(), inputs.first()) {
            (true, Some(changed)) => self.changed(call, name, changed),
            (false, Some(viewed)) if call.is_view() => Known { name, shape, ..(*viewed).clone() },
            _ => Known { name, shape, memory: self.new_memory(), version: 0 },
        };
        self.values.insert(output, Value::Known(known));
        Ok(())
    }

    /// Adds a node whose value is, perhaps in another shape, the document's `output`. Returns its shape.
    fn inner(&mut self, output: &str, name: &str, op: Op, inputs: &[&Known]) -> Result<Vec<i64>, Reason> {
        let inputs: Vec<&str> = inputs.iter().map(|known| known.name.as_str()).collect();
        let misfit = |error: crate::model::ModelError| Reason::from(error.to_string());
        self.builder.node(&LayerPath::default(), name.to_owned(), op, &inputs, None).map_err(misfit)?;
        self.made.push(output.to_owned());
        Ok(self.builder.shape(name, name).map_err(misfit)?.to_vec())
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

    /// The call's output is another name for the value `read`.
    fn alias(&mut self, call: &Call<'d>, read: &str) -> Result<(), Reason> {
        let (output, known) = (call.output()?, self.known(read)?);
        if self.sample_shape(output)? != known.shape {
            return Err(Reason::from("its value has another shape than what it reads"));
        }
        if self.kind(output) != self.kind(read) {
            return Err(Reason::from("its value has another dtype than what it reads"));
        }
        self.values.insert(output, Value::Known(known));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
