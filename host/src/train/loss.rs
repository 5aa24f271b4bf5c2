//! Losses.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Reduction, Tensor};

use crate::data::Target;
use crate::torch::TorchError;

/// `[train] loss`: what training makes small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum LossOptions {
    /// The negative log-likelihood of the true class under a softmax over the outputs, averaged over the batch
    /// (`torch.nn.CrossEntropyLoss`).
    CrossEntropy {},
}

/// A model or data that the loss cannot take.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LossError {
    /// The model's output has another shape.
    #[error("{loss} takes one output for each of {classes} classes, but the model gives {found:?}")]
    Outputs {
        /// The loss.
        loss: &'static str,
        /// The classes of the data.
        classes: usize,
        /// The shape of the model's output for one sample.
        found: Vec<i64>,
    },
    /// The data has other targets.
    #[error("{loss} takes {expected}, but the data has {found}")]
    Targets {
        /// The loss.
        loss: &'static str,
        /// What it takes.
        expected: &'static str,
        /// What there is.
        found: &'static str,
    },
}

impl LossOptions {
    /// Checks that a model whose output for one sample is of `output_shape` can be trained on `target`.
    pub fn check(&self, output_shape: &[i64], target: &Target) -> Result<(), LossError> {
        match self {
            LossOptions::CrossEntropy {} => {
                let Target::Classes { count, shape, .. } = target else {
                    return Err(LossError::Targets { loss: "cross_entropy", expected: "classes", found: "numbers" });
                };
                match output_shape {
                    [outputs] if shape.is_empty() && usize::try_from(*outputs) == Ok(*count) => Ok(()),
                    _ => {
                        Err(LossError::Outputs { loss: "cross_entropy", classes: *count, found: output_shape.to_vec() })
                    }
                }
            }
        }
    }

    /// The loss of a batch, a scalar with an autograd graph: `outputs` are `[size, classes]`, `targets` `[size]` i64.
    pub fn compute(&self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor, TorchError> {
        match self {
            LossOptions::CrossEntropy {} => {
                // PyTorch's value for targets that are left out; ours are never negative.
                const IGNORE_INDEX: i64 = -100;
                Ok(outputs.f_cross_entropy_loss(targets, None::<Tensor>, Reduction::Mean, IGNORE_INDEX, 0.0)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::values::scalar;

    #[test]
    fn cross_entropy_is_the_mean_negative_log_likelihood() {
        let outputs = [[1.0f32, 2.0, 0.5], [0.0, -1.0, 3.0]];
        let expected = outputs
            .iter()
            .zip([1, 0])
            .map(|(row, class)| {
                let sum: f64 = row.iter().map(|output| f64::from(*output).exp()).sum();
                sum.ln() - f64::from(row[class])
            })
            .sum::<f64>()
            / 2.0;
        let loss = LossOptions::CrossEntropy {};
        let value = loss.compute(&Tensor::from_slice2(&outputs), &Tensor::from_slice(&[1i64, 0])).unwrap();
        assert!((scalar(&value).unwrap() - expected).abs() < 1e-6);
    }

    #[test]
    fn the_output_must_have_one_value_for_each_class() {
        let loss = LossOptions::CrossEntropy {};
        assert!(loss.check(&[10], &Target::classes(10)).is_ok());
        assert!(loss.check(&[10, 1], &Target::classes(10)).is_err());
        assert_eq!(
            loss.check(&[9], &Target::classes(10)).unwrap_err().to_string(),
            "cross_entropy takes one output for each of 10 classes, but the model gives [9]"
        );
    }

    #[test]
    fn a_target_beyond_the_outputs_is_an_error() {
        let outputs = Tensor::from_slice2(&[[1.0f32, 2.0]]);
        assert!(LossOptions::CrossEntropy {}.compute(&outputs, &Tensor::from_slice(&[2i64])).is_err());
    }
}
