//! The files that a run has published: checkpoints, exports and others.

use plugin_api::event::ArtifactPublished;
use serde::{Deserialize, Serialize};

/// The most files that are shown, the newest ones.
const MOST: usize = 100;

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `best_checkpoint`, `last_checkpoint`, `export`, or a kind of the plugin's own.
    pub kind: String,
    /// Its path, relative to the run folder or absolute.
    pub path: String,
    /// The epoch of its publication.
    pub epoch: u64,
    /// The global step of its publication.
    pub step: u64,
}

/// The published files, each path once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Artifacts(Vec<Artifact>);

impl Artifacts {
    /// Adds a published file. Only the latest checkpoint of its kind counts: the host moves the pointers `best` and
    /// `last`.
    pub fn add(&mut self, event: &ArtifactPublished<'_>) {
        let artifact = Artifact {
            kind: event.kind.clone().into_owned(),
            path: event.path.clone().into_owned(),
            epoch: event.epoch,
            step: event.global_step,
        };
        let moves = artifact.kind.ends_with("_checkpoint");
        self.0.retain(|other| !(other.kind == artifact.kind && (moves || other.path == artifact.path)));
        if self.0.len() == MOST {
            self.0.remove(0);
        }
        // Checkpoints first, starting with the best one.
        let rank = |artifact: &Artifact| (!artifact.kind.ends_with("_checkpoint"), artifact.kind != "best_checkpoint");
        let place = self.0.partition_point(|other| rank(other) <= rank(&artifact));
        self.0.insert(place, artifact);
    }

    /// The published files.
    pub fn list(&self) -> &[Artifact] {
        &self.0
    }
}
