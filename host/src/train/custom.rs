//! Parts that a program may replace: the loss, and the computation of outputs and loss from a training batch.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

use plugin_api::abi::kinds::EventKind;
use tch::{Kind, Tensor};

use super::answers::loan;
use super::error::TrainError;
use super::learner::Learner;
use super::loss::LossOptions;
use super::session::Session;
use super::step::{Forward, Samples};
use crate::dispatch::Dispatcher;
use crate::history::Position;
use crate::model::{BoxError, Forwarded, Mode, ModelBatch, ModelError, Network, contained};
use crate::torch::autocast::Autocast;

/// The mean loss of a batch from its outputs and targets: a scalar with an autograd graph.
pub type LossFunction = dyn Fn(&Tensor, &Tensor) -> Result<Tensor, BoxError>;

/// What is minimized.
#[derive(Clone)]
pub enum Loss {
    /// A loss of the run file.
    Options(LossOptions),
    /// A program's own; every sample of a batch has the same weight.
    Custom(Rc<LossFunction>),
}

impl Loss {
    /// The mean loss of a batch, a scalar; see [`LossOptions::compute`].
    ///
    /// # Errors
    ///
    /// Those of libtorch or of the program.
    pub fn compute(&self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor, TrainError> {
        match self {
            Loss::Options(options) => Ok(options.compute(outputs, targets)?),
            Loss::Custom(function) => {
                let loss = contained(|| function(outputs, targets)).map_err(|message| failed("loss", message))?;
                as_loss("loss", loss)
            }
        }
    }

    /// The weight of the mean of a batch of `size` samples; see [`LossOptions::weight`].
    ///
    /// # Errors
    ///
    /// Those of libtorch.
    pub fn weight(&self, targets: &Tensor, size: usize) -> Result<f64, TrainError> {
        match self {
            Loss::Options(options) => Ok(options.weight(targets, size)?),
            Loss::Custom(_) => Ok(size as f64),
        }
    }
}

impl fmt::Debug for Loss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Options(options) => options.fmt(formatter),
            Loss::Custom(_) => formatter.write_str("Custom"),
        }
    }
}

/// A training batch for a program's own step, on the training thread.
///
/// Draws from libtorch's default generators are repeatable, and a resumed run continues them.
pub struct BatchStep<'a> {
    around: Around<'a>,
    /// The run's precision, while the program computes.
    autocast: Option<Autocast>,
    position: Position,
    samples: Samples<'a>,
    nodes: &'a [usize],
    tapped: Vec<Tensor>,
}

/// Where a program's step computes.
pub(super) enum Around<'a> {
    /// In the loop, where callbacks get the events that it sends.
    Run(&'a mut Session, &'a mut Dispatcher),
    /// Apart from the run, within a callback's hook: no other callback may be entered there.
    Apart(&'a Learner),
}

impl Around<'_> {
    fn learner(&self) -> &Learner {
        match self {
            Around::Run(session, _) => &session.learner,
            Around::Apart(learner) => learner,
        }
    }
}

/// The author of the events that the program sends itself.
const PROGRAM: &str = "program";

/// What a step computed from a batch.
#[derive(Debug)]
pub struct Computed {
    /// The outputs that metrics and callbacks see, `[size, …]` for the targets of the batch.
    pub outputs: Tensor,
    /// What is minimized, a scalar with an autograd graph.
    pub loss: Tensor,
}

/// Computes outputs and loss of a training batch; backward, the callbacks and the update follow.
pub type BatchStepFunction = dyn FnMut(&mut BatchStep<'_>) -> Result<Computed, BoxError>;

impl<'a> BatchStep<'a> {
    /// The samples, `[size, …sample shape]`, on the model's device.
    pub fn inputs(&self) -> &'a Tensor {
        self.samples.inputs
    }

    /// The input of this name, for data with several.
    pub fn input(&self, name: &str) -> Option<&'a Tensor> {
        let position = self.around.learner().input_names.iter().position(|input| input == name)?;
        match position.checked_sub(1) {
            None => Some(self.samples.inputs),
            Some(index) => self.samples.others.get(index),
        }
    }

    /// Their targets, as the data has them.
    pub fn targets(&self) -> &'a Tensor {
        self.samples.targets
    }

    /// Where the run is.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The model.
    pub fn network(&self) -> &Network {
        &self.around.learner().network
    }

    /// The model's outputs for `inputs` in training mode, f32 with an autograd graph; where it takes other inputs, too, for
    /// those of the batch. The activations that callbacks tapped are those of the last call.
    ///
    /// # Errors
    ///
    /// When the model cannot compute them.
    pub fn forward(&mut self, inputs: &Tensor) -> Result<Tensor, TrainError> {
        let batch = Samples { inputs, ..self.samples };
        let Forwarded { output, values, .. } = self.around.learner().training_outputs(batch.of_model(), self.nodes)?;
        self.tapped = values;
        Ok(output)
    }

    /// The run's loss, a scalar: the run file's, or the program's own.
    ///
    /// # Errors
    ///
    /// Outputs and targets that do not fit the loss.
    pub fn loss(&self, outputs: &Tensor, targets: &Tensor) -> Result<Tensor, TrainError> {
        self.around.learner().loss.compute(outputs, targets)
    }

    /// Sends the callbacks a `custom` event, with the author `program`. Those on the training thread have handled it when
    /// this returns. What one of them fails with is its own: the run's `on_error` decides, after this step's loss is
    /// computed. Nobody gets events of steps that a callback trains apart from the run.
    ///
    /// # Errors
    ///
    /// When libtorch cannot go back to the run's precision, in which callbacks do not compute.
    pub fn emit(&mut self, name: &str, payload: impl AsRef<[u8]>) -> Result<(), TrainError> {
        self.emit_with(name, payload, &[])
    }

    /// The same with tensors, such as what the step made of its batch. They are lent to the callbacks, not copied; those in
    /// the background that say that they need them get copies. Without a listener nothing is done.
    ///
    /// # Errors
    ///
    /// As [`Self::emit`], and a tensor of a type or on a device that callbacks do not know.
    pub fn emit_with(
        &mut self,
        name: &str,
        payload: impl AsRef<[u8]>,
        tensors: &[(&str, &Tensor)],
    ) -> Result<(), TrainError> {
        let Around::Run(session, callbacks) = &mut self.around else { return Ok(()) };
        // Callbacks compute without it, and not with the casts of weights that it keeps. It ends also where nobody listens,
        // so that a listener changes no bit of the step.
        let in_precision = self.autocast.take().is_some();
        if callbacks.wants(EventKind::CUSTOM) {
            let loans: Result<Vec<_>, _> = tensors
                .iter()
                .map(|(name, tensor)| loan((*name).to_owned(), tensor.f_detach().map_err(TrainError::from)?))
                .collect();
            let loans = loans.map_err(|source| TrainError::EventTensors { event: name.to_owned(), source })?;
            callbacks.send_custom(PROGRAM, name, payload.as_ref(), loans, &mut **session);
        }
        if in_precision {
            self.autocast = session.learner.autocast()?;
        }
        Ok(())
    }
}

/// Outputs and loss as the program computes them, and the values of the tapped nodes.
pub(super) fn run_batch_step(
    step: &RefCell<Box<BatchStepFunction>>,
    around: Around<'_>,
    samples: Samples<'_>,
    nodes: &[usize],
) -> Result<Forward, TrainError> {
    let learner = around.learner();
    let (autocast, position) = (learner.autocast()?, learner.step.position);
    let mut batch = BatchStep { around, autocast, position, samples, nodes, tapped: Vec::new() };
    let Computed { outputs, loss } =
        contained(|| (step.borrow_mut())(&mut batch)).map_err(|message| failed("batch step", message))?;
    let loss = as_loss("batch step", loss)?;
    if !loss.requires_grad() {
        return Err(failed("batch step", "its loss has no autograd graph, so it cannot be trained on"));
    }
    // Detached, since the program may hold the same tensor.
    Ok(Forward { outputs: as_float(outputs.f_detach()?)?, loss, tapped: batch.tapped })
}

impl Learner {
    /// Outputs in training mode, in f32 with their graph, and the values of `nodes` without.
    pub(super) fn training_outputs(&self, batch: ModelBatch<'_>, nodes: &[usize]) -> Result<Forwarded, TrainError> {
        let Forwarded { output, loss, values } = self.network.compute(batch, Mode::Train, nodes)?;
        let detached = |value: Tensor| widened(value.f_detach()?);
        let values = values.into_iter().map(detached).collect::<Result<_, _>>()?;
        Ok(Forwarded { output: as_float(output)?, loss, values })
    }

    /// The mean loss of a batch: the model's `own`, if it gives one, or else that of the outputs.
    pub(super) fn loss_of(
        &self,
        outputs: &Tensor,
        own: Option<Tensor>,
        targets: &Tensor,
    ) -> Result<Tensor, TrainError> {
        match own {
            Some(own) if own.dim() == 0 => as_float(own),
            Some(own) => Err(ModelError::Loss { found: own.size() }.into()),
            None => self.loss.compute(outputs, targets),
        }
    }
}

/// The loss and what callbacks see are f32 in every precision.
pub(super) fn as_float(tensor: Tensor) -> Result<Tensor, TrainError> {
    if tensor.kind() == Kind::Float { Ok(tensor) } else { Ok(tensor.f_to_kind(Kind::Float)?) }
}

/// A value inside the model, in f32 where autocast made it shorter; indices stay integers.
pub(super) fn widened(value: Tensor) -> Result<Tensor, TrainError> {
    if matches!(value.kind(), Kind::BFloat16 | Kind::Half) { as_float(value) } else { Ok(value) }
}

/// A program's loss, which must be a scalar.
fn as_loss(part: &'static str, loss: Tensor) -> Result<Tensor, TrainError> {
    match loss.size().as_slice() {
        [] => as_float(loss),
        shape => Err(failed(part, format!("its loss is of shape {shape:?}, not a scalar"))),
    }
}

fn failed(part: &'static str, message: impl Into<String>) -> TrainError {
    TrainError::Program { part, message: message.into() }
}
