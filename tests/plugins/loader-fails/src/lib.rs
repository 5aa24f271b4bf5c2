//! Wrong: its root module loader returns an error.

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleError, RootModuleResult};
use abi_stable::std_types::{RBoxError, RResult};
use plugin_api::abi::root::RootRef;

extern "C" fn loader() -> RootModuleResult {
    RResult::RErr(RootModuleError::Returned(RBoxError::from_fmt("the license server is not reachable")))
}

// SAFETY: `loader` returns no reference at all.
#[export_name = "_1as_0lib_1header_0root_bmodule_bloader"]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<RootRef>(loader, CheckTypeLayout::Yes) };
