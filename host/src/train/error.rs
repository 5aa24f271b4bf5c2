//! Why a training fails.

use plugin_api::services::Refusal;

use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::dispatch::Failure;
use crate::distributed::DistributedError;
use crate::model::{ModelError, WeightsError};
use crate::report::Report;
use crate::services::ServiceError;
use crate::torch::TorchError;

use super::metrics::MetricError;
use super::optimizer::OptimizerError;

/// Why a training failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A plugin failed, and the run says `on_error = "stop"`.
    #[error(transparent)]
    Plugin(#[from] Box<Failure>),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model cannot be computed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The weights that the run starts from cannot be copied.
    #[error(transparent)]
    InitialWeights(#[from] Box<WeightsError>),
    /// The optimizer.
    #[error(transparent)]
    Optimizer(#[from] OptimizerError),
    /// A metric.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// libtorch.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// A program's own part of the training failed.
    #[error("the program's {part} failed: {message}")]
    Program {
        /// `loss` or `batch step`.
        part: &'static str,
        /// What it said.
        message: String,
    },
    /// A program's event has a tensor that callbacks cannot be lent.
    #[error("the event `{event}` cannot carry its tensors")]
    EventTensors {
        /// The event's name.
        event: String,
        /// Why.
        source: ServiceError,
    },
    /// A checkpoint cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A valid checkpoint of another model or optimizer.
    #[error("the checkpoint `{path}` does not fit this run")]
    Resume {
        /// The checkpoint.
        path: std::path::PathBuf,
        /// What does not fit.
        source: Box<TrainError>,
    },
    /// What the table of services refuses as such.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// A checkpoint that lacks a part of the model.
    #[error("it has no tensor `{name}`, which the model has")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// The processes of the run failed together.
    #[error(transparent)]
    Distributed(#[from] DistributedError),
    /// The operating system failed.
    #[error("{action}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl TrainError {
    /// Which part failed, as one word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Plugin(_) => "plugin",
            Self::Data(_) => "data",
            Self::Model(_) | Self::InitialWeights(_) => "model",
            Self::Optimizer(_) => "optimizer",
            Self::Metric(_) => "metric",
            Self::Torch(_) => "torch",
            Self::Program { .. } | Self::EventTensors { .. } => "program",
            Self::Checkpoint(_) => "checkpoint",
            Self::Refused(_) => "model",
            Self::Resume { .. } | Self::MissingTensor { .. } => "resume",
            Self::Distributed(_) => "distributed",
            Self::System { .. } => "system",
        }
    }
}

impl Report for TrainError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Plugin(failure) => failure.hint(),
            Self::Resume { path, .. } => Some(format!(
                "use the run file that it was written with, `{}`, or begin a new run: `--resume never --out DIR`",
                path.join("run.toml").display()
            )),
            Self::InitialWeights(error) => error.hint(),
            Self::Optimizer(error) => error.hint(),
            Self::Metric(error) => error.hint(),
            Self::Distributed(error) => error.hint(),
            _ => None,
        }
    }
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::Torch(error.into())
    }
}

impl From<Refusal> for TrainError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<TrainError> for ServiceError {
    fn from(error: TrainError) -> Self {
        if let TrainError::Refused(refusal) = error {
            return Self::Refused(refusal);
        }
        if let TrainError::Model(ModelError::NoGraph { reason }) = error {
            return Self::NoGraph(reason);
        }
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::Failed(message)
    }
}
