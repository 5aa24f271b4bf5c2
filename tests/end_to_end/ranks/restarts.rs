//! The launcher starts all ranks again when one was killed, and they go on from the newest checkpoint.
#![cfg(target_os = "linux")]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::started::{MARK, process_of_rank, steps};
use super::*;

/// A run of 60 steps, none of which is over in an instant.
pub(super) fn interruptible() -> Training {
    let layers = MLP.replace("{ type = \"relu\" },", "{ type = \"relu\" }, { type = \"dropout\", p = 0.3 },");
    digits(&layers)
        .with_library(&fixture::build_test_plugins()["slow"])
        .with("steps = 50", "steps = 60")
        .with("[distributed]", "[distributed]\nrestarts = 2\ntimeout = \"10 s\"")
        .with("kind = \"checkpoint\"\n", "kind = \"checkpoint\"\nwhen = { every = \"7 steps\" }\n")
        .with(
            "[[plugins]]\nkind = \"json",
            "[[plugins]]\nkind = \"slow\"\noptions = { milliseconds = 25 }\n\n[[plugins]]\nkind = \"json",
        )
}

/// Kills a rank once the run has done so many steps; `name` is the variable that tells a process its rank.
pub(super) fn kill_at(training: &Training, launcher: &mut Child, name: &str, rank: usize, step: usize) {
    let began = Instant::now();
    while steps(training, "broken") < step {
        let status = launcher.try_wait().expect("a child");
        assert!(status.is_none(), "the run has ended before step {step}: {status:?}");
        assert!(began.elapsed() < Duration::from_secs(90), "no step {step} came");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = process_of_rank(training, name, rank).expect("the rank runs");
    // SAFETY: the process is one of this test's run, and carries its mark.
    assert_eq!(unsafe { libc::kill(id, libc::SIGKILL) }, 0);
}

#[test]
fn a_run_whose_ranks_are_killed_ends_like_an_unbroken_one() {
    let training = interruptible();
    run(&training, "unbroken", 2, &[]);
    let mut command = training.command("broken");
    command.args(["--processes", "2"]).env(MARK, training.folder().0).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut launcher = command.spawn().expect("the host starts");
    kill_at(&training, &mut launcher, "HOST_RANK", 1, 17);
    kill_at(&training, &mut launcher, "HOST_RANK", 0, 40);
    let output = launcher.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for (rank, restart) in [(1, 1), (0, 2)] {
        let line = format!("rank {rank} was killed by SIGKILL; starting all 2 ranks again ({restart} of 2)");
        assert!(stderr.contains(&line), "{stderr}");
    }
    assert!((0..2).all(|rank| process_of_rank(&training, "HOST_RANK", rank).is_none()), "a process is left");
    assert_equal(&training, "unbroken", "broken");
    assert_eq!(training.metrics("unbroken"), training.metrics("broken"));
}

#[test]
fn a_run_that_is_started_again_without_a_folder_goes_on_with_its_own() {
    let training = digits(MLP).with("steps = 50", "steps = 6");
    let runs = training.path("runs/ranks");
    let folders = || {
        let mut names: Vec<_> =
            runs.read_dir().expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let state = |name: &std::ffi::OsStr| {
        let status = training.status(&format!("runs/ranks/{}", name.display()));
        (status["state"].clone(), status["position"]["global_step"].clone())
    };
    // As `torchrun` does.
    let start_again = |steps: &str| {
        let mut command = training.command_without_folder();
        command.args(["--set", steps]).envs([
            ("TORCHELASTIC_RUN_ID", "none"),
            ("TORCHELASTIC_RESTART_COUNT", "1"),
            ("RANK", "0"),
            ("WORLD_SIZE", "1"),
            ("LOCAL_RANK", "0"),
            ("LOCAL_WORLD_SIZE", "1"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", &super::started::free_port()),
        ]);
        let output = command.output().expect("the host starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let edit = |run: &std::path::Path, edit: &dyn Fn(&mut serde_json::Value)| {
        let path = run.join("status.json");
        let mut status = crate::training::read_json(&path);
        edit(&mut status);
        std::fs::write(&path, status.to_string()).expect("the status can be written");
    };
    // An older run, whose process began before that which starts this one, ended too early.
    training.run("older", &[]);
    std::fs::create_dir_all(&runs).expect("a folder can be made");
    std::fs::rename(training.path("older"), runs.join("2020-01-01")).expect("it can be moved");
    edit(&runs.join("2020-01-01"), &|status| {
        (status["state"], status["process_started"]) = ("failed".into(), 1.into());
    });
    start_again("train.steps=6");
    let [older, own] = &folders()[..] else { panic!("{:?}", folders()) };
    assert_eq!((state(older), state(own)), (("failed".into(), 6.into()), ("finished".into(), 6.into())));

    // This one ended too early, too. A folder of something else is no run.
    edit(&runs.join(own), &|status| status["state"] = "failed".into());
    std::fs::create_dir(runs.join("plots")).expect("a folder can be made");
    start_again("train.steps=8");
    assert_eq!(folders(), [older.clone(), own.clone(), "plots".into()]);
    assert_eq!((state(older), state(own)), (("failed".into(), 6.into()), ("finished".into(), 8.into())));
}
