//! The ranks of PyTorch's `DistributedDataParallel`, which `tests/ranks.py` trains, and its launcher.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use fixture::{host_binary, program, temporary_folder, workspace_root};

use super::*;

const RUN: &str = r#"
[run]
name = "ranks"
seed = 7
threads = 1
device = "cpu"
by_default = false

[data]
shuffle = false
DATA

[model]
exported = "FOLDER/model.pt2"

[train]
steps = 20
batch_size = 8
loss = { type = "cross_entropy" }
optimizer = { OPTIMIZER }

[[plugins]]
kind = "checkpoint"
"#;

const IMAGES: &str = r#"
format = "safetensors"
path = "FOLDER/data.safetensors"
inputs = "inputs"
targets = "targets"
classes = 10
"#;

const TEXT: &str = r#"
format = "text"
path = "FOLDER/data.txt"
tokens = "characters"
context = 12
"#;

/// Statistics of batch norms that each rank gathers from its own samples, tied weights, and a layer that is never used: it has no
/// gradient on any rank, and AdamW does not let it decay.
#[test]
fn ranks_train_as_those_of_pytorch() {
    let Some(python) = crate::eager::python() else { return };
    let folder = temporary_folder();
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let port = free.expect("a port is free").port().to_string();
    let script = workspace_root().join("tests/ranks.py");
    let mut command = Command::new(python);
    command.arg("-P").arg(script).arg(folder.path()).arg(port);
    let output = command.output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let adamw = r#"type = "adamw", weight_decay = 0.1"#;
    let nets = [("normalized", IMAGES, SGD, "conv.weight"), ("tied", TEXT, adamw, "hidden.weight")];
    for (net, data, optimizer, trained) in nets {
        let at = folder.path().join(net);
        let text = RUN.replace("DATA", data).replace("OPTIMIZER", optimizer);
        let training = Training::of(&text.replace("FOLDER", &at.display().to_string()), &["checkpoint"]);
        run(&training, "two", 2, &[]);
        let last = |out: &str| training.path(out).join("checkpoints/last/model.safetensors");
        let (largest, tensor) = difference(&last("two"), &at.join("trained.safetensors"));
        eprintln!("{net}: {largest:.1e} in `{tensor}`");
        assert!(largest <= 1e-5, "{net}: `{tensor}` differs by {largest:e}");
        let is_moved = |name: &str| {
            let of = |file: &Path| {
                tensors_of(file, |tensors| tensors.tensor(name).map(|tensor| tensor.data().to_vec()).ok())
            };
            of(&last("two")) != of(&at.join("start.safetensors"))
        };
        assert!(is_moved(trained), "{net}: `{trained}` is not trained");
        assert!(!is_moved("spare.weight"), "{net}: an unused layer is trained");
        if net == "tied" {
            run(&training, "one", 1, &[]);
            let (largest, tensor) = difference(&last("two"), &last("one"));
            eprintln!("{net}, against one process: {largest:.1e} in `{tensor}`");
            assert!(largest <= 1e-6, "{net}: `{tensor}` differs by {largest:e}");
        }
    }
}

/// `torchrun`, of which the run of `training` into `out` is two processes; the host is the test's.
fn torchrun(python: &Path, training: &Training, out: &str, options: &[&str]) -> Command {
    let host = training.command(out);
    let mut command = program(python);
    command.args(["-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]).args(options);
    command.arg("--no-python").arg(host_binary()).args(host.get_args()).current_dir(training.folder().0);
    command
}

#[test]
fn torchrun_trains_as_the_own_launcher() {
    let Some(python) = crate::eager::python() else { return };
    let training = digits(MLP);
    run(&training, "own", 2, &[]);
    let output = torchrun(Path::new(&python), &training, "other", &[]).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_equal(&training, "own", "other");
}

#[cfg(target_os = "linux")]
#[test]
fn torchrun_names_a_rank_that_is_killed_and_starts_all_again() {
    use super::restarts::{interruptible, kill_at};

    let Some(python) = crate::eager::python() else { return };
    let training = interruptible();
    run(&training, "unbroken", 2, &[]);
    let start = |options: &[&str]| {
        let mut command = torchrun(Path::new(&python), &training, "broken", options);
        command.env(started::MARK, training.folder().0).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("Python starts")
    };
    let mut agent = start(&[]);
    kill_at(&training, &mut agent, "RANK", 1, 10);
    let output = agent.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let (_, cause) = stderr.split_once("Root Cause").expect("torchrun tells the cause");
    assert!(cause.contains("rank      : 1 (local_rank: 1)") && cause.contains("exitcode  : -9"), "{stderr}");

    std::fs::remove_dir_all(training.path("broken")).expect("the run can be removed");
    let mut agent = start(&["--max-restarts", "2"]);
    kill_at(&training, &mut agent, "RANK", 1, 17);
    kill_at(&training, &mut agent, "RANK", 0, 40);
    let output = agent.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_equal(&training, "unbroken", "broken");
    assert_eq!(training.metrics("unbroken"), training.metrics("broken"));
}
