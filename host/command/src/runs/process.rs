//! Which process a status is about: its number is given to another process one day, its start time is not.

use serde::{Deserialize, Serialize};

/// A process of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub id: u32,
    /// When it started, in the system's own count since the machine did; none where the system does not tell.
    #[serde(default)]
    pub started: Option<u64>,
    /// The name of the machine.
    #[serde(default)]
    pub machine: String,
}

impl Process {
    /// This one.
    pub fn this() -> Self {
        let id = std::process::id();
        Self { id, started: start_time(id), machine: machine() }
    }

    /// Whether it is one of this machine.
    pub fn is_here(&self) -> bool {
        self.machine == machine()
    }

    /// Whether it started after the parent of this process did, as what the parent has started before did, too; `None` where the
    /// system does not tell.
    pub fn started_after_parent(&self) -> Option<bool> {
        if !self.is_here() {
            return None;
        }
        Some(self.started? >= start_time(parent()?)?)
    }

    /// Whether a process of its number runs here that started when it did.
    pub fn runs_here(&self) -> bool {
        self.is_here() && self.started.is_some() && start_time(self.id) == self.started
    }
}

/// When a process started; field 22 of its `stat`, see proc_pid_stat(5).
#[cfg(target_os = "linux")]
fn start_time(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold spaces and parentheses.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(unix)]
fn parent() -> Option<u32> {
    Some(std::os::unix::process::parent_id())
}

#[cfg(not(unix))]
fn parent() -> Option<u32> {
    None
}

#[cfg(not(target_os = "linux"))]
fn start_time(_id: u32) -> Option<u64> {
    None
}

#[cfg(unix)]
fn machine() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the buffer has the length that is told; the name ends with a zero unless it was cut.
    let told = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) };
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    if told == 0 { String::from_utf8_lossy(&name[..length]).into_owned() } else { String::new() }
}

#[cfg(not(unix))]
fn machine() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_runs_and_one_of_another_start_does_not() {
        let this = Process::this();
        assert!(this.is_here());
        if cfg!(target_os = "linux") {
            assert!(this.runs_here());
            assert!(!Process { started: this.started.map(|ticks| ticks + 1), ..this.clone() }.runs_here());
            assert_eq!(this.started_after_parent(), Some(true));
            assert_eq!(Process { started: Some(0), ..this.clone() }.started_after_parent(), Some(false));
        }
        assert!(!Process { machine: "another".to_owned(), ..this }.runs_here());
    }
}
