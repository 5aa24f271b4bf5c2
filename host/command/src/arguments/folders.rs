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
