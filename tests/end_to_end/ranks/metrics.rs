//! The metrics of an evaluation by several ranks are those of one process.

use serde_json::Value;

use super::*;

/// Weights that stay what they were, so that all evaluate the same.
const STILL: &str = r#"type = "sgd", learning_rate = 1e-30"#;

/// The numbers of the last evaluation, by name.
fn evaluated(training: &Training, out: &str) -> Vec<(String, f64)> {
    let metrics = training.status(out)["metrics"].clone();
    let metrics = metrics.as_object().expect("metrics by name");
    let of_val = metrics.iter().filter(|(name, _)| name.starts_with("val_"));
    let number = |value: &Value| value["value"].as_f64().or(value.as_f64()).expect("a number");
    of_val.map(|(name, value)| (name.clone(), number(value))).collect()
}

/// Evaluates in one process and in three, and returns the names of the metrics.
fn assert_same_metrics(training: &Training) -> String {
    for (world, out) in [(1, "one"), (3, "three")] {
        run(training, out, world, &[]);
    }
    let (one, three) = (evaluated(training, "one"), evaluated(training, "three"));
    let names = |metrics: &[(String, f64)]| metrics.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&three));
    for ((name, one), (_, three)) in one.iter().zip(&three) {
        assert!((one - three).abs() <= 1e-12 * one.abs(), "{name}: {one} in one process, {three} in three");
    }
    names(&one).join(" ")
}

/// 36 batches of the evaluation: each rank has twelve of them, and the last one is short.
#[test]
fn of_classes() {
    let metrics = r#"["accuracy", "top5_error", "precision", "recall", "f1", "f1_weighted", "auc", "perplexity"]"#;
    let training = digits(MLP)
        .with("type = \"adamw\", learning_rate = 1e-3, weight_decay = 0.01", STILL)
        .with("[eval]\nmetrics = [\"accuracy\"]", &format!("[eval]\nbatch_size = 50\nmetrics = {metrics}"))
        .with("steps = 50", "steps = 2");
    insta::assert_snapshot!(assert_same_metrics(&training), @"val_accuracy val_auc val_f1 val_f1_weighted val_loss val_perplexity val_precision val_recall val_top5_error");
}

/// Two batches: one rank has none.
#[test]
fn of_numbers() {
    let (head, rest) = DIGITS.split_once("format = ").expect("there is a format");
    let (_, tail) = rest.split_once("[model]").expect("there is a model");
    let data = r#"
format = "csv"
path = "EXAMPLESdiabetes/diabetes.csv"
header = true
task = "regression"
target = "progression"
normalize = "standard"

[data.splits]
val = { fraction = 0.3 }
"#;
    let text = format!("{head}{data}\n[model]{tail}").replace("MODEL", r#"{ type = "linear", out_features = 1 }"#);
    let training = Training::of(&text, &["checkpoint", "standard"])
        .with("\"cross_entropy\"", "\"huber\", delta = 50.0")
        .with("type = \"adamw\", learning_rate = 1e-3, weight_decay = 0.01", STILL)
        .with("metrics = [\"accuracy\"]\nopt", "metrics = [\"mae\"]\nopt")
        .with("[eval]\nmetrics = [\"accuracy\"]", "[eval]\nbatch_size = 100\nmetrics = [\"mae\", \"rmse\", \"r2\"]")
        .with("steps = 50", "steps = 2");
    insta::assert_snapshot!(assert_same_metrics(&training), @"val_loss val_mae val_r2 val_rmse");
}
