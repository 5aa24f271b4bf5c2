//! The table by itself; an end-to-end test compares the hosts.

use super::*;
use crate::abi::kinds::{EventKind, Status};
use crate::protocol::{Control, CopyAction, Need, TensorSet};

fn encoded<T: serde::Serialize>(request: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(request).unwrap()
}

fn site(caller: Caller, hook: EventKind) -> Site<'static> {
    Site { caller, hook, needs: &[] }
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
    let permitted =
        |hook, needs| permit(ServiceKind::TENSOR_READ, &Site { caller: Caller::Background, hook, needs }, &read);
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
        let site = Site { caller: Caller::Background, hook: EventKind::EPOCH_END, needs };
        permit(ServiceKind::PREDICT, &site, &[]).map_err(|refusal| refusal.message)
    };
    assert_eq!(predict(&weights[..]), Ok(Route::Snapshot));
    assert!(predict(&weights[..1]).unwrap_err().starts_with("`buffers` was not copied"));
}
