//! The formats of data, through the real program: files of real writers, and errors in files.

use std::path::{Path, PathBuf};
use std::process::Command;

use fixture::{build_workspace_plugins, folder_of, host, lines, shown, temporary_folder, workspace_root};
use serde_json::Value;

use crate::data_run::DataRun;

const CSV: &str = r#"
format = "csv"
path = "digits.csv.gz"
target = 64
shape = [1, 8, 8]
classes = 10
normalize = "standard"
splits = { val = { fraction = 0.2 } }
"#;

/// The digits, as `x` and `y`, in common types.
const WRITE_ARRAYS: &str = "
import gzip, struct
import numpy
from safetensors.numpy import save_file
table = numpy.loadtxt('digits.csv.gz', delimiter=',')
x, y = table[:, :64].reshape(-1, 1, 8, 8), table[:, 64]
numpy.save('x.npy', x.astype('uint8'))
numpy.save('y.npy', y.astype('int64'))
numpy.save('x64.npy', x.astype('>f8'))
numpy.save('flat.npy', x.reshape(-1, 64).astype('float16'))
numpy.savez('plain.npz', x=x.astype('float32'), y=y.astype('int32'))
numpy.savez_compressed('packed.npz', x=x.astype('int16'), y=y.astype('uint8'))
save_file({'x': x.astype('float32'), 'y': y.astype('int64')}, 'digits.safetensors')
def idx(array):
    return struct.pack('>BBBB', 0, 0, 8, array.ndim) + struct.pack(f'>{array.ndim}I', *array.shape) + array.astype('uint8').tobytes()
open('images.idx', 'wb').write(idx(x[:, 0]))
gzip.open('labels.idx.gz', 'wb').write(idx(y))
numpy.save('objects.npy', numpy.array([{'a': 1}, None], dtype=object), allow_pickle=True)
numpy.save('columns.npy', numpy.asfortranarray(x.reshape(-1, 64)))
";

#[test]
fn every_format_trains_to_the_same_numbers() {
    let run = DataRun::new();
    if !run.python(WRITE_ARRAYS) {
        return;
    }
    let expected = run.metrics("csv", CSV);
    assert_eq!(expected.len(), 2);
    let rest = "normalize = \"standard\"\nsplits = { val = { fraction = 0.2 } }";
    for (name, data) in [
        ("npy", "format = \"npy\"\ninputs = \"x.npy\"\ntargets = \"y.npy\""),
        ("npy-big-endian", "format = \"npy\"\ninputs = \"x64.npy\"\ntargets = \"y.npy\""),
        ("npy-shape", "format = \"npy\"\ninputs = \"flat.npy\"\ntargets = \"y.npy\"\nshape = [1, 8, 8]\nclasses = 10"),
        ("npz", "format = \"npz\"\npath = \"plain.npz\"\ninputs = \"x\"\ntargets = \"y\""),
        ("npz-packed", "format = \"npz\"\npath = \"packed.npz\"\ninputs = \"x\"\ntargets = \"y\""),
        ("safetensors", "format = \"safetensors\"\npath = \"digits.safetensors\"\ninputs = \"x\"\ntargets = \"y\""),
        ("idx", "format = \"idx\"\ninputs = \"images.idx\"\ntargets = \"labels.idx.gz\"\nshape = [1, 8, 8]"),
    ] {
        assert_eq!(run.metrics(name, &format!("{data}\n{rest}")), expected, "{name}");
    }
    let found = run.refusal(&format!("format = \"npy\"\ninputs = \"objects.npy\"\ntargets = \"y.npy\"\n{rest}"));
    insta::assert_snapshot!(found, @r#"
    exit code: 2
    -- stderr
      × `objects.npy` has Python objects, which are not read because unpickling runs code from the file; save numbers with `numpy.save(…, allow_pickle=False)`
        ╭─[run.toml:9:10]
      8 │ format = "npy"
      9 │ inputs = "objects.npy"
        ·          ─────────────
     10 │ targets = "y.npy"
        ╰────
    "#);
    let found = run.refusal(&format!("format = \"npy\"\ninputs = \"columns.npy\"\ntargets = \"y.npy\"\n{rest}"));
    assert!(found.contains("numpy.ascontiguousarray"), "{found}");
}

#[test]
fn data_larger_than_the_memory_limit_is_read_on_demand() {
    let run = DataRun::new();
    // 400 MB of samples in a sparse file; as f32 they would take 1.6 GB.
    let header = |descr: &str, shape: &str| {
        let dictionary = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        [b"\x93NUMPY\x01\x00".as_slice(), &(dictionary.len() as u16).to_le_bytes(), dictionary.as_bytes()].concat()
    };
    let inputs = header("|u1", "(100, 4000000)");
    let length = inputs.len() as u64 + 400_000_000;
    run.write("x.npy", &inputs);
    let file = std::fs::File::options().write(true).open(run.folder.path().join("x.npy")).expect("it is there");
    file.set_len(length).expect("a file may have holes");
    let targets: Vec<u8> = (0..100).map(|index| index % 2).collect();
    run.write("y.npy", [header("|u1", "(100,)"), targets].concat());
    run.write(
        "large.toml",
        r#"
        [run]
        name = "large"
        threads = 1
        device = "cpu"
        by_default = false

        [data]
        format = "npy"
        inputs = "x.npy"
        targets = "y.npy"
        shape = [1, 2000, 2000]

        [model]
        layers = [{ type = "adaptive_avg_pool2d" }, { type = "flatten" }, { type = "linear", out_features = 2 }]

        [train]
        epochs = 1
        batch_size = 4
        loss = { type = "cross_entropy" }
        optimizer = { type = "sgd", learning_rate = 1e-2 }
        "#,
    );
    let plugins = folder_of([build_workspace_plugins()["standard"].as_path()]);
    // The shell limits the host's own memory, in KiB; mapped files do not count.
    let output = Command::new("sh")
        .args(["-c", "ulimit -d 1400000; exec \"$@\"", "sh"])
        .arg(fixture::host_binary())
        .args(["run", "large.toml", "--out", "large", "--plugins"])
        .arg(plugins.path())
        .current_dir(run.folder.path())
        .output()
        .expect("the shell starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_test_split_is_evaluated_once_at_the_end() {
    let run = DataRun::new();
    let data = CSV.replace("val = { fraction = 0.2 }", "val = { fraction = 0.2 }, test = { fraction = 0.1 }");
    let metrics = run.metrics("test", &data);
    let kinds: Vec<&str> = metrics.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!(kinds, ["epoch", "epoch", "test"]);
    let mut keys: Vec<&String> = metrics[2].as_object().expect("an object").keys().collect();
    keys.sort_unstable();
    assert_eq!(keys, ["epoch", "kind", "step", "test_accuracy", "test_loss"]);
    assert!(metrics[0].get("test_loss").is_none());
    let status = std::fs::read_to_string(run.folder.path().join("test/status.json")).expect("the status is there");
    let status: Value = serde_json::from_str(&status).expect("it is JSON");
    assert_eq!(status["metrics"]["test_loss"], metrics[2]["test_loss"]);
}

#[test]
fn augmented_images_resume_to_the_same_bits() {
    let run = DataRun::new();
    let augment = r#"augment = [{ type = "pad", padding = 1 }, { type = "random_crop" }, { type = "random_erase" }]"#;
    let data = format!("{CSV}\n{augment}");
    let expected = run.metrics("whole", &data);
    assert_ne!(expected, run.metrics("plain", CSV));
    let plugins = folder_of(build_workspace_plugins().values().map(PathBuf::as_path));
    let host_run = |out: &str, arguments: &[&str]| {
        let mut command = host();
        command.current_dir(run.folder.path()).args(["run", "run.toml", "--out", out, "--plugins"]);
        command.arg(plugins.path()).args(["--set", "run.by_default=false"]);
        command.args(["--plugin", "json-lines", "--plugin", "checkpoint"]).args(arguments);
        let output = command.output().expect("the host starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run.run("ignored", &data, &[]);
    // Within the second epoch, which has eight steps.
    host_run("first", &["--set", "plugins.checkpoint.when.at=[\"step 11\"]"]);
    host_run("second", &["--resume", "first/checkpoints/epoch-0002-step-00000011"]);
    let mut resumed = lines(&run.folder.path().join("second/metrics.jsonl"));
    for line in &mut resumed {
        line.as_object_mut().expect("an object").retain(|key, _| !key.ends_with("_seconds"));
    }
    assert_eq!(resumed.last(), expected.last());
}

/// Writes a folder of two classes for each kind of picture, and what Pillow makes of the first pixel in gray.
const WRITE_PICTURES: &str = "
import json, os
import numpy
from PIL import Image
one = lambda color: Image.new('RGB', (8, 8), color)
pictures = {
    'blue.png': one((0, 0, 255)), 'mixed.bmp': one((200, 100, 50)), 'red.gif': one((255, 0, 0)),
    'green.webp': one((0, 255, 0)), 'palette.png': one((12, 200, 77)).quantize(4), 'alpha.png': one((12, 200, 77)).convert('RGBA'),
    'bits.png': one((255, 255, 255)).convert('1'), 'deep.png': Image.fromarray(numpy.full((8, 8), 1000, numpy.uint16)),
    'deep.tiff': Image.fromarray(numpy.full((8, 8), 65535, numpy.uint16)), 'gray.jpg': one((90, 90, 90)).convert('L'),
    'cmyk.jpg': one((200, 100, 50)).convert('CMYK'),
}
expected = {}
for name, picture in pictures.items():
    for part in 'ab':
        os.makedirs(f'{name}.d/{part}')
        options = {'lossless': True} if name.endswith('webp') else {'quality': 100} if name.endswith('jpg') else {}
        picture.save(f'{name}.d/{part}/{name}', **options)
    read = Image.open(f'{name}.d/a/{name}')
    value = read.getpixel((0, 0))
    expected[name] = value / 257 if read.mode.startswith('I') else read.convert('RGB').convert('L').getpixel((0, 0))
json.dump(expected, open('expected.json', 'w'))
";

#[test]
fn pictures_are_read_as_pillow_reads_them() {
    let run = DataRun::new();
    if !run.python(WRITE_PICTURES) {
        return;
    }
    let text = std::fs::read_to_string(run.folder.path().join("expected.json")).expect("it was written");
    let expected: serde_json::Map<String, Value> = serde_json::from_str(&text).expect("it is JSON");
    for (name, value) in &expected {
        // The least value of a picture of one color is that value.
        let out = format!("{name}.out");
        let data = format!("format = \"images\"\npath = \"{name}.d\"\ncolor = \"gray\"\nnormalize = \"range\"");
        let output = run.run(&out, &data, &few("model.layers.3.out_features=2"));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let data = std::fs::read_to_string(run.folder.path().join(&out).join("model.json")).expect("it was written");
        let data: Value = serde_json::from_str(&data).expect("it is JSON");
        let found = data["normalization"]["offset"][0].as_f64().expect("a number");
        let expected = value.as_f64().expect("a number");
        let limit = if name == "cmyk.jpg" { 2.0 } else { 1e-9 };
        assert!((found - expected).abs() <= limit, "{name}: {found}, but Pillow reads {expected}");
    }
    assert_eq!(expected.len(), 11);
}

/// A training that fits a few samples of `classes` classes.
fn few(classes: &str) -> Vec<&str> {
    let mut arguments = vec!["--set", "train.batch_size=2", "--set", "train.epochs=1", "--set", "eval.split=train"];
    arguments.extend(["--set", classes]);
    arguments
}

#[test]
fn what_is_left_out_or_lost_is_said_at_the_start_and_the_data_is_described() {
    let run = DataRun::new();
    let pixel = b"BM\x3a\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\x18\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02\x03\0";
    run.write("images/cat/1.bmp", pixel).write("images/cat/2024/2.bmp", pixel).write("images/dog/1.bmp", pixel);
    run.write("images/dog/notes.txt", "").write("images/dog/.hidden", "");
    let data = "format = \"images\"\npath = \"images\"\nclasses = [\"dog\", \"cat\", \"bird\"]";
    let output =
        run.run("images-out", data, &[few("model.layers.3.out_features=3"), vec!["--plugin", "checkpoint"]].concat());
    let told = shown(&output, &[(run.folder.path(), "[FOLDER]")]);
    assert!(told.contains("data: train 3"), "{told}");
    assert!(told.contains("data: `images`: 2 files are left out: 1 `.txt`, 1 hidden; images in the folder"), "{told}");
    assert!(told.contains("the split `train` has no sample of 1 of 3 classes (`bird`)"), "{told}");
    let out = run.folder.path().join("images-out");
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("it was written");
    let described: Value = serde_json::from_str(&read(out.join("model.json"))).expect("it is JSON");
    assert_eq!(described["target"]["names"], serde_json::json!(["dog", "cat", "bird"]));
    assert_eq!(
        described["samples"],
        serde_json::json!({"type": "images", "color": "rgb", "orientation": "apply", "resize": null})
    );
    assert_eq!(read(out.join("checkpoints/last/model.json")), read(out.join("model.json")));

    run.write(
        "times.csv",
        (0..400).map(|index| format!("{},{}\n", 1_700_000_000 + index, index % 10)).collect::<String>(),
    );
    let told = |out: &str, normalize: &str| {
        let data = format!("format = \"csv\"\npath = \"times.csv\"\ntarget = 1\nnormalize = \"{normalize}\"");
        let output = run.run(out, &data, &few("model.layers.3.out_features=10"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let lost = told("times", "none");
    assert!(lost.contains("data: `times.csv`: feature 0: of 400 different values, 4 stay different"), "{lost}");
    assert!(!told("normalized", "standard").contains("different values"));
}

/// The last line of each kind in an example's metrics; a copy of its run file is in `folder`.
fn last_lines(folder: &Path, run_file: &Path) -> (Value, Option<Value>) {
    let plugins = folder_of(build_workspace_plugins().values().map(PathBuf::as_path));
    let mut command = host();
    command.current_dir(folder).arg("run").arg(run_file).args(["--out", "out", "--plugins"]).arg(plugins.path());
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut lines = lines(&folder.join("out/metrics.jsonl"));
    let test = lines.pop_if(|line| line["kind"] == "test");
    (lines.pop().expect("there is an epoch"), test)
}

#[test]
fn the_tables_reach_what_the_readme_says() {
    let run = |name: &str| {
        let folder = temporary_folder();
        last_lines(folder.path(), &workspace_root().join("examples").join(name).join("run.toml"))
    };
    let number = |value: &Value, key: &str| value[key].as_f64().expect("a number");
    let (_, wine) = run("wine");
    let accuracy = number(&wine.expect("the test split is evaluated"), "test_accuracy");
    assert!(accuracy > 0.94, "{accuracy}");
    let (diabetes, _) = run("diabetes");
    assert!(number(&diabetes, "val_r2") > 0.45, "{diabetes}");
}

#[test]
fn the_folder_of_images_that_a_script_makes_is_learned() {
    let Some(python) = fixture::python() else { return };
    let folder = temporary_folder();
    let example = workspace_root().join("examples/images");
    let output = Command::new(python).arg(example.join("make_images.py")).arg(folder.path().join("digits")).output();
    assert!(output.expect("Python starts").status.success());
    std::fs::copy(example.join("run.toml"), folder.path().join("run.toml")).expect("the run file is copied");
    let (epoch, test) = last_lines(folder.path(), Path::new("run.toml"));
    let accuracy = test.expect("the test split is evaluated")["test_accuracy"].as_f64().expect("a number");
    assert!(accuracy > 0.95, "{accuracy} {epoch}");
}

#[test]
fn errors_in_a_file_are_reported_with_their_place() {
    let run = DataRun::new();
    run.write("ragged.csv", "1,2,0\n3,4,1\n5,6\n");
    run.write("labels.csv", "1,2,0\n3,4,12\n");
    run.write("nan.csv", "a,b,c\n1,2,0\n3,nan,1\n");
    run.write("empty.csv", "");
    run.write("bad.idx", [0u8, 8, 3, 1, 0, 0]);
    run.write("images/a/1.png", "no picture");
    let csv = |path: &str, rest: &str| format!("format = \"csv\"\npath = \"{path}\"\ntarget = 2\n{rest}");
    let found: Vec<String> = [
        csv("ragged.csv", ""),
        csv("labels.csv", "classes = 10"),
        csv("nan.csv", "header = true"),
        csv("empty.csv", ""),
        csv("missing.csv", ""),
        csv("labels.csv", "splits = { val = { fraction = 0.5 } }\nclasses = 13"),
        csv("labels.csv", "splits = { val = { fraction = 1.5 } }\nclasses = 13"),
        csv("labels.csv", "augment = [{ type = \"random_flip\" }]\nclasses = 13"),
        "format = \"idx\"\ninputs = \"bad.idx\"\ntargets = \"bad.idx\"".to_owned(),
        "format = \"images\"\npath = \"images\"".to_owned(),
        CSV.replace("shape = [1, 8, 8]", "shape = [1, 8, 9]"),
    ]
    .iter()
    .map(|data| run.refusal(data))
    .collect();
    insta::assert_snapshot!(found.join("\n"), @r#"
    exit code: 2
    -- stderr
      × `ragged.csv` line 3 has 2 columns, but the lines before it have 3
        ╭─[run.toml:9:8]
      8 │ format = "csv"
      9 │ path = "ragged.csv"
        ·        ────────────
     10 │ target = 2
        ╰────
      hint: a text that contains delimiters is quoted; a file with other delimiters needs `delimiter`

    exit code: 2
    -- stderr
      × `labels.csv` line 2, column 3 (index 2): `12` is not a class; the classes are 0 to 9
        ╭─[run.toml:9:8]
      8 │ format = "csv"
      9 │ path = "labels.csv"
        ·        ────────────
     10 │ target = 2
        ╰────
      hint: correct the label, or `classes` and `first_class`

    exit code: 2
    -- stderr
      × `nan.csv` line 3, column 2 (`b`): `nan` is a missing value
        ╭─[run.toml:9:8]
      8 │ format = "csv"
      9 │ path = "nan.csv"
        ·        ─────────
     10 │ target = 2
        ╰────
      hint: set `missing` in `[data]`: `"mean"`, `"median"` or `"zero"` replaces it, `"drop"` leaves the row out

    exit code: 2
    -- stderr
      × `empty.csv` has no samples
        ╭─[run.toml:9:8]
      8 │ format = "csv"
      9 │ path = "empty.csv"
        ·        ───────────
     10 │ target = 2
        ╰────

    exit code: 2
    -- stderr
      × failed to read `missing.csv`: No such file or directory (os error 2)
        ╭─[run.toml:9:8]
      8 │ format = "csv"
      9 │ path = "missing.csv"
        ·        ─────────────
     10 │ target = 2
        ╰────

    exit code: 2
    -- stderr
      × split `val` has no sample of class 12 (1 in the data)
       ╭─[run.toml:7:2]
     6 │ 
     7 │ [data]
       ·  ────
     8 │ format = "csv"
       ╰────
      hint: change the split's `fraction`, set `stratified = false`, or check `classes`

    exit code: 2
    -- stderr
      × `data.splits.val.fraction` = `1.5` must be above 0 and below 1
        ╭─[run.toml:11:31]
     10 │ target = 2
     11 │ splits = { val = { fraction = 1.5 } }
        ·                               ───
     12 │ classes = 13
        ╰────

    exit code: 2
    -- stderr
      × `data.augment` = `1 changes for samples of shape [2]` must be omitted for samples that are not images; an image has the shape [channels, height, width]
        ╭─[run.toml:11:11]
     10 │ target = 2
     11 │ augment = [{ type = "random_flip" }]
        ·           ──────────────────────────
     12 │ classes = 13
        ╰────

    exit code: 2
    -- stderr
      × `bad.idx` is not an IDX file: it starts with 0x00 0x08 0x03 instead of 0x00 0x00 and a type
        ╭─[run.toml:9:10]
      8 │ format = "idx"
      9 │ inputs = "bad.idx"
        ·          ─────────
     10 │ targets = "bad.idx"
        ╰────

    exit code: 2
    -- stderr
      × `images/a/1.png` is not an image that can be decoded: The image format could not be determined
        ╭─[run.toml:9:8]
      8 │ format = "images"
      9 │ path = "images"
        ·        ────────
     10 │ 
        ╰────

    exit code: 2
    -- stderr
      × `digits.csv.gz` has 64 features per line, but shape [1, 8, 9] needs 72
        ╭─[run.toml:10:8]
      9 │ format = "csv"
     10 │ path = "digits.csv.gz"
        ·        ───────────────
     11 │ target = 64
        ╰────
      hint: the features are all columns but `target` and those of `drop`
    "#);
}

#[test]
fn errors_in_a_run_file_are_reported_together() {
    let run = DataRun::new();
    let refused = |overrides: &[&str]| {
        let overrides: Vec<&str> = overrides.iter().flat_map(|set| ["--set", set]).collect();
        shown(&run.run("refused", CSV, &overrides), &[(run.folder.path(), "[FOLDER]")])
    };
    let found = refused(&["train.batch_size=5000", "train.loss={ type = \"mse\" }"]);
    insta::assert_snapshot!(found, @r#"
    exit code: 2
    -- stderr
      × `mse` takes numbers, but the data has classes
       ╭─[--set:1:7]
     1 │ train.loss={ type = "mse" }
       ·       ────
       ╰────
      hint: use `cross_entropy` for them

      × a batch of 5000 samples is larger than the split `train`, which holds 1438
       ╭─[--set:1:18]
     1 │ train.batch_size=5000
       ·                  ────
       ╰────
      hint: make it 1438 or less
    "#);
    let found = refused(&["train.optimizer.learning_rate=nan", "train.epochs=0", "data.classs=3"]);
    insta::assert_snapshot!(found, @"
    exit code: 2
    -- stderr
      × unknown key `classs` in `data`
       ╭─[--set:1:6]
     1 │ data.classs=3
       ·      ───┬──
       ·         ╰── not known here
       ╰────
      hint: did you mean `classes`?

      × `train.epochs` must be at least 1, found `0`
       ╭─[--set:1:14]
     1 │ train.epochs=0
       ·              ┬
       ·              ╰── here
       ╰────

      × the number `train.optimizer.learning_rate` must be finite
       ╭─[--set:1:31]
     1 │ train.optimizer.learning_rate=nan
       ·                               ─┬─
       ·                                ╰── must be finite
       ╰────
    ");
}

#[test]
fn a_run_folder_that_cannot_be_created_is_reported() {
    let run = DataRun::new();
    let output = run.run("digits.csv.gz/run", CSV, &[]);
    insta::assert_snapshot!(shown(&output, &[(run.folder.path(), "[FOLDER]")]), @"
    exit code: 2
    -- stderr
      × cannot create the folder `digits.csv.gz/run`
      ╰─▶ Not a directory (os error 20)
    ");
}
