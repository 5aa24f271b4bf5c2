//! libtorch's engine for several processes (`torch.distributed`): a store of keys, and operations of all ranks over gloo.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::net::IpAddr;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use tch::Tensor;

use super::{TorchError, error::check, shim};

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn made<T>(pointer: *mut T, operation: &'static str) -> Result<NonNull<T>, TorchError> {
    NonNull::new(pointer).ok_or(TorchError::Operation { operation, message: "nothing was made".to_owned() })
}

/// Whether a process serves a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// Another process does.
    No,
    /// It listens on the port.
    Listening,
    /// It takes over a socket that already listens, by its file descriptor.
    Inherited(c_int),
}

/// A connection to the store of keys that all ranks share (`torch.distributed.TCPStore`). Calls of several threads wait for
/// each other.
#[derive(Debug)]
pub struct Store {
    store: NonNull<shim::Store>,
    /// Whether it serves a socket that it was given.
    has_socket: bool,
}

// SAFETY: c10d's stores lock their connection for each call.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects to the store at `host` and `port`, trying until `timeout`.
    ///
    /// # Errors
    ///
    /// When nobody answers in time, or the port cannot be served.
    pub fn connect(host: &str, port: u16, serving: Serving, timeout: Duration) -> Result<Store, TorchError> {
        const OPERATION: &str = "TCPStore";
        let listening = if let Serving::Inherited(listening) = serving { listening } else { -1 };
        let serves = serving != Serving::No;
        let (text, length) = (host.as_ptr().cast::<c_char>(), host.len());
        let mut store = ptr::null_mut();
        // SAFETY: a text borrowed for the call, and a place to write to.
        let status = unsafe {
            shim::host_torch_store_new(text, length, port, serves, listening, milliseconds(timeout), &mut store)
        };
        check(status, OPERATION)?;
        Ok(Store { store: made(store, OPERATION)?, has_socket: listening >= 0 })
    }

    /// Another connection to the same store, whose keys are apart from all others under `prefix`; an empty one leaves them
    /// together.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn prefixed(&self, prefix: &str) -> Result<Store, TorchError> {
        const OPERATION: &str = "PrefixStore";
        let mut store = ptr::null_mut();
        // SAFETY: a live store, a text borrowed for the call, and a place to write to.
        let status = unsafe {
            shim::host_torch_store_prefixed(self.store.as_ptr(), prefix.as_ptr().cast(), prefix.len(), &mut store)
        };
        check(status, OPERATION)?;
        Ok(Store { store: made(store, OPERATION)?, has_socket: false })
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    ///
    /// When the store is gone.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), TorchError> {
        // SAFETY: a live store, a text and bytes borrowed for the call.
        let status = unsafe {
            shim::host_torch_store_set(self.store.as_ptr(), key.as_ptr().cast(), key.len(), value.as_ptr(), value.len())
        };
        check(status, "Store.set")
    }

    /// The value of a key, if it has one; it never waits for one.
    ///
    /// # Errors
    ///
    /// When the store is gone.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, TorchError> {
        unsafe extern "C" fn visit(context: *mut c_void, value: *const u8, length: usize) {
            // SAFETY: the context is the place below, and the value is borrowed for this call.
            unsafe {
                let found = &mut *context.cast::<Option<Vec<u8>>>();
                *found = Some(match length {
                    0 => Vec::new(),
                    _ => std::slice::from_raw_parts(value, length).to_vec(),
                });
            }
        }
        let mut found: Option<Vec<u8>> = None;
        // SAFETY: a live store, a text borrowed for the call, and a place that outlives it.
        let status = unsafe {
            shim::host_torch_store_get(
                self.store.as_ptr(),
                key.as_ptr().cast(),
                key.len(),
                ptr::from_mut(&mut found).cast(),
                visit,
            )
        };
        check(status, "Store.get")?;
        Ok(found)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.has_socket {
            // libtorch 2.11 closes that socket twice, and the second time its number may be another file's. It is served until the
            // process ends.
            return;
        }
        // SAFETY: made by the functions above, freed once.
        unsafe { shim::host_torch_store_free(self.store.as_ptr()) }
    }
}

/// Says whether operations still wait for other ranks; asked about once a second.
pub trait Patience: Send + Sync {
    /// False gives up.
    fn goes_on(&self) -> bool;
}

/// All ranks of a run, over gloo (`torch.distributed.ProcessGroup`). Its operations are collective: every rank calls them in the
/// same order, on one thread at a time.
pub struct Group {
    group: NonNull<shim::Group>,
    world_size: usize,
    is_abandoned: Cell<bool>,
    /// What the C++ side points to.
    patience: Option<Box<Arc<dyn Patience>>>,
}

impl Group {
    /// Connects all ranks, which meet in `store`. gloo uses the interface of `address`, else the one that the environment
    /// (`GLOO_SOCKET_IFNAME`) or the machine's name says.
    ///
    /// # Errors
    ///
    /// When not all are there within `timeout`.
    pub fn connect(
        store: &Store,
        rank: usize,
        world_size: usize,
        address: Option<IpAddr>,
        timeout: Duration,
        patience: Arc<dyn Patience>,
    ) -> Result<Group, TorchError> {
        const OPERATION: &str = "ProcessGroupGloo";
        unsafe extern "C" fn go_on(context: *mut c_void) -> bool {
            // SAFETY: the context is the patience of a live group.
            unsafe { &*context.cast::<Arc<dyn Patience>>() }.goes_on()
        }
        let mut patience = Box::new(patience);
        let address = address.map_or_else(String::new, |address| address.to_string());
        let (Ok(own), Ok(all)) = (c_int::try_from(rank), c_int::try_from(world_size)) else {
            let message = format!("{world_size} ranks are too many");
            return Err(TorchError::Operation { operation: OPERATION, message });
        };
        let mut group = ptr::null_mut();
        // SAFETY: a live store, a text borrowed for the call, a context that lives as long as the group, and a place to write
        // to.
        let status = unsafe {
            shim::host_torch_group_new(
                store.store.as_ptr(),
                own,
                all,
                address.as_ptr().cast(),
                address.len(),
                milliseconds(timeout),
                go_on,
                ptr::from_mut(&mut *patience).cast(),
                &mut group,
            )
        };
        check(status, OPERATION)?;
        Ok(Group {
            group: made(group, OPERATION)?,
            world_size,
            is_abandoned: Cell::new(false),
            patience: Some(patience),
        })
    }

    pub(super) fn as_ptr(&self) -> *const shim::Group {
        self.group.as_ptr()
    }

    /// Everybody's `input`, in the rows of `[world size, …]`.
    ///
    /// # Errors
    ///
    /// When a rank is gone, or has another shape.
    pub fn all_gather(&self, input: &Tensor) -> Result<Tensor, TorchError> {
        let mut shape = input.size();
        shape.insert(0, i64::try_from(self.world_size).unwrap_or(i64::MAX));
        let output = Tensor::f_empty(&shape, (input.kind(), input.device()))?;
        // SAFETY: a live group and live tensors.
        let status = unsafe { shim::host_torch_group_all_gather(self.group.as_ptr(), output.as_ptr(), input.as_ptr()) };
        check(status, "all_gather")?;
        Ok(output)
    }

    /// Copies `tensors` of rank zero to all, in place.
    ///
    /// # Errors
    ///
    /// When a rank is gone, or has other shapes.
    pub fn broadcast<'t>(&self, tensors: impl IntoIterator<Item = &'t Tensor>) -> Result<(), TorchError> {
        let pointers: Vec<_> = tensors.into_iter().map(Tensor::as_ptr).collect();
        // SAFETY: a live group, and live tensors borrowed for the call.
        let status =
            unsafe { shim::host_torch_group_broadcast(self.group.as_ptr(), pointers.as_ptr(), pointers.len()) };
        check(status, "broadcast")
    }
}

impl Group {
    /// After an operation failed: its threads may wait for a rank for ever, and are left behind until the process ends.
    pub fn abandon(&self) {
        self.is_abandoned.set(true);
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Group").field("world_size", &self.world_size).finish_non_exhaustive()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.is_abandoned.get() {
            // Threads that still work for it may ask whether to go on.
            std::mem::forget(self.patience.take());
            return;
        }
        // SAFETY: made by `host_torch_group_new`, freed once.
        unsafe { shim::host_torch_group_free(self.group.as_ptr()) }
    }
}
