//! The callback and its thread against a controller on loopback, over TLS.

mod log;
mod server;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plugin_api::ServiceKind;
use plugin_api::event::{Outcome, Position};
use plugin_api::testing::{FakeHost, Value, json};
use tempfile::TempDir;

use self::server::{Ca, LONG, Server};
use crate::Kubeflow;
use crate::client::Client;
use crate::options::{Environment, Options, Plan};
use crate::reporter::Reporter;
use crate::status::{Planned, Status};

/// The content of every token file here, or a part of it. Only the server may see it.
const TOKEN: &str = "T0K3N-of-the-pod";

/// The files of a pod, and the address of a controller.
struct Pod {
    folder: TempDir,
    ca_file: PathBuf,
    token_file: PathBuf,
    url: String,
}

impl Pod {
    fn new(ca: &Ca, url: String) -> Self {
        log::collect();
        let folder = tempfile::tempdir().unwrap();
        let (ca_file, token_file) = (ca.write(folder.path()), folder.path().join("token"));
        let pod = Self { folder, ca_file, token_file, url };
        pod.rotate("1");
        pod
    }

    /// Puts a new token in place of the old one.
    fn rotate(&self, number: &str) {
        std::fs::write(&self.token_file, format!("{TOKEN}-{number}\n")).unwrap();
    }

    fn host(&self, options: Value) -> FakeHost {
        let mut all = json!({ "url": self.url, "ca_file": self.ca_file, "token_file": self.token_file });
        for (name, option) in options.as_object().unwrap() {
            all[name] = option.clone();
        }
        FakeHost::new::<Kubeflow>(all).unwrap().with_info(|info| info.total_steps = 100)
    }

    fn client(&self, timeout: Duration) -> Client {
        let environment = Environment {
            url: Some(self.url.clone()),
            ca_cert: Some(self.ca_file.clone()),
            token: Some(self.token_file.clone()),
        };
        let Ok(Plan::Send(target)) = Options::default().plan(&environment) else { panic!("nothing is sent") };
        Client::new(target, timeout)
    }

    fn reporter(&self, every: Duration) -> Reporter {
        Reporter::start(self.client(LONG), every, LONG).unwrap()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let lines = log::lines();
        // A failed test shows its own reason first.
        assert!(std::thread::panicking() || !lines.iter().any(|line| line.contains(TOKEN)), "{lines:#?}");
    }
}

fn ok(_: usize) -> Option<&'static str> {
    Some("200 OK")
}

fn status(step: u64) -> Status {
    let mut position = Position::default();
    position.global_step = step;
    let planned = Planned { first_step: 0, total_steps: 100 };
    Status::new(planned, &position, Duration::ZERO, None, &BTreeMap::new())
}

fn percentage(status: &Value) -> u64 {
    status["progressPercentage"].as_u64().unwrap()
}

#[test]
fn a_run_is_told_at_its_start_and_its_end_and_its_steps_cost_no_request() {
    let ca = Ca::new();
    let server = Server::start(&ca, ok);
    let pod = Pod::new(&ca, server.url());
    let mut host = pod.host(json!({ "exclude": ["hidden"] }));
    host.setup().unwrap();
    host.train_start().unwrap();
    let first = server.request();
    assert_eq!(first.line, "POST /apis/trainer.kubeflow.org/v1alpha1/namespaces/n/trainjobs/t/status HTTP/1.1");
    assert_eq!(first.headers["authorization"], format!("Bearer {TOKEN}-1"));
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(percentage(&first.status()), 0);
    host.put_metric("val_loss", 0.25);
    host.put_metric("hidden", 1.0);
    for step in 1..=50 {
        host.set_position(1, step);
        host.step_end(step).unwrap();
    }
    pod.rotate("2");
    host.train_end(Outcome::Finished).unwrap();
    host.teardown().unwrap();
    let last = server.request();
    assert_eq!(last.headers["authorization"], format!("Bearer {TOKEN}-2"), "the file is read anew");
    let status = last.status();
    assert_eq!((percentage(&status), &status["estimatedRemainingSeconds"]), (100, &json!(0)));
    let names: Vec<&str> =
        status["metrics"].as_array().unwrap().iter().map(|metric| metric["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["current_epoch", "current_step", "total_steps", "val_loss"]);
    assert_eq!(server.others().len(), 0);
}

#[test]
fn a_status_comes_every_five_seconds() {
    let ca = Ca::new();
    let server = Server::start(&ca, ok);
    let pod = Pod::new(&ca, server.url());
    let mut host = pod.host(json!({}));
    host.setup().unwrap();
    host.train_start().unwrap();
    let (first, began) = (server.request(), Instant::now());
    let mut others = Vec::new();
    for step in 1.. {
        if !others.is_empty() || began.elapsed() > LONG {
            break;
        }
        host.set_position(1, step);
        host.step_end(step).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        others = server.others();
    }
    let [second] = others.as_slice() else { panic!("{} requests came", others.len()) };
    assert!(second.came - first.came >= Duration::from_secs(4), "{:?}", second.came - first.came);
    let status = second.status();
    assert!(status["estimatedRemainingSeconds"].is_u64() && percentage(&status) > 0, "{status:?}");
    host.train_end(Outcome::Interrupted).unwrap();
    host.teardown().unwrap();
    let status = server.request().status();
    assert!(status.get("estimatedRemainingSeconds").is_none() && percentage(&status) < 100, "{status:?}");
    assert_eq!(server.others().len(), 0);
}

#[test]
fn of_many_statuses_the_latest_is_sent_and_the_last_at_once() {
    let ca = Ca::new();
    let server = Server::start(&ca, ok);
    let pod = Pod::new(&ca, server.url());
    let every = Duration::from_millis(300);
    let mut reporter = pod.reporter(every);
    reporter.status(status(1));
    let first = server.request();
    for step in 2..=50 {
        reporter.status(status(step));
    }
    let second = server.request();
    assert!(second.came - first.came >= every / 2, "it came after {:?}", second.came - first.came);
    assert_eq!((percentage(&first.status()), percentage(&second.status())), (1, 50));
    let began = Instant::now();
    let mut slow = pod.reporter(LONG);
    for reporter in [&mut reporter, &mut slow] {
        reporter.status(status(60));
        reporter.last(status(70));
        reporter.wait();
    }
    assert!(began.elapsed() < LONG / 2);
    let sent: Vec<u64> = server.others().iter().map(|request| percentage(&request.status())).collect();
    assert!(sent.ends_with(&[70]) && sent.iter().filter(|percent| **percent == 70).count() == 2, "{sent:?}");
}

#[test]
fn what_cannot_be_sent_is_told_once_until_it_works_again() {
    let ca = Ca::new();
    let answers = ["500 Internal Server Error", "429 Too Many Requests", "200 OK", "418 I'm a teapot", "200 OK"];
    let server = Server::start(&ca, move |number| answers.get(number).copied());
    let pod = Pod::new(&ca, server.url());
    let before = log::lines().len();
    let reporter = pod.reporter(Duration::from_millis(1));
    for step in 0..answers.len() as u64 {
        reporter.status(status(step));
        assert_eq!(percentage(&server.request().status()), step);
    }
    drop(reporter);
    let told = |line: &str| log::lines()[before..].iter().filter(|told| told.contains(line)).count();
    let began = Instant::now();
    // Other tests log, too; nobody else gets these answers.
    while told("gets the status of the run again") < 2 && began.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((told("`500 Internal Server Error`"), told("`429 Too Many Requests`")), (1, 0));
    assert_eq!(told("`418 I'm a teapot`"), 1);
}

#[test]
fn a_server_that_hangs_holds_up_no_hook_and_the_end_for_two_requests() {
    let ca = Ca::new();
    let server = Server::start(&ca, |_| None);
    let pod = Pod::new(&ca, server.url());
    let mut host = pod.host(json!({ "timeout_seconds": 1.0 }));
    host.setup().unwrap();
    host.train_start().unwrap();
    server.request();
    let began = Instant::now();
    for step in 1..=1000 {
        host.step_end(step).unwrap();
    }
    host.train_end(Outcome::Finished).unwrap();
    let told = began.elapsed();
    host.teardown().unwrap();
    assert!(told < Duration::from_secs(1), "the hooks took {told:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "the end took {:?}", began.elapsed());
}

#[test]
fn a_server_that_is_not_trusted_gets_no_token() {
    let (ca, other) = (Ca::new(), Ca::new());
    let server = Server::start(&other, ok);
    let mut client = Pod::new(&ca, server.url()).client(LONG);
    assert!(client.send("{}").unwrap_err().contains("`KUBEFLOW_TRAINER_SERVER_TOKEN`"), "the folder is gone");
    let pod = Pod::new(&ca, server.url());
    let mut client = pod.client(LONG);
    let why = "the server has no certificate that the CA file vouches for, or does not use TLS";
    assert_eq!(client.send("{}").unwrap_err(), why);
    assert_eq!(server.others().len(), 0);
    // A CA that was replaced counts at once.
    other.write(pod.folder.path());
    client.send("{}").unwrap();
    assert_eq!(server.others().len(), 1);
}

#[test]
fn files_that_are_broken_or_gone_are_named_without_their_content() {
    let ca = Ca::new();
    let server = Server::start(&ca, ok);
    let pod = Pod::new(&ca, server.url());
    let mut client = pod.client(LONG);
    for content in ["", "\n", &format!("{TOKEN}\n{TOKEN}"), &format!("{TOKEN}\u{7f}"), &format!("{TOKEN}é")] {
        std::fs::write(&pod.token_file, content).unwrap();
        let told = client.send("{}").unwrap_err();
        assert_eq!(told, "the file of `KUBEFLOW_TRAINER_SERVER_TOKEN` does not contain exactly one token");
    }
    pod.rotate("2");
    std::fs::write(&pod.ca_file, TOKEN).unwrap();
    let told = client.send("{}").unwrap_err();
    assert_eq!(told, "the file of `KUBEFLOW_TRAINER_SERVER_CA_CERT` contains no certificate in PEM");
    std::fs::remove_file(&pod.ca_file).unwrap();
    let told = client.send("{}").unwrap_err();
    assert!(told.starts_with("cannot read the file of `KUBEFLOW_TRAINER_SERVER_CA_CERT`: "), "{told}");
    assert_eq!(server.others().len(), 0);
}

#[test]
fn answers_that_are_none_are_told() {
    let ca = Ca::new();
    let server = Server::start(&ca, |number| match number {
        0 => Some("307 Temporary Redirect\r\nlocation: /elsewhere"),
        1 => Some("403 Forbidden"),
        2 => Some("404 Not Found"),
        _ => None,
    });
    let pod = Pod::new(&ca, server.url());
    let mut client = pod.client(Duration::from_secs(1));
    for expected in [
        "the server answered `307 Temporary Redirect`; redirects are not followed",
        "the server answered `403 Forbidden`; the token must be of a pod of this TrainJob",
        "the server answered `404 Not Found`; is there a TrainJob of this name, and is the feature gate `TrainJobStatus` \
         on?",
        "the server took too long",
    ] {
        assert_eq!(client.send("{}").unwrap_err(), expected);
    }
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let mut client = Pod::new(&ca, format!("https://{nobody}/")).client(LONG);
    assert!(client.send("{}").is_err());
}

#[test]
fn nothing_fails_a_run() {
    let ca = Ca::new();
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let pod = Pod::new(&ca, format!("https://{nobody}/"));
    for failing in [None, Some(ServiceKind::RUN_INFO), Some(ServiceKind::METRICS)] {
        let mut host = pod.host(json!({}));
        if let Some(service) = failing {
            host.fail(service, "gone");
        }
        host.setup().unwrap();
        host.train_start().unwrap();
        host.step_end(1).unwrap();
        host.train_end(Outcome::Failed).unwrap();
        host.teardown().unwrap();
    }
}

#[test]
fn outside_of_a_pod_one_line_says_that_nothing_is_sent() {
    log::collect();
    let mut host = FakeHost::new::<Kubeflow>(json!({})).unwrap();
    host.setup().unwrap();
    host.train_start().unwrap();
    host.step_end(1).unwrap();
    host.train_end(Outcome::Finished).unwrap();
    host.teardown().unwrap();
    let told = log::lines();
    let told: Vec<_> = told.iter().filter(|line| line.contains("`KUBEFLOW_TRAINER_SERVER_URL` is not set")).collect();
    assert!(told.len() == 1 && told[0].starts_with("INFO nothing is sent to Kubeflow Trainer: "), "{told:?}");
}

#[test]
fn a_trial_sends_nothing() {
    let ca = Ca::new();
    let server = Server::start(&ca, ok);
    let pod = Pod::new(&ca, server.url());
    let mut host = pod.host(json!({})).with_info(|info| info.trial = true);
    host.setup().unwrap();
    host.train_start().unwrap();
    host.train_end(Outcome::Finished).unwrap();
    host.teardown().unwrap();
    assert_eq!(server.others().len(), 0);
}

#[test]
fn options_that_are_wrong_are_refused() {
    for (options, expected) in [
        (json!({ "url": "http://host/", "ca_file": "a", "token_file": "b" }), "`url` must start with `https://`"),
        (json!({ "timeout_seconds": 0.0 }), "`timeout_seconds` is 0"),
        (json!({ "timeout_seconds": 61.0 }), "`timeout_seconds` is 61"),
    ] {
        let error = FakeHost::new::<Kubeflow>(options).err().unwrap();
        assert!(error.message().contains(expected), "{error}");
    }
}
