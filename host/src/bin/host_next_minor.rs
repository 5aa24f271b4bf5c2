//! The host as its next minor version would be, only for the compatibility test.

fn main() -> std::process::ExitCode {
    host::cli::main()
}
