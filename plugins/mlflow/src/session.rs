//! The run on the server: create or continue it, log metrics, upload artifacts, end it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value as Json, json};

use crate::client::{Client, Failure};
use crate::model::Model;
use crate::names;

/// The most entries of one request, by the API's limits for `runs/log-batch`.
pub(crate) const METRICS_AT_ONCE: usize = 1000;
const PARAMETERS_AT_ONCE: usize = 100;

/// The name of the run, and its description when it is created.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) experiment: String,
    pub(crate) run_name: String,
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) tags: BTreeMap<String, String>,
}

/// A metric's value.
#[derive(Clone)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) step: u64,
    /// Milliseconds since 1970.
    pub(crate) timestamp: u64,
}

/// A run on the server.
pub(crate) struct Session {
    pub(crate) run_id: String,
    artifact_uri: String,
    /// The last step that the server had of each metric when the run was continued. Points cannot be removed, and
    /// sending those up to that step again would double them.
    had: BTreeMap<String, u64>,
}

impl Session {
    /// Continues the run of a resumed one, or creates one.
    pub(crate) fn begin(client: &Client, subject: &Subject, run_id: Option<&str>) -> Result<Self, Failure> {
        match run_id.map(|run_id| Self::take_up(client, run_id)) {
            Some(Err(Failure::Missing(reason))) => {
                plugin_api::tracing::warn!(
                    "the MLflow run to continue no longer exists, so a new one is created: {reason}"
                );
                Self::make(client, subject)
            }
            Some(taken_up) => taken_up,
            None => Self::make(client, subject),
        }
    }

    fn take_up(client: &Client, run_id: &str) -> Result<Self, Failure> {
        let found = client.get("runs/get", ("run_id", run_id))?;
        let metrics = found["run"]["data"]["metrics"].as_array().into_iter().flatten();
        let last = metrics.filter_map(|metric| Some((metric["key"].as_str()?.to_owned(), whole(&metric["step"])?)));
        let had = last.collect();
        client.post("runs/update", &json!({ "run_id": run_id, "status": "RUNNING" }))?;
        let artifact_uri = text(&found["run"]["info"]["artifact_uri"]);
        Ok(Self { run_id: run_id.to_owned(), artifact_uri, had })
    }

    fn make(client: &Client, subject: &Subject) -> Result<Self, Failure> {
        let experiment = experiment(client, &subject.experiment)?;
        let tags: Vec<Json> = subject.tags.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let made = client.post(
            "runs/create",
            &json!({ "experiment_id": experiment, "run_name": subject.run_name, "start_time": now(), "tags": tags }),
        )?;
        let info = &made["run"]["info"];
        let (run_id, artifact_uri) = (text(&info["run_id"]), text(&info["artifact_uri"]));
        if run_id.is_empty() {
            return Err(Failure::Refused("runs/create: the answer names no run; is it an MLflow server?".to_owned()));
        }
        let made = Self { run_id, artifact_uri, had: BTreeMap::new() };
        made.parameters(client, &subject.parameters)?;
        Ok(made)
    }

    /// Sends parameters; the value of one that the run already has cannot be changed.
    pub(crate) fn parameters(&self, client: &Client, parameters: &BTreeMap<String, String>) -> Result<(), Failure> {
        let parameters: Vec<Json> =
            parameters.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        for params in parameters.chunks(PARAMETERS_AT_ONCE) {
            client.post("runs/log-batch", &json!({ "run_id": self.run_id, "params": params }))?;
        }
        Ok(())
    }

    /// Sends at most [`METRICS_AT_ONCE`] metrics.
    pub(crate) fn log(&self, client: &Client, metrics: &[Metric]) -> Result<(), Failure> {
        let new = metrics.iter().filter(|metric| self.had.get(&metric.name).is_none_or(|last| metric.step > *last));
        let metrics: Vec<Json> = new
            .map(|metric| {
                let Metric { name, value, step, timestamp } = metric;
                json!({ "key": name, "value": names::number(*value), "step": step, "timestamp": timestamp })
            })
            .collect();
        if metrics.is_empty() {
            return Ok(());
        }
        client.post("runs/log-batch", &json!({ "run_id": self.run_id, "metrics": metrics })).map(drop)
    }

    /// Uploads a file under a name, if the server accepts files.
    pub(crate) fn upload(&self, client: &Client, name: &str, file: &Path) -> Result<(), Failure> {
        client.upload(&self.path_of(name)?, file)
    }

    /// Uploads an ONNX file as a model, and registers it as a further version of the model `name`.
    pub(crate) fn register(&self, client: &Client, name: &str, model: &Model) -> Result<(), Failure> {
        let unreadable = |error| Failure::Refused(format!("cannot register the model `{}`: {error}", model.folder));
        for (artifact, file) in model.files().map_err(unreadable)? {
            self.upload(client, &artifact, &file)?;
        }
        let (path, description) = (format!("{}/MLmodel", model.folder), model.description(&self.run_id));
        let description = format!("{:#}\n", description.map_err(unreadable)?);
        client.put(&self.path_of(&path)?, &path, description.as_str())?;
        match client.get("registered-models/get", ("name", name)) {
            Err(Failure::Missing(_)) => client.post("registered-models/create", &json!({ "name": name }))?,
            found => found?,
        };
        let source = format!("{}/{}", self.artifact_uri.trim_end_matches('/'), model.folder);
        let version = json!({ "name": name, "source": source, "run_id": self.run_id });
        client.post("model-versions/create", &version).map(drop)
    }

    /// The path of an artifact, if the server accepts files.
    fn path_of(&self, name: &str) -> Result<String, Failure> {
        let Some(root) = self.artifact_uri.strip_prefix("mlflow-artifacts:") else {
            return Err(Failure::Refused(format!(
                "the server keeps the artifacts at `{}` and accepts no files itself: start it with `--serve-artifacts`",
                // A store's address may have a key after the question mark.
                self.artifact_uri.split('?').next().unwrap_or_default()
            )));
        };
        Ok(format!("{}/{name}", root.trim_matches('/')))
    }

    /// Says how the run ended: `FINISHED`, `FAILED` or `KILLED`.
    pub(crate) fn end(&self, client: &Client, status: &str) -> Result<(), Failure> {
        let body = json!({ "run_id": self.run_id, "status": status, "end_time": now() });
        client.post("runs/update", &body).map(drop)
    }
}

/// The identifier of an experiment, which is created if it does not exist.
fn experiment(client: &Client, name: &str) -> Result<String, Failure> {
    match client.get("experiments/get-by-name", ("experiment_name", name)) {
        Ok(found) => Ok(text(&found["experiment"]["experiment_id"])),
        Err(Failure::Missing(_)) => {
            let made = client.post("experiments/create", &json!({ "name": name }))?;
            Ok(text(&made["experiment_id"]))
        }
        Err(failure) => Err(failure),
    }
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A whole number, which protobuf's JSON may write as a string.
fn whole(value: &Json) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).or(value.is_null().then_some(0))
}

/// Milliseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
