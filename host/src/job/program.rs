//! Jobs of programs that bring parts of the training themselves.

use std::rc::Rc;

use tch::{Device, Kind, Tensor};

use super::log::Verbosity;
use super::plan::Request;
use super::run::{self, JobOutcome};
use crate::data::Target;
use crate::model::{BoxError, Network};
use crate::report::Problems;
use crate::train::{BatchStep, BatchStepFunction, Computed, LossFunction};

/// A job in the making: what the command line asks for, and what the program brings itself.
///
/// ```no_run
/// use host::job::{Job, Request, Verbosity};
/// use host::model::{Mode, Network, variables};
/// use tch::nn::{self, ModuleT};
///
/// let request = Request { run_file: Some("run.toml".into()), ..Request::default() };
/// let outcome = Job::new(request)
///     .model(|context| {
///         let store = nn::VarStore::new(context.device);
///         let layers = nn::seq_t().add(nn::linear(store.root() / "head", 64, 10, Default::default()));
///         Network::custom(variables(&store), context.device, move |inputs, mode| {
///             Ok(layers.forward_t(&inputs.flatten(1, -1), mode == Mode::Train))
///         })
///     })
///     .run(Verbosity::Normal)?;
/// # Ok::<(), host::report::Problems>(())
/// ```
pub struct Job {
    request: Request,
    program: Program,
}

/// What a program brings itself; the rest is the run file's.
#[derive(Default)]
pub(super) struct Program {
    pub(super) model: Option<Box<MakeNetwork>>,
    pub(super) loss: Option<Rc<LossFunction>>,
    pub(super) batch_step: Option<Box<BatchStepFunction>>,
}

/// Makes a network for the data and the device of a run.
pub(super) type MakeNetwork = dyn FnOnce(&ModelContext) -> Result<Network, BoxError>;

/// What a program's model is made for.
#[derive(Clone, Debug)]
pub struct ModelContext {
    /// Where its tensors belong.
    pub device: Device,
    /// The shape of one sample, without the batch dimension.
    pub sample_shape: Vec<i64>,
    /// The dtype of samples: f32, or i64 for tokens.
    pub sample_kind: Kind,
    /// What is predicted.
    pub target: Target,
}

impl Job {
    /// The job that `request` asks for, with nothing of the program's own.
    pub fn new(request: Request) -> Self {
        Self { request, program: Program::default() }
    }

    /// Trains the network that `make` gives; the run file then has no `layers`. What `make` draws from libtorch's
    /// default generators follows from the run's seed. `init_from` and checkpoints go by the names of its tensors.
    #[must_use]
    pub fn model<E: Into<BoxError>>(
        mut self,
        make: impl FnOnce(&ModelContext) -> Result<Network, E> + 'static,
    ) -> Self {
        self.program.model = Some(Box::new(|context| make(context).map_err(Into::into)));
        self
    }

    /// Minimises what `loss` makes of a batch's outputs (f32) and targets, a scalar; evaluations give its mean. The run
    /// file then has no `loss`.
    #[must_use]
    pub fn loss(mut self, loss: impl Fn(&Tensor, &Tensor) -> Result<Tensor, BoxError> + 'static) -> Self {
        self.program.loss = Some(Rc::new(loss));
        self
    }

    /// Has `step` compute outputs and loss of each training batch. Backward, hooks and update are the loop's as ever,
    /// and evaluations compute the model's outputs and the run's loss. What `step` remembers from one batch to the next
    /// is in no checkpoint.
    #[must_use]
    pub fn batch_step(mut self, step: impl FnMut(&mut BatchStep<'_>) -> Result<Computed, BoxError> + 'static) -> Self {
        self.program.batch_step = Some(Box::new(step));
        self
    }

    /// Trains.
    ///
    /// # Errors
    ///
    /// What keeps the run from beginning: a run file, plugins or data that are wrong, a checkpoint that does not fit. A
    /// run that began and failed is an outcome; its error is told on the console and in `status.json`.
    pub fn run(self, verbosity: Verbosity) -> Result<JobOutcome, Problems> {
        run::run(&self.request, self.program, verbosity)
    }
}
