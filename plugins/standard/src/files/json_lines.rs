//! `json-lines`: appends the metrics to `metrics.jsonl` in the run folder, one object per line.
//!
//! ```json
//! {"kind":"epoch","epoch":3,"step":84,"train_loss":0.31,"val_loss":"NaN"}
//! ```
//!
//! `kind` is `epoch`, `step`, `evaluation` for one within an epoch or asked for after it, `test` for the evaluation of the
//! test split when training is over, or `end` for what callbacks measured after that. `step` is the global step. A line
//! has only what was measured for it: in the line of a step, `train_loss` is the mean over the epoch so far, and `step_loss`
//! is that step's own. A confusion matrix is a list of rows, one for each true class. JSON cannot write NaN and the infinities; they are the strings `"NaN"`,
//! `"Infinity"` and `"-Infinity"`, which `float()` in Python and `Number()` in JavaScript read.
//!
//! A resumed run cuts the file back to its length at the checkpoint, so that it continues like that of an
//! uninterrupted run.

use std::io::Write as _;
use std::path::Path;

use plugin_api::event::{At, Evaluation, Position, TrainEnd};
use plugin_api::{Callback, Creation, Error, Result, Run, decode_state, encode_state, plugin};
use serde::{Deserialize, Serialize};

use super::line_file::LineFile;
use super::rows::{LastRows, Row, Rows};

/// Options of `json-lines`.
#[plugin]
pub(crate) struct Options {
    /// The file, relative to the run folder. Two instances need two files.
    #[schemars(extend("format" = "output-file"))]
    file: String,
    /// The number of steps between additional lines; 0 for none.
    every_steps: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { file: "metrics.jsonl".to_owned(), every_steps: 0 }
    }
}

/// The state in checkpoints: the file's length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct State {
    bytes: u64,
    /// What the rows that come next do not repeat.
    #[serde(default)]
    last: LastRows,
}

pub(crate) struct JsonLines {
    /// The name of the file.
    name: String,
    rows: Rows,
    /// From the checkpoint that the run resumed from.
    resumed: Option<State>,
    file: Option<LineFile>,
}

#[plugin]
impl Callback for JsonLines {
    const KIND: &'static str = "json-lines";
    const SUMMARY: &'static str = "Appends the metrics to metrics.jsonl, one object per line";
    type Options = Options;

    fn new(options: Options, _: &Creation<'_>) -> Result<Self> {
        if options.file.is_empty() {
            return Err(Error::new("`file` must not be empty"));
        }
        Ok(Self { name: options.file, rows: Rows::new(options.every_steps), resumed: None, file: None })
    }

    fn on_load_state(&mut self, _: &mut Run<'_>, state: &[u8]) -> Result<()> {
        let state: State = decode_state(state)?;
        self.rows.resume(state.last);
        self.resumed = Some(state);
        Ok(())
    }

    fn on_save_state(&mut self, _: &mut Run<'_>, _: &At<'_>) -> Result<Vec<u8>> {
        let resumed = self.resumed.map_or(0, |state| state.bytes);
        let bytes = self.file.as_ref().map_or(resumed, LineFile::bytes);
        encode_state(&State { bytes, last: self.rows.last() })
    }

    fn on_train_start(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let path = Path::new(&run.info()?.folder).join(&self.name);
        self.file = Some(open(&path, self.resumed.map(|state| state.bytes), event.global_step)?);
        self.rows.begin(run, event)?;
        run.publish("metrics", &self.name)
    }

    fn on_step_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let row = self.rows.step(run, event)?;
        self.append(event, row)
    }

    fn on_epoch_end(&mut self, run: &mut Run<'_>, event: &At<'_>) -> Result<()> {
        let row = self.rows.epoch(run, event)?;
        self.append(event, row)
    }

    fn on_eval_end(&mut self, run: &mut Run<'_>, event: &Evaluation<'_>) -> Result<()> {
        let row = self.rows.evaluation(run, event)?;
        self.append(event, row)
    }

    fn on_train_end(&mut self, run: &mut Run<'_>, event: &TrainEnd<'_>) -> Result<()> {
        let row = self.rows.end(run, event)?;
        self.append(event, row)
    }
}

impl JsonLines {
    fn append(&mut self, position: &Position, row: Option<Row>) -> Result<()> {
        let (Some(file), Some(row)) = (&mut self.file, row) else { return Ok(()) };
        let mut text = Vec::with_capacity(512);
        line(&mut text, &row, position).map_err(Error::from)?;
        file.append(&text)
    }
}

/// Appends the line of a row. Nothing is allocated for its parts: a run of short epochs writes hundreds a second.
fn line(text: &mut Vec<u8>, row: &Row, position: &Position) -> std::io::Result<()> {
    write!(text, r#"{{"kind":"{}","epoch":{},"step":{}"#, row.kind, position.epoch, position.global_step)?;
    for (name, value) in &row.metrics {
        text.push(b',');
        // A metric may have the name of one of the line's own keys; readers keep the last of two.
        if matches!(name.as_str(), "kind" | "epoch" | "step") {
            write!(text, r#""metric_{name}""#)?;
        } else {
            serde_json::to_writer(&mut *text, name)?;
        }
        text.push(b':');
        number(text, *value)?;
    }
    for matrix in &row.matrices {
        let rows: Vec<&[u64]> = matrix.rows().map(|(_, counts)| counts).collect();
        text.push(b',');
        serde_json::to_writer(&mut *text, &matrix.name)?;
        text.push(b':');
        serde_json::to_writer(&mut *text, &rows)?;
    }
    text.extend_from_slice(b"}\n");
    Ok(())
}

fn number(text: &mut Vec<u8>, value: f64) -> std::io::Result<()> {
    if value.is_finite() {
        serde_json::to_writer(text, &value)?;
        return Ok(());
    }
    let name = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    write!(text, r#""{name}""#)
}

/// Opens the file to append to it, without the lines that an interrupted run wrote after the point from which this one
/// resumes.
fn open(path: &Path, resumed: Option<u64>, global_step: u64) -> Result<LineFile> {
    let mut file = LineFile::open(path)?;
    let content = file.content()?;
    let kept = match resumed {
        Some(bytes) if ends_a_line(&content, bytes) => bytes,
        // Without a matching state (the run was resumed in another folder, or without this plugin), the lines
        // themselves tell which to keep.
        _ => lines_until(&content, global_step),
    };
    file.cut(kept)?;
    Ok(file)
}

/// Whether the first `bytes` of the file are complete lines.
fn ends_a_line(content: &[u8], bytes: u64) -> bool {
    let before = usize::try_from(bytes).ok().and_then(|bytes| content.get(..bytes));
    before.is_some_and(|before| before.is_empty() || before.ends_with(b"\n"))
}

/// The length of the file's first complete lines of up to `global_step` steps.
fn lines_until(content: &[u8], global_step: u64) -> u64 {
    #[derive(Deserialize)]
    struct Line {
        step: u64,
    }
    let kept = content
        .split_inclusive(|&byte| byte == b'\n')
        .take_while(|line| line.ends_with(b"\n"))
        .take_while(|line| serde_json::from_slice::<Line>(line).is_ok_and(|line| line.step <= global_step))
        .map(<[u8]>::len)
        .sum::<usize>();
    // A run that starts from scratch keeps nothing.
    if global_step == 0 { 0 } else { kept as u64 }
}

#[cfg(test)]
mod tests {
    use plugin_api::abi::kinds::EventKind;
    use plugin_api::event::Outcome;
    use plugin_api::protocol::RunInfo;
    use plugin_api::testing::{FakeHost, json};
    use proptest::prelude::*;

    use super::*;

    fn host() -> FakeHost {
        let splits = ["train", "val", "test"].map(|split| (split.to_owned(), 100));
        FakeHost::new::<JsonLines>(json!({ "every_steps": 5 }))
            .unwrap()
            .with_info(|info| info.data.splits = splits.into())
    }

    fn content(host: &FakeHost) -> String {
        std::fs::read_to_string(host.folder().join("metrics.jsonl")).unwrap()
    }

    /// Epochs of ten steps; a checkpoint's state is taken after `saved` steps.
    fn train(host: &mut FakeHost, steps: std::ops::RangeInclusive<u64>, saved: u64) -> Vec<u8> {
        let mut state = Vec::new();
        for step in steps {
            host.put_metric("train_loss", 1.0 / step as f64);
            host.step_end(step).unwrap();
            if step % 10 == 0 {
                host.put_metric("val_loss", 2.0 / step as f64);
                host.epoch_end(step / 10).unwrap();
            }
            if step == saved {
                state = host.save_state().unwrap();
            }
        }
        state
    }

    #[test]
    fn a_line_an_epoch_and_one_every_few_steps() {
        let mut host = host();
        host.train_start().unwrap();
        train(&mut host, 1..=10, 0);
        assert_eq!(
            content(&host),
            "{\"kind\":\"step\",\"epoch\":1,\"step\":5,\"train_loss\":0.2}\n\
             {\"kind\":\"step\",\"epoch\":1,\"step\":10,\"train_loss\":0.1}\n\
             {\"kind\":\"epoch\",\"epoch\":1,\"step\":10,\"train_loss\":0.1,\"val_loss\":0.2}\n"
        );
        assert_eq!(
            (host.artifacts()[0].kind.as_str(), host.artifacts()[0].path.as_str()),
            ("metrics", "metrics.jsonl")
        );
        assert_eq!(host.artifacts().len(), 1);
    }

    #[test]
    fn an_evaluation_after_the_last_epoch_has_a_line_of_its_own() {
        let mut host = host();
        host.train_start().unwrap();
        train(&mut host, 1..=10, 0);
        let before = content(&host);
        host.put_metric("test_loss", 0.5);
        host.evaluation(EventKind::EVAL_END, "val", 0, 3).unwrap();
        host.evaluation(EventKind::EVAL_END, "test", 0, 3).unwrap();
        assert_eq!(
            content(&host).strip_prefix(&before),
            Some(
                "{\"kind\":\"evaluation\",\"epoch\":1,\"step\":10,\"val_loss\":0.2}\n\
                 {\"kind\":\"test\",\"epoch\":1,\"step\":10,\"test_loss\":0.5}\n"
            )
        );
    }

    #[test]
    fn what_is_measured_after_the_last_epoch_has_a_line_too() {
        let mut host = host();
        host.train_start().unwrap();
        train(&mut host, 1..=10, 0);
        let before = content(&host);
        host.train_end(Outcome::Finished).unwrap();
        assert_eq!(content(&host), before);
        host.put_metric("onnx_accuracy_after", 0.75);
        host.train_end(Outcome::Finished).unwrap();
        assert_eq!(
            content(&host).strip_prefix(&before),
            Some("{\"kind\":\"end\",\"epoch\":1,\"step\":10,\"onnx_accuracy_after\":0.75}\n")
        );
    }

    #[test]
    fn a_resumed_run_leaves_the_file_of_an_unbroken_one() {
        let mut unbroken = host();
        unbroken.train_start().unwrap();
        train(&mut unbroken, 1..=30, 0);
        for saved in 1..=29 {
            let mut broken = host();
            broken.train_start().unwrap();
            let state = train(&mut broken, 1..=29, saved);
            let mut resumed =
                host().with_info(|info: &mut RunInfo| info.folder = broken.folder().display().to_string());
            resumed.load_state(&state).unwrap();
            if saved >= 10 {
                // The host restores the history.
                resumed.set_position(1, saved / 10 * 10);
                resumed.put_metric("val_loss", 2.0 / (saved / 10 * 10) as f64);
            }
            resumed.set_position(1, saved);
            resumed.put_metric("train_loss", 1.0 / saved as f64);
            resumed.train_start().unwrap();
            train(&mut resumed, saved + 1..=30, 0);
            assert_eq!(content(&resumed), content(&unbroken), "resumed after {saved}");
        }
    }

    #[test]
    fn without_a_state_the_lines_say_what_stays() {
        let mut first = host();
        first.train_start().unwrap();
        train(&mut first, 1..=20, 0);
        let whole = content(&first);
        let path = first.folder().join("metrics.jsonl");
        std::fs::write(&path, format!("{whole}{{\"kind\":\"st")).unwrap();
        let expected = whole.lines().take(3).map(|line| format!("{line}\n")).collect::<String>();
        for (step, expected) in [(14, expected), (20, whole), (0, String::new())] {
            let mut resumed = host().with_info(|info| info.folder = first.folder().display().to_string());
            resumed.set_position(1, step);
            let before = std::fs::read(&path).unwrap();
            resumed.train_start().unwrap();
            assert_eq!(content(&resumed), expected, "at step {step}");
            std::fs::write(&path, before).unwrap();
        }
    }

    #[test]
    fn a_state_of_another_file_is_not_believed() {
        let mut host = host();
        host.load_state(&encode_state(&State { bytes: 10_000, last: LastRows::default() }).unwrap()).unwrap();
        host.set_position(2, 15);
        std::fs::write(host.folder().join("metrics.jsonl"), "{\"step\":5}\n{\"step\":20}\n").unwrap();
        host.train_start().unwrap();
        assert_eq!(content(&host), "{\"step\":5}\n");
    }

    #[test]
    fn a_folder_that_is_gone_is_an_error_with_the_path() {
        let mut host = host().with_info(|info| info.folder.push_str("/gone"));
        let error = host.train_start().unwrap_err();
        assert!(error.message().contains("/gone/metrics.jsonl: "), "{error}");
    }

    #[test]
    fn metrics_called_like_keys_do_not_hide_them() {
        let mut host = host();
        host.train_start().unwrap();
        host.put_metric("epoch", 7.0);
        host.epoch_end(1).unwrap();
        assert_eq!(content(&host), "{\"kind\":\"epoch\",\"epoch\":1,\"step\":10,\"metric_epoch\":7.0}\n");
    }

    #[test]
    fn a_file_that_is_removed_in_mid_run_is_an_error() {
        let mut host = host();
        host.train_start().unwrap();
        host.epoch_end(1).unwrap();
        std::fs::remove_file(host.folder().join("metrics.jsonl")).unwrap();
        let told = host.epoch_end(2).unwrap_err().message().to_owned();
        assert!(
            told.starts_with("the file was removed during the run: ") && told.contains("/metrics.jsonl: "),
            "{told}"
        );
    }

    proptest! {
            #[test]
            fn every_line_is_json_and_keeps_the_value(name: String, value: f64) {
                let mut host = host();
                host.train_start().unwrap();
                host.put_metric(&name, value);
                host.epoch_end(1).unwrap();
                let text = content(&host);
                prop_assert_eq!(text.lines().count(), 1);
                let read: serde_json::Value = serde_json::from_str(&text)?;
                let key = if matches!(name.as_str(), "kind" | "epoch" | "step") { format!("metric_{name}") } else { name };
                match &read[&key] {
    // The number as written: `serde_json` may lose the last bit.
                    serde_json::Value::Number(_) => {
                        let written = text.trim_end_matches("}\n").rsplit(':').next().unwrap();
                        prop_assert_eq!(written.parse(), Ok(value));
                    }
                    text => prop_assert_eq!(text.as_str(), Some(match value {
                        f64::INFINITY => "Infinity",
                        f64::NEG_INFINITY => "-Infinity",
                        _ => "NaN",
                    })),
                }
            }

            #[test]
            fn any_bytes_are_a_state_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..32)) {
                let mut host = host();
                if host.load_state(&bytes).is_ok() {
                    host.train_start().unwrap();
                }
            }

            #[test]
            fn any_file_is_cut_at_a_line(before in prop::collection::vec("[a-z{}:\"0-9\n]{0,12}", 0..6), bytes: u16) {
                let mut host = host();
                host.load_state(&encode_state(&State { bytes: u64::from(bytes) % 64, last: LastRows::default() }).unwrap()).unwrap();
                std::fs::write(host.folder().join("metrics.jsonl"), before.concat()).unwrap();
                host.set_position(1, 3);
                host.train_start().unwrap();
                let kept = content(&host);
                prop_assert!(kept.is_empty() || kept.ends_with('\n'));
                prop_assert!(before.concat().starts_with(&kept));
            }
        }
}
