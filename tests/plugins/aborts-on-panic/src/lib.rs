//! Wrong: built with `panic = "abort"`, so that a panic would end the host.

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Kind, NoOptions, Result, Run, plugin};

struct Aborts;

#[plugin]
impl Callback for Aborts {
    const KIND: &'static str = "aborts-on-panic";
    const SUMMARY: &'static str = "Would end the process by a panic";

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        panic!("this would end the process")
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Aborts>()];
