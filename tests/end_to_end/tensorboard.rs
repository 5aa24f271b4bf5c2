use std::process::Command;

use fixture::shown;
use serde_json::Value;

use crate::small_run::SmallRun;
use crate::training::Training;

const PLUGINS: &str = r#"
[[plugins]]
kind = "recorder"
options = { record_in = "epoch_end" }

[[plugins]]
kind = "tensorboard"
when = { every = "10 steps" }
options = { every = 2, image_shape = [16, 16, 3], images = 3, embeddings = 50, basis = { train_loss = "min" } }

[[plugins]]
kind = "checkpoint"
when = { every = "1 epoch" }

[[plugins]]
kind = "json-lines"
options = { every_steps = 10 }
"#;

/// The folder of event files of a run in `out`.
pub const LOGS: &str = "tensorboard/small";

/// Reads the event files of a folder with the package's own accumulator, each value as it is.
pub const READ: &str = r#"
import json, math, os, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

def number(value):
    return value if math.isfinite(value) else repr(value)

found = {}
for run in ('', 'train', 'val'):
    everything = {kind: 0 for kind in ('scalars', 'histograms', 'images', 'tensors')}
    events = EventAccumulator(os.path.join(sys.argv[1], run), size_guidance=everything)
    events.Reload()
    tags = events.Tags()
    found[run] = {
        'scalars': {tag: [[event.step, number(event.value)] for event in events.Scalars(tag)] for tag in tags['scalars']},
        'histograms': {
            tag: [
                [event.step, event.histogram_value.num, sum(event.histogram_value.bucket)]
                for event in events.Histograms(tag)
            ]
            for tag in tags['histograms']
        },
        'images': {tag: [[event.step, event.width, event.height] for event in events.Images(tag)] for tag in tags['images']},
        'tensors': sorted(tags['tensors']),
        'graph': [node.name for node in events.Graph().node] if tags['graph'] else [],
    }
print(json.dumps(found))
"#;

/// Starts the real server on a port that it chooses, queries it, and ends it.
const SERVE: &str = r#"
import json, re, subprocess, sys, time, urllib.parse, urllib.request

server = subprocess.Popen(
    [sys.executable, '-m', 'tensorboard.main', '--logdir', sys.argv[1], '--host', '127.0.0.1', '--port', '0',
     '--load_fast', 'false'],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
try:
    for line in server.stdout:
        if address := re.search(r'http://127\.0\.0\.1:\d+/', line):
            break

    def ask(path, body=None, **query):
        request = urllib.request.Request(f'{address[0]}data/{path}?{urllib.parse.urlencode(query)}')
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header('Content-Type', 'application/json')
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    for _ in range(600):
        if json.loads(ask('runs')) == ['small', 'small/train', 'small/val'] and ask('plugin/projector/runs') != '[]':
            break
        time.sleep(0.1)
    statuses = ['STATUS_UNKNOWN', 'STATUS_SUCCESS', 'STATUS_FAILURE', 'STATUS_RUNNING']
    groups = json.loads(ask('plugin/hparams/session_groups', {
        'experimentName': '', 'allowedStatuses': statuses, 'colParams': [], 'startIndex': 0, 'sliceSize': 10}))
    group, = groups['sessionGroups']
    session, = group['sessions']
    histogram = json.loads(ask('plugin/histograms/histograms', run='small/train', tag='weights/fc1.weight'))
    print(json.dumps({
        'runs': json.loads(ask('runs')),
        'scalars': json.loads(ask('plugin/scalars/scalars', run='small/val', tag='loss')),
        'nodes': re.findall(r'^node \{\n  name: "(.*)"', ask('plugin/graphs/graph', run='small/train'), re.M),
        'histogram': [[step, sum(count for _, _, count in buckets)] for _, step, buckets in histogram],
        'images': sorted(json.loads(ask('plugin/images/tags'))['small/val']),
        'text': json.loads(ask('plugin/text/text', run='small/val', tag='examples'))[-1]['text'].count('<tr>'),
        'projector': json.loads(ask('plugin/projector/info', run='small'))['embeddings'][0]['tensorShape'],
        'status': session['status'],
        'batch size': group['hparams']['train.batch_size'],
        'metrics': sorted(f"{value['name']['group']}/{value['name']['tag']}" for value in session['metricValues']
                          if 'seconds' not in value['name']['tag']),
    }, sort_keys=True))
finally:
    server.terminate()
    server.wait()
"#;

/// What a script prints; `None`, with a message, if there is no Python.
pub fn python(script: &str, training: &Training, folder: &str) -> Option<Value> {
    let python = fixture::python()?;
    let output = Command::new(python).args(["-c", script]).arg(training.path(folder)).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("the script prints JSON"))
}

/// Steps and values of a scalar, in the 32 bits of a number in an event file.
fn points(found: &Value) -> Vec<(u64, f32)> {
    let point = |point: &Value| Some((point[0].as_u64()?, point[1].as_f64()? as f32));
    found.as_array().into_iter().flatten().filter_map(point).collect()
}

/// The points that `metrics.jsonl` has of a metric: its lines are the metrics at the same events.
fn expected(training: &Training, out: &str, metric: &str) -> Vec<(u64, f32)> {
    let lines = training.metrics(out);
    // Between two evaluations, the value of the last one is old.
    let lines = lines.iter().filter(|line| line["kind"] == "epoch" || metric.starts_with("train_"));
    let points: Vec<_> =
        lines.filter_map(|line| Some((line["step"].as_u64()?, line[metric].as_f64()? as f32))).collect();
    assert!(points.len() >= 2, "{metric}: {points:?}");
    points
}

#[test]
fn the_package_reads_every_value_as_it_was() {
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let Some(found) = python(READ, &training, &format!("run/{LOGS}")) else { return };
    for (run, tag) in [("train", "loss"), ("train", "accuracy"), ("val", "loss"), ("val", "accuracy")] {
        let read = points(&found[run]["scalars"][tag]);
        assert!(!read.is_empty());
        assert_eq!(read, expected(&training, "run", &format!("{run}_{tag}")), "{run} {tag}");
    }
    let steps = |found: &Value| points(found).into_iter().map(|(step, _)| step).collect::<Vec<_>>();
    assert_eq!(steps(&found["train"]["scalars"]["loss"]), [10, 20, 23, 30, 40, 46]);
    assert_eq!(steps(&found["train"]["scalars"]["recorder/recorder"]), [23, 46]);
    // At every second trigger, and the loss falls.
    for group in ["weights", "gradients"] {
        let points = &found["train"]["histograms"][format!("{group}/fc1.weight")];
        assert_eq!(*points, serde_json::json!([[20, 1024.0, 1024.0], [40, 1024.0, 1024.0]]), "{group}");
    }
    // At the first trigger after an evaluation.
    assert_eq!(found["val"]["images"]["examples/2"], serde_json::json!([[30, 16, 16]]));
    assert_eq!(found["val"]["tensors"], serde_json::json!(["examples"]));
    let sessions = ["_hparams_/session_end_info", "_hparams_/session_start_info"];
    assert_eq!(found[""]["tensors"], serde_json::json!(sessions));
    let nodes = ["inputs", "conv1", "bn1", "relu1", "pool1", "flatten1", "dropout1", "fc1", "relu2", "fc2"];
    assert_eq!(found["train"]["graph"], serde_json::json!(nodes));
}

#[test]
fn evaluations_within_an_epoch_are_points_of_their_own_with_their_confusion_matrices() {
    let training = Training::new(PLUGINS);
    training
        .run("run", &["--set", "eval.every=\"7 steps\"", "--set", "eval.metrics=[\"accuracy\", \"confusion_matrix\"]"]);
    let Some(found) = python(READ, &training, &format!("run/{LOGS}")) else { return };
    // The last one is that of the end.
    let steps = [7, 14, 21, 28, 35, 42, 46];
    for tag in ["loss", "accuracy"] {
        let points = points(&found["val"]["scalars"][tag]);
        assert_eq!(points.iter().map(|(step, _)| *step).collect::<Vec<_>>(), steps, "{tag}");
    }
    // Cells of 48 pixels for ten classes, and names of one letter.
    let pictures: Vec<_> = steps.iter().map(|step| serde_json::json!([step, 497, 497])).collect();
    assert_eq!(found["val"]["images"]["confusion_matrix"], Value::from(pictures));
}

#[test]
fn the_server_shows_every_page() {
    let training = Training::new(PLUGINS);
    training.run("run", &[]);
    let Some(found) = python(SERVE, &training, "run/tensorboard") else { return };
    let served = found["scalars"].as_array().into_iter().flatten();
    // The server puts the time in front.
    let served: Value = served.map(|point| serde_json::json!([point[1], point[2]])).collect();
    assert_eq!(points(&served), expected(&training, "run", "val_loss"));
    assert_eq!(found["histogram"], serde_json::json!([[20, 1024.0], [40, 1024.0]]));
    // Sorted, whether or not maps keep their order in this build.
    let rest: std::collections::BTreeMap<&String, &Value> = found
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(part, _)| !["scalars", "histogram"].contains(&part.as_str()))
        .collect();
    let rest = serde_json::to_string_pretty(&rest).expect("it was JSON");
    insta::assert_snapshot!(rest, @r#"
    {
      "batch size": 64.0,
      "images": [
        "examples/0",
        "examples/1",
        "examples/2"
      ],
      "metrics": [
        "train/accuracy",
        "train/learning_rate",
        "train/loss",
        "train/recorder/recorder",
        "train/step_loss",
        "val/accuracy",
        "val/loss"
      ],
      "nodes": [
        "inputs",
        "conv1",
        "bn1",
        "relu1",
        "pool1",
        "flatten1",
        "dropout1",
        "fc1",
        "relu2",
        "fc2"
      ],
      "projector": [
        50,
        16
      ],
      "runs": [
        "small",
        "small/train",
        "small/val"
      ],
      "status": "STATUS_SUCCESS",
      "text": 4
    }
    "#);
}

#[test]
fn a_resumed_run_continues_without_duplicate_points() {
    let stop = "kind = \"recorder\"\noptions = { record_in = \"epoch_end\"";
    let training = Training::new(PLUGINS);
    training.run("unbroken", &[]);
    // Stopped after the trigger of step 30, with a checkpoint of step 23.
    let training = training.with(stop, &format!("{stop}, stop_in = \"step_end\", at_step = 35"));
    training.run("run", &[]);
    let training = training.with(", stop_in = \"step_end\", at_step = 35", "");
    training.run("run", &[]);
    let [Some(unbroken), Some(run)] = ["unbroken", "run"].map(|out| python(READ, &training, &format!("{out}/{LOGS}")))
    else {
        return;
    };
    for (split, tag) in [("train", "loss"), ("train", "accuracy"), ("val", "loss"), ("val", "accuracy")] {
        let whole = &unbroken[split]["scalars"][tag];
        assert_eq!(points(whole), expected(&training, "unbroken", &format!("{split}_{tag}")), "{split} {tag}");
        assert_eq!(run[split]["scalars"][tag], *whole, "{split} {tag}");
    }
    let histograms = &unbroken["train"]["histograms"];
    assert!(histograms["weights/fc1.weight"].as_array().is_some_and(|points| points.len() == 2), "{histograms}");
    assert_eq!(run["train"]["histograms"], *histograms);
}

#[test]
fn obstacles_are_reported_before_the_training() {
    let blocked =
        Training::new(&PLUGINS.replace("options = { every = 2,", "options = { log_dir = \"run.toml\", every = 2,"));
    let told = shown(&blocked.output("run", &[]), &[blocked.folder()]);
    let expected = "plugin `tensorboard` failed in `setup`: cannot create the folder `[FOLDER]/run/run.toml/small`: Not a directory";
    assert!(told.starts_with("exit code: 1") && told.contains(expected), "{told}");
    let vectors = Training::new(PLUGINS).with("shape = [1, 8, 8]", "shape = [2, 4, 8]");
    let told = shown(&vectors.output("run", &[]), &[vectors.folder()]);
    assert!(told.contains("samples of shape [2, 4, 8] are not images"), "{told}");
}

#[cfg(unix)]
#[test]
fn a_full_disk_hurts_no_other_monitor() {
    // A file may not become larger than this, which a program sees as it sees a disk that is full; the signal that comes
    // with it is ignored.
    let plugins = PLUGINS.replace("kind = \"tensorboard\"", "kind = \"tensorboard\"\non_error = \"ignore\"");
    let training =
        Training::new(&plugins.replace("kind = \"checkpoint\"", "kind = \"checkpoint\"\nif = \"val_loss < 0\""));
    let host = training.command("run");
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(host.get_program())
        .args(host.get_args());
    let output = command.current_dir(training.folder().0).output().expect("sh is there");
    let told = shown(&output, &[training.folder()]);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("cannot write `[FOLDER]/run/tensorboard/small/train/events.out.tfevents."), "{told}");
    assert_eq!(training.metrics("run").iter().filter(|line| line["kind"] == "epoch").count(), 2);
    // The file is valid up to there.
    let Some(found) = python(READ, &training, &format!("run/{LOGS}")) else { return };
    assert!(!points(&found["val"]["scalars"]["loss"]).is_empty(), "{found}");
}

#[test]
fn a_model_of_one_layer_has_features_too() {
    let ran = SmallRun::with_libraries(&["tensorboard"])
        .set("model.layers=[{ type = \"linear\", out_features = 10 }]")
        .instance("kind = 'tensorboard'\nwhen = { every = '1 epoch' }\noptions = { embeddings = 5 }")
        .run()
        .succeeded();
    let features = std::fs::read_to_string(ran.out.join("tensorboard/small/projector/tensors.tsv")).expect("written");
    let widths: Vec<usize> = features.lines().map(|line| line.split('\t').count()).collect();
    assert_eq!(widths, [10; 5]);
}
