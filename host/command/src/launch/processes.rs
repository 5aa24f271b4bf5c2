//! How many processes `--processes` asks for.

use std::fs;
use std::path::Path;
use std::str::FromStr;

/// The most processes that are started on one machine: more are a slip of the finger.
const MOST: usize = 1024;

/// Where NVIDIA's driver lists the GPUs, a folder each; a container sees its own.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// The value of `--processes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// One for each GPU; one where there is none.
    Auto,
    /// This many; at least one.
    Count(usize),
}

impl FromStr for Processes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(count @ 1..=MOST)) => Ok(Self::Count(count)),
            _ => Err(format!("expected `auto` or a number of processes from 1 to {MOST}")),
        }
    }
}

impl Processes {
    /// How many these are on this machine.
    pub fn count(self) -> usize {
        match self {
            Self::Count(count) => count,
            Self::Auto => gpus(Path::new(GPUS), std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref()).clamp(1, MOST),
        }
    }
}

/// The GPUs that the driver lists in `folder`, as far as `CUDA_VISIBLE_DEVICES` shows them: CUDA takes its devices up to the
/// first that there is not.
fn gpus(folder: &Path, visible: Option<&str>) -> usize {
    let present = fs::read_dir(folder).map_or(0, |entries| entries.flatten().count());
    let Some(visible) = visible else { return present };
    // Numbers are checked; names, `GPU-…` and `MIG-…`, cannot be without the driver.
    let is_there = |device: &&str| match device.parse::<i64>() {
        Ok(number) => usize::try_from(number).is_ok_and(|number| number < present),
        Err(_) => present > 0 && !device.is_empty(),
    };
    visible.split(',').map(str::trim).take_while(is_there).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_auto() {
        assert_eq!("auto".parse(), Ok(Processes::Auto));
        assert_eq!("2".parse(), Ok(Processes::Count(2)));
        for wrong in ["", "0", "-1", "1025", "two", "2.5"] {
            assert!(wrong.parse::<Processes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_gpus_that_can_be_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(gpus(&folder.path().join("none"), None), 0);
        assert_eq!(gpus(&folder.path().join("none"), Some("0,1")), 0);
        for name in ["0000:00:05.0", "0000:00:06.0", "0000:00:07.0"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let seen = |visible| gpus(folder.path(), visible);
        assert_eq!(seen(None), 3);
        assert_eq!(
            [Some(""), Some("-1"), Some("1"), Some("2, 0"), Some("0,9,1"), Some("GPU-a,MIG-b")].map(seen),
            [0, 0, 1, 2, 1, 2]
        );
    }
}
