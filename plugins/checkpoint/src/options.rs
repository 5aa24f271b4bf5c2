//! The options of `checkpoint`.

use plugin_api::{Error, Result, plugin};

use crate::retention::KeepBest;

/// Stands for the run's name in `folder`.
const RUN: &str = "{run}";

/// Options of `checkpoint`.
#[plugin]
pub(crate) struct Options {
    /// The folder of the checkpoints, relative to the run folder; `{run}` in it stands for the run's name. Two instances need
    /// two folders, and two runs as well.
    #[schemars(extend("format" = "output-folder"))]
    pub(crate) folder: String,
    /// An alias of `folder`.
    #[schemars(extend("format" = "output-folder"))]
    pub(crate) log_dir: Option<String>,
    /// How many of the newest to keep; 0 keeps all.
    pub(crate) keep_last: usize,
    /// The best ones to keep in addition. The pointer `best` follows the first rule.
    pub(crate) keep_best: Vec<KeepBest>,
    /// Keep one for good each time that this many hours have passed, in addition; 0 keeps none.
    #[schemars(range(min = 0.0))]
    pub(crate) keep_every_hours: f64,
    /// Write on a thread of the host while the training goes on. While one is being written, the newest and the best of those
    /// that come after it wait in memory, and the others are left out. With `false` or `keep_last = 0` each is written, and the
    /// training waits for it.
    pub(crate) background: bool,
    /// Ignore checkpoint requests of others (other plugins).
    pub(crate) only_own_requests: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            folder: "checkpoints".to_owned(),
            log_dir: None,
            keep_last: 3,
            keep_best: vec![KeepBest::default()],
            keep_every_hours: 0.0,
            background: true,
            only_own_requests: false,
        }
    }
}

impl Options {
    /// Refuses what the schema allows and makes no sense; `log_dir` becomes `folder`.
    pub(crate) fn checked(mut self, instance: &str) -> Result<Self> {
        if let Some(folder) = self.log_dir.take() {
            // The host gives an instance with a name of its own a default with that name in it.
            let default = Self::default().folder;
            let is_default = self.folder == default || self.folder == format!("{default}-{instance}");
            if !is_default && self.folder != folder {
                return Err(Error::new("`log_dir` is an alias of `folder`: give only one of them"));
            }
            self.folder = folder;
        }
        if self.folder.is_empty() {
            return Err(Error::new("`folder` must not be empty"));
        }
        if self.folder.replace(RUN, "").contains(['{', '}']) {
            return Err(Error::new(format!("`folder` can have only `{RUN}` in braces, not `{}`", self.folder)));
        }
        if !(self.keep_every_hours.is_finite() && self.keep_every_hours >= 0.0) {
            return Err(Error::new(format!(
                "`keep_every_hours` must be a number of hours, or 0 for none, not {}",
                self.keep_every_hours
            )));
        }
        if let Some(rule) = self.keep_best.iter().find(|rule| rule.top == 0 || rule.metric.is_empty()) {
            return Err(Error::new(format!("`keep_best` needs a metric and a `top` of at least 1, not {rule:?}")));
        }
        if let Some(rule) = self.keep_best.iter().find(|rule| rule.direction().is_none()) {
            let metric = &rule.metric;
            return Err(Error::new(format!(
                "`keep_best`: whether `{metric}` is better lower or higher is not known: set `mode` to `min` or `max`"
            )));
        }
        Ok(self)
    }

    /// The folder of a run.
    pub(crate) fn folder_of(&self, run: &str) -> String {
        self.folder.replace(RUN, run).trim_end_matches('/').to_owned()
    }
}
