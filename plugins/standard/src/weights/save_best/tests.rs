use plugin_api::Tensor;
use plugin_api::testing::{FakeHost, Value, json};

use super::*;

fn host(options: Value) -> FakeHost {
    let mut host = FakeHost::new::<SaveBest>(options).unwrap();
    put(&mut host, 0.0);
    host.train_start().unwrap();
    host
}

fn put(host: &mut FakeHost, weight: f32) {
    host.put_tensor(TensorSet::Parameters, Tensor::new("weight", &[1], &[weight]).unwrap());
    host.put_tensor(TensorSet::Buffers, Tensor::new("count", &[1], &[weight as i64]).unwrap());
    host.put_tensor(TensorSet::Optimizer, Tensor::new("exp_avg.weight", &[1], &[weight / 2.0]).unwrap());
}

/// Ends an epoch whose weights are its number.
fn epoch(host: &mut FakeHost, epoch: u64, loss: f64) {
    put(host, epoch as f32);
    host.set_position(epoch, epoch * 10);
    host.put_metric("val_loss", loss);
    host.trigger("epoch").unwrap();
}

/// The first number of a tensor in a safetensors file.
fn first(path: &Path, tensor: &str) -> Option<f32> {
    let bytes = std::fs::read(path).ok()?;
    let length = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let begin = usize::try_from(header[tensor]["data_offsets"][0].as_u64()?).unwrap();
    let begin = 8 + length + begin;
    Some(f32::from_le_bytes(bytes[begin..begin + 4].try_into().unwrap()))
}

fn in_file(host: &FakeHost) -> Option<f32> {
    first(&host.folder().join("best.safetensors"), "weight")
}

fn in_model(host: &FakeHost) -> f32 {
    host.tensor(&TensorSet::Parameters, "weight").unwrap().view().to_vec::<f32>().unwrap()[0]
}

#[test]
fn the_file_and_the_end_have_the_weights_of_the_best_epoch() {
    let mut host = host(json!({}));
    for (number, loss, best) in [(1, 1.0, 1.0), (2, 0.5, 2.0), (3, 0.7, 2.0), (4, 0.5, 2.0)] {
        epoch(&mut host, number, loss);
        assert_eq!((in_file(&host), in_model(&host)), (Some(best), number as f32));
    }
    host.trained().unwrap();
    assert_eq!(in_model(&host), 2.0);
    let counter = host.tensor(&TensorSet::Buffers, "count").unwrap().view().to_vec::<i64>().unwrap();
    assert_eq!(counter, [2]);
    assert_eq!(host.artifacts().len(), 2);
    assert_eq!(step_of(&host.folder().join("best.safetensors")), Some(20));
}

#[test]
fn a_nan_is_never_the_best_and_the_first_number_after_it_is() {
    let mut host = host(json!({}));
    epoch(&mut host, 1, f64::NAN);
    assert_eq!(in_file(&host), None);
    epoch(&mut host, 2, 3.0);
    epoch(&mut host, 3, f64::NAN);
    assert_eq!(in_file(&host), Some(2.0));
    host.trained().unwrap();
    assert_eq!(in_model(&host), 2.0);
}

#[test]
fn the_mode_says_which_way_is_better() {
    let mut highest = host(json!({ "mode": "max" }));
    epoch(&mut highest, 1, 1.0);
    epoch(&mut highest, 2, 0.5);
    assert_eq!(in_file(&highest), Some(1.0));
    let error = FakeHost::new::<SaveBest>(json!({ "metric": "learning_rate" })).err().unwrap();
    assert!(error.message().contains("set `mode` to `min` or `max`"), "{error}");
}

#[test]
fn a_value_of_other_weights_writes_nothing() {
    let mut host = host(json!({}));
    host.set_position(1, 10);
    host.put_metric("val_loss", 0.5);
    host.set_position(1, 15);
    host.trigger("step").unwrap();
    assert_eq!(in_file(&host), None);
    assert!(
        host.logs()[0].contains("measured after step 10, but the weights are those of step 15"),
        "{:?}",
        host.logs()
    );
}

#[test]
fn the_weights_stay_where_they_are_to_stay() {
    let mut host = host(json!({ "load_at_end": false }));
    epoch(&mut host, 1, 0.5);
    epoch(&mut host, 2, 0.6);
    host.trained().unwrap();
    assert_eq!((in_file(&host), in_model(&host)), (Some(1.0), 2.0));
    assert_eq!(host.tensor(&TensorSet::Copy("save-best-best".to_owned()), "weight"), None);
}

#[test]
fn the_optimizer_has_a_file_of_its_own() {
    let mut host = host(json!({ "save_optimizer": true, "path": "kept/top.safetensors" }));
    epoch(&mut host, 4, 0.5);
    let beside = |name: &str, tensor: &str| first(&host.folder().join("kept").join(name), tensor);
    assert_eq!(beside("top.safetensors", "weight"), Some(4.0));
    assert_eq!(beside("top.optimizer.safetensors", "exp_avg.weight"), Some(2.0));
    assert_eq!(beside("top.safetensors", "exp_avg.weight"), None);
    let mut without = self::host(json!({}));
    epoch(&mut without, 1, 0.5);
    assert!(!without.folder().join("best.optimizer.safetensors").exists());
}

#[test]
fn a_worse_value_after_a_resume_leaves_the_file_of_before() {
    let mut first = host(json!({}));
    epoch(&mut first, 1, 0.5);
    epoch(&mut first, 2, 0.8);
    let state = first.save_state().unwrap();
    let mut resumed = FakeHost::new::<SaveBest>(json!({})).unwrap();
    std::fs::copy(first.folder().join("best.safetensors"), resumed.folder().join("best.safetensors")).unwrap();
    put(&mut resumed, 2.0);
    resumed.load_state(&state).unwrap();
    resumed.train_start().unwrap();
    epoch(&mut resumed, 3, 0.6);
    assert_eq!(in_file(&resumed), Some(1.0));
    epoch(&mut resumed, 4, 0.4);
    assert_eq!(in_file(&resumed), Some(4.0));
}

#[test]
fn a_file_that_is_gone_comes_back_from_the_checkpoint() {
    let mut first = host(json!({}));
    epoch(&mut first, 1, 0.5);
    let state = first.save_state().unwrap();
    let mut resumed = FakeHost::new::<SaveBest>(json!({})).unwrap();
    put(&mut resumed, 2.0);
    for (set, tensor) in [(TensorSet::Parameters, "weight"), (TensorSet::Buffers, "count")] {
        let kept = first.tensor(&TensorSet::Copy("save-best-best".to_owned()), tensor).unwrap().clone();
        assert!(first.tensor(&set, tensor).is_some());
        resumed.put_tensor(TensorSet::Copy("save-best-best".to_owned()), kept);
    }
    resumed.load_state(&state).unwrap();
    resumed.train_start().unwrap();
    assert_eq!((in_file(&resumed), in_model(&resumed)), (Some(1.0), 2.0));
    resumed.trained().unwrap();
    assert_eq!(in_model(&resumed), 1.0);
}

#[test]
fn what_is_in_no_checkpoint_is_a_warning() {
    let mut first = host(json!({}));
    epoch(&mut first, 1, 0.5);
    let mut resumed = FakeHost::new::<SaveBest>(json!({})).unwrap();
    put(&mut resumed, 2.0);
    resumed.load_state(&first.save_state().unwrap()).unwrap();
    resumed.train_start().unwrap();
    assert!(resumed.logs()[0].contains("best.safetensors` is missing"), "{:?}", resumed.logs());
    resumed.set_position(2, 20);
    resumed.trained().unwrap();
    assert!(resumed.logs()[1].contains("the best weights are not in the checkpoint"), "{:?}", resumed.logs());
}

#[test]
fn a_disk_that_fails_leaves_the_file_of_before() {
    let mut host = host(json!({ "path": "kept/best.safetensors" }));
    epoch(&mut host, 1, 0.5);
    let kept = host.folder().join("kept");
    std::fs::rename(&kept, host.folder().join("moved")).unwrap();
    std::fs::write(&kept, "a file in its place").unwrap();
    put(&mut host, 2.0);
    host.set_position(2, 20);
    host.put_metric("val_loss", 0.4);
    let error = host.trigger("epoch").unwrap_err();
    assert!(error.message().starts_with("cannot create the folder `"), "{error}");
    assert_eq!(first(&host.folder().join("moved/best.safetensors"), "weight"), Some(1.0));
}

#[test]
fn a_path_outside_the_run_folder_is_refused() {
    for path in ["", "/tmp/best.safetensors", "../best.safetensors", "best.pt", "best"] {
        let error = FakeHost::new::<SaveBest>(json!({ "path": path })).err().unwrap();
        assert!(error.message().starts_with("`path` must name a file in the run folder"), "{error}");
    }
}

#[test]
fn any_bytes_are_a_state_or_an_error() {
    for bytes in [&b""[..], b"\x00", b"\xff\xff", b"{}"] {
        assert!(FakeHost::new::<SaveBest>(json!({})).unwrap().load_state(bytes).is_err());
    }
}
