//! An instance that a library made: its one owner, which ends it.

use std::ffi::c_void;

use plugin_api::abi::kinds::Status;
use plugin_api::abi::{CreateTable, EventTable, HostHandle, MINOR, Text};

use super::catalogue::Kind;
use super::error::LoadError;
use super::library::{reply_into, words_of};
use super::process::Isolation;

/// Why a hook failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The plugin's words.
    pub message: String,
    /// Whether it panicked.
    pub panicked: bool,
    /// Whether the process that it had of its own is gone.
    pub ended: bool,
    /// Where it panicked, `file:line:column`; empty when it did not.
    pub place: String,
}

/// What `handle` returns where the process of an isolated instance is gone; no status of the ABI.
pub const ENDED: Status = Status(u32::MAX);

impl Fault {
    /// An error, in these words.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), panicked: false, ended: false, place: String::new() }
    }

    /// A failure with a status, in these words.
    pub fn with(status: Status, message: String, place: String) -> Self {
        Self { message, panicked: status == Status::PANIC, ended: status == ENDED, place }
    }

    /// Whether the instance must not be entered again, not even by its destructor.
    pub fn is_final(&self) -> bool {
        self.panicked || self.ended
    }
}

/// An instance of a kind. Its hooks never overlap: every call takes `&mut self`.
pub struct Instance {
    /// The table's `handle`, kept here: a step's hooks find all that they need in one place.
    handle: unsafe extern "C" fn(u32, *mut c_void, *const EventTable, HostHandle) -> Status,
    destroy: unsafe extern "C" fn(u32, *mut c_void) -> Status,
    index: u32,
    pointer: *mut c_void,
}

// SAFETY: a callback is `Send` (the SDK demands it, the ABI's contract says it), and `&mut self`
// keeps its calls from overlapping.
unsafe impl Send for Instance {}

impl Instance {
    /// Creates an instance called `name` with `options`, which satisfy the kind's schema; with `isolation` in a process of its
    /// own. `host` answers what it asks for
    /// meanwhile; `reported` is the last failure that it reported there.
    ///
    /// # Errors
    ///
    /// The callback's own refusal, or its panic.
    pub fn create(
        kind: &Kind,
        isolation: Option<&Isolation>,
        name: &str,
        options: &serde_json::Value,
        host: HostHandle,
        reported: impl FnOnce() -> Option<String>,
    ) -> Result<Self, Fault> {
        if let Some(isolation) = isolation {
            return Self::create_isolated(kind, isolation, name, options, host);
        }
        let library = kind.library().map_err(|error| Fault::new(error.to_string()))?;
        let options = options.to_string();
        let request = CreateTable {
            size: size_of::<CreateTable>() as u32,
            minor: MINOR,
            options: Text::new(&options),
            instance: Text::new(name),
            log: super::log::take_record,
            host,
        };
        let mut words = Vec::new();
        let reply = reply_into(&mut words);
        let mut pointer = std::ptr::null_mut();
        let (table, index) = (library.table(), kind.index);
        // SAFETY: the library's function; request, place and reply outlive the call.
        let status = unsafe { (table.create)(index, &raw const request, &raw mut pointer, &raw const reply) };
        let message = match status {
            Status::OK if pointer.is_null() => "it said that it had made an instance, and left it null".to_owned(),
            Status::OK => return Ok(Self { handle: table.handle, destroy: table.destroy, index, pointer }),
            failed if words.is_empty() => reported().unwrap_or_else(|| words_of(failed, &words)),
            failed => words_of(failed, &words),
        };
        Err(Fault::with(status, message, String::new()))
    }

    #[cfg(target_os = "linux")]
    fn create_isolated(
        kind: &Kind,
        isolation: &Isolation,
        name: &str,
        options: &serde_json::Value,
        host: HostHandle,
    ) -> Result<Self, Fault> {
        use crate::process::{Isolated, Making, command, destroy, handle};
        let failed = |error: LoadError| Fault::new(error.to_string());
        let starter = kind.starter();
        let making = Making {
            path: kind.path(),
            expected: kind.expected(),
            package: starter.map(|starter| starter.package().clone()),
            kind: (kind.index, &kind.descriptor().kind),
            name,
            options: options.to_string(),
            host,
        };
        let command = match starter {
            Some(starter) => starter.command(),
            None => command(kind.path()).map_err(failed)?,
        };
        let isolated = Isolated::create(command, starter.is_some(), making, isolation)?;
        let pointer = Box::into_raw(Box::new(isolated)).cast();
        Ok(Self { handle, destroy, index: kind.index, pointer })
    }

    #[cfg(not(target_os = "linux"))]
    fn create_isolated(
        kind: &Kind,
        _: &Isolation,
        _: &str,
        _: &serde_json::Value,
        _: HostHandle,
    ) -> Result<Self, Fault> {
        let error = LoadError::NoIsolation { path: kind.path().to_owned() };
        Err(Fault::new(error.to_string()))
    }

    /// Hands one event to the callback. The message of a failure comes by the service `fault`.
    #[inline]
    pub fn handle(&mut self, event: &EventTable, host: HostHandle) -> Status {
        // SAFETY: the library's function, on an instance that it made; the event outlives the call.
        unsafe { (self.handle)(self.index, self.pointer, event, host) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: made by `create`, and ended once, here.
        let status = unsafe { (self.destroy)(self.index, self.pointer) };
        if status != Status::OK {
            tracing::warn!("a plugin panicked while its instance was dropped");
        }
    }
}
