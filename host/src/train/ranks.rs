//! What a training does together with the other ranks of its run.
//!
//! Each rank computes the gradients of its share of a step's samples, weighted by that share. They are summed while backward
//! goes on, and along with the last of them go three numbers: the share of the step's weight, so that the sum can be divided by
//! what there really was; the share of the loss, so that every rank has the loss of the whole step; and whether anything was
//! asked for on this rank, so that a decision costs no operation of its own.

use std::time::{Duration, Instant};

use plugin_api::abi::kinds::EventKind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::checkpointing::HostTensor;
use super::error::TrainError;
use super::metrics::AccumulatorState;
use super::session::Session;
use crate::dispatch::Dispatcher;
use crate::distributed::{DistributedError, ProcessGroup};
use crate::model::Network;
use crate::torch::buckets::{BucketSizes, Buckets};
use crate::torch::random;

/// The numbers that are summed along with the gradients.
const SLOTS: usize = 3;

/// What a run of several ranks needs beside the group.
pub(super) struct Ranks {
    buckets: Buckets,
    sizes: BucketSizes,
    /// How long the epoch's steps waited for the sums after backward.
    waited: Duration,
}

impl Ranks {
    /// `None` with one rank.
    pub(super) fn new(
        group: &ProcessGroup,
        network: &Network,
        sizes: BucketSizes,
    ) -> Result<Option<Ranks>, DistributedError> {
        let parameters = network.parameters().iter().map(|named| &named.tensor);
        let buckets = group.buckets(parameters, sizes, SLOTS)?;
        Ok(buckets.map(|buckets| Ranks { buckets, sizes, waited: Duration::ZERO }))
    }
}

/// The shares of a step that this rank has computed, before their gradients are summed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Computed {
    /// The weight of its samples, as a part of the number of all samples.
    pub(super) weight: f64,
    /// Their mean loss, times the weight.
    pub(super) loss: f64,
}

impl Computed {
    /// Adds a batch with this mean loss.
    pub(super) fn add(&mut self, weight: f64, loss: f64) {
        self.weight += weight;
        self.loss += weight * loss;
    }
}

impl Session {
    /// Before the last backward of a step: its gradients, times `scale`, are summed as they come.
    pub(super) fn begin_sums(&mut self, computed: Computed, scale: f64) -> Result<(), TrainError> {
        let Some(ranks) = &mut self.ranks else { return Ok(()) };
        let asked = f32::from(u8::from(!self.controls.nothing_asked()));
        Ok(ranks.buckets.begin(&[computed.weight as f32, computed.loss as f32, asked], scale)?)
    }

    /// Why forward or backward failed: sums begin within them, and statistics are exchanged, so that a rank that is gone may be the
    /// reason.
    pub(super) fn explained(&self, error: TrainError) -> TrainError {
        let is_own = self.group.is_single() || !matches!(error, TrainError::Model(_) | TrainError::Torch(_));
        let reason = if is_own { None } else { self.group.find_reason() };
        reason.map_or(error, TrainError::from)
    }

    /// Waits for the sums. From here on gradients and loss are those of the whole step, on every rank.
    pub(super) fn finish_sums(&mut self) -> Result<(), TrainError> {
        let Some(ranks) = &mut self.ranks else { return Ok(()) };
        let began = Instant::now();
        let sums = self.group.finish(&mut ranks.buckets)?;
        ranks.waited += began.elapsed();
        let [weight, loss, asked] = sums[..] else { return Ok(()) };
        let step = &mut self.learner.step;
        step.set_whole_loss(Tensor::from(loss / weight), f64::from(weight));
        step.asked = Some(asked > 0.0);
        Ok(())
    }

    /// After a failure: nobody waits for the operations that have begun.
    pub fn abandon_ranks(&mut self) {
        self.group.abandon();
    }

    /// How long each of the epoch's `steps` waited for other ranks after backward, in seconds; `None` with one rank.
    pub(super) fn take_wait(&mut self, steps: f64) -> Option<f64> {
        self.ranks.as_mut().map(|ranks| std::mem::take(&mut ranks.waited).as_secs_f64() / steps)
    }

    /// Checks that all ranks are made from the same, before they exchange tensors.
    pub(super) fn compare_ranks(&self) -> Result<(), TrainError> {
        let group = &self.group;
        if group.is_single() {
            return Ok(());
        }
        let layout = self.learner.network.tensors().fold(Sha256::new(), |digest, named| {
            let (shape, kind) = (named.tensor.size(), named.tensor.kind());
            digest.chain_update(format!("{} {shape:?} {kind:?}\n", named.name))
        });
        group.compare("another model", &hexadecimal(&layout.finalize()))?;
        group.compare("other data", &self.fingerprints.data)?;
        group.compare("another model file", self.fingerprints.module.as_deref().unwrap_or("none"))?;
        group.compare("another run file", &hexadecimal(&Sha256::digest(self.comparable_run_file())))?;
        let position = self.progress.position;
        Ok(group.compare("another checkpoint", &format!("epoch {} step {}", position.epoch, position.global_step))?)
    }

    /// The resolved run file without what each rank may have of its own: its folder, and its absolute paths of the same files.
    fn comparable_run_file(&self) -> String {
        let Ok(mut run_file) = self.run_file.parse::<toml::Table>() else { return self.run_file.to_string() };
        if let Some(toml::Value::Table(run)) = run_file.get_mut("run") {
            ["out", "device", "threads"].iter().for_each(|key| drop(run.remove(*key)));
        }
        // Which plugins run on a rank is a matter of the entries.
        ["plugins", "distributed"].iter().for_each(|key| drop(run_file.remove(*key)));
        forget_absolute_paths(&mut run_file);
        run_file.to_string()
    }

    /// Gives all ranks the weights of rank zero.
    pub(super) fn share_weights(&mut self) -> Result<(), TrainError> {
        if self.group.is_single() {
            return Ok(());
        }
        let weights: Vec<_> = self.learner.network.tensors().map(|named| named.tensor.shallow_clone()).collect();
        Ok(self.group.broadcast(&weights)?)
    }

    /// Before a forward pass and an evaluation: statistics that each rank gathers from its own samples are those of rank zero,
    /// as in PyTorch's `DistributedDataParallel` (`broadcast_buffers`).
    pub(super) fn share_buffers(&mut self) -> Result<(), TrainError> {
        if self.group.is_single() || self.learner.network.buffers().is_empty() {
            return Ok(());
        }
        let buffers: Vec<_> = self.learner.network.buffers().iter().map(|named| named.tensor.shallow_clone()).collect();
        Ok(self.group.broadcast(&buffers)?)
    }

    /// Whether every evaluation is a whole one on each rank: some callback looks at its batches, and a share of them would give
    /// it a part of the result.
    pub(super) fn agree_on_evaluations(&mut self, callbacks: &Dispatcher) -> Result<(), TrainError> {
        let looks = callbacks.wants(EventKind::EVAL_STEP_START) || callbacks.wants(EventKind::EVAL_STEP_END);
        let all = self.group.exchange(vec![u8::from(looks)])?;
        self.evaluations.are_whole = all.iter().any(|looks| looks[..] == [1]);
        Ok(())
    }

    /// After an epoch: compares the weights of all ranks.
    pub(super) fn compare_weights(&self) -> Result<(), TrainError> {
        /// Bytes of a digest: enough to tell weights apart.
        const LENGTH: usize = 8;
        if self.group.is_single() {
            return Ok(());
        }
        let mut digests = Vec::new();
        for named in self.learner.network.parameters() {
            let tensor = HostTensor::new(&named.name, &named.tensor, false)?;
            digests.extend(&Sha256::digest(tensor.as_ref().bytes)[..LENGTH]);
        }
        let all = self.group.exchange(digests)?;
        for (rank, own) in all.iter().enumerate() {
            let differs = |(own, of_zero): (&[u8], &[u8])| own != of_zero;
            if let Some(index) = own.chunks(LENGTH).zip(all[0].chunks(LENGTH)).position(differs) {
                let tensor = self.learner.network.parameters()[index].name.clone();
                let epoch = self.progress.position.epoch;
                return Err(DistributedError::Diverged { rank, tensor, epoch }.into());
            }
        }
        Ok(())
    }
}

/// What a checkpoint keeps of a run of several ranks. Another number of ranks does not use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRanks {
    /// The sizes of the buckets, in bytes: sums depend on them.
    first_bucket: u64,
    other_buckets: u64,
    /// What is each rank's own, in their order.
    pub(super) each: Vec<SavedRank>,
}

/// What is one rank's own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedRank {
    /// The states of its generators, by device, two hexadecimal digits a byte.
    generators: Vec<(String, String)>,
    /// Its share of the epoch's metrics.
    metrics: Vec<(String, AccumulatorState)>,
}

impl SavedRanks {
    pub(super) fn world_size(&self) -> usize {
        self.each.len()
    }

    pub(super) fn bucket_sizes(&self) -> BucketSizes {
        BucketSizes { first: self.first_bucket, other: self.other_buckets }
    }
}

impl SavedRank {
    /// Its share of a metric of the epoch.
    pub(super) fn metric(&self, name: &str) -> Option<&AccumulatorState> {
        self.metrics.iter().find(|(own, _)| own == name).map(|(_, state)| state)
    }

    /// The states of its generators, by device.
    pub(super) fn generators(&self) -> Vec<(String, Tensor)> {
        let bytes = |text: &str| -> Vec<u8> {
            let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            text.as_bytes().chunks(2).filter_map(digits).collect()
        };
        self.generators.iter().map(|(device, state)| (device.clone(), Tensor::from_slice(&bytes(state)))).collect()
    }
}

impl Session {
    /// What is each rank's own, for a checkpoint that rank zero writes; `None` with one rank.
    pub(super) fn collect_ranks(&mut self) -> Result<Option<SavedRanks>, TrainError> {
        let Some(ranks) = &self.ranks else { return Ok(None) };
        let BucketSizes { first, other } = ranks.sizes;
        let mut generators = Vec::new();
        for (device, state) in random::generator_states()? {
            generators.push((device, hexadecimal(&Vec::<u8>::try_from(&state)?)));
        }
        let mut metrics = Vec::new();
        for accumulator in &mut self.measured.accumulators {
            metrics.push((accumulator.metric().name().into_owned(), accumulator.state()?));
        }
        let not_written = |source: serde_json::Error| TrainError::System {
            action: "cannot write the state of this rank",
            source: source.into(),
        };
        let own = serde_json::to_vec(&SavedRank { generators, metrics }).map_err(not_written)?;
        let all = self.group.exchange(own)?;
        let each = all.iter().enumerate().map(|(rank, text)| {
            serde_json::from_slice(text).map_err(|source| DistributedError::Message { rank, source }.into())
        });
        let each = each.collect::<Result<_, TrainError>>()?;
        Ok(Some(SavedRanks { first_bucket: first, other_buckets: other, each }))
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Empties texts that are absolute paths: which files data and model come from is a matter of their digests.
fn forget_absolute_paths(table: &mut toml::Table) {
    fn forget(value: &mut toml::Value) {
        match value {
            toml::Value::String(text) if std::path::Path::new(text).is_absolute() => text.clear(),
            toml::Value::Array(values) => values.iter_mut().for_each(forget),
            toml::Value::Table(table) => forget_absolute_paths(table),
            _ => {}
        }
    }
    table.iter_mut().for_each(|(_, value)| forget(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_may_lie_elsewhere_and_all_else_counts() {
        let comparable = |folder: &str, activation: &str| {
            let text = format!("[data]\npath = '{folder}/a.csv'\n[model]\nlayers = [{{ type = '{activation}' }}]");
            let mut table: toml::Table = text.parse().unwrap();
            forget_absolute_paths(&mut table);
            table.to_string()
        };
        assert_eq!(comparable("/here", "relu"), comparable("/there", "relu"));
        assert_ne!(comparable("/here", "relu"), comparable("/here", "gelu"));
    }
}
