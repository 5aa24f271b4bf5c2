use std::process::Command;

use fixture::shown;
use serde_json::Value;

use crate::training::Training;

const PLUGINS: &str = r#"
[[plugins]]
kind = "recorder"
options = { stop_in = "", at_step = 35 }

[[plugins]]
kind = "csv"
options = { every_steps = 10 }

[[plugins]]
kind = "json-lines"
options = { every_steps = 10 }

[[plugins]]
kind = "checkpoint"
when = { every = "1 epoch" }
"#;

/// The rows of `metrics.csv`, with the columns whose values differ from run to run left out.
fn rows(training: &Training, out: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(training.path(out).join("metrics.csv")).expect("there is a file");
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let kept: Vec<usize> = (0..rows[0].len()).filter(|column| !rows[0][*column].ends_with("_seconds")).collect();
    rows.iter().map(|row| kept.iter().map(|column| row[*column].to_owned()).collect()).collect()
}

#[test]
fn rows_are_those_of_the_json_lines() {
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let rows = rows(&training, "run");
    let columns = [
        "kind",
        "epoch",
        "step",
        "learning_rate",
        "step_loss",
        "train_accuracy",
        "train_loss",
        "val_accuracy",
        "val_loss",
    ];
    assert_eq!(rows[0], columns);
    let lines = training.metrics("run");
    assert_eq!(rows.len(), 1 + lines.len());
    for (row, line) in rows[1..].iter().zip(&lines) {
        for (column, cell) in columns.iter().zip(row) {
            // Read as the lines are, to the last bit but one.
            let found = serde_json::from_str(cell).unwrap_or_else(|_| Value::from(cell.as_str()));
            let expected = line.get(column).cloned().unwrap_or_else(|| Value::from(""));
            assert_eq!(found, expected, "{column}: {row:?}");
        }
    }
}

#[test]
fn a_resumed_run_leaves_the_file_of_an_unbroken_one() {
    let training = Training::new(PLUGINS);
    training.run("unbroken", &[]);
    let training = training.with("stop_in = \"\"", "stop_in = \"step_end\"");
    training.run("run", &[]);
    assert_eq!(rows(&training, "run").last().map(|row| row[2].clone()).as_deref(), Some("30"));
    let training = training.with("stop_in = \"step_end\"", "stop_in = \"\"");
    training.run("run", &[]);
    assert_eq!(rows(&training, "run"), rows(&training, "unbroken"));
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_whole_rows_and_hurts_no_other() {
    let plugins = "[[plugins]]\nkind = \"csv\"\non_error = \"ignore\"\noptions = { every_steps = 1 }\n\n\
                   [[plugins]]\nkind = \"json-lines\"\n";
    let training = Training::new(plugins);
    let host = training.command("run");
    let mut command = Command::new("sh");
    // A file may not become larger than this, which a program sees as it sees a disk that is full; the signal that comes
    // with it is ignored.
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\"";
    command.args(["-c", limited]).arg(host.get_program()).args(host.get_args()).args(["--set", "train.epochs=8"]);
    let output = command.current_dir(training.folder().0).output().expect("sh is there");
    let told = shown(&output, &[training.folder()]);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("[FOLDER]/run/metrics.csv: File too large"), "{told}");
    let text = std::fs::read_to_string(training.path("run/metrics.csv")).expect("there is a file");
    let width = |line: &str| line.split(',').count();
    assert!(text.lines().count() > 1, "{text}");
    assert!(text.ends_with('\n') && text.lines().all(|line| width(line) == width(text.lines().next().unwrap_or(""))));
    assert_eq!(training.metrics("run").len(), 8);
}
