//! `host run`.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, ValueEnum};

use super::folders::{Folders, Locking};
use crate::launch::Processes;

const EXAMPLES: &str = "\
Examples:
  host run                                                  the built-in digits run
  host run run.toml --plugins plugins --plugins libmine.so  a run file, a folder, a library
  host run run.toml --set train.epochs=3 --plugin early-stopping
  host run run.toml --out runs/long                         started, or resumed where it stopped
  host run run.toml --processes 2                           two processes of this machine, one run
  host run run.toml --try                                   one batch through every hook
  host run run.toml --plugins plugins --locked              only what `plugins.lock` lists

Environment:
  HOST_PLUGINS  folders of plugin libraries, or libraries, for commands without `--plugins`
  HOST_CACHE    the cache of what libraries offer; empty: there is none";

/// Trains what a run file says, with the callbacks of plugin libraries.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArguments {
    /// The run file; without one, the digits example that is built in.
    pub run_file: Option<PathBuf>,
    /// Where the plugin libraries are.
    #[command(flatten)]
    pub folders: Folders,
    /// Whether only libraries of a lock are opened.
    #[command(flatten)]
    pub locking: Locking,
    /// Adds a callback after the declared ones, unless one of that name is declared.
    #[arg(long = "plugin", value_name = "KIND[=NAME]", action = ArgAction::Append)]
    pub plugin: Vec<String>,
    /// Runs the plugins of a kind, or all of them, each in a process of its own.
    #[arg(long, value_name = "KIND|all", action = ArgAction::Append)]
    pub isolate: Vec<String>,
    /// Overrides a key of the run file: `train.epochs=3`, `plugins.checkpoint.options.keep_last=5`.
    #[arg(long = "set", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub overrides: Vec<String>,
    /// The run folder; by default one in `runs`, named after the run and its start time.
    #[arg(long, value_name = "DIR", help = "The run folder [default: runs/<run name>/<start time>]")]
    pub out: Option<PathBuf>,
    /// Where to resume from: the newest whole checkpoint of the run folder (`auto`; the default where the run folder is
    /// given), nowhere, or a checkpoint.
    #[arg(long, value_name = "auto|never|PATH")]
    pub resume: Option<String>,
    /// What may differ from the checkpoint, though the run is then another one, with commas between: seed, data, splits,
    /// normalization, batch_size, model, loss, optimizer, schedule, precision.
    #[arg(long, value_enum, value_name = "CHANGE", value_delimiter = ',', hide_possible_values = true)]
    pub accept: Vec<Change>,
    /// Trains in this many processes of this machine, as one run: a number, or `auto` for one on each GPU.
    #[arg(long, value_name = "N|auto")]
    pub processes: Option<Processes>,
    /// One training and one evaluation batch through every hook and trigger; publishes nothing.
    #[arg(long = "try")]
    pub trial: bool,
    /// Prints what happens as JSON to stdout, an object a line; the last one is the final status.
    #[arg(long)]
    pub json: bool,
    /// How much is shown.
    #[command(flatten)]
    pub shown: Shown,
}

/// Something that a resumed run must not change unless it is accepted: `--accept seed,data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Change {
    /// The seed: another order of samples, other augmentations.
    Seed,
    /// Samples or targets.
    Data,
    /// Which samples are held out.
    Splits,
    /// How samples are normalized.
    Normalization,
    /// Samples of an update.
    BatchSize,
    /// The network. Weights of other shapes do not fit in any case.
    Model,
    /// What is minimized.
    Loss,
    /// How the weights are updated, learning rate included.
    Optimizer,
    /// How the learning rate changes.
    Schedule,
    /// What forward and backward compute in.
    Precision,
}

impl Change {
    /// Its word for `--accept`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Data => "data",
            Self::Splits => "splits",
            Self::Normalization => "normalization",
            Self::BatchSize => "batch_size",
            Self::Model => "model",
            Self::Loss => "loss",
            Self::Optimizer => "optimizer",
            Self::Schedule => "schedule",
            Self::Precision => "precision",
        }
    }
}

/// How much a command shows.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct Shown {
    /// Shows only errors.
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Shows what the host does; twice: everything, and each call of a hook in `log.jsonl`.
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

/// Trains what a run file says, with the callbacks of plugin libraries and with this program's own parts.
#[derive(Debug, Parser)]
#[command(version = None, after_help = super::EXIT_CODES)]
pub struct ProgramArguments {
    /// What `host run` takes.
    #[command(flatten)]
    pub run: RunArguments,
}
