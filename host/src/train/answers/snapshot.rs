//! Snapshots that answer callbacks in the background: copied when an event fires.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use plugin_api::protocol::TensorSet;

use super::super::checkpointing::{CheckpointData, Copying, HostTensor};
use super::super::error::TrainError;
use super::super::session::Session;
use super::{hyper_parameters, loss, tensors};
use crate::history::HistoryView;
use crate::services::{ServiceError, Snapshot, SnapshotNeeds, WriteCheckpoint};

impl Session {
    pub(super) fn take_snapshot(&mut self, event: EventKind, needs: &SnapshotNeeds) -> Result<Snapshot, ServiceError> {
        let mut copied = BTreeMap::new();
        let mut loss_at_hand = None;
        let mut merged = BTreeMap::new();
        for name in &needs.sets {
            let set: TensorSet =
                name.parse().map_err(|error: plugin_api::Error| ServiceError::Failed(error.to_string()))?;
            // A callback cannot read a set that this event does not have.
            let Ok(tensors) = tensors::of_set(&self.learner, &self.kept, &set, event) else { continue };
            let copies: Result<Vec<_>, TrainError> =
                tensors.iter().map(|(name, tensor)| HostTensor::share(name, tensor)).collect();
            let copies = copies?;
            if let Some(lora) = self.learner.network.lora().filter(|_| needs.exports && tensors::has_weights(&set)) {
                let is_adapted = |name: &str| lora.adapted().any(|adapted| adapted == name);
                let sums = lora.merged(tensors, &[]).map_err(TrainError::from)?;
                let as_exported = sums.iter().filter_map(|(name, sum)| match is_adapted(name) {
                    true => Some(HostTensor::share(name, sum)),
                    false => copies.iter().find(|copy| copy.name() == name).cloned().map(Ok),
                });
                merged.insert(name.clone(), as_exported.collect::<Result<Vec<_>, TrainError>>()?);
            }
            copied.insert(name.clone(), copies);
            if set == TensorSet::Outputs {
                loss_at_hand = loss(&self.learner, event).ok();
            }
        }
        let checkpoint = if needs.training_state && event == EventKind::CHECKPOINT {
            self.collect_checkpoint(Copying::Into(None))?
        } else {
            None
        };
        Ok(Snapshot {
            info: self.info.clone(),
            position: self.progress.position,
            metrics: self.present_metrics()?,
            history: HistoryView::now(Arc::clone(&self.measured.history)),
            groups: hyper_parameters::groups(&self.learner),
            graph: self.graph_text().map_err(Into::into),
            loss: loss_at_hand,
            tensors: copied,
            merged,
            checkpoint: checkpoint.map(writer),
            inference: Some(self.inference()),
            weights: self.kept.origin(self.progress.position),
            expressions: Arc::clone(&self.expressions),
            screen: self.outputs.screen(),
            seconds: self.progress.started().elapsed().as_secs_f64(),
        })
    }
}

/// Writes a copied checkpoint.
fn writer(data: CheckpointData) -> Box<WriteCheckpoint> {
    Box::new(move |path: &Path| Ok(data.write(path).map_err(TrainError::from)?))
}
