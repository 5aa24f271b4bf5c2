//! `print-metrics`: the metrics on the console, after each epoch and after the evaluation of the test split: a line, or
//! a table if there are many. A line that would be wider than the terminal leaves out what matters least. A `*` follows a
//! value that is the best so far; values of the training split are not marked, since they improve whatever is learned. The
//! last confusion matrix of each split comes at the end; of one that is wider than the terminal, the most frequent errors.

use std::collections::BTreeMap;

use monitor::ConfusionMatrix;
use plugin_api::event::{At, Evaluation, Position, TrainEnd, Trigger};
use plugin_api::protocol::DataInfo;
use plugin_api::{Callback, Creation, Direction, Error, Result, Run, plugin};

use super::confusion_table;
use super::metrics_table::{Shown, mark, split_of, table};
use crate::display;

/// The width of most numbers, so that lines stay aligned when a sign or an exponent appears.
const WIDTH: usize = 8;

/// By default, more metrics than this are printed as a table: one line would be wider than a screen.
const MOST_IN_A_LINE: usize = 8;

/// The split that is trained on.
const TRAIN: &str = "train";

/// The split that the host evaluates once, after the training.
const TEST: &str = "test";

/// Options of `print-metrics`.
#[plugin]
pub(crate) struct Options {
    /// Metrics to print; `*` stands for any characters.
    include: Vec<String>,
    /// Metrics not to print, of those; `*` stands for any characters.
    exclude: Vec<String>,
    /// A line, or a table with one row per split.
    layout: Layout,
    /// The width of a table, in characters; on a terminal, at most its own width.
    #[schemars(range(min = 40, max = 1000))]
    width: usize,
    /// Mark values that are the best so far. A metric's name tells which way it improves (`val_loss`, `val_accuracy`).
    mark_best: bool,
}

#[plugin]
#[derive(Copy, PartialEq)]
enum Layout {
    /// A line for up to 8 metrics, a table for more. On a terminal a line with the most important ones that fit.
    Auto,
    /// A line.
    Line,
    /// A table.
    Table,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            include: vec!["*".to_owned()],
            exclude: vec!["step_seconds".to_owned(), "data_wait_seconds".to_owned()],
            layout: Layout::Auto,
            width: 120,
            mark_best: true,
        }
    }
}

pub(crate) struct PrintMetrics {
    options: Options,
    epochs: u64,
    data: DataInfo,
    /// Whether the console was on a terminal when the training began; if not, it will be on none.
    has_terminal: bool,
    /// Whether the console shows colors.
    has_colors: bool,
    splits: Vec<String>,
    /// The best value so far of each metric with a known direction.
    best: BTreeMap<String, f64>,
    /// The last epoch that ended: an evaluation after it belongs to no epoch.
    ended: u64,
}

#[plugin]
impl Callback for PrintMetrics {
    const KIND: &'static str = "print-metrics";
    const SUMMARY: &'static str = "Prints the metrics after each epoch, a line or a table";
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if !(40..=1000).contains(&options.width) {
            return Err(Error::new(format!("`width` is {}, which is not from 40 to 1000 characters", options.width)));
        }
        let splits = [TRAIN, "val", TEST].map(str::to_owned).to_vec();
        Ok(Self {
            options,
            epochs: 0,
            data: DataInfo::default(),
            has_terminal: false,
            has_colors: false,
            splits,
            best: BTreeMap::new(),
            ended: 0,
        })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let info = run.info()?;
        self.epochs = info.epochs;
        (self.has_terminal, self.has_colors) = (info.console_width > 0, info.console_colors);
        self.data = info.data;
        for split in self.data.splits.keys() {
            if !self.splits.contains(split) {
                self.splits.push(split.clone());
            }
        }
        self.ended = event.epoch;
        self.read_history(run)
    }

    fn on_trigger(&mut self, run: &mut Run<'_>, event: &Trigger<'_>) -> Result<()> {
        let metrics = self.data.current(run.metric_points()?, event.global_step);
        let position = place(event, self.epochs);
        self.print(run, &position, &metrics)
    }

    fn on_epoch_end(&mut self, _: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        self.ended = event.epoch;
        Ok(())
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, _: &TrainEnd<'_>) -> Result<()> {
        self.print_matrices(run)
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        if event.split != TEST || event.epoch != self.ended {
            return Ok(());
        }
        let mut metrics = run.metrics()?;
        metrics.retain(|name, _| name.split_once('_').is_some_and(|(split, _)| split == TEST));
        self.print(run, TEST, &metrics)
    }
}

impl PrintMetrics {
    /// Prints the last confusion matrix of each split.
    fn print_matrices(&self, run: &mut Run<'_>) -> Result<()> {
        let terminal = self.terminal(run)?;
        let width = terminal.unwrap_or(usize::MAX).min(self.options.width);
        let Options { include, exclude, .. } = &self.options;
        let shown = ConfusionMatrix::latest(run)?;
        let mut shown = shown.iter().filter(|matrix| monitor::selected(include, exclude, &matrix.name));
        shown.try_for_each(|matrix| {
            confusion_table::lines(matrix, width).iter().try_for_each(|line| run.console_line(line))
        })
    }

    /// The width of the terminal, which may change; `None` without one.
    fn terminal(&self, run: &Run<'_>) -> Result<Option<usize>> {
        if !self.has_terminal {
            return Ok(None);
        }
        Ok(usize::try_from(run.info()?.console_width).ok().filter(|&width| width > 0))
    }

    /// The best values of a run that is resumed.
    fn read_history(&mut self, run: &Run<'_>) -> Result<()> {
        for name in run.history_names()? {
            let Some(direction) = self.direction(&name) else { continue };
            // A series of arrays, such as a confusion matrix, has no best one.
            for point in run.history(&name).unwrap_or_default() {
                improve(&mut self.best, &name, point.value, direction);
            }
        }
        Ok(())
    }

    /// The direction of a metric that can be marked.
    fn direction(&self, name: &str) -> Option<Direction> {
        let (split, _) = split_of(name, &self.splits)?;
        (self.options.mark_best && split != TRAIN && split != TEST).then(|| Direction::of_metric(name)).flatten()
    }

    fn print(&mut self, run: &mut Run<'_>, place: &str, metrics: &BTreeMap<String, f64>) -> Result<()> {
        let mut shown: Vec<Shown> = Vec::new();
        for (name, &value) in metrics {
            // A metric that is not printed has a best value too: `include` may change after a resume.
            let improves = self.direction(name).is_some_and(|way| improve(&mut self.best, name, value, way));
            if monitor::selected(&self.options.include, &self.options.exclude, name) {
                shown.push(Shown { name: name.clone(), value, is_best: improves });
            }
        }
        shown.sort_by(|a, b| (rank(&a.name), &a.name).cmp(&(rank(&b.name), &b.name)));
        let terminal = self.terminal(run)?;
        let is_table = match self.options.layout {
            Layout::Auto => terminal.is_none() && shown.len() > MOST_IN_A_LINE,
            Layout::Line => false,
            Layout::Table => true,
        };
        let lines = if is_table {
            let width = terminal.map_or(self.options.width, |terminal| terminal.min(self.options.width));
            table(place, &shown, &self.splits, width)
        } else {
            vec![match terminal {
                Some(width) => line_within(place, shown, width),
                None => line(place, &shown, 0),
            }]
        };
        lines.iter().try_for_each(|line| {
            if self.has_colors { run.console_line(&colored(line)) } else { run.console_line(line) }
        })
    }
}

/// Marked values in green.
fn colored(line: &str) -> String {
    let mut text = String::new();
    for (index, part) in line.split('*').enumerate() {
        if index > 0 {
            let value = text.rfind(' ').map_or(0, |space| space + 1);
            text.insert_str(value, "\u{1b}[32m");
            text.push_str("*\u{1b}[0m");
        }
        text.push_str(part);
    }
    text
}

/// Updates the best value, and returns whether there was a worse one before.
fn improve(best: &mut BTreeMap<String, f64>, name: &str, value: f64, direction: Direction) -> bool {
    match best.get_mut(name) {
        Some(best) if direction.better(value, *best) => {
            *best = value;
            true
        }
        Some(_) => false,
        None => {
            best.insert(name.to_owned(), value);
            false
        }
    }
}

fn place(position: &Position, epochs: u64) -> String {
    let width = epochs.to_string().len();
    match epochs {
        0 => format!("epoch {:>3}", position.epoch),
        _ => format!("epoch {:>width$}/{epochs}", position.epoch),
    }
}

/// A line of at most `width` characters, with the most important metrics; it says how many more there are.
fn line_within(place: &str, mut shown: Vec<Shown>, width: usize) -> String {
    let mut left_out = 0;
    loop {
        let text = line(place, &shown, left_out);
        let least = (0..shown.len()).max_by_key(|&index| (importance(&shown[index].name), index));
        match least {
            Some(least) if text.chars().count() > width && shown.len() > 1 => drop(shown.remove(least)),
            _ => return text,
        }
        left_out += 1;
    }
}

/// The losses first, then how well the model does on data that it does not learn from, what callbacks measure, the training
/// split, and the host's own figures.
fn importance(name: &str) -> u8 {
    match (rank(name), name) {
        ((3, ..), _) => 4,
        ((0, _, false), _) => 0,
        ((0, ..), _) => 3,
        (_, name) if name.ends_with("_loss") => 0,
        ((1, ..), _) => 1,
        (_, name) if name.starts_with("test_") => 1,
        _ => 2,
    }
}

/// The metrics in a line, and the number of those that are `left_out`.
fn line(place: &str, shown: &[Shown], left_out: usize) -> String {
    let mut line = place.to_owned();
    let mut gap = "  ";
    for metric in shown {
        line.push_str(&format!("{gap}{} {:>WIDTH$}{}", metric.name, display::number(metric.value), mark(metric)));
        // The mark is in the gap, so that lines stay aligned.
        gap = if metric.is_best { " " } else { "  " };
    }
    if left_out > 0 {
        line.push_str(&format!("{gap}+{left_out}"));
    }
    line
}

/// Splits first, training before the others and each with its loss first; then the callbacks' metrics; the host's own
/// figures last.
fn rank(name: &str) -> (u8, &str, bool) {
    if name.starts_with("learning_rate") || matches!(name, "gradient_norm" | "loss_scale") || name.ends_with("_seconds")
    {
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

#[cfg(test)]
mod tests {
    use plugin_api::abi::kinds::EventKind;
    use plugin_api::testing::{FakeHost, json};

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
    fn what_is_better_than_before_is_marked() {
        let mut host = host(json!({ "include": ["*_loss", "*_accuracy"] }));
        let mut lines = Vec::new();
        for (epoch, loss, accuracy) in [(1, 0.5, 0.8), (2, 0.4, 0.8), (3, f64::NAN, 0.9), (4, 0.45, 0.85)] {
            host.set_position(epoch, epoch * 10);
            for (name, value) in [("train_loss", loss), ("val_loss", loss), ("val_accuracy", accuracy)] {
                host.put_metric(name, value);
            }
            host.trigger("epoch").unwrap();
            lines.push(host.lines().last().unwrap().split_once("val_loss").unwrap().1.to_owned());
        }
        let expected = [
            "   0.5000* val_accuracy   0.8000",
            "   0.4000* val_accuracy   0.8000",
            "      NaN  val_accuracy   0.9000*",
            "   0.4500  val_accuracy   0.8500",
        ];
        assert_eq!(lines, expected, "NaN came before the first, and any number is better");
    }

    #[test]
    fn a_resumed_run_knows_what_was_best() {
        let mut host = FakeHost::new::<PrintMetrics>(json!({ "include": ["val_loss"] })).unwrap();
        host.put_metric("val_loss", 0.25);
        host.put_metric("val_loss", 0.5);
        host.train_start().unwrap();
        host.set_position(3, 30);
        host.put_metric("val_loss", 0.3);
        host.trigger("epoch").unwrap();
        host.put_metric("val_loss", 0.2);
        host.trigger("epoch").unwrap();
        assert_eq!(host.lines(), ["epoch 3/3  val_loss   0.3000", "epoch 3/3  val_loss   0.2000*"]);
    }

    #[test]
    fn many_metrics_are_a_table() {
        let mut host = host(json!({}));
        for name in ["auc", "f1", "precision", "recall"] {
            host.put_metric(&format!("val_{name}"), 0.5);
        }
        host.set_position(3, 30);
        host.trigger("epoch").unwrap();
        assert_eq!(
            host.lines(),
            [
                "epoch  3/12      loss  accuracy       auc        f1  precision    recall",
                "  train        0.3000    0.9000",
                "  val             NaN    0.8000    0.5000    0.5000     0.5000    0.5000",
                "  epoch_seconds   1.2500  learning_rate  1.00e-4",
            ]
        );
    }

    #[test]
    fn a_terminal_gets_a_line_of_what_fits() {
        let within = |width| {
            let mut host = FakeHost::new::<PrintMetrics>(json!({})).unwrap().with_info(|info| {
                (info.epochs, info.console_width) = (12, width);
            });
            for (name, value) in
                [("train_loss", 0.3), ("train_accuracy", 0.9), ("val_loss", 0.35), ("val_accuracy", 0.8)]
            {
                host.put_metric(name, value);
            }
            host.put_metric("weight_norm", 1.5);
            host.put_metric("learning_rate", 1e-3);
            host.train_start().unwrap();
            host.set_position(3, 30);
            host.trigger("epoch").unwrap();
            host.lines().to_vec()
        };
        assert_eq!(within(80), ["epoch  3/12  train_loss   0.3000  val_loss   0.3500  val_accuracy   0.8000  +3"]);
        assert_eq!(within(60), ["epoch  3/12  train_loss   0.3000  val_loss   0.3500  +4"]);
        assert_eq!(within(20), ["epoch  3/12  train_loss   0.3000  +5"], "one is always there");
        let all = within(200).remove(0);
        assert!(all.contains("learning_rate") && !all.contains('+'), "{all}");
    }

    #[test]
    fn what_improved_is_green_where_there_are_colors() {
        assert_eq!(colored("a   0.5000* b   1.0000"), "a   \u{1b}[32m0.5000*\u{1b}[0m b   1.0000");
        let mut host = FakeHost::new::<PrintMetrics>(json!({ "include": ["val_loss"] }))
            .unwrap()
            .with_info(|info| (info.console_width, info.console_colors) = (80, true));
        host.train_start().unwrap();
        for value in [0.5, 0.4] {
            host.put_metric("val_loss", value);
            host.set_position(1, 10);
            host.trigger("epoch").unwrap();
        }
        assert_eq!(host.lines()[1], "epoch 1/3  val_loss   \u{1b}[32m0.4000*\u{1b}[0m");
    }

    #[test]
    fn the_run_chooses_the_layout() {
        for (layout, lines) in [("line", 1), ("table", 4), ("auto", 1)] {
            let mut host = host(json!({ "layout": layout }));
            host.trigger("epoch").unwrap();
            assert_eq!(host.lines().len(), lines, "{layout}: {:?}", host.lines());
        }
        let error = FakeHost::new::<PrintMetrics>(json!({ "width": 3 })).err().unwrap();
        assert!(error.message().contains("`width` is 3"), "{error}");
    }
}
