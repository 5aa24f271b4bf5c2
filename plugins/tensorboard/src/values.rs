//! Reads numbers from tensors, wherever they are stored, and formats targets.

use std::borrow::Cow;

use plugin_api::{Error, Result, Run, TensorView};

/// The target of a sample.
pub(crate) enum Target {
    Class(i64),
    Numbers(Vec<f32>),
}

impl Target {
    /// The class's name if it has one, else its number; numbers with four digits.
    pub(crate) fn shown(&self, names: &[String]) -> String {
        match self {
            Self::Class(class) => {
                let name = usize::try_from(*class).ok().and_then(|class| names.get(class));
                name.cloned().unwrap_or_else(|| class.to_string())
            }
            Self::Numbers(numbers) => {
                // Those of a whole sequence would tell a reader nothing.
                let shown: Vec<_> = numbers.iter().take(8).map(|number| format!("{number:.4}")).collect();
                format!("{}{}", shown.join(", "), if numbers.len() > shown.len() { ", …" } else { "" })
            }
        }
    }
}

/// The elements of a tensor of floats, copied only if they are not in order on the CPU.
pub(crate) fn floats<'v>(run: &'v Run<'_>, view: &TensorView<'v>) -> Result<Cow<'v, [f32]>> {
    let view = if view.device().kind == 1 { *view } else { run.to_host(view)? };
    match view.as_slice::<f32>() {
        Ok(values) => Ok(Cow::Borrowed(values)),
        Err(_) if !view.is_contiguous() => Ok(Cow::Owned(view.to_vec::<f32>()?)),
        Err(error) => Err(error),
    }
}

/// The first `count` targets of a batch.
pub(crate) fn targets(run: &Run<'_>, view: &TensorView<'_>, count: usize) -> Result<Vec<Target>> {
    let view = if view.device().kind == 1 { *view } else { run.to_host(view)? };
    let rows = view.shape().first().map_or(0, |rows| usize::try_from(*rows).unwrap_or(0));
    let width = view.len().checked_div(rows).unwrap_or(0).max(1);
    match view.dtype().name().as_str() {
        "i64" if width == 1 => Ok(view.to_vec::<i64>()?.into_iter().take(count).map(Target::Class).collect()),
        "i64" => {
            let numbers: Vec<f32> = view.to_vec::<i64>()?.into_iter().map(|number| number as f32).collect();
            Ok(numbers.chunks_exact(width).take(count).map(|row| Target::Numbers(row.to_vec())).collect())
        }
        "f32" => {
            let numbers = view.to_vec::<f32>()?;
            Ok(numbers.chunks_exact(width).take(count).map(|row| Target::Numbers(row.to_vec())).collect())
        }
        other => Err(Error::new(format!("targets of the type `{other}` cannot be shown"))),
    }
}
