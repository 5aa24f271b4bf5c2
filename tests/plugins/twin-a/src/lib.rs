//! Wrong together: twin-a and twin-b offer the same kind.

use plugin_api::event::At;
use plugin_api::{plugin, Callback, Creation, Kind, NoOptions, Result, Run};

struct Twin;

#[plugin]
impl Callback for Twin {
    const KIND: &'static str = "twin";
    const SUMMARY: &'static str = "Is there twice";

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        Ok(())
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<Twin>()];
