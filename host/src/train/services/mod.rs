//! What the loop answers to callbacks: one match over the services, and a file for each family of them.

mod background;
mod copies;
mod model;
mod tensors;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::protocol::{
    ArrayPut, Artifact, Control, ControlRequest, HyperParameterSet, Line, LinesAfter, MetricPut, ParameterGroup, Path,
    RunInfo, StatusLine, Tap, TapOf,
};

use super::session::{PlannedTap, Session};
use crate::dispatch::{Caller, Reply, Request, ServiceError, Services, Snapshot, SnapshotNeeds};
use crate::model::Graph;
use crate::record::RecordError;
use crate::report::Report;
use crate::torch::values;
use crate::train::metrics::MetricValue;

pub(super) use copies::TrainingSnapshot;

impl Services for Session {
    fn call(
        &mut self,
        caller: &Caller<'_>,
        service: ServiceKind,
        request: &Request<'_>,
        reply: &mut Reply<'_>,
    ) -> Result<(), ServiceError> {
        match service {
            ServiceKind::METRIC_PUT => {
                let MetricPut { name, value } = request.decode()?;
                self.put(&name, value);
                Ok(())
            }
            ServiceKind::METRICS => self.metrics_service(request, reply),
            ServiceKind::HISTORY_NAMES | ServiceKind::HISTORY_SERIES | ServiceKind::HISTORY_ARRAYS => {
                let view = crate::record::HistoryView::now(Arc::clone(&self.history));
                background::history(&view, service, request, reply)
            }
            ServiceKind::ARRAY_PUT => {
                let ArrayPut { name, shape, values } = request.decode()?;
                let shape = shape.iter().map(|&size| size as usize).collect();
                let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
                history.put_array(&name, self.position, shape, values).map(drop).map_err(refused)
            }
            ServiceKind::HYPER_PARAMETERS => reply.value(&self.parameter_groups()),
            ServiceKind::HYPER_PARAMETER_SET => self.set_hyper_parameter(caller, &request.decode()?),
            ServiceKind::CONTROL => self.control(caller, &request.decode()?),
            ServiceKind::LOSS => reply.value(&self.loss(caller.hook)?),
            ServiceKind::TENSOR_LIST => self.list_tensors(caller, &request.decode()?, reply),
            ServiceKind::TENSOR_READ => self.read_tensors(caller, &request.decode()?, reply),
            ServiceKind::TENSOR_WRITE => self.write_tensors(caller, &request.decode()?, request.tensors),
            ServiceKind::TENSOR_TO_HOST => tensors::to_host(request.tensors, reply),
            ServiceKind::WEIGHTS_COPY => self.copy_weights(caller, &request.decode()?),
            ServiceKind::SNAPSHOT => self.snapshot_state(caller, &request.decode()?),
            ServiceKind::TAP => self.add_tap(caller, request.decode()?),
            ServiceKind::TRAIN_STEPS => self.train_apart(caller, &request.decode()?, reply),
            ServiceKind::GRAPH => {
                let graph = self.network.graph().ok_or(ServiceError::NoGraph)?;
                reply.bytes(graph_json(graph)?.as_bytes());
                Ok(())
            }
            ServiceKind::PREDICT => self.predict(&request.decode()?, request.tensors, reply),
            ServiceKind::MEASURE => self.measure(&request.decode()?, reply),
            ServiceKind::RECALIBRATE_BATCH_NORM => self.recalibrate_batch_norm(caller, &request.decode()?),
            ServiceKind::BATCH => self.batch_of_split(&request.decode()?, reply),
            ServiceKind::WRITE_CHECKPOINT => self.write_checkpoint(&request.decode()?, reply),
            ServiceKind::ARTIFACT => {
                let Artifact { kind, path } = request.decode()?;
                self.ambience.artifact(&kind, &path);
                Ok(())
            }
            ServiceKind::RUN_INFO => {
                reply.value(&RunInfo { instance: caller.instance.to_owned(), ..self.info.clone() })
            }
            ServiceKind::CONSOLE_LINE => {
                let Line { text } = request.decode()?;
                self.ambience.screen().line(&text);
                Ok(())
            }
            ServiceKind::CONSOLE_LINES => {
                let LinesAfter { after } = request.decode()?;
                reply.value(&self.ambience.screen().lines_after(after))
            }
            ServiceKind::CONSOLE_STATUS => {
                let StatusLine { name, text, progress } = request.decode()?;
                self.ambience.screen().status(&name, &text, progress);
                Ok(())
            }
            #[cfg(feature = "next-minor")]
            ServiceKind::UPTIME => reply.value(&self.clock.started.elapsed().as_secs_f64()),
            ServiceKind(number) => Err(ServiceError::Unknown(number)),
        }
    }

    fn snapshot(&mut self, event: EventKind, needs: &SnapshotNeeds) -> Result<Arc<dyn Snapshot>, ServiceError> {
        self.background_snapshot(event, needs)
    }

    fn reader(&self) -> Arc<dyn Snapshot> {
        Arc::new(background::Latest(Arc::clone(&self.metrics)))
    }

    fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.read().unwrap_or_else(PoisonError::into_inner).value(name)
    }
}

/// A graph as plugins and checkpoints have it.
pub(super) fn graph_json(graph: &Graph) -> Result<String, super::TrainError> {
    serde_json::to_string(graph)
        .map_err(|error| super::TrainError::System { action: "cannot write the graph", source: error.into() })
}

/// A record that is not there or does not fit, as a service says it.
fn refused(error: RecordError) -> ServiceError {
    let hint = error.hint().map_or_else(String::new, |hint| format!("; {hint}"));
    match error {
        RecordError::UnknownName { .. } => ServiceError::NoSuchName(format!("{error}{hint}")),
        _ => ServiceError::Failed(error.to_string()),
    }
}

impl Session {
    /// Brings the metrics that change with each step up to date. They have no history of their own: a three-day run
    /// has millions of steps, and every checkpoint holds the history.
    pub(super) fn show_running_metrics(&mut self) -> Result<(), ServiceError> {
        if self.epoch_is_over {
            return Ok(());
        }
        if let Some(loss) = self.loss_average.value() {
            self.show("train_loss", loss);
        }
        for index in 0..self.accumulators.len() {
            let metric = self.accumulators[index].metric();
            if metric.is_costly() || metric.is_array() {
                continue;
            }
            let value = self.accumulators[index].value().map_err(super::TrainError::from)?;
            if let Some(MetricValue::Number(value)) = value {
                self.show(&format!("train_{}", metric.name()), value);
            }
        }
        for (name, rate) in self.learning_rates() {
            self.show(&name, rate);
        }
        if let Some(norm) = self.step.gradient_norm {
            self.show("gradient_norm", norm);
        }
        if self.clock.steps > 0 {
            self.show("step_seconds", self.step.last_seconds());
        }
        Ok(())
    }

    fn metrics_service(&mut self, request: &Request<'_>, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        self.show_running_metrics()?;
        let metrics = self.metrics.read().unwrap_or_else(PoisonError::into_inner);
        background::metrics(&metrics, request, reply)
    }

    pub(super) fn parameter_groups(&self) -> Vec<ParameterGroup> {
        self.optimizer
            .groups()
            .iter()
            .map(|group| {
                let names = group.hyper_parameter_names().iter();
                let values: BTreeMap<String, f64> =
                    names.filter_map(|name| Some(((*name).to_owned(), group.get(name).ok()?))).collect();
                let owners = values
                    .keys()
                    .filter_map(|name| {
                        let owner = self.owners.get(&(group.name().to_owned(), name.clone()))?;
                        Some((name.clone(), owner.clone()))
                    })
                    .collect();
                ParameterGroup { name: group.name().to_owned(), values, owners }
            })
            .collect()
    }

    fn set_hyper_parameter(&mut self, caller: &Caller<'_>, set: &HyperParameterSet) -> Result<(), ServiceError> {
        let names: Vec<String> = self.optimizer.groups().iter().map(|group| group.name().to_owned()).collect();
        let groups: Vec<String> = match &set.group {
            Some(group) if names.contains(group) => vec![group.clone()],
            Some(group) => {
                return Err(ServiceError::no_such_name("parameter group", group, names.iter().map(String::as_str)));
            }
            None => self
                .optimizer
                .groups()
                .iter()
                .filter(|group| group.hyper_parameter_names().contains(&set.name.as_str()))
                .map(|group| group.name().to_owned())
                .collect(),
        };
        if groups.is_empty() {
            let known: Vec<&str> = self
                .optimizer
                .groups()
                .iter()
                .flat_map(|group| group.hyper_parameter_names().iter().copied())
                .collect();
            return Err(ServiceError::no_such_name("hyper-parameter", &set.name, known));
        }
        for group in groups {
            self.optimizer
                .set(&group, &set.name, set.value)
                .map_err(|error| ServiceError::Failed(error.to_string()))?;
            let owner = caller.instance.to_owned();
            let before = self.owners.insert((group.clone(), set.name.clone()), owner);
            if before.as_deref() != Some(caller.instance) {
                tracing::info!(
                    group,
                    name = set.name,
                    value = set.value,
                    owner = caller.instance,
                    "hyper-parameter taken over"
                );
            }
        }
        Ok(())
    }

    fn control(&mut self, caller: &Caller<'_>, request: &ControlRequest) -> Result<(), ServiceError> {
        if request.action == Control::SkipUpdate {
            if caller.hook != EventKind::GRADIENTS {
                return Err(ServiceError::NotAllowed("an update is skipped in `gradients`".to_owned()));
            }
            self.controls.skip_update = true;
            return Ok(());
        }
        self.controls.ask(request.action, caller.instance, &request.reason);
        Ok(())
    }

    fn loss(&self, hook: EventKind) -> Result<f64, ServiceError> {
        let loss = match hook {
            EventKind::EVAL_STEP_END => self.evaluation.as_ref().and_then(|batch| batch.loss.as_ref()),
            EventKind::GRADIENTS | EventKind::STEP_END | EventKind::TRIGGER => self.step.loss.as_ref(),
            _ => None,
        };
        let loss = loss.ok_or_else(|| {
            ServiceError::NotAllowed("there is a loss in `gradients`, `step_end` and `eval_step_end`".to_owned())
        })?;
        values::scalar(loss).map_err(|error| ServiceError::Failed(error.to_string()))
    }

    fn add_tap(&mut self, caller: &Caller<'_>, tap: Tap) -> Result<(), ServiceError> {
        if caller.hook != EventKind::SETUP {
            return Err(ServiceError::NotAllowed("taps are asked for in `setup`".to_owned()));
        }
        let node = match tap.of {
            TapOf::Activation => {
                let graph = self.network.graph().ok_or(ServiceError::NoGraph)?;
                let names = graph.nodes().iter().map(|node| node.name.as_str());
                let index = graph.nodes().iter().position(|node| node.name == tap.node);
                Some(index.ok_or_else(|| ServiceError::no_such_name("node", &tap.node, names))?)
            }
            TapOf::Gradient => {
                let mut names = self.network.parameters().iter().map(|parameter| parameter.name.as_str());
                if !names.clone().any(|name| name == tap.node) {
                    return Err(ServiceError::no_such_name("parameter", &tap.node, &mut names));
                }
                None
            }
        };
        match self.taps.iter().find(|planned| planned.tap.name == tap.name) {
            // Two callbacks that want the same value share it.
            Some(planned) if planned.tap == tap => Ok(()),
            Some(_) => Err(ServiceError::Failed(format!("there is another tap of the name `{}`", tap.name))),
            None => {
                self.taps.push(PlannedTap { tap, node });
                Ok(())
            }
        }
    }

    /// The graph as JSON, if the model is one, written once.
    pub(super) fn graph_text(&mut self) -> Result<Option<Arc<str>>, super::TrainError> {
        if let (None, Some(graph)) = (&self.graph_text, self.network.graph()) {
            self.graph_text = Some(graph_json(graph)?.into());
        }
        Ok(self.graph_text.clone())
    }

    fn write_checkpoint(&mut self, request: &Path, reply: &mut Reply<'_>) -> Result<(), ServiceError> {
        let data = self.collect_checkpoint(false)?.ok_or_else(background::only_in_checkpoint)?;
        let path = self.in_run_folder(&request.path);
        let written = data.write(&path).map_err(super::TrainError::from)?;
        reply.value(&written)
    }

    /// Refuses to change weights where a step or an evaluation batch is under way.
    fn weights_may_change(&self, caller: &Caller<'_>) -> Result<(), ServiceError> {
        let under_way =
            [EventKind::STEP_START, EventKind::GRADIENTS, EventKind::EVAL_STEP_START, EventKind::EVAL_STEP_END];
        if under_way.contains(&caller.hook) {
            return Err(ServiceError::NotAllowed(format!(
                "weights do not change in `{}`: a step is under way",
                caller.hook.name()
            )));
        }
        Ok(())
    }
}
