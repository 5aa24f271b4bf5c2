//! What a file may include around the model, and what it must then return.

use plugin_api::Callback;
use plugin_api::protocol::RunInfo;
use plugin_api::testing::FakeHost;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::{Model, Reader, Runtime, Subject};

/// A run whose file includes more than the model.
pub struct Surrounded {
    /// The model with its weights.
    pub subject: Subject,
    /// The option `include`.
    pub include: Value,
    loss: &'static str,
    classes: u64,
    expected: fn(&Tensor) -> Tensor,
}

const CONVOLUTION: &str =
    r#"{ type = "conv2d", out_channels = 4, kernel_size = 3 }, { type = "relu" }, { type = "flatten" },"#;

fn softmax(outputs: &Tensor) -> Tensor {
    outputs.softmax(-1, Kind::Float)
}

fn largest(outputs: &Tensor) -> Tensor {
    outputs.argmax(-1, false).to_kind(Kind::Float)
}

fn above_zero(outputs: &Tensor) -> Tensor {
    outputs.gt(0.0).squeeze_dim(-1).to_kind(Kind::Float)
}

/// One for each way from a loss to probabilities or classes.
pub fn surrounded() -> Vec<Surrounded> {
    let image = |outputs: i64| {
        let layers = format!(r#"{CONVOLUTION} {{ type = "linear", out_features = {outputs} }}"#);
        Model::new("image", &layers, &[3, 6, 5])
    };
    let sequence = Model::new("sequence", r#"{ type = "linear", out_features = 6 }"#, &[5, 8]);
    let vector = Model::new("vector", r#"{ type = "linear", out_features = 1 }"#, &[8]);
    let one = |model: &Model, include: Value, loss, classes, expected| Surrounded {
        subject: Subject::new(model.clone()),
        include,
        loss,
        classes,
        expected,
    };
    let both = || json!(["normalize", "softmax", "argmax"]);
    let probabilities = || json!(["normalize", "softmax"]);
    vec![
        one(&image(7), json!(["normalize"]), "cross_entropy", 7, Tensor::shallow_clone),
        one(&image(7), probabilities(), "cross_entropy", 7, softmax),
        one(&image(7), both(), "cross_entropy", 7, largest),
        one(&sequence, probabilities(), "cross_entropy", 6, softmax),
        one(&sequence, json!(["argmax"]), "cross_entropy", 6, largest),
        // One output for two classes: a softmax of it would be 1, and the largest the first.
        one(&vector, probabilities(), "bce_with_logits", 2, Tensor::sigmoid),
        one(&vector, both(), "bce_with_logits", 2, above_zero),
        // One probability for each output.
        one(&image(4), probabilities(), "bce_with_logits", 0, Tensor::sigmoid),
    ]
}

impl Surrounded {
    /// The normalization's pair for an index of a sample's first dimension.
    fn pair(index: i64) -> [f32; 2] {
        [1.5 - index as f32, 0.5 + 0.25 * index as f32]
    }

    fn tensors(&self) -> [Tensor; 2] {
        let shape = &self.subject.model.sample_shape;
        let mut broadcast = vec![1; shape.len() + 1];
        broadcast[1] = shape[0];
        [0, 1].map(|which| {
            let values: Vec<f32> = (0..shape[0]).map(|index| Self::pair(index)[which]).collect();
            Tensor::from_slice(&values).reshape(&broadcast)
        })
    }

    fn is_normalized(&self) -> bool {
        self.include.as_array().is_some_and(|include| include.contains(&json!("normalize")))
    }

    /// Describes the run.
    pub fn describe(&self, info: &mut RunInfo) {
        info.data.classes = self.classes;
        info.run_file = json!({ "train": { "loss": { "type": self.loss } } }).to_string();
        let groups = self.subject.model.sample_shape[0];
        info.data.offset = (0..groups).map(|index| Self::pair(index)[0]).collect();
        info.data.scale = (0..groups).map(|index| Self::pair(index)[1]).collect();
    }

    /// Samples for the file, and what it must return for them.
    pub fn samples(&self, batch: i64) -> [Tensor; 2] {
        let inputs = self.subject.inputs(batch);
        if !self.is_normalized() {
            return [inputs.shallow_clone(), (self.expected)(&self.subject.outputs(&inputs))];
        }
        let [offset, scale] = self.tensors();
        let stored = inputs * &scale + &offset;
        let taken = (&stored - offset) / scale;
        [stored, (self.expected)(&self.subject.outputs(&taken))]
    }
}

/// Exports with `T`, reads the file in its runtime, and compares what it tells of its weights: the metrics of their own
/// step, and what was learned from the data. `own` is a metric that is put later, at another step.
///
/// # Panics
///
/// When the file tells something else.
pub fn assert_origin<T: Callback>(reader: &mut Reader, runtime: Runtime, own: &str) {
    let of = surrounded().remove(1);
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut host = of.subject.run::<T>(json!({}), 2).expect("the options are right").with_info(|info| {
        of.describe(info);
        info.data.target_names = names.map(str::to_owned).to_vec();
    });
    host.setup().expect("it can be exported");
    host.set_position(2, 20);
    host.put_metric("val_loss", 0.5);
    let mut origin = |host: &mut FakeHost| {
        host.trigger("end").expect("it is exported");
        reader.origin(runtime, &host.folder().join(&host.artifacts()[0].path)).expect("it is read")
    };
    let found = origin(&mut host);
    assert_eq!(found["metrics"], json!({ "val_loss": 0.5 }));
    assert_eq!(found["target_names"], json!(names));
    assert_eq!((&found["offset"], &found["scale"]), (&json!([1.5, 0.5, -0.5]), &json!([0.5, 0.75, 1.0])));
    // The weights of seven steps later have no loss of validation.
    host.set_position(2, 27);
    host.put_metric(own, 1.0);
    let found = origin(&mut host);
    assert_eq!((&found["step"], &found["metrics"]), (&json!(27), &json!({ own: 1.0 })));
}
