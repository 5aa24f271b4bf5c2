//! What goes in and out of a program: which input of a batch each argument gets, and which of what it returns is the output
//! and the loss.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::document::{self, Document, dtype_name, kind_of, output, returned, text_of};
use super::{Input, Scope};
use crate::model::ModelBatch;
use crate::refusal::Refusal;
use crate::report::{list, nearest};

/// What a batch that may have any size needs.
const HOW_DYNAMIC: &str =
    "export it with `dynamic_shapes=({0: torch.export.Dim(\"batch\", min=1)},)` and an example of 2 samples or more";

/// The name of the output that is a program's own loss.
const LOSS: &str = "loss";

/// How a program is used.
#[derive(Clone, Copy, Debug)]
pub struct Interface<'a> {
    /// The key or the position of the output that counts, of several.
    pub output: Option<&'a str>,
    /// Whether it gives its own loss, too.
    pub gives_loss: bool,
    /// The input of a batch that an argument gets, by the argument's name; for the others that of their own name.
    pub arguments: &'a BTreeMap<String, String>,
    /// The names of the inputs of a batch, that of the samples first.
    pub inputs: &'a [String],
    /// The targets of a batch, if a program may take them.
    pub targets: Option<BatchTargets<'a>>,
}

/// The targets of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchTargets<'a> {
    /// Their name in a batch.
    pub name: &'a str,
    /// Their shape for a sample.
    pub shape: &'a [i64],
    /// Their dtype.
    pub kind: Kind,
}

impl<'a> Interface<'a> {
    /// The names of all that a batch has.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.inputs.iter().map(String::as_str).chain(self.targets.map(|targets| targets.name))
    }
}

/// A tensor that a program takes.
#[derive(Debug)]
pub(super) struct Argument {
    pub(super) input: Input,
    source: Source,
}

/// Where an argument comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// The samples.
    Inputs,
    /// The input beside them of this index.
    Other(usize),
    /// The targets, which have this shape for a sample, and this dtype.
    Targets(Vec<i64>, Kind),
}

impl Argument {
    /// Its tensor of a batch, or the `missing` targets.
    pub(super) fn of<'t>(&self, batch: &ModelBatch<'t>, missing: Option<&'t Tensor>) -> Result<&'t Tensor, Refusal> {
        let found = match self.source {
            Source::Inputs => Some(batch.inputs),
            Source::Other(index) => batch.others.get(index),
            Source::Targets(..) => batch.targets.or(missing),
        };
        let found =
            found.ok_or_else(|| Refusal::new(format!("its argument `{}` is given nothing", self.input.name)))?;
        self.input.check(found)?;
        Ok(found)
    }

    /// Its place among the inputs of a batch; `None` of the targets.
    pub(super) fn place(&self) -> Option<usize> {
        match self.source {
            Source::Inputs => Some(0),
            Source::Other(index) => Some(index + 1),
            Source::Targets(..) => None,
        }
    }

    /// Whether it is the targets.
    pub(super) fn is_targets(&self) -> bool {
        matches!(self.source, Source::Targets(..))
    }

    /// Zeros for a batch that has no targets, if the argument is those.
    pub(super) fn missing(&self, batch: &ModelBatch<'_>) -> Option<Result<Tensor, tch::TchError>> {
        let Source::Targets(shape, kind) = &self.source else { return None };
        let size = batch.inputs.size().first().copied().unwrap_or(1);
        let shape: Vec<i64> = std::iter::once(size).chain(shape.iter().copied()).collect();
        batch.targets.is_none().then(|| Tensor::f_zeros(shape, (*kind, batch.inputs.device())))
    }
}

/// The arguments of a program, with what each of them gets.
///
/// # Errors
///
/// An argument that gets nothing, an input that goes nowhere, a name that there is not, and an argument that is no batch.
pub(super) fn arguments(
    document: &Document,
    scope: &Scope,
    interface: &Interface<'_>,
) -> Result<Vec<Argument>, Refusal> {
    let mut inputs = Vec::new();
    for spec in &document.graph_module.signature.input_specs {
        let Some(argument) = spec.get("user_input").and_then(|input| input.get("arg")) else { continue };
        match argument.get("as_tensor").and_then(|tensor| text_of(tensor, "name")) {
            Some(name) => inputs.push(input(document, scope, name)?),
            None => {
                return Err(Refusal::new("it takes an argument that is no tensor")
                    .with_hint("wrap the model in a module that takes the tensors of a batch only"));
            }
        }
    }
    if inputs.is_empty() {
        return Err(Refusal::new("it takes no tensor")
            .with_hint("wrap the model in a module that takes the samples of a batch"));
    }
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let sources = sources(&names, interface)?;
    Ok(inputs.into_iter().zip(sources).map(|(input, source)| Argument { input, source }).collect())
}

/// A tensor that the program takes.
fn input(document: &Document, scope: &Scope, name: &str) -> Result<Input, Refusal> {
    let meta = document.graph_module.graph.tensor_values.get(name);
    let (slot, meta) = scope
        .get(name)
        .copied()
        .zip(meta)
        .ok_or_else(|| Refusal::new(format!("its input `{name}` is not described")))?;
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

/// Where the arguments of these names come from.
fn sources(names: &[&str], interface: &Interface<'_>) -> Result<Vec<Source>, Refusal> {
    let Interface { arguments, inputs, .. } = interface;
    let all = || interface.names();
    if let Some(unknown) = arguments.keys().find(|argument| !names.contains(&argument.as_str())) {
        let refusal =
            Refusal::new(format!("it has no argument `{unknown}`, but {}", list(names.iter().copied(), "and")));
        return Err(suggesting(refusal, unknown, names.iter().copied()));
    }
    let mut sources = Vec::new();
    let mut given: BTreeMap<&str, &str> = BTreeMap::new();
    for argument in names {
        let name = match (arguments.get(*argument), names, inputs) {
            (Some(name), ..) => name.as_str(),
            (None, ..) if all().any(|name| name == *argument) => argument,
            // A program that takes only the samples may call them anything.
            (None, [_], [samples]) => samples.as_str(),
            (None, ..) => {
                return Err(Refusal::new(format!(
                    "nothing is given to its argument `{argument}`; a batch has {}",
                    list(all(), "and")
                ))
                .with_hint(how_given(names, interface)));
            }
        };
        let source = match inputs.iter().position(|input| input == name) {
            Some(0) => Source::Inputs,
            Some(index) => Source::Other(index - 1),
            None => match interface.targets.filter(|targets| targets.name == name) {
                Some(BatchTargets { shape, kind, .. }) => Source::Targets(shape.to_vec(), kind),
                None => {
                    let refusal = Refusal::new(format!(
                        "its argument `{argument}` is given `{name}`, and a batch has {}",
                        list(all(), "and")
                    ));
                    return Err(suggesting(refusal.with_hint("`[data] inputs` names what a batch has"), name, all()));
                }
            },
        };
        if let Some(other) = given.insert(name, argument) {
            return Err(Refusal::new(format!("its arguments `{other}` and `{argument}` are both given `{name}`"))
                .with_hint("give each of them an input of its own; two of `[data] inputs` may be one array"));
        }
        sources.push(source);
    }
    let Some(unread) = inputs.iter().find(|input| !given.contains_key(input.as_str())) else { return Ok(sources) };
    let taken = list(names.iter().copied(), "and");
    let one = names.first().copied().unwrap_or_default();
    Err(Refusal::new(format!("none of its arguments is given `{unread}`; it takes {taken}")).with_hint(format!(
        "leave it out of `[data] inputs`, or name the argument that gets it under `[model]`: \
         `inputs = {{ {one} = \"{unread}\" }}`"
    )))
}

/// A table that gives each argument something.
fn how_given(names: &[&str], interface: &Interface<'_>) -> String {
    let mut left: Vec<&str> = interface.names().collect();
    left.retain(|name| !names.contains(name) && !interface.arguments.values().any(|given| given == name));
    let mut left = left.into_iter();
    let entries: Option<Vec<String>> = names
        .iter()
        .filter(|name| !interface.inputs.iter().any(|input| input == **name))
        .map(|name| match interface.arguments.get(*name) {
            Some(given) => Some(format!("{name} = \"{given}\"")),
            None => Some(format!("{name} = \"{}\"", left.next()?)),
        })
        .collect();
    match entries {
        Some(entries) => {
            format!("name what each argument gets under `[model]`, such as `inputs = {{ {} }}`", entries.join(", "))
        }
        None => "`[data] inputs` gives a batch several, as in `{ inputs = \"ids\", mask = \"attention_mask\" }`; or export the \
                 model without that argument"
            .to_owned(),
    }
}

fn suggesting<'n>(refusal: Refusal, name: &str, names: impl Iterator<Item = &'n str>) -> Refusal {
    match nearest(name, names).first() {
        Some(near) => refusal.with_hint(format!("did you mean `{near}`?")),
        None => refusal,
    }
}

/// What counts of what a program returns.
pub(super) struct Outputs<'d> {
    /// The name of the output in the graph.
    pub(super) output: &'d str,
    /// That of the loss, if the program gives its own.
    pub(super) loss: Option<&'d str>,
    /// What the output is called, unless it is the only one.
    pub(super) called: Option<String>,
}

/// The output, and the loss if that is wanted.
///
/// # Errors
///
/// An output that there is not, or one of several that is not named; a loss that there is not.
pub(super) fn outputs<'d>(document: &'d Document, interface: &Interface<'_>) -> Result<Outputs<'d>, Refusal> {
    let wanted = interface.output;
    if !interface.gives_loss {
        let called = wanted.map(str::to_owned);
        return Ok(Outputs { output: output(document, wanted)?, loss: None, called });
    }
    let returned = returned(document)?;
    let (name, loss) = own_loss(document, &returned)?;
    let loss = Some(*loss);
    if let Some(wanted) = wanted {
        if wanted == name {
            return Err(Refusal::new(format!("`{wanted}` is its loss, and cannot be its output as well"))
                .with_hint("name another one, such as the logits"));
        }
        return Ok(Outputs { output: output(document, Some(wanted))?, loss, called: Some(wanted.to_owned()) });
    }
    let others: Vec<&(String, &str)> = returned.iter().filter(|(other, _)| other != name).collect();
    match others[..] {
        [(called, output)] => Ok(Outputs { output, loss, called: Some(called.clone()) }),
        [] => Err(Refusal::new("it returns nothing but its loss")
            .with_hint("let it return what it predicts, too, such as the logits")),
        [(first, _), ..] => Err(Refusal::new(format!(
            "it returns {} tensors beside its loss: {}",
            others.len(),
            list(others.iter().map(|(name, _)| name.as_str()), "and")
        ))
        .with_hint(format!("name the one that is its output under `[model]`: `output = \"{first}\"`"))),
    }
}

/// The loss among what a program returns: what is called so, or else the only single number.
fn own_loss<'r, 'd>(document: &Document, returned: &'r [(String, &'d str)]) -> Result<&'r (String, &'d str), Refusal> {
    let rank = |place: &str| document.graph_module.graph.tensor_values.get(place).map(|meta| meta.sizes.len());
    if let Some(named) = returned.iter().find(|(name, _)| name == LOSS) {
        return match rank(named.1) {
            Some(0) => Ok(named),
            rank => Err(Refusal::new(format!(
                "its output `{LOSS}` has the rank {}: it is no single number",
                rank.unwrap_or_default()
            ))
            .with_hint("let the model return the mean loss of the batch")),
        };
    }
    // A parameter that is returned as it is was computed by nobody.
    let is_made = |place: &str| {
        document
            .graph_module
            .graph
            .nodes
            .iter()
            .any(|node| node.outputs.iter().flat_map(document::names).any(|made| made == place))
    };
    let called = || list(returned.iter().map(|(name, _)| name.as_str()), "and");
    let scalars: Vec<&(String, &str)> =
        returned.iter().filter(|(_, place)| rank(place) == Some(0) && is_made(place)).collect();
    match scalars[..] {
        [only] => Ok(only),
        [] => Err(Refusal::new(format!("it gives no loss of its own: it returns {}, and no single number", called()))
            .with_hint(
                "choose a loss of the host, or export the model with its targets as an argument, such as `labels`",
            )),
        _ => Err(Refusal::new(format!("it returns {}, several single numbers, and none is called `{LOSS}`", called()))
            .with_hint("let the model return a dictionary whose key `loss` is the loss")),
    }
}

impl Input {
    /// Whether a tensor is what the program was exported for.
    fn check(&self, input: &Tensor) -> Result<(), Refusal> {
        let sizes = input.size();
        let fits = sizes.len() == self.sizes.len()
            && sizes.iter().zip(&self.sizes).all(|(size, wanted)| wanted.is_none_or(|wanted| wanted == *size));
        if fits && input.kind() == self.kind {
            return Ok(());
        }
        let wanted: Vec<String> =
            self.sizes.iter().map(|size| size.map_or_else(|| "any".to_owned(), |size| size.to_string())).collect();
        Err(Refusal::new(format!(
            "its input `{}` is {} of the shape [{}], and it is given {} of the shape {sizes:?}",
            self.name,
            dtype_name(self.kind),
            wanted.join(", "),
            dtype_name(input.kind()),
        )))
    }
}
