use plugin_api::EventKind;
use plugin_api::testing::{FakeHost, json};
use proptest::prelude::*;

use super::*;

fn host() -> FakeHost {
    let splits = ["train", "val", "test"].map(|split| (split.to_owned(), 100));
    FakeHost::new::<Csv>(json!({ "every_steps": 5 })).unwrap().with_info(|info| info.data.splits = splits.into())
}

fn content(host: &FakeHost) -> String {
    fs::read_to_string(host.folder().join("metrics.csv")).unwrap()
}

/// Epochs of ten steps; a checkpoint's state is taken after `saved` steps.
fn train(host: &mut FakeHost, steps: std::ops::RangeInclusive<u64>, saved: u64) -> Vec<u8> {
    let mut state = Vec::new();
    for step in steps {
        host.put_metric("train_loss", 1.0 / step as f64);
        host.step_end(step).unwrap();
        if step == saved {
            state = host.save_state().unwrap();
        }
        if step % 10 == 0 {
            host.put_metric("val_loss", 2.0 / step as f64);
            host.epoch_end(step / 10).unwrap();
        }
    }
    state
}

#[test]
fn a_metric_that_comes_up_becomes_a_column() {
    let mut host = host();
    host.train_start().unwrap();
    train(&mut host, 1..=10, 0);
    assert_eq!(
        content(&host),
        "kind,epoch,step,train_loss,val_loss\nstep,1,5,0.2,\nstep,1,10,0.1,\nepoch,1,10,0.1,0.2\n"
    );
    assert_eq!((host.artifacts()[0].kind.as_str(), host.artifacts()[0].path.as_str()), ("metrics", "metrics.csv"));
    assert_eq!(fs::read_dir(host.folder()).unwrap().count(), 1);
}

#[test]
fn a_spreadsheet_computes_no_name() {
    let mut host = host();
    host.train_start().unwrap();
    for (name, value) in
        [("=1+2", 1.0), ("'=1+2", 2.0), ("-loss", -1.5e-9), ("@a", f64::NEG_INFINITY), ("-1", f64::NAN)]
    {
        host.put_metric(name, value);
    }
    host.step_end(5).unwrap();
    let expected = "kind,epoch,step,''=1+2,'-loss,'=1+2,'@a,-1\nstep,1,5,2.0,-1.5e-9,1.0,-inf,NaN\n";
    assert_eq!(content(&host), expected);
    // Columns are known again when they come back.
    host.put_metric("=1+2", 3.0);
    host.step_end(10).unwrap();
    assert_eq!(content(&host).lines().count(), 3, "{}", content(&host));
}

#[test]
fn the_evaluation_behind_the_last_epoch_has_a_row_of_its_own() {
    let mut host = host();
    host.train_start().unwrap();
    train(&mut host, 1..=10, 0);
    host.put_metric("test_loss", 0.5);
    host.evaluation(EventKind::EVAL_END, "val", 0, 3).unwrap();
    host.evaluation(EventKind::EVAL_END, "test", 0, 3).unwrap();
    assert_eq!(content(&host).lines().last(), Some("test,1,10,,,0.5"));
}

#[test]
fn a_resumed_run_leaves_the_file_of_an_unbroken_one() {
    let mut unbroken = host();
    unbroken.train_start().unwrap();
    train(&mut unbroken, 1..=30, 0);
    for saved in 1..=29 {
        let mut broken = host();
        broken.train_start().unwrap();
        let state = train(&mut broken, 1..=29, saved);
        let mut resumed = host().with_info(|info| info.folder = broken.folder().display().to_string());
        resumed.load_state(&state).unwrap();
        if saved > 10 {
            // The host restores the history.
            resumed.set_position(1, (saved - 1) / 10 * 10);
            resumed.put_metric("val_loss", 2.0 / ((saved - 1) / 10 * 10) as f64);
        }
        resumed.set_position(1, saved);
        resumed.put_metric("train_loss", 1.0 / saved as f64);
        resumed.train_start().unwrap();
        if saved % 10 == 0 {
            resumed.put_metric("val_loss", 2.0 / saved as f64);
            resumed.epoch_end(saved / 10).unwrap();
        }
        train(&mut resumed, saved + 1..=30, 0);
        assert_eq!(content(&resumed), content(&unbroken), "resumed after {saved}");
    }
}

#[test]
fn without_a_state_the_rows_say_what_stays() {
    let mut first = host();
    first.train_start().unwrap();
    train(&mut first, 1..=20, 0);
    let whole = content(&first);
    let path = first.folder().join("metrics.csv");
    fs::write(&path, format!("{whole}step,3,2")).unwrap();
    let expected = whole.lines().take(4).map(|line| format!("{line}\n")).collect::<String>();
    for (step, expected) in [(14, expected), (20, whole), (0, String::new())] {
        let mut resumed = host().with_info(|info| info.folder = first.folder().display().to_string());
        resumed.set_position(1, step);
        let before = fs::read(&path).unwrap();
        resumed.train_start().unwrap();
        assert_eq!(content(&resumed), expected, "at step {step}");
        fs::write(&path, before).unwrap();
    }
}

#[test]
fn values_that_are_no_numbers_and_names_of_any_kind_are_written() {
    let mut host = host();
    host.train_start().unwrap();
    for (name, value) in [("a,b", f64::NAN), ("c\"d\ne", f64::INFINITY), ("epoch", 1e300), ("потеря", -f64::INFINITY)]
    {
        host.put_metric(name, value);
    }
    host.epoch_end(1).unwrap();
    assert_eq!(
        content(&host),
        "kind,epoch,step,\"a,b\",\"c\"\"d\ne\",metric_epoch,потеря\nepoch,1,10,NaN,inf,1e+300,-inf\n"
    );
}

#[test]
fn a_file_that_is_gone_or_in_the_way_is_an_error_with_its_path() {
    let mut gone = host();
    gone.train_start().unwrap();
    gone.put_metric("train_loss", 1.0);
    gone.epoch_end(1).unwrap();
    fs::remove_file(gone.folder().join("metrics.csv")).unwrap();
    let told = gone.epoch_end(2).unwrap_err().message().to_owned();
    assert!(told.starts_with("the file was removed during the run: ") && told.contains("/metrics.csv: "), "{told}");

    let mut folder = host();
    fs::create_dir(folder.folder().join("metrics.csv")).unwrap();
    assert!(folder.train_start().unwrap_err().message().contains("/metrics.csv: "));
}

proptest! {
    #[test]
    fn any_metrics_are_read_back(metrics in prop::collection::btree_map(any::<String>(), any::<f64>(), 1..4)) {
        let mut host = host();
        host.train_start().unwrap();
        for epoch in 1..3 {
            for (name, value) in &metrics {
                host.put_metric(name, *value);
            }
            host.epoch_end(epoch).unwrap();
        }
        let rows = whole_rows(content(&host).as_bytes());
        prop_assert_eq!(rows.len(), 3);
        for row in &rows[1..] {
            let read: BTreeMap<_, _> = rows[0].cells.iter().zip(&row.cells).skip(FIXED.len()).collect();
            for (name, value) in &metrics {
                let found: f64 = read[&column(name)].parse().unwrap();
                prop_assert!(found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan());
            }
        }
    }

    #[test]
    fn any_file_is_cut_at_a_row_or_begun_anew(
        before in prop::collection::vec("(kind,epoch,step(,[a-z\"]{1,3})?|epoch,[0-9],[0-9]|[a-z,\"\r]{0,9})\n?", 0..6),
        rows in prop::option::of(0u64..5),
    ) {
        let mut host = host();
        if let Some(rows) = rows {
            host.load_state(&encode_state(&State { rows, last: LastRows::default() }).unwrap()).unwrap();
        }
        fs::write(host.folder().join("metrics.csv"), before.concat()).unwrap();
        host.set_position(1, 3);
        host.train_start().unwrap();
        let kept = content(&host);
        prop_assert!(before.concat().starts_with(&kept));
        host.put_metric("train_loss", 0.5);
        host.epoch_end(1).unwrap();
        let rows = whole_rows(content(&host).as_bytes());
        prop_assert!(rows[0].is_ours() && rows[rows.len() - 1].cells[..3] == ["epoch", "1", "10"]);
        prop_assert!(content(&host).ends_with('\n'));
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
        let mut host = host();
        if host.load_state(&bytes).is_ok() {
            host.train_start().unwrap();
        }
    }
}
