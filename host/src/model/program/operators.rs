//! Which operators a program may call.

use crate::refusal::Refusal;

/// Operators of libtorch that compute tensors from tensors and numbers, and touch no file, process, network or foreign memory;
/// sorted.
const ALLOWED: &str = include_str!("operators.txt");

/// Checks and notes for the compiler: they compute nothing.
const WITHOUT_EFFECT: [&str; 6] = [
    "_assert_async",
    "_assert_scalar",
    "_assert_tensor_metadata",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
    "_functional_assert_async",
];

/// What a node calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'t> {
    /// An operator of libtorch: `aten::conv2d`, and its overload, empty for `default`.
    Operator(String, &'t str),
    /// Arithmetic with sizes: `mul`.
    Python(&'t str),
    /// A part of the program in another mode, or under a condition.
    Region(Region),
    /// Nothing.
    Nothing,
}

/// A part of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Region {
    /// `torch.set_grad_enabled`.
    Gradients,
    /// `torch.autocast`.
    Autocast,
    /// `torch.cond`.
    Condition,
}

/// What `torch.ops.aten.conv2d.default` means.
pub(super) fn target(target: &str) -> Result<Target<'_>, Refusal> {
    if let Some(name) = target.strip_prefix("_operator.") {
        return Ok(Target::Python(name));
    }
    let Some(rest) = target.strip_prefix("torch.ops.") else {
        return Err(Refusal::new(format!("it calls `{target}`, which is no operator")));
    };
    let mut parts = rest.split('.');
    let (library, name, overload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
    let overload = overload.filter(|&overload| overload != "default").unwrap_or_default();
    match library {
        "aten" if WITHOUT_EFFECT.contains(&name) => Ok(Target::Nothing),
        "aten" if is_allowed(name) => Ok(Target::Operator(format!("aten::{name}"), overload)),
        "aten" => Err(Refusal::new(format!("it calls the operator `aten::{name}`, which a program may not call"))
            .with_hint("only operators that compute tensors are called: none that reads files, for example")),
        "higher_order" => match name {
            "wrap_with_set_grad_enabled" => Ok(Target::Region(Region::Gradients)),
            "wrap_with_autocast" => Ok(Target::Region(Region::Autocast)),
            "cond" => Ok(Target::Region(Region::Condition)),
            _ => Err(Refusal::new(format!("it has a region of the kind `{name}`, which is not supported"))
                .with_hint("of control flow, only `torch.cond` is supported: export a model without loops")),
        },
        library => Err(Refusal::new(format!("it calls the operator `{library}::{name}` of another library"))
            .with_hint("an operator that a Python package adds is not in libtorch: use PyTorch's own operators")),
    }
}

fn is_allowed(name: &str) -> bool {
    ALLOWED.lines().any(|allowed| allowed == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_touch_files_are_refused_by_name() {
        for name in ["from_file", "save", "_cuda_getCurrentRawStream", "record_stream", "set_", "resize_"] {
            let text = format!("torch.ops.aten.{name}.default");
            let error = target(&text).unwrap_err().to_string();
            assert_eq!(error, format!("it calls the operator `aten::{name}`, which a program may not call"));
        }
    }

    #[test]
    fn the_list_is_sorted_and_names_each_once() {
        let names: Vec<&str> = ALLOWED.lines().collect();
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(names.len() > 500, "{}", names.len());
    }

    #[test]
    fn what_is_no_operator_of_libtorch_is_refused() {
        let texts = ["os.system", "torch.ops.mylib.foo.default", "torch.ops.higher_order.scan", "builtins.eval"];
        let errors = texts.map(|text| target(text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @"
        it calls `os.system`, which is no operator
        it calls the operator `mylib::foo` of another library
        it has a region of the kind `scan`, which is not supported
        it calls `builtins.eval`, which is no operator
        ");
    }
}
