//! What a model's outputs mean, by the loss that it is trained with, and what a file may add around the model.

use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, plugin};
use serde_json::Value as Json;

use crate::{Difference, Value, difference};

/// What a file includes in addition to the model.
#[plugin]
#[derive(Copy, PartialEq, Eq)]
pub enum Include {
    /// Before the model, the normalization of the data, so that the file takes samples as they are stored.
    Normalize,
    /// Probabilities in place of the outputs, as the loss defines them: a softmax over the last dimension, or with
    /// `bce_with_logits` a sigmoid of each output.
    Softmax,
    /// The class in place of the outputs: the index of the largest one; of two classes with a single output, the second
    /// if it is above 0.
    Argmax,
}

/// What the numbers that a model returns are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// A score for each class.
    Classes,
    /// One score, of the second of two classes against the first.
    SecondClass,
    /// Scores that are independent of each other, each with a probability of its own.
    Independent,
    /// The predicted numbers.
    Numbers,
}

/// What a file adds after the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// Nothing: it returns the model's outputs.
    Nothing,
    /// A softmax over the last dimension.
    Softmax,
    /// A sigmoid of each output.
    Sigmoid,
    /// The index of the largest output, in place of the last dimension.
    Largest,
    /// 1 if the only output is above 0, else 0, in place of the last dimension.
    AboveZero,
}

/// The outputs of a file: what the model's are, and what the file adds after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What the model returns.
    pub outputs: Outputs,
    /// What follows it.
    pub added: Added,
}

impl Include {
    /// Rejects a list in which something follows the choice of a class.
    ///
    /// # Errors
    ///
    /// `argmax` is not the last.
    pub fn check(list: &[Include]) -> Result<()> {
        if list.contains(&Include::Argmax) && list.last() != Some(&Include::Argmax) {
            return Err(Error::new(
                "`include`: `argmax` must come last, since nothing can follow the choice of a class",
            ));
        }
        Ok(())
    }
}

impl Outputs {
    /// Those of a model whose output for a sample has `shape`.
    pub fn of(info: &RunInfo, shape: &[i64]) -> Outputs {
        let is_single = shape.last() == Some(&1);
        match (info.data.classes, loss(info).as_deref()) {
            (0, Some("bce_with_logits")) => Outputs::Independent,
            (0, _) => Outputs::Numbers,
            // The rule of the host's metrics.
            (2.., _) if is_single => Outputs::SecondClass,
            _ => Outputs::Classes,
        }
    }
}

/// The name of the run file's loss; `None` if the program has its own.
fn loss(info: &RunInfo) -> Option<String> {
    let run_file: Json = serde_json::from_str(&info.run_file).ok()?;
    Some(run_file.get("train")?.get("loss")?.get("type")?.as_str()?.to_owned())
}

impl Ending {
    /// The ending that `include` asks for, after a model whose output for a sample has `shape`.
    ///
    /// # Errors
    ///
    /// The outputs have no probabilities, or no classes.
    pub fn new(include: &[Include], info: &RunInfo, shape: &[i64]) -> Result<Ending> {
        let outputs = Outputs::of(info, shape);
        let has = |what: Include| include.contains(&what);
        let added = match outputs {
            // The class of the outputs is that of their probabilities, without ties that rounding makes.
            Outputs::Classes if has(Include::Argmax) => Added::Largest,
            Outputs::SecondClass if has(Include::Argmax) => Added::AboveZero,
            Outputs::Classes if has(Include::Softmax) => Added::Softmax,
            Outputs::Independent if has(Include::Argmax) => {
                return Err(Error::new(
                    "`include`: `argmax` chooses one class, but with the loss `bce_with_logits` every output of these \
                     data is a probability of its own; use `softmax`, which gives these probabilities",
                ));
            }
            Outputs::SecondClass | Outputs::Independent if has(Include::Softmax) => Added::Sigmoid,
            Outputs::Numbers if has(Include::Softmax) || has(Include::Argmax) => {
                let name = if has(Include::Softmax) { "softmax" } else { "argmax" };
                let loss = loss(info).map_or_else(|| "the program's own loss".to_owned(), |loss| format!("`{loss}`"));
                return Err(Error::new(format!(
                    "`include`: `{name}` needs classes, but this run predicts numbers, with {loss}; remove it"
                )));
            }
            _ => Added::Nothing,
        };
        Ok(Ending { outputs, added })
    }

    /// The same model with nothing after it.
    #[must_use]
    pub fn without_addition(self) -> Ending {
        Ending { added: Added::Nothing, ..self }
    }

    /// Whether the file returns classes, which are whole numbers.
    pub fn is_class(self) -> bool {
        matches!(self.added, Added::Largest | Added::AboveZero)
    }

    /// The shape of the file's output for a sample, where the model's has `shape`.
    pub fn shape(self, shape: &[i64]) -> Vec<i64> {
        let rank = shape.len().saturating_sub(usize::from(self.is_class()));
        shape[..rank].to_vec()
    }

    /// What the file must return where the model returns `value`.
    pub fn apply(self, value: &Value) -> Vec<f32> {
        let width = width(value);
        let mut values = value.values.clone();
        match self.added {
            Added::Nothing => values,
            Added::Softmax => {
                values.chunks_mut(width).for_each(softmax);
                values
            }
            Added::Sigmoid => values.into_iter().map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
            Added::Largest => values.chunks(width).map(|row| largest(row) as f32).collect(),
            Added::AboveZero => values.into_iter().map(|value| f32::from(u8::from(value > 0.0))).collect(),
        }
    }

    /// The difference between what a file returns and what it must, where the model returns `value`; `None` if it
    /// returns another number of values. A class differs by as much as its output is below the largest one, since
    /// rounding decides between equal outputs.
    pub fn difference(self, found: &[f32], value: &Value) -> Option<Difference> {
        let width = match self.added {
            Added::Largest => width(value),
            Added::AboveZero => 1,
            _ => return difference(found, &self.apply(value)),
        };
        if found.len() != value.values.len() / width {
            return None;
        }
        let norm = value.values.iter().fold(1f64, |norm, value| norm.max(f64::from(value.abs())));
        let mut most = Difference { relative: 0.0, position: 0 };
        for (position, (class, row)) in found.iter().zip(value.values.chunks(width)).enumerate() {
            let scores = if let [score] = row { vec![-score / 2.0, score / 2.0] } else { row.to_vec() };
            let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let is_index = class.fract() == 0.0 && *class >= 0.0;
            let own = scores.get(*class as usize).filter(|_| is_index);
            let apart = own.map_or(f64::INFINITY, |own| (f64::from(best) - f64::from(*own)) / norm);
            let apart = if apart.is_nan() { f64::INFINITY } else { apart };
            if apart > most.relative {
                most = Difference { relative: apart, position };
            }
        }
        Some(most)
    }

    /// The class of each row of a file's outputs, of `width` numbers each, by the rule of the host's metrics; `None` if
    /// they are not of classes.
    pub fn classes(self, outputs: &[f32], width: usize) -> Option<Vec<i64>> {
        let above = |limit: f32| Some(outputs.iter().map(|value| i64::from(*value > limit)).collect());
        match (self.outputs, self.added) {
            (Outputs::Independent | Outputs::Numbers, _) => None,
            (_, Added::Largest | Added::AboveZero) => Some(outputs.iter().map(|class| *class as i64).collect()),
            (Outputs::SecondClass, Added::Sigmoid) => above(0.5),
            (Outputs::SecondClass, _) => above(0.0),
            (Outputs::Classes, _) => Some(outputs.chunks(width.max(1)).map(|row| largest(row) as i64).collect()),
        }
    }
}

/// The length of the last dimension.
pub(crate) fn width(value: &Value) -> usize {
    value.shape.last().map_or(1, |width| *width as usize).max(1)
}

fn softmax(row: &mut [f32]) {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = row.iter().sum();
    row.iter_mut().for_each(|value| *value /= sum);
}

/// The index of the first of the largest values.
fn largest(row: &[f32]) -> usize {
    row.iter().enumerate().fold(0, |best, (place, value)| if *value > row[best] { place } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(classes: u64, loss: &str) -> RunInfo {
        let mut info = RunInfo::default();
        info.data.classes = classes;
        info.run_file = format!(r#"{{ "train": {{ "loss": {{ "type": "{loss}" }} }} }}"#);
        info
    }

    fn ending(include: &[Include], classes: u64, loss: &str, shape: &[i64]) -> Result<Ending> {
        Ending::new(include, &info(classes, loss), shape)
    }

    #[test]
    fn the_loss_decides_what_follows_the_model() {
        let both = [Include::Softmax, Include::Argmax];
        let added =
            |include: &[Include], classes, loss, shape: &[i64]| ending(include, classes, loss, shape).unwrap().added;
        assert_eq!(added(&both[..1], 3, "cross_entropy", &[3]), Added::Softmax);
        assert_eq!(added(&both, 3, "cross_entropy", &[3]), Added::Largest);
        assert_eq!(added(&both[..1], 2, "bce_with_logits", &[1]), Added::Sigmoid);
        assert_eq!(added(&both, 2, "bce_with_logits", &[1]), Added::AboveZero);
        assert_eq!(added(&both[..1], 0, "bce_with_logits", &[4]), Added::Sigmoid);
        assert_eq!(added(&[Include::Normalize], 0, "mse", &[1]), Added::Nothing);
        let refused = |include: &[Include], loss, shape: &[i64]| {
            ending(include, 0, loss, shape).unwrap_err().message().to_owned()
        };
        assert!(refused(&both[..1], "mse", &[1]).ends_with("this run predicts numbers, with `mse`; remove it"));
        assert!(refused(&both[1..], "huber", &[2]).starts_with("`include`: `argmax` needs classes"));
        assert!(refused(&both, "bce_with_logits", &[4]).contains("every output of these data is a probability"));
        // A program with a loss of its own says only with its data what the outputs are.
        let own = Ending::new(&both, &RunInfo::default(), &[1]).unwrap_err();
        assert!(own.message().contains("with the program's own loss"), "{own}");
    }

    #[test]
    fn classes_are_those_of_the_hosts_metrics() {
        let value = Value { shape: vec![3, 1], values: vec![-0.5, 0.0, 0.25] };
        let of = |include: &[Include]| ending(include, 2, "bce_with_logits", &[1]).unwrap();
        for include in [&[][..], &[Include::Softmax], &[Include::Argmax]] {
            let ending = of(include);
            assert_eq!(ending.classes(&ending.apply(&value), 1), Some(vec![0, 0, 1]), "{include:?}");
        }
        assert_eq!(of(&[Include::Softmax]).apply(&value)[1], 0.5);
        let rows = Value { shape: vec![2, 3], values: vec![1.0, 2.0, 2.0, 0.0, -1.0, -1.0] };
        for include in [&[][..], &[Include::Softmax], &[Include::Argmax]] {
            let ending = ending(include, 3, "cross_entropy", &[3]).unwrap();
            assert_eq!(ending.classes(&ending.apply(&rows), 3), Some(vec![1, 0]), "{include:?}");
        }
        let chosen = ending(&[Include::Argmax], 3, "cross_entropy", &[3]).unwrap();
        let apart = |found: &[f32]| chosen.difference(found, &rows).map(|difference| difference.relative);
        assert_eq!(apart(&[1.0, 0.0]), Some(0.0));
        // Equal outputs: either class.
        assert_eq!(apart(&[2.0, 0.0]), Some(0.0));
        assert_eq!(apart(&[0.0, 0.0]), Some(0.5));
        assert_eq!(
            (apart(&[3.0, 0.0]), apart(&[0.5, 0.0]), apart(&[0.0])),
            (Some(f64::INFINITY), Some(f64::INFINITY), None)
        );
        assert_eq!(of(&[Include::Argmax]).difference(&[1.0, 0.0, 1.0], &value).map(|found| found.relative), Some(0.5));
        assert_eq!(ending(&[Include::Argmax], 7, "cross_entropy", &[16, 7]).unwrap().shape(&[16, 7]), [16]);
    }
}
