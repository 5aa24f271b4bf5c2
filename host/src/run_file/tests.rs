//! The run file for its users: what is read, and how each mistake is reported.

use super::*;
use crate::config::OnError;
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

/// The error text when the digits run is changed by replacing texts and by `--set`.
fn refused(replace: &[(&str, &str)], overrides: &[&str]) -> String {
    let text = replace.iter().fold(DIGITS.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in the run file");
        text.replacen(from, to, 1)
    });
    let overrides: Vec<String> = overrides.iter().map(|&argument| argument.to_owned()).collect();
    let problems = load("run.toml", &text, &[], &overrides).expect_err("the run file is refused");
    render(&problems.0, Style::plain())
}

#[test]
fn unknown_key() {
    insta::assert_snapshot!(refused(&[("batch_size", "batchsize")], &[]), @r#"
     × unknown key `batchsize` in `train`
       ╭─[run.toml:24:1]
    23 │ epochs = 12
    24 │ batchsize = 64
       · ────┬────
       ·     ╰── not known here
    25 │ loss = { type = "cross_entropy" }
       ╰────
     hint: did you mean `batch_size`?
    "#);
}

#[test]
fn unknown_section() {
    insta::assert_snapshot!(refused(&[("[eval]", "[evaluation]")], &[]), @r#"
     × unknown key `evaluation`
       ╭─[run.toml:28:2]
    27 │ 
    28 │ [evaluation]
       ·  ─────┬────
       ·       ╰── not known here
    29 │ metrics = ["accuracy"]
       ╰────
     hint: known keys: `run`, `data`, `model`, `train`, `eval`, `distributed` and `plugins`
    "#);
}

#[test]
fn two_unknown_keys_at_once() {
    insta::assert_snapshot!(refused(&[("seed", "sed"), ("kernel_size", "kernel")], &[]), @r#"
     × unknown key `sed` in `run`
      ╭─[run.toml:3:1]
    2 │ name = "digits"
    3 │ sed = 42
      · ─┬─
      ·  ╰── not known here
    4 │ 
      ╰────
     hint: did you mean `seed`?

     × unknown key `kernel` in `model.layers.0`
       ╭─[run.toml:17:41]
    16 │ layers = [
    17 │   { type = "conv2d", out_channels = 32, kernel = 3 },
       ·                                         ───┬──
       ·                                            ╰── not known here
    18 │   { type = "relu" },
       ╰────
     hint: did you mean `kernel_size`?
    "#);
}

#[test]
fn wrong_type() {
    insta::assert_snapshot!(refused(&[("seed = 42", "seed = \"42\""), ("target = 64", "target = true")], &[]), @r#"
     × `run.seed` must be an integer, found the string `42`
      ╭─[run.toml:3:8]
    2 │ name = "digits"
    3 │ seed = "42"
      ·        ──┬─
      ·          ╰── expected an integer
    4 │ 
      ╰────

     × `data.target` must be an integer or a string, found `true`
      ╭─[run.toml:8:10]
    7 │ path = "digits.csv.gz"
    8 │ target = true
      ·          ──┬─
      ·            ╰── expected an integer or a string
    9 │ shape = [1, 8, 8]
      ╰────
    "#);
}

#[test]
fn unknown_layer_type() {
    insta::assert_snapshot!(refused(&[("\"linear\"", "\"linaer\"")], &[]), @r#"
     × `model.layers.2.type` cannot be `linaer`
       ╭─[run.toml:19:12]
    18 │   { type = "relu" },
    19 │   { type = "linaer", out_features = 10 },
       ·            ────┬───
       ·                ╰── not known here
    20 │ ]
       ╰────
     hint: did you mean `linear`?
    "#);
}

#[test]
fn layer_without_type() {
    insta::assert_snapshot!(refused(&[("{ type = \"relu\" }", "{ p = 0.5 }")], &[]), @r#"
     × `model.layers.1` has no `type`
       ╭─[run.toml:18:3]
    17 │   { type = "conv2d", out_channels = 32, kernel_size = 3 },
    18 │   { p = 0.5 },
       ·   ─────┬─────
       ·        ╰── `type` is missing
    19 │   { type = "linear", out_features = 10 },
       ╰────
     hint: accepted: `linear`, `conv1d`, `conv2d`, `conv_transpose2d`, `batch_norm`, `layer_norm`, `rms_norm`, `group_norm`, `max_pool2d`, `avg_pool2d`, `adaptive_avg_pool2d`, `relu`, `leaky_relu`, `elu`, `hard_swish`, `hard_sigmoid`, `gelu`, `silu`, `tanh`, `sigmoid`, `softmax`, `flatten`, `reshape`, `permute`, `dropout`, `embedding`, `positional_embedding`, `multi_head_attention`, `lstm`, `gru`, `upsample`, `residual`, `repeat`, `concat` or `parallel`
    "#);
}

#[test]
fn missing_section() {
    insta::assert_snapshot!(refused(&[("[train]\n", "[data.train]\n")], &[]), @r#"
     × `run.toml` has no `train`
     hint: `train`: The training.

     × unknown key `train` in `data`
       ╭─[run.toml:22:7]
    21 │ 
    22 │ [data.train]
       ·       ──┬──
       ·         ╰── not known here
    23 │ epochs = 12
       ╰────
     hint: known keys: `format`, `path`, `header`, `target`, `features`, `drop`, `categorical`, `categorical_as`, `unknown_category`, `missing`, `missing_label`, `missing_values`, `delimiter`, `quote`, `decimal`, `encoding`, `shape`, `task`, `classes`, `first_class`, `positive`, `normalize`, `augment`, `shuffle`, `drop_last` and `splits`
    "#);
}

#[test]
fn unknown_value() {
    insta::assert_snapshot!(refused(&[("shape", "normalize = \"standart\"\nshape")], &["run.threads=all"]), @r#"
     × `run.threads` cannot be `all`
      ╭─[--set:1:13]
    1 │ run.threads=all
      ·             ─┬─
      ·              ╰── not known here
      ╰────
     hint: accepted: `auto` or an integer

     × `data.normalize` cannot be `standart`
       ╭─[run.toml:9:13]
     8 │ target = 64
     9 │ normalize = "standart"
       ·             ─────┬────
       ·                  ╰── not known here
    10 │ shape = [1, 8, 8]
       ╰────
     hint: did you mean `standard`?
    "#);
}

#[test]
fn old_names_of_keys_and_values() {
    let keys = [
        ("shape", "normalise = \"standard\"\nshape"),
        ("kernel_size = 3", "kernel_size = 3, initialisation = { type = \"zeros\" }"),
    ];
    insta::assert_snapshot!(refused(&keys, &[]), @r#"
     × `normalise` in `data` is now called `normalize`
       ╭─[run.toml:9:1]
     8 │ target = 64
     9 │ normalise = "standard"
       · ────┬────
       ·     ╰── the old name
    10 │ shape = [1, 8, 8]
       ╰────
     hint: write `normalize`

     × `initialisation` in `model.layers.0` is now called `initialization`
       ╭─[run.toml:18:58]
    17 │ layers = [
    18 │   { type = "conv2d", out_channels = 32, kernel_size = 3, initialisation = { type = "zeros" } },
       ·                                                          ───────┬──────
       ·                                                                 ╰── the old name
    19 │   { type = "relu" },
       ╰────
     hint: write `initialization`
    "#);
    let images = [("format = \"csv\"", "format = \"images\"\ncolor = \"grey\"\ncolour = \"gray\"")];
    let text = refused(&images, &[]);
    assert!(text.contains("`grey` in `data.color` is now called `gray`"), "{text}");
    assert!(text.contains("`colour` in `data` is now called `color`"), "{text}");
}

#[test]
fn old_names_in_plugin_options() {
    let include = "plugins.0.options.include=[\"normalise\"]".to_owned();
    let loaded = load("run.toml", DIGITS, &[], &[include]).expect("the run file is right");
    let schema = serde_json::json!({
        "properties": {"include": {"type": "array", "items": {"enum": ["normalize", "softmax"]}}},
    });
    let problems = check(&loaded.document, "/plugins/0/options", &schema);
    insta::assert_snapshot!(render(&problems, Style::plain()), @r#"
     × `normalise` in `plugins.0.options.include.0` is now called `normalize`
      ╭─[--set:1:28]
    1 │ plugins.0.options.include=["normalise"]
      ·                            ─────┬─────
      ·                                 ╰── the old name
      ╰────
     hint: write `normalize`
    "#);
}

#[test]
fn number_out_of_bounds() {
    insta::assert_snapshot!(refused(&[("epochs = 12", "epochs = 0")], &[]), @r#"
     × `train.epochs` must be at least 1, found `0`
       ╭─[run.toml:23:10]
    22 │ [train]
    23 │ epochs = 0
       ·          ┬
       ·          ╰── here
    24 │ batch_size = 64
       ╰────
    "#);
}

#[test]
fn bad_when() {
    let options =
        ("options =", "when = { every = \"5 epoch s\", at = [\"the end\"], best = { val_loss = \"low\" } }\noptions =");
    insta::assert_snapshot!(refused(&[options], &[]), @r#"
     × `plugins.0.when.every`: `5 epoch s` is not an interval
       ╭─[run.toml:33:18]
    32 │ kind = "early-stopping"
    33 │ when = { every = "5 epoch s", at = ["the end"], best = { val_loss = "low" } }
       ·                  ─────┬─────
       ·                       ╰── here
    34 │ options = { patience = 5 }
       ╰────
     hint: accepted: a whole number and a unit, as in `1 epoch`, `5 epochs`, `100 steps`, `30 s`, `10 min` or `2 h`

     × `plugins.0.when.at.0`: `the end` is not a point of a run
       ╭─[run.toml:33:37]
    32 │ kind = "early-stopping"
    33 │ when = { every = "5 epoch s", at = ["the end"], best = { val_loss = "low" } }
       ·                                     ────┬────
       ·                                         ╰── here
    34 │ options = { patience = 5 }
       ╰────
     hint: accepted: `epoch 30`, `step 100`, `end` or `failure`

     × `plugins.0.when.best.val_loss` cannot be `low`
       ╭─[run.toml:33:69]
    32 │ kind = "early-stopping"
    33 │ when = { every = "5 epoch s", at = ["the end"], best = { val_loss = "low" } }
       ·                                                                     ──┬──
       ·                                                                       ╰── not known here
    34 │ options = { patience = 5 }
       ╰────
     hint: accepted: `min` or `max`
    "#);
}

#[test]
fn bad_if() {
    insta::assert_snapshot!(refused(&[("options =", "if = \"val_loss below 0.5\"\noptions =")], &[]), @r#"
     × `plugins.0.if`: `val_loss below 0.5` is not a condition: column 10: `below` is not expected here
       ╭─[run.toml:33:6]
    32 │ kind = "early-stopping"
    33 │ if = "val_loss below 0.5"
       ·      ──────────┬─────────
       ·                ╰── here
    34 │ options = { patience = 5 }
       ╰────
     hint: a condition compares numbers, as in `val_loss < 0.5` or `epoch > 2 and best(val_loss) < 0.5`
    "#);
}

#[test]
fn duplicate_instance_names() {
    let plugin = ("[[plugins]]", "[[plugins]]\nkind = \"early-stopping\"\n\n[[plugins]]");
    insta::assert_snapshot!(refused(&[plugin], &[]), @r#"
     × two plugins have the name `early-stopping`
       ╭─[run.toml:32:8]
    31 │ [[plugins]]
    32 │ kind = "early-stopping"
       ·        ────────┬───────
       ·                ╰── the first
    33 │ 
    34 │ [[plugins]]
    35 │ kind = "early-stopping"
       ·        ────────┬───────
       ·                ╰── the second
    36 │ options = { patience = 5 }
       ╰────
     hint: give one of them another name, as in `name = "early-stopping-2"`
    "#);
}

#[test]
fn alias_beside_its_key() {
    insta::assert_snapshot!(refused(&[("options =", "frequency = 2\nwhen.every = \"1 epoch\"\noptions =")], &[]), @r#"
     × `frequency` and `when.every` are both given
       ╭─[run.toml:33:1]
    32 │ kind = "early-stopping"
    33 │ frequency = 2
       · ────┬────
       ·     ╰── an alias
    34 │ when.every = "1 epoch"
       ·      ──┬──
       ·        ╰── what it stands for
    35 │ options = { patience = 5 }
       ╰────
     hint: `frequency` fills `when.every`: remove one of them
    "#);
}

#[test]
fn both_epochs_and_steps() {
    insta::assert_snapshot!(refused(&[("epochs = 12", "epochs = 12\nsteps = 100")], &[]), @r#"
     × `train.epochs` and `train.steps` are both given
       ╭─[run.toml:23:1]
    22 │ [train]
    23 │ epochs = 12
       · ───┬──
       ·    ╰── the length in epochs
    24 │ steps = 100
       · ──┬──
       ·   ╰── the length in steps
    25 │ batch_size = 64
       ╰────
     hint: a run has one length: remove one of them
    "#);
}

#[test]
fn neither_epochs_nor_steps() {
    insta::assert_snapshot!(refused(&[("epochs = 12\n", "")], &[]), @r#"
     × the run has no length
       ╭─[run.toml:22:2]
    21 │ 
    22 │ [train]
       ·  ──┬──
       ·    ╰── neither `epochs` nor `steps` is given
    23 │ batch_size = 64
       ╰────
     hint: add `epochs = 10`, or `steps = 1000`
    "#);
}

#[test]
fn mistyped_epochs() {
    insta::assert_snapshot!(refused(&[("epochs", "epoch")], &[]), @r#"
     × unknown key `epoch` in `train`
       ╭─[run.toml:23:1]
    22 │ [train]
    23 │ epoch = 12
       · ──┬──
       ·   ╰── not known here
    24 │ batch_size = 64
       ╰────
     hint: did you mean `epochs`?
    "#);
}

#[test]
fn epochs_in_the_file_and_steps_set() {
    insta::assert_snapshot!(refused(&[], &["train.steps=100"]), @r#"
     × `train.epochs` and `train.steps` are both given
       ╭─[run.toml:23:1]
    22 │ [train]
    23 │ epochs = 12
       · ───┬──
       ·    ╰── the length in epochs
    24 │ batch_size = 64
       ╰────
     × see also
      ╭─[--set:1:7]
    1 │ train.steps=100
      ·       ──┬──
      ·         ╰── the length in steps
      ╰────
     hint: a run has one length: remove one of them
    "#);
}

#[test]
fn evaluation_by_the_clock() {
    insta::assert_snapshot!(refused(&[], &["eval.every=10 min"]), @r#"
     × `eval.every` cannot be a time
      ╭─[--set:1:12]
    1 │ eval.every=10 min
      ·            ───┬──
      ·               ╰── a time
      ╰────
     hint: use epochs or steps, so that the run is repeatable
    "#);
}

#[test]
fn bad_set() {
    let overrides = ["train.epochs", "train.epochs.x=1", "plugins.early.options={}", "run.seed=[1,", "run.sed=1"];
    insta::assert_snapshot!(refused(&[], &overrides), @r#"
     × `--set` takes `KEY=VALUE`
      ╭─[--set:1:1]
    1 │ train.epochs
      · ──────┬─────
      ·       ╰── no `=` in it
      ╰────
     hint: for example `--set train.epochs=3`

     × `train.epochs` is not a table
      ╭─[--set:1:14]
    1 │ train.epochs.x=1
      ·              ┬
      ·              ╰── it has no keys
      ╰────

     × `plugins` has no entry `early`
      ╭─[--set:1:9]
    1 │ plugins.early.options={}
      ·         ──┬──
      ·           ╰── no such entry
      ╰────
     hint: did you mean `early-stopping`?

     × `--set` is not valid TOML: unclosed array, expected `]`
      ╭─[--set:1:12]
    1 │ run.seed=[1,
      ·            ┬
      ·            ╰── here
      ╰────

     × unknown key `sed` in `run`
      ╭─[--set:1:5]
    1 │ run.sed=1
      ·     ─┬─
      ·      ╰── not known here
      ╰────
     hint: did you mean `seed`?
    "#);
}

#[test]
fn toml_syntax_error() {
    insta::assert_snapshot!(refused(&[("seed = 42", "seed = = 42")], &[]), @r#"
     × `run.toml` is not valid TOML: extra `=`, expected nothing
      ╭─[run.toml:3:8]
    2 │ name = "digits"
    3 │ seed = = 42
      ·        ┬
      ·        ╰── here
    4 │ 
      ╰────
    "#);
}

#[test]
fn plugin_options_are_checked_with_their_place() {
    let loaded = load("run.toml", DIGITS, &[], &[]).expect("the run file is right");
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
    insta::assert_snapshot!(render(&problems, Style::plain()), @r#"
     × unknown key `patience` in `plugins.0.options`
       ╭─[run.toml:33:13]
    32 │ kind = "early-stopping"
    33 │ options = { patience = 5 }
       ·             ────┬───
       ·                 ╰── not known here
       ╰────
     hint: did you mean `patiense`?

     × `plugins.0.options` has no `monitor`
       ╭─[run.toml:33:1]
    32 │ kind = "early-stopping"
    33 │ options = { patience = 5 }
       · ───┬───
       ·    ╰── `monitor` is missing
       ╰────
     hint: `monitor`: the metric that is watched
    "#);
}

#[test]
fn a_plugin_without_options_is_checked_as_without_any() {
    let loaded = load("run.toml", &DIGITS.replace("options = { patience = 5 }", ""), &[], &[]).expect("right");
    let schema = serde_json::json!({"type": "object", "required": ["monitor"]});
    let problems = check(&loaded.document, "/plugins/0/options", &schema);
    insta::assert_snapshot!(render(&problems, Style::plain()), @r#"
     × `plugins.0.options` has no `monitor`
       ╭─[run.toml:31:1]
    30 │ 
    31 │ [[plugins]]
       · ─────┬─────
       ·      ╰── `monitor` is missing
    32 │ kind = "early-stopping"
       ╰────
    "#);
}

#[test]
fn a_schema_that_is_none_is_a_problem_and_opens_no_connection() {
    let loaded = load("run.toml", DIGITS, &[], &[]).expect("the run file is right");
    for schema in [serde_json::json!({"type": 1}), serde_json::json!({"$ref": "http://example.com/schema.json"})] {
        assert_eq!(check(&loaded.document, "/plugins/0/options", &schema).len(), 1);
    }
}

#[test]
fn the_defaults_of_the_digits_run() {
    let run_file = load("run.toml", DIGITS, &[], &[]).expect("the run file is right").run_file;
    insta::assert_snapshot!(run_file.resolved_toml().expect("it can be written"), @r#"
    [run]
    name = "digits"
    seed = 42
    device = "auto"
    threads = "auto"
    kernels = "auto"
    by_default = true
    checkpoint_signal = "SIGUSR1"
    hook_warning = "1 min"

    [data]
    format = "csv"
    path = "digits.csv.gz"
    header = false
    target = 64
    categorical_as = "one_hot"
    unknown_category = "error"
    missing = "error"
    missing_label = "error"
    quote = "double"
    decimal = "."
    encoding = "utf-8"
    shape = [1, 8, 8]
    task = "classification"
    classes = 10
    normalize = "none"
    shuffle = true
    drop_last = false

    [data.splits.val]
    fraction = 0.2
    stratified = true

    [[model.layers]]
    type = "conv2d"
    out_channels = 32
    kernel_size = 3
    stride = 1
    padding = 0
    dilation = 1
    groups = 1
    bias = true

    [[model.layers]]
    type = "relu"

    [[model.layers]]
    type = "linear"
    out_features = 10
    bias = true

    [train]
    epochs = 12
    start_epoch = 1
    batch_size = 64
    metrics = []
    accumulate = 1
    precision = "f32"

    [train.loss]
    type = "cross_entropy"
    label_smoothing = 0.0

    [train.optimizer]
    type = "adamw"
    learning_rate = 0.001
    betas = [0.9, 0.999]
    eps = 0.00000001
    weight_decay = 0.01
    decay = "weights"

    [train.schedule]
    type = "constant"

    [eval]
    split = "val"
    metrics = ["accuracy"]
    every = "1 epoch"
    batch_size = 256
    show_results = 0

    [[plugins]]
    kind = "early-stopping"
    name = "early-stopping"
    on_error = "stop"

    [plugins.options]
    patience = 5
    "#);
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn undescribed(schema: &serde_json::Value, place: &str, found: &mut Vec<String>) {
        let properties = schema.get("properties").and_then(|properties| properties.as_object());
        for (key, property) in properties.into_iter().flatten() {
            // A tag is described by the enum.
            if property.get("description").is_none() && property.get("const").is_none() {
                found.push(format!("{place}/{key}"));
            }
        }
        match schema {
            serde_json::Value::Object(members) => {
                members.iter().for_each(|(key, member)| undescribed(member, &format!("{place}/{key}"), found));
            }
            serde_json::Value::Array(entries) => {
                entries.iter().for_each(|entry| undescribed(entry, place, found));
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    undescribed(&schema(), "", &mut found);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_plugin_of_the_command_line_is_appended_once_and_can_be_set() {
    let load_with = |plugins: &[&str], overrides: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        load("run.toml", DIGITS, &owned(plugins), &owned(overrides))
    };
    let arguments = ["progress", "progress=bar", "progress", "other=bar", "early-stopping"];
    let loaded = load_with(&arguments, &["plugins.bar.on_error=ignore"]).expect("the run file is right");
    let names: Vec<&str> = loaded.run_file.plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["early-stopping", "progress", "bar"]);
    assert_eq!(loaded.run_file.plugins[2].on_error, OnError::Ignore);
    for argument in ["", "Progress", "progress=", "progress=a=b"] {
        let Problems(problems) = load_with(&[argument], &[]).expect_err("no name");
        assert_eq!(problems[0].labels()[0].source.name(), "--plugin");
    }
}
