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

/// Creates an instance; its constructor may ask for its options.
pub(super) fn create(
    kind: &Kind,
    isolation: Option<&Isolation>,
    identity: &Arc<Identity>,
    hub: &Arc<RemoteHub>,
) -> Result<Instance, Fault> {
    let event = Event::at(EventKind::CREATE, Position::default());
    let instances = std::slice::from_ref(identity);
    let mut hook = Hook::new(&event, &EventTensors::None, instances, Answers::Nobody, hub, &hub.pulse, &HOST_TABLE);
    hook.enter(1, |entered| {
        let handle = entered.handle(0);
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
    create(kind, isolation.as_ref(), &Arc::new(identity), &RemoteHub::new(Arc::default()))
}
