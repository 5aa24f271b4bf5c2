//! The glue between the trait and the ABI: what `#[plugin]` exports.
//!
//! Every function that the host calls catches panics: a panic across the ABI would end the process.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::abi::kinds::{EventKind, ServiceKind, Status};
use crate::abi::{
    Bytes, CreateTable, EventTable, HostHandle, LibraryTable, MAGIC, MAJOR, MINOR, ReplyTable, Text, read_table,
};
use crate::callback::{Callback, Creation, Dispatch, Ranks, When};
use crate::error::{Error, Result};
use crate::event::{FromTable, saved_state};
use crate::protocol::requests::Failure;
use crate::protocol::{Descriptor, Need};
use crate::run::Run;
use crate::services::typed;
use crate::{call, log};

/// A kind of callback, for the list that a library exports.
#[derive(Clone, Copy)]
pub struct Kind {
    describe: fn() -> Descriptor,
    create: fn(&str, &Creation<'_>) -> Result<*mut c_void>,
    handle: unsafe fn(*mut c_void, &EventTable, HostHandle) -> Status,
    destroy: unsafe fn(*mut c_void),
}

impl Kind {
    /// The kind that `T` implements.
    pub const fn of<T: Callback>() -> Self {
        Self { describe: describe::<T>, create: create::<T>, handle: handle::<T>, destroy: destroy::<T> }
    }
}

/// The kinds of a library, as a type, so that `extern "C"` functions can find them.
#[doc(hidden)]
pub trait Library: 'static {
    /// The list that `#[plugin]` exports.
    const KINDS: &'static [Kind];
}

/// The table of a library.
#[doc(hidden)]
pub fn library_table<L: Library>() -> LibraryTable {
    LibraryTable {
        size: size_of::<LibraryTable>() as u32,
        major: MAJOR,
        magic: MAGIC,
        minor: MINOR,
        pointer_size: size_of::<*const ()>() as u32,
        sdk: Text::new(concat!("plugin-api ", env!("CARGO_PKG_VERSION"))),
        compiler: Text::new(env!("PLUGIN_API_COMPILER")),
        target: Text::new(env!("PLUGIN_API_TARGET")),
        unwinds: u32::from(cfg!(panic = "unwind")),
        kinds: L::KINDS.len() as u32,
        describe: library_describe::<L>,
        create: library_create::<L>,
        handle: library_handle::<L>,
        destroy: library_destroy::<L>,
    }
}

fn describe<T: Callback>() -> Descriptor {
    let hooks: Vec<EventKind> = EventKind::ALL.iter().copied().filter(|event| T::HOOKS.contains(*event)).collect();
    let newest_hook = hooks.iter().map(|event| event.since()).max().unwrap_or(0);
    let newest_need = T::NEEDS.iter().map(|need| need.since).max().unwrap_or(0);
    Descriptor {
        kind: T::KIND.to_owned(),
        version: T::VERSION.to_owned(),
        summary: T::SUMMARY.to_owned(),
        license: T::LICENSE.to_owned(),
        hooks: hooks.iter().map(|event| event.name().to_owned()).collect(),
        needs: T::NEEDS
            .iter()
            .map(|need| Need {
                hook: need.hook.map(|hook| hook.name().to_owned()).unwrap_or_default(),
                what: need.what.to_owned(),
                write: need.write,
            })
            .collect(),
        requires_minor: newest_hook.max(newest_need),
        options: Some(schemars::schema_for!(T::Options).to_value()),
        when: when_document(T::WHEN),
        dispatch: match T::DISPATCH {
            Dispatch::Inline => "inline",
            Dispatch::Background => "background",
        }
        .to_owned(),
        by_default: T::BY_DEFAULT,
        ranks: match T::RANKS {
            Ranks::Zero => "zero",
            Ranks::All => "all",
        }
        .to_owned(),
        produces: T::PRODUCES.iter().map(|&name| name.to_owned()).collect(),
        reads: T::READS.iter().map(|&name| name.to_owned()).collect(),
        #[cfg(feature = "next-minor")]
        homepage: String::new(),
    }
}

fn when_document(when: When) -> Option<serde_json::Value> {
    (when != When::EVERY_EPOCH).then(|| {
        let mut document = serde_json::Map::new();
        if let Some(every) = when.every {
            document.insert("every".to_owned(), every.into());
        }
        if !when.at.is_empty() {
            document.insert("at".to_owned(), when.at.into());
        }
        document.into()
    })
}

fn create<T: Callback>(options: &str, creation: &Creation<'_>) -> Result<*mut c_void> {
    let options = serde_json::from_str(options).map_err(|error| Error::new(format!("options: {error}")))?;
    Ok(Box::into_raw(Box::new(T::new(options, creation)?)).cast())
}

unsafe fn destroy<T: Callback>(instance: *mut c_void) {
    // SAFETY: made by `create::<T>`, and destroyed once, by the table's contract.
    drop(unsafe { Box::from_raw(instance.cast::<T>()) });
}

/// The hot path. Guarded here and not by its caller, so that the compiler optimizes hook and guard together.
unsafe fn handle<T: Callback>(instance: *mut c_void, event: &EventTable, host: HostHandle) -> Status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { deliver::<T>(instance, event, host) }).unwrap_or_else(|failure| tell(host, failure))
}

#[inline]
unsafe fn deliver<T: Callback>(instance: *mut c_void, event: &EventTable, host: HostHandle) -> Result<Status> {
    // SAFETY: made by `create::<T>`; hooks of an instance never overlap, by the table's contract.
    let callback = unsafe { &mut *instance.cast::<T>() };
    let run = &mut Run::new(host);
    // The guards are constants: they compile to one comparison for each existing method.
    macro_rules! call_hook {
        ($($(#[$attribute:meta])* $event:ident => $method:ident,)*) => {
            match event.kind {
                $($(#[$attribute])* EventKind::$event if T::HOOKS.contains(EventKind::$event) => {
                    // SAFETY: the event is of the kind whose table the method's event reads.
                    let event = unsafe { FromTable::from_table(event) };
                    callback.$method(run, &event)
                })*
                EventKind::LOAD_STATE if T::HOOKS.contains(EventKind::LOAD_STATE) => {
                    // SAFETY: a `load_state` event.
                    let (state, version) = unsafe { saved_state(event) };
                    callback.on_load_state(&mut Run::new(host).with_saved_version(&version), state)
                }
                EventKind::SAVE_STATE if T::HOOKS.contains(EventKind::SAVE_STATE) => {
                    // SAFETY: the event has no table of its own.
                    let event = unsafe { FromTable::from_table(event) };
                    let state = callback.on_save_state(run, &event)?;
                    call::call_raw(host, ServiceKind::SAVE_STATE, &state, &[]).map(drop)
                }
                // The author wrote no method for it, and the trait's default does nothing.
                known if EventKind::ALL.contains(&known) => Ok(()),
                // A newer host's event: this SDK has no method for it.
                _ => return Ok(Status::UNKNOWN),
            }
        };
    }
    call_hook! {
        SETUP => on_setup,
        TRAIN_START => on_train_start,
        TRAIN_END => on_train_end,
        EPOCH_START => on_epoch_start,
        EPOCH_TRAINED => on_epoch_trained,
        EPOCH_END => on_epoch_end,
        STEP_START => on_step_start,
        STEP_END => on_step_end,
        GRADIENTS => on_gradients,
        EVAL_START => on_eval_start,
        EVAL_STEP_START => on_eval_step_start,
        EVAL_STEP_END => on_eval_step_end,
        EVAL_END => on_eval_end,
        PREDICT_START => on_predict_start,
        PREDICT_STEP => on_predict_step,
        PREDICT_END => on_predict_end,
        EXPORT => on_export,
        TRIGGER => on_trigger,
        RECORD => on_record,
        CUSTOM => on_custom,
        CHECKPOINT => on_checkpoint,
        CHECKPOINT_WRITTEN => on_checkpoint_written,
        ARTIFACT => on_artifact,
        STOPPING => on_stopping,
        ERROR => on_error,
        TEARDOWN => on_teardown,
        TRAINED => on_trained,
        #[cfg(feature = "next-minor")]
        SAFE_POINT => on_safe_point,
    }?;
    Ok(Status::OK)
}

unsafe extern "C" fn library_describe<L: Library>(index: u32, reply: *const ReplyTable) -> Status {
    install_panic_hook();
    guarded(|| {
        let kind = L::KINDS.get(index as usize).ok_or_else(|| no_such_kind(index))?;
        let document = serde_json::to_vec(&(kind.describe)())?;
        // SAFETY: the host's reply table outlives the call.
        unsafe { answer(reply, &document) };
        Ok(Status::OK)
    })
    .unwrap_or_else(|failure| {
        // SAFETY: as above.
        unsafe { answer(reply, failure.text().as_bytes()) };
        failure.status
    })
}

unsafe extern "C" fn library_create<L: Library>(
    index: u32,
    request: *const CreateTable,
    instance: *mut *mut c_void,
    reply: *const ReplyTable,
) -> Status {
    install_panic_hook();
    guarded(|| {
        let kind = L::KINDS.get(index as usize).ok_or_else(|| no_such_kind(index))?;
        // SAFETY: the host's request outlives the call.
        let request = unsafe { read_table(request) }.ok_or_else(|| Error::new("the host gave no request"))?;
        log::install(request.log);
        // SAFETY: borrowed until this function returns.
        let (options, name) = unsafe { (request.options.read(), request.instance.read()) };
        let made = (kind.create)(&options, &Creation { instance: &name })?;
        // SAFETY: the host's memory for one pointer.
        unsafe { instance.write(made) };
        Ok(Status::OK)
    })
    .unwrap_or_else(|failure| {
        // SAFETY: the host's reply table outlives the call.
        unsafe { answer(reply, failure.text().as_bytes()) };
        failure.status
    })
}

unsafe extern "C" fn library_handle<L: Library>(
    index: u32,
    instance: *mut c_void,
    event: *const EventTable,
    host: HostHandle,
) -> Status {
    let kind = match L::KINDS {
        // The compiler knows a library's only kind and calls it without the list.
        [only] if index == 0 => only,
        kinds => match kinds.get(index as usize) {
            Some(kind) => kind,
            None => return tell(host, failure_of(no_such_kind(index))),
        },
    };
    // SAFETY: the host's event outlives the call.
    let Some(event) = (unsafe { read_table(event) }) else {
        return tell(host, failure_of(Error::new("the host gave no event")));
    };
    // SAFETY: `instance` was made by this kind's `create`.
    unsafe { (kind.handle)(instance, &event, host) }
}

#[cold]
fn tell(host: HostHandle, failure: GuardedFailure) -> Status {
    let told = Failure { message: failure.message, place: failure.place };
    // The host cannot be told that telling it failed.
    let _ = call::call(host, typed::FAULT, &told);
    failure.status
}

unsafe extern "C" fn library_destroy<L: Library>(index: u32, instance: *mut c_void) -> Status {
    guarded(|| {
        let kind = L::KINDS.get(index as usize).ok_or_else(|| no_such_kind(index))?;
        // SAFETY: `instance` was made by this kind's `create`, and this is its one `destroy`.
        unsafe { (kind.destroy)(instance) };
        Ok(Status::OK)
    })
    .unwrap_or_else(|failure| failure.status)
}

fn no_such_kind(index: u32) -> Error {
    Error::new(format!("the library has no kind {index}"))
}

/// # Safety
///
/// `reply` must be a table that outlives the call.
unsafe fn answer(reply: *const ReplyTable, bytes: &[u8]) {
    // SAFETY: the caller's promise.
    let Some(reply) = (unsafe { read_table(reply) }) else { return };
    // SAFETY: the host's function, with its own context; the bytes outlive the call.
    unsafe { (reply.bytes)(reply.context, Bytes::new(bytes)) };
}

struct GuardedFailure {
    status: Status,
    message: String,
    place: String,
}

impl GuardedFailure {
    fn text(&self) -> String {
        if self.place.is_empty() {
            self.message.clone()
        } else {
            format!("{} (panicked at {})", self.message, self.place)
        }
    }
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the author's code; a panic becomes a failure with message and place.
#[inline]
fn guarded(body: impl FnOnce() -> Result<Status>) -> Result<Status, GuardedFailure> {
    // One access: in a shared library each costs a call. The panic is not caught inside `with`, which
    // would pass its outcome through memory.
    let depth: *const Cell<u32> = DEPTH.with(std::ptr::from_ref);
    // SAFETY: a thread-local variable without a destructor exists until the thread ends.
    let depth = unsafe { &*depth };
    depth.set(depth.get() + 1);
    // The host disables an instance that panicked, so its inconsistent state is never used.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    depth.set(depth.get() - 1);
    match outcome {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) => Err(failure_of(error)),
        Err(panic) => Err(failure_of_panic(panic)),
    }
}

#[cold]
fn failure_of(error: Error) -> GuardedFailure {
    GuardedFailure { status: Status::ERROR, message: error.message().to_owned(), place: String::new() }
}

#[cold]
fn failure_of_panic(panic: Box<dyn Any + Send>) -> GuardedFailure {
    let message = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panicked with a value that is not text".to_owned());
    // The value's own drop may panic; leaking it is the lesser evil.
    std::mem::forget(panic);
    GuardedFailure { status: Status::PANIC, message, place: PLACE.take() }
}

/// Keeps a hook's panic off the terminal, which belongs to the host, and remembers its place. The panic hook is
/// this library's own (its copy of the standard library); panics outside hooks print as usual.
fn install_panic_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                previous(panic);
            } else if let Some(place) = panic.location() {
                PLACE.set(place.to_string());
            }
        }));
    });
}
