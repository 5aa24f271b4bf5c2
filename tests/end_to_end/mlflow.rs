use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use fixture::shown;
use serde_json::Value;

use crate::training::Training;

const PLUGINS: &str = r#"
[[plugins]]
kind = "recorder"
options = { stop_in = "", at_step = 35 }

[[plugins]]
kind = "mlflow"
when = { every = "10 steps" }
options = { experiment = "small digits", run_name = "one" }

[[plugins]]
kind = "weights"

[[plugins]]
kind = "checkpoint"
when = { every = "1 epoch" }

[[plugins]]
kind = "json-lines"
options = { every_steps = 10 }
"#;

/// Starts the real server, prints its address, and for each line that it reads what the server has of all runs.
const SERVE: &str = r#"
import json, os, socket, subprocess, sys, tempfile, time, urllib.request
os.environ.update(MLFLOW_DISABLE_TELEMETRY='true', DO_NOT_TRACK='true')
try:
    import mlflow
except ImportError:
    print('none', flush=True)
    sys.exit()

with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
folder = tempfile.TemporaryDirectory()
server = subprocess.Popen(
    [sys.executable, '-m', 'mlflow', 'server', '--host', '127.0.0.1', '--port', str(port), '--workers', '1',
     '--backend-store-uri', f'sqlite:///{folder.name}/store.db', '--artifacts-destination', f'{folder.name}/artifacts'],
    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder.name)
try:
    address = f'http://127.0.0.1:{port}'
    for _ in range(900):
        try:
            urllib.request.urlopen(f'{address}/health', timeout=5)
            break
        except OSError:
            assert server.poll() is None, 'the server has ended'
            time.sleep(0.2)
    print(address, flush=True)
    client = mlflow.MlflowClient(address)
    for _ in sys.stdin:
        runs = []
        for experiment in client.search_experiments():
            for run in client.search_runs([experiment.experiment_id]):
                history = {key: [[point.step, point.value] for point in client.get_metric_history(run.info.run_id, key)]
                           for key in run.data.metrics}
                artifacts = {}
                for artifact in client.list_artifacts(run.info.run_id) + client.list_artifacts(run.info.run_id, 'exports'):
                    if not artifact.is_dir:
                        artifacts[artifact.path] = artifact.file_size
                models = []
                for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
                    found = client.get_model_version(version.name, version.version)
                    path = mlflow.artifacts.download_artifacts(found.source, tracking_uri=address, dst_path=tempfile.mkdtemp(dir=folder.name))
                    model = mlflow.models.Model.load(path)
                    models.append({'name': found.name, 'version': found.version, 'status': found.status,
                                   'source': found.source, 'files': sorted(os.listdir(path)), 'run': model.run_id == run.info.run_id,
                                   'flavors': {name: of['data'] for name, of in model.flavors.items()},
                                   'size': os.path.getsize(os.path.join(path, model.flavors['onnx']['data'])),
                                   'inputs': [str(tensor) for tensor in model.signature.inputs.inputs],
                                   'outputs': [str(tensor) for tensor in model.signature.outputs.inputs]})
                runs.append({'models': models,'experiment': experiment.name, 'name': run.info.run_name, 'status': run.info.status,
                             'metrics': history, 'parameters': run.data.params, 'artifacts': artifacts})
        print(json.dumps(runs), flush=True)
finally:
    server.terminate()
    server.wait()
"#;

/// The real server, which ends when this is dropped.
struct Server {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    /// `None`, with a message, if the package is not installed.
    fn start() -> Option<Self> {
        let Some(python) = std::env::var_os("HOST_TEST_MLFLOW") else {
            fixture::skipped("`HOST_TEST_MLFLOW` names no Python that has `mlflow`");
            return None;
        };
        let mut child = Command::new(python)
            .args(["-c", SERVE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let requests = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut address = String::new();
        answers.read_line(&mut address).expect("Python answers");
        if address.trim_end() == "none" {
            let _ = child.wait();
            fixture::skipped("the Python of `HOST_TEST_MLFLOW` has no `mlflow`");
            return None;
        }
        Some(Self { child, requests, answers, address: address.trim_end().to_owned() })
    }

    /// All runs that it has.
    fn runs(&mut self) -> Value {
        writeln!(self.requests.as_mut().expect("not closed yet")).expect("Python listens");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("Python answers");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The script ends with its input, and the server with it.
        drop(self.requests.take());
        let _ = self.child.wait();
    }
}

fn run(training: &Training, out: &str, address: &str) -> String {
    let output = training.command(out).env("MLFLOW_TRACKING_URI", address).output().expect("the host starts");
    let told = shown(&output, &[training.folder()]);
    assert!(output.status.success(), "{told}");
    told
}

/// The points that `metrics.jsonl` has of a metric: its lines are the metrics at the same events.
fn expected(training: &Training, out: &str, metric: &str) -> Value {
    let lines = training.metrics(out);
    // Between two evaluations, the value of the last one is old.
    let lines = lines.iter().filter(|line| line["kind"] == "epoch" || metric.starts_with("train_"));
    let points: Vec<Value> = lines.map(|line| Value::from(vec![line["step"].clone(), line[metric].clone()])).collect();
    assert!(points.len() >= 2 && points.iter().all(|point| point[1].is_number()), "{metric}: {points:?}");
    Value::from(points)
}

#[test]
fn the_server_has_the_run_also_after_a_resume() {
    let Some(mut server) = Server::start() else { return };
    let training = Training::new(PLUGINS).with("stop_in = \"\"", "stop_in = \"step_end\"");
    run(&training, "run", &server.address);
    let stopped = server.runs();
    assert_eq!(stopped[0]["status"], "FINISHED", "{stopped:#}");
    let training = training.with("stop_in = \"step_end\"", "stop_in = \"\"");
    run(&training, "run", &server.address);
    let runs = server.runs();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "the same run went on: {runs:#}");
    let run = &runs[0];
    assert_eq!(
        (&run["experiment"], &run["name"], &run["status"]),
        (&"small digits".into(), &"one".into(), &"FINISHED".into())
    );
    for metric in ["train_loss", "train_accuracy", "val_loss", "val_accuracy"] {
        assert_eq!(run["metrics"][metric], expected(&training, "run", metric), "{metric}");
    }
    assert_eq!(run["parameters"]["train.optimizer.type"], "adamw");
    let size = |name: &str| std::fs::metadata(training.path("run").join(name)).expect("a file").len();
    for name in ["metrics.jsonl", "exports/model.safetensors"] {
        assert_eq!(run["artifacts"][name], size(name), "{name}");
    }
}

const REGISTERED: &str = r#"
[[plugins]]
kind = "mlflow"
options = { experiment = "registered", register = "small digits" }

[[plugins]]
kind = "onnx"
when = { every = "1 epoch" }
options = { include = ["argmax"] }

[[plugins]]
kind = "onnx"
name = "whole"
options = { log_dir = "whole", include = ["softmax"] }
"#;

#[test]
fn each_exported_onnx_file_is_a_version_of_a_model_that_mlflow_reads() {
    let Some(mut server) = Server::start() else { return };
    let training = Training::new(REGISTERED);
    run(&training, "run", &server.address);
    let runs = server.runs();
    let mut models = runs[0]["models"].as_array().cloned().unwrap_or_default();
    models.sort_by_key(|model| model["source"].to_string());
    assert_eq!(models.len(), 2, "{runs:#}");
    for (model, [file, outputs]) in models.iter().zip([
        ["exports/model.onnx", "'class': Tensor('int64', (-1,))"],
        ["whole/model-whole.onnx", "'probabilities': Tensor('float32', (-1, 10))"],
    ]) {
        assert_eq!((&model["name"], &model["status"]), (&"small digits".into(), &"READY".into()));
        let name = file.rsplit('/').next().expect("a name");
        assert_eq!(model["files"], serde_json::json!(["MLmodel", name]));
        assert_eq!(model["flavors"], serde_json::json!({ "onnx": name, "python_function": name }));
        assert_eq!(model["inputs"], serde_json::json!(["'inputs': Tensor('float32', (-1, 1, 8, 8))"]));
        assert_eq!(model["outputs"], serde_json::json!([outputs]));
        assert_eq!(model["run"], true, "{model:#}");
        let size = std::fs::metadata(training.path("run").join(file)).expect("a file").len();
        assert_eq!(model["size"], size);
    }
}

#[test]
fn a_server_that_is_away_costs_one_warning() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = format!("http://{}", address.expect("a free port"));
    let training = Training::new(&PLUGINS.replace("run_name = \"one\"", "drain = 0.1"));
    let told = run(&training, "run", &address);
    assert_eq!(told.matches("the MLflow server is unreachable; the run continues").count(), 1, "{told}");
}

#[test]
fn a_run_without_an_address_does_not_start() {
    let training = Training::new(PLUGINS);
    let output = training.output("run", &[]);
    let told = shown(&output, &[training.folder()]);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("no tracking server is given: set `tracking_uri`, or `MLFLOW_TRACKING_URI`"), "{told}");
}
