//! `host plugins package | add | remove | update | index`.

use std::path::PathBuf;

use clap::Args;

/// What `host plugins package` is asked for.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  cargo build --release
  host plugins package target/release/libloss_alarm.so --out packages
  minisign -Sm packages/loss-alarm-0.1.0-x86_64-linux.tar.zst")]
pub struct PackageOptions {
    /// The library.
    pub file: PathBuf,
    /// The folder for the package.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub out: PathBuf,
    /// The name of the package [default: that of the library's one kind, or of its file].
    #[arg(long)]
    pub name: Option<String>,
    /// The folder with `README…`, `LICENSE…` and their like, which go into the package.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub project: PathBuf,
}

/// What `host plugins add` is asked for.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  host plugins add loss-alarm-0.1.0-x86_64-linux.tar.zst
  host plugins add https://example.org/plugins/loss-alarm-0.1.0-x86_64-linux.tar.zst --require-signed
  host plugins add loss-alarm@0.1.0 --index https://example.org/plugins
  host run run.toml --plugins plugins --plugin loss-alarm --locked

Environment:
  HOST_INDEX       the index, where `--index` is not given
  XDG_CONFIG_HOME  the public keys of minisign are `host/keys/*.pub` in it [default: ~/.config]")]
pub struct AddOptions {
    /// A package: a path, an address (`https://`, or `http://` on this machine), or its name in the index, which may end
    /// with `@VERSION`.
    pub package: String,
    /// Where it is put.
    #[command(flatten)]
    pub place: PluginsPlace,
    /// Where it comes from.
    #[command(flatten)]
    pub origin: Origin,
    /// Takes an older version than the one that is there.
    #[arg(long)]
    pub downgrade: bool,
}

/// What `host plugins remove` is asked for.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Example:\n  host plugins remove loss-alarm")]
pub struct RemoveOptions {
    /// The package: its name, one of its kinds, or its library's file.
    pub name: String,
    /// Where it is.
    #[command(flatten)]
    pub place: PluginsPlace,
}

/// What `host plugins update` is asked for.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  host plugins update --index https://example.org/plugins
  host plugins update loss-alarm --index /shared/plugins")]
pub struct UpdateOptions {
    /// The package; without one, all that the lock has.
    pub name: Option<String>,
    /// Where they are.
    #[command(flatten)]
    pub place: PluginsPlace,
    /// Where they come from.
    #[command(flatten)]
    pub origin: Origin,
}

/// What `host plugins index` is asked for.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  host plugins package target/release/libloss_alarm.so --out site
  host plugins index site
  host plugins add loss-alarm --index site")]
pub struct IndexOptions {
    /// The folder with the packages.
    pub folder: PathBuf,
}

/// A folder of plugins and its lock.
#[derive(Clone, Debug, Args)]
pub struct PluginsPlace {
    /// The folder of plugins; it is made if it is not there.
    #[arg(long = "plugins", value_name = "DIR", default_value = "plugins")]
    pub folder: PathBuf,
    /// The lock.
    #[arg(long, value_name = "FILE", default_value = "plugins.lock")]
    pub lock: PathBuf,
}

/// Where packages come from, and who must have signed them.
#[derive(Clone, Debug, Args)]
pub struct Origin {
    /// The index: a folder or an address. Without it, and without `HOST_INDEX`, no index is contacted.
    #[arg(long, value_name = "DIR|URL")]
    pub index: Option<String>,
    /// Takes only what is signed with one of the keys in `$XDG_CONFIG_HOME/host/keys`.
    #[arg(long)]
    pub require_signed: bool,
}
