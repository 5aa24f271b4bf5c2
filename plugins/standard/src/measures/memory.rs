//! `memory`: the memory of the process, as metrics at the end of an epoch. It is read from `/proc/self/status`, which only
//! Linux has (`proc_pid_status(5)`).

use plugin_api::event::At;
use plugin_api::{Callback, Creation, NoOptions, Result, Run, plugin, tracing};

const STATUS: &str = "/proc/self/status";

pub(crate) struct Memory {
    /// Whether it was said that the memory is not known here.
    told: bool,
}

#[plugin]
impl Callback for Memory {
    const KIND: &'static str = "memory";
    const SUMMARY: &'static str = "Puts the resident memory of the process and its peak";
    const BY_DEFAULT: bool = false;
    const PRODUCES: &'static [&'static str] = &["resident_memory_bytes", "peak_memory_bytes"];

    fn new(_: NoOptions, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { told: false })
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let status = std::fs::read_to_string(STATUS).unwrap_or_default();
        match (bytes(&status, "VmRSS"), bytes(&status, "VmHWM")) {
            (Some(resident), Some(peak)) => {
                run.put_metric("resident_memory_bytes", resident as f64)?;
                run.put_metric("peak_memory_bytes", peak as f64)
            }
            _ if self.told => Ok(()),
            _ => {
                self.told = true;
                tracing::warn!(
                    "the memory of the process is not known: this system has no `{STATUS}` that says it, only Linux has; \
                     remove the plugin from the run file to be rid of this warning"
                );
                Ok(())
            }
        }
    }
}

/// The value of a line such as `VmRSS:     1234 kB`, in bytes.
fn bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    // The kernel's kB are 1024 bytes.
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_status_is_read_in_bytes() {
        let status = "Name:\thost\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nVmRSSx:\t 1 kB\n";
        assert_eq!((bytes(status, "VmRSS"), bytes(status, "VmHWM")), (Some(10_485_760), Some(20_971_520)));
        assert_eq!((bytes(status, "VmSwap"), bytes("VmRSS: many kB", "VmRSS"), bytes("", "VmRSS")), (None, None, None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_taken_is_seen() {
        use plugin_api::testing::{FakeHost, json};
        let mut host = FakeHost::new::<Memory>(json!({})).unwrap();
        host.epoch_end(1).unwrap();
        let before = host.metric("resident_memory_bytes").unwrap();
        let taken = vec![1u8; 64 << 20];
        host.epoch_end(2).unwrap();
        let [after, peak] = ["resident_memory_bytes", "peak_memory_bytes"].map(|name| host.metric(name).unwrap());
        assert!(taken.iter().all(|byte| *byte == 1));
        assert!(after > before + f64::from(32 << 20) && peak >= after, "{before} {after} {peak}");
        assert!(host.logs().is_empty());
    }

    #[test]
    #[cfg(not(target_os = "linux"))]
    fn another_system_is_told_once() {
        use plugin_api::testing::{FakeHost, json};
        let mut host = FakeHost::new::<Memory>(json!({})).unwrap();
        host.epoch_end(1).unwrap();
        host.epoch_end(2).unwrap();
        assert_eq!((host.logs().len(), host.metric("resident_memory_bytes")), (1, None));
    }
}
