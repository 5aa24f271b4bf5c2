//! `device`: where the tensors are.

use std::fmt;
use std::str::FromStr;

use super::formats::{FormatError, written_as_string};

/// Where the tensors are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The first CUDA device if there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this index.
    Cuda(u32),
}

impl FromStr for Device {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Device, FormatError> {
        match text {
            "auto" => Ok(Device::Auto),
            "cpu" => Ok(Device::Cpu),
            _ => text.strip_prefix("cuda:").and_then(|index| index.parse().ok()).map(Device::Cuda).ok_or_else(|| {
                FormatError::new(
                    format!("`{text}` is not a device"),
                    "accepted: `auto`, `cpu` or `cuda:0`, `cuda:1`, …",
                )
            }),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => formatter.write_str("auto"),
            Device::Cpu => formatter.write_str("cpu"),
            Device::Cuda(index) => write!(formatter, "cuda:{index}"),
        }
    }
}

written_as_string!(Device, "device", "A device: `auto`, `cpu` or `cuda:0`");
