//! What services answer: the test sets it.

use std::collections::BTreeMap;

use super::FakeHost;
use crate::abi::kinds::ServiceKind;
use crate::error::Result;
use crate::protocol::requests::{Evaluate, Measure, Predict};
use crate::protocol::{Evaluated, HookTime, ParameterGroup, Span, TensorSet};
use crate::tensor::Tensor;

/// The answers of the services.
impl FakeHost {
    /// Puts a metric, and a point of the history at the position of the last event.
    pub fn put_metric(&mut self, name: &str, value: f64) {
        self.world.put_metric(name, value);
    }

    /// Puts an array into the history, at the position of the last event.
    pub fn put_array(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        self.world.put_array(name, shape.to_vec(), values.to_vec());
    }

    /// Adds a known metric without a value.
    pub fn know_metric(&mut self, name: &str) {
        self.world.given.metrics.entry(name.to_owned()).or_insert(None);
        self.world.remote.metric(name, self.world.given.metrics[name]);
    }

    /// Adds a tensor to a set, or replaces the one with its name.
    pub fn put_tensor(&mut self, set: TensorSet, tensor: Tensor) {
        let tensors = self.world.given.tensors.entry(set).or_default();
        match tensors.iter_mut().find(|other| other.name() == tensor.name()) {
            Some(other) => *other = tensor,
            None => tensors.push(tensor),
        }
    }

    /// Sets the loss of the current step.
    pub fn set_loss(&mut self, loss: f64) {
        self.world.given.loss = Some(loss);
    }

    /// Sets what the next call of [`Run::profile`](crate::Run::profile) answers.
    pub fn set_profile(&mut self, spans: Vec<Span>) {
        self.world.given.spans = spans;
    }

    /// Sets the cost of the hooks.
    pub fn set_hook_times(&mut self, times: Vec<HookTime>) {
        self.world.given.times = times;
    }

    /// Sets a hyper-parameter, owned by the schedule; creates the parameter group if it does not exist.
    pub fn put_hyper_parameter(&mut self, group: &str, name: &str, value: f64) {
        let groups = &mut self.world.given.groups;
        if !groups.iter().any(|other| other.name == group) {
            let (values, owners) = (BTreeMap::new(), BTreeMap::new());
            groups.push(ParameterGroup { name: group.to_owned(), values, owners });
        }
        for other in groups.iter_mut().filter(|other| other.name == group) {
            other.values.insert(name.to_owned(), value);
        }
    }

    /// Sets a hyper-parameter as the instance `owner` would, which then owns it.
    pub fn own_hyper_parameter(&mut self, owner: &str, group: &str, name: &str, value: f64) {
        self.put_hyper_parameter(group, name, value);
        for other in self.world.given.groups.iter_mut().filter(|other| other.name == group) {
            other.owners.insert(name.to_owned(), owner.to_owned());
        }
    }

    /// Sets the model's graph. Parameters and buffers are then only those that [`Self::put_tensor`] puts.
    pub fn set_graph(&mut self, graph: serde_json::Value) {
        for set in [TensorSet::Parameters, TensorSet::Buffers] {
            self.world.given.tensors.entry(set).or_default();
        }
        self.world.given.graph = Some(graph);
    }

    /// Adds a batch to a split.
    pub fn put_batch(&mut self, split: &str, inputs: Tensor, targets: Tensor) {
        self.put_whole_batch(split, inputs, targets, Vec::new());
    }

    /// Adds a batch with several inputs to a split: the samples, the targets, and the `others`, under their own names.
    pub fn put_whole_batch(&mut self, split: &str, inputs: Tensor, targets: Tensor, others: Vec<Tensor>) {
        let batch = [inputs.named("inputs"), targets.named("targets")].into_iter().chain(others).collect();
        self.world.given.batches.entry(split.to_owned()).or_default().push(batch);
    }

    /// Answers `Run::predict` and `Run::predict_split`: `answer` gets the request and its inputs, and
    /// returns the tensor `outputs` and the requested nodes.
    pub fn answer_predict(&mut self, answer: impl FnMut(&Predict, &[Tensor]) -> Result<Vec<Tensor>> + 'static) {
        self.world.given.predict = Some(Box::new(answer));
    }

    /// Answers `Run::measure`.
    pub fn answer_measure(&mut self, answer: impl FnMut(&Measure) -> Result<BTreeMap<String, f64>> + 'static) {
        self.world.given.measure = Some(Box::new(answer));
    }

    /// Answers `Run::evaluate` and the methods beside it. A fake host does not know the language of expressions.
    pub fn answer_evaluate(&mut self, answer: impl FnMut(&Evaluate) -> Result<Evaluated> + 'static) {
        self.world.given.evaluate = Some(Box::new(answer));
    }

    /// Answers `Run::train_steps`: `answer` gets the number of steps and returns their losses.
    pub fn answer_train_steps(&mut self, answer: impl FnMut(u64) -> Result<Vec<f64>> + 'static) {
        self.world.given.train_steps = Some(Box::new(answer));
    }

    /// Makes a service fail from now on, as a full disk would.
    pub fn fail(&mut self, service: ServiceKind, message: &str) {
        self.world.given.failing.insert(service, message.to_owned());
    }
}
