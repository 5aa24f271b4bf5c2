//! Tensors in words.

use std::fmt::Write;

use plugin_api::protocol::TensorSet;
use plugin_api::{Element, Result, Run, TensorView};

/// How many values are shown.
const SHOWN: usize = 8;

/// The tensors of a set, a line each.
pub(super) fn list(run: &Run<'_>, set: TensorSet, text: &mut String) -> Result<()> {
    for tensor in run.list(set)? {
        writeln!(text, "{} {} {:?}", tensor.name, tensor.dtype, tensor.shape)?;
    }
    Ok(())
}

/// The shape of a tensor, its statistics and its first values.
pub(super) fn describe(run: &Run<'_>, set: &TensorSet, name: &str, text: &mut String) -> Result<()> {
    let view = run.tensor(set.clone(), name)?;
    let view = if view.device().is_cpu() { view } else { run.to_host(&view)? };
    writeln!(text, "{name} of `{set}`: {} {:?}", view.dtype().name(), view.shape())?;
    let Some(values) = numbers(&view)? else {
        writeln!(text, "its values are of a type that is not shown")?;
        return Ok(());
    };
    if values.is_empty() {
        return Ok(());
    }
    let finite = || values.iter().copied().filter(|value| value.is_finite());
    let (count, sum) = (finite().count(), finite().sum::<f64>());
    if count < values.len() {
        writeln!(text, "not finite: {} of {} values; the others:", values.len() - count, values.len())?;
    }
    if let (Some(least), Some(greatest)) = (finite().reduce(f64::min), finite().reduce(f64::max)) {
        let norm = finite().map(|value| value * value).sum::<f64>().sqrt();
        writeln!(text, "min {least} max {greatest} mean {} norm {norm}", sum / count as f64)?;
    }
    let shown: Vec<_> = values.iter().take(SHOWN).map(f64::to_string).collect();
    writeln!(text, "{}{}", shown.join(" "), if values.len() > SHOWN { " …" } else { "" })?;
    Ok(())
}

/// The values of a tensor on the CPU; `None` if they are of a type that has no place in an `f64`.
fn numbers(view: &TensorView<'_>) -> Result<Option<Vec<f64>>> {
    fn of<T: Element>(view: &TensorView<'_>, number: impl Fn(T) -> f64) -> Result<Option<Vec<f64>>> {
        Ok(Some(view.to_vec::<T>()?.into_iter().map(number).collect()))
    }
    let is = |dtype| view.dtype() == dtype;
    match () {
        () if is(f32::DTYPE) => of(view, |value: f32| f64::from(value)),
        () if is(f64::DTYPE) => of(view, |value: f64| value),
        () if is(i64::DTYPE) => of(view, |value: i64| value as f64),
        () if is(i32::DTYPE) => of(view, |value: i32| f64::from(value)),
        () if is(u8::DTYPE) => of(view, |value: u8| f64::from(value)),
        () => Ok(None),
    }
}
