//! `summaries`: what is inside the model, as records for monitors: values of nodes and gradients of parameters as numbers,
//! histograms or pictures; as tensorpack's `MergeAllSummaries` with `add_activation_summary`.
//!
//! They are those of the last step before the trigger.

use std::collections::{BTreeMap, BTreeSet};

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::{Blob, RecordValue, TapOf, TensorSet};
use plugin_api::services::{did_you_mean, fits};
use plugin_api::{Callback, Creation, Error, EventKind, Need, Result, Run, TensorView, plugin, tracing};

use super::tensor_picture::{Picture, Shades};
use super::whole_taps;
use crate::weights::tensor_stats::histogram;
use crate::weights::values::{f32_values, is_f32, norm};

/// Options of `summaries`.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {
    /// What to record.
    summaries: Vec<Summary>,
}

/// Something that is recorded.
#[plugin]
struct Summary {
    /// The nodes, as `host model` names them, or for gradients the parameters; `*` stands for any characters.
    name: String,
    /// What is recorded of them.
    of: Of,
    /// How it is recorded.
    r#as: As,
}

#[plugin]
#[derive(Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    /// The values of nodes.
    Activation,
    /// The gradients of parameters, as the optimizer used them.
    Gradient,
}

#[plugin]
#[derive(Copy, PartialEq, Eq, PartialOrd, Ord)]
enum As {
    /// Numbers: the mean, the norm, the least and the greatest value.
    Scalar,
    /// The mean.
    Mean,
    /// The L2 norm.
    Norm,
    /// The least and the greatest value.
    MinMax,
    /// The distribution of the values.
    Histogram,
    /// A picture: of an activation the first sample of the batch, or the whole batch if a sample is a vector.
    Image,
}

impl Default for Summary {
    fn default() -> Self {
        Self { name: String::new(), of: Of::Activation, r#as: As::Scalar }
    }
}

pub(crate) struct Summaries {
    options: Options,
    /// What is recorded, in the order of the options and of the model.
    planned: Vec<Planned>,
    /// What was left out with a warning.
    left_out: BTreeSet<String>,
}

/// A tap, and how it is recorded.
#[derive(Clone, PartialEq)]
struct Planned {
    tap: String,
    node: String,
    of: Of,
    r#as: As,
}

#[plugin]
impl Callback for Summaries {
    const KIND: &'static str = "summaries";
    const SUMMARY: &'static str = "Records values inside the model as numbers, histograms or pictures";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::taps(EventKind::TRIGGER)];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.summaries.is_empty() {
            return Err(Error::new(
                "`summaries` is empty: name what to record, as in `[{ name = \"relu*\", as = \"histogram\" }]`",
            ));
        }
        if options.summaries.iter().any(|summary| summary.name.is_empty()) {
            return Err(Error::new("an entry of `summaries` has no `name`: name a node or a parameter, or use `*`"));
        }
        Ok(Self { options, planned: Vec::new(), left_out: BTreeSet::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let mut offered = BTreeMap::new();
        for summary in self.options.summaries.clone() {
            let names = match offered.get(&summary.of) {
                Some(names) => names,
                None => offered.entry(summary.of).or_insert(names_of(run, summary.of)?),
            };
            let chosen: Vec<&String> = names.iter().filter(|name| fits(&summary.name, name)).collect();
            if chosen.is_empty() {
                return Err(nothing_fits(&summary, names));
            }
            for node in chosen {
                self.plan(run, &summary, node)?;
            }
        }
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        let mut records = Vec::new();
        // A trigger before the first step of this process has none.
        let views: BTreeMap<&str, TensorView<'_>> =
            run.tensors(TensorSet::Taps)?.into_iter().map(|view| (view.name(), view)).collect();
        for planned in &self.planned {
            let Some(view) = views.get(planned.tap.as_str()) else { continue };
            match planned.records(run, view)? {
                Some(of_tap) => records.extend(of_tap),
                None if self.left_out.insert(planned.tap.clone()) => {
                    let shape = view.shape();
                    tracing::warn!(
                        "`{}` of type {} and shape {shape:?} cannot be recorded as {}: it is left out",
                        planned.node,
                        view.dtype().name(),
                        planned.r#as.name()
                    );
                }
                None => {}
            }
        }
        records.into_iter().try_for_each(|(name, value)| run.put_record(&name, value))
    }
}

impl Summaries {
    /// Taps a node or gradient.
    fn plan(&mut self, run: &mut Run<'_>, summary: &Summary, node: &str) -> Result<()> {
        let of = if summary.of == Of::Gradient { TapOf::Gradient } else { TapOf::Activation };
        let tap = whole_taps::request(run, of, node)?;
        let planned = Planned { tap, node: node.to_owned(), of: summary.of, r#as: summary.r#as };
        if !self.planned.contains(&planned) {
            self.planned.push(planned);
        }
        Ok(())
    }
}

/// The nodes of the model, or its parameters.
fn names_of(run: &Run<'_>, of: Of) -> Result<Vec<String>> {
    if of == Of::Gradient {
        return Ok(run.list(TensorSet::Parameters)?.into_iter().map(|parameter| parameter.name).collect());
    }
    whole_taps::nodes(run, "use `of = \"gradient\"`, which needs no graph")
}

fn nothing_fits(summary: &Summary, names: &[String]) -> Error {
    let what = if summary.of == Of::Gradient { "parameter" } else { "node" };
    let near = did_you_mean(&summary.name, names.iter().map(String::as_str));
    let hint = near.unwrap_or_else(|| "`host model` shows their names".to_owned());
    Error::new(format!("`summaries` names `{}`, but the model has no such {what}; {hint}", summary.name))
}

impl Planned {
    /// The records of a value; `None` if it cannot be recorded so.
    fn records(&self, run: &Run<'_>, view: &TensorView<'_>) -> Result<Option<Vec<(String, RecordValue)>>> {
        if !is_f32(view) || view.is_empty() {
            return Ok(None);
        }
        let values = f32_values(run, view)?;
        let named = |what: &str| format!("{}_{what}/{}", self.of.name(), self.node);
        let scalar = |what: &str, value: f64| (named(what), RecordValue::Scalar { value });
        let mean = || scalar("mean", values.iter().map(|&value| f64::from(value)).sum::<f64>() / values.len() as f64);
        let norm = || scalar("norm", norm(&values));
        let [min, max] = [f64::min as fn(f64, f64) -> f64, f64::max].map(|of| extreme(&values, of));
        Ok(match self.r#as {
            As::Scalar => Some(vec![mean(), norm(), scalar("min", min), scalar("max", max)]),
            As::Mean => Some(vec![mean()]),
            As::Norm => Some(vec![norm()]),
            As::MinMax => Some(vec![scalar("min", min), scalar("max", max)]),
            As::Histogram => Some(histogram(&values).map(|value| (named("histogram"), value)).into_iter().collect()),
            As::Image => self.picture(view.shape(), &values).map(|value| vec![(named("image"), value)]),
        })
    }

    fn picture(&self, shape: &[i64], values: &[f32]) -> Option<RecordValue> {
        let mut shape: Vec<usize> =
            shape.iter().map(|&length| usize::try_from(length)).collect::<Result<_, _>>().ok()?;
        let mut values = values;
        if self.of == Of::Activation && shape.len() > 2 {
            shape.remove(0);
            values = values.get(..shape.iter().product())?;
        }
        let Picture { size: [height, width, channels], pixels } = Picture::of(&shape, values, Shades::default())?;
        Some(RecordValue::Image { width, height, channels, pixels: Blob(pixels) })
    }
}

/// The least or the greatest value; NaN if one is NaN.
fn extreme(values: &[f32], of: fn(f64, f64) -> f64) -> f64 {
    let or_nan = |one: f64, other: f64| if one.is_nan() || other.is_nan() { f64::NAN } else { of(one, other) };
    values.iter().map(|&value| f64::from(value)).reduce(or_nan).unwrap_or(f64::NAN)
}

impl Of {
    fn name(self) -> &'static str {
        match self {
            Self::Activation => "activation",
            Self::Gradient => "gradient",
        }
    }
}

impl As {
    fn name(self) -> &'static str {
        match self {
            Self::Scalar | Self::Mean | Self::Norm | Self::MinMax => "numbers",
            Self::Histogram => "a histogram",
            Self::Image => "a picture",
        }
    }
}

#[cfg(test)]
mod tests;
