//! A plugin in a process of its own: the same hooks and services, across two processes.
//!
//! [`messages`] is the protocol. `isolated` is the host's end of an instance, [`child`] the program that holds the library;
//! between them are `link`, frames over a `ring` or a socket, and `tensors`, in `memory` that both map.
//!
//! Invariants:
//! * Nothing of the plugin's file is run in the host.
//! * Whatever the child sends is checked: lengths, places of tensors, tickets. It can end its own hooks only.
//! * A child ends with its host, however that ends: by its death signal, and since control is closed.

#[cfg(target_os = "linux")]
pub mod child;
#[cfg(target_os = "linux")]
mod control;
#[cfg(target_os = "linux")]
mod events;
#[cfg(target_os = "linux")]
mod isolated;
#[cfg(target_os = "linux")]
mod link;
#[cfg(target_os = "linux")]
mod memory;
pub mod messages;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod tensors;

use std::time::Duration;

#[cfg(target_os = "linux")]
pub(crate) use isolated::{Isolated, Making, destroy, handle};
#[cfg(target_os = "linux")]
pub(crate) use start::{command, describe, describe_by};

/// How a plugin runs in a process of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// What the process may use.
    pub limits: messages::Limits,
    /// How long opening, creation and each hook may take; a process that takes longer is ended.
    pub timeout: Option<Duration>,
    /// How long the process looks for the next hook before it sleeps: what it costs is a core, what it saves is some
    /// microseconds a hook.
    pub spin: Duration,
}
