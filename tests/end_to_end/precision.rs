//! `precision`: what a run computes in.

use serde_json::Value;

use crate::resume::{self, goes_on};
use crate::training::Training;

/// The run in f16. Samples that nothing normalizes have gradients that are too large for the first scale of the loss.
fn fp16(plugins: &str) -> Training {
    Training::new(plugins)
        .with("normalize = \"standard\"", "normalize = \"none\"")
        .with("  { type = \"batch_norm\" },\n", "")
        .with("[train]\n", "[train]\nprecision = \"fp16\"\n")
}

/// The second ends a run at a gradient that is NaN or infinite: it is not shown one that the scale has made so.
const PLUGINS: &str = r#"
[[plugins]]
kind = "json-lines"

[[plugins]]
kind = "terminate-on-nan"
options = { gradients = true }

[[plugins]]
kind = "checkpoint"
options = { keep_last = 0 }
"#;

/// The values of a metric after each epoch.
fn values(lines: &[Value], name: &str) -> Vec<f64> {
    lines.iter().filter(|line| line["kind"] == "epoch").filter_map(|line| line[name].as_f64()).collect()
}

#[test]
fn fp16_learns_as_f32_does_and_its_loss_is_scaled() {
    let training = fp16(PLUGINS);
    let output = training.run("fp16", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("precision: fp16, which most CPUs compute slower than f32\n"), "{stderr}");
    training.run("f32", &["--set", "train.precision=\"f32\""]);
    let [half, single] = ["fp16", "f32"].map(|out| training.metrics(out));
    let [losses, expected] = [&half, &single].map(|lines| values(lines, "val_loss"));
    assert_eq!((losses.len(), expected.len()), (2, 2));
    for (loss, expected) in losses.iter().zip(&expected) {
        assert!((loss - expected).abs() < 0.1 * expected, "{loss} against {expected}");
    }
    assert!(losses != expected, "f16 rounds");
    // Steps that did not fit have halved the first scale.
    let scales = values(&half, "loss_scale");
    assert_eq!(scales.len(), 2);
    assert!(scales.iter().all(|scale| *scale < 65_536.0 && *scale >= 1.0 && scale.log2().fract() == 0.0), "{scales:?}");
    assert!(values(&single, "loss_scale").is_empty());
}

/// A trial has one step: its loss is not scaled, so that every hook has gradients to look at.
#[test]
fn a_trial_in_fp16_has_gradients() {
    let output = fp16(PLUGINS).command_without_folder().arg("--try").output().expect("the host starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("this was a trial"), "{stderr}");
    assert!(!stderr.contains("stopped"), "{stderr}");
}

#[test]
fn fp16_goes_on_bit_for_bit_and_accumulates() {
    let training = fp16(resume::PLUGINS).with("batch_size = 64", "batch_size = 32\naccumulate = 2");
    goes_on(&training, &["epochs/epoch-0001-step-00000023"], "epochs/last");
}

/// From weights that are too large for f16.
#[test]
fn where_no_step_fits_the_weights_stay_and_the_run_says_so() {
    let training = fp16("\n[[plugins]]\nkind = \"checkpoint\"\n");
    let far = ["train.precision=\"f32\"", "train.optimizer.learning_rate=1e9", "train.epochs=1"];
    training.run("far", &far.map(|setting| ["--set", setting]).concat());
    let weights = format!("model.init_from={{ path = '{}' }}", training.path("far/checkpoints/last").display());
    let output = training.run("out", &["--set", &weights]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let warnings: Vec<&str> = stderr.lines().filter(|line| line.contains("WARN") || line.contains("warning")).collect();
    insta::assert_snapshot!(warnings.join("\n"), @"
     WARN none of the last 32 steps had finite gradients in f16, however little the loss was scaled: they left the weights as they were. The loss or a value inside the model is NaN or too large for f16; bf16 has the range of f32
    warning: × `train_loss` has been NaN or infinite since epoch 1
    warning: × `val_loss` has been NaN or infinite since epoch 1
    ");
    let weight = |out: &str| {
        let file = std::fs::read(training.path(out).join("checkpoints/last/model.safetensors")).expect("a checkpoint");
        let tensors = safetensors::SafeTensors::deserialize(&file).expect("safetensors");
        tensors.tensor("fc1.weight").expect("the first linear layer").data().to_vec()
    };
    assert!(weight("far") == weight("out"));
}
