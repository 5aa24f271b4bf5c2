//! The processes of a run.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use super::{Event, Job, relay};
use crate::engine;
use crate::launch::variables;
use crate::report::{Problem, Problems};

/// The ranks of one start. Those that still run are killed when it is dropped.
pub(super) struct Ranks {
    children: Vec<Child>,
    statuses: Vec<Option<ExitStatus>>,
}

impl Ranks {
    /// Starts all ranks of a job. Rank 0 gets a socket that listens on a free port of the loopback interface, so that no other
    /// program can take the port in the meantime, and no other machine can reach it.
    ///
    /// # Errors
    ///
    /// A socket or a process that cannot be made.
    pub(super) fn start(job: &Job, restart: u32, events: &Sender<Event>) -> Result<Self, Problems> {
        let cannot = |action: &str, error: &io::Error| Problem::new(format!("cannot {action}")).with_cause(error);
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket) =
            socket.map_err(|error| cannot("listen on 127.0.0.1 for the ranks of this run", &error))?;
        let mut ranks = Self { children: Vec::new(), statuses: vec![None; job.world_size] };
        for rank in 0..job.world_size {
            let mut command = Command::new(&job.program);
            command.args(&job.arguments).stdin(Stdio::null());
            command.env(variables::RANK, rank.to_string());
            command.env(variables::WORLD_SIZE, job.world_size.to_string());
            command.env(variables::MASTER_PORT, address.port().to_string());
            command.env_remove(variables::LISTEN_FD).env_remove(variables::RESTART_COUNT);
            if restart > 0 {
                command.env(variables::RESTART_COUNT, restart.to_string());
            }
            if let Some((name, value)) = engine::short_waits() {
                command.env(name, value);
            }
            if rank == 0 {
                command.env(variables::LISTEN_FD, socket.as_raw_fd().to_string());
            } else {
                command.stdout(Stdio::null()).stderr(Stdio::piped());
            }
            // A Ctrl-C of the terminal comes to this process only, which passes it on once.
            command.process_group(0);
            prepare(&mut command, (rank == 0).then(|| socket.as_raw_fd()));
            let mut child = command
                .spawn()
                .map_err(|error| cannot(&format!("start `{}` as rank {rank}", job.program.display()), &error))?;
            let stderr = child.stderr.take();
            ranks.children.push(child);
            if let Some(stderr) = stderr {
                relay::read(stderr, rank, events.clone())
                    .map_err(|error| cannot(&format!("start a thread that reads what rank {rank} writes"), &error))?;
            }
        }
        // Without rank 0, the only one with the socket now, nobody answers.
        drop(socket);
        Ok(ranks)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.children.len()
    }

    /// Looks which ranks have ended since the last call.
    pub(super) fn newly_ended(&mut self) -> Vec<(usize, ExitStatus)> {
        let mut ended = Vec::new();
        let ranks = self.children.iter_mut().zip(&mut self.statuses).enumerate();
        for (rank, (child, ended_with)) in ranks.filter(|(_, (_, status))| status.is_none()) {
            // A process that cannot be waited for was never one of ours; nothing of it is left to wait for.
            if let Some(status) = child.try_wait().unwrap_or_else(|_| Some(ExitStatus::default())) {
                *ended_with = Some(status);
                ended.push((rank, status));
            }
        }
        ended
    }

    /// The lowest rank that still runs.
    pub(super) fn first_running(&self) -> Option<usize> {
        self.statuses.iter().position(Option::is_none)
    }

    /// How a rank ended; `None` if it runs.
    pub(super) fn status(&self, rank: usize) -> Option<ExitStatus> {
        self.statuses.get(rank).copied().flatten()
    }

    /// Sends a signal to every rank that runs.
    pub(super) fn signal(&self, signal: i32) {
        self.each_running(|id| {
            // SAFETY: the process is a child that nobody has waited for, so that its number is not another's.
            unsafe { libc::kill(id, signal) };
        });
    }

    /// Kills every rank that runs, with what it has started itself.
    pub(super) fn kill(&self) {
        self.each_running(|id| {
            // SAFETY: as above; each child leads a group of its own.
            unsafe { libc::kill(-id, libc::SIGKILL) };
        });
    }

    fn each_running(&self, act: impl Fn(i32)) {
        let running = self.children.iter().zip(&self.statuses).filter(|(_, status)| status.is_none());
        running.filter_map(|(child, _)| i32::try_from(child.id()).ok()).for_each(act);
    }
}

impl Drop for Ranks {
    fn drop(&mut self) {
        self.kill();
        for (child, _) in self.children.iter_mut().zip(&self.statuses).filter(|(_, status)| status.is_none()) {
            let _ = child.wait();
        }
    }
}

/// Has the child end with this process and keep `socket` open.
fn prepare(command: &mut Command, socket: Option<RawFd>) {
    let parent = std::process::id();
    let in_child = move || {
        if let Some(socket) = socket {
            // SAFETY: the number is that of the child's copy of an open socket; a flag of it is changed.
            if unsafe { libc::fcntl(socket, libc::F_SETFD, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        end_with(parent)
    };
    // SAFETY: what runs between fork and exec calls only functions that are safe for signal handlers and allocates nothing:
    // the errors hold numbers only.
    unsafe { command.pre_exec(in_child) };
}

/// Has the kernel kill this process when the one that started it ends.
#[cfg(target_os = "linux")]
fn end_with(parent: u32) -> io::Result<()> {
    // SAFETY: the call has no pointers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // It may have ended before the call.
    // SAFETY: the call has no arguments and cannot fail.
    let is_orphan = u32::try_from(unsafe { libc::getppid() }) != Ok(parent);
    if is_orphan { Err(io::Error::from_raw_os_error(libc::ESRCH)) } else { Ok(()) }
}

/// Other systems have no such call.
#[cfg(not(target_os = "linux"))]
fn end_with(_: u32) -> io::Result<()> {
    Ok(())
}
