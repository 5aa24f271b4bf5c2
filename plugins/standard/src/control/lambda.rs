//! `lambda`: a line of the run file's own, done when it is triggered; Keras has `LambdaCallback` for such lines.
//!
//! The host reads the line and computes its values; what it asks for is done here, as any callback would.

use plugin_api::event::{At, Trigger};
use plugin_api::protocol::{Action, Control};
use plugin_api::{Callback, Creation, Error, Result, Run, plugin};

use crate::hyper_parameters::target::Target;

/// Options of `lambda`.
#[plugin]
#[derive(Default)]
pub(crate) struct Options {
    /// What to do, in the language of expressions, with `;` between several: `stop('text')`, `checkpoint()`, `log('text')`,
    /// `put('metric', value)`, `set('hyper-parameter', value)`, and `set('hyper-parameter', value, 'group')`. In the value of
    /// `set`, `old` is the present one.
    #[serde(rename = "do")]
    #[schemars(extend("format" = "actions"))]
    actions: String,
}

pub(crate) struct Lambda {
    actions: String,
}

#[plugin]
impl Callback for Lambda {
    const KIND: &'static str = "lambda";
    const SUMMARY: &'static str = "Stops, logs, sets, or puts what a line of the run file says";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.actions.trim().is_empty() {
            return Err(Error::new("`do` must say what to do, such as `stop('the loss is ' + val_loss)`"));
        }
        Ok(Self { actions: options.actions })
    }

    /// Refuses metrics, hyper-parameters and groups that the run does not have.
    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let job = run.info()?.job;
        if !(job.is_empty() || job == "train") {
            // A job on a saved checkpoint has no triggers, and other metrics.
            return Ok(());
        }
        for action in run.evaluate_actions(&self.actions, &[])? {
            if let Action::Set { name, group, .. } = action {
                Target::new(name, group)?.check(run)?;
            }
        }
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, _: &Trigger<'_>) -> Result<()> {
        // All values are of the moment of the trigger: a `put` or `set` changes nothing that follows it in the line.
        run.evaluate_actions(&self.actions, &[])?.into_iter().try_for_each(|action| perform(run, action))
    }
}

fn perform(run: &mut Run<'_>, action: Action) -> Result<()> {
    match action {
        Action::Stop { reason } => run.stop(&reason),
        Action::Checkpoint {} => run.request(Control::Checkpoint, "`do` asks for it"),
        Action::Log { text } => run.console_line(&text.replace(['\n', '\r'], " ")),
        Action::Put { name, value } => run.put_metric(&name, value),
        Action::Set { name, group, value } => {
            let target = Target::new(name, group)?;
            target.say_that_the_schedule_yields(run)?;
            target.set_computed(run, value)
        }
        other => Err(Error::new(format!("this plugin does not know the action {other:?}; use a newer one"))),
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::protocol::Evaluated;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    /// A host that answers with these actions, whatever the line says.
    fn host(actions: &[Action]) -> FakeHost {
        let mut host = FakeHost::new::<Lambda>(json!({ "do": "stop('the line')" })).unwrap();
        host.put_hyper_parameter("head", "learning_rate", 1.0);
        let actions = actions.to_vec();
        host.answer_evaluate(move |request| {
            assert_eq!((request.expression.as_str(), request.actions), ("stop('the line')", true));
            Ok(Evaluated::Actions(actions.clone()))
        });
        host
    }

    fn set(name: &str, group: Option<&str>, value: f64) -> Action {
        Action::Set { name: name.to_owned(), group: group.map(str::to_owned), value }
    }

    #[test]
    fn each_action_is_done_at_the_trigger() {
        let mut host = host(&[
            Action::Log { text: "one\ntwo".to_owned() },
            Action::Put { name: "doubled".to_owned(), value: 2.0 },
            set("learning_rate", Some("head"), 0.5),
            Action::Checkpoint {},
            Action::Stop { reason: "enough".to_owned() },
        ]);
        host.setup().unwrap();
        assert_eq!((host.stopped(), host.metric("doubled")), (None, None));
        host.trigger("epoch").unwrap();
        assert_eq!(host.lines(), ["one two"]);
        assert_eq!((host.metric("doubled"), host.hyper_parameter("learning_rate")), (Some(2.0), Some(0.5)));
        let asked: Vec<Control> = host.requests().iter().map(|request| request.action).collect();
        assert_eq!((asked, host.stopped()), (vec![Control::Checkpoint, Control::Stop], Some("enough")));
    }

    #[test]
    fn what_the_run_cannot_set_is_refused_at_setup_and_no_bad_value_is_set() {
        let message = "there is no hyper-parameter `learning_rat`; did you mean `learning_rate`?";
        assert_eq!(host(&[set("learning_rat", None, 0.5)]).setup().unwrap_err().message(), message);
        let mut of_nan = host(&[set("learning_rate", Some("head"), f64::NAN)]);
        of_nan.trigger("epoch").unwrap();
        assert_eq!(of_nan.hyper_parameter("learning_rate"), Some(1.0));
        assert!(host(&[set("learning_rate", Some("head"), -1.0)]).trigger("epoch").is_err());
    }

    #[test]
    fn an_empty_line_is_refused() {
        for options in [json!({}), json!({ "do": " " })] {
            let error = FakeHost::new::<Lambda>(options).err().unwrap();
            assert_eq!(error.message(), "`do` must say what to do, such as `stop('the loss is ' + val_loss)`");
        }
    }
}
