use std::path::{Path, PathBuf};
use std::sync::Arc;

use tch::{Device, Kind};

use super::*;
use crate::model::{Dtype, Graph, ModelOptions, Network};
use crate::report::{Report, Style, render};

fn graph(layers: &str) -> Arc<Graph> {
    let options: ModelOptions = toml::from_str(&format!("layers = [{layers}]")).unwrap();
    Arc::new(options.lower(&[3], Dtype::F32).unwrap())
}

const TWO_LAYERS: &str =
    r#"{ type = "linear", out_features = 2 }, { type = "linear", out_features = 2, name = "head" }"#;

fn options(path: &Path, keys: &str) -> InitFrom {
    let text = format!("init_from = {{ path = '{}'{keys} }}", path.display());
    let options: ModelOptions = toml::from_str(&text).unwrap();
    options.init_from.unwrap()
}

fn read(graph: &Graph, path: &Path, keys: &str) -> Result<InitialWeights, WeightsError> {
    let tensors: Vec<ModelTensor<'_>> = graph.tensors().map(ModelTensor::from).collect();
    InitialWeights::read(&options(path, keys), &tensors)
}

/// A file of f32 tensors, all elements equal.
fn file(tensors: &[(&str, &[usize], f32)]) -> tempfile::NamedTempFile {
    let bytes: Vec<(Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(_, shape, value)| (shape.to_vec(), value.to_le_bytes().repeat(shape.iter().product())))
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, ..), (shape, bytes))| {
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), safetensors::serialize(views, None).unwrap()).unwrap();
    file
}

fn without_path(text: &str, file: &tempfile::NamedTempFile) -> String {
    text.replace(&file.path().display().to_string(), "FILE")
}

/// A file that `tests/figures/weights.py` wrote.
fn figure(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/weights").join(name)
}

#[test]
fn what_matches_is_written_and_the_rest_is_told() {
    let graph = graph(TWO_LAYERS);
    let file = file(&[("fc1.weight", &[2, 3], 0.5), ("fc1.bias", &[2], 2.0), ("heads.weight", &[2, 2], 1.0)]);
    let weights = read(&graph, file.path(), "").unwrap();
    let mut network = Network::new(graph, 1, Device::Cpu).unwrap();
    let head = network.tensor("head.weight").unwrap().copy();
    weights.write_into(&mut network).unwrap();
    assert_eq!(network.tensor("fc1.weight").unwrap().mean(Kind::Float).double_value(&[]), 0.5);
    assert_eq!(network.tensor("fc1.bias").unwrap().mean(Kind::Float).double_value(&[]), 2.0);
    assert_eq!(network.tensor("head.weight").unwrap(), &head);
    assert!(network.tensor("fc1.weight").unwrap().requires_grad());
    assert_eq!(
        without_path(&weights.report(), &file),
        "weights: 2 of 4 tensors from `FILE`; the file lacks `head.weight` and `head.bias`; the model lacks \
         `heads.weight` (is `heads.weight` of the file `head.weight` of the model?)"
    );
}

#[test]
fn names_lose_their_prefix_and_are_renamed_in_order() {
    let graph = graph(TWO_LAYERS);
    let file = file(&[
        ("module.net.0.weight", &[2, 3], 0.5),
        ("module.net.0.bias", &[2], 2.0),
        ("module.head.weight", &[7, 2], 1.0),
        ("other.weight", &[1], 1.0),
    ]);
    let keys =
        r#", prefix = "module.", rename = { "^net\\.(\\d)" = "layer${1}", "layer0" = "fc1" }, skip = ["head.*"]"#;
    let weights = read(&graph, file.path(), keys).unwrap();
    assert_eq!(
        without_path(&weights.report(), &file),
        "weights: 2 of 4 tensors from `FILE`; skipped `head.weight` ([7, 2] in the file, [2, 2] in the model), \
         `head.bias`; 1 without the prefix `module.`"
    );
    let mut network = Network::new(graph, 1, Device::Cpu).unwrap();
    let head = network.tensor("head.weight").unwrap().copy();
    weights.write_into(&mut network).unwrap();
    assert_eq!(network.tensor("fc1.weight").unwrap().mean(Kind::Float).double_value(&[]), 0.5);
    assert_eq!(network.tensor("head.weight").unwrap(), &head);
}

#[test]
fn what_would_match_with_a_prefix_is_told() {
    let graph = graph(TWO_LAYERS);
    let part = file(&[
        ("fc1.weight", &[2, 3], 0.5),
        ("_orig_mod.head.weight", &[2, 2], 1.0),
        ("_orig_mod.head.bias", &[2], 1.0),
    ]);
    let report = read(&graph, part.path(), "").unwrap().report();
    assert!(report.ends_with(r#"(with `prefix = "_orig_mod."`, more would match)"#), "{report}");
    let none = file(&[
        ("module.fc1.weight", &[2, 3], 0.5),
        ("module.fc1.bias", &[2], 1.0),
        ("module.head.weight", &[2, 2], 1.0),
    ]);
    let hint = read(&graph, none.path(), "").unwrap_err().hint().unwrap();
    assert!(hint.starts_with(r#"with `prefix = "module."`, more would match; the file has"#), "{hint}");
    let strict = read(&graph, part.path(), ", strict = true").unwrap_err();
    assert_eq!(
        without_path(&strict.to_string(), &part),
        "`FILE` does not have exactly the model's tensors, as `strict` asks: it lacks `fc1.bias`, `head.weight` and \
         `head.bias`; the model lacks `_orig_mod.head.bias` and `_orig_mod.head.weight`"
    );
    let layers = r#"{ type = "linear", out_features = 2, name = "net.fc1" }"#;
    let deeper = self::graph(layers);
    let shorter = file(&[("fc1.weight", &[2, 3], 0.5), ("fc1.bias", &[2], 1.0)]);
    let hint = read(&deeper, shorter.path(), "").unwrap_err().hint().unwrap();
    assert!(hint.starts_with(r#"with `rename = { "^" = "net." }`, more would match"#), "{hint}");
    assert!(read(&deeper, shorter.path(), r#", rename = { "^" = "net." }, strict = true"#).is_ok());
}

#[test]
fn strict_weights_are_all_there_but_for_what_is_skipped_and_counters() {
    let graph = graph(r#"{ type = "linear", out_features = 2 }, { type = "batch_norm" }"#);
    let all: [(&str, &[usize], f32); 6] = [
        ("fc1.weight", &[2, 3], 0.5),
        ("fc1.bias", &[2], 0.5),
        ("bn1.weight", &[2], 0.5),
        ("bn1.bias", &[2], 0.5),
        ("bn1.running_mean", &[2], 0.5),
        ("bn1.running_var", &[2], 0.5),
    ];
    let weights = read(&graph, file(&all).path(), ", strict = true").unwrap();
    assert!(weights.report().starts_with("weights: 6 of 6 tensors from"), "{}", weights.report());
    let file = file(&all[..5]);
    assert!(read(&graph, file.path(), ", strict = true").is_err());
    assert!(read(&graph, file.path(), r#", strict = true, skip = ["*.running_var"]"#).is_ok());
    assert!(read(&graph, file.path(), r#", strict = true, skip = ["*.running_var", "fc1.bias"]"#).is_ok());
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let graph = graph(TWO_LAYERS);
    let told = |file: &tempfile::NamedTempFile, keys: &str| {
        let error = read(&graph, file.path(), keys).unwrap_err();
        (without_path(&error.to_string(), file), error.hint().unwrap_or_default(), error.place())
    };
    let classes = file(&[("fc1.weight", &[2, 3], 0.5), ("head.weight", &[7, 2], 1.0), ("head.bias", &[7], 1.0)]);
    let (message, hint, _) = told(&classes, "");
    assert_eq!(
        message,
        "`FILE` has other shapes than the model: `head.weight` is [7, 2] instead of [2, 2], \
         `head.bias` is [7] instead of [2]"
    );
    assert!(hint.starts_with(r#"if they are of another number of classes, `skip = ["head.*"]` keeps"#), "{hint}");
    let turned = file(&[("fc1.weight", &[3, 2], 0.5)]);
    let (message, hint, place) = told(&turned, "");
    assert_eq!(message, "`FILE` has other shapes than the model: `fc1.weight` is [3, 2] instead of [2, 3]");
    assert!(hint.contains(r#"`skip = ["fc1.*"]`"#) && place.is_empty(), "{hint}");

    let fits = file(&[("a.fc1.weight", &[2, 3], 0.5), ("b.fc1.weight", &[2, 3], 1.0)]);
    let (message, hint, place) = told(&fits, r#", rename = { "^[ab]\\." = "" }"#);
    assert_eq!(message, "`a.fc1.weight` and `b.fc1.weight` of `FILE` both become `fc1.weight`");
    assert!(hint.contains("beginning") && place == "/rename", "{hint}");
    let (message, hint, place) = told(&fits, r#", prefix = "module.""#);
    assert_eq!(message, "no tensor of `FILE` has a name that begins with `module.`");
    assert_eq!((hint.as_str(), place.as_str()), ("the file has `a.fc1.weight` and `b.fc1.weight`", "/prefix"));
    let (message, _, place) = told(&fits, r#", prefix = "a.", rename = { "^b/" = "c" }"#);
    assert_eq!((message.as_str(), place.as_str()), ("`^b/` renames no tensor of `FILE`", "/rename/^b~1"));
    let (message, _, place) = told(&fits, r#", rename = { "(" = "" }"#);
    assert_eq!((message.as_str(), place.as_str()), ("`(` is not a regular expression: unclosed group", "/rename/("));
    let (message, _, place) = told(&fits, r#", skip = ["head.*", "haed.*"]"#);
    assert_eq!(
        (message.as_str(), place.as_str()),
        ("there is no tensor `haed.*`; did you mean `head.*` or `head*`?", "/skip/1")
    );
    let nothing = file(&[("classifier.weight", &[2, 3], 0.5)]);
    assert_eq!(
        told(&nothing, "").1,
        "the file has `classifier.weight`; the model has `fc1.weight`, `fc1.bias`, `head.weight` and `head.bias`"
    );
    let error = read(&graph, Path::new("nowhere"), "").unwrap_err();
    assert_eq!(
        (error.to_string(), error.place()),
        ("cannot read the weights `nowhere`".to_owned(), "/path".to_owned())
    );
}

#[test]
fn a_dtype_that_cannot_be_a_weight_is_refused() {
    let graph = graph(r#"{ type = "linear", out_features = 2 }"#);
    let file = tempfile::NamedTempFile::new().unwrap();
    let view = |dtype, bytes| safetensors::tensor::TensorView::new(dtype, vec![2], bytes).unwrap();
    let counts = [("fc1.bias", view(safetensors::Dtype::I64, &[0; 16]))];
    std::fs::write(file.path(), safetensors::serialize(counts, None).unwrap()).unwrap();
    let error = read(&graph, file.path(), "").unwrap_err();
    assert_eq!(
        without_path(&error.to_string(), &file),
        "`fc1.bias` has dtype int64 in `FILE`, which cannot become the float32 of the model"
    );
}

#[test]
fn a_net_of_pytorch_is_read_from_each_of_its_formats() {
    let layers = r#"{ type = "linear", out_features = 2 }, { type = "linear", out_features = 4 }"#;
    let graph = graph(layers);
    for name in ["shards", "arrays.npz", "compressed.npz"] {
        let weights = read(&graph, &figure(name), "").unwrap();
        let mut network = Network::new(Arc::clone(&graph), 1, Device::Cpu).unwrap();
        weights.write_into(&mut network).unwrap();
        let stored = crate::weights_file::WeightsFile::open(&figure("shards")).unwrap();
        let mut expected = network.tensor("fc1.weight").unwrap().zeros_like();
        stored.tensors["fc1.weight"].copy_into(&mut expected).unwrap();
        assert_eq!(network.tensor("fc1.weight").unwrap(), &expected, "{name}");
    }
    let tied = r#"{ type = "linear", out_features = 5, name = "head" }"#;
    let options: ModelOptions = toml::from_str(&format!("layers = [{tied}]")).unwrap();
    let graph = options.lower(&[3], Dtype::F32).unwrap();
    // The embedding has the values of the head, so that it is not left over.
    let report = read(&graph, &figure("training.pt"), r#", prefix = "module.""#).unwrap().report();
    assert!(report.contains(", its `model`; the model lacks `bn.bias`") && !report.contains("embedding"), "{report}");
}

#[test]
fn both_forms_are_kept_as_they_were_written() {
    let text = "init_from = \"weights.pt\"\nfreeze = []\n";
    let path: ModelOptions = toml::from_str(text).unwrap();
    assert_eq!(path.init_from.as_ref().map(InitFrom::path), Some(Path::new("weights.pt")));
    assert_eq!(toml::to_string(&path).unwrap(), "init_from = \"weights.pt\"\n");
    let keys = r#", rename = { "z" = "1", "a" = "2", "m" = "" }, strict = true"#;
    let options = ModelOptions { init_from: Some(options(Path::new("weights.pt"), keys)), ..ModelOptions::default() };
    let again: ModelOptions = toml::from_str(&toml::to_string(&options).unwrap()).unwrap();
    assert_eq!(again, options);
    let Some(InitFrom::Table(table)) = again.init_from else { panic!("a table") };
    assert_eq!(table.rename.iter().map(|(pattern, _)| pattern.as_str()).collect::<Vec<_>>(), ["z", "a", "m"]);
}

#[test]
fn mistakes_are_told_at_their_keys() {
    let run_file = |init_from: &str| {
        format!(
            "[run]\nname = \"a\"\n\n[data]\nformat = \"csv\"\npath = \"a.csv\"\ntarget = 1\n\n\
             [model]\ninit_from = {init_from}\nlayers = \
             [{{ type = \"relu\" }}]\n\n[train]\nepochs = 1\nbatch_size = 1\nloss = {{ type = \"mse\" }}\noptimizer = \
             {{ type = \"sgd\", learning_rate = 1.0 }}\n"
        )
    };
    let told = |init_from: &str| match crate::run_file::load("run.toml", &run_file(init_from), &[], &[]) {
        Ok(_) => String::new(),
        Err(problems) => render(&problems.0, Style::plain()),
    };
    for (init_from, expected) in [
        (r#"{ path = "a.pt", prefx = "module." }"#, "unknown key `prefx` in `model.init_from`"),
        (r#"{ path = "a.pt", prefx = "module." }"#, "did you mean `prefix`?"),
        (r#"{ skip = ["fc.*"] }"#, "`model.init_from` has no `path`"),
        ("3", "`model.init_from` must be a string or a table, found `3`"),
        (r#"{ path = "a.pt", rename = { a = 1 } }"#, "`model.init_from.rename.a` must be a string, found `1`"),
    ] {
        let told = told(init_from);
        assert!(told.contains(expected), "{told}");
    }
    assert_eq!(told(r#""a.pt""#), "");
    assert_eq!(told(r#"{ path = "a.pt", rename = { b = "", a = "" }, strict = true }"#), "");
}
