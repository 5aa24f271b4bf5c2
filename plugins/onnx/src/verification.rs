//! Compares the file with the model, before it is published.

use std::path::Path;

use export::Ranges;
use plugin_api::protocol::RunInfo;
use plugin_api::{Result, Run};
use verify::{Point, Verdict, Verification};

use crate::{Known, Onnx};

/// The number of samples to compare.
const ROWS: usize = 16;

impl Onnx {
    /// Runs the file at `path` on samples of the run's data. With `ranges`, of integers, it also reports how many samples
    /// are classified correctly with and without them.
    pub(crate) fn verify(
        &self,
        run: &mut Run<'_>,
        info: &RunInfo,
        path: &Path,
        points: &[Point],
        ranges: Option<&Ranges>,
    ) -> Result<Verdict> {
        let Known { graph, ending, normalization } = self.known()?;
        let verification = Verification {
            format: verify::ONNX,
            path,
            sample_shapes: graph.inputs.iter().map(|input| input.shape.clone()).collect(),
            normalization: normalization.as_ref(),
            ending: *ending,
            layout: &|values, _| values.to_vec(),
            points,
            tolerance: self.options.tolerance(),
            allow_non_finite: self.options.allow_non_finite,
        };
        if let Some(ranges) = ranges {
            verification.report_accuracy(run, info, ranges)?;
        }
        verification.run(run, info, ROWS)
    }
}
