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
