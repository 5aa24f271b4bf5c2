//! A rank that is gone or differs ends all others, which name it in one sentence, soon and with a code that is not 0.

use std::time::Instant;

use super::started::Started;
use super::*;

/// A run without an end, whose ranks wait ten seconds for each other: a busy machine takes some to start them.
fn endless() -> Training {
    digits(MLP)
        .with("steps = 50", "steps = 100000000")
        .with("[distributed]", "[distributed]\ntimeout = \"10 s\"")
        .with("[[plugins]]\nkind = \"checkpoint\"\noptions = { background = false, keep_last = 0 }\n", "")
}

/// The same with one more plugin, a test's.
fn with_plugin(library: &str, entry: &str) -> Training {
    endless()
        .with_library(&fixture::build_test_plugins()[library])
        .with("[distributed]", &format!("[[plugins]]\nkind = \"{library}\"\n{entry}\n\n[distributed]"))
}

/// Multiplies and adds, as Knuth's MMIX does.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Of three runs at once: most of the time is waiting.
#[test]
fn a_rank_that_is_killed_at_any_step() {
    // It is found at once, however long they would wait.
    let trainings = [(); 3].map(|()| endless().with("\"10 s\"", "\"60 s\""));
    let mut state = 17;
    for round in 0..if is_long() { 10 } else { 1 } {
        let runs = trainings.iter().map(|training| {
            let _ = std::fs::remove_dir_all(training.path("out"));
            Started::start(&[training; 3], &[0, 1, 2])
        });
        let mut runs: Vec<Started<'_>> = runs.collect();
        for (culprit, started) in runs.iter_mut().enumerate() {
            let step = 1 + random(&mut state) as usize % 40;
            started.wait_for_step(step);
            started.signal(culprit, libc::SIGKILL);
            eprintln!("round {round}: rank {culprit} killed at step {step}");
        }
        for (culprit, started) in runs.into_iter().enumerate() {
            let told = started.ended(None);
            let how = match culprit {
                0 => "does not answer any more, and has the store of the ranks",
                _ => "has ended without a word: it was killed, or crashed",
            };
            for (rank, line) in told.lines().enumerate() {
                let expected = match rank == culprit {
                    true => format!("rank {rank}: signal 9"),
                    false => format!("rank {rank}: exit code 1: rank {culprit} ([PROCESS]) {how}"),
                };
                assert_eq!(line, expected, "round {round}: rank {culprit} was killed");
            }
        }
    }
}

/// `torchrun` ends all ranks as soon as it sees that one has ended.
#[test]
fn ranks_that_torchrun_ends_still_name_the_one_that_was_killed() {
    let training = endless();
    let mut started = Started::start_as_torchrun(&[&training; 2]);
    started.wait_for_step(5);
    started.signal(1, libc::SIGKILL);
    started.signal(0, libc::SIGTERM);
    insta::assert_snapshot!(started.ended(None), @"
    rank 0: exit code 1: rank 1 ([PROCESS]) has ended without a word: it was killed, or crashed
    rank 1: signal 9
    ");
}

/// Rank zero has the store, which answers nobody then.
#[test]
fn ranks_that_stand_still() {
    let (training, of_zero) = (endless(), endless());
    let mut started = Started::start(&[&training; 3], &[0, 1, 2]);
    let mut started_of_zero = Started::start(&[&of_zero; 3], &[0, 1, 2]);
    started.wait_for_step(5);
    started.signal(1, libc::SIGSTOP);
    started_of_zero.wait_for_step(5);
    started_of_zero.signal(0, libc::SIGSTOP);
    insta::assert_snapshot!(started.ended(Some(1)), @"
    rank 0: exit code 1: rank 1 ([PROCESS]) has shown no sign of life for 10s: it, its machine or its network stands still
    rank 2: exit code 1: rank 1 ([PROCESS]) has shown no sign of life for 10s: it, its machine or its network stands still
    ");
    insta::assert_snapshot!(started_of_zero.ended(Some(0)), @"
    rank 1: exit code 1: rank 0 ([PROCESS]) has not answered for 10s, and has the store of the ranks
    rank 2: exit code 1: rank 0 ([PROCESS]) has not answered for 10s, and has the store of the ranks
    ");
}

#[test]
fn ranks_that_never_come() {
    let (training, refused) = (endless(), endless().with("out_features = 16", "out_featurez = 16"));
    let without_one = Started::start(&[&training; 3], &[0, 2]);
    let without_zero = Started::start(&[&training; 3], &[1, 2]);
    let with_refused = Started::start(&[&training, &refused], &[0, 1]);
    insta::assert_snapshot!(without_one.ended(None), @"
    rank 0: exit code 2: rank 1 of 3 has not started, or cannot reach `[ADDRESS]`, after 10s
    rank 2: exit code 2: rank 1 of 3 has not started, or cannot reach `[ADDRESS]`, after 10s
    ");
    insta::assert_snapshot!(without_zero.ended(None), @"
    rank 1: exit code 2: rank 1 cannot reach the other ranks at `[ADDRESS]`, where rank 0 or its launcher serves them
    rank 2: exit code 2: rank 2 cannot reach the other ranks at `[ADDRESS]`, where rank 0 or its launcher serves them
    ");
    insta::assert_snapshot!(with_refused.ended(None), @"
    rank 0: exit code 2: rank 1 of 2 has not started, or cannot reach `[ADDRESS]`, after 10s
    rank 1: exit code 2: unknown key `out_featurez` in `model.layers.1`
    ");
}

#[test]
fn a_rank_with_another_model() {
    let (training, other) = (endless(), endless().with("out_features = 16", "out_features = 17"));
    insta::assert_snapshot!(Started::start(&[&training, &other, &training], &[0, 1, 2]).ended(None), @"
    rank 0: exit code 1: rank 1 has another model than rank 0
    rank 1: exit code 1: rank 1 has another model than rank 0
    rank 2: exit code 1: rank 1 has another model than rank 0
    ");
}

#[test]
fn a_rank_with_another_run_file() {
    let (training, other) = (endless(), endless().with("1e-3", "2e-3"));
    insta::assert_snapshot!(Started::start(&[&training, &other], &[0, 1]).ended(None), @"
    rank 0: exit code 1: rank 1 has another run file than rank 0
    rank 1: exit code 1: rank 1 has another run file than rank 0
    ");
}

#[test]
fn a_rank_with_other_data() {
    let [training, other] = [17, 16].map(|last| {
        let training = endless();
        let (path, row) =
            (training.path("data.csv"), |label: u64| format!("{}{}\n", "1,2,3,4,".repeat(16), label % 10));
        let rows: String = (0..2000).map(|index| row(if index == 1000 { last } else { index })).collect();
        std::fs::write(&path, rows).expect("a file");
        let digits = fixture::workspace_root().join("examples/digits/digits.csv.gz");
        training.with(&digits.display().to_string(), &path.display().to_string())
    });
    insta::assert_snapshot!(Started::start(&[&training, &other], &[0, 1]).ended(None), @"
    rank 0: exit code 1: rank 1 has other data than rank 0
    rank 1: exit code 1: rank 1 has other data than rank 0
    ");
}

#[test]
fn a_plugin_that_fails_on_one_rank() {
    let (training, faulty) = (endless(), with_plugin("returns-errors", "ranks = \"all\""));
    insta::assert_snapshot!(Started::start(&[&training, &faulty, &training], &[0, 1, 2]).ended(None), @"
    rank 0: exit code 1: rank 1 failed: plugin `returns-errors` failed in `step_end`: it fails in `step_end`
    rank 1: exit code 1: plugin `returns-errors` failed in `step_end`: it fails in `step_end`
    rank 2: exit code 1: rank 1 failed: plugin `returns-errors` failed in `step_end`: it fails in `step_end`
    ");
    let training = with_plugin("returns-errors", "options = { hook = \"epoch_end\" }");
    insta::assert_snapshot!(Started::start(&[&training; 2], &[0, 1]).ended(None), @"
    rank 0: exit code 1: plugin `returns-errors` failed in `epoch_end`: it fails in `epoch_end`
    rank 1: exit code 1: rank 0 failed: plugin `returns-errors` failed in `epoch_end`: it fails in `epoch_end`
    ");
}

/// The others wait for rank zero in its callbacks, however long these take.
#[test]
fn a_slow_callback_ends_nothing() {
    let training = with_plugin("slow", "options = { milliseconds = 6500 }").with("steps = 100000000", "steps = 1");
    let began = Instant::now();
    insta::assert_snapshot!(Started::start(&[&training; 2], &[0, 1]).ended(None), @"
    rank 0: exit code 0
    rank 1: exit code 0
    ");
    assert!(began.elapsed().as_secs() >= 13, "it was not slow");
}
