//! The checks of `[train]` and `[eval]`: loss, metrics, optimizer and schedule against each other, the data and the model.

use std::rc::Rc;

use super::model::PlannedModel;
use crate::config::{Document, child};
use crate::data::Target;
use crate::report::{Problem, Report, did_you_mean};
use crate::run_file::TrainOptions;
use crate::train::loss::{LossError, LossOptions};
use crate::train::metrics::{Metric, MetricError};
use crate::train::{Loss, LossFunction};

/// What loss, metrics and optimizer must fit.
#[derive(Clone, Copy)]
pub(super) struct Fitted<'a> {
    pub(super) model: &'a PlannedModel,
    pub(super) target: &'a Target,
    /// The class of two that metrics are about.
    pub(super) positive: u8,
}

impl Fitted<'_> {
    /// Why outputs cannot be compared with targets, if they cannot: only a loss of the model's own leaves that open.
    pub(super) fn misfit(&self) -> Option<LossError> {
        let PlannedModel::Network(network) = self.model else { return None };
        network.gives_loss().then(|| LossOptions::misfit(self.model.output_shape(), self.target)).flatten()
    }
}

/// What is minimized: the program's own loss, or the run file's.
pub(super) fn loss(document: &Document, train: &TrainOptions, own: Option<Rc<LossFunction>>) -> Result<Loss, Problem> {
    match (own, &train.loss) {
        (Some(own), None) => Ok(Loss::Custom(own)),
        (None, Some(options)) => Ok(Loss::Options(options.clone())),
        (None, None) => Err(Problem::new("`train` has no `loss`")
            .with_label(document.label_key("/train", "`loss` is missing"))
            .with_hint("say what to minimize, as in `loss = { type = \"cross_entropy\" }`".to_owned())),
        (Some(_), Some(_)) => Err(Problem::new("there are two losses: the run file's and the program's own")
            .with_label(document.label_key("/train/loss", "a loss"))
            .with_hint("remove it: this program minimizes a loss of its own".to_owned())),
    }
}

/// What is wrong with loss, optimizer and schedule; with a model and targets, also what does not fit those.
pub(super) fn check(document: &Document, train: &TrainOptions, fitted: Option<Fitted<'_>>) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let (Some(LossOptions::Model {}), Some(Fitted { model, .. })) = (&train.loss, fitted)
        && !matches!(model, PlannedModel::Network(network) if network.gives_loss())
    {
        problems.push(
            Problem::new("the model gives no loss of its own")
                .with_label(document.label_key("/train/loss", "that of an exported program"))
                .with_hint(
                    "a program of `[model] exported` may return one; choose another loss, as in \
                     `loss = { type = \"cross_entropy\" }`"
                        .to_owned(),
                ),
        );
    }
    let loss = train.loss.as_ref().map(|loss| match fitted {
        Some(Fitted { model, target, .. }) => loss.check(model.output_shape(), target),
        None => loss.check_values(),
    });
    if let Some(Err(error)) = loss {
        let problem = match &error {
            LossError::Outputs { found, wanted, .. } => outputs(document, &error, found, wanted),
            _ => problem(document, "/train/loss", error.key(), &error),
        };
        problems.push(problem);
    }
    let optimizer = train.optimizer.check().and_then(|()| match fitted {
        Some(Fitted { model, .. }) => {
            let names = model.trained_names();
            train.optimizer.check_groups(&names.iter().map(String::as_str).collect::<Vec<_>>())
        }
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

/// The metrics of these names; names that do not exist, or metrics that do not fit, become problems.
pub(super) fn metrics(
    document: &Document,
    pointer: &str,
    names: &[String],
    fitted: Option<Fitted<'_>>,
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
        if metrics.iter().any(|listed: &Metric| listed.name() == metric.name()) {
            problems.push(
                Problem::new(format!("the metric `{name}` is listed twice"))
                    .with_label(document.label_value(&pointer, "again"))
                    .with_hint("remove one of them".to_owned()),
            );
            continue;
        }
        let misfit = |fitted: Fitted<'_>| match fitted.misfit() {
            Some(misfit) => Err(MetricError::Outputs { metric: metric.name(), misfit: misfit.to_string() }),
            None => Ok(()),
        };
        if let Some(fitted) = fitted
            && let Err(error) = metric.check(fitted.model.output_shape(), fitted.target).and_then(|()| misfit(fitted))
        {
            problems.push(
                Problem::new(error.to_string())
                    .with_label(document.label_value(&pointer, "does not fit"))
                    .with_hint(error.hint()),
            );
        }
        metrics.push(metric.of_class(fitted.map_or(1, |fitted| fitted.positive)));
    }
    metrics
}

fn unknown_metric(name: &str) -> String {
    let names: Vec<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
    let near = did_you_mean(name, names.iter().map(AsRef::as_ref));
    near.unwrap_or_else(|| format!("the loss is always measured; the other metrics are {}", names.join(", ")))
}

/// A model whose outputs do not fit the loss, at its last layer.
fn outputs(document: &Document, error: &LossError, found: &[i64], wanted: &str) -> Problem {
    let layers = document.value().pointer("/model/layers").and_then(serde_json::Value::as_array);
    let last = layers.and_then(|layers| layers.len().checked_sub(1)).map(|last| format!("/model/layers/{last}"));
    let layer = last.and_then(|last| document.label_value(&last, format!("gives {found:?} for a sample")));
    Problem::new(error.to_string())
        .with_label(layer)
        .with_label(document.label_key("/train/loss", format!("takes {wanted}")))
        .with_hint(error.hint())
}

/// An error at the option that it is about, or at the table if the option is not given.
fn problem(document: &Document, table: &str, key: Option<&str>, error: &dyn Report) -> Problem {
    let at_key = key.and_then(|key| document.label_value(&child(table, key), ""));
    Problem::new(error.to_string()).with_label(at_key.or_else(|| document.label_key(table, ""))).with_hint(error.hint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Dtype;
    use crate::run_file;

    const RUN: &str = r#"
        [run]
        name = "digits"
        [data]
        format = "csv"
        path = "digits.csv.gz"
        target = 64
        classes = 3
        [model]
        layers = [{ type = "linear", out_features = 3 }]
        [train]
        steps = 1
        batch_size = 1
        metrics = ["f1"]
        [train.loss]
        type = "cross_entropy"
        [train.optimizer]
        type = "sgd"
        learning_rate = 0.1
    "#;

    /// What is wrong with the run under these overrides: messages, the texts that they point at, hints.
    fn problems(overrides: &[&str]) -> Vec<String> {
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let loaded = run_file::load("run.toml", RUN, &[], &overrides).unwrap();
        let model = PlannedModel::Graph(loaded.run_file.model.lower(&[4], Dtype::F32).unwrap().into());
        let target = Target::classes(3);
        let (document, train) = (&loaded.document, &loaded.run_file.train);
        let fitted = Some(Fitted { model: &model, target: &target, positive: 1 });
        let mut problems = check(document, train, fitted);
        metrics(document, "/train/metrics", &train.metrics, fitted, &mut problems);
        let told = |problem: &Problem| {
            let label = &problem.labels()[0];
            let place = &label.source.text()[label.span.clone()];
            format!("{} | {place} | {}", problem.message(), problem.hints().join(", "))
        };
        problems.iter().map(told).collect()
    }

    #[test]
    fn a_run_that_fits_has_no_problems() {
        assert_eq!(problems(&[]), Vec::<String>::new());
    }

    #[test]
    fn all_that_does_not_fit_is_told_at_its_place() {
        let found = problems(&[
            "train.loss.class_weights=[1, 2]",
            "train.optimizer.groups=[{ pattern = \"x\" }]",
            "train.schedule={ type = \"multi_step\", milestones = [2, 1] }",
            "train.warmup={ start = 0.5 }",
            "train.metrics=[\"acuracy\", \"f1\", \"rmse\", \"f1\", \"top3_error\"]",
        ]);
        insta::assert_snapshot!(found.join("\n"), @r#"
        `class_weights` has 2 numbers, but there are 3 classes | [1, 2] | give 3 numbers, in the order of the classes
        no parameter is in the group `x`: none has a name like `x` | [{ pattern = "x" }] | the model has `fc1.weight`, `fc1.bias`; `*` stands for any text
        the `milestones` [2, 1] do not ascend | [2, 1] | give them in order, each once: `[30, 60, 90]`
        the warm-up has no length | warmup | give one of the two: `{ steps = 500 }` or `{ epochs = 1 }`
        there is no metric `acuracy` | "acuracy" | did you mean `accuracy`?
        the metric `rmse` takes numbers, but the data has classes | "rmse" | for classes there are `accuracy`, `precision`, `recall`, `f1`, `auc` and others
        the metric `f1` is listed twice | "f1" | remove one of them
        the metric `top3_error` takes more classes than it counts, but the data has 3 classes | "top3_error" | name one of fewer, as in `top2_error`
        "#);
    }

    #[test]
    fn outputs_that_do_not_fit_the_loss_are_told_at_the_last_layer() {
        let found = problems(&["model.layers.0.out_features=12", "train.metrics=[]"]);
        let message = "`cross_entropy` takes one output for each of 3 classes, but the model gives [12] | \
                       { type = \"linear\", out_features = 3 } | let the last layer give [3] for a sample";
        assert_eq!(found, [message]);
    }

    #[test]
    fn an_option_that_is_out_of_range_is_told_at_its_place() {
        let found = problems(&["train.optimizer.momentum=0.0", "train.optimizer.nesterov=true"]);
        let message = "hyper-parameter `momentum` = `0` must be above 0 with `nesterov = true` | 0.0 | ";
        assert_eq!(found, [message]);
    }
}
