//! NVIDIA's management library, which comes with the driver and is loaded when it is there.

use super::Driver;
use super::sampler::{Gpu, Usage};

/// The environment variable that chooses the GPUs of a process.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// A GPU of this machine.
#[derive(Debug, PartialEq)]
enum Name {
    /// Its number.
    Index(u32),
    /// The beginning of its UUID, `GPU-…`.
    Uuid(String),
}

/// A GPU in the library.
struct OfNvml {
    nvml: nvml_wrapper::Nvml,
    uuid: String,
}

/// The library.
pub(crate) struct Nvml;

impl Driver for Nvml {
    fn open(device: &str) -> Result<Box<dyn Gpu>, String> {
        let name = name_of(device, std::env::var(VISIBLE).ok().as_deref())?;
        let nvml = nvml_wrapper::Nvml::init();
        let nvml = nvml.map_err(|error| format!("NVIDIA's library NVML cannot be used: {error}"))?;
        let uuid = uuid_of(&nvml, &name).map_err(|error| format!("NVML cannot find the GPU of `{device}`: {error}"))?;
        let uuid = uuid.ok_or_else(|| format!("NVML has no GPU {name:?}, that of `{device}`"))?;
        let gpu = OfNvml { nvml, uuid };
        // What it cannot do is told now.
        gpu.usage()?;
        Ok(Box::new(gpu))
    }
}

fn uuid_of(nvml: &nvml_wrapper::Nvml, name: &Name) -> Result<Option<String>, nvml_wrapper::error::NvmlError> {
    let beginning = match name {
        Name::Index(index) => return nvml.device_by_index(*index)?.uuid().map(Some),
        Name::Uuid(beginning) => beginning,
    };
    for index in 0..nvml.device_count()? {
        let uuid = nvml.device_by_index(index)?.uuid()?;
        if uuid.starts_with(beginning) {
            return Ok(Some(uuid));
        }
    }
    Ok(None)
}

/// Which GPU of the machine is the `device` of a run, whose numbers count the `visible` ones.
fn name_of(device: &str, visible: Option<&str>) -> Result<Name, String> {
    let index = match device.strip_prefix("cuda") {
        Some("") => 0,
        Some(rest) => rest.strip_prefix(':').and_then(|index| index.parse().ok()).ok_or_else(|| not_a_gpu(device))?,
        None => return Err(not_a_gpu(device)),
    };
    let Some(visible) = visible.filter(|visible| !visible.trim().is_empty()) else { return Ok(Name::Index(index)) };
    let chosen = visible.split(',').nth(index as usize).map(str::trim).unwrap_or_default();
    match chosen.parse() {
        Ok(index) => Ok(Name::Index(index)),
        Err(_) if chosen.starts_with("GPU-") => Ok(Name::Uuid(chosen.to_owned())),
        Err(_) => Err(format!("`{VISIBLE}` is `{visible}`, which names no whole GPU for `{device}`")),
    }
}

fn not_a_gpu(device: &str) -> String {
    format!("the run is on `{device}`, not on a GPU of NVIDIA")
}

impl Gpu for OfNvml {
    fn usage(&self) -> Result<Usage, String> {
        let usage = || {
            let device = self.nvml.device_by_uuid(self.uuid.as_str())?;
            let (utilization, memory) = (device.utilization_rates()?.gpu, device.memory_info()?.used);
            Ok(Usage { utilization: f64::from(utilization), memory: memory as f64 })
        };
        usage().map_err(|error: nvml_wrapper::error::NvmlError| format!("NVML does not say it: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_of_this_machine_is_measured() {
        // Most machines that run tests have none.
        if nvml_wrapper::Nvml::init().is_err() {
            return;
        }
        let gpu = Nvml::open("cuda:0").unwrap();
        let usage = gpu.usage().unwrap();
        assert!((0.0..=100.0).contains(&usage.utilization) && usage.memory > 0.0, "{usage:?}");
        assert!(Nvml::open("cuda:99").is_err());
    }

    #[test]
    fn the_numbers_of_devices_count_the_visible_ones() {
        assert_eq!(name_of("cuda:1", None), Ok(Name::Index(1)));
        assert_eq!(name_of("cuda", Some("")), Ok(Name::Index(0)));
        assert_eq!(name_of("cuda:1", Some("3, 2")), Ok(Name::Index(2)));
        assert_eq!(name_of("cuda:0", Some("GPU-8f2a")), Ok(Name::Uuid("GPU-8f2a".to_owned())));
        let told = "`CUDA_VISIBLE_DEVICES` is `MIG-1`, which names no whole GPU for `cuda:0`";
        assert_eq!(name_of("cuda:0", Some("MIG-1")), Err(told.to_owned()));
        assert!(name_of("cuda:2", Some("0,1")).is_err() && name_of("cuda:x", None).is_err());
        assert_eq!(name_of("cpu", None), Err("the run is on `cpu`, not on a GPU of NVIDIA".to_owned()));
    }
}
