//! The workspace's tasks: `cargo xtask setup | demo | test | bench | dist`.
//!
//! Each first makes sure that libtorch is in place, so that any of them can be the first command on a fresh clone,
//! and plain `cargo build`, `cargo test` and `cargo run` work after it.

mod bench;
mod cargo;
mod demo;
mod dist;
mod error;
mod libtorch;
mod prerequisites;
mod process;
mod python;
mod suite;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::cargo::Cargo;
use crate::error::Result;
use crate::suite::TestOptions;
use crate::workspace::Workspace;

/// Sets up the workspace, trains a demo, runs every check, measures, packs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo                          train the digits with the shipped plugins
  cargo xtask demo -- --set train.epochs=3  … with options for `host run`
  cargo xtask test                          every check, as continuous integration runs it
  cargo xtask test -- checkpoint            … with options for `cargo test`, here a name
  cargo xtask bench -- -- hooks             one section of the host's benchmarks
  cargo xtask bench --comparison            only the host against PyTorch's loops
  cargo xtask bench --comparison --peers    … and against Burn and candle
  LIBTORCH=/opt/libtorch cargo xtask demo   with your own libtorch";

#[derive(Debug, Subcommand)]
enum Task {
    /// Download and verify libtorch, and the sources of all dependencies
    Setup,
    /// Set up, build everything in release, and train examples/digits/run.toml
    Demo {
        /// Options for `host run`
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, then check format, build, clippy, tests and docs
    Test {
        /// Also run the long tests
        #[arg(long)]
        long: bool,
        /// Options for `cargo test`
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build everything in release, run the host's benchmarks, and compare it with PyTorch's loops
    Bench {
        /// Run only the comparison with PyTorch's loops
        #[arg(long, conflicts_with = "arguments")]
        comparison: bool,
        /// Also compare with Burn and candle, which are downloaded and compiled for it
        #[arg(long, conflicts_with = "arguments")]
        peers: bool,
        /// Options for `cargo bench`; then nothing else runs
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Set up, build everything in release, and collect it in target/dist
    Dist,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", report(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let workspace = Workspace::find();
    prerequisites::check_compiler()?;
    let libtorch = libtorch::provide(&workspace)?;
    let cargo = Cargo::new(&workspace, &libtorch);
    match task {
        Task::Setup => {
            cargo.fetch()?;
            eprintln!("setup: ready; next, `cargo xtask demo` or `cargo xtask test`");
            Ok(())
        }
        Task::Demo { arguments } => demo::run(&workspace, &cargo, &arguments),
        Task::Test { long, arguments } => {
            let python = python::TESTS.provide(&workspace)?;
            let mlflow = python::MLFLOW.provide(&workspace);
            if let Err(error) = &mlflow {
                eprintln!("test: the test with MLflow's server will be skipped: {}", report(error));
            }
            let pytorch = long.then(|| python::PYTORCH.provide(&workspace));
            if let Some(Err(error)) = &pytorch {
                eprintln!("test: the test against PyTorch will be skipped: {}", report(error));
            }
            cargo.fetch()?;
            let options = TestOptions {
                long,
                python: &python,
                mlflow: mlflow.as_deref().ok(),
                pytorch: pytorch.as_ref().and_then(|python| python.as_deref().ok()),
                arguments: &arguments,
            };
            suite::run(&workspace, &cargo, &options)
        }
        Task::Bench { comparison, peers, arguments } => {
            bench::run(&workspace, &cargo, &BenchOptions { comparison, peers, arguments: &arguments })
        }
        Task::Dist => dist::run(&workspace, &cargo, &libtorch),
    }
}

/// An error and its causes, on one line.
fn report(error: &error::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
