//! The run as Prometheus reads it: the
//! [text format](https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format), version 0.0.4.

use std::collections::BTreeMap;

use chart::Progress;

use crate::board::Shown;

/// The type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The states of a run. Each always has a gauge, so that a query for one finds 0 and not nothing.
const STATES: [&str; 5] = ["running", "finished", "stopped", "failed", "interrupted"];

/// What is told, copied from the board.
#[derive(Default)]
pub(crate) struct Exposition {
    run: String,
    total_steps: u64,
    progress: Progress,
    /// The latest value of each metric, by name.
    latest: Vec<(String, f64)>,
}

/// A gauge of one value.
struct Sample {
    labels: String,
    value: String,
}

impl Exposition {
    pub(crate) fn of(shown: &Shown) -> Self {
        let latest = shown.curves.iter().filter_map(|(name, curve)| Some((name.to_owned(), curve.points().last()?.1)));
        Self {
            run: shown.facts.name.clone(),
            total_steps: shown.facts.total_steps,
            progress: shown.progress.clone(),
            latest: latest.collect(),
        }
    }

    /// The text. What is not known has no sample.
    pub(crate) fn text(&self) -> String {
        let Self { run, total_steps, progress, latest } = self;
        let run = label("run", run);
        let one = |value: String| vec![Sample { labels: run.clone(), value }];
        let mut text = String::new();
        let states = STATES.map(|state| Sample {
            labels: format!("{run},{}", label("state", state)),
            value: u8::from(state == progress.state).to_string(),
        });
        family(&mut text, "host_run_state", "1 for the state of the run, 0 for the others.", &states);
        family(&mut text, "host_run_epoch", "The epoch in progress.", &one(progress.epoch.to_string()));
        family(&mut text, "host_run_step", "The optimizer updates so far.", &one(progress.step.to_string()));
        if *total_steps > 0 {
            let done = (progress.step as f64 / *total_steps as f64).min(1.0);
            family(
                &mut text,
                "host_run_progress_ratio",
                "The part of the planned steps that is done.",
                &one(number(done)),
            );
        }
        if let Some(seconds) = progress.time_left {
            family(&mut text, "host_run_time_left_seconds", "The estimated time left.", &one(number(seconds)));
        }
        // Two metrics may have the same name here; their own names tell them apart.
        let mut families: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
        for (metric, value) in latest {
            let labels = format!("{run},{}", label("metric", metric));
            families.entry(name_of(metric)).or_default().push(Sample { labels, value: number(*value) });
        }
        for (name, samples) in &families {
            family(&mut text, name, "The latest value of this metric of the run.", samples);
        }
        text
    }
}

/// Writes the samples of one name, which may not be mixed with those of another.
fn family(text: &mut String, name: &str, help: &str, samples: &[Sample]) {
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    for Sample { labels, value } in samples {
        text.push_str(&format!("{name}{{{labels}}} {value}\n"));
    }
}

/// The name of a metric's gauge: letters, digits and underscores. Colons are allowed, but are for rules of the user.
fn name_of(metric: &str) -> String {
    let allowed = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    format!("host_metric_{}", metric.chars().map(allowed).collect::<String>())
}

fn label(name: &str, value: &str) -> String {
    format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A number as Go reads it.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        // `Debug` writes large and small numbers with an exponent.
        value => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// A sample as a reader gets it: name, labels, value.
    type Read = (String, BTreeMap<String, String>, f64);

    /// Reads the text as strictly as the format allows: each name has one type before its samples, which are together,
    /// and no sample comes twice.
    fn read(text: &str) -> Vec<Read> {
        let (mut found, mut typed, mut seen) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let mut current = "";
        assert!(text.ends_with('\n'));
        for line in text.strip_suffix('\n').unwrap().split('\n') {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                current = rest.strip_suffix(" gauge").unwrap();
                assert!(typed.insert(current.to_owned()), "{current} comes twice");
                assert!(current.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{current}");
                assert!(!current.as_bytes()[0].is_ascii_digit());
                continue;
            } else if line.starts_with("# HELP ") {
                continue;
            }
            let (name, rest) = line.split_once('{').unwrap();
            assert_eq!(name, current, "{line}");
            let (labels, value) = read_labels(rest);
            assert!(seen.insert((name.to_owned(), labels.clone())), "{line} comes twice");
            found.push((name.to_owned(), labels, value.strip_prefix(' ').unwrap().parse().unwrap()));
        }
        found
    }

    fn read_labels(text: &str) -> (BTreeMap<String, String>, &str) {
        let (mut labels, mut rest) = (BTreeMap::new(), text);
        loop {
            let (name, after) = rest.split_once("=\"").unwrap();
            let (mut value, mut characters) = (String::new(), after.char_indices());
            let end = loop {
                match characters.next().unwrap() {
                    (end, '"') => break end + 1,
                    (_, '\\') => value.push(match characters.next().unwrap().1 {
                        'n' => '\n',
                        other @ ('\\' | '"') => other,
                        other => panic!("`\\{other}` is no escape"),
                    }),
                    (_, other) => value.push(other),
                }
            };
            assert!(labels.insert(name.to_owned(), value).is_none());
            rest = &after[end..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return (labels, rest.strip_prefix('}').unwrap()),
            }
        }
    }

    fn exposition(latest: &[(&str, f64)]) -> Exposition {
        let progress = Progress { state: "running".to_owned(), epoch: 2, step: 75, ..Progress::default() };
        let latest = latest.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Exposition { run: "digits".to_owned(), total_steps: 300, progress, latest }
    }

    #[test]
    fn a_run_is_told_as_gauges() {
        let mut told = exposition(&[("learning_rate", 1e-7), ("val_loss", 0.5)]);
        told.progress.time_left = Some(12.5);
        let samples: Vec<String> =
            told.text().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        let expected = [
            r#"host_run_state{run="digits",state="running"} 1"#,
            r#"host_run_state{run="digits",state="finished"} 0"#,
            r#"host_run_state{run="digits",state="stopped"} 0"#,
            r#"host_run_state{run="digits",state="failed"} 0"#,
            r#"host_run_state{run="digits",state="interrupted"} 0"#,
            r#"host_run_epoch{run="digits"} 2"#,
            r#"host_run_step{run="digits"} 75"#,
            r#"host_run_progress_ratio{run="digits"} 0.25"#,
            r#"host_run_time_left_seconds{run="digits"} 12.5"#,
            r#"host_metric_learning_rate{run="digits",metric="learning_rate"} 1e-7"#,
            r#"host_metric_val_loss{run="digits",metric="val_loss"} 0.5"#,
        ];
        assert_eq!(samples, expected);
    }

    #[test]
    fn what_is_not_known_is_not_told() {
        let told = Exposition { total_steps: 0, ..exposition(&[]) }.text();
        assert!(!told.contains("progress_ratio") && !told.contains("time_left"), "{told}");
    }

    #[test]
    fn numbers_that_are_none_are_written_as_go_writes_them() {
        let text = exposition(&[("a", f64::NAN), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY)]).text();
        for sample in ["metric=\"a\"} NaN\n", "metric=\"b\"} +Inf\n", "metric=\"c\"} -Inf\n"] {
            assert!(text.contains(sample), "{text}");
        }
    }

    #[test]
    fn names_that_become_the_same_stay_apart() {
        let read = read(&exposition(&[("a:b", 1.0), ("a.b", 2.0), ("a/b", 3.0), ("ä", 4.0)]).text());
        let same: Vec<f64> =
            read.iter().filter(|(name, ..)| name == "host_metric_a_b").map(|(.., value)| *value).collect();
        assert_eq!(same, [1.0, 2.0, 3.0]);
        assert!(read.iter().any(|(name, ..)| name == "host_metric__"));
    }

    proptest! {
        #[test]
        fn whatever_names_and_values_are_they_are_read_again(
            run: String,
            metrics in prop::collection::btree_map("\\PC*|[\\\\\"\n,={}a]{0,8}", any::<f64>(), 0..20),
        ) {
            let latest: Vec<(String, f64)> = metrics.clone().into_iter().collect();
            let text = Exposition { run: run.clone(), latest, ..Exposition::default() }.text();
            let read = read(&text);
            prop_assert!(read.iter().all(|(_, labels, _)| labels["run"] == run));
            let found = read.iter().filter_map(|(_, labels, value)| Some((labels.get("metric")?, value)));
            let found: BTreeMap<_, _> = found.map(|(name, value)| (name.clone(), value.to_bits())).collect();
            let expected = metrics.into_iter().map(|(name, value)| {
                let value = if value.is_nan() { "NaN".parse().unwrap() } else { value };
                (name, value.to_bits())
            });
            prop_assert_eq!(found, expected.collect::<BTreeMap<_, _>>());
        }
    }
}
