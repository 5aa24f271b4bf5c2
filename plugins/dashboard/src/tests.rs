use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use plugin_api::abi::kinds::EventKind;
use plugin_api::event::Outcome;
use plugin_api::protocol::{Control, Record, RecordValue, TensorSet};
use plugin_api::testing::{FakeHost, json};
use plugin_api::{ServiceKind, Tensor};
use serde_json::Value;

use super::*;

/// No answer takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

fn host(options: Value) -> FakeHost {
    let mut host = FakeHost::new::<Dashboard>(options).unwrap();
    host.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[2, 3], &[0.0f32; 6]).unwrap());
    host.put_hyper_parameter("all", "learning_rate", 0.01);
    host
}

/// A run with a page, and the port and token that were printed.
fn serving(options: Value) -> (FakeHost, u16, String) {
    let mut host = host(options);
    host.setup().unwrap();
    host.train_start().unwrap();
    let printed = host.lines().last().unwrap().clone();
    let (address, token) = printed.split_once("/?token=").unwrap();
    let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
    (host, port, token.to_owned())
}

fn send(port: u16, request: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

/// The status and everything after it.
fn answer(port: u16, request: &str) -> (u16, String) {
    let mut text = String::new();
    send(port, request).read_to_string(&mut text).unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

fn get(port: u16, path: &str) -> (u16, String) {
    answer(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"))
}

fn post(port: u16, path: &str, token: &str, body: &str) -> (u16, String) {
    let length = body.len();
    answer(
        port,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nAuthorization: Bearer \
             {token}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ),
    )
}

/// The updates of a page, one after another, without the heads of chunks and empty lines.
fn updates(stream: BufReader<TcpStream>) -> impl Iterator<Item = Value> {
    let lines = stream.lines().map_while(std::result::Result::ok);
    lines.filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
}

#[test]
fn the_page_is_one_document_that_may_run_its_own_script_alone() {
    let (_host, port, token) = serving(json!({}));
    let (status, page) = get(port, &format!("/?token={token}"));
    assert_eq!(status, 200, "{page}");
    let head = page.split("\r\n\r\n").next().unwrap();
    let nonce = head.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert_eq!(page.matches("<script").count(), page.matches(&format!("<script nonce=\"{nonce}\"")).count());
    assert!(head.contains("frame-ancestors 'none'") && head.contains("cache-control: no-store"), "{head}");
    assert!(!page.contains(&token), "the token is only in the address");
}

#[test]
fn whoever_does_not_know_the_token_sees_nothing() {
    let (host, port, token) = serving(json!({}));
    let mut wrong = token.clone();
    wrong.replace_range(..1, if token.starts_with('0') { "1" } else { "0" });
    for path in ["/", "/?token=", &format!("/?token={wrong}"), "/events", "/nowhere", &format!("/?token={token}0")] {
        assert_eq!(get(port, path).0, 401, "{path}");
    }
    for token in ["", &wrong] {
        assert_eq!(post(port, "/stop", token, "").0, 401);
        assert_eq!(post(port, "/learning-rate", token, r#"{"value":1}"#).0, 401);
    }
    assert!(host.requests().is_empty());
}

#[test]
fn another_name_of_this_machine_or_another_site_is_refused() {
    let (mut host, port, token) = serving(json!({}));
    let with = |headers: &str| {
        answer(
            port,
            &format!("POST /stop?token={token} HTTP/1.1\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"),
        )
        .0
    };
    let foreign = [
        "Host: evil.example\r\n".to_owned(),
        format!("Host: evil.example:{port}\r\n"),
        "Host: localhost.evil.example\r\n".to_owned(),
        format!("Host: localhost:{port}\r\nHost: evil.example\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: http://evil.example\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: https://localhost:{port}\r\n"),
        format!("Host: localhost:{port}\r\nOrigin: http://localhost:{}\r\n", port ^ 1),
        format!("Host: localhost:{port}\r\nOrigin: null\r\n"),
        String::new(),
    ];
    for headers in foreign {
        let status = with(&headers);
        assert!(status == 403 || status == 400, "{headers:?}: {status}");
    }
    host.set_position(1, 1);
    host.step_end(1).unwrap();
    assert!(host.requests().is_empty());
    assert_eq!(with(&format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n")), 202);
}

#[test]
fn a_stop_is_asked_for_in_the_name_of_the_dashboard() {
    let (mut host, port, token) = serving(json!({}));
    assert_eq!(post(port, "/stop", &token, "").0, 202);
    host.step_end(1).unwrap();
    assert!(host.requested(Control::Stop));
    assert_eq!(host.stopped(), Some("the stop button of the dashboard was pressed"));
}

#[test]
fn a_learning_rate_is_set_between_two_steps() {
    let (mut host, port, token) = serving(json!({}));
    assert_eq!(post(port, "/learning-rate", &token, r#"{"value":0.5}"#).0, 202);
    host.step_end(1).unwrap();
    assert_eq!(host.hyper_parameter("learning_rate"), Some(0.5));
    for wrong in ["", "{}", r#"{"value":-1}"#, r#"{"value":"a"}"#, r#"{"value":1e999}"#, r#"{"value":1,"more":2}"#] {
        assert_eq!(post(port, "/learning-rate", &token, wrong).0, 400, "{wrong}");
    }
    assert_eq!(post(port, "/learning-rate", &token, &"0".repeat(5000)).0, 413);
    // A group that does not exist is reported on the page, and ends nothing.
    assert_eq!(post(port, "/learning-rate", &token, r#"{"group":"heads","value":0.25}"#).0, 202);
    host.step_end(2).unwrap();
    assert_eq!(host.hyper_parameter("learning_rate"), Some(0.5));
    assert!(host.lines().last().unwrap().contains("the learning rate stays as it is"), "{:?}", host.lines());
}

#[test]
fn what_is_asked_for_wrongly_is_told() {
    let (_host, port, token) = serving(json!({}));
    assert_eq!(get(port, &format!("/nowhere?token={token}")).0, 404);
    assert_eq!(get(port, &format!("/stop?token={token}")).0, 405);
    assert_eq!(answer(port, "nonsense\r\n\r\n").0, 400);
}

#[test]
fn points_arrive_and_the_outcome_is_the_last_that_is_told() {
    let (mut host, port, token) = serving(json!({ "exclude": ["hidden"] }));
    let request = format!("GET /events?token={token} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    let mut updates = updates(send(port, &request));
    let first = updates.next().unwrap();
    assert_eq!(first["facts"]["model"]["parameters"], 6);
    assert_eq!(first["progress"]["state"], "running");
    for (name, value) in [("val_loss", f64::NAN), ("val_accuracy", 0.5), ("hidden", 1.0), ("other", 2.0)] {
        host.put_metric(name, value);
    }
    host.set_position(1, 10);
    host.evaluation(EventKind::EVAL_END, "val", 0, 3).unwrap();
    let record = Record { name: "noise/scale".to_owned(), value: RecordValue::Scalar { value: 0.5 } };
    host.record("someone", &record).unwrap();
    let mut seen = serde_json::Map::new();
    while seen.len() < 3 {
        let update = updates.next().unwrap();
        seen.extend(
            update["curves"].as_object().into_iter().flatten().map(|(name, curve)| (name.clone(), curve.clone())),
        );
    }
    assert_eq!(seen["val_loss"]["points"], json!([[10, "NaN"]]));
    assert_eq!(seen["val_accuracy"]["points"], json!([[10, 0.5]]));
    assert_eq!(seen["noise/scale"]["points"], json!([[10, 0.5]]));
    host.train_end(Outcome::Finished).unwrap();
    assert_eq!(updates.last().unwrap()["progress"]["state"], "finished");
    // The run is over: its buttons say so.
    assert_eq!(post(port, "/stop", &token, "").0, 409);
    assert_eq!(post(port, "/learning-rate", &token, r#"{"value":1}"#).0, 409);
    host.teardown().unwrap();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "the page ends with the run");
}

#[test]
fn one_page_too_many_is_refused_and_holds_up_nobody() {
    let (mut host, port, token) = serving(json!({ "pages": 1 }));
    let request = format!("GET /events?token={token} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    // A page has two connections: for its updates and for its buttons.
    let mut open: Vec<_> = (0..2).map(|_| send(port, &request)).collect();
    for stream in &mut open {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.contains("200"), "{line}");
    }
    let mut text = String::new();
    let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap().read_to_string(&mut text);
    assert!(text.contains("503") && text.contains("`pages`"), "{text}");
    // Neither reads its updates; the run continues.
    for step in 1..=1000 {
        host.step_end(step).unwrap();
    }
    host.train_end(Outcome::Finished).unwrap();
    host.teardown().unwrap();
}

#[test]
fn a_service_that_fails_fails_the_callback() {
    let mut host = host(json!({}));
    host.setup().unwrap();
    host.fail(ServiceKind::HOOK_TIMES, "gone");
    assert!(host.train_start().unwrap_err().message().contains("gone"));
}

#[test]
fn a_port_that_is_taken_is_told_before_the_training() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = host(json!({ "port": port })).setup().unwrap_err();
    assert!(error.message().starts_with(&format!("cannot listen on port {port} of 127.0.0.1")), "{error}");
}

#[test]
fn a_page_that_lingers_shows_how_the_run_ended() {
    let (mut host, port, token) = serving(json!({ "linger": 0.2 }));
    host.train_end(Outcome::Failed).unwrap();
    let request = format!("GET /events?token={token} HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n");
    let last = updates(send(port, &request)).last().unwrap();
    assert_eq!(last["progress"]["state"], "failed", "a page that is opened late gets everything, and then no more");
    host.teardown().unwrap();
    assert_eq!(host.lines().last().map(String::as_str), Some("the dashboard stays open for 0.2 s"));
}

#[test]
fn a_trial_opens_no_port() {
    let mut host = host(json!({})).with_info(|info| info.trial = true);
    host.setup().unwrap();
    host.train_start().unwrap();
    host.step_end(1).unwrap();
    host.train_end(Outcome::Finished).unwrap();
    assert!(host.lines().is_empty());
}

#[test]
fn options_out_of_range_are_refused() {
    for (options, name) in
        [(json!({ "every": 0.0 }), "every"), (json!({ "linger": -1.0 }), "linger"), (json!({ "pages": 0 }), "pages")]
    {
        let error = FakeHost::new::<Dashboard>(options).err().unwrap();
        assert!(error.message().contains(name), "{error}");
    }
}
