use std::path::PathBuf;

use plugin_api::EventKind;
use plugin_api::protocol::{HyperParameter, Record};
use plugin_api::testing::{FakeHost, json};

use super::*;
use crate::log_file;

fn host() -> FakeHost {
    FakeHost::new::<Wandb>(json!({ "flush": 0, "tags": ["a"] })).unwrap().with_info(|info| {
        info.data.splits = [("train".to_owned(), 320), ("val".to_owned(), 4)].into();
        info.run_file = json!({ "train": { "batch_size": 32 } }).to_string();
    })
}

/// A host in the folder of another.
fn again(first: &FakeHost) -> FakeHost {
    host().with_info(|info| info.folder = first.folder().display().to_string())
}

fn epoch(host: &mut FakeHost, epoch: u64, loss: f64) {
    host.set_position(epoch, epoch * 10);
    host.put_metric("train_loss", loss);
    host.put_metric("val_loss", loss + 1.0);
    host.evaluation(EventKind::EVAL_END, "val", 0, 1).unwrap();
    host.epoch_end(epoch).unwrap();
}

fn end(host: &mut FakeHost, outcome: Outcome) {
    host.train_end(outcome).unwrap();
    host.teardown().unwrap();
}

/// The files of a run folder, oldest first.
fn files(host: &FakeHost) -> Vec<PathBuf> {
    let folder = host.folder().join("wandb");
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let file = |folder: &PathBuf| {
        assert!(folder.join("files").is_dir());
        let id = folder.to_str().unwrap().rsplit_once('-').unwrap().1.to_owned();
        folder.join(format!("run-{id}.wandb"))
    };
    folders.iter().map(file).collect()
}

fn records(file: &Path) -> Vec<What> {
    let bytes = std::fs::read(file).unwrap();
    log_file::records(&bytes).into_iter().filter_map(|(record, _)| record.what).collect()
}

/// A metric of all files: step and value.
fn history(host: &FakeHost, name: &str) -> Vec<(i64, String)> {
    let records = files(host).into_iter().flat_map(|file| records(&file));
    let rows = records.filter_map(|record| if let What::History(history) = record { Some(history) } else { None });
    let point = |row: proto::History| {
        let item = row.item.into_iter().find(|item| item.key == name)?;
        Some((row.step?.num, item.value_json))
    };
    rows.filter_map(point).collect()
}

fn exit_code(host: &FakeHost) -> Option<i32> {
    match records(files(host).last()?).pop()? {
        What::Exit(exit) => Some(exit.exit_code),
        _ => None,
    }
}

#[test]
fn a_run_is_written_from_its_beginning_to_its_end() {
    let mut host = host();
    host.train_start().unwrap();
    epoch(&mut host, 1, f64::NAN);
    let text = Record { name: "note".to_owned(), value: RecordValue::Text { text: "a \"b\"".to_owned() } };
    host.record("somebody", &text).unwrap();
    epoch(&mut host, 2, f64::INFINITY);
    let values = [("width".to_owned(), HyperParameter::Number(0.5))].into();
    host.record("search", &Record { name: "choice".to_owned(), value: RecordValue::HyperParameters { values } })
        .unwrap();
    end(&mut host, Outcome::Stopped);
    let records = records(&files(&host)[0]);
    let [What::Header(_), What::Run(run), ..] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!((run.project.as_str(), &run.tags, run.resume), ("test", &vec!["a".to_owned()], false));
    let item = |key: &str, json: &str| Item { key: key.to_owned(), value_json: json.to_owned() };
    assert_eq!(run.config, Some(Items { update: vec![item("train", r#"{"batch_size":32}"#)] }));
    assert!(records.contains(&What::Config(Items { update: vec![item("width", "0.5")] })));
    let words = |values: [(i64, &str); 2]| values.map(|(step, value)| (step, value.to_owned())).to_vec();
    assert_eq!(history(&host, "train_loss"), words([(10, "NaN"), (20, "Infinity")]));
    assert_eq!(history(&host, "val_loss"), words([(10, "NaN"), (20, "Infinity")]), "one row for each step");
    assert_eq!(history(&host, "note"), [(10, r#""a \"b\"""#.to_owned())]);
    let mut summary = BTreeMap::new();
    for record in &records {
        if let What::Summary(items) = record {
            summary.extend(items.update.iter().map(|item| (item.key.as_str(), item.value_json.as_str())));
        }
    }
    assert_eq!(summary, BTreeMap::from([("train_loss", "Infinity"), ("val_loss", "Infinity")]));
    assert_eq!(exit_code(&host), Some(0));
}

#[test]
fn the_exit_code_says_how_the_run_ended() {
    for (outcome, expected) in [(Outcome::Finished, 0), (Outcome::Failed, 1), (Outcome::Interrupted, 255)] {
        let mut host = host();
        host.train_start().unwrap();
        end(&mut host, outcome);
        assert_eq!(exit_code(&host), Some(expected), "{outcome:?}");
    }
}

#[test]
fn three_epochs_and_three_more_are_written_as_six() {
    let mut unbroken = host();
    unbroken.train_start().unwrap();
    (1..=6).for_each(|number| epoch(&mut unbroken, number, 1.0 / number as f64));
    end(&mut unbroken, Outcome::Finished);

    let mut first = host();
    first.train_start().unwrap();
    (1..=3).for_each(|number| epoch(&mut first, number, 1.0 / number as f64));
    let state = first.save_state().unwrap();
    // It is killed after the checkpoint and another epoch.
    epoch(&mut first, 4, 9.0);
    epoch(&mut first, 5, 9.0);
    let mut second = again(&first);
    second.load_state(&state).unwrap();
    second.set_position(3, 30);
    second.train_start().unwrap();
    (4..=6).for_each(|number| epoch(&mut second, number, 1.0 / number as f64));
    end(&mut second, Outcome::Finished);

    for name in ["train_loss", "val_loss"] {
        assert_eq!(history(&second, name), history(&unbroken, name), "{name}");
    }
    let files = files(&second);
    let [before, after] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(before.file_name(), after.file_name(), "the same id");
    assert!(matches!(&records(after)[1], What::Run(run) if run.resume));
    assert!(!records(before).iter().any(|record| matches!(record, What::Exit(_))));
}

#[test]
fn a_state_of_an_earlier_checkpoint_cuts_by_the_step() {
    let mut first = host();
    first.train_start().unwrap();
    epoch(&mut first, 1, 0.5);
    let state = first.save_state().unwrap();
    epoch(&mut first, 2, 0.4);
    epoch(&mut first, 3, 0.3);
    epoch(&mut first, 4, 0.2);
    let mut second = again(&first);
    second.load_state(&state).unwrap();
    // The checkpoint of step 20 has the state of step 10.
    second.set_position(2, 20);
    second.train_start().unwrap();
    epoch(&mut second, 3, 0.25);
    end(&mut second, Outcome::Finished);
    let values: Vec<_> = history(&second, "train_loss").into_iter().map(|(step, _)| step).collect();
    assert_eq!(values, [10, 20, 30]);
}

#[test]
fn a_start_that_fails_takes_nothing_away() {
    let mut first = host();
    first.train_start().unwrap();
    (1..=2).for_each(|number| epoch(&mut first, number, 0.5));
    let state = first.save_state().unwrap();
    end(&mut first, Outcome::Finished);
    let whole = history(&first, "train_loss");
    assert_eq!(whole.len(), 2, "also the values of the last step");

    let folder = first.folder().join("wandb");
    let away = first.folder().join("away");
    std::fs::rename(&folder, &away).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    let mut second = again(&first);
    second.load_state(&state).unwrap();
    second.set_position(2, 20);
    second.train_start().unwrap_err();
    second.set_position(3, 30);
    // The run goes on without it, and the next process finds what there was.
    let state = second.save_state().unwrap();
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    let mut third = again(&first);
    third.load_state(&state).unwrap();
    third.set_position(3, 30);
    third.train_start().unwrap();
    epoch(&mut third, 4, 0.25);
    end(&mut third, Outcome::Finished);
    let all = history(&third, "train_loss");
    assert!(all.starts_with(&whole) && all.len() == 3, "{all:?}");
    assert_eq!(files(&third)[0].file_name(), files(&third)[1].file_name());
}

#[test]
fn a_checkpoint_in_another_folder_begins_a_new_run() {
    let mut first = host();
    first.train_start().unwrap();
    epoch(&mut first, 1, 0.5);
    let state = first.save_state().unwrap();
    let mut second = host();
    second.load_state(&state).unwrap();
    second.set_position(1, 10);
    second.train_start().unwrap();
    end(&mut second, Outcome::Finished);
    assert_ne!(files(&first)[0].file_name(), files(&second)[0].file_name());
    assert!(history(&second, "train_loss").is_empty());
}

#[test]
fn records_that_have_no_place_in_a_history_are_told_once() {
    let mut host = host();
    host.train_start().unwrap();
    let table = RecordValue::Table { columns: vec!["a".to_owned()], rows: vec![] };
    for name in ["one", "two"] {
        host.record("somebody", &Record { name: name.to_owned(), value: table.clone() }).unwrap();
    }
    end(&mut host, Outcome::Finished);
    assert_eq!(host.logs(), ["INFO `one` and other records of its type are not written for W&B"]);
}
