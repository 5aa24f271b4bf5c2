//! An event of one's own: `send-batches` sends `verify_batch` with the batch of a step, and `verify-batch` looks through
//! what comes with such an event. Neither knows the other; a program's own batch step may send the event, too.

mod send_batches;
mod verify_batch;

use plugin_api::{Kind, plugin};

/// The event that both kinds use unless their options say otherwise. Its tensors are `inputs` and `targets`, its payload is
/// text for people: where the batch comes from.
const EVENT: &str = "verify_batch";

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<send_batches::SendBatches>(), Kind::of::<verify_batch::VerifyBatch>()];
