//! The host as its next minor version would be, for the compatibility test alone.

fn main() -> std::process::ExitCode {
    host::cli::main()
}
