//! What several ranks compute is what one process does, but for the order in which sums are rounded.

use super::*;

/// The largest difference that rounding leaves after 50 steps, as [`difference`] measures it.
const ROUNDING: f64 = 1e-6;

/// Trains in one process and in several. Asserts that the parameters are as near as `most`, and that a repeat is equal to the last
/// bit.
fn assert_same_numbers(training: &Training, name: &str, most: f64) {
    run(training, "one", 1, &[]);
    let last = |out: &str| training.path(out).join("checkpoints/last/model.safetensors");
    // Two ranks have a case of their own: a sum of two numbers has one order.
    let worlds: &[usize] = if is_long() { &[2, 3, 4] } else { &[3] };
    for world in worlds {
        let out = format!("{world}");
        run(training, &out, *world, &[]);
        let (largest, tensor) = difference(&last(&out), &last("one"));
        eprintln!("{name}, {world} ranks: {largest:.1e} in `{tensor}`");
        assert!(largest <= most, "{name}, {world} ranks: `{tensor}` differs by {largest:e}");
    }
    run(training, "again", 3, &[]);
    assert_equal(training, "3", "again");
}

/// Batches of uneven weights, some of which no rank but the first has samples of; the joined gradient is clipped.
#[test]
fn a_perceptron_of_weighted_classes() {
    let mut training = digits(MLP)
        .with("\"cross_entropy\"", "\"cross_entropy\", class_weights = WEIGHTS, label_smoothing = 0.1")
        .with("WEIGHTS", "[1, 2, 3, 4, 5, 0.5, 0.1, 8, 1, 1]")
        .with("metrics = [\"accuracy\"]\nopt", "metrics = [\"accuracy\"]\nclip_gradient_norm = 0.5\nopt");
    assert_same_numbers(&training, "mlp", ROUNDING);
    training = training.with("[eval]", "accumulate = 3\n\n[eval]");
    for (world, out) in [(1, "joined-one"), (2, "joined-two")] {
        run(&training, out, world, &[]);
    }
    let last = |out: &str| training.path(out).join("checkpoints/last/model.safetensors");
    let (largest, tensor) = difference(&last("joined-two"), &last("joined-one"));
    eprintln!("mlp with accumulation, 2 ranks: {largest:.1e} in `{tensor}`");
    assert!(largest <= ROUNDING, "`{tensor}` differs by {largest:e}");
    let (apart, _) = difference(&last("joined-one"), &last("one"));
    assert!(apart > 1e-3, "accumulation changes nothing: {apart:e}");
}

/// A number that does not fit f16 on one rank makes the sum infinite on all, which halve the scale together: the weights of all
/// ranks are compared after each epoch.
#[test]
fn steps_in_f16_that_do_not_fit_are_left_out_on_all_ranks() {
    let training = digits(MLP)
        .with("normalize = \"standard\"", "normalize = \"none\"")
        .with("accuracy\"]\nopt", "accuracy\"]\nprecision = \"fp16\"\nopt");
    let mut losses = Vec::new();
    for (world, out) in [(1, "one"), (2, "two"), (2, "again")] {
        run(&training, out, world, &[]);
        let lines = training.metrics(out);
        let values = |name: &str| lines.iter().filter_map(|line| line[name].as_f64()).collect::<Vec<_>>();
        let scales = values("loss_scale");
        assert!(!scales.is_empty() && scales.iter().all(|scale| *scale < 65_536.0), "{scales:?}");
        losses.extend(values("train_loss").last().copied());
    }
    assert_equal(&training, "two", "again");
    eprintln!("losses in f16: {losses:?}");
    // Each share is rounded to f16 before the sum.
    assert!(losses.len() == 3 && (losses[0] - losses[1]).abs() < 0.01 * losses[0], "{losses:?}");
}

#[test]
fn a_convolution_normalized_over_all_ranks() {
    let training = with_sgd(digits(CNN)).with("[distributed]", "[distributed]\nsync_batch_norm = true");
    assert_same_numbers(&training, "cnn", ROUNDING);
    // Samples that are normalized apart are others.
    run(&training, "apart", 3, &["--set", "distributed.sync_batch_norm=false"]);
    let last = |out: &str| training.path(out).join("checkpoints/last/model.safetensors");
    let (apart, _) = difference(&last("apart"), &last("one"));
    assert!(apart > 1e-3, "synchronization changes nothing: {apart:e}");
}

const TEXT: &str = r#"
format = "text"
path = "EXAMPLESshakespeare/shakespeare.txt.gz"
tokens = "characters"
context = 12

[data.splits]
val = { fraction = 0.001 }
"#;

/// A training of characters with these layers.
fn characters(layers: &str) -> Training {
    let (head, rest) = DIGITS.split_once("format = ").expect("there is a format");
    let (_, tail) = rest.split_once("[model]").expect("there is a model");
    let text = format!("{head}{TEXT}\n[model]{tail}").replace("MODEL", layers);
    Training::of(&text, &["checkpoint", "standard"])
}

/// The bias of the keys adds the same to each score of a row, which softmax takes away: its gradient is zero in theory, and
/// AdamW would follow its rounding noise.
#[test]
fn a_transformer() {
    let training = with_sgd(characters(
        r#"
  { type = "embedding", num_embeddings = 65, embedding_dim = 16 },
  { type = "positional_embedding" },
  { type = "residual", name = "a", layers = [
    { type = "layer_norm" },
    { type = "multi_head_attention", num_heads = 2, causal = true },
  ] },
  { type = "layer_norm" },
  { type = "linear", out_features = 65 },
"#,
    ));
    assert_same_numbers(&training, "transformer", ROUNDING);
}

/// Frozen parameters have no gradients, and are in no bucket.
#[test]
fn a_recurrent_net_with_frozen_parameters() {
    let training = characters(
        r#"
  { type = "embedding", num_embeddings = 65, embedding_dim = 16 },
  { type = "lstm", hidden_size = 16 },
  { type = "linear", out_features = 65 },
"#,
    )
    .with("[model]", "[model]\nfreeze = [\"embedding1.*\"]");
    assert_same_numbers(&training, "lstm", ROUNDING);
    let embedding = |out: &str| {
        let file = training.path(out).join("checkpoints/last/model.safetensors");
        tensors_of(&file, |tensors| tensors.tensor("embedding1.weight").expect("it is named").data().to_vec())
    };
    assert!(embedding("3") == embedding("one"), "frozen parameters are trained");
}

/// A product in bf16 has eight bits, and the products of other slices are rounded otherwise. Without momentum, which would amplify
/// that, the parameters differ from those of f32 by 6e-4 after these steps, and with batches of six by 2e-2.
#[test]
fn a_perceptron_in_bf16() {
    let training = with_sgd(digits(MLP)).with(", momentum = 0.9", "").with("[eval]", "precision = \"bf16\"\n\n[eval]");
    assert_same_numbers(&training, "bf16", 1e-3);
}

/// Each rank draws its own dropout, which no number of other ranks equals; a repeat draws the same.
#[test]
fn dropout_is_the_same_again() {
    let training =
        digits(&MLP.replace("{ type = \"relu\" },", "{ type = \"relu\" }, { type = \"dropout\", p = 0.5 },"));
    for out in ["first", "second"] {
        run(&training, out, 2, &[]);
    }
    assert_equal(&training, "first", "second");
    assert_eq!(training.metrics("first"), training.metrics("second"));
}
