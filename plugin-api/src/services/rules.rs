//! The meaning of a row of the table, and the one place that decides whether a call is permitted.

use serde::de::DeserializeOwned;

use super::ServiceKind;
use super::names::list_names;
use crate::abi::kinds::{EventKind, Status};
use crate::protocol::requests::{ControlRequest, CopyRequest, TensorsRequest};
use crate::protocol::{Control, CopyAction, Need, TensorSet};

/// A set of hooks. Bit 0 is the creation of an instance, the others are those of [`EventKind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookSet(pub u64);

impl HookSet {
    /// Every hook, and the creation of an instance.
    pub const ALWAYS: Self = Self(u64::MAX);

    /// Every hook.
    pub const ANY: Self = Self::ALWAYS.without(&[EventKind::CREATE]);

    /// The hooks in which no step and no batch of an evaluation can be in progress, so that weights may change. Events
    /// between callbacks, and events about a failure, can also come in the middle of a step.
    pub const IDLE: Self = Self::ANY.without(&[
        EventKind::STEP_START,
        EventKind::GRADIENTS,
        EventKind::EVAL_STEP_START,
        EventKind::EVAL_STEP_END,
        EventKind::PREDICT_STEP,
        EventKind::RECORD,
        EventKind::CUSTOM,
        EventKind::ARTIFACT,
        EventKind::CHECKPOINT_WRITTEN,
        EventKind::ERROR,
    ]);

    /// The set of `hooks`.
    pub const fn of(hooks: &[EventKind]) -> Self {
        let mut set = 0;
        let mut index = 0;
        while index < hooks.len() {
            set |= 1 << hooks[index].0;
            index += 1;
        }
        Self(set)
    }

    /// This set without `hooks`.
    pub const fn without(self, hooks: &[EventKind]) -> Self {
        Self(self.0 & !Self::of(hooks).0)
    }

    /// The set of the events that the methods called `names` handle.
    #[doc(hidden)]
    pub const fn of_methods(names: &[&str]) -> Self {
        let mut set = 0;
        let mut index = 0;
        while index < names.len() {
            let mut known = 0;
            while known < EventKind::ALL.len() {
                if is_method_of(names[index], EventKind::ALL[known].name()) {
                    set |= 1 << EventKind::ALL[known].0;
                }
                known += 1;
            }
            index += 1;
        }
        Self(set)
    }

    /// Whether `event` is in it.
    pub const fn contains(self, event: EventKind) -> bool {
        event.0 < 64 && self.0 & (1 << event.0) != 0
    }

    /// Its hooks as a sentence lists them.
    fn list(self) -> String {
        list_names(EventKind::ALL.iter().filter(|event| self.contains(**event)).map(|event| event.name()), "and")
    }
}

/// Whether `method` is `on_<event>`.
const fn is_method_of(method: &str, event: &str) -> bool {
    let (method, event) = (method.as_bytes(), event.as_bytes());
    if method.len() != event.len() + 3 || method[0] != b'o' || method[1] != b'n' || method[2] != b'_' {
        return false;
    }
    let mut index = 0;
    while index < event.len() {
        if method[index + 3] != event[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// A service's row in the table.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, in messages and in descriptors.
    pub name: &'static str,
    /// The minor version of the ABI that added it.
    pub since: u32,
    /// Whether it is not stable yet.
    pub is_draft: bool,
    /// Whether it changes the run.
    pub effect: Effect,
    /// Where it may be called.
    pub hooks: Hooks,
    /// What it does for a callback in the background.
    pub background: Background,
    /// Whether a remote may call it.
    pub remote: bool,
    /// On which ranks of a run of several it may be called.
    pub ranks: Ranks,
}

/// Whether a service changes a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Never.
    Reads,
    /// It does what the caller asks for.
    Acts,
}

/// Where a service may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// In these.
    In(HookSet),
    /// Depends on the request: on the set of tensors, or on the action.
    ByContent,
}

/// What a service does for a callback in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Background {
    /// As on the training thread: it does not need the loop.
    Direct,
    /// It answers from the snapshot that was made with the event.
    Snapshot,
    /// It acts before the next event of the run.
    Later,
    /// It needs the training thread.
    Never,
}

/// On which ranks of a run of several a service may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    /// On each independently.
    Any,
    /// On all of them, alike: it changes the training, and otherwise the ranks would differ, or wait for each other.
    Every,
    /// Depends on the request: on the action.
    ByContent,
}

/// On which ranks of its run an instance is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// The run has one rank.
    #[default]
    Single,
    /// On rank zero of several.
    Zero,
    /// On each of several.
    All,
}

/// Who calls a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A hook on the training thread.
    Inline,
    /// A hook on a thread of its own.
    Background,
    /// A remote, on any thread.
    Remote,
}

/// Where a service is called from.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Who calls.
    pub caller: Caller,
    /// In which hook; for a remote it does not matter.
    pub hook: EventKind,
    /// The needs that the kind of callback declares: only those are copied for the background.
    pub needs: &'a [Need],
    /// On which ranks the instance is; for a remote it does not matter.
    pub presence: Presence,
}

/// Where a permitted call is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By the hook's own thread, without the loop.
    Direct,
    /// By the loop, now.
    Run,
    /// By the snapshot of the event.
    Snapshot,
    /// By the loop, before its next event; the caller does not wait.
    Later,
}

/// Why a call is not permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of refusal.
    pub status: Status,
    /// The reason, in one sentence.
    pub message: String,
}

impl Refusal {
    fn not_allowed(message: String) -> Self {
        Self { status: Status::NOT_ALLOWED, message }
    }
}

/// Decides whether `service` may be called from `site` with the request `payload`, and where the call is answered.
///
/// # Errors
///
/// An unknown service, another hook, a service that the caller may not use, a change of the training by an instance that
/// is not on every rank, something that was not copied for a callback in the background, or an invalid request if the
/// decision depends on it.
pub fn permit(service: ServiceKind, site: &Site<'_>, payload: &[u8]) -> Result<Route, Refusal> {
    let Site { caller, hook, needs, presence } = *site;
    let Some(rule) = service.rule() else {
        return Err(Refusal {
            status: Status::UNKNOWN,
            message: format!("this host has no service {}; use a newer host", service.0),
        });
    };
    let name = rule.name;
    if caller == Caller::Remote {
        if !rule.remote {
            let offered = ServiceKind::ALL.iter().filter(|service| service.rule().is_some_and(|rule| rule.remote));
            return Err(Refusal::not_allowed(format!(
                "a remote cannot call `{name}`: it can call {}",
                list_names(offered.map(|service| service.name()), "and")
            )));
        }
        if service == ServiceKind::CONTROL && decode::<ControlRequest>(payload)?.action == Control::SkipUpdate {
            return Err(Refusal::not_allowed(
                "an update can be skipped only in `gradients`, not by a remote".to_owned(),
            ));
        }
        return Ok(if rule.effect == Effect::Acts { Route::Later } else { Route::Snapshot });
    }
    if hook == EventKind::CREATE && rule.hooks != Hooks::In(HookSet::ALWAYS) {
        return Err(Refusal::not_allowed(format!("`{name}` cannot be called while an instance is created")));
    }
    match rule.hooks {
        Hooks::In(hooks) if hooks.contains(hook) => {}
        Hooks::In(HookSet::IDLE) => return Err(in_progress(&format!("`{name}` cannot be called"), hook)),
        Hooks::In(hooks) => {
            return Err(Refusal::not_allowed(format!(
                "`{name}` can be called only in {}, not in `{}`",
                hooks.list(),
                hook.name()
            )));
        }
        Hooks::ByContent => permit_content(service, caller, hook, payload)?,
    }
    if presence != Presence::Single {
        permit_on_ranks(service, rule, site, payload)?;
    }
    match (caller, rule.background) {
        (_, Background::Direct) => Ok(Route::Direct),
        (Caller::Inline, _) => Ok(Route::Run),
        (_, Background::Snapshot) => {
            copied(service, hook, needs, payload)?;
            Ok(Route::Snapshot)
        }
        (_, Background::Later) => Ok(Route::Later),
        (_, Background::Never) => Err(Refusal::not_allowed(format!(
            "`{name}` needs the training thread: set `dispatch = \"inline\"` for this callback"
        ))),
    }
}

/// The services whose hooks depend on the request.
fn permit_content(service: ServiceKind, caller: Caller, hook: EventKind, payload: &[u8]) -> Result<(), Refusal> {
    match service {
        ServiceKind::CONTROL => {
            if decode::<ControlRequest>(payload)?.action != Control::SkipUpdate {
                return Ok(());
            }
            if caller != Caller::Inline {
                return Err(Refusal::not_allowed(
                    "an update can be skipped only on the training thread: in the background it is already done"
                        .to_owned(),
                ));
            }
            in_hooks(HookSet::of(&[EventKind::GRADIENTS]), hook, "an update can be skipped")
        }
        ServiceKind::TENSOR_LIST | ServiceKind::TENSOR_READ => {
            let set = decode::<TensorsRequest>(payload)?.set;
            in_hooks(tensors_readable(&set), hook, &format!("`{set}` can be read"))
        }
        ServiceKind::TENSOR_WRITE => {
            let set = decode::<TensorsRequest>(payload)?.set;
            match tensors_writable(&set) {
                Some(HookSet::IDLE) if !HookSet::IDLE.contains(hook) => {
                    Err(in_progress(&format!("`{set}` cannot be written"), hook))
                }
                Some(hooks) => in_hooks(hooks, hook, &format!("`{set}` can be written")),
                None => Err(Refusal::not_allowed(format!("`{set}` cannot be written"))),
            }
        }
        _ => match decode::<CopyRequest>(payload)?.action {
            CopyAction::Restore if !HookSet::IDLE.contains(hook) => {
                Err(in_progress("weights cannot be restored", hook))
            }
            _ => Ok(()),
        },
    }
}

/// In a run of several ranks, refuses changes of the training that the other ranks do not make, or make at another moment.
fn permit_on_ranks(service: ServiceKind, rule: &Rule, site: &Site<'_>, payload: &[u8]) -> Result<(), Refusal> {
    let what = match (rule.ranks, service) {
        (Ranks::Any, _) => return Ok(()),
        (Ranks::Every, ServiceKind::TENSOR_WRITE) => {
            format!("to write `{}`", decode::<TensorsRequest>(payload)?.set)
        }
        (Ranks::Every, _) => format!("`{}`", rule.name),
        (Ranks::ByContent, ServiceKind::CONTROL) => match decode::<ControlRequest>(payload)?.action {
            Control::SkipUpdate => "to skip an update".to_owned(),
            _ => return Ok(()),
        },
        (Ranks::ByContent, _) => match decode::<CopyRequest>(payload)?.action {
            CopyAction::Restore => format!("`{}` with `restore`", rule.name),
            _ => return Ok(()),
        },
    };
    match (site.presence, site.caller) {
        (Presence::All, Caller::Inline) => Ok(()),
        (Presence::All, _) => Err(Refusal::not_allowed(format!(
            "{what} changes the training, which every rank must do after the same step: in the background that is not sure; \
             set `dispatch = \"inline\"` for this callback"
        ))),
        _ => Err(Refusal::not_allowed(format!(
            "{what} changes the training, which every rank must do alike, and this callback runs on rank 0 only: set \
             `ranks = \"all\"` in its `[[plugins]]` entry"
        ))),
    }
}

/// Refuses what an event's snapshot does not hold.
fn copied(service: ServiceKind, hook: EventKind, needs: &[Need], payload: &[u8]) -> Result<(), Refusal> {
    let wanted = match service {
        ServiceKind::TENSOR_LIST | ServiceKind::TENSOR_READ => vec![decode::<TensorsRequest>(payload)?.set.to_string()],
        ServiceKind::LOSS => vec![TensorSet::Outputs.to_string()],
        ServiceKind::PREDICT => vec![TensorSet::Parameters.to_string(), TensorSet::Buffers.to_string()],
        ServiceKind::WRITE_CHECKPOINT => vec![Need::TRAINING_STATE.to_owned()],
        _ => Vec::new(),
    };
    let is_copied = |what: &String| needs.iter().any(|need| need.what == *what && need.is_for(hook));
    let Some(what) = wanted.iter().find(|what| !is_copied(what)) else { return Ok(()) };
    Err(Refusal::not_allowed(format!(
        "`{what}` was not copied for `{}`: a callback that reads it in the background must name it in `NEEDS`",
        hook.name()
    )))
}

fn in_hooks(hooks: HookSet, hook: EventKind, what: &str) -> Result<(), Refusal> {
    if hooks.contains(hook) {
        return Ok(());
    }
    Err(Refusal::not_allowed(format!("{what} only in {}, not in `{}`", hooks.list(), hook.name())))
}

fn in_progress(what: &str, hook: EventKind) -> Refusal {
    Refusal::not_allowed(format!("{what} in `{}`, where a step can be in progress", hook.name()))
}

fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Refusal> {
    rmp_serde::from_slice(payload)
        .map_err(|error| Refusal { status: Status::ERROR, message: format!("the request is not understood: {error}") })
}

/// In which hooks the tensors of a set can be read.
///
/// Gradients exist from `gradients` on, and in `trigger` those of the last step, as the optimizer used them; so do
/// the batch, the output, the taps and the loss. A step in f16 that did not fit has gradients that nobody used.
pub const fn tensors_readable(set: &TensorSet) -> HookSet {
    use EventKind as E;
    match set {
        TensorSet::Gradients => HookSet::of(&[E::GRADIENTS, E::STEP_END, E::TRIGGER]),
        TensorSet::Batch => HookSet::of(&[
            E::STEP_START,
            E::GRADIENTS,
            E::STEP_END,
            E::TRIGGER,
            E::EVAL_STEP_START,
            E::EVAL_STEP_END,
            E::PREDICT_STEP,
        ]),
        TensorSet::Outputs => HookSet::of(&[E::GRADIENTS, E::STEP_END, E::TRIGGER, E::EVAL_STEP_END, E::PREDICT_STEP]),
        TensorSet::Event => HookSet::of(&[E::CUSTOM]),
        TensorSet::Taps => HookSet::of(&[E::GRADIENTS, E::STEP_END, E::TRIGGER, E::EVAL_STEP_END, E::PREDICT_STEP]),
        TensorSet::Parameters | TensorSet::Buffers | TensorSet::Optimizer | TensorSet::Copy(_) => HookSet::ANY,
    }
}

/// In which hooks the tensors of a set can be written; `None` for a set that cannot be written.
pub const fn tensors_writable(set: &TensorSet) -> Option<HookSet> {
    Some(match set {
        TensorSet::Parameters | TensorSet::Buffers | TensorSet::Optimizer => HookSet::IDLE,
        TensorSet::Gradients => HookSet::of(&[EventKind::GRADIENTS]),
        TensorSet::Batch => HookSet::of(&[EventKind::STEP_START]),
        TensorSet::Copy(_) => HookSet::ANY,
        TensorSet::Outputs | TensorSet::Taps | TensorSet::Event => return None,
    })
}

/// The hooks of a row.
macro_rules! hooks {
    (always) => { $crate::services::rules::Hooks::In($crate::services::rules::HookSet::ALWAYS) };
    (any) => { $crate::services::rules::Hooks::In($crate::services::rules::HookSet::ANY) };
    (idle) => { $crate::services::rules::Hooks::In($crate::services::rules::HookSet::IDLE) };
    (content) => { $crate::services::rules::Hooks::ByContent };
    ([$($hook:ident)*]) => {
        $crate::services::rules::Hooks::In($crate::services::rules::HookSet::of(&[$($crate::abi::kinds::EventKind::$hook),*]))
    };
}

macro_rules! yes {
    (yes) => {
        true
    };
    (no) => {
        false
    };
}

pub(super) use {hooks, yes};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_set_is_that_of_the_methods() {
        let set = HookSet::of_methods(&["new", "on_epoch_end", "on_step_end", "on_no_such_event", "helper"]);
        let names: Vec<_> =
            EventKind::ALL.iter().filter(|event| set.contains(**event)).map(|event| event.name()).collect();
        assert_eq!(names, ["epoch_end", "step_end"]);
    }
}
