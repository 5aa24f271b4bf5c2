//! Readers of files that a stranger wrote, on damaged ones: see the package `fuzzing`.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _, Write};
use std::path::Path;

use fuzzing::{Counting, fuzz};
use host::checkpoint::{self, Checkpoint, CheckpointContents, PluginState, State, TensorFile, TensorRef};
use host::data::{Data, DataOptions, Source};
use host::history::{History, Position};
use host::model::Network;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn options(text: &str) -> DataOptions {
    toml::from_str(text).expect("the options are valid")
}

/// Whether the data can be read, and a batch of it.
fn is_data(options: &DataOptions, source: Source<'_>) -> bool {
    let Ok(data) = Data::load(options, source, 1) else { return false };
    data.splits.values().all(|split| split.is_empty() || split.gather(&[0]).is_ok())
}

/// Reads data in a folder, of which one file has damaged bytes.
fn fuzz_file(reader: &str, name: &str, seeds: &[Vec<u8>], others: &[(&str, Vec<u8>)], of: &str) {
    let (folder, options) = (tempfile::tempdir().expect("there is room"), options(of));
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).expect("a folder can be made");
        std::fs::write(path, bytes).expect("a file can be written");
    };
    others.iter().for_each(|(name, bytes)| write(name, bytes));
    fuzz(reader, seeds, |bytes| {
        write(name, bytes);
        is_data(&options, Source::Folder(folder.path()))
    });
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory can be written to");
    encoder.finish().expect("memory can be written to")
}

#[test]
fn run_files() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = ["digits", "everything"].map(|name| examples.join(name).join("run.toml"));
    let seeds: Vec<Vec<u8>> = files.iter().filter_map(|path| std::fs::read(path).ok()).collect();
    assert!(!seeds.is_empty());
    fuzz("run file", &seeds, |bytes| {
        match host::run_file::load("run.toml", &String::from_utf8_lossy(bytes), &[], &[]) {
            Ok(loaded) => loaded.run_file.resolved_toml().is_ok(),
            Err(problems) => {
                // Its places are shown, too.
                let shown = host::report::render(&problems.0, host::report::Style::plain());
                assert!(!shown.is_empty());
                false
            }
        }
    });
}

#[test]
fn tables() {
    let plain = "a,b,class\n1,2.5,cat\n-3,4e2,dog\n5,,\"cat\"\n7,8,dog\n".as_bytes();
    let semicolons = "a;b;class\r\n1;2,5;cat\r\n3;4,5;\"d\"\"og\"\r\n".as_bytes();
    let seeds = [plain.to_vec(), semicolons.to_vec(), gzip(plain)];
    let options = options("path = 'a.csv'\nformat = 'csv'\ntarget = 'class'\nmissing = 'mean'");
    fuzz("CSV", &seeds, |bytes| {
        is_data(&options, Source::Bytes(bytes));
        // What is guessed of a table decides whether it fits these options; either is an answer.
        true
    });
}

/// An IDX file of bytes: MNIST's format.
fn idx(shape: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, shape.len() as u8];
    bytes.extend(shape.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend_from_slice(values);
    bytes
}

#[test]
fn idx_files() {
    let images = idx(&[4, 2, 2], &(0..16).collect::<Vec<u8>>());
    let targets = idx(&[4], &[0, 1, 0, 1]);
    let of = "format = 'idx'\ninputs = 'images'\ntargets = 'labels'";
    fuzz_file("IDX", "images", &[images.clone(), gzip(&images)], &[("labels", targets)], of);
}

/// A NumPy array.
fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    header.extend(std::iter::repeat_n(' ', 117 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend_from_slice(values);
    bytes
}

fn floats(count: usize) -> Vec<u8> {
    (0..count).flat_map(|value| (value as f32).to_le_bytes()).collect()
}

fn classes() -> Vec<u8> {
    npy("<i8", "(4,)", &[0i64, 1, 0, 1].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
}

#[test]
fn npy_files() {
    let seeds = [npy("<f4", "(4, 3)", &floats(12)), npy("|u1", "(4, 2, 2)", &[7; 16]), npy(">f8", "(4, 1)", &[0; 32])];
    let of = "format = 'npy'\ninputs = 'x.npy'\ntargets = 'y.npy'";
    fuzz_file("npy", "x.npy", &seeds, &[("y.npy", classes())], of);
}

#[test]
fn npz_files() {
    let archive = |method| {
        let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        for (name, bytes) in [("x.npy", npy("<f4", "(4, 3)", &floats(12))), ("y.npy", classes())] {
            archive.start_file(name, options).expect("an archive can be written");
            archive.write_all(&bytes).expect("an archive can be written");
        }
        archive.finish().expect("an archive can be written").into_inner()
    };
    let seeds = [archive(zip::CompressionMethod::Stored), archive(zip::CompressionMethod::Deflated)];
    fuzz_file("npz", "a.npz", &seeds, &[], "format = 'npz'\npath = 'a.npz'\ninputs = 'x'\ntargets = 'y'");
}

#[test]
fn pictures() {
    let encoded = |image: image::DynamicImage| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, image::ImageFormat::Png).expect("a picture can be written");
        bytes.into_inner()
    };
    let gray = encoded(image::DynamicImage::new_luma8(3, 2));
    let seeds =
        [encoded(image::DynamicImage::new_rgb8(3, 2)), gray.clone(), encoded(image::DynamicImage::new_rgba16(3, 2))];
    let of = "format = 'images'\npath = '.'\nresize = [4, 4]\ncolor = 'rgb'";
    fuzz_file("PNG", "cat/1.png", &seeds, &[("cat/2.png", gray.clone()), ("dog/1.png", gray)], of);
}

/// The members of an archive.
fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = zip::ZipArchive::new(Cursor::new(archive)).expect("an archive");
    let count = archive.len();
    let member = |index| {
        let mut member = archive.by_index(index).expect("a member");
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).expect("it can be read");
        (member.name().to_owned(), bytes)
    };
    (0..count).map(member).collect()
}

/// What `torch.export.save` wrote, with damage in its document: in the archive, checksums would find it.
#[test]
fn exported_programs() {
    let figures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures/exported");
    let folder = tempfile::tempdir().expect("there is room");
    let path = folder.path().join("model.pt2");
    for name in ["cnn", "lstm"] {
        let archive = std::fs::read(figures.join(format!("{name}.pt2"))).expect("it is there");
        let members = members(&archive);
        let document = members.iter().find(|(name, _)| name.ends_with("models/model.json")).expect("it has a document");
        fuzz(&format!("exported program `{name}`"), std::slice::from_ref(&document.1), |bytes| {
            let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
            for (name, content) in &members {
                let options =
                    zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
                archive.start_file(name, options).expect("an archive can be written");
                let content = if *name == document.0 { bytes } else { content };
                archive.write_all(content).expect("an archive can be written");
            }
            let archive = archive.finish().expect("an archive can be written").into_inner();
            std::fs::write(&path, archive).expect("it can be written");
            Network::exported(&path, None, None, tch::Device::Cpu).is_ok()
        });
    }
}

#[test]
fn checkpoints() {
    let folder = tempfile::tempdir().expect("there is room");
    let position = Position { epoch: 3, step: 1, global_step: 7, samples: 70 };
    let mut history = History::new();
    history.put("train_loss", position, 0.3).expect("it is a new point");
    let state = State { position, threads: 2, hyper_parameters: Vec::new(), modules: BTreeMap::new(), history };
    let weight = TensorRef { name: "w", dtype: checkpoint::Dtype::F32, shape: &[2, 3], bytes: &[7; 24] };
    let contents = CheckpointContents {
        weights: None,
        model: vec![weight],
        optimizer: vec![weight],
        copies: Vec::new(),
        rng: Vec::new(),
        state: &state,
        graph: "{\"nodes\": []}",
        data: "{\"splits\": {}}",
        run_file: "[run]\nname = \"a\"\n",
        model_files: Vec::new(),
        plugins: vec![PluginState { instance: "a", bytes: b"state" }],
    };
    let path = checkpoint::write(&contents, &folder.path().join("c")).expect("it can be written").path;
    let read = || {
        let Ok(checkpoint) = Checkpoint::open(&path) else { return false };
        let tensors = [TensorFile::Model, TensorFile::Optimizer].map(|file| checkpoint.tensors(file).is_ok());
        checkpoint.state().is_ok() && checkpoint.plugin("a").is_ok() && tensors == [true, true]
    };
    for name in ["manifest.json", "state.json", "model.safetensors"] {
        let seed = std::fs::read(path.join(name)).expect("it is there");
        fuzz(&format!("checkpoint's {name}"), std::slice::from_ref(&seed), |bytes| {
            std::fs::write(path.join(name), bytes).expect("it can be written");
            read()
        });
        std::fs::write(path.join(name), seed).expect("it can be written");
    }
}
