//! The table by itself; an end-to-end test compares the hosts.

use super::*;
use crate::abi::kinds::{EventKind, Status};
use crate::protocol::{Control, CopyAction, Need, TensorSet};

fn encoded<T: serde::Serialize>(request: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(request).unwrap()
}

fn site(caller: Caller, hook: EventKind) -> Site<'static> {
    Site { caller, hook, needs: &[], presence: Presence::Single }
}

#[test]
fn numbers_and_names_are_given_once() {
    for (index, service) in ServiceKind::ALL.iter().enumerate() {
        assert_eq!(ServiceKind::from_name(service.name()), Some(*service));
        for other in &ServiceKind::ALL[index + 1..] {
            assert!(service.0 != other.0 && service.name() != other.name(), "{} {}", service.name(), other.name());
        }
    }
}

#[test]
fn what_reads_is_answered_from_the_snapshot_or_not_at_all() {
    for service in ServiceKind::ALL {
        let rule = service.rule().unwrap();
        let later = rule.background == Background::Later;
        assert!(!(later && rule.effect == Effect::Reads), "`{}` reads: nobody waits for a later answer", rule.name);
        assert!(!(rule.remote && rule.hooks == Hooks::In(HookSet::IDLE)), "`{}`: a remote is in no hook", rule.name);
    }
}

#[test]
fn weights_change_where_no_step_is_in_progress() {
    let write = encoded(&TensorsRequest { set: TensorSet::Parameters, names: Vec::new() });
    let permitted = |hook| permit(ServiceKind::TENSOR_WRITE, &site(Caller::Inline, hook), &write);
    for hook in [EventKind::EVAL_START, EventKind::CHECKPOINT, EventKind::STEP_END, EventKind::TRIGGER] {
        assert_eq!(permitted(hook), Ok(Route::Run), "{}", hook.name());
    }
    let refusal = permitted(EventKind::GRADIENTS).unwrap_err();
    assert_eq!(refusal.message, "`parameters` cannot be written in `gradients`, where a step can be in progress");
    let restore = encoded(&CopyRequest { name: "average".to_owned(), action: CopyAction::Restore });
    assert!(permit(ServiceKind::WEIGHTS_COPY, &site(Caller::Inline, EventKind::STEP_START), &restore).is_err());
    let take = encoded(&CopyRequest { name: "average".to_owned(), action: CopyAction::Take });
    assert_eq!(permit(ServiceKind::WEIGHTS_COPY, &site(Caller::Inline, EventKind::STEP_START), &take), Ok(Route::Run));
}

#[test]
fn what_changes_the_training_is_for_every_rank() {
    let asks = |presence, caller, service, payload: &[u8]| {
        let site = Site { caller, hook: EventKind::GRADIENTS, needs: &[], presence };
        permit(service, &site, payload).map_err(|refusal| refusal.message)
    };
    let write = encoded(&TensorsRequest { set: TensorSet::Gradients, names: Vec::new() });
    let control = |action| encoded(&ControlRequest { action, reason: String::new() });
    let copy = |action| encoded(&CopyRequest { name: "best".to_owned(), action });
    for (service, payload, says) in [
        (ServiceKind::TENSOR_WRITE, write, "to write `gradients`"),
        (ServiceKind::CONTROL, control(Control::SkipUpdate), "to skip an update"),
        (ServiceKind::HYPER_PARAMETER_SET, Vec::new(), "`hyper_parameter_set`"),
    ] {
        assert_eq!(asks(Presence::Single, Caller::Inline, service, &payload), Ok(Route::Run));
        assert_eq!(asks(Presence::All, Caller::Inline, service, &payload), Ok(Route::Run));
        let refused = asks(Presence::Zero, Caller::Inline, service, &payload).unwrap_err();
        assert!(refused.starts_with(&format!("{says} changes the training")), "{refused}");
        assert!(refused.contains("set `ranks = \"all\"` in its `[[plugins]]` entry"), "{refused}");
    }
    for (service, payload) in [
        (ServiceKind::CONTROL, control(Control::Stop)),
        (ServiceKind::WEIGHTS_COPY, copy(CopyAction::Take)),
        (ServiceKind::METRIC_PUT, Vec::new()),
    ] {
        assert_eq!(asks(Presence::Zero, Caller::Inline, service, &payload), Ok(Route::Run));
    }
    let site = Site { caller: Caller::Inline, hook: EventKind::TRAINED, needs: &[], presence: Presence::Zero };
    let restored = permit(ServiceKind::WEIGHTS_COPY, &site, &copy(CopyAction::Restore)).unwrap_err();
    assert!(restored.message.starts_with("`weights_copy` with `restore` changes the training"), "{}", restored.message);
    // It would act at another moment on each rank.
    let later = |presence| asks(presence, Caller::Background, ServiceKind::HYPER_PARAMETER_SET, &[]);
    assert_eq!(later(Presence::Single), Ok(Route::Later));
    assert!(later(Presence::All).unwrap_err().contains("set `dispatch = \"inline\"`"));
}

#[test]
fn gradients_and_the_loss_of_the_last_step_are_there_in_a_trigger() {
    let read = encoded(&TensorsRequest { set: TensorSet::Gradients, names: Vec::new() });
    assert_eq!(permit(ServiceKind::TENSOR_READ, &site(Caller::Inline, EventKind::TRIGGER), &read), Ok(Route::Run));
    assert_eq!(permit(ServiceKind::LOSS, &site(Caller::Inline, EventKind::TRIGGER), &[]), Ok(Route::Run));
    let refusal = permit(ServiceKind::LOSS, &site(Caller::Inline, EventKind::EPOCH_END), &[]).unwrap_err();
    assert_eq!(
        refusal.message,
        "`loss` can be called only in `step_end`, `gradients`, `eval_step_end` and `trigger`, not in `epoch_end`"
    );
}

#[test]
fn a_remote_has_what_the_table_says() {
    let refusal = permit(ServiceKind::GRAPH, &site(Caller::Remote, EventKind::CUSTOM), &[]).unwrap_err();
    assert_eq!(
        refusal.message,
        "a remote cannot call `graph`: it can call `metrics`, `record_put`, `control` and `metric`"
    );
    let request = |action| encoded(&ControlRequest { action, reason: String::new() });
    let control = |action| permit(ServiceKind::CONTROL, &site(Caller::Remote, EventKind::CUSTOM), &request(action));
    assert_eq!(control(Control::Stop), Ok(Route::Later));
    assert!(control(Control::SkipUpdate).is_err());
}

#[test]
fn what_is_not_known_is_said_to_be_so() {
    let refusal = permit(ServiceKind(9_999), &site(Caller::Inline, EventKind::SETUP), &[]).unwrap_err();
    assert_eq!(
        (refusal.status, refusal.message.as_str()),
        (Status::UNKNOWN, "this host has no service 9999; use a newer host")
    );
    let refusal = permit(ServiceKind::TENSOR_READ, &site(Caller::Inline, EventKind::SETUP), b"\xc1").unwrap_err();
    assert_eq!(refusal.status, Status::ERROR);
}

#[test]
fn while_an_instance_is_made_only_what_needs_no_run_is_there() {
    assert_eq!(permit(ServiceKind::OPTION, &site(Caller::Inline, EventKind::CREATE), &[]), Ok(Route::Direct));
    assert!(permit(ServiceKind::METRICS, &site(Caller::Inline, EventKind::CREATE), &[]).is_err());
}

#[test]
fn in_the_background_there_is_what_was_copied() {
    let read = encoded(&TensorsRequest { set: TensorSet::Parameters, names: Vec::new() });
    let needs = [Need { hook: "epoch_end".to_owned(), what: "parameters".to_owned(), write: false }];
    let permitted = |hook, needs| {
        permit(
            ServiceKind::TENSOR_READ,
            &Site { caller: Caller::Background, hook, needs, presence: Presence::Single },
            &read,
        )
    };
    assert_eq!(permitted(EventKind::EPOCH_END, &needs[..]), Ok(Route::Snapshot));
    let refusal = permitted(EventKind::TRIGGER, &needs[..]).unwrap_err();
    assert_eq!(
        refusal.message,
        "`parameters` was not copied for `trigger`: a callback that reads it in the background must name it in `NEEDS`"
    );
    assert!(permitted(EventKind::EPOCH_END, &[]).is_err());

    // The model predicts with the weights that were copied.
    let weights = ["parameters", "buffers"].map(|what| Need { what: what.to_owned(), ..needs[0].clone() });
    let predict = |needs| {
        let site = Site { caller: Caller::Background, hook: EventKind::EPOCH_END, needs, presence: Presence::Single };
        permit(ServiceKind::PREDICT, &site, &[]).map_err(|refusal| refusal.message)
    };
    assert_eq!(predict(&weights[..]), Ok(Route::Snapshot));
    assert!(predict(&weights[..1]).unwrap_err().starts_with("`buffers` was not copied"));
}
