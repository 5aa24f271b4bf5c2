//! Wrong: calls a function that no library has, which only the dynamic loader finds out.

use plugin_api::event::At;
use plugin_api::{Callback, Creation, Kind, NoOptions, Result, Run, plugin};

unsafe extern "C" {
    fn a_function_that_no_library_has();
}

struct MissingSymbol;

#[plugin]
impl Callback for MissingSymbol {
    const KIND: &'static str = "missing-symbol";
    const SUMMARY: &'static str = "Calls a function that is not there";

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self)
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        // SAFETY: never reached, since the library does not load.
        unsafe { a_function_that_no_library_has() };
        Ok(())
    }
}

#[plugin]
const KINDS: &[Kind] = &[Kind::of::<MissingSymbol>()];
