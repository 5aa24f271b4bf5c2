//! The arguments of a node, by the names of the operator's schema. One that is not given has the schema's default.

use serde_json::Value;

use super::Reason;
use crate::model::program::document::{Node, double, entry, names, text_of};

/// A node, and the operator that it calls.
#[derive(Clone, Copy)]
pub(super) struct Call<'d> {
    node: &'d Node,
}

/// Operators whose result may share the memory of what they read; dropout does in evaluation.
const VIEWS: [&str; 28] = [
    "_unsafe_view",
    "alias",
    "alpha_dropout",
    "chunk",
    "contiguous",
    "detach",
    "dropout",
    "feature_alpha_dropout",
    "feature_dropout",
    "flatten",
    "permute",
    "reshape",
    "select",
    "slice",
    "squeeze",
    "to",
    "transpose",
    "unflatten",
    "unsqueeze",
    "view",
    "expand",
    "split",
    "split_with_sizes",
    "t",
    "tensor_split",
    "unbind",
    "unsafe_chunk",
    "unsafe_split",
];

impl<'d> Call<'d> {
    pub(super) fn new(node: &'d Node) -> Self {
        Self { node }
    }

    /// Its name for people.
    pub(super) fn label(&self) -> &'d str {
        self.node.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.node.target)
    }

    /// The operator and its overload: `aten.conv2d.default`.
    pub(super) fn target(&self) -> &'d str {
        self.node.target.strip_prefix("torch.ops.").unwrap_or(&self.node.target)
    }

    /// The operator without its library and overload, and without the mark of one that works in place: `relu` of
    /// `aten.relu_.default`.
    pub(super) fn operator(&self) -> &'d str {
        let name = self.name();
        if self.is_in_place() { name.strip_suffix('_').unwrap_or(name) } else { name }
    }

    /// Whether it changes its first argument.
    pub(super) fn is_in_place(&self) -> bool {
        let name = self.name();
        name.ends_with('_') && !name.starts_with('_') && name.len() > 1
    }

    /// Whether its result may share the memory of its first argument.
    pub(super) fn is_view(&self) -> bool {
        VIEWS.contains(&self.name())
    }

    fn name(&self) -> &'d str {
        let mut parts = self.target().split('.');
        match (parts.next(), parts.next()) {
            (Some("aten"), Some(name)) => name,
            (Some(name), _) => name,
            _ => "",
        }
    }

    /// The name of its one value.
    pub(super) fn output(&self) -> Result<&'d str, Reason> {
        let mut outputs = self.outputs();
        outputs.next().flatten().ok_or_else(|| Reason::from("it has no value"))
    }

    /// The names of its values; `None` for what is no tensor.
    pub(super) fn outputs(&self) -> impl Iterator<Item = Option<&'d str>> + use<'d> {
        self.node.outputs.iter().map(|output| text_of(output.get("as_tensor")?, "name"))
    }

    /// The names of the tensors of its one value, a list.
    pub(super) fn listed(&self) -> Vec<&'d str> {
        self.node.outputs.first().map(names).unwrap_or_default()
    }

    /// Whether it reads only the sizes of a tensor, not its values.
    pub(super) fn reads_sizes_only(&self) -> bool {
        let name = self.name();
        name == "sym_size"
            || (["zeros_like", "ones_like", "full_like"].contains(&name))
            || (["new_zeros", "new_ones", "new_full"].contains(&name))
    }

    /// The names of what it makes that is no tensor, such as sizes.
    pub(super) fn sizes(&self) -> impl Iterator<Item = &'d str> + use<'d> {
        self.node.outputs.iter().filter(|output| output.get("as_tensor").is_none()).flat_map(names)
    }

    /// Every name that it reads.
    pub(super) fn reads(&self) -> impl Iterator<Item = &'d str> + use<'d> {
        self.node.inputs.iter().flat_map(|given| names(&given.arg))
    }

    /// The name of the first tensor that it takes.
    pub(super) fn first_tensor(&self) -> Option<&'d str> {
        text_of(self.node.inputs.first()?.arg.get("as_tensor")?, "name")
    }

    fn argument(&self, name: &str) -> Option<(&'d str, &'d Value)> {
        let given = self.node.inputs.iter().find(|given| given.name == name)?;
        entry(&given.arg).filter(|(kind, _)| *kind != "as_none")
    }

    /// Whether it is given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.argument(name).is_some()
    }

    /// The name of a tensor, if it is given.
    pub(super) fn optional_tensor(&self, name: &str) -> Result<Option<&'d str>, Reason> {
        match self.argument(name) {
            None => Ok(None),
            Some(("as_tensor", value)) => Ok(text_of(value, "name")),
            Some(_) => Err(Reason::from(format!("its `{name}` is no tensor"))),
        }
    }

    /// The name of a tensor.
    pub(super) fn tensor(&self, name: &str) -> Result<&'d str, Reason> {
        self.optional_tensor(name)?.ok_or_else(|| Reason::from(format!("it has no `{name}`")))
    }

    /// The names of a list of tensors.
    pub(super) fn tensors(&self, name: &str) -> Result<Vec<&'d str>, Reason> {
        match self.argument(name) {
            Some(("as_tensors", Value::Array(values))) => {
                Ok(values.iter().filter_map(|value| text_of(value, "name")).collect())
            }
            _ => Err(Reason::from(format!("its `{name}` is no list of tensors"))),
        }
    }

    /// A number.
    pub(super) fn integer(&self, name: &str, default: i64) -> Result<i64, Reason> {
        match self.integers(name)?.as_deref() {
            None => Ok(default),
            Some([value]) => Ok(*value),
            Some(_) => Err(Reason::from(format!("its `{name}` is no number"))),
        }
    }

    /// One number for each dimension, or one for all of them.
    pub(super) fn sized<const N: usize>(&self, name: &str, default: i64) -> Result<[i64; N], Reason> {
        match self.integers(name)?.as_deref() {
            None | Some([]) => Ok([default; N]),
            Some([value]) => Ok([*value; N]),
            Some(values) => values.try_into().map_err(|_| Reason::from(format!("its `{name}` has not {N} numbers"))),
        }
    }

    /// Numbers, if they are given.
    pub(super) fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, Reason> {
        let unknown = || Reason::from(format!("its `{name}` is not fixed"));
        let fixed = |value: &Value| value.as_i64().or_else(|| value.get("as_int")?.as_i64());
        match self.argument(name) {
            None => Ok(None),
            Some(("as_int" | "as_sym_int", value)) => Ok(Some(vec![fixed(value).ok_or_else(unknown)?])),
            Some(("as_ints" | "as_sym_ints", Value::Array(values))) => {
                values.iter().map(fixed).collect::<Option<_>>().map(Some).ok_or_else(unknown)
            }
            Some(_) => Err(unknown()),
        }
    }

    /// A number with a fraction.
    pub(super) fn double(&self, name: &str, default: f64) -> Result<f64, Reason> {
        match self.argument(name) {
            None => Ok(default),
            Some(("as_float" | "as_int", value)) => {
                double(value).map_err(|what| Reason::from(format!("its `{name}` {what}")))
            }
            Some(_) => Err(Reason::from(format!("its `{name}` is no number"))),
        }
    }

    /// A number with a fraction, if a number is given.
    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Reason> {
        match self.argument(name) {
            Some(("as_float" | "as_int", _)) => self.double(name, 0.0).map(Some),
            _ => Ok(None),
        }
    }

    /// A truth value.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Reason> {
        match self.argument(name) {
            None => Ok(default),
            Some(("as_bool", value)) => {
                value.as_bool().ok_or_else(|| Reason::from(format!("its `{name}` is no truth value")))
            }
            Some(_) => Err(Reason::from(format!("its `{name}` is no truth value"))),
        }
    }

    /// A text, if it is given.
    pub(super) fn text(&self, name: &str) -> Option<&'d str> {
        match self.argument(name) {
            Some(("as_string", value)) => value.as_str(),
            _ => None,
        }
    }
}
