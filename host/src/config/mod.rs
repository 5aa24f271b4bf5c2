//! The run file: read, overridden, checked whole, and turned into [`RunFile`].
//!
//! The journey: [`Document::parse`] reads TOML and keeps where each value stands; [`Document::set`] applies
//! `--set KEY=VALUE`; [`check`] holds the document against a JSON Schema (the run file's own, or a plugin kind's for
//! its options) and the rules of `rules.rs` cover what a schema cannot say; then serde builds the [`RunFile`].
//! Every problem is found before an error is returned, and each one points at its place.
//!
//! Nothing here looks at the file system beyond reading the run file: paths, kinds and splits are the business of those
//! who use them.

mod check;
mod condition;
mod defaults;
mod document;
mod formats;
mod overrides;
mod plugin;
mod rules;
mod run_file;
mod stand_in;
mod when;

pub use check::check;
pub use condition::{Comparison, Condition};
pub use defaults::fill_defaults;
pub use document::{Document, Place, key_path};
pub use formats::FormatError;
pub use plugin::{Dispatch, OnError, PluginOptions};
pub use run_file::{Device, EvalOptions, Length, Precision, RunFile, RunOptions, Threads, TrainOptions};
pub use when::{At, Every, Mode, When};

use crate::report::{Problem, Problems};

/// A checked run file and the document that it was read from; the document is kept for later checks (plugin options)
/// that point into it.
#[derive(Debug)]
pub struct Loaded {
    /// The run file with its defaults filled in.
    pub run_file: RunFile,
    /// What was written, with the places.
    pub document: Document,
}

/// Reads and checks a run file.
///
/// `name` is what messages call the file; `overrides` are the arguments of `--set`, later ones winning.
///
/// # Errors
/// All that is wrong, each with its place. Where the TOML itself does not parse, that alone.
pub fn load(name: &str, text: &str, overrides: &[String]) -> Result<Loaded, Problems> {
    let mut document = Document::parse(name, text)?;
    let mut problems: Vec<Problem> =
        overrides.iter().filter_map(|argument| document.set(argument).err()).collect();
    problems.extend(check(&document, "", &schema()));
    problems.extend(rules::check(&document));
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    match serde_json::from_value(document.plain_value()) {
        Ok(run_file) => Ok(Loaded { run_file, document }),
        Err(error) => Err(Problem::new(format!("cannot read `{name}`")).with_cause(&error).into()),
    }
}

/// The JSON Schema of the run file (draft 2020-12), with the description and the default of every key.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RunFile).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Style, render};

    const DIGITS: &str = r#"[run]
name = "digits"
seed = 42

[data]
format = "csv"
path = "digits.csv.gz"
target = 64
shape = [1, 8, 8]
classes = 10

[data.splits]
val = { fraction = 0.2, stratified = true }

[model]
layers = [
  { type = "conv2d", out_channels = 32, kernel_size = 3 },
  { type = "relu" },
  { type = "linear", out_features = 10 },
]

[train]
epochs = 12
batch_size = 64
loss = { type = "cross_entropy" }
optimizer = { type = "adamw", learning_rate = 1e-3 }

[eval]
metrics = ["accuracy"]

[[plugins]]
kind = "early-stopping"
options = { patience = 5 }
"#;

    /// What a person sees when the digits run is changed by replacing texts and by `--set`.
    fn refused(replace: &[(&str, &str)], overrides: &[&str]) -> String {
        let text = replace.iter().fold(DIGITS.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "`{from}` is not in the run file");
            text.replacen(from, to, 1)
        });
        let overrides: Vec<String> = overrides.iter().map(|&argument| argument.to_owned()).collect();
        let problems = load("run.toml", &text, &overrides).expect_err("the run file is refused");
        render(&problems.0, Style::plain())
    }

    #[test]
    fn unknown_key() {
        insta::assert_snapshot!(refused(&[("batch_size", "batchsize")], &[]), @"");
    }

    #[test]
    fn unknown_section() {
        insta::assert_snapshot!(refused(&[("[eval]", "[evaluation]")], &[]), @"");
    }

    #[test]
    fn two_unknown_keys_at_once() {
        insta::assert_snapshot!(refused(&[("seed", "sed"), ("kernel_size", "kernel")], &[]), @"");
    }

    #[test]
    fn wrong_type() {
        insta::assert_snapshot!(refused(&[("seed = 42", "seed = \"42\""), ("target = 64", "target = true")], &[]), @"");
    }

    #[test]
    fn unknown_layer_type() {
        insta::assert_snapshot!(refused(&[("\"linear\"", "\"linaer\"")], &[]), @"");
    }

    #[test]
    fn layer_without_type() {
        insta::assert_snapshot!(refused(&[("{ type = \"relu\" }", "{ p = 0.5 }")], &[]), @"");
    }

    #[test]
    fn missing_section() {
        insta::assert_snapshot!(refused(&[("[model]\nlayers", "[data.model]\nlayers")], &[]), @"");
    }

    #[test]
    fn unknown_value() {
        insta::assert_snapshot!(refused(&[("shape", "normalise = \"standart\"\nshape")], &["run.threads=all"]), @"");
    }

    #[test]
    fn number_out_of_bounds() {
        insta::assert_snapshot!(refused(&[("epochs = 12", "epochs = 0")], &[]), @"");
    }

    #[test]
    fn bad_when() {
        let options = ("options =", "when = { every = \"5 epoch s\", at = [\"the end\"], best = { val_loss = \"low\" } }\noptions =");
        insta::assert_snapshot!(refused(&[options], &[]), @"");
    }

    #[test]
    fn bad_if() {
        insta::assert_snapshot!(refused(&[("options =", "if = \"val_loss below 0.5\"\noptions =")], &[]), @"");
    }

    #[test]
    fn duplicate_instance_names() {
        let plugin = ("[[plugins]]", "[[plugins]]\nkind = \"early-stopping\"\n\n[[plugins]]");
        insta::assert_snapshot!(refused(&[plugin], &[]), @"");
    }

    #[test]
    fn alias_beside_its_key() {
        insta::assert_snapshot!(refused(&[("options =", "frequency = 2\nwhen.every = \"1 epoch\"\noptions =")], &[]), @"");
    }

    #[test]
    fn both_epochs_and_steps() {
        insta::assert_snapshot!(refused(&[("epochs = 12", "epochs = 12\nsteps = 100")], &[]), @"");
    }

    #[test]
    fn epochs_in_the_file_and_steps_set() {
        insta::assert_snapshot!(refused(&[], &["train.steps=100"]), @"");
    }

    #[test]
    fn evaluation_by_the_clock() {
        insta::assert_snapshot!(refused(&[], &["eval.every=10 min"]), @"");
    }

    #[test]
    fn bad_set() {
        let overrides = ["train.epochs", "train.epochs.x=1", "plugins.early.options={}", "run.seed=[1,", "run.sed=1"];
        insta::assert_snapshot!(refused(&[], &overrides), @"");
    }

    #[test]
    fn toml_syntax_error() {
        insta::assert_snapshot!(refused(&[("seed = 42", "seed = = 42")], &[]), @"");
    }

    #[test]
    fn plugin_options_are_checked_with_their_place() {
        let loaded = load("run.toml", DIGITS, &[]).expect("the run file is right");
        let schema = serde_json::json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["monitor"],
            "properties": {
                "monitor": {"type": "string", "description": "the metric that is watched"},
                "patiense": {"type": "integer"},
            }
        });
        let problems = check(&loaded.document, "/plugins/0/options", &schema);
        insta::assert_snapshot!(render(&problems, Style::plain()), @"");
    }

    #[test]
    fn a_plugin_without_options_is_checked_as_without_any() {
        let loaded = load("run.toml", &DIGITS.replace("options = { patience = 5 }", ""), &[]).expect("right");
        let schema = serde_json::json!({"type": "object", "required": ["monitor"]});
        let problems = check(&loaded.document, "/plugins/0/options", &schema);
        insta::assert_snapshot!(render(&problems, Style::plain()), @"");
    }

    #[test]
    fn a_schema_that_is_none_is_a_problem_and_opens_no_connection() {
        let loaded = load("run.toml", DIGITS, &[]).expect("the run file is right");
        for schema in [serde_json::json!({"type": 1}), serde_json::json!({"$ref": "http://example.com/schema.json"})] {
            assert_eq!(check(&loaded.document, "/plugins/0/options", &schema).len(), 1);
        }
    }

    #[test]
    fn the_defaults_of_the_digits_run() {
        let run_file = load("run.toml", DIGITS, &[]).expect("the run file is right").run_file;
        insta::assert_snapshot!(run_file.resolved_toml().expect("it can be written"), @"");
    }
}
