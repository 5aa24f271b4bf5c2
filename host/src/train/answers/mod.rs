//! The training's answers to callbacks: one match over the services, and a file for each family of them.
//!
//! Each answer borrows the part of the session that it needs. The table of services has already decided whether a call
//! is permitted.

mod hyper_parameters;
mod metrics;
mod model;
mod predictor;
mod snapshot;
mod splits;
mod taps;
mod tensors;
mod weights;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use plugin_api::abi::TensorTable;
use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::{Control, ParameterGroup, TensorSet};
use plugin_api::services::{no_batch, typed};
use predictor::known_split;

use super::changes::Change;
use super::checkpointing::Copying;
use super::error::TrainError;
use super::kept::Moment;
use super::learner::Learner;
use super::session::Session;
use crate::expression::Surroundings;
use crate::history::{HistoryError, HistoryView, LiveMetrics, Metric, Position};
use crate::services::{self, Call, Reply, ServiceError, Services, SharedTensor, Snapshot, SnapshotNeeds};
use crate::torch::values;

pub(super) use tensors::loan;

impl Services for Session {
    fn answer(&mut self, call: &Call<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        match call.service {
            ServiceKind::METRIC_PUT => {
                let put = call.request(typed::METRIC_PUT)?;
                self.measured.put(self.progress.position, &put.name, put.value);
                Ok(())
            }
            ServiceKind::METRIC => {
                let name = call.request(typed::METRIC)?.name;
                reply.answer(typed::METRIC, &self.present_metric(&name)?)
            }
            ServiceKind::METRIC_POINTS => {
                let (running, position) = (self.running_metrics()?, self.progress.position);
                let running = running.iter().map(|(name, value)| (name.as_str(), Metric { value: *value, position }));
                services::metric_points(self.measured.latest.iter().chain(running), reply)
            }
            ServiceKind::METRICS => {
                let running = self.running_metrics()?;
                // Running values replace the latest ones, and nothing is copied: some callbacks ask at each step.
                let latest = self.measured.latest.iter().map(|(name, metric)| (name, metric.value));
                let present = latest.chain(running.iter().map(|(name, value)| (name.as_str(), *value)));
                reply.value(&present.collect::<BTreeMap<_, _>>())
            }
            ServiceKind::HISTORY_NAMES
            | ServiceKind::HISTORY_SERIES
            | ServiceKind::HISTORY_LATEST
            | ServiceKind::HISTORY_ARRAYS
            | ServiceKind::LATEST_ARRAYS => {
                services::history(&HistoryView::now(Arc::clone(&self.measured.history)), call, reply)
            }
            ServiceKind::EVALUATE => {
                let request = call.request(typed::EVALUATE)?;
                let expression = self.expressions.get(&request)?;
                for name in expression.metrics() {
                    let known = self.measured.latest.get(name);
                    if let Err(error @ HistoryError::UnknownName { .. }) = known
                        && self.metric(name).is_none()
                    {
                        return Err(error.into());
                    }
                }
                services::evaluate(&expression, self, &request.variables, reply)
            }
            ServiceKind::WEIGHTS_INFO => {
                let history = HistoryView::now(Arc::clone(&self.measured.history));
                services::weights_info(&history, self.kept.origin(self.progress.position), reply)
            }
            ServiceKind::HISTORY_REMOVE => {
                self.measured.remove(&call.request(typed::HISTORY_REMOVE)?.name);
                Ok(())
            }
            ServiceKind::ARRAY_PUT => {
                let put = call.request(typed::ARRAY_PUT)?;
                let shape = put.shape.iter().map(|&size| size as usize).collect();
                let mut history = self.measured.history.write().unwrap_or_else(PoisonError::into_inner);
                Ok(history.put_array(&put.name, self.progress.position, shape, put.values).map(drop)?)
            }
            ServiceKind::HYPER_PARAMETERS => {
                reply.answer(typed::HYPER_PARAMETERS, &hyper_parameters::groups(&self.learner))
            }
            ServiceKind::HYPER_PARAMETER_SET => {
                hyper_parameters::set(&mut self.learner, call.instance, &call.request(typed::HYPER_PARAMETER_SET)?)
            }
            ServiceKind::CONTROL => {
                let request = call.request(typed::CONTROL)?;
                match request.action {
                    Control::SkipUpdate => self.controls.skip_update = true,
                    action => self.controls.ask(action, call.instance, &request.reason),
                }
                Ok(())
            }
            ServiceKind::LOSS => reply.answer(typed::LOSS, &loss(&self.learner, call.hook)?),
            ServiceKind::TENSOR_LIST => {
                let set = call.request(typed::TENSOR_LIST)?.set;
                let tensors = tensors::of_set(&self.learner, &self.kept, &set, call.hook)?;
                let tensors = tensors::as_read_by(call.exports, &self.learner, tensors, &set, &[])?;
                let list = tensors.iter().map(|(name, tensor)| tensors::info(name, tensor)).collect();
                reply.answer(typed::TENSOR_LIST, &list)
            }
            ServiceKind::TENSOR_READ => {
                let request = call.request(typed::TENSOR_READ)?;
                let tensors = tensors::of_set(&self.learner, &self.kept, &request.set, call.hook)?;
                let tensors = tensors::as_read_by(call.exports, &self.learner, tensors, &request.set, &request.names)?;
                tensors::lend_named(tensors, &request.set, &request.names, reply)
            }
            ServiceKind::TENSOR_WRITE => {
                let request = call.request(typed::TENSOR_WRITE)?;
                let targets = tensors::of_set(&self.learner, &self.kept, &request.set, call.hook)?;
                let change = match &request.set {
                    TensorSet::Batch => {
                        let written = targets.iter().filter(|(name, _)| request.names.contains(name));
                        let written = written.map(|(_, tensor)| tensor);
                        Some(Change::of(call.instance, call.hook, written).map_err(TrainError::from)?)
                    }
                    _ => None,
                };
                tensors::write(&targets, &request, call.tensors)?;
                self.learner.step.changes.extend(change);
                Ok(())
            }
            ServiceKind::TENSOR_TO_HOST => tensors::to_host(call.tensors, reply),
            ServiceKind::WEIGHTS_COPY => {
                let since = self.measured.history.read().unwrap_or_else(PoisonError::into_inner).next_sequence();
                let moment = Moment { position: self.progress.position, since };
                weights::copy(&mut self.learner, &mut self.kept, moment, &call.request(typed::WEIGHTS_COPY)?)
            }
            ServiceKind::TRAINING_STATE_COPY => weights::copy_training_state(
                &mut self.learner,
                &mut self.kept,
                &call.request(typed::TRAINING_STATE_COPY)?,
            ),
            ServiceKind::TAP => taps::add(&mut self.learner, call.request(typed::TAP)?),
            ServiceKind::TRAIN_STEPS => {
                let request = call.request(typed::TRAIN_STEPS)?;
                let epoch = self.progress.position.epoch;
                let several = !self.group.is_single();
                let losses = model::train_apart(&mut self.learner, &mut self.feed, epoch, &request, several)?;
                reply.answer(typed::TRAIN_STEPS, &losses)
            }
            ServiceKind::GRAPH => {
                reply.bytes(self.graph_text()?.as_bytes());
                Ok(())
            }
            ServiceKind::PREDICT => self.predict(&call.request(typed::PREDICT)?, call.tensors, reply),
            ServiceKind::MEASURE => {
                let values = self.measure(&call.request(typed::MEASURE)?)?;
                reply.answer(typed::MEASURE, &values)
            }
            ServiceKind::RECALIBRATE_BATCH_NORM => {
                let request = call.request(typed::RECALIBRATE_BATCH_NORM)?;
                model::recalibrate_batch_norm(&mut self.learner, &self.feed, &request)
            }
            ServiceKind::FREEZE => Ok(self.learner.freeze(&call.request(typed::FREEZE)?, false)?),
            ServiceKind::OPEN_SPLIT => self.open_split(&call.request(typed::OPEN_SPLIT)?),
            ServiceKind::LIMIT_BATCHES => {
                let request = call.request(typed::LIMIT_BATCHES)?;
                known_split(&self.feed.data, &request.split)?;
                match request.batches {
                    Some(0) => Err(no_batch(&request.split).into()),
                    _ => Ok(self.limit_batches(&request)?),
                }
            }
            ServiceKind::BATCH => self.batch(&call.request(typed::BATCH)?, reply),
            ServiceKind::WRITE_CHECKPOINT => {
                let path = self.in_run_folder(&call.request(typed::WRITE_CHECKPOINT)?.path);
                let data = self.collect_checkpoint(Copying::Nothing)?;
                let data = data.ok_or_else(|| ServiceError::NotAllowed("no checkpoint is being taken".to_owned()))?;
                reply.answer(typed::WRITE_CHECKPOINT, &data.write(&path).map_err(TrainError::from)?)
            }
            ServiceKind::PROFILE => {
                let recording = call.request(typed::PROFILE)?.record;
                reply.answer(typed::PROFILE, &self.record(recording)?)
            }
            ServiceKind::QUEUE_CHECKPOINT => {
                let left_out = self.queue_checkpoint(call.request(typed::QUEUE_CHECKPOINT)?)?;
                reply.answer(typed::QUEUE_CHECKPOINT, &left_out)
            }
            ServiceKind::ARTIFACT => {
                let artifact = call.request(typed::ARTIFACT)?;
                self.outputs.artifact(&artifact.kind, &artifact.path);
                Ok(())
            }
            ServiceKind::RUN_INFO => {
                self.look_at_screen();
                services::run_info(&self.info, call, reply)
            }
            ServiceKind::CONSOLE_LINE | ServiceKind::CONSOLE_LINES | ServiceKind::CONSOLE_STATUS => {
                services::console(&*self.outputs.screen(), call, reply)
            }
            #[cfg(feature = "next-minor")]
            ServiceKind::UPTIME => reply.answer(typed::UPTIME, &self.progress.started().elapsed().as_secs_f64()),
            // By the table of services, nothing else arrives here.
            other => Err(ServiceError::Failed(format!("the training does not answer `{}`", other.name()))),
        }
    }

    fn snapshot(&mut self, event: EventKind, needs: &SnapshotNeeds) -> Result<Snapshot, ServiceError> {
        self.take_snapshot(event, needs)
    }

    fn copy_tensor(&mut self, table: &TensorTable) -> Result<SharedTensor, ServiceError> {
        tensors::shared_copy(table)
    }

    fn live_metrics(&self) -> Arc<LiveMetrics> {
        Arc::clone(&self.measured.live)
    }
}

impl Surroundings for Session {
    #[inline]
    fn position(&self) -> Position {
        self.progress.position
    }

    fn metric(&mut self, name: &str) -> Option<f64> {
        self.gate_metric(name)
    }

    fn history(&self) -> HistoryView {
        HistoryView::now(Arc::clone(&self.measured.history))
    }

    fn groups(&self) -> Vec<ParameterGroup> {
        hyper_parameters::groups(&self.learner)
    }
}

impl Session {
    /// The graph as JSON, written once.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoGraph`](crate::model::ModelError::NoGraph) for a model without one.
    pub(super) fn graph_text(&mut self) -> Result<Arc<str>, TrainError> {
        if let Some(text) = &self.graph_text {
            return Ok(Arc::clone(text));
        }
        let json = serde_json::to_string(&**self.learner.network.graph()?)
            .map_err(|error| TrainError::System { action: "cannot write the graph", source: error.into() })?;
        let text: Arc<str> = json.into();
        self.graph_text = Some(Arc::clone(&text));
        Ok(text)
    }
}

/// The loss of the current step or evaluation batch.
fn loss(learner: &Learner, hook: EventKind) -> Result<f64, ServiceError> {
    let loss = match hook {
        EventKind::EVAL_STEP_END => {
            learner.evaluation.as_ref().and_then(|batch| batch.loss.as_ref()).map(values::scalar).transpose()
        }
        _ => learner.step.loss_value(),
    };
    let loss = loss.map_err(|error| ServiceError::Failed(error.to_string()))?;
    loss.ok_or_else(|| ServiceError::NotAllowed("there is no loss yet".to_owned()))
}
