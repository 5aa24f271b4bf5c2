//! `host plugins …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::check;
use super::check::Tier;
use super::folders::{Folders, Locking};
use super::packages::{AddOptions, IndexOptions, PackageOptions, RemoveOptions, UpdateOptions};

/// `host plugins …`
#[derive(Debug, Subcommand)]
pub enum PluginsCommand {
    /// Creates a project for a new plugin: in Rust or Python with a test that passes, in C with the header that it needs.
    #[command(
        after_help = "Examples:\n  host plugins new loss-alarm\n  cd loss-alarm && cargo test\n\n  host plugins new loss-alarm --language c\n\n  host plugins new loss-alarm --language python\n  cd loss-alarm && python3 -m unittest"
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
        /// Whether only libraries of a lock are opened.
        #[command(flatten)]
        locking: Locking,
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
        /// Whether only libraries of a lock are opened.
        #[command(flatten)]
        locking: Locking,
    },
    /// Writes `plugins.lock`: the libraries of the folders, by their content.
    ///
    /// What it writes takes the place of what the lock had for this machine's target; the entries for other targets stay, so
    /// that one lock serves several machines. The lock belongs beside the run file, under version control. It opens the
    /// libraries, to ask them for their kinds: look at what you lock.
    #[command(
        after_help = "Examples:\n  host plugins lock --plugins plugins\n  host plugins lock --plugins plugins --lock runs/plugins.lock\n  host run run.toml --plugins plugins --locked"
    )]
    Lock {
        /// Where the libraries are.
        #[command(flatten)]
        folders: Folders,
        /// The lock.
        #[arg(long, value_name = "FILE", default_value = "plugins.lock")]
        lock: PathBuf,
    },
    /// Packs a library, its description, README and license into `NAME-VERSION-TARGET.tar.zst`.
    ///
    /// The same files give the same bytes. The library is opened, to ask it for its kinds.
    Package(PackageOptions),
    /// Adds a package to a plugins folder and to the lock.
    ///
    /// Nothing of it runs: the archive is checked, unpacked aside, and its library renamed into the folder. Its texts go to
    /// `packages/NAME` there.
    Add(AddOptions),
    /// Removes a package from a plugins folder and from the lock, there for every target.
    Remove(RemoveOptions),
    /// Replaces packages by the newest versions of an index.
    Update(UpdateOptions),
    /// Makes a folder of packages an index, by JSON files beside them; it may be served as a static site.
    Index(IndexOptions),
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

/// In which language a plugin is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// A Cargo project that depends on `plugin-api`.
    #[default]
    Rust,
    /// One file of C with a copy of `host_plugin.h`; nothing of Rust.
    C,
    /// One file of Python with a copy of the package `host_plugin`; nothing to compile.
    Python,
}

/// What `host plugins new` is asked for.
#[derive(Clone, Debug, Args)]
pub struct NewOptions {
    /// The name of the project and of its kind: lower-case letters, digits and `-`, a letter first.
    pub name: String,
    /// The folder in which the project's folder is made.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub path: PathBuf,
    /// In which language to write it.
    #[arg(long, value_enum, value_name = "LANGUAGE", default_value_t)]
    pub language: Language,
    /// The folder of `plugin-api`'s sources, for a path dependency.
    ///
    /// Needed until `plugin-api` is published: without it the project depends on version 1 from the registry.
    #[arg(long, value_name = "DIR")]
    pub plugin_api: Option<PathBuf>,
}

/// The arguments of `host plugins check`.
#[derive(Clone, Debug, Args)]
pub struct CheckOptions {
    /// The library, or the file of a plugin in Python.
    pub file: PathBuf,
    /// Milliseconds that a hook may take on the training thread, or the loading of the library.
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub budget_ms: u64,
    /// Seconds that the checks of one kind may take.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub timeout_s: u64,
    /// Sets an option of a kind, in TOML; needed for required options.
    #[arg(long = "set", value_name = "KIND.OPTION=VALUE")]
    pub set: Vec<String>,
    /// The tier that the library must reach: the exit code is 1 when it does not.
    #[arg(long, value_enum, value_name = "TIER", default_value_t = Tier::Full)]
    pub tier: Tier,
    /// Writes one JSON object: host, ABI, tier, a badge, and the findings.
    #[arg(long)]
    pub json: bool,
    /// Writes only the badge: a line of Markdown for a README, with the tier and the versions of host and ABI.
    #[arg(long, conflicts_with = "json")]
    pub badge: bool,
    /// Checks in this process, for a debugger; a crash then ends it.
    #[arg(long)]
    pub in_process: bool,
}

impl CheckOptions {
    /// What a hook may take.
    pub fn budget(&self) -> Duration {
        Duration::from_millis(self.budget_ms)
    }

    /// What the checks of a kind may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_s)
    }
}

/// The task of a child: to load the library, or to check one of its kinds.
#[derive(Clone, Debug, Args)]
pub struct CheckKind {
    /// The library.
    pub file: PathBuf,
    /// The file for its progress.
    #[arg(long)]
    pub progress: PathBuf,
    /// The kind; without one, the child only loads the library.
    #[arg(long)]
    pub kind: Option<String>,
    /// As in `check`.
    #[arg(long)]
    pub budget_ms: u64,
    /// As in `check`.
    #[arg(long)]
    pub set: Vec<String>,
}
