//! `taps`: what is tapped in a step is what a separate forward pass computes, and is lent, not copied.

use plugin_api::event::At;
use plugin_api::protocol::{Tap, TapOf, TapReduce, TensorSet};
use plugin_api::{Callback, Creation, Result, Run, Tensor, TensorView, plugin};
use serde_json::json;

use crate::journal::Journal;
use crate::tensors::owned;

#[plugin]
#[derive(Default)]
pub struct Options {
    /// The journal.
    path: String,
    /// The node inside the model; empty: nothing is tapped.
    node: String,
    /// The node of the output.
    output: String,
    /// The parameter whose gradient is tapped.
    parameter: String,
}

pub struct Taps {
    journal: Journal,
    options: Options,
    /// The values of the step's batch by a forward pass of its own, with the weights before the update.
    predicted: Vec<Tensor>,
}

#[plugin]
impl Callback for Taps {
    const KIND: &'static str = "taps";
    const SUMMARY: &'static str = "Compares taps with a forward pass";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, options, predicted: Vec::new() })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let Options { node, output, parameter, .. } = &self.options;
        if node.is_empty() {
            return Ok(());
        }
        for (name, node, of) in [
            ("inside", node, TapOf::Activation),
            ("output", output, TapOf::Activation),
            ("gradient", parameter, TapOf::Gradient),
        ] {
            run.tap(&Tap { name: name.to_owned(), node: node.clone(), of, reduce: TapReduce::Whole })?;
        }
        Ok(())
    }

    fn on_gradients(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let inputs = owned(run, TensorSet::Batch)?.swap_remove(0);
        let nodes: Vec<&str> = if self.options.node.is_empty() { Vec::new() } else { vec![&self.options.node] };
        self.predicted =
            run.predict(&inputs.view(), &nodes)?.iter().map(TensorView::to_owned).collect::<Result<_>>()?;
        Ok(())
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let taps = run.tensors(TensorSet::Taps)?;
        if self.options.node.is_empty() {
            return self.journal.check("there are no taps", taps.is_empty(), json!(taps.len()));
        }
        let again = run.tensors(TensorSet::Taps)?;
        let addresses =
            |views: &[TensorView<'_>]| -> Vec<_> { views.iter().map(|view| view.table().tensor.data.addr()).collect() };
        let same = addresses(&taps) == addresses(&again) && taps.len() == 3;
        self.journal.check("taps are lent, not copied", same, json!(taps.len()))?;
        let gradient = run.tensor(TensorSet::Gradients, &self.options.parameter)?;
        let tap = |name: &str| run.tensor(TensorSet::Taps, name);
        let is_its_own = addresses(&[gradient]) == addresses(&[tap("gradient")?]);
        self.journal.check("a tapped gradient is the gradient itself", is_its_own, json!(null))?;
        let [outputs, inside] = &self.predicted[..] else { return Ok(()) };
        for (name, predicted) in [("output", outputs), ("inside", inside)] {
            let (tapped, predicted) = (tap(name)?.to_vec::<f32>()?, predicted.view().to_vec::<f32>()?);
            let farthest =
                tapped.iter().zip(&predicted).map(|(tapped, other)| (tapped - other).abs()).fold(0.0, f32::max);
            let fits = tapped.len() == predicted.len() && farthest < 1e-5;
            self.journal.check(&format!("{name} is that of a separate forward pass"), fits, json!(farthest))?;
        }
        Ok(())
    }
}
