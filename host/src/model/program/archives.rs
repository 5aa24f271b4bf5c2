//! The nets of `tests/figures/exported.py`, as files. Weights of large ones, which are not in the repository, are filled by the
//! formula that the script has, too.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

pub(super) fn figures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/figures")
}

/// The file of a small net.
pub(super) fn file(net: &str) -> PathBuf {
    figures().join("exported").join(format!("{net}.pt2"))
}

/// The file of a net; that of a large one is written into `folder`.
pub(super) fn whole(net: &str, folder: &Path) -> PathBuf {
    let small = file(net);
    if small.exists() {
        return small;
    }
    let path = folder.join(format!("{net}.pt2"));
    let mut structure = ZipArchive::new(File::open(small.with_extension("zip")).unwrap()).unwrap();
    let mut written = ZipWriter::new(File::create(&path).unwrap());
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for index in 0..structure.len() {
        let mut part = structure.by_index(index).unwrap();
        let mut content = Vec::new();
        part.read_to_end(&mut content).unwrap();
        written.start_file(part.name(), stored).unwrap();
        written.write_all(&content).unwrap();
        if let Some(folder) = part.name().strip_suffix("model_weights_config.json") {
            let weights: Value = serde_json::from_slice(&content).unwrap();
            for (name, weight) in weights["config"].as_object().unwrap() {
                let file = weight["path_name"].as_str().unwrap();
                let sizes = weight["tensor_meta"]["sizes"].as_array().unwrap();
                let sizes: Vec<u32> = sizes.iter().map(|size| size["as_int"].as_u64().unwrap() as u32).collect();
                written.start_file(format!("{folder}{file}"), stored).unwrap();
                // The one tensor without sizes counts batches in 64 bits.
                let bytes = if sizes.is_empty() { vec![0; 8] } else { values(name, file, &sizes) };
                written.write_all(&bytes).unwrap();
            }
        }
    }
    written.finish().unwrap();
    path
}

/// The f32 values of a weight, as `weight` of the script computes them.
fn values(name: &str, file: &str, sizes: &[u32]) -> Vec<u8> {
    let count: u32 = sizes.iter().product();
    if sizes.len() < 2 {
        let is_one = name.ends_with("weight") || name.ends_with("running_var");
        return f32::from(u8::from(is_one)).to_le_bytes().repeat(count as usize);
    }
    let (_, number) = file.rsplit_once('_').unwrap();
    let seed = number.parse::<u32>().unwrap().wrapping_mul(0x9E37_79B9);
    let fan_in: u32 = sizes[1..].iter().product();
    let length = u32::BITS - fan_in.leading_zeros();
    let factor = 2f32.powi(1 - (length / 2) as i32 - 23);
    let value = |index: u32| {
        let mut bits = index.wrapping_add(seed);
        bits ^= bits >> 16;
        bits = bits.wrapping_mul(0x7FEB_352D);
        bits ^= bits >> 15;
        bits = bits.wrapping_mul(0x846C_A68B);
        bits ^= bits >> 16;
        ((bits >> 8) as f32 - 8_388_608.0) * factor
    };
    (0..count).flat_map(|index| value(index).to_le_bytes()).collect()
}
