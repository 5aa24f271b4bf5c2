use std::net::TcpListener;

use plugin_api::EventKind;
use plugin_api::protocol::Record;
use plugin_api::testing::{FakeHost, Value as Json, json};

use super::*;
use crate::server::{Request, Server, usual};

fn host(uri: &str, drain: f64) -> FakeHost {
    FakeHost::new::<Mlflow>(json!({ "tracking_uri": uri, "drain": drain, "timeout": 5.0 })).unwrap().with_info(|info| {
        info.data.splits = [("train".to_owned(), 320), ("val".to_owned(), 4)].into();
        info.run_file = json!({ "train": { "batch_size": 32 } }).to_string();
    })
}

fn epoch(host: &mut FakeHost, epoch: u64, loss: f64) {
    host.set_position(epoch, epoch * 10);
    host.put_metric("train_loss", loss);
    host.put_metric("val_loss", loss + 1.0);
    host.evaluation(EventKind::EVAL_END, "val", 0, 1).unwrap();
    host.epoch_end(epoch).unwrap();
}

/// All metrics that were sent, in order: name, step, value.
fn metrics(requests: &[Request]) -> Vec<(String, u64, Json)> {
    let batches = requests.iter().filter(|request| request.line == "POST runs/log-batch").map(Request::json);
    let all = batches.flat_map(|body| body["metrics"].as_array().cloned().unwrap_or_default());
    all.map(|metric| {
        (metric["key"].as_str().unwrap().to_owned(), metric["step"].as_u64().unwrap(), metric["value"].clone())
    })
    .collect()
}

fn status(server: &Server) -> Json {
    let last = server.requests().pop().unwrap();
    assert_eq!(last.line, "POST runs/update");
    last.json()["status"].clone()
}

#[test]
fn a_run_is_told_from_its_beginning_to_its_end() {
    let server = Server::start(|request, _| usual(request));
    let mut host = host(&server.uri(), 20.0);
    std::fs::create_dir(host.folder().join("exports")).unwrap();
    std::fs::write(host.folder().join("exports/model 1.onnx"), "weights").unwrap();
    host.train_start().unwrap();
    epoch(&mut host, 1, f64::NAN);
    epoch(&mut host, 2, f64::INFINITY);
    for (kind, path) in
        [("export", "exports/model 1.onnx"), ("last_checkpoint", "checkpoints/last"), ("metrics", "gone")]
    {
        host.artifact(kind, path, "somebody").unwrap();
    }
    let values = [("width".to_owned(), HyperParameter::Number(0.5))].into();
    host.record("search", &Record { name: "choice".to_owned(), value: RecordValue::HyperParameters { values } })
        .unwrap();
    host.train_end(Outcome::Stopped).unwrap();
    let requests = server.requests();
    assert_eq!(requests[2].json()["experiment_id"], "7");
    assert_eq!(requests[3].json()["params"], json!([{ "key": "train.batch_size", "value": "32" }]));
    let parameters: Vec<Json> = requests.iter().map(|request| request.json()["params"].clone()).collect();
    assert!(parameters.contains(&json!([{ "key": "width", "value": "0.5" }])), "{parameters:?}");
    let told: Vec<_> =
        metrics(&requests).into_iter().map(|(name, step, value)| (name, step, value.to_string())).collect();
    let expected = [
        ("val_loss", 10, "\"NaN\""),
        ("train_loss", 10, "\"NaN\""),
        ("val_loss", 20, "\"Infinity\""),
        ("train_loss", 20, "\"Infinity\""),
    ];
    assert_eq!(told, expected.map(|(name, step, value)| (name.to_owned(), step, value.to_owned())));
    let upload = &requests[requests.len() - 2];
    assert_eq!(
        (upload.line.as_str(), upload.body.as_str()),
        ("PUT artifacts/7/r1/artifacts/exports/model%201.onnx", "weights")
    );
    assert_eq!(status(&server), "FINISHED");
    assert!(requests.iter().all(|request| request.authorization.is_empty()));
}

/// A host whose run has exported two ONNX files, one of them unverified, and another file.
fn exporting(uri: &str, register: &str) -> FakeHost {
    let options = json!({ "tracking_uri": uri, "drain": 20.0, "timeout": 5.0, "register": register });
    let mut host = FakeHost::new::<Mlflow>(options).unwrap();
    std::fs::create_dir(host.folder().join("exports")).unwrap();
    host.train_start().unwrap();
    for (kind, path) in [
        ("export", "exports/model.onnx"),
        ("export", "exports/model.safetensors"),
        ("export", "exports/odd.onnx"),
        ("unverified_export", "exports/odd.onnx"),
        // The best so far, twice.
        ("export", "exports/model.onnx"),
    ] {
        std::fs::write(host.folder().join(path), crate::model::tests::onnx()).unwrap();
        host.artifact(kind, path, "somebody").unwrap();
    }
    host
}

#[test]
fn a_verified_onnx_file_becomes_one_version_of_a_model() {
    for is_new in [true, false] {
        let server = Server::start(move |request, _| match request.line.starts_with("GET registered-models/get") {
            true if is_new => ("404 Not Found", "", json!({ "error_code": "RESOURCE_DOES_NOT_EXIST" })),
            _ => usual(request),
        });
        let mut host = exporting(&server.uri(), "small digits");
        host.train_end(Outcome::Finished).unwrap();
        let requests = server.requests();
        let sent: Vec<_> = requests.iter().map(|request| request.line.as_str()).collect();
        let from = sent.iter().position(|line| line.starts_with("PUT ")).unwrap();
        let mut expected = vec![
            "PUT artifacts/7/r1/artifacts/exports/model.safetensors",
            "PUT artifacts/7/r1/artifacts/exports/odd.onnx",
            "PUT artifacts/7/r1/artifacts/exports/model/model.onnx",
            "PUT artifacts/7/r1/artifacts/exports/model/MLmodel",
            "GET registered-models/get?name=small%20digits",
            "POST registered-models/create",
            "POST model-versions/create",
            "POST runs/update",
        ];
        expected.retain(|line| is_new || *line != "POST registered-models/create");
        assert_eq!(sent[from..], expected);
        let version = requests.iter().find(|request| request.line == "POST model-versions/create").unwrap();
        let source = "mlflow-artifacts:/7/r1/artifacts/exports/model";
        assert_eq!(version.json(), json!({ "name": "small digits", "source": source, "run_id": "r1" }));
        let model = requests.iter().find(|request| request.line.ends_with("/MLmodel")).unwrap().json();
        assert_eq!(model["flavors"]["onnx"]["data"], "model.onnx");
        let told = "WARN `exports/odd.onnx` is not registered as a version of `small digits`: it could not be verified";
        assert_eq!(host.logs(), [told]);
    }
}

#[test]
fn a_run_that_may_go_on_registers_nothing() {
    for outcome in [Outcome::Failed, Outcome::Interrupted] {
        let server = Server::start(|request, _| usual(request));
        let mut host = exporting(&server.uri(), "digits");
        host.train_end(outcome).unwrap();
        assert!(
            !server.lines().iter().any(|line| line.contains("model") && !line.starts_with("PUT ")),
            "{:?}",
            server.lines()
        );
    }
}

#[test]
fn a_run_without_an_onnx_file_says_that_nothing_is_registered() {
    let server = Server::start(|request, _| usual(request));
    let options = json!({ "tracking_uri": server.uri(), "register": "digits" });
    let mut host = FakeHost::new::<Mlflow>(options).unwrap();
    host.train_start().unwrap();
    host.train_end(Outcome::Finished).unwrap();
    assert_eq!(host.logs(), ["WARN no version of `digits` is registered: no verified ONNX file was exported"]);
}

#[test]
fn many_metrics_go_in_batches_that_the_server_takes() {
    let server = Server::start(|request, _| usual(request));
    let mut host = host(&server.uri(), 20.0);
    host.train_start().unwrap();
    for number in 0..2500 {
        let value = RecordValue::Scalar { value: f64::from(number) };
        host.record("somebody", &Record { name: format!("many/{number}\n"), value }).unwrap();
    }
    host.train_end(Outcome::Finished).unwrap();
    let requests = server.requests();
    let told = metrics(&requests);
    assert!(
        told.iter().enumerate().all(|(number, (name, ..))| *name == format!("many/{number}_")) && told.len() == 2500
    );
    let largest = requests.iter().filter_map(|request| Some(request.json()["metrics"].as_array()?.len())).max();
    assert!(largest.is_some_and(|largest| largest <= 1000), "{largest:?}");
}

#[test]
fn a_resumed_run_goes_on_with_the_same_one_and_doubles_nothing() {
    let server = Server::start(|request, _| usual(request));
    let mut first = host(&server.uri(), 20.0);
    first.train_start().unwrap();
    epoch(&mut first, 1, 0.5);
    first.train_end(Outcome::Failed).unwrap();
    assert_eq!(status(&server), "FAILED");
    let before = server.requests().len();
    let mut second = host(&server.uri(), 20.0).with_info(|info| info.folder = first.folder().display().to_string());
    second.set_position(1, 10);
    second.train_start().unwrap();
    // The server already has the training loss up to step 20.
    epoch(&mut second, 2, 0.4);
    epoch(&mut second, 3, 0.3);
    second.train_end(Outcome::Finished).unwrap();
    let requests = server.requests().split_off(before);
    assert_eq!(requests[0].line, "GET runs/get?run_id=r1");
    assert_eq!(requests[1].json(), json!({ "run_id": "r1", "status": "RUNNING" }));
    assert!(!requests.iter().any(|request| request.line == "POST runs/create"));
    let told: Vec<_> = metrics(&requests).into_iter().map(|(name, step, _)| (name, step)).collect();
    let expected = [("val_loss", 20), ("val_loss", 30), ("train_loss", 30)];
    assert_eq!(told, expected.map(|(name, step)| (name.to_owned(), step)));

    let note = first.folder().join("mlflow.json");
    std::fs::write(&note, std::fs::read_to_string(&note).unwrap().replace("r1", "other")).unwrap();
    second.train_start().unwrap();
    second.train_end(Outcome::Finished).unwrap();
    assert!(server.lines().contains(&"POST runs/create".to_owned()), "the run that was deleted");
    assert!(std::fs::read_to_string(&note).unwrap().contains("r1"));
}

#[test]
fn a_busy_server_is_asked_again_and_told_all() {
    let server = Server::start(|request, before| match before {
        0 => ("503 Service Unavailable", "", json!({})),
        2 => ("429 Too Many Requests", "retry-after: 1\r\n", json!({})),
        _ => usual(request),
    });
    let mut host = host(&server.uri(), 20.0);
    host.train_start().unwrap();
    epoch(&mut host, 1, 0.5);
    host.train_end(Outcome::Finished).unwrap();
    assert_eq!(metrics(&server.requests()).len(), 2, "{:?}", server.lines());
    assert_eq!(status(&server), "FINISHED");
}

#[test]
fn a_rejected_batch_is_dropped() {
    let refusal = json!({ "error_code": "INVALID_PARAMETER_VALUE", "message": "no" });
    let server = Server::start(move |request, _| match request.body.contains("val_loss") {
        true => ("400 Bad Request", "", refusal.clone()),
        false => usual(request),
    });
    let mut host = host(&server.uri(), 20.0);
    host.train_start().unwrap();
    epoch(&mut host, 1, 0.5);
    host.train_end(Outcome::Interrupted).unwrap();
    assert_eq!(status(&server), "KILLED");
}

#[test]
fn an_unreachable_server_does_not_affect_the_run() {
    // A port without a listener.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // A listener that accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [address, silent.local_addr().unwrap()] {
        let mut host = host(&format!("http://{address}"), 0.2);
        host.train_start().unwrap();
        (1..=3).for_each(|number| epoch(&mut host, number, 0.5));
        host.train_end(Outcome::Finished).unwrap();
        assert!(!host.folder().join("mlflow.json").exists());
    }
}

#[test]
fn a_server_that_wants_a_password_is_asked_once() {
    let server = Server::start(|_, _| ("401 Unauthorized", "", json!({})));
    let mut host = host(&server.uri(), 20.0);
    host.train_start().unwrap();
    epoch(&mut host, 1, 0.5);
    host.train_end(Outcome::Finished).unwrap();
    assert_eq!(server.lines(), ["GET experiments/get-by-name?experiment_name=test"]);
}

#[test]
fn a_trial_tells_nothing() {
    let server = Server::start(|request, _| usual(request));
    let mut host = host(&server.uri(), 20.0).with_info(|info| info.trial = true);
    host.train_start().unwrap();
    epoch(&mut host, 1, 0.5);
    host.train_end(Outcome::Finished).unwrap();
    assert!(server.lines().is_empty());
}
