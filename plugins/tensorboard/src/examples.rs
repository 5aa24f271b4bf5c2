//! The first samples of the evaluated split as pictures, with the model's answers.

use plugin_api::protocol::RunInfo;
use plugin_api::{Error, Result, Run, TensorView};

use crate::picture::{self, Planes};
use crate::proto::Value;
use crate::summary;
use crate::values::{Target, floats, targets};

const RIGHT: [u8; 3] = [44, 160, 44];
const WRONG: [u8; 3] = [214, 39, 40];

/// Fixed samples, and the model's latest outputs for them.
pub(crate) struct Examples {
    shape: [u32; 3],
    pictures: Vec<Vec<u8>>,
    targets: Vec<Target>,
    names: Vec<String>,
    classes: usize,
    /// One row for each sample in the first batch of an evaluation; empty once it was shown.
    outputs: Vec<Vec<f32>>,
}

impl Examples {
    /// Reads at most `count` samples of the split's first batch.
    pub(crate) fn read(run: &Run<'_>, info: &RunInfo, split: &str, count: u64, shape: [u32; 3]) -> Result<Self> {
        let [inputs, answers] = run.batch(split, 0)?;
        let sizes: Vec<usize> = inputs.shape().iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
        let Some((batch, sample)) = sizes.split_first() else {
            return Err(Error::new(format!("the samples of split `{split}` have no shape")));
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(*batch);
        let values =
            floats(run, &inputs).map_err(|error| error.context("`image_shape` needs samples that are images"))?;
        let length: usize = sample.iter().product();
        let planes = values.chunks_exact(length.max(1)).take(count).map(|sample_values| {
            Planes::new(sample, shape, &as_stored(sample_values, sample.first().copied().unwrap_or(1), info))
        });
        let planes = planes.collect::<Result<Vec<_>>>()?;
        let ranges = planes.iter().map(Planes::range);
        let range = ranges.reduce(|[low, high], [least, most]| [low.min(least), high.max(most)]).unwrap_or([0.0, 1.0]);
        Ok(Self {
            shape,
            pictures: planes.iter().map(|planes| planes.resized(shape, range)).collect(),
            targets: targets(run, &answers, count)?,
            names: info.data.target_names.clone(),
            classes: usize::try_from(info.data.classes).unwrap_or(0),
            outputs: Vec::new(),
        })
    }

    /// Stores the outputs for an evaluation's first batch.
    pub(crate) fn predicted(&mut self, run: &Run<'_>, outputs: &TensorView<'_>) -> Result<()> {
        let values = floats(run, outputs)?;
        let rows = outputs.shape().first().map_or(0, |rows| usize::try_from(*rows).unwrap_or(0));
        let width = values.len().checked_div(rows).unwrap_or(0).max(1);
        self.outputs = values.chunks_exact(width).take(self.pictures.len()).map(<[f32]>::to_vec).collect();
        Ok(())
    }

    /// The pictures, with a green or red frame if the target is a class, and a table of the answers. Nothing if there
    /// was no new evaluation.
    pub(crate) fn values(&mut self) -> Result<Vec<Value>> {
        let outputs = std::mem::take(&mut self.outputs);
        let mut values = Vec::new();
        let mut rows = Vec::new();
        for (index, ((pixels, target), outputs)) in self.pictures.iter().zip(&self.targets).zip(&outputs).enumerate() {
            let (said, class) = self.said(outputs);
            let mut pixels = pixels.clone();
            if let (Some(class), Target::Class(expected)) = (class, target) {
                picture::frame(&mut pixels, self.shape, if class as i64 == *expected { RIGHT } else { WRONG });
            }
            let target = target.shown(&self.names);
            values.push(summary::image(&format!("examples/{index}"), self.shape, &pixels, "")?);
            rows.push(vec![index.to_string(), target, said]);
        }
        if !rows.is_empty() {
            let columns = ["example", "target", "prediction"].map(str::to_owned);
            values.push(summary::table("examples", &columns, &rows));
        }
        Ok(values)
    }

    /// The model's answer, and the class if it chooses one.
    fn said(&self, outputs: &[f32]) -> (String, Option<usize>) {
        if self.classes == 0 || outputs.len() != self.classes {
            return (Target::Numbers(outputs.to_vec()).shown(&[]), None);
        }
        let (class, greatest) = outputs
            .iter()
            .enumerate()
            .fold((0, f32::NEG_INFINITY), |best, (class, value)| if *value > best.1 { (class, *value) } else { best });
        let sum: f32 = outputs.iter().map(|value| (value - greatest).exp()).sum();
        (format!("{} ({:.3})", Target::Class(class as i64).shown(&self.names), 1.0 / sum), Some(class))
    }
}

/// Undoes the data's normalization, which has a number for each index of the first dimension.
fn as_stored(values: &[f32], first: usize, info: &RunInfo) -> Vec<f32> {
    let each = (values.len() / first.max(1)).max(1);
    let of = |numbers: &[f32], index: usize, otherwise: f32| numbers.get(index).copied().unwrap_or(otherwise);
    let stored = values.iter().enumerate().map(|(index, value)| {
        value * of(&info.data.scale, index / each, 1.0) + of(&info.data.offset, index / each, 0.0)
    });
    stored.collect()
}
