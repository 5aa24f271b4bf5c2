use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use plugin_api::event::Outcome;
use plugin_api::testing::{FakeHost, json};
use serde_json::Value;
use tempfile::TempDir;
use webhook::Webhook;

use crate::log;
use crate::server::{Answer, Server};

/// Part of each address here. Only the server may see it.
const TOKEN: &str = "T0K3N-of-the-address";

/// A host with a webhook whose URL is in a file, and the file's folder.
struct Webhooked {
    host: FakeHost,
    folder: TempDir,
}

impl Webhooked {
    fn new(url: &str, options: Value) -> Self {
        log::collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, format!("{url}\n")).unwrap();
        let mut all = json!({ "url_file": file.display().to_string(), "backoff_seconds": 0.001 });
        for (name, option) in options.as_object().unwrap() {
            all[name] = option.clone();
        }
        let host = FakeHost::new::<Webhook>(all).unwrap().with_info(|info| info.name = "digits".to_owned());
        Self { host, folder }
    }

    /// One that reports only the end to a server with these answers.
    fn finishing(answers: Vec<Answer>) -> (Self, Server) {
        let server = Server::start(answers);
        (Self::new(&server.url(&format!("/{TOKEN}")), json!({ "events": ["finished"] })), server)
    }

    fn begin(&mut self) {
        self.host.setup().unwrap();
        self.host.train_start().unwrap();
    }

    /// A whole run, which must not fail.
    fn run(&mut self) {
        self.begin();
        self.host.train_end(Outcome::Finished).unwrap();
        self.host.teardown().unwrap();
    }

    /// The warnings of this webhook, which are recognized by its file.
    fn warnings(&self) -> Vec<String> {
        let place = format!("the URL in the file `{}`", self.folder.path().join("url").display());
        log::warnings().iter().filter(|line| line.contains(&place)).map(|line| line.replace(&place, "[URL]")).collect()
    }
}

impl Drop for Webhooked {
    fn drop(&mut self) {
        let lines = log::warnings();
        // A failed test shows its own reason first.
        assert!(
            std::thread::panicking() || !lines.iter().any(|line| line.contains(TOKEN) || line.contains("127.0.0.1")),
            "{lines:#?}"
        );
    }
}

fn ok() -> Answer {
    Answer::status("200 OK", "")
}

/// The payload of the best epoch, without the parts that differ between runs.
fn improved(format: &str, content_type: &str) -> Value {
    let server = Server::start(vec![ok()]);
    let mut run = Webhooked::new(&server.url("/"), json!({ "format": format, "events": ["improved"] }));
    run.begin();
    run.host.put_metric("val_loss", 0.082_591);
    run.host.put_metric("val_<b>", f64::NAN);
    run.host.put_metric("learning_rate", 0.001);
    run.host.set_position(2, 20);
    run.host.artifact("best_checkpoint", "checkpoints/best", "checkpoint").unwrap();
    run.host.trigger("best val_loss").unwrap();
    run.host.teardown().unwrap();
    let request = server.request();
    assert_eq!(request.headers["content-type"], content_type);
    let folder = run.host.folder().display().to_string();
    let mut payload: Value = serde_json::from_str(&request.body.replace(&folder, "/run")).unwrap();
    for pointer in ["/time", "/embeds/0/timestamp", "/data/time"] {
        if let Some(time) = payload.pointer_mut(pointer) {
            time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
            *time = "TIME".into();
        }
    }
    for pointer in ["/seconds", "/data/seconds"] {
        if let Some(seconds) = payload.pointer_mut(pointer) {
            assert!(seconds.as_f64().unwrap() >= 0.0);
            *seconds = 1.into();
        }
    }
    if let Some(id) = payload.pointer_mut("/id") {
        assert_eq!(*id, request.headers["webhook-id"].as_str());
        *id = "ID".into();
    }
    payload
}

fn generic() -> Value {
    json!({
        "event": "improved",
        "title": "digits: val_loss improved",
        "text": "val_loss is 0.0826 after epoch 2 of 3, step 20",
        "time": "TIME",
        "run": "digits",
        "run_folder": "/run",
        "epoch": 2,
        "epochs": 3,
        "step": 20,
        "steps": 30,
        "seconds": 1,
        "metrics": { "learning_rate": 0.001, "val_<b>": "NaN", "val_loss": 0.082_591 },
        "artifacts": { "best_checkpoint": ["/run/checkpoints/best"] },
        "cause": "best val_loss",
        "metric": "val_loss",
    })
}

#[test]
fn a_generic_payload_has_everything() {
    assert_eq!(improved("generic", "application/json; charset=utf-8"), generic());
}

#[test]
fn a_cloud_event_is_in_structured_mode() {
    let expected = json!({
        "specversion": "1.0",
        "id": "ID",
        "source": "/runs/digits",
        "type": "host.run.improved",
        "subject": "digits",
        "time": "TIME",
        "datacontenttype": "application/json",
        "data": generic(),
    });
    assert_eq!(improved("cloudevents", "application/cloudevents+json; charset=utf-8"), expected);
}

#[test]
fn slack_gets_blocks() {
    let expected = json!({
        "text": "digits: val_loss improved: val_loss is 0.0826 after epoch 2 of 3, step 20",
        "blocks": [
            { "type": "header", "text": { "type": "plain_text", "text": "digits: val_loss improved" } },
            {
                "type": "section",
                "text": { "type": "mrkdwn", "text": "val_loss is 0.0826 after epoch 2 of 3, step 20" },
            },
            {
                "type": "section",
                "fields": [
                    { "type": "mrkdwn", "text": "*val_&lt;b&gt;*\nNaN" },
                    { "type": "mrkdwn", "text": "*val_loss*\n0.0826" },
                ],
            },
        ],
    });
    assert_eq!(improved("slack", "application/json; charset=utf-8"), expected);
}

#[test]
fn teams_gets_an_adaptive_card() {
    let title = "digits: val_loss improved";
    let text = "val_loss is 0.0826 after epoch 2 of 3, step 20";
    let facts = [json!({ "title": "val_<b>", "value": "NaN" }), json!({ "title": "val_loss", "value": "0.0826" })];
    let expected = json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [
                    {
                        "type": "TextBlock",
                        "text": title,
                        "weight": "Bolder",
                        "size": "Medium",
                        "color": "Good",
                        "wrap": true,
                    },
                    { "type": "TextBlock", "text": text, "wrap": true },
                    { "type": "FactSet", "facts": facts },
                ],
            },
        }],
    });
    assert_eq!(improved("teams", "application/json; charset=utf-8"), expected);
}

#[test]
fn discord_gets_an_embed_that_mentions_nobody() {
    let expected = json!({
        "embeds": [{
            "title": "digits: val_loss improved",
            "description": "val_loss is 0.0826 after epoch 2 of 3, step 20",
            "color": 0x2e_cc_71,
            "fields": [
                { "name": "val_<b>", "value": "NaN", "inline": true },
                { "name": "val_loss", "value": "0.0826", "inline": true },
            ],
            "timestamp": "TIME",
        }],
        "allowed_mentions": { "parse": [] },
    });
    assert_eq!(improved("discord", "application/json; charset=utf-8"), expected);
}

#[test]
fn what_fails_for_a_while_is_sent_again_as_the_same_message() {
    let busy = || Answer::status("500 Internal Server Error", "");
    let slow = Answer::status("429 Too Many Requests", "retry-after: 1\r\n");
    let dated = Answer::status("503 Service Unavailable", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
    for answers in [vec![busy(), busy(), busy()], vec![slow], vec![dated, Answer::Close, Answer::Raw("?".to_owned())]] {
        let count = answers.len();
        let (mut run, server) = Webhooked::finishing(answers.into_iter().chain([ok()]).collect());
        run.run();
        let requests: Vec<_> = (0..=count).map(|_| server.request()).collect();
        assert!(requests[0].line.starts_with(&format!("POST /{TOKEN} HTTP/1.1")));
        for request in &requests {
            assert_eq!(
                (&request.headers["webhook-id"], &request.body),
                (&requests[0].headers["webhook-id"], &requests[0].body)
            );
        }
        assert_eq!((server.others().len(), run.warnings().len()), (0, 0));
    }
}

#[test]
fn a_wait_that_the_server_asks_for_is_kept() {
    let (mut run, server) =
        Webhooked::finishing(vec![Answer::status("429 Too Many Requests", "retry-after: 2\r\n"), ok()]);
    run.run();
    let sent = || server.request().headers["webhook-timestamp"].parse::<i64>().unwrap();
    let first = sent();
    // By its own schedule it would retry after a millisecond.
    assert!(sent() >= first + 2);
}

#[test]
fn one_that_is_too_long_is_not() {
    for wait in ["700", "Fri, 31 Dec 2179 23:59:59 GMT"] {
        let (mut run, server) = Webhooked::finishing(vec![
            Answer::status("429 Too Many Requests", &format!("retry-after: {wait}\r\n")),
            ok(),
        ]);
        run.run();
        assert_eq!((server.request().line.is_empty(), server.others().len()), (false, 0));
        let told = run.warnings();
        let expected = "[URL]: the server answered `429 Too Many Requests` and asks to wait for ";
        assert!(told.len() == 1 && told[0].contains(expected), "{told:?}");
    }
}

#[test]
fn what_will_never_work_is_tried_once_and_told_once() {
    let refusal = || Answer::status("404 Not Found", "");
    let server = Server::start(vec![refusal(), refusal()]);
    let mut run = Webhooked::new(&server.url(&format!("/{TOKEN}")), json!({ "events": ["start", "finished"] }));
    run.run();
    assert_ne!(server.request().headers["webhook-id"], server.request().headers["webhook-id"]);
    assert_eq!(
        run.warnings(),
        [
            "WARN the notice `start` was not delivered to [URL]: the server answered `404 Not Found`; this is logged only once"
        ]
    );
}

#[test]
fn an_address_that_is_gone_is_left_alone() {
    let server = Server::start(vec![Answer::status("410 Gone", ""), ok()]);
    let mut run = Webhooked::new(&server.url("/"), json!({ "events": ["start", "finished"] }));
    run.run();
    assert_eq!((server.request().line.is_empty(), server.others().len()), (false, 0));
}

#[test]
fn servers_that_are_not_there_or_say_nothing_are_given_up() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let silent = Server::start(vec![Answer::Hang, Answer::Hang]);
    let refused = "the connection failed: connection refused, in the last of 2 attempts";
    for (url, expected) in [
        (format!("http://{nobody}/{TOKEN}"), refused),
        (silent.url(&format!("/{TOKEN}")), "the server took too long, in the last of 2 attempts"),
        (
            format!("https://{}/{TOKEN}", plain()),
            "the server has no trusted certificate for its name, or does not use TLS;",
        ),
    ] {
        let mut run = Webhooked::new(&url, json!({ "events": ["start"], "retries": 1, "timeout_seconds": 0.5 }));
        run.run();
        let told = run.warnings();
        assert!(told.len() == 1 && told[0].contains(expected), "{told:?}");
    }
}

/// A server that accepts one connection and does not use TLS.
fn plain() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        // Closing with unread data would reset the connection.
        let read = stream.read(&mut [0; 4096])?;
        stream.write_all(b"HTTP/1.1 400 ?\r\n\r\n").map(|()| read)
    });
    address
}

#[test]
fn a_server_whose_certificate_nobody_trusts_is_told_nothing() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut connection = rustls::ServerConnection::new(Arc::new(config)).map_err(std::io::Error::other)?;
        let ended = connection.complete_io(&mut stream);
        Ok::<_, std::io::Error>((ended, connection.server_name().map(str::to_owned)))
    });
    let mut run = Webhooked::new(&format!("https://localhost:{port}/{TOKEN}"), json!({ "events": ["start"] }));
    run.run();
    let told = run.warnings();
    let expected = "the server has no trusted certificate for its name, or does not use TLS;";
    assert!(told.len() == 1 && told[0].contains(expected), "{told:?}");
    // The client has seen the certificate, and closed the connection.
    let (ended, name) = server.join().unwrap().unwrap();
    assert!(ended.is_err(), "{ended:?}");
    assert_eq!(name.as_deref(), Some("localhost"));
}

#[test]
fn a_redirect_is_followed_on_the_server_and_refused_elsewhere() {
    let (mut run, server) =
        Webhooked::finishing(vec![Answer::status("307 Temporary Redirect", "location: /new\r\n"), ok()]);
    run.run();
    let (first, second) = (server.request(), server.request());
    assert!(second.line.starts_with("POST /new "), "{second:?}");
    assert_eq!((first.body, run.warnings().len()), (second.body, 0));

    let other = Server::start(vec![ok()]);
    for location in [other.url(&format!("/{TOKEN}")), "http://localhost/".to_owned(), "ftp://127.0.0.1/".to_owned()] {
        let (mut run, _server) =
            Webhooked::finishing(vec![Answer::status("302 Found", &format!("location: {location}\r\n")), ok()]);
        run.run();
        let told = run.warnings();
        assert!(
            told.len() == 1 && told[0].contains("`302 Found` redirects to another server, which is not followed"),
            "{told:?}"
        );
    }
    assert_eq!(other.others().len(), 0);

    let circle = (0..9).map(|_| Answer::status("308 Permanent Redirect", "location: /\r\n")).collect();
    let (mut run, server) = Webhooked::finishing(circle);
    run.run();
    assert_eq!(server.others().len(), 4);
    assert!(run.warnings()[0].contains("the server redirected more than 3 times"));
}

#[test]
fn a_server_that_hangs_holds_up_nothing() {
    let server = Server::start(vec![Answer::Hang]);
    let options = json!({ "events": ["trigger"], "queue": 1, "drain_seconds": 0.01, "timeout_seconds": 20 });
    let mut run = Webhooked::new(&server.url(&format!("/{TOKEN}")), options);
    run.begin();
    run.host.trigger("epoch").unwrap();
    server.request();
    for _ in 0..100 {
        run.host.trigger("epoch").unwrap();
    }
    run.host.train_end(Outcome::Finished).unwrap();
    run.host.teardown().unwrap();
    let told = log::warnings();
    assert!(told.contains(&"WARN notices come faster than they can be sent: some are dropped".to_owned()), "{told:?}");
    let limit = "WARN notices not sent within the 0.01 s of `drain_seconds`: 2";
    assert!(told.contains(&limit.to_owned()), "{told:?}");
}

#[test]
fn a_notice_that_is_required_fails_the_run() {
    let server = Server::start(vec![Answer::status("404 Not Found", "")]);
    let options = json!({ "events": ["finished"], "required": true });
    let mut run = Webhooked::new(&server.url(&format!("/{TOKEN}")), options);
    run.begin();
    run.host.train_end(Outcome::Finished).unwrap();
    let found = run.host.teardown().unwrap_err();
    assert_eq!(found.message(), "notices not delivered, which `required` does not allow: 1");
}
