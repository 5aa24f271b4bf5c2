//! The model's features of samples, for TensorBoard's projector. It reads plain files next to the event files: a
//! configuration, tab-separated numbers and labels (`projector_config.proto`); the latest replace the earlier ones.

use std::fs;
use std::path::Path;

use plugin_api::protocol::RunInfo;
use plugin_api::{Result, Run, TensorView};

use crate::event_file::failed;
use crate::values::{floats, targets};

/// Rows of features, and the labels of their samples.
pub(crate) struct Features {
    /// The node that computes them.
    pub(crate) node: String,
    labels: Vec<String>,
    rows: Vec<Vec<f32>>,
}

impl Features {
    /// Reads the labels of the first `count` samples of a split.
    pub(crate) fn read(run: &Run<'_>, info: &RunInfo, split: &str, count: u64, node: String) -> Result<Self> {
        let count = info.data.splits.get(split).map_or(count, |samples| count.min(*samples));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let mut labels = Vec::new();
        for index in 0.. {
            let [_, answers] = run.batch(split, index)?;
            let found = targets(run, &answers, count - labels.len())?;
            let empty = found.is_empty();
            labels.extend(
                found.iter().map(|target| target.shown(&info.data.target_names).replace(['\t', '\n', '\r'], " ")),
            );
            if empty || labels.len() >= count {
                break;
            }
        }
        Ok(Self { node, labels, rows: Vec::new() })
    }

    /// Stores the values for a batch of an evaluation, counted from 1.
    pub(crate) fn add(&mut self, run: &Run<'_>, batch: u64, values: &TensorView<'_>) -> Result<()> {
        if batch <= 1 {
            self.rows.clear();
        }
        let wanted = self.labels.len() - self.rows.len();
        let count = values.shape().first().map_or(0, |rows| usize::try_from(*rows).unwrap_or(0));
        let values = floats(run, values)?;
        let width = values.len().checked_div(count).unwrap_or(0).max(1);
        self.rows.extend(values.chunks_exact(width).take(wanted).map(<[f32]>::to_vec));
        Ok(())
    }

    /// Writes the files, each under a temporary name first, the configuration last.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let row = |row: &Vec<f32>| row.iter().map(f32::to_string).collect::<Vec<_>>().join("\t") + "\n";
        let tensors: String = self.rows.iter().map(row).collect();
        let labels: String = self.labels.iter().take(self.rows.len()).map(|label| format!("{label}\n")).collect();
        let name = self.node.replace('\\', "\\\\").replace('"', "\\\"");
        let config = format!(
            "embeddings {{\n  tensor_name: \"{name}\"\n  tensor_path: \"projector/tensors.tsv\"\n  metadata_path: \
             \"projector/metadata.tsv\"\n}}\n"
        );
        let below = folder.join("projector");
        fs::create_dir_all(&below).map_err(|error| failed("create the folder", &below, error))?;
        for (path, content) in [
            (below.join("tensors.tsv"), tensors),
            (below.join("metadata.tsv"), labels),
            (folder.join("projector_config.pbtxt"), config),
        ] {
            let partial = path.with_extension("partial");
            let written = fs::write(&partial, content).and_then(|()| fs::rename(&partial, &path));
            written.map_err(|error| failed("write", &path, error))?;
        }
        Ok(())
    }
}
