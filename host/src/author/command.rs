//! `host plugins …`: its commands.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;

use super::check::{self, CheckKind, CheckOptions};
use super::folders::Folders;
use super::new::{NewOptions, new};
use super::output::cannot_write;
use super::{describe, list};
use crate::report::{Problems, terminal};

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
    #[command(after_help = "Examples:\n  host plugins list\n  host plugins list --plugins ./libmine.so")]
    List {
        /// Where the libraries are.
        #[command(flatten)]
        folders: Folders,
        /// Writes one JSON array with the full descriptions of the kinds.
        #[arg(long)]
        json: bool,
    },
    /// Shows what a kind does, which hooks it has, and its options, with an entry for the run file.
    #[command(after_help = "Example:\n  host plugins describe checkpoint")]
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

impl PluginsCommand {
    /// Whether what it says is for a program.
    pub fn writes_json(&self) -> bool {
        match self {
            Self::List { json, .. } => *json,
            Self::Check(options) => options.json,
            _ => false,
        }
    }
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
        PluginsCommand::List { folders, json } => {
            let mut notes = std::io::stderr();
            list(&folders.require(&mut notes)?, json, &mut out, &mut notes)?
        }
        PluginsCommand::Describe { kind, folders } => {
            describe(&kind, &folders.require(&mut std::io::stderr())?, &mut out)?
        }
        PluginsCommand::Check(options) => {
            // The child's output comes through this process's stderr, the findings through stdout.
            return check::run(&options, terminal::shows_colors(&std::io::stdout()), &mut out);
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
