use std::fs::File;
use std::io::{Read, Write};

use serde::Deserialize;
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::archives::{figures, file, whole};
use super::*;
use crate::report::Report;
use crate::torch::{manual_seed, test_support, values};

/// The output of `tests/figures/exported.py`.
#[derive(Deserialize)]
struct Figures {
    rate: f64,
    losses: Vec<f64>,
    evaluated: f64,
    parameters: Vec<String>,
    buffers: Vec<String>,
}

fn sample(net: &str, batch: i64) -> Tensor {
    if matches!(net, "gpt2" | "bert") {
        return (Tensor::arange(batch * 12, (Kind::Int64, Device::Cpu)) * 7).remainder(50).reshape([batch, 12]);
    }
    if matches!(net, "resnet18" | "mobilenet_v3_small") {
        let places = Tensor::arange(3 * 64 * 64, (Kind::Double, Device::Cpu));
        let lengths = Tensor::arange(batch, (Kind::Double, Device::Cpu)) * 0.017 + 0.011;
        return (places * lengths.unsqueeze(1)).sin().to_kind(Kind::Float).reshape([batch, 3, 64, 64]);
    }
    (Tensor::arange(batch * 64, (Kind::Float, Device::Cpu)) * 0.37).sin().reshape([batch, 1, 8, 8])
}

/// The second input of a net that has two, as the script makes it.
fn other(net: &str, batch: i64) -> Tensor {
    let whole = (Kind::Int64, Device::Cpu);
    match net {
        "masked_bert" => {
            let lengths = (Tensor::arange(batch, whole) * 5).remainder(10) + 3;
            Tensor::arange(12, whole).lt_tensor(&lengths.unsqueeze(1)).to_kind(Kind::Int64)
        }
        _ => (Tensor::arange(batch * 3, whole) * 5).remainder(7).reshape([batch, 3]),
    }
}

fn loss(program: &Exported, net: &str, batch: i64, training: bool) -> Tensor {
    let targets = Tensor::arange(batch, (Kind::Int64, Device::Cpu)).remainder(10);
    if matches!(net, "masked_bert" | "scored" | "two_towers") {
        let sample = sample(if net == "masked_bert" { "bert" } else { "mlp" }, batch);
        let others = if net == "scored" { Vec::new() } else { vec![other(net, batch)] };
        let batch = ModelBatch { inputs: &sample, others: &others, targets: Some(&targets) };
        let Forwarded { output, loss, .. } = program.run(batch, training, &[], &[]).unwrap();
        return loss.unwrap_or_else(|| output.cross_entropy_for_logits(&targets));
    }
    let (outputs, _) = program.forward(&sample(net, batch), training, &[]).unwrap();
    outputs.cross_entropy_for_logits(&targets)
}

/// The losses of eager PyTorch over ten steps of SGD with batches of several sizes, dropout included, and the loss of an
/// evaluation after them. The figures are of a CPU with AVX-512; other kernels sum in another order.
#[test]
fn programs_train_as_in_eager_pytorch() {
    let _generator = test_support::default_generator();
    let text = std::fs::read_to_string(figures().join("exported.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for net in [
        "mlp",
        "cnn",
        "lstm",
        "resnet",
        "mobilenet",
        "vit",
        "gpt2",
        "bert",
        "functions",
        "resnet18",
        "mobilenet_v3_small",
    ] {
        let figures: Figures = serde_json::from_value(all["steps"][net].clone()).unwrap();
        let program = Exported::open(&whole(net, folder.path()), None, None, Device::Cpu).unwrap();
        trains_as_expected(&program, net, figures);
    }
}

/// The same of nets with several inputs, by the names of a batch that `used` has, and one that gives its own loss.
#[test]
fn programs_with_several_inputs_train_as_in_eager_pytorch() {
    let _generator = test_support::default_generator();
    let text = std::fs::read_to_string(figures().join("exported.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let tokens = used("masked_bert", &["inputs", "mask"], &TOKENS, None, true).unwrap();
    // No table where the names agree; the samples are the first name.
    let towers = used("two_towers", &["image", "categories"], &[], Some("logits"), false).unwrap();
    let scored = used("scored", &["inputs"], &LABELED, None, true).unwrap();
    // The targets are no input of the graph, which ends at the logits.
    let graph = scored.graph().unwrap();
    assert_eq!((graph.inputs().len(), graph.output_shape(), graph.nodes().len()), (1, &[10i64][..], 5));
    for (net, program) in [("masked_bert", tokens), ("two_towers", towers), ("scored", scored)] {
        trains_as_expected(&program, net, serde_json::from_value(all["steps"][net].clone()).unwrap());
    }
}

const TOKENS: [(&str, &str); 3] = [("input_ids", "inputs"), ("attention_mask", "mask"), ("labels", "targets")];

const LABELED: [(&str, &str); 2] = [("image", "inputs"), ("labels", "targets")];

/// The program of a net, used with these inputs of a batch and this table.
fn used(
    net: &str,
    inputs: &[&str],
    table: &[(&str, &str)],
    output: Option<&str>,
    gives_loss: bool,
) -> Result<Exported, ExportedError> {
    let inputs: Vec<String> = inputs.iter().map(|name| (*name).to_owned()).collect();
    let arguments = table.iter().map(|(argument, name)| ((*argument).to_owned(), (*name).to_owned())).collect();
    let targets = Some(BatchTargets { name: "targets", shape: &[], kind: Kind::Int64 });
    let interface = Interface { output, gives_loss, arguments: &arguments, inputs: &inputs, targets };
    Exported::open_with(&file(net), None, &interface, Device::Cpu)
}

#[test]
fn what_goes_in_and_out_of_a_program_is_said_before_the_training() {
    let with = |argument: &'static str, name: &'static str| -> Vec<(&str, &str)> {
        let kept = TOKENS.into_iter().filter(|(kept, _)| *kept != argument);
        kept.chain([(argument, name)]).filter(|(_, name)| !name.is_empty()).collect()
    };
    let (both, image) = (&["inputs", "mask"][..], &["image", "categories"][..]);
    let cases = [
        used("masked_bert", &["inputs"], &[], None, true),
        used("masked_bert", both, &with("labels", ""), None, true),
        used("masked_bert", both, &with("labels", "target"), None, true),
        used("masked_bert", both, &with("attention_mask", "inputs"), None, true),
        used("masked_bert", both, &with("attention_maks", "mask"), None, true),
        used("masked_bert", &["inputs", "mask", "types"], &TOKENS, None, true),
        used("masked_bert", both, &TOKENS, None, false),
        used("masked_bert", both, &TOKENS, Some("loss"), true),
        used("two_towers", image, &[], None, false),
        used("two_towers", image, &[], Some("logits"), true),
        used("mlp", &["inputs", "mask"], &[], None, false),
    ];
    let told = cases.map(|case| {
        let error = case.unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{cause}\n  {}", error.hint().unwrap_or_default())
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    nothing is given to its argument `input_ids`; a batch has `inputs` and `targets`
      `[data] inputs` gives a batch several, as in `{ inputs = "ids", mask = "attention_mask" }`; or export the model without that argument
    nothing is given to its argument `labels`; a batch has `inputs`, `mask` and `targets`
      name what each argument gets under `[model]`, such as `inputs = { input_ids = "inputs", attention_mask = "mask", labels = "targets" }`
    its argument `labels` is given `target`, and a batch has `inputs`, `mask` and `targets`
      did you mean `targets`?
    its arguments `input_ids` and `attention_mask` are both given `inputs`
      give each of them an input of its own; two of `[data] inputs` may be one array
    it has no argument `attention_maks`, but `input_ids`, `attention_mask` and `labels`
      did you mean `attention_mask`?
    none of its arguments is given `types`; it takes `input_ids`, `attention_mask` and `labels`
      leave it out of `[data] inputs`, or name the argument that gets it under `[model]`: `inputs = { input_ids = "types" }`
    it returns 2 tensors: `loss` and `logits`
      name the one that is trained under `[model]`: `output = "logits"`; or let it train on its own loss: `[train] loss = { type = "model" }`
    `loss` is its loss, and cannot be its output as well
      name another one, such as the logits
    it returns 2 tensors: `joined` and `logits`
      name the one that is trained under `[model]`: `output = "joined"`
    it gives no loss of its own: it returns `joined` and `logits`, and no single number
      choose a loss of the host, or export the model with its targets as an argument, such as `labels`
    nothing is given to its argument `input`; a batch has `inputs`, `mask` and `targets`
      name what each argument gets under `[model]`, such as `inputs = { input = "inputs" }`
    "#);
    let no_scalar = with_document("masked_bert", |document| {
        let values = document["graph_module"]["graph"]["tensor_values"].as_object_mut().unwrap();
        values["cross_entropy_loss"]["sizes"] = json!([{ "as_int": 4 }]);
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), no_scalar).unwrap();
    let (inputs, table) = (["inputs".to_owned(), "mask".to_owned()], TOKENS.map(|(a, b)| (a.to_owned(), b.to_owned())));
    let targets = Some(BatchTargets { name: "targets", shape: &[], kind: Kind::Int64 });
    let arguments = BTreeMap::from(table);
    let interface = Interface { output: None, gives_loss: true, arguments: &arguments, inputs: &inputs, targets };
    let error = Exported::open_with(file.path(), None, &interface, Device::Cpu).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "its output `loss` has the rank 1: it is no single number");
}

/// Where a batch has no targets, zeros stand for them; what the program returns does not depend on them.
#[test]
fn a_program_that_takes_targets_predicts_without_them() {
    let program = used("masked_bert", &["inputs", "mask"], &TOKENS, None, true).unwrap();
    let (inputs, others) = (sample("bert", 3), [other("masked_bert", 3)]);
    let targets = Tensor::from_slice(&[1i64, 2, 3]);
    let run = |program: &Exported, targets| {
        tch::no_grad(|| program.run(ModelBatch { inputs: &inputs, others: &others, targets }, false, &[], &[]))
    };
    assert_eq!(run(&program, None).unwrap().output, run(&program, Some(&targets)).unwrap().output);
    let of_targets = used("masked_bert", &["inputs", "mask"], &TOKENS, Some("loss"), false).unwrap();
    assert!(run(&of_targets, Some(&targets)).is_ok());
    let refused = run(&of_targets, None).unwrap_err().to_string();
    assert_eq!(refused, "its output depends on the targets, so that it cannot predict without them");
    let wrong = ModelBatch { inputs: &inputs, others: &[inputs.to_kind(Kind::Float)], targets: Some(&targets) };
    let refused = program.run(wrong, false, &[], &[]).unwrap_err().to_string();
    assert_eq!(
        refused,
        "its input `attention_mask` is int64 of the shape [any, 12], and it is given float32 of the shape [3, 12]"
    );
}

/// Ten steps of SGD, and an evaluation.
fn trains_as_expected(program: &Exported, net: &str, figures: Figures) {
    let learns = |learns| {
        let named = program.tensors.iter().filter(move |(_, tensor)| tensor.requires_grad() == learns);
        named.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((learns(true), learns(false)), (figures.parameters, figures.buffers), "{net}");
    manual_seed(1);
    for (step, expected) in figures.losses.into_iter().enumerate() {
        let loss = loss(program, net, [4, 6, 4, 3][step % 4], true);
        let found = values::scalar(&loss).unwrap();
        assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{net}, step {step}: {found} {expected}");
        loss.backward();
        tch::no_grad(|| {
            for (_, parameter) in program.tensors.iter().filter(|(_, tensor)| tensor.requires_grad()) {
                let (mut parameter, mut gradient) = (parameter.shallow_clone(), parameter.grad());
                // A branch that was never taken.
                if !gradient.defined() {
                    continue;
                }
                let _ = parameter.g_sub_(&(&gradient * figures.rate));
                let _ = gradient.zero_();
            }
        });
    }
    let before: Vec<Tensor> = program.tensors.iter().map(|(_, tensor)| tensor.copy()).collect();
    let state = crate::torch::random::generator_state(Device::Cpu).unwrap();
    let evaluated = tch::no_grad(|| values::scalar(&loss(program, net, 5, false)).unwrap());
    let expected = figures.evaluated;
    assert!((evaluated - expected).abs() <= 1e-6 * expected.abs().max(1.0), "{net}: {evaluated} {expected}");
    assert_eq!(state, crate::torch::random::generator_state(Device::Cpu).unwrap(), "{net} draws in evaluation");
    for (before, (name, after)) in before.iter().zip(&program.tensors) {
        assert_eq!(before, after, "{net}: evaluation changes `{name}`");
    }
}

/// A copy of an archive with other parts.
pub(super) fn changed(net: &str, method: CompressionMethod, change: impl Fn(&str, &mut Vec<u8>)) -> Vec<u8> {
    let mut archive = ZipArchive::new(File::open(file(net)).unwrap()).unwrap();
    let mut copy = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for index in 0..archive.len() {
        let mut part = archive.by_index(index).unwrap();
        let mut content = Vec::new();
        part.read_to_end(&mut content).unwrap();
        change(part.name(), &mut content);
        copy.start_file(part.name().to_owned(), SimpleFileOptions::default().compression_method(method)).unwrap();
        copy.write_all(&content).unwrap();
    }
    copy.finish().unwrap().into_inner()
}

/// The same with another `model.json`.
pub(super) fn with_document(net: &str, change: impl Fn(&mut Value)) -> Vec<u8> {
    changed(net, CompressionMethod::Stored, |name, content| {
        if name.ends_with("models/model.json") {
            let mut document = serde_json::from_slice(content).unwrap();
            change(&mut document);
            *content = serde_json::to_vec(&document).unwrap();
        }
    })
}

pub(super) fn open(bytes: &[u8]) -> Result<Exported, ExportedError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    Exported::open(file.path(), None, None, Device::Cpu)
}

/// What is wrong, and what to do.
fn refusal(bytes: &[u8]) -> String {
    let error = open(bytes).unwrap_err();
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    match error.hint() {
        Some(hint) => format!("{cause}\n  {hint}"),
        None => cause,
    }
}

#[test]
fn what_cannot_be_trained_is_refused_with_what_to_do() {
    let target = |target: &'static str| {
        with_document("mlp", move |document| document["graph_module"]["graph"]["nodes"][0]["target"] = json!(target))
    };
    let whole = std::fs::read(file("mlp")).unwrap();
    let stored = CompressionMethod::Stored;
    let cases = [
        with_document("mlp", |document| document["schema_version"] = json!({ "major": 9, "minor": 1 })),
        with_document("mlp", |document| document["verifiers"] = json!(["ATEN"])),
        target("torch.ops.aten.from_file.default"),
        target("torch.ops.aten.relu.no_such_overload"),
        target("torch.ops.higher_order.scan"),
        target("torch.ops.mylib.fast_relu.default"),
        with_document("mlp", |document| {
            document["graph_module"]["graph"]["tensor_values"]["input"]["sizes"][0] = json!({ "as_int": 4 });
        }),
        with_document("mlp", |document| {
            document["graph_module"]["graph"]["nodes"][1]["inputs"][0]["arg"] =
                json!({ "as_tensor": { "name": "dropout" } });
        }),
        with_document("mlp", |document| {
            document["graph_module"]["graph"]["nodes"][1]["inputs"][0]["name"] = json!("wrong");
        }),
        changed("mlp", stored, |name, content| {
            if name.ends_with("model_weights_config.json") {
                *content =
                    String::from_utf8_lossy(content).replace("\"use_pickle\": false", "\"use_pickle\": true").into();
            }
        }),
        changed("mlp", stored, |name, content| {
            if name.ends_with("model_weights_config.json") {
                *content = String::from_utf8_lossy(content).replace("{\"as_int\": 64}", "{\"as_int\": 640000}").into();
            }
        }),
        changed("mlp", CompressionMethod::Deflated, |_, _| {}),
        whole[..whole.len() / 2].to_vec(),
        std::fs::read(figures().join("torchscript.pt")).unwrap(),
        b"not one".to_vec(),
    ];
    insta::assert_snapshot!(cases.map(|bytes| refusal(&bytes)).join("\n"), @r#"
    its schema has version 9.1, and this host reads version 8
      export it with PyTorch 2.9 to 2.15
    it is in the dialect ATEN, whose operators are decomposed for inference
      save what `torch.export.export` returns, without `run_decompositions`
    node `flatten` (`torch.ops.aten.from_file.default`): it calls the operator `aten::from_file`, which a program may not call
      only operators that compute tensors are called: none that reads files, for example
    node `flatten` (`torch.ops.aten.relu.no_such_overload`): libtorch does not have the operator `aten::relu`
      it is of another version of PyTorch: export with 2.11
    node `flatten` (`torch.ops.higher_order.scan`): it has a region of the kind `scan`, which is not supported
      of control flow, only `torch.cond` is supported: export a model without loops
    node `flatten` (`torch.ops.mylib.fast_relu.default`): it calls the operator `mylib::fast_relu` of another library
      an operator that a Python package adds is not in libtorch: use PyTorch's own operators
    its batch is fixed: `input` always has 4 samples
      export it with `dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)` and an example of 2 samples or more
    node `linear` (`torch.ops.aten.linear.default`): its argument `input` is `dropout`, which no node before makes
    node `linear` (`torch.ops.aten.linear.default`): its argument `input` is missing
    its tensor `1.weight` is pickled, and pickles are not opened
      export with PyTorch 2.9 or newer, without subclasses of tensors
    `1.weight`: setStorage: sizes [16, 640000], strides [640000, 1], storage offset 0, and itemsize 4 requiring a storage size of 40960000 are out of bounds for storage of size 4096
    its part `mlp/data/weights/weight_0` is compressed or encrypted, which PyTorch never does
      save it again with `torch.export.save`; do not pack it with another program
    it is not a whole zip file, or is damaged: invalid Zip archive: Could not find EOCD
      in Python, `torch.export.save(torch.export.export(model, …), path)` writes one
    it is a TorchScript module
      name it as `torchscript` instead
    it is not a whole zip file, or is damaged: invalid Zip archive: Could not find EOCD
      in Python, `torch.export.save(torch.export.export(model, …), path)` writes one
    "#);
}

/// A weight of another value would be trained in silence.
#[test]
fn a_damaged_weight_is_found_by_its_checksum() {
    let mut bytes = std::fs::read(file("mlp")).unwrap();
    let mut archive = ZipArchive::new(File::open(file("mlp")).unwrap()).unwrap();
    let start = archive.by_name("mlp/data/weights/weight_0").unwrap().data_start();
    bytes[usize::try_from(start).unwrap() + 100] ^= 1;
    insta::assert_snapshot!(refusal(&bytes), @"
    the values of `1.weight` cannot be read: Invalid checksum
      the file is damaged: copy or export it again
    ");
}

#[test]
fn inputs_of_another_shape_or_type_are_refused() {
    let program = Exported::open(&file("cnn"), None, None, Device::Cpu).unwrap();
    let inputs = [
        Tensor::zeros([2, 64], (Kind::Float, Device::Cpu)),
        Tensor::zeros([2, 3, 8, 8], (Kind::Float, Device::Cpu)),
        Tensor::zeros([2, 1, 8, 8], (Kind::Double, Device::Cpu)),
    ];
    let errors = inputs.map(|input| program.forward(&input, false, &[]).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"), @"
    its input `x` is float32 of the shape [any, 1, 8, 8], and it is given float32 of the shape [2, 64]
    its input `x` is float32 of the shape [any, 1, 8, 8], and it is given float32 of the shape [2, 3, 8, 8]
    its input `x` is float32 of the shape [any, 1, 8, 8], and it is given float64 of the shape [2, 1, 8, 8]
    ");
}

#[test]
fn damaged_archives_are_errors() {
    for net in ["mlp", "lstm"] {
        let whole = std::fs::read(file(net)).unwrap();
        for position in (0..whole.len()).step_by(97) {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x55;
            // Some bytes are of no part that is read; the rest must be told, never crash.
            let _ = open(&damaged);
        }
    }
}

/// The figures of a net with its file for evaluation, if it has one.
#[test]
fn regions_and_programs_for_evaluation_compute_as_in_eager_pytorch() {
    let _generator = test_support::default_generator();
    let text = std::fs::read_to_string(figures().join("regions.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    for (net, evaluation) in [("regions", None), ("noisy", Some(file("noisy_eval")))] {
        let program = Exported::open(&file(net), evaluation.as_deref(), None, Device::Cpu).unwrap();
        trains_as_expected(&program, net, serde_json::from_value(all["steps"][net].clone()).unwrap());
    }
    let program = Exported::open(&file("autocast"), None, None, Device::Cpu).unwrap();
    let expected: Vec<f64> = serde_json::from_value(all["steps"]["autocast"].clone()).unwrap();
    let outputs = program.forward(&sample("autocast", 4), true, &[]).unwrap().0;
    assert_eq!(outputs.kind(), Kind::Float);
    for (found, expected) in Vec::<f32>::try_from(outputs.reshape([-1])).unwrap().into_iter().zip(expected) {
        // The layer in bf16 sums in another order than the one of f32 whose result was rounded.
        assert!((f64::from(found) - expected).abs() < 5e-3, "{found} {expected}");
    }
    let sum = program.tensors[0].1.matmul(&Tensor::ones([64, 1], (Kind::Float, Device::Cpu)));
    assert_eq!(sum.kind(), Kind::Float, "autocast ends with its region");
}

#[test]
fn what_is_random_in_evaluation_needs_a_program_for_it() {
    let bytes = std::fs::read(file("noisy")).unwrap();
    insta::assert_snapshot!(refusal(&bytes), @r#"
    node `bernoulli_` (`torch.ops.aten.bernoulli_.float`): it draws random numbers in evaluation, too
      export the model after `model.eval()`, too, and name that file: `exported_eval = "model_eval.pt2"`
    "#);
    // Its weights are not those of the program for training.
    let error = Exported::open(&file("noisy"), Some(&file("mlp")), None, Device::Cpu).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    insta::assert_snapshot!(format!("{cause}\n{}", error.hint().unwrap()), @"
    its tensor `1.weight` is not in the program for training
    export both from one model: in training mode for `exported`, in evaluation mode for `exported_eval`
    ");
}

#[test]
fn one_of_several_outputs_is_named_by_its_key_or_position() {
    // A second output, which is the linear layer's before the last.
    let several = |keys: &'static str| {
        with_document("mlp", move |document| {
            let module = &mut document["graph_module"];
            let first = module["signature"]["output_specs"][0].clone();
            module["signature"]["output_specs"] =
                json!([first, { "user_output": { "arg": { "as_tensor": { "name": "linear" } } } }]);
            let leaf = json!({ "type": null, "context": null, "children_spec": [] });
            let inner = json!({ "type": "builtins.tuple", "context": "null", "children_spec": [leaf] });
            let spec = json!([1, { "type": "builtins.dict", "context": keys, "children_spec": [leaf, inner] }]);
            module["module_call_graph"][0]["signature"]["out_spec"] = json!(spec.to_string());
        })
    };
    let bytes = several(r#"["logits", "hidden"]"#);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let open = |output| Exported::open(file.path(), None, output, Device::Cpu);
    let widths = ["logits", "hidden.0"]
        .map(|output| open(Some(output)).unwrap().forward(&sample("mlp", 3), false, &[]).unwrap().0.size());
    assert_eq!(widths, [[3, 10], [3, 16]]);
    let told = |output| {
        let error = open(output).unwrap_err();
        format!("{}\n  {}", std::error::Error::source(&error).unwrap(), error.hint().unwrap())
    };
    insta::assert_snapshot!([told(None), told(Some("logit"))].join("\n"), @r#"
    it returns 2 tensors: `logits` and `hidden.0`
      name the one that is trained under `[model]`: `output = "logits"`
    it returns no tensor `logit`, but `logits` and `hidden.0`
      did you mean `logits`?
    "#);
    std::fs::write(file.path(), several("null")).unwrap();
    assert_eq!(open(Some("1.0")).unwrap().forward(&sample("mlp", 3), false, &[]).unwrap().0.size(), [3, 16]);
}
