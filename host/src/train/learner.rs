//! What learns: the network, its optimizer, the loss, and the current step.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use plugin_api::protocol::Tap;
use plugin_api::protocol::requests::Freeze;
use tch::{Kind, Tensor};

use super::custom::{BatchStepFunction, Loss, as_float, widened};
use super::error::TrainError;
use super::evaluate::EvaluationBatch;
use super::loss_scale::LossScale;
use super::optimizer::{Optimizer, ParameterGroup, learning_rate_names};
use super::precision::Precision;
use super::schedule::Schedule;
use super::step::Step;
use crate::model::{Forwarded, Mode, ModelBatch, Network};
use crate::torch::autocast::{self, Autocast};
use crate::torch::chain::Chain;

/// What learns.
pub(super) struct Learner {
    pub(super) network: Network,
    pub(super) optimizer: Optimizer,
    pub(super) loss: Loss,
    pub(super) schedule: Schedule,
    /// The largest norm of all gradients together; larger ones are scaled down.
    pub(super) clip_gradient_norm: Option<f64>,
    precision: Precision,
    /// In f16.
    pub(super) loss_scale: Option<LossScale>,
    /// Trains without autograd, where the network and the loss are ones that can be; it gives the same bits.
    pub(super) chain: Option<Chain>,
    /// The current training step.
    pub(super) step: Step,
    /// The current batch of an evaluation.
    pub(super) evaluation: Option<EvaluationBatch>,
    pub(super) taps: Vec<PlannedTap>,
    /// The owners of hyper-parameters that the schedule no longer sets, by group and name.
    pub(super) owners: BTreeMap<(String, String), String>,
    /// A program's own way from a batch to its loss.
    pub(super) batch_step: Option<Rc<RefCell<Box<BatchStepFunction>>>>,
    /// The names of the inputs of a batch, that of the samples first.
    pub(super) input_names: Vec<String>,
}

/// A callback's tap, with its node resolved.
pub(super) struct PlannedTap {
    pub(super) tap: Tap,
    /// The node's index, for an activation.
    pub(super) node: Option<usize>,
}

impl Learner {
    pub(super) fn new(
        network: Network,
        optimizer: Optimizer,
        loss: Loss,
        schedule: Schedule,
        clip_gradient_norm: Option<f64>,
        precision: Precision,
        input_names: Vec<String>,
    ) -> Result<Self, TrainError> {
        let chain = match (network.chain(), &loss, precision) {
            (Some(layers), Loss::Options(options), Precision::F32 | Precision::Tf32) => {
                options.of_chain().map(|loss| Chain::new(&layers, loss)).transpose()?
            }
            _ => None,
        };
        Ok(Self {
            chain,
            network,
            optimizer,
            loss,
            schedule,
            clip_gradient_norm,
            precision,
            loss_scale: (precision == Precision::Fp16).then(LossScale::default),
            step: Step::default(),
            evaluation: None,
            taps: Vec::new(),
            owners: BTreeMap::new(),
            batch_step: None,
            input_names,
        })
    }

    /// Freezes parameters, or lets frozen ones learn again; the run file's request comes `first`.
    pub(super) fn freeze(&mut self, request: &Freeze, first: bool) -> Result<(), TrainError> {
        let frozen = self.network.frozen_after(request, first)?;
        Ok(self.network.set_frozen(frozen)?)
    }

    /// A tensor on the model's device.
    pub(super) fn to_device(&self, tensor: Tensor) -> Result<Tensor, TrainError> {
        if tensor.device() == self.network.device() {
            return Ok(tensor);
        }
        Ok(tensor.f_to_device(self.network.device())?)
    }

    /// Tensors on the model's device.
    pub(super) fn all_to_device(&self, tensors: Vec<Tensor>) -> Result<Vec<Tensor>, TrainError> {
        tensors.into_iter().map(|tensor| self.to_device(tensor)).collect()
    }

    /// Sets the run's precision until this is dropped.
    pub(super) fn autocast(&self) -> Result<Option<Autocast>, TrainError> {
        Ok(match self.precision {
            Precision::F32 | Precision::Tf32 => None,
            Precision::Bf16 => Some(autocast::enter(self.network.device(), Kind::BFloat16)?),
            Precision::Fp16 => Some(autocast::enter(self.network.device(), Kind::Half)?),
        })
    }

    /// Goes on with a scale of the loss, if this run scales it.
    pub(super) fn set_loss_scale(&mut self, scale: Option<LossScale>) {
        if let (Some(own), Some(scale)) = (&mut self.loss_scale, scale) {
            *own = scale;
            self.step.forget_loss_gradient();
        }
    }

    /// The nodes whose values are fetched with each step.
    pub(super) fn tapped_nodes(&self) -> Vec<usize> {
        self.taps.iter().filter_map(|tap| tap.node).collect()
    }

    /// Computes outputs, loss and the values of `nodes` for an evaluation's batch.
    pub(super) fn infer(&self, batch: &mut EvaluationBatch, nodes: &[usize]) -> Result<(), TrainError> {
        let _no_gradients = tch::no_grad_guard();
        let computed = self.infer_batch(batch.of_model(Some(&batch.targets)), nodes)?;
        batch.loss = Some(self.loss_of(&computed.output, computed.loss, &batch.targets)?);
        batch.outputs = Some(computed.output);
        batch.tapped = computed.values;
        Ok(())
    }

    /// Computes outputs and the values of `nodes` for a batch, without its loss and its targets, which may mean nothing.
    pub(super) fn infer_outputs(&self, batch: &mut EvaluationBatch, nodes: &[usize]) -> Result<(), TrainError> {
        let computed = self.infer_batch(batch.of_model(None), nodes)?;
        batch.outputs = Some(computed.output);
        batch.tapped = computed.values;
        Ok(())
    }

    /// Outputs (f32) and the values of `nodes` in inference mode, in the run's precision.
    fn infer_batch(&self, batch: ModelBatch<'_>, nodes: &[usize]) -> Result<Forwarded, TrainError> {
        let _autocast = self.autocast()?;
        infer(&self.network, batch, nodes)
    }

    /// The present learning rates by the names of their metrics: `learning_rate`, or `learning_rate_<group>` of each
    /// group.
    pub(super) fn learning_rates(&self) -> Vec<(String, f64)> {
        let groups = self.optimizer.groups();
        let names = learning_rate_names(groups.iter().map(ParameterGroup::name));
        names.into_iter().zip(groups.iter().map(ParameterGroup::learning_rate)).collect()
    }

    /// The loss of the current step: the device has to finish it first.
    pub(super) fn step_loss(&self) -> Option<f64> {
        self.step.loss_value().ok().flatten()
    }

    /// The running values of a step besides its loss: learning rates, the norm of its gradients, its time.
    pub(super) fn running(&self) -> Vec<(String, f64)> {
        let mut values = self.learning_rates();
        values.extend(self.step.gradient_norm.map(|norm| ("gradient_norm".to_owned(), norm)));
        values.extend(self.loss_scale.map(|scale| ("loss_scale".to_owned(), scale.value())));
        values.extend(self.step.last_seconds().map(|seconds| ("step_seconds".to_owned(), seconds)));
        values
    }
}

/// A network's outputs for a batch and the values of nodes in inference, in f32 whatever the precision of the run.
pub(super) fn infer(network: &Network, batch: ModelBatch<'_>, nodes: &[usize]) -> Result<Forwarded, TrainError> {
    let _no_gradients = tch::no_grad_guard();
    let Forwarded { output, loss, values } = network.compute(batch, Mode::Evaluate, nodes)?;
    let values = values.into_iter().map(widened).collect::<Result<_, _>>()?;
    Ok(Forwarded { output: as_float(output)?, loss, values })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tch::Device;

    use super::*;
    use crate::model::{Dtype, ModelOptions};

    fn has_chain(layers: &str, loss: &str, precision: Precision) -> bool {
        let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
        let graph = Arc::new(options.lower(&[8], Dtype::F32).unwrap());
        let network = Network::new(graph, 1, Device::Cpu).unwrap();
        let optimizer = toml::from_str("type = 'sgd'\nlearning_rate = 0.1").unwrap();
        let optimizer = Optimizer::new(&optimizer, network.parameters()).unwrap();
        let loss = Loss::Options(toml::from_str(loss).unwrap());
        let schedule = Schedule::default();
        let learner = Learner::new(network, optimizer, loss, schedule, None, precision, vec!["inputs".to_owned()]);
        learner.unwrap().chain.is_some()
    }

    #[test]
    fn small_networks_train_without_autograd_where_the_loss_is_one_for_that() {
        const MLP: &str = r#"{ type = "linear", out_features = 4 }, { type = "relu" }"#;
        let cross_entropy = "type = 'cross_entropy'";
        assert!(has_chain(MLP, cross_entropy, Precision::F32));
        assert!(has_chain(MLP, "type = 'mse'", Precision::F32));
        assert!(!has_chain(MLP, "type = 'cross_entropy'\nlabel_smoothing = 0.1", Precision::F32));
        assert!(!has_chain(MLP, "type = 'cross_entropy'\nclass_weights = [1, 1, 1, 2]", Precision::F32));
        assert!(!has_chain(MLP, cross_entropy, Precision::Bf16));
        assert!(!has_chain(&format!(r#"{MLP}, {{ type = "dropout", p = 0.5 }}"#), cross_entropy, Precision::F32));
    }
}
