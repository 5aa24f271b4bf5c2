//! `sender` and `receiver`: custom events with tensors, and where these lie.

use plugin_api::event::{At, Custom};
use plugin_api::protocol::TensorSet;
use plugin_api::{Callback, Creation, EventKind, Need, Result, Run, Tensor, TensorView, plugin};
use serde_json::json;

use crate::journal::Journal;
use crate::tensors::fingerprint_of;

#[plugin]
#[derive(Default)]
pub struct Options {
    /// The journal.
    path: String,
}

/// Where a tensor begins.
fn address(view: &TensorView<'_>) -> usize {
    view.table().tensor.data.addr() + view.table().tensor.byte_offset as usize
}

/// The second half of a contiguous tensor's rows, in the same memory.
fn second_half<'a>(view: &TensorView<'a>, shape: &'a [i64]) -> TensorView<'a> {
    let mut table = *view.table();
    table.tensor.shape = shape.as_ptr();
    table.tensor.strides = std::ptr::null();
    table.tensor.byte_offset += (view.len() / 2 * view.dtype().bytes()) as u64;
    // SAFETY: as many dimensions as before, within the tensor, and as valid as it and `shape`.
    unsafe { TensorView::from_table(table) }
}

/// Sends the batch of the first two steps, half of its inputs, and a tensor of its own.
pub struct Sender {
    journal: Journal,
    instance: String,
}

#[plugin]
impl Callback for Sender {
    const KIND: &'static str = "sender";
    const SUMMARY: &'static str = "Sends custom events with tensors";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = &[Need::batch(EventKind::STEP_START)];
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, instance: creation.instance.to_owned() })
    }

    fn on_step_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if event.global_step > 2 {
            return Ok(());
        }
        let [inputs, targets] = &run.tensors(TensorSet::Batch)?[..] else { return Ok(()) };
        let mut shape = inputs.shape().to_vec();
        shape[0] /= 2;
        let half = second_half(inputs, &shape);
        // Its memory is gone when the event is delivered.
        let own = Tensor::new("mine", &[3], &[event.global_step as f32, 2.0, 3.0])?;
        run.emit_with(
            "batch",
            b"with tensors",
            &[("inputs", inputs), ("targets", targets), ("half", &half), ("own", &own.view())],
        )?;
        self.journal.line(json!({
            "sender": self.instance, "global_step": event.global_step, "inputs": address(inputs), "half": address(&half),
            "own": address(&own.view()), "fingerprint": fingerprint_of(&[*inputs, *targets, half, own.view()])?,
        }))
    }
}

/// Writes what it is sent.
pub struct Receiver<const NEEDS_TENSORS: bool> {
    journal: Journal,
    instance: String,
}

#[plugin]
impl<const NEEDS_TENSORS: bool> Callback for Receiver<NEEDS_TENSORS> {
    const KIND: &'static str = if NEEDS_TENSORS { "receiver" } else { "receiver-of-no-tensors" };
    const SUMMARY: &'static str = "Writes the tensors of custom events";
    const BY_DEFAULT: bool = false;
    const NEEDS: &'static [Need] = if NEEDS_TENSORS { &[Need::EVENT] } else { &[] };
    type Options = Options;

    fn new(options: Options, creation: &Creation<'_>) -> Result<Self> {
        Ok(Self { journal: Journal::open(&options.path)?, instance: creation.instance.to_owned() })
    }

    fn on_custom(&mut self, run: &mut Run<'_>, event: &Custom<'_>) -> Result<()> {
        let own = Tensor::new("own", &[1], &[0_f32])?;
        let refusals = [
            run.tensor(TensorSet::Event, "input").map(drop),
            run.write(TensorSet::Parameters, &[own.view()]),
            run.write(TensorSet::Event, &[own.view()]),
        ];
        let refused = refusals.map(|answer| answer.err().map(|error| error.message().to_owned()));
        let tensors = match run.tensors(TensorSet::Event) {
            Ok(tensors) => tensors,
            Err(error) => {
                return self.journal.line(json!({ "receiver": self.instance, "refused": error.message() }));
            }
        };
        let names: Vec<_> = tensors.iter().map(TensorView::name).collect();
        let listed: Vec<_> = run.list(TensorSet::Event)?.into_iter().map(|info| info.name).collect();
        self.journal.check("the list has the names of the tensors", listed == names, json!(names))?;
        self.journal.line(json!({
            "receiver": self.instance, "author": event.author, "global_step": event.global_step, "names": names,
            "shapes": tensors.iter().map(TensorView::shape).collect::<Vec<_>>(),
            "addresses": tensors.iter().map(address).collect::<Vec<_>>(), "fingerprint": fingerprint_of(&tensors)?,
            // A step has a loss from its forward pass on.
            "step_loss": run.latest_metric("step_loss")?, "refused": refused,
        }))
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if event.global_step > 1 {
            return Ok(());
        }
        self.journal.refused("tensors of no event", run.tensors(TensorSet::Event).map(drop))
    }
}
