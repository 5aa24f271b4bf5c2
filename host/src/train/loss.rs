//! Losses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

use super::range::{OutOfRange, require, require_positive};
use crate::data::Target;
use crate::report::Report;
use crate::torch::{TorchError, chain, fused, values};

/// `[train] loss`: what training makes small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LossOptions {
    /// The negative log-likelihood of the true class under a softmax over the outputs, averaged over the samples, and
    /// over the positions of each where the data has a class at every position (`torch.nn.CrossEntropyLoss`).
    CrossEntropy {
        /// The share of each target that is spread evenly over all classes.
        #[serde(default)]
        #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
        label_smoothing: f64,
        /// How much a sample of each class counts, in the order of the classes: the mean is weighted by them. Without
        /// it all count the same.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        class_weights: Vec<f64>,
    },
    /// The negative log-likelihood under a sigmoid of each output: one output for data of two classes, or one for each
    /// number of the data, which are probabilities from 0 to 1 (`torch.nn.BCEWithLogitsLoss`).
    BceWithLogits {
        /// How much the second class counts against the first: one number, or one for each output.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pos_weight: Vec<f64>,
    },
    /// The mean squared difference (`torch.nn.MSELoss`).
    Mse {},
    /// The mean absolute difference (`torch.nn.L1Loss`).
    L1 {},
    /// The exported program's own: a single number that it returns, called `loss` or the only one, the mean over the batch. The
    /// targets are an argument of it: `[model] inputs = { labels = "targets" }`. Each sample counts the same: where the
    /// program's mean is over something else, such as the tokens of a batch, the mean over several batches weights these by
    /// their samples.
    Model {},
    /// Squared for differences up to `delta`, and a straight line beyond (Huber 1964; `torch.nn.HuberLoss`).
    Huber {
        /// Where the line begins.
        #[serde(default = "delta")]
        #[schemars(extend("exclusiveMinimum" = 0))]
        delta: f64,
    },
}

fn delta() -> f64 {
    1.0
}

/// An invalid loss, or a model or data that does not fit it.
#[derive(Clone, Debug, thiserror::Error, PartialEq)]
pub enum LossError {
    /// A value is out of range.
    #[error(transparent)]
    Range(#[from] OutOfRange),
    /// The model's output has another shape.
    #[error("`{loss}` takes {wanted}, but the model gives {found:?}")]
    Outputs {
        /// The loss.
        loss: &'static str,
        /// What it takes, for a sample.
        wanted: String,
        /// The shape that the output of the model should have for one sample.
        shape: Vec<i64>,
        /// The shape that it has.
        found: Vec<i64>,
    },
    /// The data has other targets.
    #[error("`{loss}` takes {expected}, but the data has {found}")]
    Targets {
        /// The loss.
        loss: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What the data has.
        found: String,
        /// Losses that fit the data.
        instead: &'static str,
    },
    /// The number of weights does not match.
    #[error("`{key}` has {found} numbers, but there are {expected} {of}")]
    Weights {
        /// The option.
        key: &'static str,
        /// How many numbers it has.
        found: usize,
        /// How many there must be.
        expected: usize,
        /// What each of them weights.
        of: &'static str,
    },
}

impl LossError {
    /// The option that it is about, if it is about one.
    pub fn key(&self) -> Option<&'static str> {
        match self {
            LossError::Range(range) => Some(range.key),
            LossError::Weights { key, .. } => Some(key),
            LossError::Outputs { .. } | LossError::Targets { .. } => None,
        }
    }
}

impl Report for LossError {
    fn hint(&self) -> Option<String> {
        match self {
            LossError::Range(_) => None,
            LossError::Outputs { shape, .. } => Some(format!("let the last layer give {shape:?} for a sample")),
            LossError::Targets { instead, .. } => Some(format!("use {instead} for them")),
            LossError::Weights { expected, of, .. } => {
                Some(format!("give {expected} numbers, in the order of the {of}"))
            }
        }
    }
}

impl LossOptions {
    /// Its name in the run file.
    pub fn name(&self) -> &'static str {
        match self {
            LossOptions::CrossEntropy { .. } => "cross_entropy",
            LossOptions::BceWithLogits { .. } => "bce_with_logits",
            LossOptions::Mse {} => "mse",
            LossOptions::L1 {} => "l1",
            LossOptions::Huber { .. } => "huber",
            LossOptions::Model {} => "model",
        }
    }

    /// Checks the values, without a model or data.
    pub fn check_values(&self) -> Result<(), LossError> {
        match self {
            LossOptions::CrossEntropy { label_smoothing, class_weights } => {
                let smoothing = *label_smoothing;
                require((0.0..1.0).contains(&smoothing), "label_smoothing", smoothing, "at least 0 and below 1")?;
                class_weights.iter().try_for_each(|weight| require_positive("class_weights", *weight))?;
            }
            LossOptions::BceWithLogits { pos_weight } => {
                pos_weight.iter().try_for_each(|weight| require_positive("pos_weight", *weight))?;
            }
            LossOptions::Huber { delta } => require_positive("delta", *delta)?,
            LossOptions::Mse {} | LossOptions::L1 {} | LossOptions::Model {} => {}
        }
        Ok(())
    }

    /// Checks the values, and that a model whose output for one sample is of `output_shape` can be trained on `target`.
    pub fn check(&self, output_shape: &[i64], target: &Target) -> Result<(), LossError> {
        self.check_values()?;
        let loss = self.name();
        let (wanted, shape) = match (self, target) {
            // The outputs are for metrics and predictions.
            (LossOptions::Model {}, _) => return Ok(()),
            (LossOptions::CrossEntropy { class_weights, .. }, Target::Classes { count, shape, .. }) => {
                weights("class_weights", class_weights.len(), &[0, *count], "classes")?;
                let wanted = match shape.as_slice() {
                    [] => format!("one output for each of {count} classes"),
                    positions => format!("one output for each of {count} classes at each position of {positions:?}"),
                };
                (wanted, with_last(shape, *count))
            }
            (LossOptions::BceWithLogits { pos_weight }, Target::Classes { count: 2, shape, .. }) => {
                weights("pos_weight", pos_weight.len(), &[0, 1], "outputs")?;
                ("one output for two classes".to_owned(), with_last(shape, 1))
            }
            (LossOptions::BceWithLogits { .. }, Target::Values { within_unit: false, .. }) => {
                let found = "numbers below 0 or above 1".to_owned();
                let (expected, instead) = ("two classes, or numbers from 0 to 1", "`mse`, `l1` or `huber`");
                return Err(LossError::Targets { loss, expected, found, instead });
            }
            (LossOptions::BceWithLogits { pos_weight }, Target::Values { names, .. }) => {
                weights("pos_weight", pos_weight.len(), &[0, 1, names.len()], "outputs")?;
                (format!("one output for each of {} numbers", names.len()), with_last(&[], names.len()))
            }
            (LossOptions::Mse {} | LossOptions::L1 {} | LossOptions::Huber { .. }, Target::Values { names, .. }) => {
                (format!("one output for each of {} numbers", names.len()), with_last(&[], names.len()))
            }
            (LossOptions::CrossEntropy { .. }, Target::Values { .. }) => {
                let (found, instead) = ("numbers".to_owned(), "`mse`, `l1` or `huber`");
                return Err(LossError::Targets { loss, expected: "classes", found, instead });
            }
            (LossOptions::BceWithLogits { .. }, Target::Classes { count, .. }) => {
                let (expected, found) = ("two classes or numbers", format!("{count} classes"));
                return Err(LossError::Targets { loss, expected, found, instead: "`cross_entropy`" });
            }
            (_, Target::Classes { .. }) => {
                let (found, instead) = ("classes".to_owned(), "`cross_entropy`");
                return Err(LossError::Targets { loss, expected: "numbers", found, instead });
            }
        };
        if output_shape == shape {
            return Ok(());
        }
        Err(LossError::Outputs { loss, wanted, shape, found: output_shape.to_vec() })
    }

    /// The same loss for a network that is trained without autograd, if there is one.
    pub fn of_chain(&self) -> Option<chain::Loss> {
        match self {
            LossOptions::CrossEntropy { label_smoothing: 0.0, class_weights } if class_weights.is_empty() => {
                Some(chain::Loss::CrossEntropy)
            }
            LossOptions::Mse {} => Some(chain::Loss::Mse),
            _ => None,
        }
    }

    /// What a model would have to give for a sample so that metrics and predictions can be made of its outputs; `None` if that
    /// is what it gives. A loss of the host requires it; one of the model's own leaves it open.
    pub fn misfit(output_shape: &[i64], target: &Target) -> Option<LossError> {
        let fitting: &[LossOptions] = match target {
            Target::Classes { count: 2, .. } => {
                &[LossOptions::BceWithLogits { pos_weight: Vec::new() }, LossOptions::plain_cross_entropy()]
            }
            Target::Classes { .. } => &[LossOptions::plain_cross_entropy()],
            Target::Values { .. } => &[LossOptions::Mse {}],
        };
        let mut last = None;
        for loss in fitting {
            last = Some(loss.check(output_shape, target).err()?);
        }
        last
    }

    const fn plain_cross_entropy() -> Self {
        Self::CrossEntropy { label_smoothing: 0.0, class_weights: Vec::new() }
    }

    /// The mean loss of a batch, a scalar with an autograd graph. `outputs` are f32 `[size, ...]` of the shape that
    /// [`LossOptions::check`] asks for; `targets` are classes, i64 `[size]` or `[size, positions]`, or numbers, f32
    /// `[size, numbers]`.
    pub fn compute(&self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor, TorchError> {
        match self {
            LossOptions::CrossEntropy { label_smoothing, class_weights } => {
                // PyTorch's value for ignored targets; ours are never negative.
                const IGNORE_INDEX: i64 = -100;
                let weights = tensor(class_weights, outputs)?;
                let is_plain = weights.is_none() && *label_smoothing == 0.0;
                let compute = |outputs: &Tensor, targets: &Tensor| {
                    if is_plain && let Some(loss) = fused::cross_entropy(outputs, targets)? {
                        return Ok(loss);
                    }
                    let weights = weights.as_ref();
                    Ok(outputs.f_cross_entropy_loss(
                        targets,
                        weights,
                        Reduction::Mean,
                        IGNORE_INDEX,
                        *label_smoothing,
                    )?)
                };
                if outputs.dim() <= 2 {
                    return compute(outputs, targets);
                }
                // PyTorch expects classes in the second dimension; here they are last, so positions become samples.
                compute(&outputs.f_flatten(0, -2)?, &targets.f_flatten(0, -1)?)
            }
            LossOptions::BceWithLogits { pos_weight } => {
                let of_classes = targets.kind() == Kind::Int64;
                let targets = if of_classes { &targets.f_to_kind(Kind::Float)?.f_view_as(outputs)? } else { targets };
                let pos_weight = tensor(pos_weight, outputs)?;
                Ok(outputs.f_binary_cross_entropy_with_logits(targets, None, pos_weight, Reduction::Mean)?)
            }
            LossOptions::Mse {} => Ok(outputs.f_mse_loss(targets, Reduction::Mean)?),
            LossOptions::L1 {} => Ok(outputs.f_l1_loss(targets, Reduction::Mean)?),
            LossOptions::Huber { delta } => Ok(outputs.f_huber_loss(targets, Reduction::Mean, *delta)?),
            LossOptions::Model {} => Err(TorchError::Operation {
                operation: "loss",
                message: "it is the model's own, which only its forward pass gives".to_owned(),
            }),
        }
    }

    /// The weight of the mean of a batch of `size` samples: the number of samples, or the sum of their class
    /// weights. The mean weighted by it is the mean of all samples. With class weights it waits for a device.
    pub fn weight(&self, targets: &Tensor, size: usize) -> Result<f64, TorchError> {
        let LossOptions::CrossEntropy { class_weights, .. } = self else { return Ok(size as f64) };
        if class_weights.is_empty() {
            return Ok(size as f64);
        }
        let targets = targets.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
        // SAFETY: nothing writes to a batch's targets.
        let targets = unsafe { values::slice::<i64>(&targets) }.unwrap_or_default();
        let weight = |target: &i64| usize::try_from(*target).ok().and_then(|index| class_weights.get(index));
        Ok(targets.iter().filter_map(weight).sum())
    }
}

fn with_last(shape: &[i64], last: usize) -> Vec<i64> {
    shape.iter().copied().chain([last as i64]).collect()
}

/// Refuses a number of weights that is not in `accepted`; the message names its last.
fn weights(key: &'static str, found: usize, accepted: &[usize], of: &'static str) -> Result<(), LossError> {
    match accepted.last() {
        Some(&expected) if !accepted.contains(&found) => Err(LossError::Weights { key, found, expected, of }),
        _ => Ok(()),
    }
}

/// The weights in f32 where the outputs are; `None` when there are none.
fn tensor(weights: &[f64], outputs: &Tensor) -> Result<Option<Tensor>, TorchError> {
    if weights.is_empty() {
        return Ok(None);
    }
    Ok(Some(Tensor::f_from_slice(weights)?.f_to_device(outputs.device())?.f_to_kind(Kind::Float)?))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::torch::values::scalar;
    use crate::train::figures;

    fn loss(text: &str) -> LossOptions {
        toml::from_str(text).unwrap()
    }

    fn cross_entropy() -> LossOptions {
        loss("type = \"cross_entropy\"")
    }

    fn read(value: &Value) -> Tensor {
        let numbers = figures::numbers(&value["values"]);
        let shape: Vec<i64> = serde_json::from_value(value["shape"].clone()).unwrap();
        let kind = if value["classes"] == true { Kind::Int64 } else { Kind::Float };
        Tensor::from_slice(&numbers).reshape(shape).to_kind(kind)
    }

    #[test]
    fn losses_and_gradients_are_those_of_torch() {
        for case in figures::pytorch()["losses"].as_array().unwrap() {
            let (outputs, targets) = (read(&case["outputs"]).set_requires_grad(true), read(&case["targets"]));
            let loss = loss(case["options"].as_str().unwrap()).compute(&outputs, &targets).unwrap();
            loss.backward();
            let gradient = Vec::<f64>::try_from(outputs.grad().flatten(0, -1)).unwrap();
            let found = [vec![scalar(&loss).unwrap()], gradient].concat();
            let expected = [figures::numbers(&case["loss"]), figures::numbers(&case["gradient"])].concat();
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-6, "{}: {found} {expected}", case["options"]);
            }
        }
    }

    #[test]
    fn the_means_of_batches_weighted_make_the_mean_of_all() {
        for case in figures::pytorch()["losses"].as_array().unwrap() {
            let (outputs, targets) = (read(&case["outputs"]), read(&case["targets"]));
            let loss = loss(case["options"].as_str().unwrap());
            let (mut sum, mut weights, count) = (0.0, 0.0, outputs.size()[0]);
            for (start, size) in [(0, 1), (1, count - 1)] {
                let (outputs, targets) = (outputs.narrow(0, start, size), targets.narrow(0, start, size));
                let weight = loss.weight(&targets, size as usize).unwrap();
                sum += scalar(&loss.compute(&outputs, &targets).unwrap()).unwrap() * weight;
                weights += weight;
            }
            let expected = case["loss"].as_f64().unwrap();
            assert!((sum / weights - expected).abs() < 1e-6, "{}: {} {expected}", case["options"], sum / weights);
        }
    }

    #[test]
    fn outputs_must_fit_the_targets() {
        let values = |count| Target::Values { names: vec!["y".to_owned(); count], within_unit: true };
        let wide = Target::Values { names: vec!["y".to_owned()], within_unit: false };
        let tokens = Target::Classes { count: 7, names: Vec::new(), shape: vec![16] };
        let (bce, mse) = (loss("type = \"bce_with_logits\""), loss("type = \"mse\""));
        for (loss, shape, target) in [
            (&cross_entropy(), vec![10], Target::classes(10)),
            (&cross_entropy(), vec![16, 7], tokens.clone()),
            (&bce, vec![1], Target::classes(2)),
            (&bce, vec![3], values(3)),
            (&mse, vec![3], values(3)),
        ] {
            assert_eq!(loss.check(&shape, &target), Ok(()));
        }
        for (loss, shape, target, message) in [
            (
                &cross_entropy(),
                vec![9],
                Target::classes(10),
                "`cross_entropy` takes one output for each of 10 classes, but the model gives [9]",
            ),
            (
                &cross_entropy(),
                vec![7],
                tokens,
                "`cross_entropy` takes one output for each of 7 classes at each position of [16], but the model gives [7]",
            ),
            (&cross_entropy(), vec![2], values(2), "`cross_entropy` takes classes, but the data has numbers"),
            (
                &bce,
                vec![3],
                Target::classes(3),
                "`bce_with_logits` takes two classes or numbers, but the data has 3 classes",
            ),
            (
                &bce,
                vec![2],
                Target::classes(2),
                "`bce_with_logits` takes one output for two classes, but the model gives [2]",
            ),
            (
                &bce,
                vec![1],
                wide,
                "`bce_with_logits` takes two classes, or numbers from 0 to 1, but the data has numbers below 0 or above 1",
            ),
            (&mse, vec![10], Target::classes(10), "`mse` takes numbers, but the data has classes"),
            (&mse, vec![2], values(1), "`mse` takes one output for each of 1 numbers, but the model gives [2]"),
        ] {
            let error = loss.check(&shape, &target).unwrap_err();
            assert_eq!(error.to_string(), message);
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        for (text, message) in [
            ("type = \"huber\"\ndelta = 0", "`delta` = `0` must be above 0 and finite"),
            ("type = \"huber\"\ndelta = nan", "`delta` = `NaN` must be above 0 and finite"),
            ("type = \"cross_entropy\"\nlabel_smoothing = 1", "`label_smoothing` = `1` must be at least 0 and below 1"),
            ("type = \"cross_entropy\"\nclass_weights = [1, -1]", "`class_weights` = `-1` must be above 0 and finite"),
            (
                "type = \"cross_entropy\"\nclass_weights = [1, 2]",
                "`class_weights` has 2 numbers, but there are 3 classes",
            ),
        ] {
            assert_eq!(loss(text).check(&[3], &Target::classes(3)).unwrap_err().to_string(), message);
        }
        let values = Target::Values { names: vec!["y".to_owned(); 3], within_unit: true };
        let error = loss("type = \"bce_with_logits\"\npos_weight = [1, 2]").check(&[3], &values).unwrap_err();
        assert_eq!(error.to_string(), "`pos_weight` has 2 numbers, but there are 3 outputs");
    }

    #[test]
    fn a_target_beyond_the_outputs_is_an_error() {
        let outputs = Tensor::from_slice2(&[[1.0f32, 2.0]]);
        assert!(cross_entropy().compute(&outputs, &Tensor::from_slice(&[2i64])).is_err());
    }
}
