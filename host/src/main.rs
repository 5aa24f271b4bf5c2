//! The command `host`: what computes is the program `host-engine`, which it becomes.

fn main() -> std::process::ExitCode {
    host_command::main()
}
