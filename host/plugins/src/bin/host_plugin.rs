//! The program that holds a plugin in a process of its own; `host` starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    return host_plugins::process::child::main();
    #[cfg(not(target_os = "linux"))]
    {
        eprintln!("host-plugin: plugins run in a process of their own on Linux only");
        ExitCode::FAILURE
    }
}
