//! What the callback did.

use std::collections::BTreeMap;
use std::path::Path;

use super::FakeHost;
use crate::protocol::requests::{Artifact, ControlRequest, Custom, OpenSplit, Recalibrate, StatusLine};
use crate::protocol::{ArrayPoint, CheckpointWritten, Control, Record, Recording, Tap, TensorSet};
use crate::tensor::Tensor;

/// What the callback did. What it did through a `Remote` is visible from the next event on.
impl FakeHost {
    /// The run folder.
    pub fn folder(&self) -> &Path {
        Path::new(&self.world.given.info.folder)
    }

    /// The latest value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.world.given.metrics.get(name).copied().flatten()
    }

    /// The latest array of this name.
    pub fn array(&self, name: &str) -> Option<&ArrayPoint> {
        self.world.given.arrays.get(name)?.last()
    }

    /// A hyper-parameter, in the first group that has it.
    pub fn hyper_parameter(&self, name: &str) -> Option<f64> {
        self.world.given.groups.iter().find_map(|group| group.values.get(name)).copied()
    }

    /// A hyper-parameter of a parameter group.
    pub fn hyper_parameter_of(&self, group: &str, name: &str) -> Option<f64> {
        self.world.given.groups.iter().find(|other| other.name == group)?.values.get(name).copied()
    }

    /// A tensor of a set.
    pub fn tensor(&self, set: &TensorSet, name: &str) -> Option<&Tensor> {
        self.world.given.tensors.get(set)?.iter().find(|tensor| tensor.name() == name)
    }

    /// All requests to the loop.
    pub fn requests(&self) -> &[ControlRequest] {
        &self.world.seen.requests
    }

    /// Whether `action` was requested.
    pub fn requested(&self, action: Control) -> bool {
        self.requests().iter().any(|request| request.action == action)
    }

    /// The reason of the first stop request.
    pub fn stopped(&self) -> Option<&str> {
        let stop = self.requests().iter().find(|request| request.action == Control::Stop)?;
        Some(&stop.reason)
    }

    /// A series of arrays, oldest first; empty if there is none of that name.
    pub fn arrays(&self, name: &str) -> &[ArrayPoint] {
        self.world.given.arrays.get(name).map_or(&[], Vec::as_slice)
    }

    /// The records that were put.
    pub fn records(&self) -> &[Record] {
        &self.world.seen.records
    }

    /// The custom events that were sent.
    pub fn emitted(&self) -> &[Custom] {
        &self.world.seen.emitted
    }

    /// The tensors that the custom event `index` of [`Self::emitted`] carried; none if there is no such event.
    pub fn emitted_tensors(&self, index: usize) -> &[Tensor] {
        self.world.seen.emitted_tensors.get(index).map_or(&[], Vec::as_slice)
    }

    /// The lines on the console.
    pub fn lines(&self) -> &[String] {
        &self.world.seen.lines
    }

    /// A status line that is on the console now.
    pub fn status(&self, name: &str) -> Option<&StatusLine> {
        self.world.seen.statuses.get(name)
    }

    /// What was published.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.world.seen.artifacts
    }

    /// The checkpoints that were written; each is an empty folder.
    pub fn checkpoints(&self) -> &[CheckpointWritten] {
        &self.world.seen.checkpoints
    }

    /// The paths of the checkpoints that were queued and are not written, the one that is being written first.
    pub fn queued_checkpoints(&self) -> &[String] {
        &self.world.seen.queued
    }

    /// What the callback last asked [`Run::profile`](crate::Run::profile) to record.
    pub fn recording(&self) -> Option<Recording> {
        self.world.seen.recording
    }

    /// The requested taps.
    pub fn taps(&self) -> &[Tap] {
        &self.world.seen.taps
    }

    /// The estimates of the batch-norm statistics that were asked for; the fake host changes no buffer.
    pub fn recalibrations(&self) -> &[Recalibrate] {
        &self.world.seen.recalibrations
    }

    /// The parameters that are frozen, each with whether the statistics of its batch norm go on moving.
    pub fn frozen(&self) -> &BTreeMap<String, bool> {
        &self.world.seen.frozen
    }

    /// The splits that were added, in order.
    pub fn opened_splits(&self) -> &[OpenSplit] {
        &self.world.seen.opened
    }

    /// The most batches of each split that has a limit.
    pub fn limits(&self) -> &BTreeMap<String, u64> {
        &self.world.seen.limits
    }

    /// What hooks logged with `tracing`, as `WARN message field=value`; nothing if the test has set
    /// a subscriber of its own.
    pub fn logs(&self) -> &[String] {
        &self.world.seen.logs
    }
}
