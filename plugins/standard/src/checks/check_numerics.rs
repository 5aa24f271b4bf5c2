//! `check-numerics`: checks the values of the model's nodes for NaN and infinity, as `tf.debugging.check_numerics` does for a
//! tensor.
//!
//! The values are counted with the step, where they are: of each node, one number is read. The first node in the model's order is
//! where it begins; those after it only pass it on.

use std::collections::BTreeSet;

use monitor::selected;
use plugin_api::event::At;
use plugin_api::protocol::TapOf;
use plugin_api::services::did_you_mean;
use plugin_api::{Callback, Creation, Error, ErrorKind, Result, Run, decode_state, encode_state, plugin, tracing};

use super::non_finite::Taps;
use crate::metric_patterns::refuse_empty;

/// Options of `check-numerics`.
#[plugin]
pub(crate) struct Options {
    /// The nodes of the model to check, as `host model` names them; `*` stands for any characters.
    nodes: Vec<String>,
    /// What to do when a node has such a value.
    action: Action,
    /// The number of steps between two checks. On an accelerator, each check waits for the step.
    #[schemars(range(min = 1))]
    every_steps: u64,
}

#[plugin]
#[derive(Copy, PartialEq)]
enum Action {
    /// Stop the run.
    Stop,
    /// Say so, once for each node until its values are finite again.
    Warn,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: vec!["*".to_owned()], action: Action::Stop, every_steps: 1 }
    }
}

pub(crate) struct CheckNumerics {
    options: Options,
    taps: Taps,
    /// The nodes that were warned of and are not finite since; in checkpoints.
    warned: BTreeSet<String>,
    /// Whether a stop was requested.
    asked: bool,
}

#[plugin]
impl Callback for CheckNumerics {
    const KIND: &'static str = "check-numerics";
    const SUMMARY: &'static str = "Checks the values of the model's nodes for NaN and infinity";
    const BY_DEFAULT: bool = false;
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        refuse_empty("nodes", &options.nodes)?;
        if options.every_steps == 0 {
            return Err(Error::new("`every_steps` is 0: set it to 1 or more"));
        }
        Ok(Self { options, taps: Taps::default(), warned: BTreeSet::new(), asked: false })
    }

    fn on_setup(&mut self, run: &mut Run<'_>, _: &At<'_>) -> Result<()> {
        let graph = run.graph().map_err(|error| match error.kind() {
            ErrorKind::NoSuchName => Error::new(format!(
                "{}, whose nodes `check-numerics` checks: use `terminate-on-nan` with `gradients = true` instead",
                error.message()
            )),
            _ => error,
        })?;
        let names: Vec<String> = graph.nodes.into_iter().map(|node| node.name).collect();
        for pattern in &self.options.nodes {
            if !names.iter().any(|name| selected(std::slice::from_ref(pattern), &[], name)) {
                let near = did_you_mean(pattern, names.iter().map(String::as_str));
                let hint = near.unwrap_or_else(|| "`host model` shows their names".to_owned());
                return Err(Error::new(format!("`nodes` names `{pattern}`, but the model has no such node; {hint}")));
            }
        }
        let chosen = names.into_iter().filter(|name| selected(&self.options.nodes, &[], name));
        self.taps = Taps::request(run, TapOf::Activation, chosen.collect())?;
        Ok(())
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        self.warned = decode_state(state)?;
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        encode_state(&self.warned)
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        if self.asked || !event.global_step.is_multiple_of(self.options.every_steps) {
            return Ok(());
        }
        let found = self.taps.read(run)?;
        let new: Vec<_> = found.iter().filter(|node| !self.warned.contains(&node.name)).cloned().collect();
        self.warned = found.into_iter().map(|node| node.name).collect();
        // The nodes after it have such values because it has.
        let Some(first) = new.first() else { return Ok(()) };
        let what = format!(
            "the node `{}` has {} values that are NaN or infinite in epoch {}, step {} (step {} of the run; nodes with such \
             values: {})",
            first.name,
            first.count,
            event.epoch,
            event.step,
            event.global_step,
            self.warned.len()
        );
        match self.options.action {
            Action::Warn => tracing::warn!("{what}"),
            Action::Stop => {
                self.asked = true;
                run.stop(&format!("non_finite_value: {what}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Tensor;
    use plugin_api::protocol::TensorSet;
    use plugin_api::testing::{FakeHost, json};

    use super::*;

    /// A host whose model is a chain of three nodes.
    fn host(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<CheckNumerics>(options).unwrap();
        let node = |name: &str, input: &str| json!({ "name": name, "op": { "type": "relu" }, "inputs": [input], "shape": [4], "parameters": [], "buffers": [] });
        host.set_graph(json!({
            "inputs": [{ "name": "input", "shape": [4], "dtype": "f32" }],
            "nodes": [node("relu2", "input"), node("relu1", "relu2"), node("sum", "relu1")],
            "output": "sum",
        }));
        host
    }

    fn put(host: &mut FakeHost, counts: [f32; 3]) {
        for (name, count) in ["relu1", "relu2", "sum"].into_iter().zip(counts) {
            let tap = Tensor::new(format!("non_finite.value.{name}"), &[], &[count]).unwrap();
            host.put_tensor(TensorSet::Taps, tap);
        }
    }

    #[test]
    fn the_first_node_of_the_model_is_named_and_the_run_stops_once() {
        let mut host = host(json!({ "every_steps": 2 }));
        host.setup().unwrap();
        put(&mut host, [0.0; 3]);
        host.step_end(2).unwrap();
        put(&mut host, [4.0, 2.0, 4.0]);
        host.step_end(3).unwrap();
        assert_eq!(host.stopped(), None, "step 3 is not checked");
        host.step_end(12).unwrap();
        let reason = "non_finite_value: the node `relu2` has 2 values that are NaN or infinite in epoch 2, step 2 \
                      (step 12 of the run; nodes with such values: 3)";
        assert_eq!(host.stopped(), Some(reason));
        host.step_end(14).unwrap();
        assert_eq!(host.requests().len(), 1);
    }

    #[test]
    fn only_the_chosen_nodes_are_fetched() {
        let mut host = host(json!({ "nodes": ["relu*"] }));
        host.setup().unwrap();
        let taps: Vec<_> = host.taps().iter().map(|tap| (tap.node.as_str(), tap.of)).collect();
        assert_eq!(taps, [("relu2", TapOf::Activation), ("relu1", TapOf::Activation)]);
        put(&mut host, [0.0, 0.0, 9.0]);
        host.step_end(1).unwrap();
        assert_eq!(host.stopped(), None);
    }

    #[test]
    fn a_node_is_warned_of_once_until_it_is_finite_again() {
        let mut host = host(json!({ "action": "warn" }));
        host.setup().unwrap();
        for (step, counts) in [(1, [1.0, 0.0, 1.0]), (2, [1.0, 0.0, 1.0]), (3, [0.0; 3]), (4, [1.0, 0.0, 0.0])] {
            put(&mut host, counts);
            host.step_end(step).unwrap();
        }
        let warned: Vec<_> = host.logs().iter().map(|line| line.contains("`relu1`")).collect();
        assert_eq!((warned, host.stopped()), (vec![true, true], None));
    }

    #[test]
    fn a_resumed_run_warns_as_an_unbroken_one() {
        let options = json!({ "action": "warn" });
        let mut first = host(options.clone());
        first.setup().unwrap();
        put(&mut first, [1.0, 0.0, 0.0]);
        first.step_end(1).unwrap();
        let mut resumed = host(options);
        resumed.setup().unwrap();
        resumed.load_state(&first.save_state().unwrap()).unwrap();
        put(&mut resumed, [1.0, 0.0, 0.0]);
        resumed.step_end(2).unwrap();
        assert!(resumed.logs().is_empty(), "{:?}", resumed.logs());
        put(&mut resumed, [1.0, 1.0, 0.0]);
        resumed.step_end(3).unwrap();
        assert_eq!(resumed.logs().len(), 1);
    }

    #[test]
    fn wrong_options_are_refused() {
        let message = |options| FakeHost::new::<CheckNumerics>(options).err().unwrap().message().to_owned();
        assert!(message(json!({ "nodes": [] })).starts_with("`nodes` is empty"));
        assert_eq!(message(json!({ "every_steps": 0 })), "`every_steps` is 0: set it to 1 or more");
        let error = host(json!({ "nodes": ["relu", "sun"] })).setup().unwrap_err();
        let told = "`nodes` names `relu`, but the model has no such node; did you mean `relu2` or `relu1`?";
        assert_eq!(error.message(), told);
        let mut without_graph = FakeHost::new::<CheckNumerics>(json!({})).unwrap();
        assert!(without_graph.setup().is_err());
    }
}
