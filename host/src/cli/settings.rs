//! Settings that libraries read when they are loaded, long before `main`, and have no function to change later. So a
//! training starts itself once more, in the same process, with the settings in place.

/// A setting, and those of the environment's variables that keep it from being made: whoever set one knows better.
struct Setting {
    variable: &'static str,
    value: &'static str,
    unless: &'static [&'static str],
}

const SETTINGS: [Setting; 2] = [
    // How long libgomp's threads wait at a barrier before they sleep: turns of a loop, about 0.1 ms of them. Its own
    // 300,000 keep a core busy for milliseconds. Measured with the built-in run and two threads on two cores: 0.81 s
    // with this setting, 1.14 s with libgomp's; with two other busy processes 3.7 s and 19 s.
    Setting { variable: "GOMP_SPINCOUNT", value: "10000", unless: &["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"] },
    // glibc asks for huge pages for its heap, where tensors and libtorch's tables lie. Measured with a run of one step:
    // 0.25 s of processor time instead of 0.30 s, with 14,000 fewer page faults.
    Setting { variable: "GLIBC_TUNABLES", value: "glibc.malloc.hugetlb=1", unless: &["GLIBC_TUNABLES"] },
];

/// Starts this program again with [`SETTINGS`]. Returns where they are in place, and where it cannot be done; the
/// training is right without them.
#[cfg(target_os = "linux")]
pub(super) fn start_with_settings() {
    use std::os::unix::process::CommandExt;

    let is_set = |name: &&str| std::env::var_os(name).is_some();
    let mut missing = SETTINGS.iter().filter(|setting| !setting.unless.iter().any(|name| is_set(&name))).peekable();
    let (Some(_), Ok(program)) = (missing.peek(), std::env::current_exe()) else { return };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // Comes back only with an error.
    let _ = command.args(arguments).envs(missing.map(|setting| (setting.variable, setting.value))).exec();
}

#[cfg(not(target_os = "linux"))]
pub(super) fn start_with_settings() {}
