use plugin_api::event::Outcome;
use plugin_api::testing::{FakeHost, json};
use plugin_api::{EventKind, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use webhook::Webhook;

use crate::log;
use crate::server::{Answer, Request, Server};

/// The requests to a server that accepts everything.
struct Sent {
    server: Server,
    host: FakeHost,
    _folder: TempDir,
}

impl Sent {
    fn new(options: Value) -> Self {
        Self::of(options, |_| {})
    }

    fn of(options: Value, change: impl FnOnce(&mut plugin_api::protocol::RunInfo)) -> Self {
        log::collect();
        let server = Server::start(vec![Answer::status("204 No Content", ""); 8]);
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.display().to_string()
        };
        let mut all = options;
        all["url_file"] = file("url", &server.url("/")).into();
        if let Some(secret) = all["secret_file"].as_str() {
            all["secret_file"] = file("secret", secret).into();
        }
        let host = FakeHost::new::<Webhook>(all).unwrap().with_info(|info| {
            info.name = "digits".to_owned();
            info.folder = "/run".to_owned();
            change(info);
        });
        Self { server, host, _folder: folder }
    }

    /// The payloads, once the run is over.
    fn payloads(mut self) -> Vec<Value> {
        self.host.teardown().unwrap();
        self.server.others().iter().map(|request| serde_json::from_str(&request.body).unwrap()).collect()
    }
}

/// The title and the text of each payload, without the seconds in it.
fn words(payloads: &[Value]) -> Vec<String> {
    let words = |payload: &Value| {
        let text = |name: &str| payload[name].as_str().unwrap();
        let seconds = format!("{:.1} s", payload["seconds"].as_f64().unwrap());
        format!("{} | {}", text("title"), text("text").replace(&seconds, "TIME s"))
    };
    payloads.iter().map(words).collect()
}

#[test]
fn each_event_has_its_words() -> Result<()> {
    let mut sent = Sent::new(json!({ "events": ["start", "trigger", "improved", "artifact", "stopped"] }));
    let host = &mut sent.host;
    host.setup()?;
    host.train_start()?;
    host.put_metric("val_loss", 0.5);
    host.epoch_end(1)?;
    host.trigger("epoch")?;
    host.trigger("best val_loss")?;
    host.artifact("export", "exports/model.onnx", "onnx")?;
    host.stopping("early-stopping", "`val_loss` no longer improves")?;
    host.train_end(Outcome::Stopped)?;
    assert_eq!(
        words(&sent.payloads()),
        [
            "digits started | 3 epochs, 30 steps, in /run",
            "digits: epoch 1 of 3, step 10 | After epoch 1 of 3, step 10, TIME s. Results: /run",
            "digits: val_loss improved | val_loss is 0.5000 after epoch 1 of 3, step 10",
            "digits: new export | /run/exports/model.onnx after epoch 1 of 3, step 10",
            "digits stopped early | After epoch 1 of 3, step 10, TIME s, by early-stopping: `val_loss` no longer improves. \
             Results: /run",
        ]
    );
    Ok(())
}

#[test]
fn a_failure_names_the_plugin_and_what_it_said() -> Result<()> {
    let mut sent = Sent::new(json!({}));
    sent.host.setup()?;
    sent.host.set_position(2, 15);
    sent.host.error("onnx", "trigger", "the disk is full")?;
    sent.host.train_end(Outcome::Failed)?;
    // Before the training started, the end of the job is the only end.
    let mut early = Sent::new(json!({ "events": ["failed"] }));
    early.host.setup()?;
    early.host.error("onnx", "setup", &"no ".repeat(1500))?;
    let (payloads, early) = (sent.payloads(), early.payloads());
    assert_eq!(
        words(&payloads),
        ["digits failed | After epoch 2 of 3, step 15, TIME s, onnx in trigger: the disk is full. Log: /run"]
    );
    let details = ["event", "plugin", "hook", "error"].map(|name| payloads[0][name].as_str().unwrap());
    assert_eq!(details, ["failed", "onnx", "trigger", "the disk is full"]);
    assert_eq!((early.len(), early[0]["error"].as_str().unwrap().chars().count()), (1, 2001));
    Ok(())
}

#[test]
fn a_failure_that_the_run_outlives_is_none() -> Result<()> {
    let mut sent = Sent::of(json!({}), |info| info.resumed_from = Some("/run/checkpoints/last".to_owned()));
    sent.host.setup()?;
    sent.host.train_start()?;
    sent.host.error("onnx", "trigger", "ignored")?;
    sent.host.train_end(Outcome::Finished)?;
    let mut interrupted = Sent::new(json!({}));
    interrupted.host.setup()?;
    interrupted.host.stopping("host", "signal 2")?;
    interrupted.host.train_end(Outcome::Interrupted)?;
    assert_eq!(
        words(&sent.payloads()),
        [
            "digits resumed | Resumed from /run/checkpoints/last",
            "digits finished | After epoch 0 of 3, step 0, TIME s. Results: /run",
        ]
    );
    let interrupted = interrupted.payloads();
    assert_eq!(words(&interrupted), ["digits was interrupted | After epoch 0 of 3, step 0, TIME s. Results: /run"]);
    assert_eq!(interrupted[0]["reason"], "signal 2");
    Ok(())
}

#[test]
fn a_text_of_ones_own_has_any_result_in_it() -> Result<()> {
    let text = "{run}: {val_loss:.2} {best_checkpoint} {exports} {{{event}}} {no_such_thing}";
    let mut sent = Sent::new(json!({ "events": ["finished"], "text": text }));
    sent.host.setup()?;
    sent.host.put_metric("val_loss", 0.125);
    for path in ["checkpoints/a", "checkpoints/b"] {
        sent.host.artifact("best_checkpoint", path, "checkpoint")?;
        sent.host.artifact("export", "/tmp/model.onnx", "onnx")?;
        sent.host.artifact("export", path, "weights")?;
    }
    sent.host.train_end(Outcome::Finished)?;
    let payloads = sent.payloads();
    let exports = "/run/checkpoints/a, /tmp/model.onnx, /run/checkpoints/b";
    assert_eq!(payloads[0]["text"], format!("digits: 0.12 /run/checkpoints/b {exports} {{finished}} n/a"));
    Ok(())
}

#[test]
fn the_end_is_told_once() -> Result<()> {
    for (events, expected) in [(json!(["trigger", "finished"]), "finished"), (json!(["trigger"]), "trigger")] {
        let mut sent = Sent::new(json!({ "events": events }));
        sent.host.setup()?;
        sent.host.trigger("end")?;
        sent.host.train_end(Outcome::Finished)?;
        let payloads = sent.payloads();
        assert_eq!(payloads.iter().map(|payload| payload["event"].as_str().unwrap()).collect::<Vec<_>>(), [expected]);
    }
    Ok(())
}

#[test]
fn a_trial_tells_nobody() -> Result<()> {
    let mut sent = Sent::of(json!({}), |info| info.trial = true);
    sent.host.setup()?;
    sent.host.train_start()?;
    sent.host.train_end(Outcome::Finished)?;
    assert!(sent.payloads().is_empty());
    Ok(())
}

/// HMAC by its definition (RFC 2104), for keys of at most one block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let padded = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}

/// The signature, by the specification's words: <https://github.com/standard-webhooks/standard-webhooks>.
fn signature(request: &Request, key: &[u8]) -> String {
    use base64::Engine;
    let signed = format!("{}.{}.{}", request.headers["webhook-id"], request.headers["webhook-timestamp"], request.body);
    format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(hmac(key, signed.as_bytes())))
}

#[test]
fn messages_are_signed() -> Result<()> {
    let key = b"\x31\xf2\x90\xf6\xbf\x06\x29\x8a\xab\x4f\x08\xd4\x3c\x3f\x08\x2c\xf6\x48\xa3\x62\xda\x2d\xa4\xb0";
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
    let mut sent = Sent::new(json!({ "events": ["start", "finished"], "secret_file": secret }));
    sent.host.setup()?;
    sent.host.train_start()?;
    sent.host.train_end(Outcome::Finished)?;
    sent.host.teardown()?;
    for _ in 0..2 {
        let request = sent.server.request();
        assert_eq!(request.headers["webhook-signature"], signature(&request, key));
    }
    let mut unsigned = Sent::new(json!({ "events": ["finished"] }));
    unsigned.host.setup()?;
    unsigned.host.train_end(Outcome::Finished)?;
    assert!(!unsigned.server.request().headers.contains_key("webhook-signature"));
    Ok(())
}

#[test]
fn options_are_refused_before_the_run_and_secrets_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let good = file("good", "https://example.org/S3CRET");
    for (options, expected) in [
        (json!({}), "`url_env` or `url_file` must say where the URL is"),
        (
            json!({ "url_env": "NO_SUCH_VARIABLE_OF_A_TEST" }),
            "variable `NO_SUCH_VARIABLE_OF_A_TEST` of `url_env` is not set",
        ),
        (
            json!({ "url_env": "https://example.org/S3CRET" }),
            "takes the name of an environment variable, not its value",
        ),
        (json!({ "url_file": "https://example.org/S3CRET" }), "`url_file` takes the path of a file"),
        (json!({ "url_file": good, "url_env": "PATH" }), "are both given"),
        (json!({ "url_file": folder.path().join("none").display().to_string() }), "cannot read the file `"),
        (json!({ "url_file": file("empty", "\n") }), "must contain exactly one word"),
        (json!({ "url_file": file("two", "https://example.org/S3CRET b") }), "must contain exactly one word"),
        (
            json!({ "url_file": file("ftp", "ftp://example.org/S3CRET") }),
            "must contain a URL that starts with `https://`",
        ),
        (json!({ "url_file": good, "secret_env": "whsec_S3CRET" }), "`secret_env` takes the name"),
        (json!({ "url_file": good, "secret_file": "whsec_S3CRET" }), "`secret_file` takes the path"),
        (json!({ "url_file": good, "secret_file": file("key", "S3CRET") }), "must contain a signing secret: `whsec_`"),
        (json!({ "url_file": good, "secret_file": file("base", "whsec_S3CRET?") }), "must contain a signing secret"),
        (json!({ "url_file": good, "text": "{val_loss" }), "`text`: a single `{` in `{val_loss`"),
        (json!({ "url_file": good, "events": [] }), "`events` is empty"),
        (json!({ "url_file": good, "timeout_seconds": 0.0 }), "must be more than 0"),
        (json!({ "url_file": good, "drain_seconds": -1.0 }), "`drain_seconds` = `-1` is not a time"),
        (json!({ "url_file": good, "url": "https://example.org/S3CRET" }), "unknown field `url`"),
    ] {
        let found = FakeHost::new::<Webhook>(options.clone()).err().expect("an error").message().to_owned();
        assert!(found.contains(expected), "{options}: {found}");
        assert!(!found.contains("S3CRET"), "{found}");
    }
}

#[test]
fn it_asks_for_no_more_than_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, "https://example.org/").unwrap();
    let host = FakeHost::new::<Webhook>(json!({ "url_file": file.display().to_string() })).unwrap();
    assert!(!host.descriptor().by_default && host.descriptor().dispatch == "background");
    assert!(!host.subscribes(EventKind::STEP_END) && !host.subscribes(EventKind::RECORD));
}
