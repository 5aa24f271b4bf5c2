//! `print-metrics`: a line on the console with the metrics, after each epoch and after the evaluation of the test split.

use std::collections::BTreeMap;

use plugin_api::event::{At, Evaluation, Position, Trigger};
use plugin_api::{Callback, Creation, Result, Run, plugin};

use crate::display;

/// Columns are as wide as most numbers, so that lines stay aligned when a sign or a power comes.
const WIDTH: usize = 8;

/// The split that the host evaluates once, when training is over.
const TEST: &str = "test";

/// Options of `print-metrics`.
#[plugin]
pub(crate) struct Options {
    /// Metrics to print; `*` stands for any characters.
    include: Vec<String>,
    /// Metrics not to print, of those; `*` stands for any characters.
    exclude: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { include: vec!["*".to_owned()], exclude: vec!["step_seconds".to_owned(), "data_wait_seconds".to_owned()] }
    }
}

pub(crate) struct PrintMetrics {
    options: Options,
    epochs: u64,
    /// The epoch that ended last: what is evaluated behind it belongs to no epoch.
    ended: u64,
}

#[plugin]
impl Callback for PrintMetrics {
    const KIND: &'static str = "print-metrics";
    const SUMMARY: &'static str = "Prints the metrics, a line after each epoch";
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        Ok(Self { options, epochs: 0, ended: 0 })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.epochs = run.info()?.epochs;
        self.ended = event.epoch;
        Ok(())
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let metrics = run.metrics()?;
        let position = place(event, self.epochs);
        run.console_line(&line(position, &self.options, &metrics))
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.ended = event.epoch;
        Ok(())
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        if event.split != TEST || event.epoch != self.ended {
            return Ok(());
        }
        let mut metrics = run.metrics()?;
        metrics.retain(|name, _| name.split_once('_').is_some_and(|(split, _)| split == TEST));
        run.console_line(&line(TEST.to_owned(), &self.options, &metrics))
    }
}

fn place(position: &Position, epochs: u64) -> String {
    let width = epochs.to_string().len();
    match epochs {
        0 => format!("epoch {:>3}", position.epoch),
        _ => format!("epoch {:>width$}/{epochs}", position.epoch),
    }
}

fn line(mut line: String, options: &Options, metrics: &BTreeMap<String, f64>) -> String {
    let any = |patterns: &[String], name: &str| patterns.iter().any(|pattern| matches(pattern, name));
    let mut shown: Vec<_> =
        metrics.iter().filter(|(name, _)| any(&options.include, name) && !any(&options.exclude, name)).collect();
    shown.sort_by_key(|(name, _)| (rank(name), *name));
    for (name, value) in shown {
        line.push_str(&format!("  {name} {:>WIDTH$}", display::number(*value)));
    }
    line
}

/// Splits first, training before the others and each with its loss in front; then what the callbacks
/// put; the host's own figures last.
fn rank(name: &str) -> (u8, &str, bool) {
    if name.starts_with("learning_rate") || name == "gradient_norm" || name.ends_with("_seconds") {
        return (3, "", false);
    }
    match name.split_once('_') {
        Some((split, metric)) => {
            let group = match split {
                "train" => 0,
                "val" => 1,
                _ => 2,
            };
            (group, split, metric != "loss")
        }
        None => (2, "", false),
    }
}

/// Whether `name` is what `pattern` describes, where `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = pieces.collect();
    // Without a star there is no last piece, and nothing may be left.
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(place) => rest = &rest[place + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use plugin_api::abi::kinds::EventKind;
    use plugin_api::testing::{FakeHost, json};
    use proptest::prelude::*;

    use super::*;

    fn host(options: serde_json::Value) -> FakeHost {
        let mut host = FakeHost::new::<PrintMetrics>(options).unwrap().with_info(|info| info.epochs = 12);
        for (name, value) in [
            ("epoch_seconds", 1.25),
            ("learning_rate", 1e-4),
            ("step_seconds", 0.01),
            ("train_accuracy", 0.9),
            ("train_loss", 0.3),
            ("val_accuracy", 0.8),
            ("val_loss", f64::NAN),
        ] {
            host.put_metric(name, value);
        }
        host.train_start().unwrap();
        host
    }

    #[test]
    fn a_line_has_every_metric_in_a_steady_order() {
        let mut host = host(json!({}));
        host.set_position(3, 30);
        host.trigger("epoch").unwrap();
        assert_eq!(
            host.lines(),
            ["epoch  3/12  train_loss   0.3000  train_accuracy   0.9000  val_loss      NaN  val_accuracy   0.8000  \
              epoch_seconds   1.2500  learning_rate  1.00e-4"]
        );
    }

    #[test]
    fn the_evaluation_behind_the_last_epoch_has_a_line_of_its_own() {
        let mut host = host(json!({}));
        host.put_metric("test_loss", 0.5);
        host.set_position(12, 120);
        host.evaluation(EventKind::EVAL_END, "test", 0, 3).unwrap();
        assert!(host.lines().is_empty(), "this one is part of an epoch");
        host.epoch_end(12).unwrap();
        host.evaluation(EventKind::EVAL_END, "val", 0, 3).unwrap();
        host.evaluation(EventKind::EVAL_END, "test", 0, 3).unwrap();
        assert_eq!(host.lines(), ["test  test_loss   0.5000"]);
    }

    #[test]
    fn patterns_choose() {
        let mut host = host(json!({ "include": ["val_*", "*_seconds"], "exclude": ["*loss*"] }));
        host.set_position(12, 120);
        host.trigger("epoch").unwrap();
        let line = "epoch 12/12  val_accuracy   0.8000  epoch_seconds   1.2500  step_seconds   0.0100";
        assert_eq!(host.lines(), [line]);
    }

    #[test]
    fn a_star_is_any_characters_and_nothing_else_is_special() {
        let cases = [
            ("val_loss", "val_loss", true),
            ("val_loss", "val_losses", false),
            ("*", "", true),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c", false),
            ("v?l", "val", false),
            ("", "", true),
            ("", "a", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_made_from_a_name_matches_it(parts in prop::collection::vec("[a-c]{0,3}", 1..5)) {
            let pattern = parts.join("*");
            prop_assert!(matches(&pattern, &parts.join("")));
            prop_assert!(matches(&pattern, &parts.join("aa")));
        }
    }
}
