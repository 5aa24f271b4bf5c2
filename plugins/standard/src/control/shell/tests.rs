use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plugin_api::Tensor;
use plugin_api::protocol::{Control, TensorSet};
use plugin_api::testing::{FakeHost, json};

use super::*;

fn host(timeout: &str) -> FakeHost {
    let mut host = FakeHost::new::<Shell>(json!({ "timeout": timeout })).unwrap();
    host.setup().unwrap();
    host.train_start().unwrap();
    host.set_position(2, 35);
    host.put_metric("train_loss", 0.25);
    host.put_hyper_parameter("all", "learning_rate", 0.1);
    let weight = Tensor::new("fc1.weight", &[2, 2], &[3f32, -4.0, f32::NAN, 0.0]).unwrap();
    host.put_tensor(TensorSet::Parameters, weight);
    // The fake host has no empty sets.
    for set in ["buffers", "optimizer", "gradients", "batch", "outputs", "taps"] {
        host.put_tensor(set.parse().unwrap(), Tensor::new("other", &[1], &[0f32]).unwrap());
    }
    host
}

fn touch(host: &FakeHost) -> PathBuf {
    let path = host.folder().join("INJECT_SHELL.tmp");
    std::fs::write(&path, "").unwrap();
    path
}

/// A client that connects when the socket is there, writes `lines`, and returns what it was told.
fn client(host: &FakeHost, lines: &'static str) -> JoinHandle<String> {
    let note = host.folder().join("INJECT_SHELL.socket");
    std::thread::spawn(move || {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < Duration::from_secs(30), "no prompt");
            let socket = std::fs::read_to_string(&note).unwrap_or_default();
            if let Ok(stream) = UnixStream::connect(socket) {
                return talk(stream, lines);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    })
}

fn talk(mut stream: UnixStream, lines: &str) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    told
}

/// What a client is told that writes `lines` and then lets the run go on.
fn told(host: &mut FakeHost, lines: &'static str) -> String {
    let file = touch(host);
    let client = client(host, lines);
    host.trigger("time").unwrap();
    assert!(!file.exists() && !host.folder().join("INJECT_SHELL.socket").exists());
    client.join().unwrap()
}

#[test]
fn a_person_asks_and_sets() {
    let mut host = host("1 min");
    let lines = "metrics\nmetric train_loss\nhistory train_loss\nhyper-parameters\nset learning_rate 0.01\ntensors\n\
                 tensor fc1.weight\ncheckpoint\ncontinue\n";
    let answers = told(&mut host, lines);
    for expected in [
        "`test` waits after step 35 of epoch 2; ",
        "> train_loss = 0.25\n",
        "> train_loss = 0.25 (epoch 2, step 35)\n",
        "> epoch 2 step 35: 0.25\n",
        "> all.learning_rate = 0.1\n",
        "> all.learning_rate = 0.01\n",
        "> fc1.weight f32 [2, 2]\n",
        "> fc1.weight of `parameters`: f32 [2, 2]\nnot finite: 1 of 4 values; the others:\n\
         min -4 max 3 mean -0.3333333333333333 norm 5\n3 -4 NaN 0\n",
        "> a checkpoint is taken when the run goes on, ",
        "> the run goes on\n",
    ] {
        assert!(answers.contains(expected), "{expected}: {answers}");
    }
    assert_eq!(host.hyper_parameter("learning_rate"), Some(0.01));
    assert!(host.requested(Control::Checkpoint) && host.stopped().is_none());
    let lines = host.lines();
    assert!(lines[0].starts_with("the run waits: `host attach ") && lines[1] == "the run goes on: as the prompt said");
    // Without a file it does nothing.
    host.trigger("time").unwrap();
}

#[test]
fn a_wrong_command_is_explained_and_changes_nothing() {
    let mut host = host("1 min");
    let lines = "metrcs\nmetric\nmetrics now\nset learning_rate much\nset learning_rate nan\nset learning_rat 1\n\
                 set learning_rate 1 head\nmetric train_los\ntensor fc1.weigt\ntensors parametrs\nset learning_rate 0.5\ncontinue\n";
    let answers = told(&mut host, lines);
    for expected in [
        "there is no command `metrcs`; did you mean `metrics` or `metric`?; `help` lists all\n",
        "`metric` is written as `metric NAME`\n",
        "`metrics` takes nothing after it\n",
        "`much` is no number: write one, such as 0.001 or 1e-3\n",
        "`nan` is no number",
        "learning_rat",
        "`head`",
        "did you mean `train_loss`?",
        "there is no tensor `fc1.weigt`; did you mean `fc1.weight`?\n",
        "there is no tensor set `parametrs`; did you mean `parameters`?\n",
    ] {
        assert!(answers.contains(expected), "{expected}: {answers}");
    }
    assert_eq!(host.hyper_parameter("learning_rate"), Some(0.5));
}

#[test]
fn help_names_every_command() {
    let mut host = host("1 min");
    let answers = told(&mut host, "help\ncontinue\n");
    for command in ["hyper-parameters", "set NAME VALUE [GROUP]", "tensor NAME [SET]", "stop [REASON]", "continue"] {
        assert!(answers.contains(command), "{answers}");
    }
}

#[test]
fn stop_leaves_the_prompt_with_its_reason() {
    let mut host = host("1 min");
    told(&mut host, "stop it has converged\n");
    assert_eq!(host.stopped(), Some("it has converged"));
}

#[test]
fn a_client_that_goes_away_leaves_the_prompt_to_the_next() {
    let mut host = host("1 min");
    touch(&host);
    let first = client(&host, "metric train_loss\n");
    let second = {
        let note = host.folder().join("INJECT_SHELL.socket");
        std::thread::spawn(move || {
            let told = first.join().unwrap();
            assert!(told.ends_with("\nthe run still waits: nobody has said `continue`\n"), "{told}");
            talk(UnixStream::connect(std::fs::read_to_string(note).unwrap()).unwrap(), "continue\n")
        })
    };
    host.trigger("time").unwrap();
    assert!(second.join().unwrap().ends_with("the run goes on\n"));
}

#[test]
fn the_run_goes_on_without_anybody_and_says_so() {
    let mut host = host("1 s");
    let file = touch(&host);
    let began = Instant::now();
    host.trigger("time").unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1) && !file.exists());
    assert_eq!(host.lines()[1], "the run goes on: nobody has written a line for 1 s");
    // The same with somebody who writes nothing.
    touch(&host);
    let note = host.folder().join("INJECT_SHELL.socket");
    let silent = std::thread::spawn(move || {
        while !note.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut stream = UnixStream::connect(std::fs::read_to_string(note).unwrap()).unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).unwrap();
        told
    });
    host.trigger("time").unwrap();
    assert!(silent.join().unwrap().ends_with("the run goes on: nobody has written a line in time\n"));
}

#[test]
fn only_this_user_may_enter_the_folder_of_the_socket() {
    let mut host = host("1 min");
    touch(&host);
    let note = host.folder().join("INJECT_SHELL.socket");
    let look = std::thread::spawn(move || {
        while !note.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        let socket = PathBuf::from(std::fs::read_to_string(note).unwrap());
        let folder = socket.parent().unwrap().to_owned();
        let mode = folder.metadata().unwrap().permissions().mode();
        talk(UnixStream::connect(&socket).unwrap(), "continue\n");
        (folder, mode)
    });
    host.trigger("time").unwrap();
    let (folder, mode) = look.join().unwrap();
    assert_eq!((mode & 0o777, folder.exists()), (0o700, false));
}

#[test]
fn a_file_that_is_no_request_opens_nothing_and_is_told_once() {
    let mut host = host("1 min");
    let path = host.folder().join("INJECT_SHELL.tmp");
    std::fs::write(&path, "text").unwrap();
    host.trigger("time").unwrap();
    host.trigger("time").unwrap();
    assert!(path.exists() && host.lines().is_empty());
    assert_eq!(host.logs().len(), 1);
    assert!(host.logs()[0].starts_with("WARN `INJECT_SHELL.tmp` has no effect: it is not empty"), "{:?}", host.logs());
}

#[test]
fn a_file_of_another_user_opens_nothing() {
    let mut host = host("1 min");
    let folder = host.folder().to_owned();
    // The check itself: only root can make another user's file.
    let file = RequestFile::new(&folder, "INJECT_SHELL.tmp");
    assert!(prompt::is_of(&file, 1000, 1000) && !prompt::is_of(&file, 1001, 1000));
    // A link may point at a file of this user.
    std::fs::write(folder.join("own"), "").unwrap();
    std::os::unix::fs::symlink("own", folder.join("INJECT_SHELL.tmp")).unwrap();
    host.trigger("time").unwrap();
    assert!(host.lines().is_empty());
    assert_eq!(host.logs(), ["WARN `INJECT_SHELL.tmp` has no effect: it is no file"]);
}

#[test]
fn a_trial_opens_nothing() {
    let mut host = FakeHost::new::<Shell>(json!({})).unwrap().with_info(|info| info.trial = true);
    host.setup().unwrap();
    touch(&host);
    host.trigger("time").unwrap();
    assert!(host.lines().is_empty());
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for (options, expected) in [
        (json!({ "file": "" }), "`file` = `` names no file: write a name, such as `INJECT_SHELL.tmp`"),
        (json!({ "timeout": "soon" }), "`timeout` = `soon` is not a duration: write "),
    ] {
        let told = FakeHost::new::<Shell>(options).err().unwrap();
        assert!(told.message().starts_with(expected), "{told}");
    }
}
