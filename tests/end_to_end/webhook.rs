use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::small_run::{Ran, SmallRun, text};

/// Part of each URL here: only the server may see it.
const TOKEN: &str = "T0K3N-of-the-url";

/// `whsec_` and 24 bytes in Base64.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A server on loopback, with the requests that it got: the head and the body of each.
struct Server {
    address: SocketAddr,
    requests: Receiver<(String, Value)>,
}

impl Server {
    /// Takes one connection for each status, and then no more.
    fn start(statuses: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let (sender, requests) = channel();
        std::thread::spawn(move || {
            for status in statuses {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let Some(request) = read(&stream) else { return };
                if sender.send(request).is_err() {
                    return;
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                // A client that does not wait for the answer sends no more.
                if stream.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { address, requests }
    }

    /// The payloads of a run that has ended.
    fn payloads(&self) -> Vec<Value> {
        self.requests.try_iter().map(|(_, payload)| payload).collect()
    }
}

fn read(stream: &TcpStream) -> Option<(String, Value)> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).ok().filter(|length| *length > 0)?;
    }
    head.make_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).ok()?))
}

/// A run with a webhook that also has these options.
fn with_webhook(entry: &str, options: &str) -> SmallRun {
    let options = format!("options = {{ url_env = 'HOOK_URL', backoff_seconds = 0.01{options} }}");
    SmallRun::with_libraries(&["recorder", "webhook"]).instance(&format!("kind = 'webhook'\n{entry}\n{options}"))
}

/// Runs it with the URL in its environment; its output must not contain it.
fn ran(run: SmallRun, address: SocketAddr) -> Ran {
    let url = format!("http://{address}/{TOKEN}");
    let child = run.start_with(|command| {
        command.envs([("HOOK_URL", url.as_str()), ("HOOK_SECRET", SECRET)]);
    });
    let output = child.wait_with_output().expect("the host ends");
    let ran = run.ended(output);
    keeps_the_secrets(&ran);
    ran
}

fn keeps_the_secrets(ran: &Ran) {
    assert!(!files_with("HOOK_URL", &ran.out).is_empty(), "the run file says where the URL is");
    for secret in [TOKEN, &SECRET[6..]] {
        assert!(!ran.shown().contains(secret), "{}", ran.shown());
        assert_eq!(files_with(secret, &ran.out), [""; 0]);
    }
}

/// The files of a folder that hold a text.
fn files_with(text: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in folder.read_dir().expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_with(text, &path));
        } else {
            let bytes = std::fs::read(&path).expect("the file can be read");
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn a_run_notifies_a_server() {
    let server = Server::start(&["500 Internal Server Error", "200 OK", "200 OK", "200 OK", "200 OK", "200 OK"]);
    let options = ", secret_env = 'HOOK_SECRET', events = ['start', 'trigger', 'artifact', 'finished']";
    let run = with_webhook("when = { every = '1 epoch' }", options).recorder(
        "publishes",
        "",
        "publish_in = 'epoch_end', at_step = 3",
    );
    let ran = ran(run, server.address).succeeded();
    let requests: Vec<_> = server.requests.try_iter().collect();
    let titles: Vec<&str> = requests.iter().map(|(_, payload)| text(payload, "title")).collect();
    let start = "small started";
    assert_eq!(
        titles,
        [
            start,
            start,
            "small: new recorder",
            "small: epoch 1 of 2, step 3",
            "small: epoch 2 of 2, step 6",
            "small finished"
        ]
    );
    assert!(requests.iter().all(|(head, _)| head.contains("\r\nwebhook-signature: v1,")), "{requests:?}");
    let (_, last) = requests.last().expect("a request");
    assert_eq!(text(last, "run_folder"), ran.out.display().to_string());
    assert_eq!(last["artifacts"]["recorder"][0], ran.out.join("recorder.txt").display().to_string());
    assert_eq!(last["metrics"]["val_loss"], ran.status()["metrics"]["val_loss"]);
}

#[test]
fn each_outcome_is_sent() {
    for (options, expected, plugin) in [
        ("fail_in = 'epoch_end', at_step = 3", "failed", "bad"),
        ("fail_in = 'setup'", "failed", "bad"),
        ("panic_in = 'step_end', at_step = 2", "failed", "bad"),
        ("stop_in = 'epoch_end', at_step = 3", "stopped", "bad"),
        ("", "finished", ""),
    ] {
        let server = Server::start(&["200 OK", "200 OK"]);
        let events = ", events = ['stopped', 'failed', 'interrupted', 'finished']";
        let ran = ran(with_webhook("", events).recorder("bad", "", options), server.address);
        let payloads = server.payloads();
        assert_eq!(payloads.len(), 1, "{options}: {}", ran.shown());
        assert_eq!((text(&payloads[0], "event"), text(&payloads[0], "plugin")), (expected, plugin), "{options}");
        if expected == "failed" {
            assert!(text(&payloads[0], "error").contains("the recorder was told to"), "{payloads:?}");
        }
    }
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_is_sent() {
    let server = Server::start(&["200 OK", "200 OK"]);
    let run = with_webhook("", ", events = ['failed', 'interrupted', 'finished']").recorder("sees", "", "");
    let run = run.set("train.epochs=100_000");
    let url = format!("http://{}/{TOKEN}", server.address);
    let child = run.start_with(|command| {
        command.env("HOOK_URL", &url);
    });
    run.wait_for("step_end");
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
    let output = child.wait_with_output().expect("the host ends");
    keeps_the_secrets(&run.ended(output));
    let payloads = server.payloads();
    assert_eq!(payloads.iter().map(|payload| text(payload, "event")).collect::<Vec<_>>(), ["interrupted"]);
}

#[test]
fn an_unreachable_server_is_a_warning_unless_it_is_required() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("loopback");
    let optional = ran(with_webhook("", ", retries = 1"), nobody).succeeded();
    let warning = "WARN the notice `start` was not delivered to the URL in the environment variable `HOOK_URL`: the \
                   connection failed: connection refused, in the last of 2 attempts; this is logged only once";
    assert_eq!(optional.stderr().matches(warning).count(), 1, "{}", optional.stderr());
    assert_eq!(optional.stderr().matches("WARN").count(), 1, "{}", optional.stderr());

    let required = ran(with_webhook("", ", retries = 1, required = true"), nobody);
    assert_eq!(required.code(), Some(1), "{}", required.shown());
    let error = "plugin `webhook` failed in `teardown`: notices not delivered, which `required` does not allow: 2";
    assert_eq!(required.status()["error"], error);
}

#[test]
fn a_server_that_never_answers_does_not_delay_the_run() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there");
    let address = silent.local_addr().expect("it is bound");
    let run = with_webhook("when = { every = '1 steps' }", ", queue = 2, timeout_seconds = 60, drain_seconds = 0.1");
    let ran = ran(run, address).succeeded();
    // One was being sent, two waited.
    let told = ran.stderr();
    assert!(told.contains("WARN notices not sent within the 0.1 s of `drain_seconds`: 3"), "{told}");
    assert_eq!(told.matches("notices come faster than they can be sent").count(), 1, "{told}");
}

#[test]
fn a_url_in_the_run_file_is_refused_before_it_is_copied() {
    for options in [format!("url = 'https://example.org/{TOKEN}'"), format!("url_env = 'https://example.org/{TOKEN}'")]
    {
        let run = SmallRun::with_libraries(&["webhook"]);
        let ran = run.instance(&format!("kind = 'webhook'\noptions = {{ {options} }}")).run();
        assert_eq!(ran.code(), Some(2), "{}", ran.shown());
        assert!(!ran.out.exists(), "nothing was started");
    }
    let unset = with_webhook("", "").run();
    let expected = "plugin `webhook` failed in `new`: the environment variable `HOOK_URL` of `url_env` is not set";
    assert!(unset.code() == Some(1) && unset.stderr().contains(expected), "{}", unset.shown());
}
