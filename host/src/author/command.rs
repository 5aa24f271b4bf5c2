//! `host plugins …`: its commands.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::check::{self, CheckKind, CheckOptions};
use super::new::{NewOptions, new};
use super::output::cannot_write;
use super::{describe, list};
use crate::report::Problems;

/// The plugin folders of a command.
#[derive(Clone, Debug, Args)]
pub struct Folders {
    /// A folder of plugin libraries, or one library file; may be given several times. Without a value, `./plugins`.
    #[arg(
        long = "plugins",
        value_name = "DIR|FILE",
        num_args = 0..=1,
        default_missing_value = "plugins",
        default_value = "plugins",
        hide_default_value = true
    )]
    pub paths: Vec<PathBuf>,
}

/// `host plugins …`
#[derive(Debug, Subcommand)]
pub enum PluginsCommand {
    /// Creates a project for a new plugin: in Rust with a test that passes, in C with the header that it needs.
    #[command(
        after_help = "Examples:\n  host plugins new loss-alarm\n  cd loss-alarm && cargo test\n\n  host plugins new loss-alarm --language c"
    )]
    New(NewOptions),
    /// Lists the kinds of plugins in the folders.
    ///
    /// Files that cannot be loaded are warnings.
    #[command(after_help = "Example:\n  host plugins list --plugins plugins")]
    List {
        /// Where the libraries are.
        #[command(flatten)]
        folders: Folders,
        /// Writes one JSON array with the full descriptions of the kinds.
        #[arg(long)]
        json: bool,
    },
    /// Shows what a kind does, which hooks it has, and its options, with an entry for the run file.
    #[command(after_help = "Example:\n  host plugins describe checkpoint --plugins plugins")]
    Describe {
        /// The kind's name, as `host plugins list` shows it.
        kind: String,
        /// Where the libraries are.
        #[command(flatten)]
        folders: Folders,
    },
    /// Drives every hook of every kind in a library through a simulated run, and shows what goes wrong.
    ///
    /// The library runs in a child process, so that a crash is a finding like any other. Nothing is trained or
    /// published: `Run::info` has `trial = true`. The exit code is 1 when a check fails.
    #[command(after_help = check::help())]
    Check(CheckOptions),
    /// One part of `check`, in a child process of its own.
    #[command(hide = true)]
    CheckKind(CheckKind),
}

/// Runs `host plugins …`: data goes to stdout, warnings to stderr.
///
/// # Errors
///
/// Problems, which the caller renders.
pub fn run(command: PluginsCommand) -> Result<ExitCode, Problems> {
    let mut out = std::io::stdout().lock();
    let done = match command {
        PluginsCommand::New(options) => new(&options, &mut out)?,
        PluginsCommand::List { folders, json } => list(&folders.paths, json, &mut out, &mut std::io::stderr())?,
        PluginsCommand::Describe { kind, folders } => describe(&kind, &folders.paths, &mut out)?,
        PluginsCommand::Check(options) => {
            // The child's output comes through this process's stderr, the findings through stdout.
            return check::run(&options, wants_color(), &mut out);
        }
        PluginsCommand::CheckKind(options) => {
            // The library may print, and would deadlock on the lock.
            drop(out);
            return check::run_kind(&options);
        }
    };
    out.flush().map_err(cannot_write)?;
    Ok(done)
}

/// Whether to color: stdout is a terminal that shows colors, and `NO_COLOR` is unset or empty (<https://no-color.org>).
fn wants_color() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
    std::io::stdout().is_terminal() && !refused && !dumb
}
