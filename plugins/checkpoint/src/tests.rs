//! The callback with a fake host: real folders, empty checkpoints.

use plugin_api::ServiceKind;
use plugin_api::protocol::RunInfo;
use plugin_api::testing::{FakeHost, json};
use proptest::prelude::*;

use super::*;

/// On the training thread, unless the options say otherwise: nothing has to be waited for.
fn host(mut options: plugin_api::testing::Value) -> FakeHost {
    if options.get("background").is_none() {
        options["background"] = false.into();
    }
    let mut host = FakeHost::new::<Checkpoints>(options).unwrap();
    host.setup().unwrap();
    host
}

/// The end of an epoch with a validation loss, and the checkpoint that follows.
fn epoch(host: &mut FakeHost, epoch: u64, loss: f64) -> Result<Vec<u8>> {
    host.set_position(epoch, epoch * 10);
    host.put_metric("val_loss", loss);
    host.trigger("epoch")?;
    let state = host.save_state()?;
    host.checkpoint("checkpoint", "epoch")?;
    host.checkpoint_written(None)?;
    Ok(state)
}

/// An epoch whose checkpoint is not written yet.
fn epoch_in_flight(host: &mut FakeHost, epoch: u64, loss: f64) {
    host.set_position(epoch, epoch * 10);
    host.put_metric("val_loss", loss);
    host.trigger("epoch").unwrap();
    host.checkpoint("checkpoint", "epoch").unwrap();
}

/// The epochs of the checkpoints that are not written yet.
fn queued(host: &FakeHost) -> Vec<u64> {
    host.queued_checkpoints().iter().map(|path| path["checkpoints/epoch-".len()..][..4].parse().unwrap()).collect()
}

/// The epochs of the checkpoints in the folder, and the targets of the pointers.
fn there(host: &FakeHost) -> (Vec<u64>, String, String) {
    let folder = host.folder().join("checkpoints");
    let mut epochs: Vec<u64> = std::fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap()[..].strip_prefix("epoch-")?[..4].parse().ok()
        })
        .collect();
    epochs.sort_unstable();
    let shown =
        |name: &str| std::fs::read_link(folder.join(name)).map(|path| path.display().to_string()).unwrap_or_default();
    (epochs, shown("last"), shown("best"))
}

fn artifacts(host: &FakeHost) -> Vec<(&str, &str)> {
    host.artifacts().iter().map(|artifact| (artifact.kind.as_str(), artifact.path.as_str())).collect()
}

#[test]
fn a_trigger_leads_to_a_checkpoint_with_its_pointers() {
    let mut host = host(json!({}));
    epoch(&mut host, 1, 0.5).unwrap();
    assert_eq!(host.requests()[0].action, Control::Checkpoint);
    let name = "epoch-0001-step-00000010";
    assert_eq!(there(&host), (vec![1], name.to_owned(), name.to_owned()));
    let path = "checkpoints/epoch-0001-step-00000010";
    assert_eq!(artifacts(&host), [("last_checkpoint", path), ("best_checkpoint", path)]);
}

#[test]
fn the_last_and_the_best_are_kept() {
    let mut host = host(json!({ "keep_last": 2, "keep_best": [{ "metric": "val_loss", "top": 2 }] }));
    for (number, loss) in [(1, 0.5), (2, 0.9), (3, 0.4), (4, f64::NAN), (5, 0.6), (6, 0.7)] {
        epoch(&mut host, number, loss).unwrap();
    }
    let expected = (vec![1, 3, 5, 6], "epoch-0006-step-00000060".to_owned(), "epoch-0003-step-00000030".to_owned());
    assert_eq!(there(&host), expected);
    let best = artifacts(&host).into_iter().filter(|(kind, _)| *kind == "best_checkpoint").count();
    assert_eq!(best, 2);
}

#[test]
fn the_end_does_not_save_the_same_position_again() {
    let mut host = host(json!({}));
    epoch(&mut host, 1, 0.5).unwrap();
    host.trigger("end").unwrap();
    assert_eq!(host.requests().len(), 1);
    host.set_position(2, 13);
    host.trigger("end").unwrap();
    assert_eq!(host.requests().len(), 2);
}

#[test]
fn a_metric_of_an_earlier_step_does_not_count() {
    let mut host = host(json!({}));
    epoch(&mut host, 1, 0.5).unwrap();
    host.put_metric("val_loss", 0.1);
    host.set_position(2, 15);
    host.trigger("step").unwrap();
    host.checkpoint("checkpoint", "step").unwrap();
    host.checkpoint_written(None).unwrap();
    let (_, last, best) = there(&host);
    assert_eq!((last.as_str(), best.as_str()), ("epoch-0002-step-00000015", "epoch-0001-step-00000010"));
}

#[test]
fn a_metric_that_is_not_there_is_said_once_and_stops_nothing() {
    let mut host = host(json!({ "keep_best": [{ "metric": "val_accuracy", "mode": "max" }] }));
    for number in 1..4 {
        epoch(&mut host, number, 0.5).unwrap();
    }
    let warning = "WARN this checkpoint cannot become the best: there is no metric `val_accuracy`";
    assert_eq!(host.logs(), [warning]);
    assert_eq!(there(&host).2, "");
}

#[test]
fn what_others_ask_for_is_written_unless_told_otherwise() {
    let mut all = host(json!({}));
    all.set_position(1, 4);
    all.checkpoint("host", "a signal").unwrap();
    all.checkpoint_written(None).unwrap();
    assert_eq!(all.checkpoints().len(), 1);
    let mut own = host(json!({ "only_own_requests": true }));
    own.set_position(1, 4);
    own.checkpoint("host", "a signal").unwrap();
    own.checkpoint_written(None).unwrap();
    assert_eq!(own.checkpoints().len(), 0);
    epoch(&mut own, 1, 0.5).unwrap();
    assert_eq!(own.checkpoints().len(), 1);
}

#[test]
fn a_failed_write_deletes_and_moves_nothing() {
    let expected = (vec![1], "epoch-0001-step-00000010".to_owned(), String::new());
    let mut inline = host(json!({ "keep_last": 1, "keep_best": [], "background": false }));
    epoch(&mut inline, 1, 0.5).unwrap();
    inline.fail(ServiceKind::WRITE_CHECKPOINT, "the disk is full");
    assert_eq!(epoch(&mut inline, 2, 0.4).unwrap_err().message(), "the disk is full");
    assert_eq!(there(&inline), expected);
    let mut background = host(json!({ "keep_last": 1, "keep_best": [], "background": true }));
    epoch(&mut background, 1, 0.5).unwrap();
    epoch_in_flight(&mut background, 2, 0.4);
    assert_eq!(background.checkpoint_written(Some("the disk is full")).unwrap_err().message(), "the disk is full");
    assert_eq!(there(&background), expected);
    // The next one is written.
    epoch(&mut background, 3, 0.4).unwrap();
    background.train_end(plugin_api::event::Outcome::Finished).unwrap();
    assert_eq!(there(&background).0, [3]);
}

#[test]
fn while_one_is_written_the_newest_and_the_best_wait() {
    let mut host = host(json!({ "keep_last": 2, "background": true }));
    for (number, loss) in [(1, 0.5), (2, 0.6), (3, 0.4), (4, 0.7), (5, 0.8)] {
        epoch_in_flight(&mut host, number, loss);
    }
    assert_eq!(queued(&host), [1, 3, 5]);
    // A state that is saved meanwhile names those that wait.
    let state = host.save_state().unwrap();
    for _ in 0..3 {
        host.checkpoint_written(None).unwrap();
    }
    host.train_end(plugin_api::event::Outcome::Finished).unwrap();
    let told = host.logs().iter().any(|line| line.contains("left out 2 checkpoints"));
    assert!(told, "{:?}", host.logs());
    let expected = (vec![3, 5], "epoch-0005-step-00000050".to_owned(), "epoch-0003-step-00000030".to_owned());
    assert_eq!(there(&host), expected);
    host.load_state(&state).unwrap();
    epoch(&mut host, 6, 0.9).unwrap();
    host.train_end(plugin_api::event::Outcome::Finished).unwrap();
    assert_eq!(there(&host).0, [3, 5, 6]);
}

#[test]
fn a_first_nan_is_not_the_best_that_waits() {
    let mut host = host(json!({ "keep_last": 1, "background": true }));
    for (number, loss) in [(1, f64::NAN), (2, f64::NAN), (3, 0.5), (4, 0.6)] {
        epoch_in_flight(&mut host, number, loss);
    }
    assert_eq!(queued(&host), [1, 3, 4]);
}

#[test]
fn one_each_so_many_hours_is_kept_for_good() {
    let after = |hours_ago: u64| {
        let options = json!({ "keep_last": 1, "keep_best": [], "keep_every_hours": 1.5 });
        let mut host = host(options);
        // A run that resumes counts from its oldest checkpoint on.
        let mut kept: Vec<Entry> = decode_state(&epoch(&mut host, 1, 0.5).unwrap()).unwrap();
        kept[0].time -= hours_ago * 3600;
        host.load_state(&encode_state(&kept).unwrap()).unwrap();
        for number in 2..5 {
            epoch(&mut host, number, 0.5).unwrap();
        }
        there(&host).0
    };
    assert_eq!(after(1), [4]);
    assert_eq!(after(2), [2, 4]);
}

#[test]
fn in_the_background_it_writes_at_once() {
    let mut host = FakeHost::new::<Checkpoints>(json!({})).unwrap().in_background();
    host.setup().unwrap();
    epoch_in_flight(&mut host, 1, 0.5);
    assert_eq!(queued(&host), [0; 0]);
    assert_eq!(there(&host).0, [1]);
}

#[test]
fn the_folder_can_have_the_name_of_the_run_and_another_name() {
    for options in [json!({ "folder": "of/{run}" }), json!({ "log_dir": "of/{run}" })] {
        let mut host = FakeHost::new::<Checkpoints>(options).unwrap().with_info(|info| info.name = "digits".to_owned());
        host.setup().unwrap();
        epoch(&mut host, 1, 0.5).unwrap();
        assert!(host.folder().join("of/digits/last").exists());
    }
}

#[test]
fn a_resumed_run_keeps_what_an_unbroken_one_does() {
    let losses = [0.5, 0.9, 0.4, 0.8, 0.6, 0.7, 0.3, 0.35];
    let options = json!({ "keep_last": 2, "keep_best": [{ "top": 2 }], "background": false });
    let mut unbroken = host(options.clone());
    for (index, &loss) in losses.iter().enumerate() {
        epoch(&mut unbroken, index as u64 + 1, loss).unwrap();
    }
    for broken in 1..losses.len() {
        let mut first = host(options.clone());
        let mut state = Vec::new();
        for (index, &loss) in losses[..broken].iter().enumerate() {
            state = epoch(&mut first, index as u64 + 1, loss).unwrap();
        }
        let mut resumed = FakeHost::new::<Checkpoints>(options.clone()).unwrap().with_info(|info: &mut RunInfo| {
            info.folder = first.folder().display().to_string();
        });
        resumed.setup().unwrap();
        resumed.load_state(&state).unwrap();
        for (index, &loss) in losses.iter().enumerate().skip(broken) {
            epoch(&mut resumed, index as u64 + 1, loss).unwrap();
        }
        assert_eq!(there(&resumed), there(&unbroken), "resumed after {broken}");
    }
}

#[test]
fn what_the_run_resumed_from_stays() {
    let mut first = host(json!({ "keep_last": 1, "keep_best": [] }));
    let state = epoch(&mut first, 1, 0.5).unwrap();
    let mut resumed = FakeHost::new::<Checkpoints>(json!({ "keep_last": 1, "keep_best": [], "background": false }))
        .unwrap()
        .with_info(|info| {
            info.folder = first.folder().display().to_string();
            // The pointer points at it.
            info.resumed_from = Some(first.folder().join("checkpoints/last").display().to_string());
        });
    resumed.setup().unwrap();
    resumed.load_state(&state).unwrap();
    for number in 2..5 {
        epoch(&mut resumed, number, 0.5).unwrap();
    }
    assert_eq!(there(&resumed).0, [1, 4]);
}

#[test]
fn what_it_did_not_write_stays() {
    let mut host = host(json!({ "keep_last": 1, "keep_best": [] }));
    let other = host.folder().join("checkpoints/epoch-0000-step-00000001");
    std::fs::create_dir_all(&other).unwrap();
    for number in 1..4 {
        epoch(&mut host, number, 0.5).unwrap();
    }
    assert!(other.exists());
    assert_eq!(there(&host).0, [0, 3]);
}

#[test]
fn what_is_gone_is_not_missed() {
    let mut host = host(json!({ "keep_last": 1, "keep_best": [] }));
    let state = epoch(&mut host, 1, 0.5).unwrap();
    std::fs::remove_dir(host.folder().join("checkpoints/epoch-0001-step-00000010")).unwrap();
    host.load_state(&state).unwrap();
    epoch(&mut host, 2, 0.5).unwrap();
    assert_eq!(there(&host).0, [2]);
    assert_eq!(host.logs(), [""; 0]);
}

#[test]
fn a_checkpoint_that_cannot_be_deleted_is_tried_again() {
    let mut host = host(json!({ "keep_last": 1, "keep_best": [] }));
    epoch(&mut host, 1, 0.5).unwrap();
    let path = host.folder().join("checkpoints/epoch-0001-step-00000010");
    // A file of that name was not written by this plugin.
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "").unwrap();
    epoch(&mut host, 2, 0.5).unwrap();
    assert!(host.logs()[0].contains("cannot delete the checkpoint `epoch-0001-step-00000010`"), "{:?}", host.logs());
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    epoch(&mut host, 3, 0.5).unwrap();
    assert_eq!(there(&host).0, [3]);
}

#[test]
fn options_and_states_that_make_no_sense_are_refused() {
    for options in [
        json!({ "folder": "" }),
        json!({ "folder": "{epoch}" }),
        json!({ "folder": "one", "log_dir": "two" }),
        json!({ "keep_every_hours": -1.0 }),
        json!({ "keep_best": [{ "top": 0 }] }),
        json!({ "keep_best": [{ "metric": "" }] }),
        json!({ "keep_best": [{ "mode": "least" }] }),
        json!({ "keep_last": -1 }),
    ] {
        assert!(FakeHost::new::<Checkpoints>(options.clone()).is_err(), "{options}");
    }
    let outside = Entry {
        name: "../../home".to_owned(),
        global_step: 1,
        metrics: Default::default(),
        time: 0,
        is_for_good: false,
    };
    let error = host(json!({})).load_state(&encode_state(&vec![outside]).unwrap()).unwrap_err();
    assert_eq!(error.message(), "the saved state names `../../home`, which is not a checkpoint");
}

proptest! {
    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut host = host(json!({ "keep_last": 1 }));
        if host.load_state(&bytes).is_ok() {
            epoch(&mut host, 1, 0.5).unwrap();
        }
    }

    #[test]
    fn a_damaged_state_is_an_error_or_a_state(place: prop::sample::Index, value: u8) {
        let mut host = host(json!({ "keep_last": 1 }));
        let mut state = epoch(&mut host, 1, 0.5).unwrap();
        let place = place.index(state.len());
        state[place] = value;
        if host.load_state(&state).is_ok() {
            epoch(&mut host, 2, 0.4).unwrap();
        }
    }
}
