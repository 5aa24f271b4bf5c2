//! Wrong: its header says major version 2 of the ABI.

use std::ffi::c_void;

use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult};
use abi_stable::prefix_type::{PrefixRefTrait, PrefixTypeTrait};
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::RResult;
use abi_stable::StableAbi;

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef)))]
#[sabi(missing_field(panic))]
pub struct Root {
    #[sabi(last_prefix_field)]
    pub library: extern "C" fn() -> *const c_void,
}

impl RootModule for RootRef {
    abi_stable::declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "host_plugin";
    const NAME: &'static str = "host_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("2.0.0");
}

extern "C" fn library() -> *const c_void {
    std::ptr::null()
}

extern "C" fn loader() -> RootModuleResult {
    let root = Root { library }.leak_into_prefix();
    // SAFETY: the header remembers that the erased reference is a `RootRef`.
    RResult::ROk(unsafe { root.to_prefix_ref().cast() })
}

// SAFETY: `loader` returns the reference of a `RootRef`.
#[export_name = "_1as_0lib_1header_0root_bmodule_bloader"]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<RootRef>(loader, CheckTypeLayout::Yes) };
