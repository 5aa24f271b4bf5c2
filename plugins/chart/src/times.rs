//! The cost of each plugin.

use std::collections::BTreeMap;

use plugin_api::protocol::HookTime;
use plugin_api::{ErrorKind, Result, Run};
use serde::Serialize;

/// The cost of one plugin in this process.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PluginTime {
    /// The instance.
    pub plugin: String,
    /// Seconds in which the loop waited for it.
    pub seconds: f64,
    /// Seconds in the background.
    pub background: f64,
    /// Its hooks, most expensive first.
    pub hooks: Vec<Hook>,
}

/// The cost of one hook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Hook {
    /// The hook, by its event's name.
    pub hook: String,
    /// The number of calls.
    pub calls: u64,
    /// Their time.
    pub seconds: f64,
}

/// The cost of each plugin, most expensive first. Empty if the host is too old to report it.
///
/// # Errors
///
/// Errors of the service.
pub fn times(run: &Run<'_>) -> Result<Vec<PluginTime>> {
    match run.hook_times() {
        Ok(times) => Ok(by_plugin(times)),
        Err(error) if error.kind() == ErrorKind::Unknown => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn by_plugin(times: Vec<HookTime>) -> Vec<PluginTime> {
    let mut plugins: BTreeMap<String, PluginTime> = BTreeMap::new();
    for HookTime { instance, hook, background, calls, seconds, .. } in times {
        let plugin = plugins.entry(instance.clone()).or_default();
        plugin.plugin = instance;
        *if background { &mut plugin.background } else { &mut plugin.seconds } += seconds;
        plugin.hooks.push(Hook { hook, calls, seconds });
    }
    let mut plugins: Vec<_> = plugins.into_values().collect();
    for plugin in &mut plugins {
        plugin.hooks.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    }
    plugins.sort_by(|a, b| (b.seconds + b.background).total_cmp(&(a.seconds + a.background)));
    plugins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_summed_by_plugin_and_what_ran_beside_the_loop_is_told_apart() {
        let time = |instance: &str, hook: &str, background, seconds| HookTime {
            instance: instance.to_owned(),
            hook: hook.to_owned(),
            background,
            calls: 2,
            seconds,
            longest_seconds: seconds,
        };
        let times = by_plugin(vec![
            time("checkpoint", "checkpoint", false, 0.5),
            time("webhook", "trigger", true, 4.0),
            time("checkpoint", "trigger", false, 1.5),
            time("webhook", "waiting", false, 0.25),
        ]);
        let shown: Vec<_> = times.iter().map(|time| (time.plugin.as_str(), time.seconds, time.background)).collect();
        assert_eq!(shown, [("webhook", 0.25, 4.0), ("checkpoint", 2.0, 0.0)]);
        let hooks: Vec<_> = times[1].hooks.iter().map(|hook| hook.hook.as_str()).collect();
        assert_eq!(hooks, ["trigger", "checkpoint"]);
    }
}
