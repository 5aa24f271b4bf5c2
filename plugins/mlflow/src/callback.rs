//! The callback.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use plugin_api::event::{ArtifactPublished, At, Evaluation, Outcome, Position, RecordPut, TrainEnd, Trigger};
use plugin_api::protocol::{HyperParameter, RecordValue, RunInfo};
use plugin_api::{Callback, Creation, Dispatch, Result, Run, plugin, tracing};

use crate::client::Client;
use crate::model::Model;
use crate::note::Note;
use crate::options::{Environment, Options};
use crate::session::{Metric, Subject, now};
use crate::uploader::{Ending, Uploader};
use crate::{artifacts, names};

/// The type of records that become parameters.
const HYPER_PARAMETERS: &str = "hyper_parameters";

/// Logs the run to an MLflow tracking server.
pub struct Mlflow {
    options: Options,
    environment: Environment,
    uri: String,
    timeout: Duration,
    drain: Duration,
    uploader: Option<Uploader>,
    /// Splits other than the training split: their metrics are new only after an evaluation.
    splits: Vec<String>,
    /// The step at which each metric was last sent.
    sent: BTreeMap<String, u64>,
    published: BTreeSet<String>,
    /// The exported files, and those of them that nobody could verify.
    exported: BTreeSet<String>,
    unverified: BTreeSet<String>,
}

#[plugin]
impl Callback for Mlflow {
    const KIND: &'static str = "mlflow";
    const SUMMARY: &'static str = "Logs to an MLflow tracking server: parameters, metrics and artifacts";
    const DISPATCH: Dispatch = Dispatch::Background;
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Self::with_environment(options, Environment::read())
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.splits = info.data.splits.keys().filter(|split| *split != "train").cloned().collect();
        // A trial writes and sends nothing.
        if !info.trial {
            let client = Client::new(self.uri.clone(), &self.environment.credentials, self.timeout);
            self.uploader = Some(Uploader::start(client, self.subject(&info), Note::new(&info.folder, &self.uri))?);
        }
        Ok(())
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let metrics = run.current_metrics(event.global_step)?;
        self.tell(&metrics, event, |split| split == Some(&*event.split));
        Ok(())
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let metrics = run.current_metrics(event.global_step)?;
        self.tell(&metrics, event, |_| true);
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let metrics = run.metrics()?;
        self.tell(&metrics, event, |split| split.is_none());
        Ok(())
    }

    fn on_record(&mut self, run: &mut Run<'_>, event: &RecordPut<'_>) -> Result<()> {
        let Some(uploader) = &self.uploader else { return Ok(()) };
        if let Some(value) = event.scalar {
            uploader.metrics(vec![metric(&event.name, value, event)]);
        } else if event.type_name == HYPER_PARAMETERS
            && let RecordValue::HyperParameters { values } = run.current_record()?.value
        {
            let parameter = |(name, value): (&String, &HyperParameter)| (names::name(name), names::parameter(value));
            uploader.parameters(values.iter().map(parameter).collect());
        }
        Ok(())
    }

    fn on_artifact(&mut self, _: &mut Run<'_>, event: &ArtifactPublished<'_>) -> Result<()> {
        if self.options.artifacts.iter().any(|kind| *kind == event.kind) {
            self.published.insert(event.path.to_string());
        }
        match &*event.kind {
            "export" => drop(self.exported.insert(event.path.to_string())),
            "unverified_export" => drop(self.unverified.insert(event.path.to_string())),
            _ => {}
        }
        Ok(())
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        let Some(uploader) = &self.uploader else { return Ok(()) };
        let status = match event.outcome {
            Outcome::Finished | Outcome::Stopped => "FINISHED",
            Outcome::Interrupted => "KILLED",
            _ => "FAILED",
        };
        let folder = run.info()?.folder;
        let mut files: BTreeMap<_, _> =
            self.published.iter().flat_map(|path| artifacts::files(Path::new(&folder), path)).collect();
        let (register, mut models) = (self.options.register.clone().unwrap_or_default(), Vec::new());
        // A run that failed or was interrupted may go on, and then registers what it ends with.
        if !register.is_empty() && status == "FINISHED" {
            models = self.models(Path::new(&folder), &register);
            // The folder of the model has it.
            files.retain(|_, file| !models.iter().any(|model| model.is_of(file)));
        }
        uploader.end(Ending { status, files, models, register }, self.drain);
        Ok(())
    }
}

impl Mlflow {
    fn with_environment(options: Options, environment: Environment) -> Result<Self> {
        let uri = options.uri(environment.uri.as_deref())?;
        let [timeout, drain] = options.limits()?;
        options.check_register()?;
        Ok(Self {
            options,
            environment,
            uri,
            timeout,
            drain,
            uploader: None,
            splits: Vec::new(),
            sent: BTreeMap::new(),
            published: BTreeSet::new(),
            exported: BTreeSet::new(),
            unverified: BTreeSet::new(),
        })
    }

    /// The exported ONNX files that are registered as versions of a model.
    fn models(&self, folder: &Path, register: &str) -> Vec<Model> {
        let mut models = Vec::new();
        for path in &self.exported {
            let of_path = artifacts::files(folder, path);
            let mut onnx: Vec<_> = of_path.iter().filter_map(|(name, file)| Model::of(name, file)).collect();
            if !onnx.is_empty() && self.unverified.contains(path) {
                tracing::warn!("`{path}` is not registered as a version of `{register}`: it could not be verified");
            } else {
                models.append(&mut onnx);
            }
        }
        if models.is_empty() {
            tracing::warn!("no version of `{register}` is registered: no verified ONNX file was exported");
        }
        models
    }

    fn subject(&self, info: &RunInfo) -> Subject {
        let folder = Path::new(&info.folder).file_name().map(|name| name.to_string_lossy().into_owned());
        let experiment = self.options.experiment.clone().unwrap_or_else(|| info.name.clone());
        let tags = [
            ("host.version", info.host_version.clone()),
            ("host.device", info.device.clone()),
            ("host.folder", info.folder.clone()),
            ("mlflow.source.name", "host".to_owned()),
        ];
        Subject {
            // The server rejects an empty name.
            experiment: if experiment.is_empty() { "Default".to_owned() } else { experiment },
            run_name: self.options.run_name.clone().or(folder).unwrap_or_else(|| info.name.clone()),
            parameters: names::parameters(&serde_json::from_str(&info.run_file).unwrap_or_default()),
            tags: tags.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    /// Sends the metrics of the `wanted` splits (training metrics have no split), each at most once per step.
    fn tell(&mut self, metrics: &BTreeMap<String, f64>, position: &Position, wanted: impl Fn(Option<&str>) -> bool) {
        let Some(uploader) = &self.uploader else { return };
        let mut new = Vec::new();
        for (name, value) in metrics {
            let of = |split: &&String| name.strip_prefix(split.as_str()).is_some_and(|rest| rest.starts_with('_'));
            let split = self.splits.iter().filter(of).max_by_key(|split| split.len());
            if wanted(split.map(String::as_str)) && self.sent.get(name) != Some(&position.global_step) {
                self.sent.insert(name.clone(), position.global_step);
                new.push(metric(name, *value, position));
            }
        }
        uploader.metrics(new);
    }
}

fn metric(name: &str, value: f64, position: &Position) -> Metric {
    Metric { name: names::name(name), value, step: position.global_step, timestamp: now() }
}

#[cfg(test)]
mod tests;
