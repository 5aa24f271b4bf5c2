//! What a person can ask at the prompt.

use std::fmt::Write;

use plugin_api::protocol::{Control, TensorSet};
use plugin_api::services::no_such_name;
use plugin_api::{Error, ErrorKind, Result, Run};

use super::tensors;

/// Whether the prompt stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Ask,
    GoOn,
}

/// A command: its name, what follows it, and what it does.
struct Command {
    name: &'static str,
    arguments: &'static str,
    meaning: &'static str,
}

const COMMANDS: [Command; 11] = [
    Command { name: "metrics", arguments: "", meaning: "the latest value of each metric" },
    Command { name: "metric", arguments: "NAME", meaning: "the latest value of one, and where it was measured" },
    Command { name: "history", arguments: "NAME", meaning: "all values of a metric" },
    Command { name: "hyper-parameters", arguments: "", meaning: "those of each parameter group" },
    Command {
        name: "set",
        arguments: "NAME VALUE [GROUP]",
        meaning: "sets a hyper-parameter, in each group or in one",
    },
    Command { name: "tensors", arguments: "[SET]", meaning: "the tensors of a set; without one, the parameters" },
    Command {
        name: "tensor",
        arguments: "NAME [SET]",
        meaning: "a tensor: its shape, its statistics, its first values",
    },
    Command { name: "checkpoint", arguments: "", meaning: "asks for a checkpoint, taken when the run goes on" },
    Command { name: "stop", arguments: "[REASON]", meaning: "leaves the prompt and stops the run" },
    Command { name: "continue", arguments: "", meaning: "leaves the prompt" },
    Command { name: "help", arguments: "", meaning: "this list" },
];

/// The sets in which a tensor is looked for, in this order.
const SETS: [TensorSet; 7] = [
    TensorSet::Parameters,
    TensorSet::Buffers,
    TensorSet::Optimizer,
    TensorSet::Gradients,
    TensorSet::Batch,
    TensorSet::Outputs,
    TensorSet::Taps,
];

/// Does what a line asks for; the answer, which ends with a line break if it has text, and what comes next.
pub(super) fn answer(run: &mut Run<'_>, line: &str) -> (String, Next) {
    let mut words = line.split_whitespace();
    let Some(name) = words.next() else { return (String::new(), Next::Ask) };
    let arguments: Vec<&str> = words.collect();
    let next = if matches!(name, "continue" | "stop") { Next::GoOn } else { Next::Ask };
    match obey(run, name, &arguments) {
        Ok(text) => (text, next),
        Err(error) => (format!("{}\n", error.message()), Next::Ask),
    }
}

fn obey(run: &mut Run<'_>, name: &str, arguments: &[&str]) -> Result<String> {
    let mut text = String::new();
    match (name, arguments) {
        ("metrics", []) => {
            for (name, value) in run.metrics()? {
                writeln!(text, "{name} = {value}")?;
            }
        }
        ("metric", [name]) => {
            let value = run.metric(name)?;
            match run.metric_points()?.get(*name) {
                Some(point) => writeln!(text, "{name} = {value} (epoch {}, step {})", point.epoch, point.global_step)?,
                None => writeln!(text, "{name} = {value}")?,
            }
        }
        ("history", [name]) => {
            for point in run.history(name)? {
                writeln!(text, "epoch {} step {}: {}", point.epoch, point.global_step, point.value)?;
            }
        }
        ("hyper-parameters", []) => {
            for group in run.hyper_parameters()? {
                for (name, value) in &group.values {
                    let owner = group.owners.get(name).map(|owner| format!(" (set by `{owner}`)")).unwrap_or_default();
                    writeln!(text, "{}.{name} = {value}{owner}", group.name)?;
                }
            }
        }
        ("set", [name, value]) => set(run, name, value, None, &mut text)?,
        ("set", [name, value, group]) => set(run, name, value, Some(*group), &mut text)?,
        ("tensors", []) => tensors::list(run, TensorSet::Parameters, &mut text)?,
        ("tensors", [set]) => tensors::list(run, tensor_set(set)?, &mut text)?,
        ("tensor", [name]) => tensors::describe(run, &set_of(run, name)?, name, &mut text)?,
        ("tensor", [name, set]) => tensors::describe(run, &tensor_set(set)?, name, &mut text)?,
        ("checkpoint", []) => {
            run.request(Control::Checkpoint, "asked for at the prompt")?;
            text.push_str("a checkpoint is taken when the run goes on, if the run has the plugin `checkpoint`\n");
        }
        ("stop", reason) => {
            let reason = if reason.is_empty() { "asked for at the prompt".to_owned() } else { reason.join(" ") };
            run.stop(&reason)?;
            text.push_str("the run stops\n");
        }
        ("continue", []) => text.push_str("the run goes on\n"),
        ("help", []) => {
            for Command { name, arguments, meaning } in &COMMANDS {
                writeln!(text, "  {:32}{meaning}", format!("{name} {arguments}"))?;
            }
        }
        _ => return Err(misunderstood(name)),
    }
    Ok(text)
}

/// Another name, or other arguments than the command takes.
fn misunderstood(name: &str) -> Error {
    match COMMANDS.iter().find(|command| command.name == name) {
        Some(Command { arguments: "", .. }) => Error::new(format!("`{name}` takes nothing after it")),
        Some(Command { arguments, .. }) => Error::new(format!("`{name}` is written as `{name} {arguments}`")),
        None => {
            let told = no_such_name("command", name, COMMANDS.iter().map(|command| command.name));
            Error::new(format!("{told}; `help` lists all"))
        }
    }
}

fn set(run: &mut Run<'_>, name: &str, value: &str, group: Option<&str>, text: &mut String) -> Result<()> {
    let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
    let number =
        number.ok_or_else(|| Error::new(format!("`{value}` is no number: write one, such as 0.001 or 1e-3")))?;
    run.set_hyper_parameter(group, name, number)?;
    for of in run.hyper_parameters()?.iter().filter(|of| group.is_none_or(|group| of.name == group)) {
        if let Some(value) = of.values.get(name) {
            writeln!(text, "{}.{name} = {value}", of.name)?;
        }
    }
    Ok(())
}

fn tensor_set(name: &str) -> Result<TensorSet> {
    // Of copies, only the one who made them knows the names.
    let unknown =
        |_| Error::new(no_such_name("tensor set", name, SETS.map(|set| set.to_string()).iter().map(String::as_str)));
    name.parse().map_err(unknown)
}

/// The first set that has a tensor of this name.
fn set_of(run: &Run<'_>, name: &str) -> Result<TensorSet> {
    let mut names = Vec::new();
    for set in SETS {
        let listed = match run.list(set.clone()) {
            // Not every set is there after every step.
            Err(error) if error.kind() == ErrorKind::NotAllowed => continue,
            listed => listed?,
        };
        if listed.iter().any(|tensor| tensor.name == name) {
            return Ok(set);
        }
        names.extend(listed.into_iter().map(|tensor| tensor.name));
    }
    Err(Error::new(no_such_name("tensor", name, names.iter().map(String::as_str))))
}
