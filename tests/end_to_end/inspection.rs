//! `host config` and `host model`: a run file without a run.

use std::path::Path;
use std::process::Output;

use fixture::{TempDir, build_workspace_plugins, folder_of, host, shown, temporary_folder};
use serde_json::Value;

const RUN_FILE: &str = r#"[run]
name = "small"

[data]
format = "csv"
path = "digits.csv.gz"
target = 64
shape = [1, 8, 8]
classes = 10
normalize = "range"

[model]
layers = [
  { type = "conv2d", out_channels = 4, kernel_size = 3 },
  { type = "residual", layers = [
    { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, groups = 4 },
    { type = "silu" },
  ] },
  { type = "concat", branches = [[{ type = "adaptive_avg_pool2d" }], [{ type = "max_pool2d", kernel_size = 6 }]] },
  { type = "flatten" },
  { type = "linear", out_features = 10 },
]

[train]
epochs = 1
batch_size = 64
loss = { type = "cross_entropy" }
optimizer = { type = "sgd", learning_rate = 0.1 }

[[plugins]]
kind = "early-stopping"
options = { metric = "train_loss" }
"#;

/// A folder with the run file, changed by replacing texts, and its data.
fn folder(replace: &[(&str, &str)]) -> TempDir {
    let folder = temporary_folder();
    let text = replace.iter().fold(RUN_FILE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "`{from}` is not in the run file");
        text.replacen(from, to, 1)
    });
    std::fs::write(folder.path().join("run.toml"), text).expect("the run file can be written");
    let data = fixture::workspace_root().join("examples/digits/digits.csv.gz");
    std::fs::copy(data, folder.path().join("digits.csv.gz")).expect("the data can be copied");
    folder
}

fn host_in(folder: &TempDir, arguments: &[&str]) -> Output {
    host().args(arguments).current_dir(folder.path()).output().expect("the host starts")
}

fn shown_in(folder: &TempDir, output: &Output) -> String {
    shown(output, &[(folder.path(), "[FOLDER]")])
}

#[test]
fn a_model_is_shown_as_a_table() {
    let folder = folder(&[]);
    insta::assert_snapshot!(shown_in(&folder, &host_in(&folder, &["model", "run.toml"])), @"
    exit code: 0
    -- stdout
    NODE             OPERATOR             READS                             SHAPE      PARAMETERS  FLOPS
    inputs           input                                                  [1, 8, 8]
    conv1            conv2d               inputs                            [4, 6, 6]  40          2736
    residual1.conv1  conv2d               conv1                             [4, 6, 6]  40          2736
    residual1.silu1  silu                 residual1.conv1                   [4, 6, 6]  0           288
    residual1.add    add                  conv1, residual1.silu1            [4, 6, 6]  0           144
    concat1.0.pool1  adaptive_avg_pool2d  residual1.add                     [4, 1, 1]  0           144
    concat1.1.pool1  max_pool2d           residual1.add                     [4, 1, 1]  0           144
    concat1.concat   concat               concat1.0.pool1, concat1.1.pool1  [8, 1, 1]  0           8
    flatten1         flatten              concat1.concat                    [8]        0           0
    fc1              linear               flatten1                          [10]       90          170
    9 nodes, 170 parameters (0.7 KiB); 0.006 MFLOP forward for a sample, 0.4 for a batch of 64
    ");
}

#[test]
fn a_model_as_json_is_the_graph_that_plugins_get() {
    let folder = folder(&[]);
    let output = host_in(&folder, &["model", "run.toml", "--json", "--set", "model.layers.4.out_features=12"]);
    let graph: Value = serde_json::from_slice(&output.stdout).expect("the graph is JSON");
    assert_eq!(graph["nodes"][0]["op"]["type"], "conv2d");
    assert_eq!(graph["nodes"][8]["shape"], serde_json::json!([12]));
}

#[test]
fn a_layer_that_does_not_fit_is_shown_in_its_place() {
    let folder = folder(&[("groups = 4", "groups = 3")]);
    insta::assert_snapshot!(shown_in(&folder, &host_in(&folder, &["model", "run.toml"])), @r#"
    exit code: 2
    -- stderr
      × `layers[1].layers[0]` (`residual1.conv1`, conv2d) has `groups` = `3`, which must be a divisor of the channels of input and output
        ╭─[run.toml:16:5]
     15 │   { type = "residual", layers = [
     16 │     { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, groups = 3 },
        ·     ───────────────────────────────────────────────────────────────────────────────
     17 │     { type = "silu" },
        ╰────
    "#);
}

#[test]
fn a_valid_run_file_is_checked_with_its_plugins() {
    let folder = folder(&[]);
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    let plugins = plugins.path().display().to_string();
    let check = ["config", "check", "run.toml", "--plugins", &plugins];
    insta::assert_snapshot!(shown_in(&folder, &host_in(&folder, &check)), @"
    exit code: 0
    -- stdout
    `run.toml` is valid: 9 nodes, 170 parameters, callbacks early-stopping, checkpoint, progress, print-metrics, json-lines
    ");
    let resolved = host_in(&folder, &[check.as_slice(), &["--resolved"]].concat());
    std::fs::write(folder.path().join("resolved.toml"), &resolved.stdout).expect("it can be written");
    let again = host_in(&folder, &["config", "check", "resolved.toml", "--plugins", &plugins, "--resolved"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), String::from_utf8_lossy(&resolved.stdout));
    assert!(!Path::new(&folder.path().join("runs")).exists(), "nothing is made");
}

#[test]
fn all_errors_are_reported_at_once() {
    let folder = folder(&[("\"silu\"", "\"swish\""), ("epochs = 1", "epochs = 0"), ("0.1 }", "-0.1 }")]);
    insta::assert_snapshot!(shown_in(&folder, &host_in(&folder, &["config", "check", "run.toml"])), @r#"
    exit code: 2
    -- stderr
      × `model.layers.1.layers.1.type` cannot be `swish`
        ╭─[run.toml:17:14]
     16 │     { type = "conv2d", out_channels = 4, kernel_size = 3, padding = 1, groups = 4 },
     17 │     { type = "swish" },
        ·              ───┬───
        ·                 ╰── not known here
     18 │   ] },
        ╰────
      hint: accepted: `linear`, `conv1d`, `conv2d`, `conv_transpose2d`, `batch_norm`, `layer_norm`, `rms_norm`, `group_norm`, `max_pool2d`, `avg_pool2d`, `adaptive_avg_pool2d`, `relu`, `leaky_relu`, `elu`, `hard_swish`, `hard_sigmoid`, `gelu`, `silu`, `tanh`, `sigmoid`, `softmax`, `flatten`, `reshape`, `permute`, `dropout`, `embedding`, `positional_embedding`, `multi_head_attention`, `lstm`, `gru`, `upsample`, `residual`, `repeat`, `concat` or `parallel`

      × `train.epochs` must be at least 1, found `0`
        ╭─[run.toml:25:10]
     24 │ [train]
     25 │ epochs = 0
        ·          ┬
        ·          ╰── here
     26 │ batch_size = 64
        ╰────

      × `train.optimizer.learning_rate` must be at least 0, found `-0.1`
        ╭─[run.toml:28:45]
     27 │ loss = { type = "cross_entropy" }
     28 │ optimizer = { type = "sgd", learning_rate = -0.1 }
        ·                                             ──┬─
        ·                                               ╰── here
     29 │ 
        ╰────
    "#);
}

#[test]
fn the_schema_of_run_files_accepts_the_example() {
    let folder = folder(&[]);
    let output = host_in(&folder, &["config", "schema"]);
    let schema: Value = serde_json::from_slice(&output.stdout).expect("the schema is JSON");
    let run_file = |text: &str| -> Value {
        serde_json::to_value(toml::from_str::<toml::Value>(text).expect("it is TOML")).expect("it is JSON")
    };
    assert!(jsonschema::is_valid(&schema, &run_file(RUN_FILE)));
    assert!(!jsonschema::is_valid(&schema, &run_file(&RUN_FILE.replace("batch_size", "batchsize"))));
}

#[test]
fn sizes_that_64_bits_cannot_count_are_refused() {
    let folder = folder(&[]);
    let layer = |features: u64| format!("{{ type = \"linear\", out_features = {features} }}");
    let layers = |sizes: &[u64]| {
        let layers: Vec<String> = sizes.iter().map(|size| layer(*size)).collect();
        format!("model.layers=[{{ type = \"flatten\" }}, {}]", layers.join(", "))
    };
    let told = |sizes: &[u64]| shown_in(&folder, &host_in(&folder, &["model", "run.toml", "--set", &layers(sizes)]));
    let tensor = told(&[3_000_000_000, 4_000_000_000, 10]);
    let expected =
        "(`fc2`, linear) makes `fc2.weight` of shape [4000000000, 3000000000]: 64 bits cannot count its bytes";
    assert!(tensor.starts_with("exit code: 2") && tensor.contains(expected), "{tensor}");
    // Each of them could be counted.
    let together = told(&[1_000_000_000; 4]);
    assert!(together.starts_with("exit code: 2") && together.contains("makes `fc3.weight`"), "{together}");
}

#[test]
fn an_embedding_that_is_too_small_for_the_text_is_reported() {
    let example = fixture::workspace_root().join("examples/shakespeare/run.toml");
    let output = host()
        .arg("model")
        .arg(&example)
        .args(["--set", "model.layers.0.num_embeddings=60"])
        .output()
        .expect("the host starts");
    insta::assert_snapshot!(shown(&output, &[(&example, "[EXAMPLE]")]), @"
    exit code: 2
    -- stderr
      × `embedding1` has 60 rows, and the data has 65 tokens
        ╭─[[EXAMPLE]:19:2]
     18 │ 
     19 │ [model]
        ·  ─────
     20 │ layers = [
        ╰────
      hint: give the layer `num_embeddings = 65`
    ");
}

#[test]
fn the_examples_pass_a_trial() {
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    let folder = temporary_folder();
    let examples = ["digits", "wine", "diabetes", "shakespeare"].map(|name| format!("{name}/run.toml"));
    for example in examples.iter().map(String::as_str).chain(["shakespeare/lstm.toml"]) {
        let run_file = fixture::workspace_root().join("examples").join(example);
        let mut command = host();
        command.arg("run").arg(run_file).arg("--plugins").arg(plugins.path()).arg("--try").current_dir(folder.path());
        let output = command.output().expect("the host starts");
        assert_eq!(output.status.code(), Some(0), "{example}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The problems of `config check --json`, each as `pointer: message | hint`.
fn problems(replace: &[(&str, &str)]) -> Vec<String> {
    let folder = folder(replace);
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    let plugins = plugins.path().display().to_string();
    let output = host_in(&folder, &["config", "check", "run.toml", "--json", "--plugins", &plugins]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(2), b"".as_slice()));
    let told: Value = serde_json::from_slice(&output.stdout).expect("the problems are JSON");
    assert_eq!(told["valid"], false);
    let problems = told["problems"].as_array().expect("there is a list");
    let text = |problem: &Value, key: &str| problem[key].as_str().unwrap_or("-").to_owned();
    problems
        .iter()
        .map(|found| format!("{}: {} | {}", text(found, "pointer"), text(found, "message"), text(found, "hint")))
        .collect()
}

#[test]
fn words_of_other_tools_lead_to_ours() {
    assert_eq!(
        problems(&[("learning_rate = 0.1", "lr = 0.1")]),
        ["/train/optimizer/lr: unknown key `lr` in `train.optimizer` | did you mean `learning_rate`?"]
    );
    assert_eq!(
        problems(&[("out_features = 10", "in_features = 8, out_features = 10")]),
        [
            "/model/layers/4/in_features: unknown key `in_features` in `model.layers.4` | remove it: `in_features` is inferred \
          from what the layer before gives, or from the data"
        ]
    );
    let kind = problems(&[("kind = \"early-stopping\"", "kind = \"early_stopping\"")]);
    assert!(
        kind.iter().all(|problem| problem.contains("did you mean `early-stopping`?")) && !kind.is_empty(),
        "{kind:?}"
    );
}

#[test]
fn a_wrong_last_layer_is_underlined() {
    let folder = folder(&[("out_features = 10", "out_features = 12")]);
    let plugins = folder_of(build_workspace_plugins().values().map(std::path::PathBuf::as_path));
    let plugins = plugins.path().display().to_string();
    insta::assert_snapshot!(shown_in(&folder, &host_in(&folder, &["config", "check", "run.toml", "--plugins", &plugins])), @r#"
    exit code: 2
    -- stderr
      × `cross_entropy` takes one output for each of 10 classes, but the model gives [12]
        ╭─[run.toml:21:3]
     20 │   { type = "flatten" },
     21 │   { type = "linear", out_features = 12 },
        ·   ───────────────────┬──────────────────
        ·                      ╰── gives [12] for a sample
     22 │ ]
     23 │ 
     24 │ [train]
     25 │ epochs = 1
     26 │ batch_size = 64
     27 │ loss = { type = "cross_entropy" }
        · ──┬─
        ·   ╰── takes one output for each of 10 classes
     28 │ optimizer = { type = "sgd", learning_rate = 0.1 }
        ╰────
      hint: let the last layer give [10] for a sample
    "#);
}

#[test]
fn a_target_that_is_not_in_the_table_is_underlined() {
    let folder = folder(&[
        ("target = 64", "target = \"spcies\""),
        ("path = \"digits.csv.gz\"", "path = \"table.csv\"\nheader = true"),
    ]);
    std::fs::write(folder.path().join("table.csv"), "species,length\n0,1.5\n1,2.5\n")
        .expect("the table can be written");
    insta::assert_snapshot!(shown_in(&folder, &host_in(&folder, &["model", "run.toml"])), @r#"
    exit code: 2
    -- stderr
      × `table.csv` has no column `spcies`; it has `species`, `length`
       ╭─[run.toml:8:10]
     7 │ header = true
     8 │ target = "spcies"
       ·          ────┬───
       ·              ╰── not in the file
     9 │ shape = [1, 8, 8]
       ╰────
      hint: did you mean `species`?
    "#);
}

#[test]
fn problems_for_programs() {
    let broken = folder(&[("classes = 10", "clases = 10")]);
    let output = host_in(&broken, &["model", "run.toml", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("the problems are JSON");
    let expected = serde_json::json!({
        "severity": "error", "message": "unknown key `clases` in `data`", "causes": [], "hint": "did you mean `classes`?",
        "file": "run.toml", "line": 9, "column": 1, "pointer": "/data/clases",
    });
    assert_eq!(told["problems"][0], expected);
    let right = folder(&[("[[plugins]]\nkind = \"early-stopping\"\noptions = { metric = \"train_loss\" }\n", "")]);
    let output = host_in(&right, &["config", "check", "run.toml", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).expect("the answer is JSON");
    assert_eq!(told, serde_json::json!({ "valid": true, "problems": [] }));
}
