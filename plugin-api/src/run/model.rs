//! The services of the model and of the data.

use std::collections::BTreeMap;

use super::Run;
use crate::call;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::protocol::requests::{
    BatchRequest, Freeze, LimitBatches, Measure, OpenSplit, Predict, Recalibrate, TrainSteps,
};
use crate::services::{Nothing, typed};
use crate::tensor::TensorView;

impl Run<'_> {
    /// The model's graph.
    ///
    /// # Errors
    ///
    /// When the model has none, of the kind [`NoSuchName`](crate::ErrorKind::NoSuchName): a program brought its
    /// own, or it is a TorchScript module. When it has an operator that this version of the SDK does not know.
    #[doc = service_rule!(GRAPH)]
    pub fn graph(&self) -> Result<Graph> {
        let json = call::answer(self.host, typed::GRAPH, &Nothing, &[])?.bytes;
        serde_json::from_slice(&json).map_err(|error| Error::from(error).context("the model's graph cannot be read"))
    }

    /// Outputs for `inputs` in inference mode, computed and answered in f32 whatever the run's precision; changes no
    /// generator, buffer or mode, and sends no events. The answer is the tensor `outputs`, then the values of `nodes`.
    ///
    /// # Errors
    ///
    /// Inputs of another shape, a model that takes several, unknown nodes, or a callback in the background that does not name `parameters` and `buffers`
    /// in its `NEEDS` for the hook: it is answered with the copies that these make, on the CPU.
    #[doc = service_rule!(PREDICT)]
    pub fn predict(&mut self, inputs: &TensorView<'_>, nodes: &[&str]) -> Result<Vec<TensorView<'_>>> {
        let request = Predict { nodes: nodes.iter().map(|&node| node.to_owned()).collect(), ..Predict::default() };
        let answer = call::answer(self.host, typed::PREDICT, &request, &[*inputs.table()])?;
        Ok(self.views(answer))
    }

    /// The same for a model that takes several inputs, each under its name in the run's batches
    /// ([`TensorSet::Batch`](crate::protocol::TensorSet::Batch)).
    ///
    /// # Errors
    ///
    /// As of [`Self::predict`], and an input that is missing.
    #[doc = service_rule!(PREDICT)]
    pub fn predict_inputs(&mut self, inputs: &[TensorView<'_>], nodes: &[&str]) -> Result<Vec<TensorView<'_>>> {
        let request = Predict { nodes: nodes.iter().map(|&node| node.to_owned()).collect(), ..Predict::default() };
        let tables: Vec<_> = inputs.iter().map(|input| *input.table()).collect();
        let answer = call::answer(self.host, typed::PREDICT, &request, &tables)?;
        Ok(self.views(answer))
    }

    /// The same for the first `batches` batches of a split; the answer has the tensors `outputs`,
    /// `targets` and the values of `nodes`, each with the batches joined.
    ///
    /// # Errors
    ///
    /// An unknown split or node; in the background as [`Self::predict`].
    #[doc = service_rule!(PREDICT)]
    pub fn predict_split(&self, split: &str, batches: u64, nodes: &[&str]) -> Result<Vec<TensorView<'_>>> {
        let request = Predict {
            split: Some(split.to_owned()),
            batches,
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
        };
        let answer = call::answer(self.host, typed::PREDICT, &request, &[])?;
        Ok(self.views(answer))
    }

    /// Metrics over a split, of the model as it is or of a named copy of its weights; sends no
    /// events and puts no metric.
    ///
    /// # Errors
    ///
    /// An unknown split, metric or copy, or a callback in the background.
    #[doc = service_rule!(MEASURE)]
    pub fn measure(&mut self, split: &str, metrics: &[&str], weights: Option<&str>) -> Result<BTreeMap<String, f64>> {
        self.measure_first(split, metrics, weights, None)
    }

    /// The same over the first `batches` batches of the split; `None` takes all.
    ///
    /// # Errors
    ///
    /// As of [`Self::measure`].
    #[doc = service_rule!(MEASURE)]
    pub fn measure_first(
        &mut self,
        split: &str,
        metrics: &[&str],
        weights: Option<&str>,
        batches: Option<u64>,
    ) -> Result<BTreeMap<String, f64>> {
        let request = Measure {
            split: split.to_owned(),
            metrics: metrics.iter().map(|&metric| metric.to_owned()).collect(),
            weights: weights.map(str::to_owned),
            batches,
        };
        self.call(typed::MEASURE, &request)
    }

    /// In `on_setup`: reads other data, a file or a folder in the format of the run's own, with what was learned from that
    /// (normalization, classes, categories), and adds it as the split `name`, which the services for splits then know. `path`
    /// is absolute or relative to the run folder; an option of the format `input-path` is absolute.
    ///
    /// # Errors
    ///
    /// A name that a split has, data of another kind than the run's, and another hook.
    #[doc = service_rule!(OPEN_SPLIT)]
    pub fn open_split(&mut self, name: &str, path: &str) -> Result<()> {
        let (name, path) = (name.to_owned(), path.to_owned());
        self.call(typed::OPEN_SPLIT, &OpenSplit { name, path }).map(drop)
    }

    /// Freezes the parameters that `patterns` fit, in which `*` stands for any text: they get no gradient, and the optimizer
    /// leaves them and its state of them as they are. A batch norm all of whose parameters are frozen normalizes with its
    /// statistics, which stay, unless these are `moving_statistics`; that does not hold for a TorchScript
    /// module and a program's own model. What is
    /// frozen is part of a checkpoint, and frozen again before `load_state`.
    ///
    /// # Errors
    ///
    /// A pattern that fits no parameter, and patterns after which nothing would learn; then nothing changes. A hook in which
    /// weights may not be written.
    #[doc = service_rule!(FREEZE)]
    pub fn freeze(&mut self, patterns: &[String], moving_statistics: bool) -> Result<()> {
        let request = Freeze { patterns: patterns.to_vec(), frozen: true, moving_statistics };
        self.call(typed::FREEZE, &request).map(drop)
    }

    /// Lets the parameters that `patterns` fit learn again. The optimizer goes on with its state of them as it was.
    ///
    /// # Errors
    ///
    /// A pattern that fits no parameter, or one that stays frozen beside the adapters of `[model] lora`; a hook in which weights may
    /// not be written.
    #[doc = service_rule!(FREEZE)]
    pub fn unfreeze(&mut self, patterns: &[String]) -> Result<()> {
        let request = Freeze { patterns: patterns.to_vec(), frozen: false, moving_statistics: false };
        self.call(typed::FREEZE, &request).map(drop)
    }

    /// Takes only the first `batches` of a split in each evaluation, and of `train` in each epoch after the one in progress;
    /// `None` takes all again. The run's length in steps changes with it, and its schedule. An epoch that is resumed within
    /// has its limit; for what follows, a resumed run asks again, in `setup`.
    ///
    /// # Errors
    ///
    /// An unknown split, no batch at all, or a callback in the background.
    #[doc = service_rule!(LIMIT_BATCHES)]
    pub fn limit_batches(&mut self, split: &str, batches: Option<u64>) -> Result<()> {
        let split = split.to_owned();
        self.call(typed::LIMIT_BATCHES, &LimitBatches { split, batches }).map(drop)
    }

    /// Estimates the batch-norm statistics again, as averages over `batches` batches of a split.
    ///
    /// # Errors
    ///
    /// An unknown split, or a hook in which weights may not be written.
    #[doc = service_rule!(RECALIBRATE_BATCH_NORM)]
    pub fn recalibrate_batch_norm(&mut self, split: &str, batches: u64) -> Result<()> {
        let split = split.to_owned();
        self.call(typed::RECALIBRATE_BATCH_NORM, &Recalibrate { split, batches }).map(drop)
    }

    /// A batch of a split, in the split's own order: `inputs`, then `targets`.
    ///
    /// # Errors
    ///
    /// An unknown split, or one with fewer batches.
    #[doc = service_rule!(BATCH)]
    pub fn batch(&self, split: &str, index: u64) -> Result<[TensorView<'_>; 2]> {
        let split = split.to_owned();
        let request = BatchRequest { split, index, all: false };
        let answer = call::answer(self.host, typed::BATCH, &request, &[])?;
        <[TensorView<'_>; 2]>::try_from(self.views(answer)).map_err(|_| Error::new("the host gave no batch"))
    }

    /// The same with every input of a model that takes several, each under its name in the batch: the samples, the targets,
    /// then the others. A host before this method gives the first two.
    ///
    /// # Errors
    ///
    /// As of [`Self::batch`].
    #[doc = service_rule!(BATCH)]
    pub fn whole_batch(&self, split: &str, index: u64) -> Result<Vec<TensorView<'_>>> {
        let request = BatchRequest { split: split.to_owned(), index, all: true };
        let answer = call::answer(self.host, typed::BATCH, &request, &[])?;
        Ok(self.views(answer))
    }

    /// Trains `steps` updates outside the run's history and data order, and gives their losses.
    /// The weights change: take a copy of the training state before and restore it afterwards.
    ///
    /// # Errors
    ///
    /// In a hook in which weights may not be written, or when a step fails.
    #[doc = service_rule!(TRAIN_STEPS)]
    pub fn train_steps(&mut self, steps: u64) -> Result<Vec<f64>> {
        self.train_steps_from(0, steps)
    }

    /// The same from the batch `first` on, counted from 0 over epochs: each call goes through the batches in one order, so
    /// that several go through the data together when each begins where the last one ended.
    ///
    /// # Errors
    ///
    /// As of [`Self::train_steps`].
    #[doc = service_rule!(TRAIN_STEPS)]
    pub fn train_steps_from(&mut self, first: u64, steps: u64) -> Result<Vec<f64>> {
        self.call(typed::TRAIN_STEPS, &TrainSteps { steps, first })
    }
}
