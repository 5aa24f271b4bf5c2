//! What metrics mean, and where they are shown.

use fixture::lines;
use serde_json::Value;

use crate::small_run::SmallRun;

/// The number of a metric in a line.
fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{line} has no number `{name}`"))
}

#[test]
fn a_confusion_matrix_is_shown_with_the_names_of_its_classes() {
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    let ran = SmallRun::with_libraries(&["standard", "report"])
        .instance("kind = 'json-lines'")
        .instance("kind = 'csv'")
        .instance("kind = 'print-metrics'")
        .instance("kind = 'report'")
        .set("eval.metrics=[\"accuracy\", \"confusion_matrix\"]")
        .set(&format!("data.classes={}", serde_json::json!(names)))
        .set("data.first_class=0")
        .run()
        .succeeded();

    let epochs = lines(&ran.out.join("metrics.jsonl"));
    assert_eq!(epochs.len(), 2);
    for line in &epochs {
        let counts: Vec<Vec<u64>> =
            serde_json::from_value(line["val_confusion_matrix"].clone()).expect("rows of counts");
        let right: u64 = (0..10).map(|class| counts[class][class]).sum();
        let all: u64 = counts.iter().flatten().sum();
        assert_eq!((counts.len(), all), (10, 359));
        assert!((right as f64 / all as f64 - number(line, "val_accuracy")).abs() < 1e-9);
    }

    let table = std::fs::read_to_string(ran.out.join("metrics.csv")).expect("it was written");
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    let column = rows.headers().expect("a header").iter().position(|name| name == "val_confusion_matrix[three,nine]");
    let cells: Vec<f64> = rows
        .records()
        .map(|row| row.expect("a row")[column.expect("a column of the cell")].parse().expect("a count"))
        .collect();
    let expected: Vec<f64> = epochs.iter().filter_map(|line| line["val_confusion_matrix"][3][9].as_f64()).collect();
    assert_eq!(cells, expected);

    let told = ran.shown();
    assert!(told.contains("val_confusion_matrix after step 6 (rows: true class, columns: predicted)"), "{told}");
    let row = told.lines().find(|line| line.trim_start().starts_with("three ")).expect("a row of the table");
    let counts: Vec<u64> = row.split_whitespace().skip(1).map(|count| count.parse().expect("a count")).collect();
    assert_eq!(serde_json::json!(counts), epochs[1]["val_confusion_matrix"][3]);

    let page = std::fs::read_to_string(ran.out.join("report.html")).expect("it was written");
    let (_, data) = page.split_once("id=\"data\">").expect("the page has data");
    let (data, _) = data.split_once("</script>").expect("it ends");
    let data: Value = serde_json::from_str(data).expect("it is JSON");
    assert_eq!(data["matrices"][0]["classes"], serde_json::json!(names));
    assert_eq!(data["matrices"][0]["counts"][39], epochs[1]["val_confusion_matrix"][3][9]);
}

#[test]
fn a_row_of_a_step_has_its_own_loss_beside_the_mean() {
    let ran = SmallRun::with_libraries(&["standard"]).instance("kind = 'json-lines'\noptions = { every_steps = 1 }");
    let all = lines(&ran.run().succeeded().out.join("metrics.jsonl"));
    let (steps, epochs): (Vec<&Value>, Vec<&Value>) = all.iter().partition(|line| line["kind"] == "step");
    assert_eq!((steps.len(), epochs.len()), (6, 2));
    let sizes = [480.0, 480.0, 478.0];
    for (steps, epoch) in steps.chunks(3).zip(epochs) {
        let (mut sum, mut samples) = (0.0, 0.0);
        for (step, size) in steps.iter().zip(sizes) {
            sum += number(step, "step_loss") * size;
            samples += size;
            assert!((number(step, "train_loss") - sum / samples).abs() < 1e-6, "{step}");
        }
        assert!(number(steps[2], "step_loss") < number(steps[2], "train_loss"), "the loss falls");
        assert_eq!(epoch["train_loss"], steps[2]["train_loss"]);
        assert_eq!(epoch.get("step_loss"), None);
    }
}
