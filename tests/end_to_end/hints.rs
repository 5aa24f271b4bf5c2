//! Hints cure: what a hint says is done, and the error is gone.

use std::path::Path;

use fixture::{TempDir, build_workspace_plugins, folder_of, host, temporary_folder, workspace_root};

/// A run file that is right.
const RIGHT: &str = r#"
[run]
name = "hints"
device = "cpu"
threads = 1
by_default = false

[data]
format = "csv"
path = "digits.csv.gz"
target = 64
classes = 10

[data.splits]
val = { fraction = 0.2 }

[model]
layers = [{ type = "linear", out_features = 10 }]

[train]
epochs = 1
batch_size = 64
metrics = ["accuracy"]
loss = { type = "cross_entropy" }

[train.optimizer]
type = "sgd"
learning_rate = 0.1

[eval]
metrics = ["accuracy"]
"#;

/// Changes of a line to others.
type Edits<'e> = &'e [(&'e str, &'e str)];

/// Something that is wrong, a part of the hint that is given, and what the hint says.
struct Case<'c> {
    wrong: Edits<'c>,
    hint: &'c str,
    cure: Edits<'c>,
}

const fn case<'c>(wrong: Edits<'c>, hint: &'c str, cure: Edits<'c>) -> Case<'c> {
    Case { wrong, hint, cure }
}

const LAYERS: &str = r#"layers = [{ type = "linear", out_features = 10 }]"#;
const RATE: &str = "learning_rate = 0.1";
const LAST: &str = "[eval]\nmetrics = [\"accuracy\"]";

const CASES: &[Case<'_>] = &[
    case(&[("epochs = 1", "epochs = 1\nsteps = 5")], "a run has one length: remove one of them", &[]),
    case(&[("epochs = 1", "")], "add `epochs = 10`", &[("epochs = 1", "epochs = 10")]),
    case(
        &[("[eval]", "[eval]\nevery = \"5 minutes\"")],
        "use epochs or steps",
        &[("[eval]", "[eval]\nevery = \"2 epochs\"")],
    ),
    case(&[("batch_size = 64", "batchsize = 64")], "did you mean `batch_size`?", &[]),
    case(&[(RATE, "lr = 0.1")], "`learning_rate`", &[]),
    case(
        &[("batch_size = 64", "batch_size = 5000")],
        "make it 1438 or less",
        &[("batch_size = 64", "batch_size = 1438")],
    ),
    case(
        &[
            ("batch_size = 64", "batch_size = 479"),
            (LAYERS, "layers = [{ type = \"linear\", out_features = 10 }, { type = \"batch_norm\" }]"),
        ],
        "set `drop_last = true` in `[data]`",
        &[
            ("batch_size = 64", "batch_size = 479"),
            (LAYERS, "layers = [{ type = \"linear\", out_features = 10 }, { type = \"batch_norm\" }]"),
            ("classes = 10", "classes = 10\ndrop_last = true"),
        ],
    ),
    case(&[(LAYERS, "")], "give `[model]` its `layers`", &[]),
    case(
        &[(LAYERS, "layers = [{ type = \"linear\", out_features = 10 }]\ntorchscript = \"m.pt\"")],
        "remove one of them",
        &[],
    ),
    case(
        &[(LAYERS, "layers = [{ type = \"relu\" }]"), ("classes = 10", "classes = 64")],
        "add a layer that learns, such as `{ type = \"linear\", out_features = 10 }`",
        &[(LAYERS, "layers = [{ type = \"relu\" }, { type = \"linear\", out_features = 10 }]")],
    ),
    case(
        &[("loss = { type = \"cross_entropy\" }", "")],
        "say what to minimize, as in `loss = { type = \"cross_entropy\" }`",
        &[],
    ),
    case(&[("loss = { type = \"cross_entropy\" }", "loss = { type = \"mse\" }")], "cross_entropy", &[]),
    case(
        &[("loss = { type = \"cross_entropy\" }", "loss = { type = \"cross_entropy\", class_weights = [1, 2] }")],
        "give 10 numbers",
        &[(
            "loss = { type = \"cross_entropy\" }",
            "loss = { type = \"cross_entropy\", class_weights = [1, 2, 1, 1, 1, 1, 1, 1, 1, 1] }",
        )],
    ),
    case(&[(LAYERS, "layers = [{ type = \"linear\", out_features = 12 }]")], "let the last layer give [10]", &[]),
    case(&[(LAST, "[eval]\nmetrics = [\"acuracy\"]")], "did you mean `accuracy`?", &[]),
    case(
        &[(LAST, "[eval]\nmetrics = [\"f1\", \"f1\"]")],
        "remove one of them",
        &[(LAST, "[eval]\nmetrics = [\"f1\"]")],
    ),
    case(&[(LAST, "[eval]\nmetrics = [\"rmse\"]")], "for classes there are `accuracy`", &[]),
    case(
        &[(LAST, "[eval]\nmetrics = [\"top10_error\"]")],
        "name one of fewer, as in `top2_error`",
        &[(LAST, "[eval]\nmetrics = [\"top2_error\"]")],
    ),
    case(&[("[eval]", "[eval]\nsplit = \"vall\"")], "did you mean `val`?", &[("[eval]", "[eval]\nsplit = \"val\"")]),
    case(
        &[("[eval]", "[eval]\nsplit = \"holdout\"")],
        "name it under `[data.splits]`",
        &[("[eval]", "[eval]\nsplit = \"holdout\""), ("val = {", "holdout = {")],
    ),
    case(
        &[(RATE, "learning_rate = 0.1\ngroups = [{ pattern = \"head.*\" }]")],
        "the model has `fc1.weight`, `fc1.bias`; `*` stands for any text",
        &[(RATE, "learning_rate = 0.1\ngroups = [{ pattern = \"fc1.*\" }]")],
    ),
    case(
        &[(
            RATE,
            "learning_rate = 0.1\ngroups = [{ pattern = \"fc1.*\", learning_rate = 1.0, learning_rate_factor = 2.0 }]",
        )],
        "remove one of them",
        &[(RATE, "learning_rate = 0.1\ngroups = [{ pattern = \"fc1.*\", learning_rate_factor = 2.0 }]")],
    ),
    case(
        &[("epochs = 1", "epochs = 1\nschedule = { type = \"multi_step\", milestones = [2, 1] }")],
        "give them in order",
        &[("epochs = 1", "epochs = 1\nschedule = { type = \"multi_step\", milestones = [1, 2] }")],
    ),
    case(
        &[("epochs = 1", "epochs = 1\nwarmup = { start = 0.5 }")],
        "`{ steps = 500 }` or `{ epochs = 1 }`",
        &[("epochs = 1", "epochs = 1\nwarmup = { steps = 500 }")],
    ),
    case(
        &[("device = \"cpu\"", "device = \"cuda:7\"")],
        "`auto` uses one if there is one",
        &[("device = \"cpu\"", "device = \"auto\"")],
    ),
    case(&[("target = 64", "target = \"digit\"")], "give the column's index, counted from 0", &[]),
    case(&[("classes = 10", "classes = 9")], "correct the label, or `classes`", &[]),
    case(
        &[("val = { fraction = 0.2 }", "val = { fraction = 0.001 }")],
        "set `stratified = false`",
        &[("val = { fraction = 0.2 }", "val = { fraction = 0.001, stratified = false }")],
    ),
    case(
        &[(LAST, "[eval]\nmetrics = [\"accuracy\"]\n[[plugins]]\nkind = \"early_stopping\"")],
        "did you mean `early-stopping`?",
        &[(LAST, "[eval]\nmetrics = [\"accuracy\"]\n[[plugins]]\nkind = \"early-stopping\"")],
    ),
    case(
        &[(
            LAST,
            "[eval]\nmetrics = [\"accuracy\"]\n[[plugins]]\nkind = \"early-stopping\"\noptions = { metric = \"val_f1\" }",
        )],
        "add `f1` to `eval.metrics`",
        &[(
            LAST,
            "[eval]\nmetrics = [\"f1\"]\n[[plugins]]\nkind = \"early-stopping\"\noptions = { metric = \"val_f1\" }",
        )],
    ),
    case(
        &[(
            LAST,
            "[eval]\nmetrics = [\"accuracy\"]\n[[plugins]]\nkind = \"early-stopping\"\noptions = { metric = \"val_loss\", patience = 0 }",
        )],
        "",
        &[(
            LAST,
            "[eval]\nmetrics = [\"accuracy\"]\n[[plugins]]\nkind = \"early-stopping\"\noptions = { metric = \"val_loss\", patience = 1 }",
        )],
    ),
    case(
        &[(LAST, "[[plugins]]\nkind = \"early-stopping\"")],
        "nothing is evaluated: add `[eval]`",
        &[(LAST, "[eval]\n[[plugins]]\nkind = \"early-stopping\"")],
    ),
    case(
        &[(LAST, "[eval]\n[[plugins]]\nkind = \"csv\"\n[[plugins]]\nkind = \"csv\"")],
        "give one of them another name, as in `name = \"csv-2\"`",
        &[(LAST, "[eval]\n[[plugins]]\nkind = \"csv\"\n[[plugins]]\nkind = \"csv\"\nname = \"csv-2\"")],
    ),
    case(
        &[(
            LAST,
            "[eval]\n[[plugins]]\nkind = \"csv\"\n[[plugins]]\nkind = \"csv\"\nname = \"b\"\noptions = { file = \"metrics.csv\" }",
        )],
        "give one of them another `file`",
        &[(
            LAST,
            "[eval]\n[[plugins]]\nkind = \"csv\"\n[[plugins]]\nkind = \"csv\"\nname = \"b\"\noptions = { file = \"b.csv\" }",
        )],
    ),
];

fn edited(edits: Edits<'_>) -> String {
    edits.iter().fold(RIGHT.to_owned(), |text, (line, other)| {
        assert!(text.contains(line), "the run file has `{line}`");
        text.replacen(line, other, 1)
    })
}

/// Whether the run file is right, and what is said of it.
fn checked(folder: &Path, plugins: &TempDir, text: &str) -> (bool, String) {
    let path = folder.join("run.toml");
    std::fs::write(&path, text).expect("the run file is written");
    let mut command = host();
    command.current_dir(folder).args(["config", "check"]).arg(path).arg("--plugins").arg(plugins.path());
    let output = command.output().expect("the host starts");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_a_hint_says_cures() {
    let folder = temporary_folder();
    std::fs::copy(workspace_root().join("examples/digits/digits.csv.gz"), folder.path().join("digits.csv.gz"))
        .expect("the digits are there");
    let plugins = folder_of([build_workspace_plugins()["standard"].as_path()]);
    assert!(checked(folder.path(), &plugins, RIGHT).0);
    for Case { wrong, hint, cure } in CASES {
        let (right, told) = checked(folder.path(), &plugins, &edited(wrong));
        assert!(!right, "{wrong:?} is refused");
        let hints: Vec<&str> = told.lines().filter_map(|line| line.trim_start().strip_prefix("hint: ")).collect();
        assert!(hints.is_empty() == hint.is_empty(), "{wrong:?}: {told}");
        assert!(hint.is_empty() || hints.iter().any(|given| given.contains(hint)), "{wrong:?}: {told}");
        let (right, told) = checked(folder.path(), &plugins, &edited(cure));
        assert!(right, "after {hint:?}: {told}");
    }
}
