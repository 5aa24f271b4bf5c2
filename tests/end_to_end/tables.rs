//! Tables as people have them, through the real program.

use fixture::{lines, shown, workspace_root};
use serde_json::Value;

use crate::data_run::{DataRun, REST};

/// The rest of a run file for two classes and few rows.
fn rest_of_two_classes() -> String {
    REST.replace("out_features = 10", "out_features = 2").replace("batch_size = 200", "batch_size = 2")
}

#[test]
fn what_is_done_to_a_table_is_told_at_the_start() {
    let run = DataRun::new();
    let people = "id;age;city;income\n1;30,5;Z\u{fc}rich;low\n2;41,5;Paris;high\n3;NA;Paris;low\n4;28;Z\u{fc}rich;high\n\
                  5;39;Paris;\n6;50;Paris;high\n7;61,5;Z\u{fc}rich;low\n";
    // All characters are in the first 256, which Latin-1 has.
    run.write("people.csv", people.chars().map(|character| character as u8).collect::<Vec<u8>>());
    let page = std::fs::read_to_string(workspace_root().join("host/README.md")).expect("the page is there");
    let (_, block) = page.split_once("```toml\n[data]\nformat = \"csv\"").expect("the page has a table");
    let (block, _) = block.split_once("```").expect("the block ends");
    let data = format!("format = \"csv\"{block}");
    let rest = rest_of_two_classes();
    let (rest, _) = rest.split_once("[eval]").expect("there is an evaluation");
    let output = run.run_with("people", &data, rest, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: Vec<&str> = told.lines().filter(|line| line.starts_with("data: ")).collect();
    assert_eq!(
        told,
        [
            "data: `people.csv`: 1 row without a target is left out",
            "data: `city` has 2 categories: `Paris`, `Z\u{fc}rich`",
            "data: `age`: the median of `train`, 41.5, replaces 1 missing value",
        ]
    );
    let described = std::fs::read_to_string(run.folder.path().join("people/model.json")).expect("it was written");
    let described: Value = serde_json::from_str(&described).expect("it is JSON");
    assert_eq!(
        described["samples"],
        serde_json::json!({"type": "table", "categorical_as": "one_hot", "columns": [
            {"column": "age", "type": "numbers", "fill": 41.5},
            {"column": "city", "type": "categories", "names": ["Paris", "Z\u{fc}rich"]},
        ]})
    );
}

#[test]
fn indices_of_categories_are_embedded() {
    let run = DataRun::new();
    let lines: String =
        (0..40).map(|row| format!("{},{},{}\n", ["x", "y"][row % 2], ["p", "q", "r"][row % 3], row % 2)).collect();
    run.write("table.csv", lines);
    let data = "format = \"csv\"\npath = \"table.csv\"\ntarget = 2\ncategorical = [0, 1]\ncategorical_as = \"index\"\n\
                splits = { val = { fraction = 0.2 } }";
    let embedding =
        |rows| format!("layers = [\n  {{ type = \"embedding\", num_embeddings = {rows}, embedding_dim = 4 }},");
    let with =
        |rows| rest_of_two_classes().replace("layers = [", &embedding(rows)).replace("epochs = 2", "epochs = 20");
    let output = run.run_with("embedded", data, &with(5), &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("data: the features are indices for an `embedding` of `num_embeddings = 5`"), "{told}");
    let metrics = lines_of(&run, "embedded");
    assert_eq!(metrics["val_accuracy"], 1.0);
    let output = run.run_with("refused", data, &with(4), &[]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("num_embeddings = 5"));
}

#[test]
fn of_two_classes_the_positive_one_is_measured() {
    let run = DataRun::new();
    let row =
        |row: usize| format!("{},{}\n", row as f32 * 0.37 % 1.0, if row.is_multiple_of(3) { "yes" } else { "no" });
    run.write("table.csv", (0..60).map(row).collect::<String>());
    let measured = |name: &str, key: &str| {
        let data = format!(
            "format = \"csv\"\npath = \"table.csv\"\ntarget = 1\n{key}\nsplits = {{ val = {{ fraction = 0.4 }} }}"
        );
        let rest = rest_of_two_classes().replace("\"accuracy\"", "\"f1\", \"f1_macro\", \"f1_micro\", \"accuracy\"");
        let output = run.run_with(name, &data, &rest, &[]);
        match output.status.success() {
            true => Ok(lines_of(&run, name)),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    };
    let number = |line: &Value, name: &str| line[name].as_f64().expect("a number");
    // In alphabetical order, `yes` is the second class.
    let usual = measured("usual", "").unwrap();
    let yes = measured("yes", "positive = \"yes\"").unwrap();
    let no = measured("no", "positive = \"no\"").unwrap();
    for split in ["train", "val"] {
        let f1 = |line: &Value| number(line, &format!("{split}_f1"));
        assert_eq!(f1(&usual), f1(&yes));
        assert_ne!(f1(&yes), f1(&no));
        assert!((f1(&yes) + f1(&no) - 2.0 * number(&no, &format!("{split}_f1_macro"))).abs() < 1e-12);
        assert_eq!(number(&no, &format!("{split}_f1_micro")), number(&no, &format!("{split}_accuracy")));
    }
    let told = measured("other", "positive = \"maybe\"").unwrap_err();
    let expected = "`data.positive` = `maybe` must be the name or the number of one of the two classes";
    assert!(told.contains(expected), "{told}");
}

/// The last metrics of a run.
fn lines_of(run: &DataRun, name: &str) -> Value {
    lines(&run.folder.path().join(name).join("metrics.jsonl")).pop().expect("there is an epoch")
}

#[test]
fn a_header_finds_the_columns_of_another_file() {
    let run = DataRun::new();
    let row = |row: usize| (row as f32 * 0.37 % 1.0, row % 2);
    let train: String = (0..40).map(row).map(|(noise, class)| format!("{class},{noise},{class}\n")).collect();
    let test: String = (0..40).map(row).map(|(noise, class)| format!("{class},{class},{noise}\n")).collect();
    run.write("train.csv", format!("signal,noise,kind\n{train}"))
        .write("test.csv", format!("kind,signal,noise\n{test}"));
    run.write("headless.csv", &test);
    let data = |test: &str| {
        format!(
            "format = \"csv\"\npath = \"train.csv\"\nheader = true\ntarget = \"kind\"\nsplits = {{ test = {{ path = \"{test}\" }} }}"
        )
    };
    let rest = rest_of_two_classes().replace("[eval]", "[eval]\nsplit = \"train\"").replace("epochs = 2", "epochs = 5");
    let output = run.run_with("named", &data("test.csv"), &rest, &["-v"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches("columns are in another order than in the training file").count(), 1, "{told}");
    let test = lines_of(&run, "named");
    assert_eq!((&test["kind"], &test["test_accuracy"]), (&Value::from("test"), &Value::from(1.0)));
    let output = run.run_with("refused", &data("headless.csv"), &rest, &[]);
    insta::assert_snapshot!(shown(&output, &[(run.folder.path(), "[FOLDER]")]), @r#"
    exit code: 2
    -- stderr
      × `headless.csv` has no header: line 1 has none of the names of `train.csv`
        ╭─[run.toml:12:28]
     11 │ target = "kind"
     12 │ splits = { test = { path = "headless.csv" } }
        ·                            ──────────────
     13 │ 
        ╰────
      hint: add the header of the training file, since columns are found by their names
    "#);
}
