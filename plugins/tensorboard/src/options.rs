//! Options of `tensorboard`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, plugin};

/// Options of `tensorboard`.
#[plugin]
pub struct Options {
    /// Where the event files go, relative to the run folder; `tensorboard --logdir` takes it, or any folder above it.
    pub log_dir: String,
    /// Histograms of all weights and gradients at every so many triggers; 0: none. When a trigger comes is what the run's
    /// `when` says: after each epoch, without one.
    pub every: u64,
    /// Height, width and channels (1, 3 or 4) to which samples of the evaluated split are resized, to be shown with what
    /// the model says of them; without it, none are shown.
    pub image_shape: Option<[u32; 3]>,
    /// How many of them, the first of the split.
    #[schemars(range(min = 1, max = 1000))]
    pub images: u64,
    /// For how many samples of the evaluated split the projector gets the model's features; 0: none.
    #[schemars(range(max = 100_000))]
    pub embeddings: u64,
    /// The node of the model whose values are the features; without it, what the last node reads.
    pub embedding_node: Option<String>,
    /// A metric and whether less or more of it is better, as in `{ val_loss = "min" }`: histograms, images and embeddings
    /// come only when it has improved. Scalars always come.
    pub basis: Option<BTreeMap<String, Mode>>,
    /// Seconds for which events may wait to be written together; 0: none.
    #[schemars(range(min = 0.0))]
    pub flush: f64,
}

/// Which value of a metric is better.
#[plugin]
#[derive(Copy, PartialEq)]
pub enum Mode {
    /// Less is better.
    Min,
    /// More is better.
    Max,
}

impl Mode {
    /// Whether `value` is better than `other`; NaN never is.
    pub(crate) fn better(self, value: f64, other: f64) -> bool {
        match self {
            Self::Min => value < other,
            Self::Max => value > other,
        }
    }
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

/// The most values of one picture, for a screen and its server.
const LARGEST_IMAGE: u64 = 1 << 24;

impl Options {
    /// What a JSON Schema cannot say.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(shape) = self.image_shape {
            let values = shape.iter().map(|size| u64::from(*size)).try_fold(1, u64::checked_mul);
            if !matches!(shape[2], 1 | 3 | 4) || !values.is_some_and(|values| (1..=LARGEST_IMAGE).contains(&values)) {
                return Err(Error::new(format!(
                    "`image_shape` is [height, width, channels] with 1, 3 or 4 channels, not {shape:?}; for example \
                     [64, 64, 3]"
                )));
            }
        }
        if self.basis.as_ref().is_some_and(|basis| basis.len() != 1) {
            return Err(Error::new("`basis` names one metric, as in `{ val_loss = \"min\" }`"));
        }
        self.flush_every().map(drop)
    }

    pub(crate) fn flush_every(&self) -> Result<Duration> {
        Duration::try_from_secs_f64(self.flush).map_err(|error| Error::from(error).context("`flush`"))
    }

    /// The folder of this run's event files: called as the run, so that the page of hyper-parameters finds the metrics
    /// below it. Where `log_dir` is a folder of many runs, it is this run's alone all the same. A trial leaves nothing
    /// outside of its own.
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

/// A name as that of a folder.
pub(crate) fn folder_name(name: &str) -> String {
    let safe = |letter: char| if letter.is_alphanumeric() || matches!(letter, '-' | '_') { letter } else { '_' };
    if name.is_empty() { "run".to_owned() } else { name.chars().map(safe).collect() }
}
