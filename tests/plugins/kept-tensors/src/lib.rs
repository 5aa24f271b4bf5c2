//! Well-behaved: reads tensors where they lie, and their copies in the background. Kept as a binary in `tests/kept`: this
//! source stays as it was when the binary was built.

use plugin_api::event::At;
use plugin_api::protocol::TensorSet;
use plugin_api::{Callback, Creation, EventKind, Kind, Need, NoOptions, Result, Run, plugin};

struct KeptTensors;

/// How many numbers the parameters hold, and the sum of their squares.
fn squares(run: &Run<'_>, set: TensorSet) -> Result<(usize, f64)> {
    let mut all = (0, 0.0);
    for tensor in run.tensors(set)? {
        all.0 += tensor.len();
        all.1 += tensor.as_slice::<f32>()?.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>();
    }
    Ok(all)
}

#[plugin]
impl Callback for KeptTensors {
    const KIND: &'static str = "kept-tensors";
    const SUMMARY: &'static str = "Sums the squares of parameters and gradients";
    const NEEDS: &'static [Need] = &[Need::parameters(EventKind::EPOCH_END), Need::gradients(EventKind::GRADIENTS)];

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_gradients(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let (_, sum) = squares(run, TensorSet::Gradients)?;
        run.put_metric("kept_gradients", sum)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, epoch: &At<'_>) -> Result<()> {
        let (count, sum) = squares(run, TensorSet::Parameters)?;
        run.console_line(&format!("kept-tensors: epoch {}, {count} parameters, {sum:.4}", epoch.epoch))
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<KeptTensors>()];
