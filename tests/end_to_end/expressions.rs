//! Expressions in the real loop: in `if`, in options of plugins, and as the lines of `lambda`.

use serde_json::Value;

use crate::small_run::{Ran, SmallRun};
use crate::training::Training;

fn run(entries: &[&str]) -> SmallRun {
    let run = SmallRun::with_libraries(&["standard", "checkpoint", "recorder"]).instance("kind = 'json-lines'");
    entries.iter().fold(run, |run, entry| run.instance(entry))
}

/// A metric after each epoch.
fn each_epoch(ran: &Ran, metric: &str) -> Vec<f64> {
    let lines = fixture::lines(&ran.out.join("metrics.jsonl"));
    let epochs = lines.iter().filter(|line| line["kind"] == "epoch");
    epochs.map(|line| line[metric].as_f64().unwrap_or(f64::NAN)).collect()
}

#[test]
fn an_expression_gates_hooks_as_a_comparison_does() {
    let gate = "epoch > 2 and best(val_loss) < 2.2 and not (epoch == 5)";
    let ran = run(&[])
        .recorder("a", &format!("if = '{gate}'"), "")
        .set("train.epochs=6")
        .set("train.optimizer.learning_rate=0.003")
        .run()
        .succeeded();
    let mut best = f64::INFINITY;
    let holds = each_epoch(&ran, "val_loss").into_iter().zip(1_u64..).filter(|(loss, epoch)| {
        best = best.min(*loss);
        *epoch > 2 && best < 2.2 && *epoch != 5
    });
    let expected: Vec<u64> = holds.map(|(_, epoch)| epoch).collect();
    let told: Vec<u64> = ran.lines_of("a", "epoch_end").iter().filter_map(|line| line["epoch"].as_u64()).collect();
    assert_eq!(told, expected);
    assert!(expected.contains(&6), "the gate opens: {:?}", each_epoch(&ran, "val_loss"));
}

#[test]
fn a_lambda_does_what_its_line_says_inline_and_in_the_background() {
    let ran = run(&[
        "kind = 'lambda'\nname = 'halves'\noptions = { do = \"set('learning_rate', old * 0.5)\" }",
        "kind = 'lambda'\nname = 'puts'\noptions = { do = \"put('doubled', 2 * val_loss); log('put in epoch ' + epoch)\" }",
        "kind = 'lambda'\nname = 'reads'\nif = 'doubled == 2 * val_loss'\noptions = { do = \"log('read in epoch ' + epoch)\" }",
        "kind = 'lambda'\nname = 'thread'\ndispatch = 'background'\noptions = { do = \"log('seen in epoch ' + epoch)\" }",
        "kind = 'lambda'\nname = 'stops'\nif = 'epoch >= 3 and doubled > 0'\n\
         options = { do = \"checkpoint(); stop('epoch ' + epoch + ' is enough')\" }",
        "kind = 'checkpoint'\nwhen = { at = ['epoch 100'] }",
    ])
    .set("train.epochs=6")
    .run()
    .succeeded();
    assert_eq!(each_epoch(&ran, "learning_rate"), [0.01, 0.005, 0.0025]);
    let status = ran.status();
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&Value::from("stopped"), &Value::from("`stops`: epoch 3 is enough"))
    );
    assert!(ran.out.join("checkpoints/last").exists(), "{}", ran.shown());
    for did in ["put", "read", "seen"] {
        for epoch in 1..=3 {
            assert!(ran.stderr().contains(&format!("{did} in epoch {epoch}\n")), "{did} {epoch}: {}", ran.shown());
        }
    }
}

#[test]
fn a_schedule_by_an_expression_is_the_same_after_a_resume() {
    let training = Training::new(
        r#"
[[plugins]]
kind = "json-lines"
[[plugins]]
kind = "checkpoint"
[[plugins]]
kind = "lr-schedule"
options = { expr = "max(old * 0.9, 0.0005) + epoch * 1e-5" }
[[plugins]]
kind = "lambda"
if = "mean(val_loss, 2) < 100 and epoch > 1"
options = { do = "set('weight_decay', old + best(val_loss) / 100)" }
"#,
    )
    // A cosine would be another one in the shorter run.
    .with("{ type = \"cosine\" }", "{ type = \"constant\" }");
    training.run("unbroken", &["--set", "train.epochs=6"]);
    training.run("first", &["--set", "train.epochs=3"]);
    let checkpoint = training.path("first").join("checkpoints/last").display().to_string();
    training.run("resumed", &["--set", "train.epochs=6", "--resume", &checkpoint]);
    let (unbroken, resumed) = (training.metrics("unbroken"), training.metrics("resumed"));
    assert_eq!(resumed[resumed.len() - 3..], unbroken[3..]);
    let rate = |epoch: usize| unbroken[epoch - 1]["learning_rate"].as_f64().expect("a rate");
    for epoch in 3..=6 {
        let expected = (rate(epoch - 1) * 0.9).max(0.0005) + (epoch - 1) as f64 * 1e-5;
        assert!((rate(epoch) - expected).abs() < 1e-12, "epoch {epoch}: {} and {expected}", rate(epoch));
    }
}

#[test]
fn what_is_wrong_in_an_expression_is_told_before_the_training() {
    for (entry, message) in [
        ("kind = 'json-lines'\nname = 'b'\nif = 'epoch > 2 and'", "column 14: it ends too early"),
        ("kind = 'json-lines'\nname = 'b'\nif = 'epoch + 2'", "it is a number"),
        (
            "kind = 'json-lines'\nname = 'b'\nif = 'epoch > 2 and bst(val_loss) < 1'",
            "column 15: there is no function `bst`",
        ),
        (
            "kind = 'json-lines'\nname = 'b'\nif = 'epoch > 2 and mean(val_los) < 1'",
            "`b` waits for the metric `val_los`, which this run does not give",
        ),
        ("kind = 'lr-schedule'\noptions = { expr = 'old *' }", "column 6: it ends too early"),
        ("kind = 'lr-schedule'\noptions = { expr = 'old > 1' }", "must give a number, and gives a condition"),
        ("kind = 'lr-schedule'\noptions = { expr = 'olt * 2' }", "waits for the metric `olt`"),
        ("kind = 'lambda'\noptions = { do = \"stopp('x')\" }", "did you mean `stop`?"),
        ("kind = 'lambda'\noptions = { do = \"put('x')\" }", "`put` takes 2 arguments, not 1"),
        ("kind = 'lambda'\noptions = { do = \"log(val_los)\" }", "did you mean `val_loss`?"),
        ("kind = 'lambda'", "`do` must say what to do"),
        (
            "kind = 'lambda'\noptions = { do = \"set('learning_rat', 1)\" }",
            "there is no hyper-parameter `learning_rat`; did you mean `learning_rate`?",
        ),
    ] {
        let ran = run(&[entry]).run();
        assert!(ran.code() != Some(0) && ran.stderr().contains(message), "{entry}\n{}", ran.shown());
        assert!(!ran.stderr().contains("epoch 1/"), "nothing is trained: {}", ran.shown());
    }
}
