//! `confusion-matrix`: how often each class was predicted as each, and the precision and recall of each class.
//!
//! It puts the same array as the metric `confusion_matrix`, so that everything which shows that one shows this: `tensorboard` as
//! a picture, `report`, `dashboard` and `print-metrics` as a table, `csv` and `json-lines` as numbers. The record beside it is
//! a table for people.

use plugin_api::event::{At, Evaluation, Position, Trigger};
use plugin_api::protocol::{DataInfo, RecordValue, TensorSet};
use plugin_api::services::{did_you_mean, list_names};
use plugin_api::{Callback, Creation, Error, EventKind, Need, Result, Run, TensorView, plugin};

use crate::weights::values::f32_values;

/// The most classes: the matrix of more would take more than 16 MB in each point of the history.
const MOST_CLASSES: usize = 2000;

/// The table of more classes has only a column for each share, none for each class.
const MOST_COLUMNS: usize = 32;

/// Options of `confusion-matrix`.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {
    /// The splits; empty for each that is evaluated. `train`, which is not evaluated, is predicted at each trigger: its outputs
    /// must fit into memory.
    splits: Vec<String>,
}

pub(crate) struct ConfusionMatrix {
    options: Options,
    /// The names of the classes, or their numbers.
    classes: Vec<String>,
    /// Of the evaluation in progress.
    counts: Counts,
}

/// How often each class (row) was predicted as each (column).
#[derive(Debug, Default, PartialEq)]
struct Counts {
    /// Known from the first samples on.
    classes: usize,
    counts: Vec<u64>,
}

#[plugin]
impl Callback for ConfusionMatrix {
    const KIND: &'static str = "confusion-matrix";
    const SUMMARY: &'static str = "Counts how often each class is predicted as each, with precision and recall";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[
        Need::outputs(EventKind::EVAL_STEP_END),
        Need::batch(EventKind::EVAL_STEP_END),
        Need::parameters(EventKind::TRIGGER),
        Need::buffers(EventKind::TRIGGER),
    ];
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        let splits = &options.splits;
        if let Some(twice) = (1..splits.len()).find(|&at| splits[..at].contains(&splits[at])) {
            return Err(Error::new(format!("`splits` names `{}` twice", splits[twice])));
        }
        Ok(Self { options, classes: Vec::new(), counts: Counts::default() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let data = run.info()?.data;
        if data.classes == 0 {
            return Err(Error::new("this run predicts numbers, not classes: remove `confusion-matrix`"));
        }
        if data.classes > MOST_CLASSES as u64 {
            let told = format!("the data have {} classes, and a matrix has at most {MOST_CLASSES}", data.classes);
            return Err(Error::new(format!("{told}: remove `confusion-matrix`")));
        }
        for split in &self.options.splits {
            if !data.splits.contains_key(split) {
                let names = || data.splits.keys().map(String::as_str);
                let hint =
                    did_you_mean(split, names()).unwrap_or_else(|| format!("there are {}", list_names(names(), "and")));
                return Err(Error::new(format!("`splits` names `{split}`, which these data do not have; {hint}")));
            }
        }
        self.classes = match data.target_names.len() as u64 == data.classes {
            true => data.target_names,
            false => (0..data.classes).map(|class| class.to_string()).collect(),
        };
        Ok(())
    }

    fn on_eval_start(&mut self, _: &mut Run<'_>, _: &Evaluation<'_>) -> Result<()> {
        self.counts = Counts::default();
        Ok(())
    }

    fn on_eval_step_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        if self.is_chosen(&event.split) {
            let outputs = run.tensor(TensorSet::Outputs, "outputs")?;
            self.counts.add(run, &outputs, &run.tensor(TensorSet::Batch, "targets")?)?;
        }
        Ok(())
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        if self.is_chosen(&event.split) { self.put(run, &event.split, event) } else { Ok(()) }
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        if !self.options.splits.iter().any(|split| split == DataInfo::TRAIN) {
            return Ok(());
        }
        self.counts = Counts::default();
        let batches = if run.info()?.trial { 1 } else { u64::MAX };
        let answer = run.predict_split(DataInfo::TRAIN, batches, &[])?;
        let [outputs, targets] = answer.as_slice() else {
            return Err(Error::new("the host gave no outputs with targets"));
        };
        self.counts.add(run, outputs, targets)?;
        self.put(run, DataInfo::TRAIN, event)
    }
}

impl ConfusionMatrix {
    fn is_chosen(&self, split: &str) -> bool {
        self.options.splits.is_empty() || self.options.splits.iter().any(|chosen| chosen == split)
    }

    /// Puts the array, unless the metric has put it already, and the table.
    fn put(&mut self, run: &mut Run<'_>, split: &str, position: &Position) -> Result<()> {
        let Counts { classes, counts } = std::mem::take(&mut self.counts);
        // Without a sample with a class, there is nothing to show; the metric has no value then, either.
        if counts.is_empty() {
            return Ok(());
        }
        let name = format!("{split}_confusion_matrix");
        let is_put = run.latest_arrays()?.get(&name).is_some_and(|array| array.global_step == position.global_step);
        if !is_put {
            let values: Vec<f32> = counts.iter().map(|count| *count as f32).collect();
            run.put_array(&name, &[classes as u64, classes as u64], &values)?;
        }
        // A model may have more outputs than there are classes.
        let numbers = (self.classes.len()..classes).map(|class| class.to_string());
        let names: Vec<String> = self.classes.iter().take(classes).cloned().chain(numbers).collect();
        run.put_record(&format!("{split}_classes"), table(&names, &counts))
    }
}

impl Counts {
    /// Counts the samples of a batch; the rules are those of the host's metrics: a target below zero does not count, a single
    /// output is the score of the second of two classes, and NaN is larger than any number.
    fn add(&mut self, run: &Run<'_>, outputs: &TensorView<'_>, targets: &TensorView<'_>) -> Result<()> {
        let targets = if targets.device().is_cpu() { *targets } else { run.to_host(targets)? };
        self.add_samples(&f32_values(run, outputs)?, &targets.to_vec::<i64>()?)
    }

    fn add_samples(&mut self, outputs: &[f32], targets: &[i64]) -> Result<()> {
        let width = outputs.len().checked_div(targets.len()).unwrap_or(0).max(1);
        for (row, target) in outputs.chunks_exact(width).zip(targets) {
            let Ok(target) = usize::try_from(*target) else { continue };
            if self.counts.is_empty() {
                self.classes = row.len().max(2);
                if self.classes > MOST_CLASSES {
                    let told = format!("the model has {} outputs, and a confusion matrix has", row.len());
                    return Err(Error::new(format!("{told} at most {MOST_CLASSES} classes")));
                }
                self.counts = vec![0; self.classes * self.classes];
            }
            if target < self.classes {
                self.counts[target * self.classes + predicted(row)] += 1;
            }
        }
        Ok(())
    }
}

/// The class that a sample's outputs predict.
fn predicted(row: &[f32]) -> usize {
    if let [single] = row {
        return usize::from(*single > 0.0);
    }
    let is_larger = |value: f32, than: f32| value > than || (value.is_nan() && !than.is_nan());
    (1..row.len()).fold(0, |best, index| if is_larger(row[index], row[best]) { index } else { best })
}

/// A row for each class: its samples, precision and recall, and how often it was predicted as each, where there is room for it.
fn table(names: &[String], counts: &[u64]) -> RecordValue {
    let classes = names.len();
    let share = |part: u64, whole: u64| format!("{:.4}", if whole == 0 { 0.0 } else { part as f64 / whole as f64 });
    let mut columns: Vec<String> = ["class", "samples", "precision", "recall"].map(str::to_owned).to_vec();
    if classes <= MOST_COLUMNS {
        columns.extend(names.iter().map(|name| format!("as {name}")));
    }
    let rows = names.iter().zip(counts.chunks_exact(classes)).enumerate().map(|(class, (name, row))| {
        let samples: u64 = row.iter().sum();
        let said: u64 = counts.iter().skip(class).step_by(classes).sum();
        let mut cells = vec![name.clone(), samples.to_string(), share(row[class], said), share(row[class], samples)];
        if classes <= MOST_COLUMNS {
            cells.extend(row.iter().map(u64::to_string));
        }
        cells
    });
    RecordValue::Table { columns, rows: rows.collect() }
}

#[cfg(test)]
mod tests;
