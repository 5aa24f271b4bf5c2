//! Well-behaved: checks the answers of services, and records its findings.
//!
//! Each line of a journal is an object: `check`, `passed` and `detail`, or what the kind's own words say.

mod events;
mod graph_reader;
mod journal;
mod keeper;
mod observer;
mod reader;
mod taps;
mod tensors;
mod writer;

use plugin_api::{Kind, plugin};

#[plugin]
const KINDS: &[Kind] = &[
    Kind::of::<writer::Writer>(),
    Kind::of::<reader::Reader>(),
    Kind::of::<keeper::Keeper>(),
    Kind::of::<observer::Observer>(),
    Kind::of::<graph_reader::GraphReader>(),
    Kind::of::<events::Sender>(),
    Kind::of::<events::Receiver<true>>(),
    Kind::of::<events::Receiver<false>>(),
    Kind::of::<taps::Taps>(),
];
