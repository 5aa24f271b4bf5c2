//! The fake host as a test sees it.

mod effects;
mod events;
mod given;

use std::ffi::c_void;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::host_call;
use super::world::World;
use crate::abi::kinds::{EventKind, Status};
use crate::abi::{Bytes, CreateTable, LibraryTable, MINOR, ReplyTable, TensorTable, Text};
use crate::callback::Callback;
use crate::error::{Error, Result};
use crate::export::{Kind, Library, library_table};
use crate::protocol::{Descriptor, RunInfo};

/// A library with one kind, as `#[plugin] const KINDS` would export it.
struct OneKind<T>(PhantomData<T>);

impl<T: Callback> Library for OneKind<T> {
    const KINDS: &'static [Kind] = &[Kind::of::<T>()];
}

/// One instance of a callback, and a host that sends it the events that the test chooses.
///
/// The run has 3 epochs of 10 steps unless [`FakeHost::with_info`] changes it; its folder is a
/// temporary one that is removed with the host.
///
/// Methods named after an event send it. Each returns the error of the hook, and `Ok` where the
/// callback does not subscribe to the event.
pub struct FakeHost {
    library: LibraryTable,
    descriptor: Descriptor,
    instance: *mut c_void,
    panicked: bool,
    background: bool,
    world: Box<World>,
    folder: PathBuf,
}

impl FakeHost {
    /// Creates an instance of `T` named after its kind, with options as a run file would give them.
    ///
    /// # Errors
    ///
    /// Options that `T` does not understand or refuses; a panic in `T::new`, with its place.
    pub fn new<T: Callback>(options: serde_json::Value) -> Result<Self> {
        Self::named::<T>(T::KIND, options)
    }

    /// The same with another name.
    ///
    /// # Errors
    ///
    /// Those of [`FakeHost::new`].
    pub fn named<T: Callback>(name: &str, options: serde_json::Value) -> Result<Self> {
        let library = library_table::<OneKind<T>>();
        let mut text = Vec::new();
        // SAFETY: the reply outlives the call.
        let status = unsafe { (library.describe)(0, &raw const *reply_into(&mut text)) };
        if status != Status::OK {
            return Err(Error::new(String::from_utf8_lossy(&text).into_owned()).context("describe"));
        }
        let descriptor: Descriptor = serde_json::from_slice(&text)?;
        let folder = temporary_folder();
        let mut world = Box::new(World::new(name, &folder));
        world.given.needs.clone_from(&descriptor.needs);
        let text_of_options = options.to_string();
        world.given.options = options;
        world.hook.event = EventKind::CREATE;
        let mut instance = std::ptr::null_mut();
        text.clear();
        let status = host_call::enter(&mut world, |host| {
            let request = CreateTable {
                size: size_of::<CreateTable>() as u32,
                minor: MINOR,
                options: Text::new(&text_of_options),
                instance: Text::new(name),
                log: host_call::take_log,
                host,
            };
            // SAFETY: request, place and reply outlive the call.
            unsafe { (library.create)(0, &raw const request, &raw mut instance, &raw const *reply_into(&mut text)) }
        });
        if status != Status::OK {
            let reported = world.hook.fault.take().filter(|_| text.is_empty()).map(|fault| fault.message);
            return Err(Error::new(reported.unwrap_or_else(|| String::from_utf8_lossy(&text).into_owned())));
        }
        world.hook.event = EventKind::SETUP;
        let host = Self { library, descriptor, instance, panicked: false, background: false, world, folder };
        std::fs::create_dir_all(&host.folder)?;
        Ok(host)
    }

    /// Changes the description of the run, before its first event.
    #[must_use]
    pub fn with_info(mut self, change: impl FnOnce(&mut RunInfo)) -> Self {
        change(&mut self.world.given.info);
        self
    }

    /// Answers as a host does when the callback runs in the background: from what its `NEEDS` list. Hooks still run on
    /// the thread of the test.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.background = true;
        self
    }

    /// The descriptor of the kind.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether the callback has a hook for `event`.
    pub fn subscribes(&self, event: EventKind) -> bool {
        self.descriptor.hooks.iter().any(|hook| hook == event.name())
    }
}

impl Drop for FakeHost {
    fn drop(&mut self) {
        self.world.remote.close();
        // An instance that a panic left inconsistent does not run again, not even its destructor.
        if !self.panicked {
            // SAFETY: made by `create`, and ended once, here. A panic in the callback's own drop is
            // caught inside the function, and there is nobody to tell.
            unsafe { (self.library.destroy)(0, self.instance) };
        }
        // A folder that cannot be removed is left to the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn temporary_folder() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("plugin-api-testing-{}-{count}", std::process::id()))
}

/// A reply table that appends its bytes to `bytes`.
fn reply_into(bytes: &mut Vec<u8>) -> Box<ReplyTable> {
    unsafe extern "C" fn take_bytes(context: *mut c_void, bytes: Bytes) {
        // SAFETY: `context` is the vector of `reply_into`, borrowed by its caller; the bytes are
        // borrowed until this function returns.
        unsafe { (*context.cast::<Vec<u8>>()).extend_from_slice(bytes.read()) };
    }
    unsafe extern "C" fn take_tensor(_: *mut c_void, _: *const TensorTable) {}
    Box::new(ReplyTable {
        size: size_of::<ReplyTable>() as u32,
        reserved: 0,
        context: std::ptr::from_mut(bytes).cast(),
        bytes: take_bytes,
        tensor: take_tensor,
    })
}
