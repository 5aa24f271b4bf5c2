//! The plugin folders of a command.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// The plugin folders of a command.
#[derive(Clone, Debug, Default, Args)]
pub struct Folders {
    /// A folder of plugin libraries or a library; may be given again. Without a value, `./plugins`. Without the option,
    /// what `HOST_PLUGINS` names, or else the folder `plugins` beside the program.
    #[arg(long = "plugins", value_name = "DIR|FILE", num_args = 0..=1, default_missing_value = "plugins", action = ArgAction::Append)]
    pub paths: Vec<PathBuf>,
}

/// Whether a command opens only what a lock lists.
#[derive(Clone, Debug, Default, Args)]
pub struct Locking {
    /// Refuses plugin libraries that are not listed in `plugins.lock`, or whose content is another one there, before anything
    /// of them runs; and files and folders that others can write.
    #[arg(long)]
    pub locked: bool,
    /// The lock [default: `plugins.lock` beside the run file, else in the working folder].
    #[arg(long, value_name = "FILE", requires = "locked")]
    pub lock: Option<PathBuf>,
}
