//! The child's end: a program that opens one library, and calls its hooks as the host says.
//!
//! The library finds what it finds in a host: the same tables, the same thread for all its hooks, tensors that it can read.

mod calls;
mod limits;

use std::ffi::c_void;
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use host_command::report::Report as _;
use plugin_api::abi::kinds::Status;
use plugin_api::abi::{CreateTable, HostHandle, LibraryTable, Text};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use self::calls::{HOST_TABLE, Hooks};
use super::link::{self, Link, write_frame};
use super::memory::MemoryFile;
use super::messages::{Answer, Create, LONGEST, Opened, Order, PROTOCOL, Report};
use super::ring::Ring;
use super::tensors::{Incoming, Outgoing};
use crate::library::{Library, reply_into, words_of};
use crate::lock::Expected;

/// The program's `main`.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("host-plugin: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let control = take_control()?;
    // Of the thread that has started this process, which calls its hooks.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let Some(Order::Open(open)) = link::read_frame(&control)? else {
        return Err(io::Error::other("the host did not say what to open"));
    };
    if open.protocol != PROTOCOL {
        let message = format!("the host speaks version {} of the protocol, this program {PROTOCOL}", open.protocol);
        return write_frame(&control, &Report::Refused { message, hint: None });
    }
    limits::apply(&open.limits)?;
    let expected = open.sha256.map(|sha256| Expected { sha256, beside: open.beside });
    let library = match Library::open_expecting(Path::new(&open.path), expected.as_ref()) {
        Ok(library) => library,
        Err(error) => {
            let (message, hint) = (error.to_string(), error.hint());
            return write_frame(&control, &Report::Refused { message, hint });
        }
    };
    let descriptors = library.descriptors().iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    write_frame(&control, &Report::Opened(Opened { protocol: PROTOCOL, descriptors, build: library.build() }))?;
    // A host that wanted to know no more closes control.
    let Some((create, descriptors)) = read_create(&control)? else { return Ok(()) };
    let hooks = connect(&create, descriptors)?;
    calls::begin(control, hooks)?;
    run(library.table(), &create)
}

/// Takes the control socket from the standard input, which is empty from then on: a plugin may read it.
fn take_control() -> io::Result<UnixStream> {
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    if rustix::net::sockopt::socket_type(&control).is_err() {
        return Err(io::Error::other("`host` starts this program for plugins with `isolation = \"process\"`"));
    }
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    Ok(control.into())
}

/// Reads the order to make an instance, with the descriptors of hooks, of the host's tensors and of this process's own;
/// `None` at the end.
fn read_create(control: &UnixStream) -> io::Result<Option<(Create, [OwnedFd; 3])>> {
    let mut length = [0; size_of::<u32>()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut length)];
    let received = rustix::net::recvmsg(control, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if received == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    let mut socket = control;
    socket.read_exact(&mut length[received..])?;
    let mut body = Vec::new();
    let length = u32::from_le_bytes(length).min(LONGEST);
    socket.take(u64::from(length)).read_to_end(&mut body)?;
    let order = link::decode::<Order, ()>(&body).map_err(io::Error::other)?;
    match (order, <[OwnedFd; 3]>::try_from(descriptors)) {
        (Order::Create(create), Ok(descriptors)) => Ok(Some((create, descriptors))),
        _ => Err(io::Error::other("the host did not say what to make")),
    }
}

/// The channel of hooks, with the tensors of both sides.
fn connect(create: &Create, descriptors: [OwnedFd; 3]) -> io::Result<Hooks> {
    let [hooks, of_host, own] = descriptors;
    let link = if create.socket {
        Link::socket(hooks.into())?
    } else {
        Link::ring(Ring::open(hooks, Duration::from_micros(create.spin_us.into()))?)
    };
    let (incoming, outgoing) = (Incoming::new(MemoryFile::of(of_host)), Outgoing::new(MemoryFile::of(own))?);
    Ok(Hooks::new(link, incoming, outgoing))
}

/// Makes the instance, and calls its hooks until the host needs it no more.
fn run(library: &LibraryTable, create: &Create) -> io::Result<()> {
    let mut instance = std::ptr::null_mut::<c_void>();
    let mut words = Vec::new();
    let request = CreateTable {
        size: size_of::<CreateTable>() as u32,
        minor: create.minor,
        options: Text::new(&create.options),
        instance: Text::new(&create.name),
        log: calls::take_record,
        host: handle(create.ticket),
    };
    let reply = reply_into(&mut words);
    calls::enter(create.ticket);
    // SAFETY: the library's function; request, place and reply outlive the call.
    let status = unsafe { (library.create)(create.kind, &raw const request, &raw mut instance, &raw const reply) };
    let reported = calls::leave();
    let (status, message) = match status {
        Status::OK if instance.is_null() => {
            (Status::ERROR, "it said that it had made an instance, and left it null".to_owned())
        }
        Status::OK => (Status::OK, String::new()),
        failed if words.is_empty() => (failed, reported.unwrap_or_else(|| words_of(failed, &words))),
        failed => (failed, words_of(failed, &words)),
    };
    calls::send(&Answer::Returned { status: status.0, message })?;
    if status != Status::OK {
        return Ok(());
    }
    loop {
        let status = match calls::receive()? {
            Order::Event(event) => {
                calls::enter(event.ticket);
                // SAFETY: the library's function, on an instance that it made; the event outlives the call.
                let status = event
                    .lower(|table| unsafe { (library.handle)(create.kind, instance, table, handle(event.ticket)) });
                calls::leave();
                status
            }
            Order::Destroy {} => {
                // SAFETY: made by `create`, and ended once, here.
                let status = unsafe { (library.destroy)(create.kind, instance) };
                return calls::send(&Answer::Returned { status: status.0, message: String::new() });
            }
            _ => return Err(io::Error::other("the host says what it does not say here")),
        };
        calls::send(&Answer::Returned { status: status.0, message: String::new() })?;
    }
}

fn handle(ticket: u64) -> HostHandle {
    HostHandle { table: &raw const HOST_TABLE, ticket }
}
