//! What people write, with a place for each value: documents, their checks, and the small languages inside strings.
//!
//! [`Document::parse`] reads TOML and keeps the place of each value; [`Document::set`] applies `--set KEY=VALUE`;
//! [`check`] checks a document, or a part of it, against a JSON Schema and points at the place of each problem. The
//! contents of a run file belong to [`run_file`](crate::run_file).

mod check;
mod condition;
mod defaults;
mod device;
mod document;
mod encoding;
mod formats;
mod overrides;
pub mod pairs;
mod plugin;
mod renamed;
mod synonyms;
mod when;

pub use check::check;
pub use condition::{Comparison, Condition, Threshold};
pub use defaults::{default_of, fill_defaults, named_for, resolved};
pub use device::Device;
pub use document::{Document, Place, child, key_path};
pub use encoding::{Delimiter, Encoding};
pub use formats::{FormatError, instance_name};
pub use overrides::instance_of;
pub use plugin::{ALIASES, Dispatch, Isolation, OnError, PluginOptions, ProcessLimits, Ranks};
pub use when::{At, Every, When};
