//! `host plugins …`: its commands.

use std::io::{BufWriter, Write};
use std::process::ExitCode;

use host_command::arguments::PluginsCommand;
use host_command::stdout::Stdout;

use super::folders::require;
use super::new::new;
use super::output::cannot_write;
use super::{check, lock, packages};
use super::{describe, list};
use crate::report::{Colors, Printable, Problems, terminal};

/// Runs `host plugins …`: data goes to stdout, warnings to stderr.
///
/// # Errors
///
/// Problems, which the caller renders.
pub fn run(command: PluginsCommand) -> Result<ExitCode, Problems> {
    let is_json = match &command {
        PluginsCommand::List { json, .. } => *json,
        PluginsCommand::Check(options) => options.json,
        _ => false,
    };
    let colors = if terminal::stdout_shows_colors() { Colors::Keep } else { Colors::Drop };
    // What a library says of itself is a stranger's; a program gets it as it is.
    let mut out: Box<dyn Write> = match is_json && !Stdout.is_terminal() {
        true => Box::new(BufWriter::new(Stdout)),
        false => Box::new(Printable::new(Stdout, colors)),
    };
    let done = match command {
        PluginsCommand::New(options) => new(&options, &mut out)?,
        PluginsCommand::List { folders, locking, json } => {
            let mut notes = std::io::stderr();
            list(&require(folders, &mut notes)?, &locking, json, &mut out, &mut notes)?
        }
        PluginsCommand::Describe { kind, folders, locking } => {
            let paths = require(folders, &mut std::io::stderr())?;
            describe(&kind, &paths, &locking, &mut out, &mut std::io::stderr())?
        }
        PluginsCommand::Lock { folders, lock } => {
            let mut notes = std::io::stderr();
            lock::lock(&require(folders, &mut notes)?, &lock, &mut out, &mut notes)?
        }
        PluginsCommand::Package(options) => packages::package(&options, &mut out, &mut std::io::stderr())?,
        PluginsCommand::Add(options) => packages::add(&options, &mut out, &mut std::io::stderr())?,
        PluginsCommand::Remove(options) => packages::remove(&options, &mut out, &mut std::io::stderr())?,
        PluginsCommand::Update(options) => packages::update(&options, &mut out, &mut std::io::stderr())?,
        PluginsCommand::Index(options) => packages::index(&options, &mut out)?,
        PluginsCommand::Check(options) => {
            // The child's output comes through this process's stderr, the findings through stdout.
            check::run(&options, colors == Colors::Keep, &mut out)?
        }
        PluginsCommand::CheckKind(options) => {
            return check::run_kind(&options);
        }
    };
    out.flush().map_err(cannot_write)?;
    Ok(done)
}
