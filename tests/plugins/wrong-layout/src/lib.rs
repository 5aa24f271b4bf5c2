//! Wrong: its root module has another type, with a field of its own in the place of the library.

use std::ffi::c_void;

use abi_stable::StableAbi;
use abi_stable::library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult};
use abi_stable::prefix_type::{PrefixRefTrait, PrefixTypeTrait};
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::RResult;

#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = RootRef)))]
#[sabi(missing_field(panic))]
pub struct Root {
    pub size: u64,
    #[sabi(last_prefix_field)]
    pub library: extern "C" fn() -> *const c_void,
}

impl RootModule for RootRef {
    abi_stable::declare_root_module_statics! {RootRef}
    const BASE_NAME: &'static str = "host_plugin";
    const NAME: &'static str = "host_plugin";
    const VERSION_STRINGS: VersionStrings = VersionStrings::new("1.0.0");
}

extern "C" fn library() -> *const c_void {
    std::ptr::null()
}

extern "C" fn loader() -> RootModuleResult {
    let root = Root { size: 0, library }.leak_into_prefix();
    // SAFETY: the header remembers that the erased reference is a `RootRef`.
    RResult::ROk(unsafe { root.to_prefix_ref().cast() })
}

// SAFETY: `loader` returns the reference of a `RootRef`.
#[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
pub static HEADER: LibHeader = unsafe { LibHeader::from_constructor::<RootRef>(loader, CheckTypeLayout::Yes) };
