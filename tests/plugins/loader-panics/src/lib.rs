//! Wrong: its root module loader panics.

use abi_stable::library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult};
use plugin_api::abi::root::RootRef;

fn load() -> RootRef {
    panic!("the loader panics")
}

extern "C" fn loader() -> RootModuleResult {
    // As `abi_stable`'s own export attribute does: the panic ends here.
    __call_root_module_loader(load)
}

// SAFETY: `loader` returns a `RootRef` or an error.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<RootRef>(loader, CheckTypeLayout::Yes) };
