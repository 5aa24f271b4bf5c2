use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::path::{Path, PathBuf};

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
    send_to((Ipv4Addr::LOCALHOST, port), request)
}

fn send_to(address: impl Into<SocketAddr>, request: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address.into()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    BufReader::new(stream)
}

/// The status and everything after it.
fn answer(port: u16, request: &str) -> (u16, String) {
    answer_of(send(port, request))
}

fn answer_of(mut stream: BufReader<TcpStream>) -> (u16, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

/// The answer to a request for `path` at `address` in the name of `host`.
fn get_as(address: impl Into<SocketAddr>, host: &str, path: &str) -> (u16, String) {
    answer_of(send_to(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")))
}

/// A file for `token_file` that nobody else can read.
fn token_file(folder: &Path, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join("token");
    std::fs::write(&path, content).unwrap();
    set_mode(&path, 0o600);
    path
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;

    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) {}

/// Why options are refused.
fn refusal(options: Value) -> String {
    FakeHost::new::<Dashboard>(options).err().unwrap().message().to_owned()
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
    for path in
        ["/", "/?token=", &format!("/?token={wrong}"), "/events", "/metrics", "/nowhere", &format!("/?token={token}0")]
    {
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
fn prometheus_reads_the_latest_values() {
    let (mut host, port, token) = serving(json!({ "exclude": ["hidden"] }));
    for (name, value) in [("val_loss", f64::NAN), ("val_accuracy", 0.5), ("hidden", 1.0)] {
        host.put_metric(name, value);
    }
    host.set_position(2, 10);
    host.evaluation(EventKind::EVAL_END, "val", 0, 3).unwrap();
    let record = Record { name: "noise/\"scale\"".to_owned(), value: RecordValue::Scalar { value: 0.25 } };
    host.record("someone", &record).unwrap();
    let scrape = || {
        answer(
            port,
            &format!(
                "GET /metrics HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\
                 Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
            ),
        )
    };
    let (status, told) = scrape();
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{told}");
    let run = told.split("run=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for line in [
        format!("host_run_state{{run=\"{run}\",state=\"running\"}} 1"),
        format!("host_run_epoch{{run=\"{run}\"}} 2"),
        format!("host_run_step{{run=\"{run}\"}} 10"),
        format!("host_metric_val_accuracy{{run=\"{run}\",metric=\"val_accuracy\"}} 0.5"),
        format!("host_metric_val_loss{{run=\"{run}\",metric=\"val_loss\"}} NaN"),
        format!("host_metric_noise__scale_{{run=\"{run}\",metric=\"noise/\\\"scale\\\"\"}} 0.25"),
    ] {
        assert!(told.lines().any(|told| told == line), "{line} is not in {told}");
    }
    assert!(!told.contains("hidden") && !told.contains(&token), "{told}");
    assert_eq!(get(port, &format!("/metrics?token={token}")).0, 200, "as the page itself");
    assert_eq!(post(port, "/metrics", &token, "").0, 405);
    host.train_end(Outcome::Stopped).unwrap();
    let (_, told) = scrape();
    for (state, expected) in [("running", 0), ("stopped", 1), ("finished", 0)] {
        assert!(told.contains(&format!("host_run_state{{run=\"{run}\",state=\"{state}\"}} {expected}\n")), "{told}");
    }
    assert!(!told.contains("time_left"), "{told}");
}

#[test]
fn whether_it_lives_is_told_without_the_token_and_nothing_else() {
    let (_host, port, token) = serving(json!({}));
    let (status, told) = get(port, "/health");
    assert_eq!((status, told.split("\r\n\r\n").nth(1)), (200, Some("ok")), "{told}");
    let request = format!("HEAD /health HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    let (status, told) = answer(port, &request);
    assert!(status == 200 && told.ends_with("\r\n\r\n"), "{told}");
    assert_eq!(post(port, "/health", &token, "").0, 405);
    for path in ["/health/", "/health/../metrics", "//health"] {
        assert_eq!(get(port, path).0, 401, "{path}");
    }
    let foreign = "GET /health HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(answer(port, foreign).0, 403);
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
        let told = refusal(options);
        assert!(told.contains(name), "{told}");
    }
}

#[test]
fn without_options_it_is_for_this_machine_alone() {
    let (host, port, token) = serving(json!({}));
    assert_eq!(host.lines(), [format!("dashboard: http://127.0.0.1:{port}/?token={token}")]);
    assert_eq!(host.logs(), [""; 0]);
    for name in ["192.0.2.7".to_owned(), "0.0.0.0".to_owned()].into_iter().chain(own_name()) {
        let (status, told) = get_as((Ipv4Addr::LOCALHOST, port), &name, &format!("/?token={token}"));
        assert!(status == 403 && told.ends_with("only available at `localhost`\n"), "{told}");
    }
    assert!(get(port, &format!("/?token={token}")).1.contains("nothing leaves this machine"));
}

fn own_name() -> Option<String> {
    Names::new(Ipv4Addr::UNSPECIFIED.into()).own().map(str::to_owned)
}

/// Whether this machine has an IPv6 loopback.
fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn another_loopback_address_is_as_safe() {
    if !has_ipv6() {
        return;
    }
    let (host, port, token) = serving(json!({ "bind": "::1" }));
    assert_eq!(host.lines(), [format!("dashboard: http://[::1]:{port}/?token={token}")]);
    assert_eq!(host.logs(), [""; 0]);
    let page = format!("/?token={token}");
    for name in [format!("[::1]:{port}"), format!("localhost:{port}")] {
        assert_eq!(get_as((Ipv6Addr::LOCALHOST, port), &name, &page).0, 200, "{name}");
        assert_eq!(get_as((Ipv6Addr::LOCALHOST, port), &name, "/").0, 401, "{name}");
    }
    assert_eq!(get_as((Ipv6Addr::LOCALHOST, port), "[2001:db8::7]", &page).0, 403);
}

#[test]
fn at_all_addresses_the_token_and_the_names_still_protect_it() {
    let mut all = vec![("0.0.0.0", "127.0.0.1", SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))];
    if has_ipv6() {
        all.push(("::", "[::1]", SocketAddr::from((Ipv6Addr::LOCALHOST, 0))));
    }
    for (bind, shown, mut address) in all {
        let (host, port, token) = serving(json!({ "bind": bind }));
        address.set_port(port);
        let mut lines = vec![format!("dashboard: http://{shown}:{port}/?token={token}")];
        lines.extend(
            own_name().map(|name| format!("dashboard, from other machines: http://{name}:{port}/?token={token}")),
        );
        assert_eq!(host.lines(), lines);
        // Told once, with what to do, and without the token.
        let [warning] = host.logs() else { panic!("{:?}", host.logs()) };
        let listens = format!("WARN the dashboard listens on {}:", SocketAddr::new(bind.parse().unwrap(), port));
        assert!(warning.starts_with(&listens) && warning.contains("plain HTTP"), "{warning}");
        assert!(warning.contains(&format!("`ssh -L {port}:localhost:{port} MACHINE`")), "{warning}");
        assert!(warning.contains("reverse proxy") && !warning.contains(&token), "{warning}");

        let page = format!("/?token={token}");
        let names = ["localhost", "127.0.0.1", "[::1]", "192.0.2.7", "[2001:db8::7]"].map(str::to_owned);
        for name in names.into_iter().chain(own_name()) {
            let host = format!("{name}:{port}");
            let (status, told) = get_as(address, &host, &page);
            assert!(status == 200 && !told.contains("nothing leaves this machine"), "{host}: {told}");
            for path in ["/", "/events", "/metrics", "/?token=0", "/stop"] {
                assert_eq!(get_as(address, &host, path).0, 401, "{host} {path}");
            }
            assert_eq!(get_as(address, &host, "/health").0, 200, "{host}");
        }
        let foreign = ["evil.example".to_owned(), "192.0.2.7.nip.io".to_owned()];
        for name in foreign.into_iter().chain(own_name().map(|name| format!("{name}.evil.example"))) {
            for path in [&page, "/health"] {
                assert_eq!(get_as(address, &name, path).0, 403, "{name} {path}");
            }
        }
        let post = |token: &str, headers: &str| {
            let request = format!("POST /stop?token={token} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
            answer_of(send_to(address, &request)).0
        };
        assert_eq!(post("", "Host: 192.0.2.7\r\n"), 401);
        assert_eq!(post(&token, "Host: 192.0.2.7\r\nOrigin: http://evil.example\r\n"), 403);
        assert_eq!(post(&token, "Host: evil.example\r\nOrigin: http://evil.example\r\n"), 403);
        assert_eq!(post(&token, "Host: 192.0.2.7\r\nOrigin: http://192.0.2.7\r\n"), 202);
    }
}

#[test]
fn an_address_that_is_none_or_another_machines_is_refused() {
    for bind in ["localhost", "", "127.0.0.1:80", "[::1]", "256.0.0.1", "fe80::1%eth0"] {
        let told = refusal(json!({ "bind": bind }));
        assert!(
            told.starts_with(&format!("`bind` is `{bind}`, which is not an IP address; use `127.0.0.1`")),
            "{told}"
        );
    }
    // An address for documentation. The instance itself opens nothing.
    let error = host(json!({ "bind": "203.0.113.1" })).setup().unwrap_err();
    let expected = "cannot listen on port 0 of 203.0.113.1 (`bind` must be an address of this machine): ";
    assert!(error.message().starts_with(expected), "{error}");
}

#[test]
fn a_token_of_the_users_own_is_the_token_of_each_run_and_is_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    // As Base64 has them, and as an address cannot.
    let token = "a+b/c=\"d&e%f#g?h~";
    let file = token_file(folder.path(), format!("\n{token} \r\n"));
    for _ in 0..2 {
        let mut host = host(json!({ "token_file": file }));
        host.setup().unwrap();
        host.train_start().unwrap();
        let [line] = host.lines() else { panic!("{:?}", host.lines()) };
        let place = line.strip_prefix("dashboard: http://127.0.0.1:").unwrap().strip_suffix('/').unwrap();
        let port = place.parse().unwrap();
        assert_eq!(host.logs(), [""; 0]);
        for encoded in ["a+b/c=%22d%26e%25f%23g?h~", "%61%2Bb%2fc%3D%22d%26e%f%23g%3Fh%7E"] {
            for path in ["/", "/metrics"] {
                let (status, told) = get(port, &format!("{path}?token={encoded}"));
                assert!(status == 200 && !told.contains(token), "{told}");
            }
        }
        let wrong = ["", "a%20b/c=%22d%26e%25f%23g?h~", "a+b/c=%22d%26e%25f%23g?h", "a+b/c=%22d&e%25f%23g?h~"];
        for wrong in wrong {
            let (status, told) = get(port, &format!("/?token={wrong}"));
            assert!(status == 401 && told.contains("`token_file`") && !told.contains(token), "{told}");
        }
        let no_token = token.replace('b', "B");
        assert_eq!(post(port, "/stop", &no_token, "").0, 401);
        assert_eq!(post(port, "/stop", token, "").0, 202);
        host.step_end(1).unwrap();
        assert!(host.requested(Control::Stop));
        assert!(!format!("{:?} {:?}", host.lines(), host.logs()).contains(token));
    }
}

#[test]
fn a_file_that_holds_no_token_is_refused_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    for content in [
        &b""[..],
        b"secret-secret-1",
        b"   secret-secret   \n",
        b"secret-secret secret-secret",
        b"secret-secret\nsecret-secret\n",
        "\u{feff}secret-secret-secret".as_bytes(),
        "secret-secret-s\u{e9}cret".as_bytes(),
        b"secret-secret-\xff\xff\xff",
        b"secret-secret-secret\0",
        &b"secret-secret".repeat(100),
    ] {
        let told = refusal(json!({ "token_file": token_file(folder.path(), content) }));
        assert!(told.contains("of `token_file` must contain one token of at least 16 visible ASCII"), "{told}");
        assert!(!told.contains("secret-"), "{told}");
    }
    for content in [&b"secret-secret-16"[..], &b"x".repeat(1024)] {
        FakeHost::new::<Dashboard>(json!({ "token_file": token_file(folder.path(), content) })).unwrap();
    }
    let told = refusal(json!({ "token_file": folder.path() }));
    assert!(told.ends_with("of `token_file` is not a regular file"), "{told}");
    let told = refusal(json!({ "token_file": folder.path().join("none") }));
    assert!(told.starts_with("cannot read the file `") && told.contains("none` of `token_file`: "), "{told}");
}

#[cfg(unix)]
#[test]
fn a_token_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path(), "secret-secret-secret");
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602] {
        set_mode(&file, mode);
        let told = refusal(json!({ "token_file": file }));
        assert!(told.contains(&format!("has the mode {mode:03o}, ")), "{told}");
        assert!(told.ends_with(&format!("`chmod 600 {}`", file.display())) && !told.contains("secret-"), "{told}");
    }
    for mode in [0o400, 0o600, 0o700, 0o711] {
        set_mode(&file, mode);
        FakeHost::new::<Dashboard>(json!({ "token_file": file })).unwrap();
    }
}
