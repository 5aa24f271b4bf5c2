//! Lists of metrics in options, in which `*` stands for any characters.
//!
//! The host checks options whose text is one metric; it cannot check patterns. So a written name without a `*` is checked here,
//! in `setup`.

use plugin_api::services::{did_you_mean, fits};
use plugin_api::{Error, Result, Run};

/// Refuses an option that names nothing, in `new`.
pub(crate) fn refuse_empty(option: &str, patterns: &[String]) -> Result<()> {
    if patterns.is_empty() {
        return Err(Error::new(format!("`{option}` is empty: name at least one, or use `[\"*\"]` for all")));
    }
    if patterns.iter().any(String::is_empty) {
        return Err(Error::new(format!("`{option}` has an empty name: remove it, or use `*` for all")));
    }
    Ok(())
}

/// Refuses a name without a `*` that the run will not give.
pub(crate) fn refuse_unknown(run: &Run<'_>, option: &str, patterns: &[String]) -> Result<()> {
    let known = run.info()?.metrics;
    // An older host does not say which metrics a run gives.
    if known.is_empty() {
        return Ok(());
    }
    let is_known = |name: &str| name.contains('*') || known.iter().any(|known| fits(known, name));
    let Some(unknown) = patterns.iter().find(|name| !is_known(name)) else { return Ok(()) };
    let near = did_you_mean(unknown, known.iter().map(String::as_str).filter(|name| !name.contains('*')));
    let hint = near.unwrap_or_else(|| "remove it, or let the run measure it".to_owned());
    Err(Error::new(format!("`{option}` names `{unknown}`, which this run does not give; {hint}")))
}
