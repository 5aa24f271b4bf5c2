//! The facts about a run: what a page shows before the first value arrives.

use std::collections::BTreeMap;

use plugin_api::graph::Graph;
use plugin_api::protocol::TensorSet;
use plugin_api::{ErrorKind, Result, Run};
use serde::Serialize;
use serde_json::Value;

/// The most characters of a setting's value; the layers of a model have their own table.
const LONGEST_VALUE: usize = 300;

/// The facts about a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// The run's name.
    pub name: String,
    /// The run folder.
    pub folder: String,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// The host's version.
    pub host_version: String,
    /// Epochs planned; 0 if the run is planned in steps.
    pub epochs: u64,
    /// Steps of one epoch.
    pub steps_per_epoch: u64,
    /// Planned steps in all.
    pub total_steps: u64,
    /// The checkpoint that the run resumed from.
    pub resumed_from: Option<String>,
    /// How the last process of the run ended, if it did not end by itself.
    pub previous_end: Option<String>,
    /// The samples of each split.
    pub splits: BTreeMap<String, u64>,
    /// The model.
    pub model: Model,
    /// The resolved run file, one line per key.
    pub settings: Vec<(String, String)>,
}

/// The model as a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Model {
    /// Whether its rows are nodes of a graph; otherwise they are the parameters of a model without one.
    pub is_graph: bool,
    /// The number of trained values.
    pub parameters: u64,
    /// One row per node, or per parameter.
    pub layers: Vec<Layer>,
}

/// A row of the model's table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// The node's or the parameter's name.
    pub name: String,
    /// Its operator, empty for a parameter.
    pub operator: String,
    /// The names of its inputs, empty for a parameter.
    pub reads: String,
    /// Its shape, `[32, 8, 8]`.
    pub shape: String,
    /// The number of its trained values.
    pub parameters: u64,
}

impl Facts {
    /// Reads them from the run; works from `setup` on.
    ///
    /// # Errors
    ///
    /// Errors of the services.
    pub fn read(run: &Run<'_>) -> Result<Self> {
        let info = run.info()?;
        Ok(Self {
            name: info.name,
            folder: info.folder,
            device: info.device,
            host_version: info.host_version,
            epochs: info.epochs,
            steps_per_epoch: info.steps_per_epoch,
            total_steps: info.total_steps,
            resumed_from: info.resumed_from,
            previous_end: info.previous_end,
            splits: info.data.splits,
            model: Model::read(run)?,
            settings: settings(&info.run_file),
        })
    }
}

impl Model {
    fn read(run: &Run<'_>) -> Result<Self> {
        match run.graph() {
            Ok(graph) => Ok(Self::of_graph(&graph)),
            // The model of a program, or a TorchScript module.
            Err(error) if error.kind() == ErrorKind::NoSuchName => Self::of_parameters(run),
            // An operator that this SDK does not know must not hide everything else.
            Err(_) => Self::of_parameters(run),
        }
    }

    fn of_graph(graph: &Graph) -> Self {
        let layers: Vec<Layer> = graph
            .nodes
            .iter()
            .map(|node| Layer {
                name: node.name.clone(),
                operator: node.op.name().to_owned(),
                reads: node.inputs.join(", "),
                shape: format!("{:?}", node.shape),
                parameters: node.parameters.iter().map(|tensor| elements(&tensor.shape)).sum(),
            })
            .collect();
        // A tensor that nodes share counts once.
        let tensors: BTreeMap<&str, u64> = graph
            .nodes
            .iter()
            .flat_map(|node| &node.parameters)
            .map(|tensor| (tensor.name.as_str(), elements(&tensor.shape)))
            .collect();
        Self { is_graph: true, parameters: tensors.values().sum(), layers }
    }

    fn of_parameters(run: &Run<'_>) -> Result<Self> {
        let layers: Vec<Layer> = run
            .list(TensorSet::Parameters)?
            .into_iter()
            .map(|tensor| Layer {
                parameters: elements(&tensor.shape),
                shape: format!("{:?}", tensor.shape),
                name: tensor.name,
                operator: String::new(),
                reads: String::new(),
            })
            .collect();
        Ok(Self { is_graph: false, parameters: layers.iter().map(|layer| layer.parameters).sum(), layers })
    }
}

fn elements(shape: &[i64]) -> u64 {
    shape.iter().map(|&size| u64::try_from(size).unwrap_or(0)).product()
}

/// The run file as lines: `train.optimizer.learning_rate`, `0.003`. Plugins and layers are omitted, since they are
/// shown elsewhere.
fn settings(run_file: &str) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    if let Ok(Value::Object(sections)) = serde_json::from_str(run_file) {
        for (section, value) in sections {
            if section != "plugins" {
                flatten(&section, &value, &mut lines);
            }
        }
    }
    lines
}

fn flatten(path: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Null => {}
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, lines)),
        Value::Array(items) if path == "model.layers" || items.is_empty() => {}
        Value::String(text) => lines.push((path.to_owned(), shortened(text))),
        other => lines.push((path.to_owned(), shortened(&other.to_string()))),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_file_is_a_list_of_settings() {
        let run_file = r#"{
            "run": { "name": "digits", "seed": 42, "out": null },
            "model": { "layers": [{ "type": "relu" }] },
            "train": { "optimizer": { "type": "adamw", "betas": [0.9, 0.999] }, "metrics": [] },
            "plugins": [{ "kind": "report" }]
        }"#;
        let found = settings(run_file);
        let lines: Vec<(&str, &str)> = found.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut sorted = lines.clone();
        sorted.sort_unstable();
        assert_eq!(
            sorted,
            [
                ("run.name", "digits"),
                ("run.seed", "42"),
                ("train.optimizer.betas", "[0.9,0.999]"),
                ("train.optimizer.type", "adamw"),
            ]
        );
        assert!(settings("no JSON").is_empty());
    }

    #[test]
    fn a_tensor_of_two_nodes_counts_once() {
        let node = |name: &str, inputs: Value, op: Value| {
            let parameters = serde_json::json!([{ "name": "wte.weight", "shape": [5, 4], "dtype": "f32" }]);
            serde_json::json!({
                "name": name, "op": op, "inputs": inputs, "shape": [3, 4], "parameters": parameters, "buffers": []
            })
        };
        let embedding = serde_json::json!({ "type": "embedding", "num_embeddings": 5, "embedding_dim": 4 });
        let linear = serde_json::json!({ "type": "linear", "in_features": 4, "out_features": 5, "bias": false });
        let graph = serde_json::json!({
            "inputs": [{ "name": "tokens", "shape": [3], "dtype": "i64" }],
            "nodes": [
                node("wte", serde_json::json!(["tokens"]), embedding),
                node("head", serde_json::json!(["wte"]), linear),
            ],
            "output": "head",
        });
        let model = Model::of_graph(&serde_json::from_value(graph).unwrap());
        assert_eq!((model.parameters, model.layers[0].parameters, model.layers[1].parameters), (20, 20, 20));
    }

    #[test]
    fn a_long_value_is_cut_between_characters() {
        let long = "ж".repeat(LONGEST_VALUE + 1);
        assert_eq!(shortened(&long), format!("{}…", "ж".repeat(LONGEST_VALUE)));
        assert_eq!(shortened("short"), "short");
    }
}
