//! Processes that another launcher starts, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fixture::{TempDir, temporary_folder};
use regex::Regex;

use crate::training::{Training, read_json};

/// A rank that has not ended after this hangs: what they wait for each other is far less, and machines may be slow.
const HANGS: Duration = Duration::from_secs(40);

/// Ranks that were started with the variables that `torchrun` sets. Those that are left are killed with it.
pub struct Started<'t> {
    /// That of rank zero, in whose folder `out` the run is.
    training: &'t Training,
    files: TempDir,
    ranks: BTreeMap<usize, Child>,
}

/// A port of this machine that nobody listens on.
pub fn free_port() -> String {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.expect("a port is free").port().to_string()
}

impl<'t> Started<'t> {
    /// Starts these ranks of a run of `trainings`, of which each rank has one. They do not know that it is `torchrun`: those that
    /// lost another one would wait some seconds to be ended by it.
    pub fn start(trainings: &[&'t Training], ranks: &[usize]) -> Started<'t> {
        Self::start_with(trainings, ranks, &[])
    }

    /// The same for ranks that know it.
    pub fn start_as_torchrun(trainings: &[&'t Training]) -> Started<'t> {
        let ranks: Vec<usize> = (0..trainings.len()).collect();
        let more = [("TORCHELASTIC_RUN_ID", "none"), ("TORCHELASTIC_RESTART_COUNT", "0"), ("OMP_NUM_THREADS", "1")];
        Self::start_with(trainings, &ranks, &more)
    }

    fn start_with(trainings: &[&'t Training], ranks: &[usize], more: &[(&str, &str)]) -> Started<'t> {
        let files = temporary_folder();
        let port = free_port();
        let world = trainings.len().to_string();
        let start = |rank: usize| {
            let mut command = trainings[rank].command("out");
            let number = rank.to_string();
            for (name, value) in [
                ("RANK", number.as_str()),
                ("WORLD_SIZE", &world),
                ("LOCAL_RANK", &number),
                ("LOCAL_WORLD_SIZE", &world),
                ("MASTER_ADDR", "127.0.0.1"),
                ("MASTER_PORT", &port),
            ] {
                command.env(name, value);
            }
            command.envs(more.iter().copied());
            command.env("TORCHELASTIC_ERROR_FILE", files.path().join(format!("error{rank}.json")));
            let stderr = std::fs::File::create(files.path().join(format!("stderr{rank}"))).expect("a file");
            command.stdout(Stdio::null()).stderr(stderr).spawn().expect("the host starts")
        };
        let ranks = ranks.iter().map(|rank| (*rank, start(*rank))).collect();
        Started { training: trainings[0], files, ranks }
    }

    /// The number of a rank's process.
    pub fn id(&self, rank: usize) -> u32 {
        self.ranks[&rank].id()
    }

    pub fn signal(&self, rank: usize, signal: i32) {
        let id = i32::try_from(self.id(rank)).expect("the number of a process");
        // SAFETY: the process is a child that nobody has waited for.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Waits until the run has done so many steps.
    ///
    /// # Panics
    ///
    /// When it does not within a minute.
    pub fn wait_for_step(&mut self, step: usize) {
        let began = Instant::now();
        while steps(self.training, "out") < step {
            let ended = |(rank, child): (&usize, &mut Child)| Some((*rank, child.try_wait().expect("a child")?));
            if let Some((rank, status)) = self.ranks.iter_mut().find_map(ended) {
                panic!("rank {rank} has ended: {status}, {}", self.files_of(rank).0);
            }
            assert!(began.elapsed() < Duration::from_secs(60), "no step {step}: {}", self.files_of(0).0);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a rank has written to stderr, and the message of its error file.
    fn files_of(&self, rank: usize) -> (String, Option<String>) {
        let stderr = std::fs::read(self.files.path().join(format!("stderr{rank}"))).unwrap_or_default();
        let error = self.files.path().join(format!("error{rank}.json"));
        let message = error.exists().then(|| read_json(&error)["message"].as_str().expect("a text").to_owned());
        (String::from_utf8_lossy(&stderr).into_owned(), message)
    }

    /// Waits until all have ended but `frozen`, which is ended then. Returns how each has: a line a rank, with the one sentence that
    /// it has said, which is in its error file, too.
    ///
    /// # Panics
    ///
    /// When one hangs, or says something else.
    pub fn ended(mut self, frozen: Option<usize>) -> String {
        let began = Instant::now();
        let mut told = String::new();
        let waited: Vec<usize> = self.ranks.keys().copied().filter(|rank| Some(*rank) != frozen).collect();
        for rank in waited {
            let status = loop {
                let child = self.ranks.get_mut(&rank).expect("it was started");
                if let Some(status) = child.try_wait().expect("a child") {
                    break status;
                }
                assert!(began.elapsed() < HANGS, "rank {rank} hangs: {}", self.files_of(rank).0);
                std::thread::sleep(Duration::from_millis(5));
            };
            let (stderr, message) = self.files_of(rank);
            let errors = |line: &&str| line.contains("× ") && !line.starts_with("warning: ");
            let sentences: Vec<&str> =
                stderr.lines().filter(errors).filter_map(|line| Some(line.split_once("× ")?.1)).collect();
            let _ = match (status.signal(), status.code(), &sentences[..], message) {
                (Some(signal), None, [], None) => writeln!(told, "rank {rank}: signal {signal}"),
                (None, Some(0), [], None) => writeln!(told, "rank {rank}: exit code 0"),
                (None, Some(code), [sentence], Some(message)) => {
                    let (_, message) = message.split_once(": ").expect("a kind comes first");
                    assert_eq!(message.lines().next(), Some(*sentence), "the error file of rank {rank}");
                    writeln!(told, "rank {rank}: exit code {code}: {sentence}")
                }
                (_, _, _, message) => panic!("rank {rank}: {status:?}, {message:?}, {stderr}"),
            };
        }
        eprintln!("all ended within {:.1} s", began.elapsed().as_secs_f64());
        // What differs from one machine and run to the next.
        static DIFFERS: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
        let differs = DIFFERS.get_or_init(|| {
            let pattern = |(pattern, name)| (Regex::new(pattern).expect("a pattern"), name);
            [(r"process \d+ on [^)]+", "[PROCESS]"), (r"127\.0\.0\.1:\d+", "[ADDRESS]")].map(pattern).into()
        });
        differs.iter().fold(told, |told, (pattern, name)| pattern.replace_all(&told, *name).into_owned())
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        for child in self.ranks.values_mut() {
            // Of one that has been waited for nothing is left. A frozen one can be killed, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How many steps a run has written to its metrics.
pub fn steps(training: &Training, out: &str) -> usize {
    let text = std::fs::read_to_string(training.path(out).join("metrics.jsonl")).unwrap_or_default();
    text.lines().filter(|line| line.contains(r#""kind":"step""#)).count()
}

/// The variable by which [`process_of_rank`] knows the processes of a run.
pub const MARK: &str = "HOST_TEST_RUN";

/// The process that has rank `rank`, as the variable `name` says, of those that have the mark of a training.
#[cfg(target_os = "linux")]
pub fn process_of_rank(training: &Training, name: &str, rank: usize) -> Option<i32> {
    let wanted = [format!("{MARK}={}", training.folder().0.display()), format!("{name}={rank}")];
    let entries = std::fs::read_dir("/proc").expect("processes");
    let mut ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.find(|id| {
        let variables = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        let has = |wanted: &String| variables.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes());
        wanted.iter().all(has)
    })
}
