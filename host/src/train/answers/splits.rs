//! Other data as a split of the run.

use std::sync::Arc;

use plugin_api::protocol::requests::OpenSplit;
use plugin_api::services::split_is_there;
use serde::Deserialize;

use super::super::error::TrainError;
use super::super::session::Session;
use crate::data::{DataDescription, DataOptions, OTHER, OtherData, Wanted};
use crate::services::ServiceError;

/// The part of a resolved run file that says how its data is read.
#[derive(Deserialize)]
struct RunFile {
    data: DataOptions,
}

impl Session {
    /// Reads other data as `host evaluate --data` does, and adds it.
    pub(super) fn open_split(&mut self, request: &OpenSplit) -> Result<(), ServiceError> {
        let OpenSplit { name, path } = request;
        if self.feed.data.splits.contains_key(name) {
            return Err(split_is_there(name).into());
        }
        let unreadable = |error: serde_json::Error| TrainError::System {
            action: "cannot read how the run's data was read",
            source: error.into(),
        };
        let RunFile { data: options } = serde_json::from_str(&self.info.run_file).map_err(unreadable)?;
        let description = DataDescription::parse(&self.data_text).map_err(unreadable)?;
        let other = OtherData::read(&options, &description, &self.in_run_folder(path), Wanted::Required);
        let OtherData { mut data, .. } = other.map_err(|error| {
            // What helps in `[data]` does not help here.
            let hint = error.hint().filter(|hint| !hint.contains("`[data]`"));
            ServiceError::Failed(hint.map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}")))
        })?;
        for note in &data.notes {
            self.outputs.screen().line(&format!("data `{name}`: {note}"));
        }
        if let Some(samples) = data.splits.remove(OTHER) {
            self.info.data.splits.insert(name.clone(), samples.len() as u64);
            Arc::make_mut(&mut self.feed.data).splits.insert(name.clone(), samples);
        }
        Ok(())
    }
}
