//! The file in the run folder that names the run on the server, so that a resumed run continues it. It is on disk as
//! soon as the server has answered. A checkpoint may be older than that, or be moved to another folder: a resume from
//! it then makes a new run.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const FILE: &str = "mlflow.json";

/// The file, and the server that it is about.
#[derive(Clone)]
pub(crate) struct Note {
    path: PathBuf,
    tracking_uri: String,
}

#[derive(Serialize, Deserialize)]
struct Content {
    tracking_uri: String,
    run_id: String,
}

impl Note {
    pub(crate) fn new(run_folder: &str, tracking_uri: &str) -> Self {
        Self { path: Path::new(run_folder).join(FILE), tracking_uri: tracking_uri.to_owned() }
    }

    /// The run's identifier, if the file names one for this server. An unreadable file counts as none.
    pub(crate) fn read(&self) -> Option<String> {
        let content: Content = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        (content.tracking_uri == self.tracking_uri).then_some(content.run_id)
    }

    /// Writes the run's identifier, first to a temporary file next to it.
    pub(crate) fn write(&self, run_id: &str) -> std::io::Result<()> {
        let content = Content { tracking_uri: self.tracking_uri.clone(), run_id: run_id.to_owned() };
        let partial = self.path.with_extension("json.partial");
        fs::write(&partial, serde_json::to_vec(&content)?)?;
        fs::rename(&partial, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_run_is_known_again_on_its_own_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let note = Note::new(path, "http://one");
        assert_eq!(note.read(), None);
        note.write("r1").unwrap();
        assert_eq!((note.read().as_deref(), Note::new(path, "http://two").read()), (Some("r1"), None));
    }

    proptest! {
        #[test]
        fn any_file_is_a_note_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(FILE), bytes).unwrap();
            prop_assert_eq!(Note::new(folder.path().to_str().unwrap(), "http://one").read(), None);
        }
    }
}
