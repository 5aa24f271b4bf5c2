//! Creates instances: a constructor may ask for its options.

use std::sync::Arc;

use plugin_api::abi::kinds::EventKind;
use plugin_api::services::Presence;

use super::event::Event;
use super::hook::{Answers, Hook, Identity};
use super::host_call::HOST_TABLE;
use super::remote::RemoteHub;
use super::sent::EventTensors;
use crate::history::Position;
use crate::plugins::{Fault, Instance, Isolation, Kind};

/// Creates the instance that has the identity at `index`; its constructor may ask for its options.
pub(super) fn create(
    kind: &Kind,
    isolation: Option<&Isolation>,
    instances: &[Arc<Identity>],
    index: usize,
    hub: &Arc<RemoteHub>,
) -> Result<Instance, Fault> {
    let event = Event::at(EventKind::CREATE, Position::default());
    let identity = &instances[index];
    let mut hook = Hook::new(&event, &EventTensors::None, instances, Answers::Nobody, hub, &hub.pulse, &HOST_TABLE);
    hook.enter(1, |entered| {
        let handle = entered.handle(index);
        // A constructor that only passes on the status of a service: the service told why.
        let reported = || entered.finish().and_then(|left| left.fault).map(|fault| fault.message);
        let created = Instance::create(kind, isolation, &identity.name, &identity.options, handle, reported);
        entered.finish();
        created
    })
}

/// Creates an instance outside a run.
///
/// # Errors
///
/// The callback's own refusal, or its panic.
pub fn create_instance(kind: &Kind, name: &str, options: &serde_json::Value) -> Result<Instance, Fault> {
    let identity = Identity {
        name: name.into(),
        options: options.clone(),
        needs: Vec::new(),
        exports: false,
        presence: Presence::Single,
        is_isolated: false,
    };
    let isolation = kind.is_apart().then(Isolation::default);
    create(kind, isolation.as_ref(), &[Arc::new(identity)], 0, &RemoteHub::new(Arc::default()))
}
