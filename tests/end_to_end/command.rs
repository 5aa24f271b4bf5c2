#![cfg(unix)]

use fixture::lines;

use crate::small_run::{SmallRun, text};

/// A run with a command that has these options.
fn with_command(entry: &str, options: &str) -> SmallRun {
    SmallRun::with_libraries(&["recorder", "command"])
        .instance(&format!("kind = 'command'\n{entry}\noptions = {{ {options} }}"))
}

#[test]
fn a_command_is_told_of_the_run() {
    let options = "command = ['sh', '-c', 'echo \"$HOST_EVENT $1 $HOST_METRIC_VAL_LOSS\" >> \"$2/told\"', 'sh', \
                   '{step} {val_loss}', '{run_folder}'], events = ['start', 'trigger', 'artifact', 'finished']";
    let ran = with_command("when = { every = '1 epoch' }", options)
        .recorder("publishes", "", "publish_in = 'epoch_end', at_step = 6")
        .run()
        .succeeded();
    let told = std::fs::read_to_string(ran.out.join("told")).expect("the command wrote it");
    let told: Vec<Vec<&str>> = told.lines().map(|line| line.split(' ').collect()).collect();
    let events: Vec<String> = told.iter().map(|words| words[..2].join(" ")).collect();
    assert_eq!(events, ["start 0", "trigger 3", "artifact 6", "trigger 6", "finished 6"]);
    assert_eq!(told[0][2..], ["n/a", ""]);
    let loss = ran.status()["metrics"]["val_loss"].as_f64().expect("a loss");
    for words in &told[2..] {
        let values: Vec<f64> = words[2..].iter().map(|value| value.parse().expect("a number")).collect();
        assert_eq!(values, [loss, loss], "{words:?}");
    }
}

#[test]
fn output_and_failure_of_a_command_are_logged_and_the_run_continues() {
    let options = "shell = true, command = ['echo \"done with $1\"; echo oops >&2; exit 3', '{run}']";
    let ran = with_command("name = 'mine'", options).run().succeeded();
    let warning = "mine: `sh`, run at `finished`, failed: exit status: 3";
    assert!(ran.stderr().contains(warning), "{}", ran.stderr());
    let log = lines(&ran.out.join("log.jsonl"));
    let of_level = |level: &str| {
        let of_plugins = log.iter().filter(|line| text(line, "target") == "plugin" && text(line, "level") == level);
        of_plugins.map(|line| text(&line["fields"], "message").to_owned()).collect::<Vec<_>>()
    };
    let mut written = of_level("INFO");
    written.sort();
    assert_eq!(written, ["mine: done with small", "mine: oops"]);
    assert_eq!(of_level("WARN"), [warning]);
}

#[test]
fn a_command_that_does_not_end_is_killed_and_a_failed_run_runs_it_too() {
    let options = "shell = true, command = ['echo \"$HOST_PLUGIN: $HOST_ERROR\"; sleep 600 & sleep 600'], \
                   timeout_seconds = 0.5, events = ['failed']";
    let ran = with_command("", options).recorder("bad", "", "fail_in = 'epoch_end', at_step = 3").run();
    assert_eq!(ran.code(), Some(1), "{}", ran.shown());
    assert!(ran.stderr().contains("command: `sh`, run at `failed`, took too long and was killed"), "{}", ran.stderr());
    let log = std::fs::read_to_string(ran.out.join("log.jsonl")).expect("there is a log");
    assert!(log.contains("command: bad: the recorder was told to fail in `epoch_end`"), "{log}");
}

#[test]
fn a_slow_command_does_not_delay_the_run() {
    let options = "command = ['sleep', '600'], queue = 2, drain_seconds = 0.2";
    let ran = with_command("when = { every = '1 steps' }", options).run().succeeded();
    let told = ran.stderr();
    assert!(told.contains("commands take longer than the time between their events: some are dropped"), "{told}");
    assert!(told.contains("commands not finished within the 0.2 s of `drain_seconds`: 2"), "{told}");
}
