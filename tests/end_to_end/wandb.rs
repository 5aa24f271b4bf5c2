use std::collections::BTreeMap;
use std::process::Command;

use fixture::shown;
use serde_json::Value;

use crate::training::Training;

const PLUGINS: &str = r#"
[[plugins]]
kind = "recorder"
options = { stop_in = "step_end", at_step = 35 }

[[plugins]]
kind = "wandb"
when = { every = "10 steps" }
options = { project = "small digits", run_name = "one", tags = ["short"] }

[[plugins]]
kind = "gradient-stats"
when = { every = "1 epoch" }

[[plugins]]
kind = "checkpoint"
when = { every = "1 epoch" }

[[plugins]]
kind = "json-lines"
options = { every_steps = 10 }
"#;

/// Has W&B's own program read every file below a folder, oldest first, and name what `wandb sync` would upload.
const READ: &str = r#"
import glob, json, os, subprocess, sys
os.environ.update(WANDB_ERROR_REPORTING='false', WANDB_MODE='offline')

def wandb(*arguments):
    done = subprocess.run([sys.executable, '-m', 'wandb', *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done
    return done

folder = sys.argv[1]
paths = sorted(glob.glob('offline-run-*/run-*.wandb', root_dir=folder))
records = [[json.loads(line) for line in wandb('leet', 'inspect', '--json', os.path.join(folder, path)).stdout.splitlines()]
           for path in paths]
summary = json.loads(wandb('leet', 'inspect', '--summary', '--json', os.path.join(folder, paths[-1])).stdout)
synced = wandb('sync', '--dry-run', folder)
print(json.dumps({'paths': paths, 'records': records, 'summary': summary, 'sync': synced.stdout + synced.stderr}))
"#;

/// What W&B reads in the run folder; `None`, with a message, if there is no Python.
pub fn read(training: &Training, out: &str) -> Option<Value> {
    let python = fixture::python()?;
    let output = Command::new(python).args(["-c", READ]).arg(training.path(out).join("wandb")).output();
    let output = output.expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("the script prints JSON"))
}

/// The rows of all files, by their steps.
pub fn rows(found: &Value) -> BTreeMap<u64, Value> {
    let records = found["records"].as_array().into_iter().flatten().filter_map(Value::as_array).flatten();
    let rows = records.filter(|record| record["type"] == "history").map(|record| &record["history"]);
    let rows: Vec<_> = rows.map(|row| (row["step"]["num"].as_u64().expect("a step"), row["item"].clone())).collect();
    assert!(rows.is_sorted_by_key(|(step, _)| *step), "{rows:?}");
    let by_step: BTreeMap<_, _> = rows.iter().cloned().collect();
    assert_eq!(by_step.len(), rows.len(), "a row for each step");
    by_step
}

#[test]
fn wandb_reads_every_value_as_it_was_also_after_a_resume() {
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let Some(stopped) = read(&training, "run") else { return };
    assert_eq!(stopped["records"].as_array().map(Vec::len), Some(1));
    let training = training.with("stop_in = \"step_end\"", "stop_in = \"\"");
    training.run("run", &[]);
    let found = read(&training, "run").expect("as before");

    let [before, after] = found["records"].as_array().expect("a list").as_slice() else { panic!("{found:#}") };
    let id = |records: &Value| records[1]["run"]["run_id"].as_str().expect("an id").to_owned();
    assert_eq!(id(before), id(&stopped["records"][0]));
    assert_eq!(id(after), id(before), "the same run goes on");
    assert_eq!((&before[1]["run"]["resume"], &after[1]["run"]["resume"]), (&Value::Null, &true.into()));
    assert_eq!(before[1]["run"]["config"]["update"]["train"]["optimizer"]["type"], "adamw");
    let of =
        |kind: &str, records: &Value| records.as_array().into_iter().flatten().filter(|it| it["type"] == kind).count();
    assert_eq!((of("exit", before), of("exit", after)), (0, 1), "what a run that was resumed said of its end is cut");

    let rows = rows(&found);
    for metric in ["train_loss", "train_accuracy", "val_loss", "val_accuracy"] {
        let lines = training.metrics("run");
        // Between two evaluations, the value of the last one is old.
        let lines = lines.iter().filter(|line| line["kind"] == "epoch" || metric.starts_with("train_"));
        let expected: Vec<_> = lines.map(|line| (line["step"].as_u64(), line[metric].as_f64())).collect();
        let points: Vec<_> = rows
            .iter()
            .filter(|(_, row)| row.get(metric).is_some())
            .map(|(step, row)| (Some(*step), row[metric].as_f64()))
            .collect();
        assert!(points.len() >= 2);
        assert_eq!(points, expected, "{metric}");
    }
    assert!(rows[&23]["total_gradient_norm"].is_number(), "{:#}", rows[&23]);
    let histogram = &rows[&46]["gradient_histogram/fc1.weight"];
    assert_eq!(histogram["_type"], "histogram", "{:#}", rows[&46]);
    let lengths = ["bins", "values"].map(|part| histogram[part].as_array().map(Vec::len));
    assert_eq!(lengths, [Some(65), Some(64)]);

    let summary = &found["summary"];
    for (name, expected) in
        [("name", Value::from("one")), ("project", "small digits".into()), ("state", "finished".into())]
    {
        assert_eq!(summary[name], expected, "{summary:#}");
    }
    assert_eq!(summary["exit_code"], 0);
    assert_eq!(summary["tags"], serde_json::json!(["short"]));
    assert_eq!(summary["summary"]["val_loss"], rows[&46]["val_loss"]);
    let sync = found["sync"].as_str().expect("text");
    assert!(sync.contains("Would sync 2 run(s)"), "{sync}");
}

#[test]
fn a_project_that_wandb_refuses_is_refused_before_the_run() {
    let training = Training::new(PLUGINS).with("small digits", "small/digits");
    let output = training.output("run", &[]);
    let told = shown(&output, &[training.folder()]);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("`project` contains '/', which W&B accepts in no project's name"), "{told}");
}
