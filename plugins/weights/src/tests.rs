//! The callback with a fake host: real folders, files read back.

mod readers;

use std::path::PathBuf;

use plugin_api::Tensor;
use plugin_api::protocol::TensorSet;
use plugin_api::testing::{FakeHost, Value, json};
use proptest::prelude::*;

use self::readers::{Found, Tensors, read};
use super::*;

const ALL: [&str; 3] = ["safetensors", "pt", "npz"];

/// A convolution with batch norm, after ten steps.
fn host(options: Value) -> Result<FakeHost> {
    let mut host = FakeHost::new::<WeightsExport>(options)?;
    let weight: Vec<f32> = (0..18).map(|index| index as f32 / 4.0).collect();
    host.put_tensor(TensorSet::Parameters, Tensor::new("conv1.weight", &[2, 1, 3, 3], &weight)?);
    host.put_tensor(TensorSet::Buffers, Tensor::new("bn1.running_mean", &[2], &[0.5f32, -0.5])?);
    host.put_tensor(TensorSet::Buffers, Tensor::new("bn1.num_batches_tracked", &[], &[10i64])?);
    host.set_position(1, 10);
    Ok(host)
}

fn message<T>(result: Result<T>, host: &FakeHost) -> String {
    let error = result.err().expect("an error");
    error
        .message()
        .replace(&host.folder().display().to_string(), "RUN")
        .replace(&std::process::id().to_string(), "PROCESS")
}

/// The names in a folder of the run, including hidden ones.
fn names(host: &FakeHost, folder: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(host.folder().join(folder)) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn artifacts(host: &FakeHost) -> Vec<(&str, &str)> {
    host.artifacts().iter().map(|artifact| (artifact.kind.as_str(), artifact.path.as_str())).collect()
}

#[test]
fn every_format_has_the_weights() {
    let mut host = host(json!({ "formats": ALL })).unwrap();
    host.setup().unwrap();
    assert_eq!(names(&host, "exports"), [""; 0]);
    host.trigger("end").unwrap();
    assert_eq!(names(&host, "exports"), ["model.npz", "model.pt", "model.safetensors"]);
    let paths = ALL.map(|format| format!("exports/model.{format}"));
    assert_eq!(artifacts(&host), [0, 1, 2].map(|index| ("export", paths[index].as_str())));
    let files: Vec<Tensors> = paths.iter().map(|path| read(&host.folder().join(path))).collect();
    assert!(files[0] == files[1] && files[1] == files[2]);
    let counter = Found { dtype: "I64".to_owned(), shape: vec![], bytes: 10i64.to_le_bytes().to_vec() };
    assert_eq!(files[0]["bn1.num_batches_tracked"], counter);
    assert_eq!(files[0]["conv1.weight"].shape, [2, 1, 3, 3]);
    assert_eq!(files[0].len(), 3);
}

#[test]
fn a_file_tells_of_its_run_and_of_what_was_measured_there() {
    let mut host = host(json!({ "name": "model-{epoch}-{step}", "formats": ALL })).unwrap().with_info(|info| {
        info.name = "é".to_owned();
        info.data.target_names = vec!["no".to_owned(), "yes".to_owned()];
        (info.data.offset, info.data.scale) = (vec![0.5], vec![2.0]);
    });
    host.put_metric("val_loss", 0.25);
    host.set_position(2, 20);
    host.put_metric("train_loss", 0.5);
    host.put_metric("val_auc", f64::NAN);
    host.put_metric("epoch_seconds", 3.0);
    host.fire(EventKind::EXPORT).unwrap();
    let bytes = std::fs::read(host.folder().join("exports/model-0002-00000020.safetensors")).unwrap();
    let (_, header) = ::safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let expected = [
        ("format", "pt"),
        ("run", "é"),
        ("epoch", "2"),
        ("step", "20"),
        ("metrics", r#"{"train_loss":0.5}"#),
        ("target_names", r#"["no","yes"]"#),
        ("offset", "[0.5]"),
        ("scale", "[2.0]"),
    ];
    let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(header.metadata().as_ref(), Some(&expected.into_iter().collect()));

    // The other formats have one object.
    let origin = json!({
        "run": "é", "epoch": 2, "step": 20, "metrics": { "train_loss": 0.5 }, "target_names": ["no", "yes"],
        "offset": [0.5], "scale": [2.0],
    });
    let open = |format: &str| {
        let file = std::fs::File::open(host.folder().join(format!("exports/model-0002-00000020.{format}"))).unwrap();
        zip::ZipArchive::new(file).unwrap()
    };
    let value = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap();
    assert_eq!(value(open("npz").comment()), origin);
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut open("pt").by_name("archive/extra/run.json").unwrap(), &mut text).unwrap();
    assert_eq!(value(&text), origin);
}

#[test]
fn equal_weights_are_equal_files() {
    let write = || {
        let mut host = host(json!({ "formats": ALL })).unwrap();
        for index in 0..20 {
            host.put_metric(&format!("metric{index}"), 1.0);
        }
        host.trigger("end").unwrap();
        ALL.map(|format| std::fs::read(host.folder().join(format!("exports/model.{format}"))).unwrap())
    };
    assert!(write() == write());
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let refused =
        |options: Value| FakeHost::new::<WeightsExport>(options).err().expect("an error").message().to_owned();
    assert_eq!(refused(json!({ "formats": [] })), "`formats` must name at least one format");
    assert_eq!(refused(json!({ "formats": ["pt", "npz", "pt"] })), "`formats` names `pt` twice");
    assert_eq!(refused(json!({ "log_dir": "" })), "`log_dir` must not be empty; `.` is the run folder itself");
    for name in ["a/b", "..", "", "{val_loss}", ".hidden", "a\\b"] {
        assert!(refused(json!({ "name": name })).starts_with(&format!("`name` = `{name}`")), "{name}");
    }
    assert!(refused(json!({ "formats": ["onnx"] })).contains("onnx"));
    assert!(refused(json!({ "folder": "exports" })).contains("folder"));
}

#[test]
fn numbers_that_are_none_are_refused_with_their_place_unless_allowed() {
    for value in [f32::NAN, f32::NEG_INFINITY] {
        let mut values = vec![0.0; 3000];
        values[2500] = value;
        let tensor = Tensor::new("fc1.bias", &[3000], &values).unwrap();
        let mut careful = host(json!({ "formats": ALL })).unwrap();
        careful.put_tensor(TensorSet::Parameters, tensor.clone());
        let refused = careful.trigger("end");
        let expected = format!(
            "the weight `fc1.bias` is `{value}` at element 2500; set `allow_non_finite = true` to export it anyway"
        );
        assert_eq!(message(refused, &careful), expected);
        assert_eq!((names(&careful, "exports"), careful.artifacts().len()), (vec![], 0));

        let mut allowed = host(json!({ "formats": ALL, "allow_non_finite": true })).unwrap();
        allowed.put_tensor(TensorSet::Parameters, tensor);
        allowed.trigger("end").unwrap();
        for format in ALL {
            let found = read(&allowed.folder().join(format!("exports/model.{format}")));
            assert_eq!(found["fc1.bias"].bytes[10_000..10_004], value.to_le_bytes());
        }
    }
}

#[test]
fn what_stands_in_the_way_is_told_before_the_training() {
    let mut file = host(json!({ "log_dir": "taken/exports" })).unwrap();
    std::fs::write(file.folder().join("taken"), "").unwrap();
    let refused = file.setup();
    let told = message(refused, &file);
    assert!(told.starts_with("cannot create the folder `RUN/taken/exports`: "), "{told}");

    let mut folder = host(json!({ "formats": ["pt"] })).unwrap();
    std::fs::create_dir_all(folder.folder().join("exports/model.pt")).unwrap();
    let refused = folder.setup();
    assert_eq!(message(refused, &folder), "`RUN/exports/model.pt` is a folder, but a file is to be published there");
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    let mut host = host(json!({})).unwrap();
    let folder = host.folder().join("exports");
    std::fs::create_dir(&folder).unwrap();
    let mut permissions = std::fs::metadata(&folder).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&folder, permissions).unwrap();
    if std::fs::write(folder.join("probe"), "").is_ok() {
        eprintln!("skipped: this user may write everywhere");
        return;
    }
    let refused = host.setup();
    let told = message(refused, &host);
    assert!(told.starts_with("cannot create `RUN/exports/.model.safetensors.partial-PROCESS`: "), "{told}");
}

#[test]
fn what_is_there_already_stays_unless_it_may_be_replaced() {
    let mut keeps = host(json!({ "formats": ["safetensors", "npz"], "overwrite": false })).unwrap();
    std::fs::create_dir(keeps.folder().join("exports")).unwrap();
    std::fs::write(keeps.folder().join("exports/model.npz"), "old").unwrap();
    let refused = keeps.setup();
    assert_eq!(
        message(refused, &keeps),
        "`RUN/exports/model.npz` already exists; set `overwrite = true` to replace it, or use `{epoch}` or \
         `{step}` in `name` to keep both"
    );
    // If one of the formats cannot be written, none is.
    assert!(keeps.trigger("end").is_err());
    assert_eq!(names(&keeps, "exports"), ["model.npz"]);

    let mut replaces = host(json!({})).unwrap();
    for _ in 0..2 {
        replaces.trigger("epoch").unwrap();
    }
    assert_eq!((names(&replaces, "exports"), replaces.artifacts().len()), (vec!["model.safetensors".to_owned()], 2));
}

#[test]
fn a_trial_publishes_nothing_but_fails_as_a_run_would() {
    let mut trial = host(json!({ "formats": ALL })).unwrap().with_info(|info| info.trial = true);
    trial.trigger("trial").unwrap();
    assert_eq!((names(&trial, "exports"), trial.artifacts().len()), (vec![], 0));
    trial.put_tensor(TensorSet::Parameters, Tensor::new("fc1.bias", &[1], &[f32::NAN]).unwrap());
    assert!(trial.trigger("trial").is_err());
}

#[test]
fn files_of_an_absolute_folder_are_announced_by_their_absolute_path() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut host = host(json!({ "log_dir": elsewhere.path(), "name": "modèle 1" })).unwrap();
    host.trigger("end").unwrap();
    let path: PathBuf = elsewhere.path().join("modèle 1.safetensors");
    assert!(path.is_file());
    assert_eq!(artifacts(&host), [("export", path.to_str().unwrap())]);
}

#[test]
fn it_can_run_in_the_background() {
    let host = host(json!({})).unwrap();
    let descriptor = format!("{:?}", host.descriptor());
    for (hook, what) in
        [("trigger", "parameters"), ("trigger", "buffers"), ("export", "parameters"), ("export", "buffers")]
    {
        let need = host.descriptor().needs.iter().any(|need| need.hook == hook && need.what == what);
        assert!(need, "{hook} {what}: {descriptor}");
    }
    assert!(!host.descriptor().by_default);
}

#[test]
fn a_name_that_no_archive_takes_is_an_error() {
    let long = format!("{}.weight", "x".repeat(70_000));
    for (format, fits) in [("safetensors", true), ("pt", true), ("npz", false)] {
        let mut host = host(json!({ "formats": [format] })).unwrap();
        host.put_tensor(TensorSet::Parameters, Tensor::new(long.as_str(), &[1], &[1f32]).unwrap());
        assert_eq!(host.trigger("end").is_ok(), fits, "{format}");
        assert_eq!(names(&host, "exports").len(), usize::from(fits), "{format}");
    }
}

/// A shape of few elements, and whether they are integers.
fn shapes() -> impl Strategy<Value = (Vec<i64>, bool)> {
    (prop::collection::vec(0i64..5, 0..6), any::<bool>())
}

proptest! {
    #[test]
    fn any_names_and_shapes_come_back(
        tensors in prop::collection::btree_map("\\PC{1,12}\\.[a-z_]{1,8}", shapes(), 0..8),
        seed in any::<u64>(),
    ) {
        let mut host = FakeHost::new::<WeightsExport>(json!({ "formats": ALL, "allow_non_finite": true, "sync": false }))
            .unwrap();
        let mut expected = Tensors::new();
        let mut bits = seed;
        let mut next = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bits >> 16
        };
        // The host has both sets, even if they are empty.
        host.put_tensor(TensorSet::Parameters, Tensor::new("a.b", &[0], &[0f32; 0]).unwrap());
        host.put_tensor(TensorSet::Buffers, Tensor::new("a.c", &[0], &[0i64; 0]).unwrap());
        for (name, dtype) in [("a.b", "F32"), ("a.c", "I64")] {
            expected.insert(name.to_owned(), Found { dtype: dtype.to_owned(), shape: vec![0], bytes: vec![] });
        }
        for (name, (shape, integers)) in tensors {
            let count = shape.iter().product::<i64>() as usize;
            let (tensor, set, dtype, bytes) = if integers {
                let values: Vec<i64> = (0..count).map(|_| next() as i64).collect();
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (Tensor::new(name.as_str(), &shape, &values).unwrap(), TensorSet::Buffers, "I64", bytes)
            } else {
                let values: Vec<f32> = (0..count).map(|_| f32::from_bits(next() as u32)).collect();
                let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                (Tensor::new(name.as_str(), &shape, &values).unwrap(), TensorSet::Parameters, "F32", bytes)
            };
            host.put_tensor(set, tensor);
            expected.insert(name, Found { dtype: dtype.to_owned(), shape, bytes });
        }
        host.trigger("end").unwrap();
        for format in ALL {
            let found = read(&host.folder().join(format!("exports/model.{format}")));
            prop_assert!(found == expected, "{format}: {found:?} instead of {expected:?}");
        }
    }
}

/// A linear layer with its adapter, as a host gives them to who exports: the sum under the layer's name.
fn adapted(options: Value) -> FakeHost {
    let mut host = FakeHost::new::<WeightsExport>(options).unwrap();
    let parameters: [(&str, [i64; 2]); 7] = [
        ("attn.in_proj_weight", [12, 4]),
        ("attn.out_proj.weight", [4, 4]),
        ("encoder.fc.weight", [2, 3]),
        ("header.weight", [1, 2]),
        ("head.weight", [4, 2]),
        ("encoder.fc.lora_A.weight", [1, 3]),
        ("encoder.fc.lora_B.weight", [2, 1]),
    ];
    for (index, (name, shape)) in parameters.into_iter().enumerate() {
        let values: Vec<f32> = (0..shape[0] * shape[1]).map(|value| value as f32 + 10.0 * index as f32).collect();
        host.put_tensor(TensorSet::Parameters, Tensor::new(name, &shape, &values).unwrap());
    }
    host.put_tensor(TensorSet::Buffers, Tensor::new("head.scale", &[], &[3i64]).unwrap());
    host.with_info(|info| {
        let matrices = ["lora_A", "lora_B"].map(|matrix| format!("encoder.fc.{matrix}.weight"));
        info.lora = Some(plugin_api::protocol::LoraInfo {
            rank: 1,
            alpha: 16.0,
            target_modules: vec!["encoder.fc".to_owned(), "attn".to_owned()],
            modules_to_save: vec!["head".to_owned()],
            tensors: matrices.into(),
            ..Default::default()
        });
    })
}

#[test]
fn adapters_are_written_as_peft_reads_them() {
    let mut host = adapted(json!({ "formats": ["peft"], "name": "at-{step}" }));
    host.setup().unwrap();
    assert_eq!(names(&host, "exports"), [""; 0], "nothing is left of the trial");
    host.set_position(1, 7);
    host.fire(EventKind::EXPORT).unwrap();
    let folder = "exports/at-00000007-peft";
    assert_eq!(names(&host, folder), ["adapter_config.json", "adapter_model.safetensors"]);
    let paths = ["adapter_model.safetensors", "adapter_config.json"].map(|name| format!("{folder}/{name}"));
    assert_eq!(artifacts(&host), [("export", paths[0].as_str()), ("export", paths[1].as_str())]);
    let tensors = read(&host.folder().join(&paths[0]));
    let found: Vec<(&str, &[i64])> =
        tensors.iter().map(|(name, found)| (name.as_str(), found.shape.as_slice())).collect();
    let expected: [(&str, &[i64]); 6] = [
        ("base_model.model.attn.base_layer.out_proj.lora_A.weight", &[1, 4]),
        ("base_model.model.attn.base_layer.out_proj.lora_B.weight", &[4, 1]),
        ("base_model.model.encoder.fc.lora_A.weight", &[1, 3]),
        ("base_model.model.encoder.fc.lora_B.weight", &[2, 1]),
        ("base_model.model.head.scale", &[]),
        ("base_model.model.head.weight", &[4, 2]),
    ];
    assert_eq!(found, expected);
    let config: Value = serde_json::from_slice(&std::fs::read(host.folder().join(&paths[1])).unwrap()).unwrap();
    for (key, value) in [
        ("peft_type", json!("LORA")),
        ("r", json!(1)),
        ("lora_alpha", json!(16)),
        ("target_modules", json!(["encoder.fc", "attn"])),
        ("modules_to_save", json!(["head"])),
        ("fan_in_fan_out", json!(false)),
        ("inference_mode", json!(true)),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
}

#[test]
fn without_adapters_their_format_is_refused_before_the_training() {
    let mut host = host(json!({ "formats": ["safetensors", "peft"] })).unwrap();
    let refused = host.setup();
    let message = message(refused, &host);
    assert!(
        message.contains("`formats` has `peft`, which is for adapters") && message.contains("`[model] lora`"),
        "{message}"
    );
}
