use plugin_api::Tensor;
use plugin_api::testing::{FakeHost, json};

use super::*;

fn host(options: serde_json::Value) -> FakeHost {
    let mut host = FakeHost::new::<DumpTensors>(options).unwrap();
    for (set, name, value) in [
        (TensorSet::Parameters, "fc1.weight", 1f32),
        (TensorSet::Parameters, "fc1.bias", 2.0),
        (TensorSet::Gradients, "fc1.weight", 3.0),
        (TensorSet::Gradients, "fc1.bias", 4.0),
        (TensorSet::Buffers, "bn.mean", 5.0),
    ] {
        host.put_tensor(set, Tensor::new(name, &[1], &[value]).unwrap());
    }
    host
}

fn dump(host: &mut FakeHost, step: u64) {
    host.set_position(1, step);
    host.trigger("step").unwrap();
}

/// The paths of all files and empty folders, relative to a folder.
fn files(folder: &Path) -> Vec<String> {
    fn visit(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && fs::read_dir(&path).unwrap().next().is_some() {
                visit(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = Vec::new();
    visit(folder, folder, &mut found);
    found.sort();
    found
}

fn value(path: &Path, name: &str) -> f32 {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    f32::from_le_bytes(file.tensor(name).unwrap().data().try_into().unwrap())
}

#[test]
fn each_set_is_a_file_of_safetensors() {
    let mut host = host(json!({}));
    host.setup().unwrap();
    dump(&mut host, 7);
    let folder = host.folder().join("tensors/epoch-0001-step-00000007");
    assert_eq!(files(&folder), ["buffers.safetensors", "gradients.safetensors", "parameters.safetensors"]);
    assert_eq!(value(&folder.join("gradients.safetensors"), "fc1.bias"), 4.0);
    assert_eq!(value(&folder.join("parameters.safetensors"), "fc1.weight"), 1.0);
}

#[test]
fn each_chosen_tensor_is_an_array_of_numpy() {
    let options =
        json!({ "format": "npy", "tensors": ["parameters", "buffers"], "exclude": ["*.bias"], "log_dir": "d" });
    let mut host = host(options);
    host.setup().unwrap();
    dump(&mut host, 7);
    let expected = ["buffers/bn.mean.npy", "parameters/fc1.weight.npy"];
    assert_eq!(files(&host.folder().join("d/epoch-0001-step-00000007")), expected);
}

#[test]
fn the_values_of_nodes_have_their_names() {
    let mut host = host(json!({ "tensors": ["taps"], "include": ["fc*"] }));
    let node = |name: &str, input: &str| json!({ "name": name, "op": { "type": "relu" }, "inputs": [input], "shape": [1], "parameters": [], "buffers": [] });
    host.set_graph(json!({
        "inputs": [{ "name": "input", "shape": [1], "dtype": "f32" }],
        "nodes": [node("fc1", "input"), node("relu1", "fc1")],
        "output": "relu1",
    }));
    host.setup().unwrap();
    let tap = host.taps()[0].clone();
    assert_eq!((host.taps().len(), tap.node.as_str(), tap.of), (1, "fc1", TapOf::Activation));
    host.put_tensor(TensorSet::Taps, Tensor::new(tap.name.as_str(), &[1], &[6f32]).unwrap());
    host.put_tensor(TensorSet::Taps, Tensor::new("of.another", &[1], &[7f32]).unwrap());
    dump(&mut host, 7);
    let folder = host.folder().join("tensors/epoch-0001-step-00000007");
    assert_eq!(files(&folder), ["taps.safetensors"]);
    assert_eq!(value(&folder.join("taps.safetensors"), "fc1"), 6.0);
}

#[test]
fn only_the_last_dumps_are_kept_also_after_a_resume() {
    let options = json!({ "tensors": ["parameters"], "keep": 2 });
    let mut first = host(options.clone());
    first.setup().unwrap();
    [1, 2, 3].into_iter().for_each(|step| dump(&mut first, step));
    let path = |step: u64| format!("epoch-0001-step-{step:08}/parameters.safetensors");
    let folder = first.folder().join("tensors");
    assert_eq!(files(&folder), [path(2), path(3)]);
    let state = first.save_state().unwrap();
    // What comes after the checkpoint is lost, except its files.
    dump(&mut first, 9);
    let mut resumed = host(json!({ "tensors": ["parameters"], "keep": 2, "log_dir": folder.display().to_string() }));
    resumed.setup().unwrap();
    resumed.load_state(&state).unwrap();
    dump(&mut resumed, 4);
    assert_eq!(files(&folder), [path(3), path(4), path(9)], "the new one is not the oldest");
    dump(&mut resumed, 9);
    assert_eq!(files(&folder), [path(4), path(9)]);
}

#[test]
fn a_dump_that_fails_leaves_the_one_before_and_nothing_else() {
    let mut host = host(json!({ "tensors": ["parameters", "gradients"] }));
    host.setup().unwrap();
    dump(&mut host, 5);
    host.put_tensor(TensorSet::Parameters, Tensor::new("fc1.weight", &[1], &[9f32]).unwrap());
    host.fail(plugin_api::ServiceKind::TENSOR_READ, "the device failed");
    assert!(host.trigger("step").is_err());
    let folder = host.folder().join("tensors");
    let dump = "epoch-0001-step-00000005";
    assert_eq!(files(&folder), [format!("{dump}/gradients.safetensors"), format!("{dump}/parameters.safetensors")]);
    assert_eq!(value(&folder.join(dump).join("parameters.safetensors"), "fc1.weight"), 1.0);
}

#[test]
fn what_a_killed_process_left_goes_away() {
    let mut host = host(json!({}));
    let left = host.folder().join("tensors/.partial-abc/epoch-0001-step-00000001");
    fs::create_dir_all(&left).unwrap();
    host.setup().unwrap();
    assert!(files(&host.folder().join("tensors")).is_empty());
}

#[test]
fn a_trial_leaves_nothing() {
    let mut host = host(json!({})).with_info(|info| info.trial = true);
    host.setup().unwrap();
    dump(&mut host, 5);
    assert!(files(&host.folder().join("tensors")).is_empty());
}

#[test]
fn wrong_options_are_refused() {
    let message = |options| FakeHost::new::<DumpTensors>(options).err().unwrap().message().to_owned();
    assert!(message(json!({ "tensors": [] })).starts_with("`tensors` is empty"));
    assert_eq!(message(json!({ "tensors": ["buffers", "buffers"] })), "`tensors` names `buffers` twice");
    assert!(message(json!({ "log_dir": "" })).starts_with("`log_dir` is empty"));
    let error = host(json!({ "tensors": ["gradients"], "include": ["bn.*"] })).setup().unwrap_err();
    let told = "none of the 2 tensors fits `include` and `exclude`: nothing would be written; the first of them is \
                `fc1.weight`";
    assert_eq!(error.message(), told);
}
