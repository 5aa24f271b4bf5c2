//! The part of `host` that computes, with libtorch.

fn main() -> std::process::ExitCode {
    // Before the first file is written: the copies of the libraries.
    #[cfg(unix)]
    host::dispatch::survive_file_limits();
    host::dispatch::handle_exits();
    host::cli::main()
}
