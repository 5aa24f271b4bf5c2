//! Many metrics as a table: one row per split, one column per metric.
//!
//! ```text
//! epoch  3/12     loss  accuracy        f1
//!   train       0.3000    0.9000
//!   val         0.3200*   0.8900    0.8850*
//!   learning_rate  1.00e-4  gradient_norm   0.7500
//! ```

use std::collections::BTreeMap;

use crate::display;

/// Columns are at least as wide as most numbers.
const NARROWEST: usize = 8;

/// A metric to print.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) value: f64,
    /// Whether it is the best so far.
    pub(crate) is_best: bool,
}

/// The lines of a table: `place` is its title, and none is longer than `width` unless a single column is.
pub(crate) fn table(place: &str, shown: &[Shown], splits: &[String], width: usize) -> Vec<String> {
    let mut rows: Vec<&str> = Vec::new();
    let mut columns: Vec<&str> = Vec::new();
    let mut cells = BTreeMap::new();
    let mut others = Vec::new();
    for metric in shown {
        match split_of(&metric.name, splits) {
            Some((split, column)) => {
                if !rows.contains(&split) {
                    rows.push(split);
                }
                if !columns.contains(&column) {
                    columns.push(column);
                }
                cells.insert((split, column), metric);
            }
            None => others.push(metric),
        }
    }
    let indent = rows.iter().map(|row| row.chars().count() + 2).max().unwrap_or(0).max(place.chars().count());
    let mut lines = Vec::new();
    for (index, columns) in wrapped(&columns, indent, width).into_iter().enumerate() {
        let mut head = pad_right(if index == 0 { place } else { "" }, indent);
        for column in &columns {
            head.push_str(&format!("  {column:>of$}", of = column_width(column)));
        }
        lines.push(head);
        for row in rows.iter().filter(|row| columns.iter().any(|column| cells.contains_key(&(**row, *column)))) {
            let mut line = pad_right(&format!("  {row}"), indent);
            let mut gap = 2;
            for column in &columns {
                let of = column_width(column) + gap;
                let (text, mark) = match cells.get(&(*row, *column)) {
                    Some(metric) => (display::number(metric.value), metric.is_best),
                    None => (String::new(), false),
                };
                line.push_str(&format!("{text:>of$}{}", if mark { "*" } else { "" }));
                // The mark is in the gap before the next column.
                gap = 2 - usize::from(mark);
            }
            lines.push(line.trim_end().to_owned());
        }
    }
    if lines.is_empty() {
        lines.push(place.to_owned());
    }
    let mut rest = String::new();
    for metric in others {
        let text = format!("  {} {:>NARROWEST$}{}", metric.name, display::number(metric.value), mark(metric));
        if !rest.is_empty() && rest.chars().count() + text.chars().count() > width {
            lines.push(std::mem::take(&mut rest));
        }
        rest.push_str(&text);
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

/// The mark after the best value.
pub(crate) fn mark(metric: &Shown) -> &'static str {
    if metric.is_best { "*" } else { "" }
}

/// The split and the rest of a metric's name, if it starts with a split.
pub(crate) fn split_of<'n>(name: &'n str, splits: &[String]) -> Option<(&'n str, &'n str)> {
    splits.iter().find_map(|split| {
        let metric = name.strip_prefix(split.as_str())?.strip_prefix('_')?;
        (!metric.is_empty()).then(|| (name.get(..split.len()).unwrap_or_default(), metric))
    })
}

fn column_width(column: &str) -> usize {
    column.chars().count().max(NARROWEST)
}

fn pad_right(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

/// Columns in as many blocks as necessary, each at most `width` wide with its indent and the last mark.
fn wrapped<'c>(columns: &[&'c str], indent: usize, width: usize) -> Vec<Vec<&'c str>> {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    let mut used = 0;
    for column in columns {
        let wide = column_width(column) + 2;
        match blocks.last_mut() {
            Some(block) if used + wide < width => {
                block.push(column);
                used += wide;
            }
            _ => {
                blocks.push(vec![column]);
                used = indent + wide;
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn splits() -> Vec<String> {
        ["train", "val"].map(str::to_owned).to_vec()
    }

    fn shown(metrics: &[(&str, f64, bool)]) -> Vec<Shown> {
        let shown = |&(name, value, is_best): &(&str, f64, bool)| Shown { name: name.to_owned(), value, is_best };
        metrics.iter().map(shown).collect()
    }

    #[test]
    fn splits_are_rows_and_metrics_are_columns() {
        let metrics = shown(&[
            ("train_loss", 0.3, false),
            ("train_accuracy", 0.9, false),
            ("val_loss", 0.32, true),
            ("val_accuracy", 0.89, false),
            ("val_top10_error_rate", 1e-5, true),
            ("learning_rate", 1e-4, false),
        ]);
        assert_eq!(
            table("epoch  3/12", &metrics, &splits(), 100),
            [
                "epoch  3/12      loss  accuracy  top10_error_rate",
                "  train        0.3000    0.9000",
                "  val          0.3200*   0.8900           1.00e-5*",
                "  learning_rate  1.00e-4",
            ]
        );
    }

    #[test]
    fn what_is_too_wide_goes_on_below() {
        let metrics = shown(&[
            ("train_loss", 0.3, false),
            ("val_loss", 0.32, false),
            ("val_f1", f64::NAN, false),
            ("val_recall", 0.5, true),
            ("a", 1.0, false),
            ("b", 2.0, false),
            ("c", 3.0, false),
        ]);
        assert_eq!(
            table("epoch 1/2", &metrics, &splits(), 31),
            [
                "epoch 1/2      loss        f1",
                "  train      0.3000",
                "  val        0.3200       NaN",
                "             recall",
                "  val        0.5000*",
                "  a   1.0000  b   2.0000",
                "  c   3.0000",
            ]
        );
    }

    #[test]
    fn a_name_is_of_a_split_when_something_follows() {
        let of = |name| split_of(name, &splits());
        assert_eq!(of("val_top5_error"), Some(("val", "top5_error")));
        for name in ["val", "val_", "validation_loss", "learning_rate", ""] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_value_is_there_once_and_no_line_is_too_long(
            names in prop::collection::btree_set("(train|val|ж)_[a-zж]{1,14}|[a-z]{1,14}", 1..30),
            width in 60usize..160,
        ) {
            let splits = ["train", "val", "ж"].map(str::to_owned);
            let metrics: Vec<Shown> = names
                .iter()
                .zip(1u32..)
                .map(|(name, index)| Shown { name: name.clone(), value: f64::from(index) + 0.5, is_best: index % 3 == 0 })
                .collect();
            let lines = table("epoch 10/10", &metrics, &splits, width);
            for metric in &metrics {
                let text = display::number(metric.value);
                let found = lines.iter().flat_map(|line| line.split_whitespace()).filter(|word| word.trim_end_matches('*') == text);
                prop_assert_eq!(found.count(), 1, "{}: {:?}", metric.name, lines);
            }
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:?}");
        }
    }
}
