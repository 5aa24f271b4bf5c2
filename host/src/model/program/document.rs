//! `models/model.json`: the nodes of a program and what its inputs are. Unknown keys are left out, as PyTorch does.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tch::Kind;

use crate::refusal::Refusal;
use crate::report::{list, nearest};

/// The major version of the schema that is read.
const SCHEMA: u64 = 8;

/// A program.
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    pub(super) graph_module: GraphModule,
    #[serde(default)]
    verifiers: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct SchemaVersion {
    major: u64,
    #[serde(default)]
    minor: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct GraphModule {
    pub(super) graph: Graph,
    pub(super) signature: Signature,
    /// The model itself first, then its modules.
    #[serde(default)]
    module_call_graph: Vec<ModuleCall>,
}

#[derive(Debug, Deserialize)]
struct ModuleCall {
    #[serde(default)]
    signature: Option<CallSignature>,
}

#[derive(Debug, Deserialize)]
struct CallSignature {
    /// JSON in a text: its version, and a [`Structure`].
    #[serde(default)]
    out_spec: String,
}

/// What a model returns, as Python's containers.
#[derive(Debug, Deserialize)]
struct Structure {
    /// The keys, as JSON in a text, of a container that has some.
    #[serde(default)]
    context: Option<String>,
    #[serde(default)]
    children_spec: Vec<Structure>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Graph {
    /// Of the graph of a region: its own names for what it is given, and what it returns.
    #[serde(default)]
    pub(super) inputs: Vec<Value>,
    #[serde(default)]
    pub(super) outputs: Vec<Value>,
    pub(super) nodes: Vec<Node>,
    #[serde(default)]
    pub(super) tensor_values: BTreeMap<String, TensorMeta>,
}

/// A call.
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    /// Such as `torch.ops.aten.conv2d.default`.
    pub(super) target: String,
    pub(super) inputs: Vec<NamedArgument>,
    pub(super) outputs: Vec<Value>,
    #[serde(default)]
    pub(super) name: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedArgument {
    pub(super) name: String,
    pub(super) arg: Value,
}

/// What the inputs and outputs of the graph are: each a map with one key, which says it.
#[derive(Debug, Deserialize)]
pub(super) struct Signature {
    pub(super) input_specs: Vec<Value>,
    pub(super) output_specs: Vec<Value>,
}

/// A tensor's description.
#[derive(Debug, Deserialize)]
pub(super) struct TensorMeta {
    pub(super) dtype: i64,
    pub(super) sizes: Vec<Size>,
    #[serde(default)]
    pub(super) requires_grad: bool,
    pub(super) strides: Vec<Size>,
    pub(super) storage_offset: Size,
}

/// A size: `{"as_int": 4}`, or an expression of sizes that are known only later.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(super) struct Size(Value);

impl Document {
    pub(super) fn read(text: &str) -> Result<Self, Refusal> {
        // The version first: another one may have another shape.
        #[derive(Deserialize)]
        struct Versioned {
            schema_version: SchemaVersion,
        }
        let unclear =
            |error: serde_json::Error| Refusal::new(format!("its `models/model.json` is not understood: {error}"));
        let Versioned { schema_version: SchemaVersion { major, minor } } =
            serde_json::from_str(text).map_err(unclear)?;
        if major != SCHEMA {
            return Err(Refusal::new(format!(
                "its schema has version {major}.{minor}, and this host reads version {SCHEMA}"
            ))
            .with_hint("export it with PyTorch 2.9 to 2.15"));
        }
        let document: Self = serde_json::from_str(text).map_err(unclear)?;
        if !document.verifiers.iter().any(|dialect| dialect == "TRAINING") {
            return Err(Refusal::new(format!(
                "it is in the dialect {}, whose operators are decomposed for inference",
                document.verifiers.join(", ")
            ))
            .with_hint("save what `torch.export.export` returns, without `run_decompositions`"));
        }
        Ok(document)
    }
}

impl Document {
    /// What each of its `count` outputs is called: by its key or its position, those within others after a dot.
    fn output_names(&self, count: usize) -> Vec<String> {
        let signature = self.graph_module.module_call_graph.first().and_then(|call| call.signature.as_ref());
        let structure =
            signature.and_then(|signature| serde_json::from_str::<(u64, Structure)>(&signature.out_spec).ok());
        let mut names = Vec::new();
        if let Some((_, structure)) = structure {
            structure.name_leaves("", &mut names);
        }
        if names.len() == count { names } else { (0..count).map(|index| index.to_string()).collect() }
    }
}

impl Structure {
    /// Adds the names of what it holds, in order. It is as deep as a JSON reader lets it be.
    fn name_leaves(&self, path: &str, names: &mut Vec<String>) {
        if self.children_spec.is_empty() {
            names.push(if path.is_empty() { "0".to_owned() } else { path.to_owned() });
        }
        let keys: Vec<String> =
            self.context.as_ref().and_then(|context| serde_json::from_str(context).ok()).unwrap_or_default();
        for (index, child) in self.children_spec.iter().enumerate() {
            let key = keys.get(index).cloned().unwrap_or_else(|| index.to_string());
            child.name_leaves(&if path.is_empty() { key } else { format!("{path}.{key}") }, names);
        }
    }
}

impl Size {
    /// The number, if it is fixed.
    pub(super) fn fixed(&self) -> Option<i64> {
        self.0.get("as_int")?.as_i64()
    }

    /// The expression of sizes that are known only later, if it is one.
    pub(super) fn expression(&self) -> Option<&str> {
        self.0.get("as_expr")?.get("expr_str")?.as_str()
    }
}

impl TensorMeta {
    /// Sizes and strides, if all are fixed.
    pub(super) fn fixed(&self) -> Option<(Vec<i64>, Vec<i64>)> {
        let all = |sizes: &[Size]| sizes.iter().map(Size::fixed).collect::<Option<Vec<_>>>();
        all(&self.sizes).zip(all(&self.strides))
    }
}

/// The one entry of a map.
pub(super) fn entry(value: &Value) -> Option<(&str, &Value)> {
    let (key, value) = value.as_object()?.iter().next()?;
    Some((key, value))
}

/// The text under a key of a map.
pub(super) fn text_of<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key)?.as_str()
}

/// Every name in an argument.
pub(super) fn names(value: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let Some((kind, value)) = entry(value) else { return found };
    match (kind, value) {
        ("as_tensor", value) => found.extend(text_of(value, "name")),
        ("as_sym_int" | "as_sym_bool" | "as_sym_float", value) => found.extend(text_of(value, "as_name")),
        ("as_tensors", Value::Array(values)) => found.extend(values.iter().filter_map(|value| text_of(value, "name"))),
        ("as_optional_tensors", Value::Array(values)) => {
            let given = values.iter().filter_map(|value| value.get("as_tensor"));
            found.extend(given.filter_map(|value| text_of(value, "name")));
        }
        ("as_sym_ints", Value::Array(values)) => {
            found.extend(values.iter().filter_map(|value| text_of(value, "as_name")))
        }
        _ => {}
    }
    found
}

/// The name in the graph of an input, whatever it is.
pub(super) fn input_name(spec: &Value) -> Option<&str> {
    let (_, spec) = entry(spec)?;
    let argument = spec.get("arg")?;
    text_of(argument, "name").or_else(|| text_of(argument.get("as_tensor")?, "name"))
}

/// What each tensor that it returns is called, by its key or its position, and its name in the graph.
pub(super) fn returned(document: &Document) -> Result<Vec<(String, &str)>, Refusal> {
    let mut returned = Vec::new();
    for spec in &document.graph_module.signature.output_specs {
        match entry(spec) {
            Some(("user_output", fields)) => {
                returned.push(fields.get("arg").and_then(|argument| text_of(argument.get("as_tensor")?, "name")));
            }
            Some((other, _)) => {
                return Err(Refusal::new(format!("it has an output of the kind `{other}`, which is not supported")));
            }
            None => {}
        }
    }
    let names = document.output_names(returned.len());
    let named: Vec<(String, &str)> =
        names.into_iter().zip(returned).filter_map(|(name, place)| Some((name, place?))).collect();
    if named.is_empty() { Err(Refusal::new("it returns no tensor")) } else { Ok(named) }
}

/// The name in the graph of the tensor that is the model's output: the one that it returns, or of several the one called
/// `wanted`.
pub(super) fn output<'d>(document: &'d Document, wanted: Option<&str>) -> Result<&'d str, Refusal> {
    let returned = returned(document)?;
    let named: Vec<(&str, &str)> = returned.iter().map(|(name, place)| (name.as_str(), *place)).collect();
    match (wanted, &named[..]) {
        (None, [(_, place)]) => Ok(place),
        (None, several) => Err(Refusal::new(format!(
            "it returns {} tensors: {}",
            several.len(),
            list(several.iter().map(|(name, _)| *name), "and")
        ))
        .with_hint(which_output(several))),
        (Some(wanted), named) => {
            named.iter().find(|(name, _)| *name == wanted).map(|(_, place)| *place).ok_or_else(|| {
                let refusal = Refusal::new(format!(
                    "it returns no tensor `{wanted}`, but {}",
                    list(named.iter().map(|(name, _)| *name), "and")
                ));
                match nearest(wanted, named.iter().map(|(name, _)| *name)).first() {
                    Some(near) => refusal.with_hint(format!("did you mean `{near}`?")),
                    None => refusal,
                }
            })
        }
    }
}

/// How to say which of several outputs is trained.
fn which_output(named: &[(&str, &str)]) -> String {
    const LOSS: &str = "loss";
    let first = named.iter().map(|(name, _)| *name).find(|name| *name != LOSS).unwrap_or_default();
    let one = format!("name the one that is trained under `[model]`: `output = \"{first}\"`");
    match named.iter().any(|(name, _)| *name == LOSS) {
        true => format!("{one}; or let it train on its own loss: `[train] loss = {{ type = \"model\" }}`"),
        false => one,
    }
}

/// A number; JSON has no infinities and no NaN, so that they are texts.
pub(super) fn double(value: &Value) -> Result<f64, String> {
    match value {
        Value::Number(number) => number.as_f64().ok_or_else(|| format!("is {number}")),
        Value::String(text) if text == "Infinity" => Ok(f64::INFINITY),
        Value::String(text) if text == "-Infinity" => Ok(f64::NEG_INFINITY),
        Value::String(text) if text == "NaN" => Ok(f64::NAN),
        other => Err(format!("is {other}, not a number")),
    }
}

/// libtorch's dtype of a number in the document, whose numbers are other ones (`ScalarType` of PyTorch's schema).
pub(super) fn kind_of(number: i64) -> Option<Kind> {
    Some(match number {
        1 => Kind::Uint8,
        2 => Kind::Int8,
        3 => Kind::Int16,
        4 => Kind::Int,
        5 => Kind::Int64,
        6 => Kind::Half,
        7 => Kind::Float,
        8 => Kind::Double,
        9 => Kind::ComplexHalf,
        10 => Kind::ComplexFloat,
        11 => Kind::ComplexDouble,
        12 => Kind::Bool,
        13 => Kind::BFloat16,
        _ => return None,
    })
}

/// PyTorch's name of a dtype.
pub(super) fn dtype_name(kind: Kind) -> String {
    match kind {
        Kind::Float => "float32".to_owned(),
        Kind::Double => "float64".to_owned(),
        Kind::Half => "float16".to_owned(),
        Kind::Int => "int32".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The number that an operator takes for a dtype.
pub(super) fn dtype_number(number: i64) -> Option<i64> {
    // c10's order is the document's without its first entry, `UNKNOWN`, up to `BOOL`; three quantized ones precede `BFLOAT16`.
    match number {
        1..=12 => Some(number - 1),
        13 => Some(15),
        _ => None,
    }
}

/// The number that an operator takes for a memory format.
pub(super) fn memory_format_number(number: i64) -> Option<i64> {
    match number {
        1 => Some(0),
        2 => Some(2),
        3 => Some(3),
        4 => Some(1),
        _ => None,
    }
}

/// The number that an operator takes for a layout: only strided tensors are trained.
pub(super) fn layout_number(number: i64) -> Option<i64> {
    (number == 7).then_some(0)
}
