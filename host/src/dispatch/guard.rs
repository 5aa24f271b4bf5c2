//! What the training computes with on its thread, and callbacks share: the number of threads and the rounding of numbers. A
//! callback that changes one changes the weights, without an error anywhere; so both are set again, and the callback is named.

use std::collections::BTreeSet;
use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;

use super::hook::Identity;
use super::inline::Target;
use crate::plugins::{FloatControl, Rounding};

/// How this thread computes.
#[derive(Clone, Copy)]
pub(super) struct Computing {
    rounding: Rounding,
    float: FloatControl,
    threads: i32,
}

impl Computing {
    #[inline]
    pub(super) fn of_this_thread() -> Self {
        Self { rounding: Rounding::now(), float: FloatControl::read(), threads: tch::get_num_threads() }
    }

    /// Whether a hook that has just returned left the rounding alone; after one that does not come every step, to the last bit of
    /// the register.
    #[inline(always)]
    pub(super) fn rounds_as_before(self, frequent: bool) -> bool {
        Rounding::now() == self.rounding && (frequent || FloatControl::read() == self.float)
    }

    #[inline]
    pub(super) fn has_its_threads(self) -> bool {
        tch::get_num_threads() == self.threads
    }
}

/// Whom the log has named.
pub(super) struct Guard {
    /// How the thread computed when it was looked at last.
    known: Computing,
    rounding: BTreeSet<Arc<str>>,
    threads: BTreeSet<Arc<str>>,
    /// Whether the number of threads is looked at after each hook, also in passes that come every step: one of them has changed
    /// it. To look costs half as much as a hook.
    pub(super) looks_after_each: bool,
}

impl Guard {
    /// On the thread of the training.
    pub(super) fn new() -> Self {
        Self {
            known: Computing::of_this_thread(),
            rounding: BTreeSet::new(),
            threads: BTreeSet::new(),
            looks_after_each: false,
        }
    }

    /// Before the hooks of a pass: how the thread computes. A program's own step may have changed it.
    #[inline]
    pub(super) fn before(&mut self, frequent: bool) -> Computing {
        if !frequent || Rounding::now() != self.known.rounding {
            self.known = Computing::of_this_thread();
        } else {
            self.known.threads = tch::get_num_threads();
        }
        self.known
    }

    /// After a hook that changed the rounding.
    #[cold]
    pub(super) fn round_again(&mut self, before: Computing, plugin: &Arc<str>, hook: EventKind) {
        before.float.set();
        if self.rounding.insert(Arc::clone(plugin)) {
            let hook = hook.name();
            tracing::warn!(
                "plugin `{plugin}` changed in `{hook}` how numbers are rounded, which would change the weights: \
                 it is set back each time"
            );
        }
    }

    /// After a hook that changed the number of threads.
    #[cold]
    pub(super) fn thread_again(&mut self, before: Computing, plugin: &Arc<str>, hook: EventKind) {
        let now = tch::get_num_threads();
        tch::set_num_threads(before.threads);
        if self.threads.insert(Arc::clone(plugin)) {
            let (hook, before) = (hook.name(), before.threads);
            tracing::warn!(
                "plugin `{plugin}` changed in `{hook}` the number of threads from {before} to {now}, which would change the \
                 weights: it is set back each time"
            );
        }
    }

    /// After the hooks of `targets`, one of which changed the number of threads.
    #[cold]
    pub(super) fn thread_again_after(
        &mut self,
        before: Computing,
        targets: &[Target],
        instances: &[Arc<Identity>],
        hook: EventKind,
    ) {
        let names = || targets.iter().filter_map(|target| instances.get(target.index)).map(|instance| &instance.name);
        let mut all = names();
        if let (Some(only), None) = (all.next(), all.next()) {
            return self.thread_again(before, only, hook);
        }
        tch::set_num_threads(before.threads);
        // If it does so again, it is named.
        self.looks_after_each = true;
        let names: Vec<String> = names().map(|name| format!("`{name}`")).collect();
        tracing::warn!(
            "one of {} changed in `{}` the number of threads, which would change the weights: it is set back",
            names.join(", "),
            hook.name()
        );
    }
}
