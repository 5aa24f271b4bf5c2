//! The commands about runs that other processes train or have trained.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A run, by its folder.
#[derive(Debug, Args)]
pub struct RunArgument {
    /// The run folder; for a folder of runs, such as `runs/digits`, the newest run in it.
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
}

/// `host pause`, `host resume` and `host checkpoint`.
#[derive(Debug, Args)]
pub struct RequestArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunArgument,
    /// Why, for the log and the status.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub reason: String,
    /// Returns without waiting for the run to read the request.
    #[arg(long)]
    pub no_wait: bool,
}

/// `host stop`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  host stop runs/long --reason 'the disk is needed'\n  host stop runs/long --now")]
pub struct StopArguments {
    /// Which run, and why.
    #[command(flatten)]
    pub request: RequestArguments,
    /// Sends SIGTERM to the process, once its start time and the lock of the folder show that it is the one that trains:
    /// the end hooks still come, and the exit code is 143.
    #[arg(long)]
    pub now: bool,
}

/// `host status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  host status runs/long\n  host status runs/long --watch\n  host status runs/long --json | jq .progress"
)]
pub struct StatusArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunArgument,
    /// Shows it anew each second, until the run has ended.
    #[arg(long)]
    pub watch: bool,
    /// Prints `status.json`, with the state that was found; with `--watch`, an object a line.
    #[arg(long)]
    pub json: bool,
}

/// `host list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  host list\n  host list runs/digits --sort val_loss\n  host list --json")]
pub struct ListArguments {
    /// The folder that holds runs, at any depth.
    #[arg(value_name = "DIR", default_value = "runs")]
    pub folder: PathBuf,
    /// What to sort by: `age` (the newest first), `name`, `state`, `progress`, or the best value of a metric.
    #[arg(long, value_name = "KEY", default_value = "age")]
    pub sort: String,
    /// Sorts in the other direction.
    #[arg(long)]
    pub reverse: bool,
    /// Prints one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// `host compare`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  host compare runs/a runs/b\n  host compare runs/digits/* --picture curves.svg")]
pub struct CompareArguments {
    /// The run folders.
    #[arg(value_name = "RUN", num_args = 2.., required = true)]
    pub runs: Vec<PathBuf>,
    /// Draws the curves of all runs over one another, as SVG.
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `host attach`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  host attach runs/long\n  host attach runs/long --shell\n  echo metrics | host attach runs/long --shell"
)]
pub struct AttachArguments {
    /// Which run.
    #[command(flatten)]
    pub run: RunArgument,
    /// Has a run with the plugin `shell` wait, and opens its prompt. `=FILE` names its file if its options do.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "INJECT_SHELL.tmp")]
    pub shell: Option<PathBuf>,
}

/// `host completions`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  host completions bash > ~/.local/share/bash-completion/completions/host\n  host completions zsh > ~/.zfunc/_host"
)]
pub struct CompletionsArguments {
    /// For which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A shell that completes commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash.
    Bash,
    /// Elvish.
    Elvish,
    /// Friendly interactive shell.
    Fish,
    /// PowerShell.
    #[value(name = "powershell")]
    PowerShell,
    /// Z shell.
    Zsh,
}
