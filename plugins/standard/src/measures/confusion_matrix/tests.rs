use plugin_api::Tensor;
use plugin_api::testing::{FakeHost, Value, json};

use super::*;

fn host(options: Value) -> FakeHost {
    FakeHost::new::<ConfusionMatrix>(options).unwrap().with_info(|info| {
        info.data.classes = 3;
        info.data.target_names = ["cat", "dog", "bird"].map(str::to_owned).to_vec();
        info.data.splits = [("train", 8), ("val", 4), ("test", 2)].map(|(name, size)| (name.to_owned(), size)).into();
    })
}

/// An evaluation of two batches of two samples.
fn evaluate(host: &mut FakeHost, split: &str) {
    host.evaluation(EventKind::EVAL_START, split, 0, 2).unwrap();
    for (batch, outputs, targets) in
        [(1, [5f32, 1.0, 0.0, 0.0, 2.0, 9.0], [0i64, 1]), (2, [0.0, 1.0, 0.0, 3.0, 2.0, 1.0], [1, -100])]
    {
        host.put_tensor(TensorSet::Outputs, Tensor::new("outputs", &[2, 3], &outputs).unwrap());
        host.put_tensor(TensorSet::Batch, Tensor::new("targets", &[2], &targets).unwrap());
        host.evaluation(EventKind::EVAL_STEP_END, split, batch, 2).unwrap();
    }
    host.evaluation(EventKind::EVAL_END, split, 0, 2).unwrap();
}

/// The cells of the table of a name, joined by commas.
fn table_of(host: &FakeHost, name: &str) -> Vec<String> {
    let record = host.records().iter().find(|record| record.name == name).map(|record| &record.value);
    let Some(RecordValue::Table { columns, rows }) = record else { panic!("{:?}", host.records()) };
    std::iter::once(columns).chain(rows).map(|cells| cells.join(",")).collect()
}

#[test]
fn an_evaluation_is_counted_by_class() {
    let mut host = host(json!({}));
    host.setup().unwrap();
    evaluate(&mut host, "val");
    // A second one begins from nothing.
    evaluate(&mut host, "test");
    for split in ["val", "test"] {
        let arrays = host.arrays(&format!("{split}_confusion_matrix"));
        assert_eq!(arrays.len(), 1);
        assert_eq!((arrays[0].shape.as_slice(), arrays[0].values.as_slice()), (&[3, 3][..], &MATRIX[..]), "{split}");
        let expected = [
            "class,samples,precision,recall,as cat,as dog,as bird",
            "cat,1,1.0000,1.0000,1,0,0",
            "dog,2,1.0000,0.5000,0,1,1",
            "bird,0,0.0000,0.0000,0,0,0",
        ];
        assert_eq!(table_of(&host, &format!("{split}_classes")), expected);
    }
}

const MATRIX: [f32; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0];

#[test]
fn only_the_named_splits_are_counted() {
    let mut host = host(json!({ "splits": ["test"] }));
    host.setup().unwrap();
    evaluate(&mut host, "val");
    host.trigger("epoch").unwrap();
    assert_eq!(host.records(), []);
    evaluate(&mut host, "test");
    assert_eq!(host.records().len(), 1);
}

#[test]
fn the_split_that_is_trained_on_is_predicted() {
    let mut host = host(json!({ "splits": ["train"] }));
    host.answer_predict(|request, _| {
        assert_eq!(request.split.as_deref(), Some("train"));
        let outputs = Tensor::new("outputs", &[2, 3], &[0f32, 0.0, 1.0, 1.0, 0.0, 0.0])?;
        Ok(vec![outputs, Tensor::new("targets", &[2], &[2i64, 2])?])
    });
    host.setup().unwrap();
    host.trigger("epoch").unwrap();
    assert_eq!(table_of(&host, "train_classes")[3], "bird,2,1.0000,0.5000,1,0,1");
}

#[test]
fn an_array_of_the_metric_is_not_put_again() {
    let mut host = host(json!({}));
    host.setup().unwrap();
    host.set_position(1, 10);
    host.put_array("val_confusion_matrix", &[3, 3], &MATRIX);
    evaluate(&mut host, "val");
    assert_eq!((host.arrays("val_confusion_matrix").len(), host.records().len()), (1, 1));
    host.set_position(2, 20);
    evaluate(&mut host, "val");
    assert_eq!(host.arrays("val_confusion_matrix").len(), 2);
}

#[test]
fn the_largest_output_is_the_prediction_and_one_output_is_of_two_classes() {
    assert_eq!([predicted(&[-1.0]), predicted(&[0.0]), predicted(&[0.1])], [0, 0, 1]);
    assert_eq!([predicted(&[1.0, 1.0]), predicted(&[1.0, f32::NAN, 2.0, f32::NAN])], [0, 1]);
    let mut counts = Counts::default();
    counts.add_samples(&[2.0, -1.0, 3.0], &[1, 1, 5]).unwrap();
    assert_eq!(counts, Counts { classes: 2, counts: vec![0, 0, 1, 1] });
}

#[test]
fn a_table_of_many_classes_is_narrow() {
    let names: Vec<String> = (0..40).map(|class| class.to_string()).collect();
    let RecordValue::Table { columns, rows } = table(&names, &[1; 1600]) else { panic!("no table") };
    assert_eq!((columns.len(), rows.len(), rows[0].join(",").as_str()), (4, 40, "0,40,0.0250,0.0250"));
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let error = FakeHost::new::<ConfusionMatrix>(json!({ "splits": ["val", "val"] })).err().unwrap();
    assert_eq!(error.message(), "`splits` names `val` twice");
    let error = host(json!({ "splits": ["tset"] })).setup().unwrap_err();
    assert_eq!(error.message(), "`splits` names `tset`, which these data do not have; did you mean `test`?");
    let error = host(json!({})).with_info(|info| info.data.classes = 0).setup().unwrap_err();
    assert!(error.message().starts_with("this run predicts numbers, not classes"));
    let error = host(json!({})).with_info(|info| info.data.classes = 50_000).setup().unwrap_err();
    assert!(error.message().contains("the data have 50000 classes, and a matrix has at most 2000"));
}
