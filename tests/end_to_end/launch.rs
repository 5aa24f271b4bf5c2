//! Which of several processes a program is, as the environment says, and the launcher that starts them: some tests have a shell in
//! the place of the engine.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fixture::{TempDir, build_workspace_plugins, host, shown, temporary_folder, workspace_root};

/// What the host says with these variables set.
fn told(variables: &[(&str, &str)], arguments: &[&str]) -> String {
    let folder = temporary_folder();
    let mut command = host();
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder.path());
    shown(&command.output().expect("the host starts"), &[])
}

const TORCHRUN: [(&str, &str); 7] = [
    ("TORCHELASTIC_RUN_ID", "none"),
    ("RANK", "1"),
    ("WORLD_SIZE", "4"),
    ("LOCAL_RANK", "1"),
    ("LOCAL_WORLD_SIZE", "2"),
    ("MASTER_ADDR", "127.0.0.1"),
    ("MASTER_PORT", "29400"),
];

#[test]
fn a_number_of_processes_that_cannot_be() {
    insta::assert_snapshot!(told(&[], &["run", "--processes", "0"]), @"
    exit code: 2
    -- stderr
    error: invalid value '0' for '--processes <N|auto>': expected `auto` or a number of processes from 1 to 1024

    For more information, try '--help'.
    ");
}

#[test]
fn processes_of_a_process_that_is_one_of_several() {
    insta::assert_snapshot!(told(&TORCHRUN, &["run", "--processes", "2"]), @"
    exit code: 2
    -- stderr
      × `--processes` is given to a process that is already one of 4, by `torchrun`
      hint: leave out `--processes`: all of them are one run
    ");
    let json = told(&TORCHRUN, &["run", "--processes", "2", "--json"]);
    assert!(json.contains("\"event\":\"refused\"") && !json.contains("stderr"), "{json}");
}

#[test]
fn an_environment_that_is_set_in_part() {
    insta::assert_snapshot!(told(&[("RANK", "0"), ("WORLD_SIZE", "2")], &["run"]), @"
    exit code: 2
    -- stderr
      × the environment says only in part which of several processes this is: `MASTER_ADDR` and `MASTER_PORT` are not set
      hint: set `MASTER_ADDR` and `MASTER_PORT` for every process; or, to train in one process, unset `RANK` and `WORLD_SIZE`
    ");
    insta::assert_snapshot!(told(&TORCHRUN[..5], &["run"]), @"
    exit code: 2
    -- stderr
      × the environment says only in part which of several processes this is: `MASTER_ADDR` and `MASTER_PORT` are not set
      hint: `RANK`, `WORLD_SIZE`, `LOCAL_RANK` and `LOCAL_WORLD_SIZE` are set, as `torchrun` does: let it start every process
    ");
    let json = told(&[("WORLD_SIZE", "2")], &["run", "--json"]);
    assert!(json.contains("\"event\":\"refused\"") && !json.contains("stderr"), "{json}");
}

#[test]
fn a_run_that_is_refused_is_told_once() {
    let folder = temporary_folder();
    std::fs::write(folder.path().join("run.toml"), "[run]\nname = \"a\"\n").expect("a file");
    let mut command = host();
    command.args(["run", "run.toml", "--processes", "3"]).current_dir(folder.path());
    let output = command.output().expect("the host starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches("has no `data`").count(), 1, "{stderr}");
}

/// An installed host with a shell script for its engine, in a folder with a run file.
fn with_engine(script: &str) -> (TempDir, Command) {
    let folder = temporary_folder();
    let program = fixture::install_host(&folder.path().join("bin"));
    let engine = program.with_file_name("host-engine");
    std::fs::remove_file(&engine).expect("the real one can be removed");
    let script = format!("#!/bin/sh\ncd '{}' || exit 99\n{script}\n", folder.path().display());
    std::fs::write(&engine, script).expect("a file");
    std::fs::set_permissions(&engine, PermissionsExt::from_mode(0o755)).expect("it can be made a program");
    std::fs::write(folder.path().join("run.toml"), "[distributed]\nrestarts = 2\n").expect("a file");
    let mut command = fixture::program(&program);
    command.args(["run", "run.toml", "--processes", "2"]).current_dir(folder.path());
    (folder, command)
}

fn output(mut command: Command) -> Output {
    command.output().expect("the host starts")
}

/// Waits until every rank has written a file; what each has written.
fn written(folder: &Path, name: &str) -> Vec<String> {
    let began = Instant::now();
    loop {
        let read = |rank| std::fs::read_to_string(folder.join(format!("{name}{rank}"))).unwrap_or_default();
        let texts: Vec<String> = (0..2).map(read).map(|text| text.trim().to_owned()).collect();
        if texts.iter().all(|text| !text.is_empty()) {
            return texts;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the ranks wrote no `{name}`");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_ranks_have_the_arguments_and_the_first_one_the_console() {
    let (folder, mut command) =
        with_engine("echo \"$@\" > arguments$HOST_RANK; echo out of $HOST_RANK; echo error of $HOST_RANK >&2; exit 0");
    command.args(["--out", "a b"]);
    let text = shown(&output(command), &[]);
    assert!(text.starts_with("exit code: 0\n-- stdout\nout of 0\n-- stderr\n"), "{text}");
    assert!(text.contains("\nerror of 0\n") && text.contains("\nrank 1: error of 1\n"), "{text}");
    assert_eq!(written(folder.path(), "arguments"), ["run run.toml --out a b"; 2]);
}

#[test]
fn the_run_file_says_how_often_all_ranks_are_started_again() {
    let again = "test $HOST_RANK = 0 || test \"$HOST_RESTART_COUNT\" = 2 || kill -9 $$";
    let (_folder, command) = with_engine(again);
    insta::assert_snapshot!(shown(&output(command), &[]), @"
    exit code: 0
    -- stderr
    rank 1 was killed by SIGKILL; starting all 2 ranks again (1 of 2)
    rank 1 was killed by SIGKILL; starting all 2 ranks again (2 of 2)
    ");
    let (_folder, mut command) = with_engine(again);
    command.args(["--set", "distributed.restarts=0"]);
    insta::assert_snapshot!(shown(&output(command), &[]), @"
    exit code: 137
    -- stderr
    rank 1 was killed by SIGKILL
    ");
}

#[test]
fn the_ranks_die_with_the_launcher() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (folder, mut command) = with_engine("echo $$ > id$HOST_RANK; exec sleep 600");
    let mut launcher = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the host starts");
    let ids = written(folder.path(), "id");
    launcher.kill().expect("it can be killed");
    let status = launcher.wait().expect("it ends");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    let began = Instant::now();
    // A process that nobody has waited for yet has no command line.
    let runs = |id: &String| std::fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty());
    while ids.iter().any(runs) {
        assert!(began.elapsed() < Duration::from_secs(30), "{ids:?} are left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn signals_reach_every_rank_once() {
    let (folder, mut command) = with_engine(
        "trap 'echo int >> signals$HOST_RANK; exit 130' INT
         trap 'echo usr1 >> signals$HOST_RANK' USR1
         echo $$ > id$HOST_RANK; while :; do sleep 0.02; done",
    );
    let mut launcher = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the host starts");
    written(folder.path(), "id");
    let signal = |signal| {
        let id = i32::try_from(launcher.id()).expect("the number of a process");
        // SAFETY: the process is a child that nobody has waited for.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    };
    signal(libc::SIGUSR1);
    written(folder.path(), "signals");
    signal(libc::SIGINT);
    assert_eq!(launcher.wait().expect("it ends").code(), Some(130));
    assert_eq!(written(folder.path(), "signals"), ["usr1\nint"; 2]);
}

#[test]
fn the_example_is_a_run_file() {
    let mut command = host();
    command.args(["config", "check"]).arg(workspace_root().join("examples/distributed/run.toml"));
    for library in build_workspace_plugins().values() {
        command.arg("--plugins").arg(library);
    }
    let output = output(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_manifest_is_one_of_kubeflow_trainer() {
    // What the models do not know would be lost on the way through them.
    const CHECK: &str = "
import sys, yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
manifest = yaml.safe_load(open(sys.argv[1]))
assert TrainerV1alpha1TrainJob.from_dict(manifest).to_dict() == manifest
print(manifest['spec']['trainer']['command'][2])
";
    let Some(python) = fixture::python() else { return };
    let manifest = workspace_root().join("examples/distributed/train-job.yaml");
    let output = Command::new(python).args(["-c", CHECK]).arg(manifest).output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // What the first pod's container runs, with a script in place of the host.
    let folder = temporary_folder();
    let program = folder.path().join("host");
    std::fs::write(&program, "#!/bin/sh\necho $RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT: $1\n")
        .expect("a file");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it can be made a program");
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(String::from_utf8_lossy(&output.stdout).as_ref()).env_clear().env("PATH", folder.path());
    shell.envs([
        ("PET_NODE_RANK", "1"),
        ("PET_NNODES", "2"),
        ("PET_MASTER_ADDR", "digits-node-0-0.digits"),
        ("PET_MASTER_PORT", "29400"),
    ]);
    let told = shell.output().expect("the shell starts");
    assert_eq!(String::from_utf8_lossy(&told.stdout), "1 of 2 at digits-node-0-0.digits:29400: run\n");
}

#[test]
fn torchrun_shows_why_a_run_failed() {
    let Some(python) = crate::eager::python() else { return };
    let folder = temporary_folder();
    std::fs::write(folder.path().join("run.toml"), "[run]\nname = \"a\"\n").expect("a file");
    let mut command = fixture::program(Path::new(&python));
    command.args(["-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]);
    command.arg(fixture::host_binary()).args(["run", "run.toml"]).current_dir(folder.path());
    let output = output(command);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut shown = stderr.lines().filter(|line| line.trim_start().starts_with("traceback :"));
    assert!(shown.any(|line| line.contains("refused: `run.toml` has no `data`")), "{stderr}");
    assert_eq!(output.status.code(), Some(1));
}
