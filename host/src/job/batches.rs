//! Batches that the training split or the model cannot have.

use super::model::PlannedModel;
use crate::config::Document;
use crate::data::{Data, TRAIN};
use crate::report::Problem;
use crate::run_file::RunFile;

/// Refuses a batch that is larger than the training split, and one of a single sample where batch normalization needs the
/// deviation of several values.
pub(super) fn check(
    document: &Document,
    run_file: &RunFile,
    data: &Data,
    model: Option<&PlannedModel>,
) -> Option<Problem> {
    let (size, samples) = (run_file.train.batch_size, data.splits.get(TRAIN)?.len());
    if size > samples {
        let message = format!("a batch of {size} samples is larger than the split `{TRAIN}`, which holds {samples}");
        return Some(
            Problem::new(message)
                .with_label(document.label_value("/train/batch_size", ""))
                .with_hint(format!("make it {samples} or less")),
        );
    }
    let ends_with_one = samples % size == 1 && !run_file.data.drop_last();
    if size > 1 && !ends_with_one {
        return None;
    }
    let node = model?.graph().ok()?.normalizes_single_values()?;
    let (message, hint) = match size {
        1 => (
            format!("`{}` (batch_norm) cannot train on batches of one sample: one value has no deviation", node.name),
            "make `batch_size` 2 or more, or use `layer_norm`, which needs no batch",
        ),
        _ => (
            format!(
                "`{}` (batch_norm) cannot train on the last batch of an epoch: one sample of {samples} is left, and one \
                 value has no deviation",
                node.name
            ),
            "set `drop_last = true` in `[data]`, or another `batch_size`",
        ),
    };
    let label = document.label_value("/train/batch_size", format!("of {samples} samples"));
    Some(Problem::new(message).with_label(label).with_hint(hint.to_owned()))
}
