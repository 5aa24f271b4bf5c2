//! The checks of `[train]` and `[eval]`: loss, metrics, optimizer and schedule against each other, the data and the model.

use crate::config::{Document, child};
use crate::data::Target;
use crate::model::Graph;
use crate::report::{Problem, Report, did_you_mean};
use crate::run_file::TrainOptions;
use crate::train::metrics::Metric;

/// What is wrong with loss, optimizer and schedule; with a model and targets, also what does not fit those.
pub(super) fn check(document: &Document, train: &TrainOptions, fitted: Option<(&Graph, &Target)>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let loss = match fitted {
        Some((graph, target)) => train.loss.check(graph.output_shape(), target),
        None => train.loss.check_values(),
    };
    if let Err(error) = loss {
        problems.push(problem(document, "/train/loss", error.key(), &error));
    }
    let optimizer = train.optimizer.check().and_then(|()| match fitted {
        Some((graph, _)) => train.optimizer.check_groups(&parameter_names(graph)),
        None => Ok(()),
    });
    if let Err(error) = optimizer {
        problems.push(problem(document, "/train/optimizer", error.key(), &error));
    }
    if let Err(error) = train.schedule.check() {
        problems.push(problem(document, "/train/schedule", error.key(), &error));
    }
    if let Some(Err(error)) = train.warmup.as_ref().map(|warmup| warmup.check()) {
        problems.push(problem(document, "/train/warmup", error.key(), &error));
    }
    problems
}

/// The metrics of these names; those that there are not, or that do not fit, become problems.
pub(super) fn metrics(
    document: &Document,
    pointer: &str,
    names: &[String],
    fitted: Option<(&Graph, &Target)>,
    problems: &mut Vec<Problem>,
) -> Vec<Metric> {
    let mut metrics = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        let Some(metric) = Metric::from_name(name) else {
            problems.push(
                Problem::new(format!("there is no metric `{name}`"))
                    .with_label(document.label_value(&pointer, "unknown"))
                    .with_hint(unknown_metric(name)),
            );
            continue;
        };
        if metrics.contains(&metric) {
            problems.push(
                Problem::new(format!("the metric `{name}` is there twice"))
                    .with_label(document.label_value(&pointer, "again"))
                    .with_hint("remove one of them".to_owned()),
            );
            continue;
        }
        if let Some((graph, target)) = fitted
            && let Err(error) = metric.check(graph.output_shape(), target)
        {
            problems.push(
                Problem::new(error.to_string())
                    .with_label(document.label_value(&pointer, "does not fit"))
                    .with_hint(error.hint()),
            );
        }
        metrics.push(metric);
    }
    metrics
}

fn unknown_metric(name: &str) -> String {
    let names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let near = did_you_mean(name, names.iter().map(AsRef::as_ref));
    near.unwrap_or_else(|| format!("the loss is always measured; besides it there are {}", names.join(", ")))
}

/// An error at the option that it is about, or at the table where the option is not written.
fn problem(document: &Document, table: &str, key: Option<&str>, error: &dyn Report) -> Problem {
    let at_key = key.and_then(|key| document.label_value(&child(table, key), ""));
    Problem::new(error.to_string()).with_label(at_key.or_else(|| document.label_key(table, ""))).with_hint(error.hint())
}

/// The names of a model's parameters, in its order.
fn parameter_names(graph: &Graph) -> Vec<&str> {
    graph.nodes().iter().flat_map(|node| &node.parameters).map(|parameter| parameter.name.as_str()).collect()
}
