//! Options of `tensorboard`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_api::protocol::RunInfo;
use plugin_api::{Direction, Error, Result, plugin};

/// Options of `tensorboard`.
#[plugin]
pub struct Options {
    /// The folder of the event files, relative to the run folder; pass it, or any folder above it, to `tensorboard
    /// --logdir`.
    #[schemars(extend("format" = "output-folder"))]
    pub log_dir: String,
    /// The number of triggers between two histograms of all weights and gradients; 0 for none. The run's `when` decides
    /// about triggers: by default after each epoch.
    pub every: u64,
    /// Height, width and channels (1, 3 or 4) to which samples of the evaluated split are resized, to be shown with the
    /// model's answers; if not given, none are shown.
    pub image_shape: Option<[u32; 3]>,
    /// How many of them are shown, the first of the split.
    #[schemars(range(min = 1, max = 1000))]
    pub images: u64,
    /// The number of samples of the evaluated split whose features go to the projector; 0 for none.
    #[schemars(range(max = 100_000))]
    pub embeddings: u64,
    /// The node of the model whose values are the features; if not given, the input of the last node; of a
    /// model with one node, its output.
    pub embedding_node: Option<String>,
    /// A metric and whether lower or higher is better, as in `{ val_loss = "min" }`: histograms, images and embeddings
    /// are written only when it has improved. Scalars are always written.
    #[schemars(extend("propertyNames" = { "format": "metric" }))]
    pub basis: Option<BTreeMap<String, Direction>>,
    /// The most seconds that events wait to be written together; 0 for none.
    #[schemars(range(min = 0.0))]
    pub flush: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            log_dir: "tensorboard".to_owned(),
            every: 1,
            image_shape: None,
            images: 8,
            embeddings: 0,
            embedding_node: None,
            basis: None,
            flush: 10.0,
        }
    }
}

/// The most values of one picture.
const LARGEST_IMAGE: u64 = 1 << 24;

impl Options {
    /// Rules that a JSON Schema cannot express.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(shape) = self.image_shape {
            let values = shape.iter().map(|size| u64::from(*size)).try_fold(1, u64::checked_mul);
            if !matches!(shape[2], 1 | 3 | 4) || !values.is_some_and(|values| (1..=LARGEST_IMAGE).contains(&values)) {
                return Err(Error::new(format!(
                    "`image_shape` must be [height, width, channels] with 1, 3 or 4 channels, not {shape:?}; for example \
                     [64, 64, 3]"
                )));
            }
        }
        if self.basis.as_ref().is_some_and(|basis| basis.len() != 1) {
            return Err(Error::new("`basis` must name one metric, as in `{ val_loss = \"min\" }`"));
        }
        self.flush_every().map(drop)
    }

    pub(crate) fn flush_every(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.flush).map_err(|error| Error::from(error).context("`flush`"))
    }

    /// The folder of this run's event files: named after the run, so that the page of hyper-parameters finds the
    /// metrics below it. It belongs only to this run, even if `log_dir` is a folder of many runs. A trial writes only
    /// to its own folder.
    pub(crate) fn folder(&self, info: &RunInfo) -> PathBuf {
        let run_folder = Path::new(&info.folder);
        let log_dir = Path::new(if info.trial { "tensorboard" } else { self.log_dir.as_str() });
        let folder = run_folder.join(log_dir).join(folder_name(&info.name));
        match run_folder.file_name() {
            Some(name) if log_dir.is_absolute() => folder.join(name),
            _ => folder,
        }
    }
}

/// A name that is valid for a folder.
pub(crate) fn folder_name(name: &str) -> String {
    let safe = |letter: char| if letter.is_alphanumeric() || matches!(letter, '-' | '_') { letter } else { '_' };
    if name.is_empty() { "run".to_owned() } else { name.chars().map(safe).collect() }
}
