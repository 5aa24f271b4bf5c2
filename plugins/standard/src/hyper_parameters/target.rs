//! The hyper-parameter that a callback sets, in one parameter group or in all that have it.

use plugin_api::{Error, Result, Run};
use serde_json::Value;

/// The one that the run's own schedule sets.
const SCHEDULED: &str = "learning_rate";

pub(crate) struct Target {
    name: String,
    group: Option<String>,
}

/// The hyper-parameter in one of the groups.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InGroup {
    pub(crate) group: String,
    pub(crate) value: f64,
    /// Whether a callback has set it before, so that the run's schedule no longer does.
    pub(crate) is_owned: bool,
}

impl Target {
    /// Of the options `hyper_parameter` and `group`.
    pub(crate) fn new(hyper_parameter: String, group: Option<String>) -> Result<Self> {
        if hyper_parameter.is_empty() {
            return Err(Error::new("`hyper_parameter` is empty: name one, such as `learning_rate`"));
        }
        if group.as_deref() == Some("") {
            return Err(Error::new("`group` is empty: name a parameter group, or leave it out for all"));
        }
        Ok(Self { name: hyper_parameter, group })
    }

    /// Refuses a hyper-parameter or a group that the run does not have. For `setup`.
    pub(crate) fn check(&self, run: &mut Run<'_>) -> Result<()> {
        let job = run.info()?.job;
        // A job on a saved checkpoint trains nothing.
        if !(job.is_empty() || job == "train") || !self.in_groups(run)?.is_empty() {
            return Ok(());
        }
        // There is none to set, so that this only fetches the host's error, which names the nearest ones.
        self.set(run, 0.0)
    }

    /// It in each group that has it.
    pub(crate) fn in_groups(&self, run: &Run<'_>) -> Result<Vec<InGroup>> {
        let groups = run.hyper_parameters()?.into_iter();
        let wanted = groups.filter(|group| self.group.as_ref().is_none_or(|name| *name == group.name));
        let found = wanted.filter_map(|group| {
            let value = *group.values.get(&self.name)?;
            Some(InGroup { is_owned: group.owners.contains_key(&self.name), group: group.name, value })
        });
        Ok(found.collect())
    }

    /// It in one group.
    pub(crate) fn of_group(&self, group: &str) -> Self {
        Self { name: self.name.clone(), group: Some(group.to_owned()) }
    }

    /// Sets it in each group.
    pub(crate) fn set(&self, run: &mut Run<'_>, value: f64) -> Result<()> {
        run.set_hyper_parameter(self.group.as_deref(), &self.name, value)
    }

    /// Sets a value that was computed. NaN is left out: it comes of a metric that has no value yet.
    pub(crate) fn set_computed(&self, run: &mut Run<'_>, value: f64) -> Result<()> {
        if value.is_nan() {
            plugin_api::tracing::warn!("the value for {} is NaN: it is not set", self.shown());
            return Ok(());
        }
        if !value.is_finite() || value < 0.0 {
            let message =
                format!("{} cannot become {value}; a hyper-parameter must be 0 or more, and finite", self.shown());
            return Err(Error::new(message));
        }
        self.set(run, value)
    }

    /// Its name for people: with the group if it is that of one.
    pub(crate) fn shown(&self) -> String {
        match &self.group {
            Some(group) => format!("`{}` of the group `{group}`", self.name),
            None => format!("`{}`", self.name),
        }
    }

    /// Says on the console that the run's schedule yields, if there is one that still sets what is set now. The host lets
    /// it yield for good, so that this is said once in a run.
    pub(crate) fn say_that_the_schedule_yields(&self, run: &mut Run<'_>) -> Result<()> {
        if self.name != SCHEDULED || self.in_groups(run)?.iter().all(|it| it.is_owned) {
            return Ok(());
        }
        let info = run.info()?;
        let Some(schedule) = schedule_of(&info.run_file) else { return Ok(()) };
        let (instance, shown) = (info.instance, self.shown());
        run.console_line(&format!("`{instance}` sets {shown} from now on; the run's {schedule} no longer changes it"))
    }
}

/// The schedule of the learning rate in a resolved run file, if it changes the learning rate.
fn schedule_of(run_file: &str) -> Option<String> {
    let run_file: Value = serde_json::from_str(run_file).ok()?;
    let train = run_file.get("train")?;
    let schedule = train.pointer("/schedule/type").and_then(Value::as_str).filter(|name| *name != "constant");
    match schedule {
        Some(name) => Some(format!("schedule `{name}`")),
        None => train.get("warmup").filter(|warmup| !warmup.is_null()).map(|_| "warm-up".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_schedule_that_changes_something_is_named() {
        for (run_file, named) in [
            (r#"{"train":{"schedule":{"type":"cosine","minimum":0.0}}}"#, Some("schedule `cosine`")),
            (r#"{"train":{"schedule":{"type":"constant"},"warmup":{"steps":5}}}"#, Some("warm-up")),
            (r#"{"train":{"schedule":{"type":"constant"},"warmup":null}}"#, None),
            (r#"{"train":{}}"#, None),
            ("{}", None),
            ("", None),
        ] {
            assert_eq!(schedule_of(run_file).as_deref(), named, "{run_file}");
        }
    }
}
