//! The launcher with shells in place of the engine.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::*;

const SHORT: Patience = Patience {
    after_failure: Duration::from_millis(200),
    after_rank_zero: Duration::from_millis(200),
    after_sigterm: Duration::from_millis(200),
};

/// A shell with this script for each rank, in a folder of its own.
struct Shells {
    folder: tempfile::TempDir,
    job: Job,
    patience: Patience,
}

impl Shells {
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let script = format!("cd '{}' || exit 99\n{script}", folder.path().display());
        let arguments = vec!["-c".into(), script.into()];
        Self {
            folder,
            job: Job { program: "/bin/sh".into(), arguments, world_size: 2, restarts: 0 },
            patience: PATIENCE,
        }
    }

    fn restarts(mut self, restarts: u32) -> Self {
        self.job.restarts = restarts;
        self
    }

    fn impatient(mut self) -> Self {
        self.patience = SHORT;
        self
    }

    /// The exit code and what is shown.
    fn run(&self) -> (u8, String) {
        self.run_and(|_, _| {})
    }

    /// The same, while another thread sends events.
    fn run_and(&self, act: impl FnOnce(&Path, Sender<Event>) + Send) -> (u8, String) {
        let (sender, events) = channel();
        let mut shown = Vec::new();
        let code = std::thread::scope(|scope| {
            let (folder, events_of_test) = (self.folder.path(), sender.clone());
            scope.spawn(move || act(folder, events_of_test));
            run_with(&self.job, self.patience, (&sender, &events), &mut shown).expect("shells can be started")
        });
        (code, String::from_utf8(shown).expect("text"))
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }
}

/// Waits until both ranks have made a file.
fn wait_for(folder: &Path, name: &str) {
    let began = Instant::now();
    while !(0..2).all(|rank| folder.join(format!("{name}{rank}")).exists()) {
        assert!(began.elapsed() < Duration::from_secs(60), "the ranks do not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn each_rank_knows_its_place_and_only_the_first_has_the_socket() {
    let shells = Shells::new(
        "echo $HOST_RANK of $HOST_WORLD_SIZE at $HOST_MASTER_PORT, again $HOST_RESTART_COUNT > told$HOST_RANK
         ls -l /proc/$$/fd | grep -c 'socket:' > sockets$HOST_RANK
         test -z \"$HOST_LISTEN_FD\" || { test -S /proc/$$/fd/$HOST_LISTEN_FD && echo yes > listens$HOST_RANK; }
         test $HOST_RANK = 0 || printf 'one\\n\\ntwo' >&2",
    );
    let (code, shown) = shells.run();
    assert_eq!((code, shown.as_str()), (0, "rank 1: one\nrank 1: \nrank 1: two\n"));
    let port: u16 = shells
        .file("told1")
        .split(' ')
        .nth(4)
        .and_then(|word| word.trim_end_matches(',').parse().ok())
        .expect("a port");
    assert_eq!(shells.file("told0"), format!("0 of 2 at {port}, again\n"));
    assert_eq!(shells.file("told1"), format!("1 of 2 at {port}, again\n"));
    if cfg!(target_os = "linux") {
        assert_eq!((shells.file("listens0").trim(), shells.file("listens1").trim()), ("yes", ""));
        assert_eq!((shells.file("sockets0").trim(), shells.file("sockets1").trim()), ("1", "0"));
    }
}

#[test]
fn the_first_failure_gives_the_code_and_ends_the_others() {
    let shells = Shells::new("test $HOST_RANK = 0 && exec sleep 600\nexit 7").impatient();
    assert_eq!(shells.run(), (7, "rank 1 failed with exit code 7\n".to_owned()));
    let shells = Shells::new("test $HOST_RANK = 0 && exec sleep 600\nkill -9 $$").impatient();
    assert_eq!(shells.run(), (137, "rank 1 was killed by SIGKILL\n".to_owned()));
    let shells = Shells::new("test $HOST_RANK = 1 && exec sleep 600\nexit 1").impatient();
    assert_eq!(shells.run(), (1, String::new()), "rank 0 tells its errors itself");
}

#[test]
fn the_others_may_end_by_themselves() {
    let shells = Shells::new(
        "test $HOST_RANK = 1 && kill -9 $$
         sleep 0.5; echo done > done; exit 1",
    );
    assert_eq!(shells.run(), (137, "rank 1 was killed by SIGKILL\n".to_owned()));
    assert_eq!(shells.file("done"), "done\n");
}

#[test]
fn nothing_is_left_of_a_rank_that_ignores_sigterm() {
    let shells = Shells::new(
        "test $HOST_RANK = 1 && { while ! test -e ready; do sleep 0.01; done; exit 3; }
         trap '' TERM
         sleep 600 & echo $! > child; echo $$ > own; touch ready
         while :; do sleep 0.05; done",
    )
    .impatient();
    assert_eq!(shells.run(), (3, "rank 1 failed with exit code 3\n".to_owned()));
    let is_there = |name: &str| {
        let id: i32 = shells.file(name).trim().parse().expect("a number");
        // A process that nobody has waited for yet is a zombie, whose command line is empty.
        fs::read(format!("/proc/{id}/cmdline")).is_ok_and(|line| !line.is_empty())
    };
    assert_eq!((is_there("own"), is_there("child")), (false, false));
}

#[test]
fn a_rank_that_does_not_end_after_the_first_is_a_failure() {
    let shells = Shells::new("test $HOST_RANK = 0 || exec sleep 600").impatient();
    assert_eq!(shells.run(), (1, "rank 1 did not end within 0 s after rank 0\n".to_owned()));
    let shells = Shells::new("test $HOST_RANK = 1 || { sleep 0.6; echo done > done; }").impatient();
    assert_eq!(shells.run(), (0, String::new()), "the first may work alone");
    assert_eq!(shells.file("done"), "done\n");
}

#[test]
fn all_are_started_again_after_a_failure() {
    let script = "echo \"${HOST_RESTART_COUNT:-none}\" >> counts$HOST_RANK
                  test $HOST_RANK = 0 || test \"$HOST_RESTART_COUNT\" = 2 || kill -9 $$";
    let shells = Shells::new(script).restarts(3);
    let (code, shown) = shells.run();
    let again = "rank 1 was killed by SIGKILL; starting all 2 ranks again";
    assert_eq!((code, shown), (0, format!("{again} (1 of 3)\n{again} (2 of 3)\n")));
    assert_eq!(
        (shells.file("counts0"), shells.file("counts1")),
        ("none\n1\n2\n".to_owned(), "none\n1\n2\n".to_owned())
    );
    let shells = Shells::new(script).restarts(1);
    assert_eq!(shells.run(), (137, format!("{again} (1 of 1)\nrank 1 was killed by SIGKILL\n")));
}

#[test]
fn a_run_that_is_refused_is_told_once_and_not_started_again() {
    let shells =
        Shells::new("echo started >> starts$HOST_RANK; test $HOST_RANK = 0 || echo wrong >&2; exit 2").restarts(3);
    assert_eq!(shells.run(), (2, String::new()));
    assert_eq!(shells.file("starts0"), "started\n");
    let shells = Shells::new("test $HOST_RANK = 0 && exec sleep 600\necho wrong >&2; exit 2").impatient();
    assert_eq!(shells.run(), (2, "rank 1: wrong\n".to_owned()));
}

#[test]
fn a_signal_goes_on_to_all_and_starts_nothing_again() {
    let shells = Shells::new(
        "trap 'echo term >> signals$HOST_RANK; exit 143' TERM
         trap 'echo usr1 >> signals$HOST_RANK' USR1
         touch ready$HOST_RANK; while :; do sleep 0.02; done",
    )
    .restarts(3);
    let (code, shown) = shells.run_and(|folder, events| {
        wait_for(folder, "ready");
        events.send(Event::Signal(libc::SIGUSR1)).expect("it is watched");
        wait_for(folder, "signals");
        events.send(Event::Signal(libc::SIGTERM)).expect("it is watched");
    });
    assert_eq!((code, shown), (143, String::new()));
    assert_eq!(
        (shells.file("signals0"), shells.file("signals1")),
        ("usr1\nterm\n".to_owned(), "usr1\nterm\n".to_owned())
    );
}

#[test]
fn a_signal_to_a_rank_ends_the_run_and_starts_nothing_again() {
    let script = "echo started >> starts$HOST_RANK; test $HOST_RANK = 0 && { sleep 0.5; exit 143; }; exit 130";
    let shells = Shells::new(script).restarts(3).impatient();
    assert_eq!(shells.run(), (143, String::new()), "they ended together, and the first one knows the signal");
    assert_eq!(shells.file("starts0"), "started\n");
}

#[test]
fn a_third_signal_kills() {
    let shells = Shells::new("trap '' INT; touch ready$HOST_RANK; while :; do sleep 0.02; done");
    let (code, shown) = shells.run_and(|folder, events| {
        wait_for(folder, "ready");
        (0..3).for_each(|_| events.send(Event::Signal(libc::SIGINT)).expect("it is watched"));
    });
    assert_eq!((code, shown), (137, String::new()));
}

#[test]
fn a_program_that_is_not_there_is_told() {
    let mut shells = Shells::new("");
    shells.job.program = "/nowhere/host-engine".into();
    let (sender, events) = channel();
    let problems = run_with(&shells.job, PATIENCE, (&sender, &events), &mut Vec::new()).expect_err("no program");
    assert_eq!(problems.to_string(), "cannot start `/nowhere/host-engine` as rank 0");
}
