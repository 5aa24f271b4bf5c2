//! The prompt of a run that waits: the plugin `shell`, and `host attach --shell`.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use fixture::host;

use crate::small_run::SmallRun;

/// A run that takes long, with a step of 20 ms.
fn long(options: &str) -> SmallRun {
    SmallRun::with_libraries(&["recorder", "standard", "checkpoint"])
        .set("train.epochs=100000")
        .recorder("a", "", "sleep_ms = 20, sleep_in = 'step_end'")
        .instance(&format!("kind = 'shell'\n{options}"))
        .instance("kind = 'checkpoint'\nwhen = { at = ['end'] }")
}

/// `host attach --shell` with a pipe as stdin.
fn attach(out: &Path) -> Child {
    let mut command = host();
    command.arg("attach").arg(out).arg("--shell");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the host starts")
}

/// Writes `lines` to a prompt, and returns what was answered once it has ended.
fn told(out: &Path, lines: &str) -> String {
    let mut attached = attach(out);
    attached.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    let output = attached.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The step after which the run waits, as the prompt says first.
fn step(told: &str) -> u64 {
    let rest = told.split_once("waits after step ").expect("it says where it is").1;
    rest.split_once(' ').and_then(|(step, _)| step.parse().ok()).expect("a number")
}

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn a_person_reads_and_sets_through_a_pipe_and_the_run_goes_on() {
    // The prompt may stay open for longer than a hook may take.
    let run = long("").set("run.hook_warning=\"3 s\"").set("run.hook_timeout=\"5 s\"");
    let mut child = run.start();
    run.wait_for("epoch_end");
    let out = run.out();
    let first = told(&out, "metric val_loss\nhyper-parameters\ntensor fc1.weight\n");
    assert!(
        first.contains("> val_loss = 0.") || first.contains("> val_loss = 1.") || first.contains("> val_loss = 2."),
        "{first}"
    );
    assert!(first.contains(".learning_rate = 0.01\n"), "{first}");
    assert!(first.contains("fc1.weight of `parameters`: f32 [16, 64]\nmin -"), "{first}");
    assert!(first.ends_with("the run still waits: nobody has said `continue`\n"), "{first}");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(child.try_wait().expect("a child"), None, "`hook_timeout` does not end it");

    let second = told(&out, "set learning_rate 0.002\ncheckpoint\ncontinue\nmetrics\n");
    assert!(second.contains(".learning_rate = 0.002\n"), "{second}");
    assert!(second.ends_with("> the run goes on\n"), "{second}");
    assert_eq!(step(&second), step(&first), "it waits");
    wait_for("end of the prompt", || !out.join("INJECT_SHELL.tmp").exists());
    assert!(!out.join("INJECT_SHELL.socket").exists());

    let third = told(&out, "hyper-parameters\nstop it has converged\n");
    assert!(third.contains(".learning_rate = 0.002 (set by `shell`)\n"), "{third}");
    assert!(third.ends_with("> the run stops\n"), "{third}");
    assert!(step(&third) > step(&first), "{third}");
    let output = child.wait_with_output().expect("the host ends");
    let ran = run.ended(output).succeeded();
    let console = shown(&ran.output);
    assert!(console.contains("the run waits: `host attach ") && console.contains("it has converged"), "{console}");
    assert!(!console.contains("`shell` has been in its hook"), "{console}");
}

#[test]
fn a_run_that_nobody_talks_to_goes_on_and_one_that_has_ended_is_told() {
    let run = long("options = { timeout = '1 s' }");
    let child = run.start();
    run.wait_for("epoch_end");
    let out = run.out();
    std::fs::write(out.join("INJECT_SHELL.tmp"), "").expect("the file can be made");
    wait_for("end of the prompt", || !out.join("INJECT_SHELL.tmp").exists());
    let answers = told(&out, "stop\n");
    assert!(answers.ends_with("> the run stops\n"), "{answers}");
    let ran = run.ended(child.wait_with_output().expect("the host ends")).succeeded();
    let console = shown(&ran.output);
    assert!(console.contains("the run goes on: nobody has written a line for 1 s"), "{console}");
    let output = attach(&ran.out).wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("is not running"), "{}", shown(&output));
    assert!(!ran.out.join("INJECT_SHELL.tmp").exists());
}
