//! What can be wrong with a metric.

use std::borrow::Cow;

use crate::report::Report;

/// A metric that does not fit the data or the model, or a state of another metric.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetricError {
    /// The data has other targets.
    #[error("the metric `{metric}` takes {expected}, but the data has {found}")]
    Targets {
        /// The metric.
        metric: Cow<'static, str>,
        /// What it takes.
        expected: &'static str,
        /// What the data has.
        found: String,
    },
    /// The model's outputs are not made for the targets, which only a loss of its own allows.
    #[error("the metric `{metric}` compares the output with the targets, and {misfit}")]
    Outputs {
        /// The metric.
        metric: Cow<'static, str>,
        /// What does not fit.
        misfit: String,
    },
    /// The model has one output for two classes.
    #[error("the metric `{metric}` takes an output for each class, but the model has one for both")]
    SingleOutput {
        /// The metric.
        metric: Cow<'static, str>,
    },
    /// Two ranks have measured different things.
    #[error("the metric `{metric}` of two ranks is of outputs of different shapes")]
    Merge {
        /// The metric.
        metric: Cow<'static, str>,
    },
    /// A checkpoint's state does not fit.
    #[error("the checkpoint's state of the metric `{metric}` is not valid for it")]
    State {
        /// The metric.
        metric: Cow<'static, str>,
    },
}

impl Report for MetricError {
    fn hint(&self) -> Option<String> {
        match self {
            MetricError::Targets { expected: "numbers", .. } => {
                Some("for classes there are `accuracy`, `precision`, `recall`, `f1`, `auc` and others".to_owned())
            }
            MetricError::Targets { expected: "classes", .. } => {
                Some("for numbers there are `mae`, `rmse` and `r2`".to_owned())
            }
            MetricError::Targets { .. } => Some("name one of fewer, as in `top2_error`".to_owned()),
            MetricError::SingleOutput { .. } => Some("use `accuracy` or `auc`, or the loss itself".to_owned()),
            MetricError::Outputs { .. } => Some(
                "leave it out, or name another of the tensors that the model returns with `[model] output`".to_owned(),
            ),
            MetricError::Merge { .. } => {
                Some("give all ranks the same run file, model and data, and the same version of the host".to_owned())
            }
            MetricError::State { .. } => None,
        }
    }
}
