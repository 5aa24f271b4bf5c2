//! Checkpoints that are written while the training goes on, after a failure, and into folders elsewhere.

use fixture::temporary_folder;

use crate::small_run::{SmallRun, text};
use crate::training::Training;

/// Fails once the 30th step is updated.
const FAILS: &str = r#"
[[plugins]]
kind = "checkpoint"
when = { at = ["end", "failure"] }

[[plugins]]
kind = "recorder"
name = "failing"
options = { fail_in = "HOOK", at_step = 30 }
"#;

/// The same without the failure.
const UNBROKEN: &str = r#"
[[plugins]]
kind = "checkpoint"
when = { at = ["end", "failure"] }
"#;

#[test]
fn a_failure_saves_the_last_whole_step() {
    let unbroken = Training::new(UNBROKEN);
    unbroken.run("run", &[]);
    let end = "checkpoints/epoch-0002-step-00000046";
    // Before forward, nothing has been drawn: the step that has not happened is trained by the resumed run.
    for (hook, saved) in [("step_end", "epoch-0002-step-00000030"), ("step_start", "epoch-0002-step-00000029")] {
        let failing = Training::new(&FAILS.replace("HOOK", hook));
        let output = failing.output("run", &[]);
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(failing.checkpoints("run/checkpoints"), [saved], "{hook}");
        let resumed = Training::new(UNBROKEN);
        let from = failing.path("run/checkpoints").join(saved);
        resumed.run("run", &["--resume", &from.display().to_string()]);
        let (of_resumed, of_unbroken) = (resumed.path("run").join(end), unbroken.path("run").join(end));
        unbroken.assert_same(&of_unbroken.display().to_string(), &of_resumed.display().to_string());
    }
}

#[test]
fn short_epochs_go_on_while_a_checkpoint_is_written() {
    let run =
        SmallRun::with_libraries(&["recorder", "checkpoint"]).set("train.epochs=60").instance("kind = 'checkpoint'");
    let ran = run.recorder("observer", "", "").run().succeeded();
    let paths = |event: &str, key: &str| -> Vec<String> {
        ran.lines_of("observer", event).iter().map(|line| text(&line["texts"], key).to_owned()).collect()
    };
    // What was written was told; the last epoch was written before the end, and the pointers lead to what there is.
    let written = paths("checkpoint_written", "path");
    assert!(!written.is_empty() && written.len() <= 60);
    let last = "checkpoints/epoch-0060-step-00000180";
    assert!(written.contains(&last.to_owned()), "{written:?}");
    assert!(ran.lines_of("observer", "checkpoint_written").iter().all(|line| line["texts"]["error"].is_null()));
    assert_eq!(std::fs::read_link(ran.out.join("checkpoints/last")).unwrap(), *"epoch-0060-step-00000180");
    let status = ran.status();
    let best = std::fs::read_link(ran.out.join("checkpoints/best")).unwrap();
    let epoch = status["best"]["val_loss"]["epoch"].as_u64();
    assert!(
        best.display().to_string().starts_with(&format!("epoch-{:04}", epoch.unwrap_or_default())),
        "{best:?} {status}"
    );
    let left: Vec<_> = ran.files().into_iter().filter(|file| file.contains(".tmp-")).collect();
    assert_eq!(left, [""; 0]);
}

#[test]
fn a_folder_elsewhere_belongs_to_one_run() {
    let elsewhere = temporary_folder();
    let folder = elsewhere.path().join("{run}").display().to_string();
    let run = || {
        SmallRun::with_libraries(&["checkpoint"])
            .instance(&format!("kind = 'checkpoint'\noptions = {{ log_dir = '{folder}' }}"))
    };
    let first = run().run().succeeded();
    assert!(elsewhere.path().join("small/last/manifest.json").exists());
    let second = run().run();
    assert_eq!(second.code(), Some(1));
    assert!(second.stderr().contains("has the checkpoints of another run"), "{}", second.stderr());
    // The run itself goes on from there.
    let longer = run().set("train.epochs=3").run_in(first.out.clone()).succeeded();
    assert_eq!(longer.status()["position"]["global_step"], 9);
    assert!(longer.stderr().contains("resum"), "{}", longer.stderr());
}

#[test]
fn metrics_are_a_basis() {
    let ran = SmallRun::with_libraries(&["recorder"])
        .set("train.epochs=4")
        .recorder("better", "frequency = 3\nbasis = { val_loss = 'min' }", "")
        .run()
        .succeeded();
    let causes: Vec<_> = ran.lines_of("better", "trigger");
    let of: Vec<(u64, &str)> =
        causes.iter().map(|line| (line["epoch"].as_u64().unwrap_or_default(), text(&line["texts"], "cause"))).collect();
    assert!(of.contains(&(1, "best val_loss")), "{of:?}");
    assert!(of.iter().any(|(epoch, _)| *epoch == 3), "{of:?}");
}
