//! Makes the slim libtorch from Python wheels: what compiling, linking and running on the CPU need.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::VERSION;
use super::manifest::{Manifest, Mismatch};
use super::wheel::{self, Wheel};
use crate::error::{Error, FileContext, Result};
use crate::workspace::Workspace;

const TORCH: Wheel = Wheel { name: "torch", version: VERSION };

/// The parts of the slim folder on one platform.
#[derive(Debug)]
struct Recipe {
    wheels: &'static [Wheel],
    /// The libraries to take, all required; if empty, every one in the torch wheel.
    libraries: &'static [&'static str],
    /// The contents of a `libtorch.so` that replaces the wheel's.
    linker_script: Option<&'static str>,
    /// Whether this was ever tested.
    tested: bool,
}

/// The torch wheel for Linux is a CUDA build. Its CPU part works without the rest, except for two CUDA libraries
/// that it links to. Its `libtorch.so` would load the CUDA part, hence the linker script.
const LINUX_X86_64: Recipe = Recipe {
    wheels: &[
        TORCH,
        Wheel { name: "nvidia-cuda-runtime", version: "13.0.96" },
        Wheel { name: "nvidia-cuda-cupti", version: "13.0.85" },
    ],
    libraries: &[
        "libc10.so",
        "libtorch_cpu.so",
        "libtorch_global_deps.so",
        "libgomp.so.1",
        "libcudart.so.13",
        "libcupti.so.13",
    ],
    linker_script: Some("INPUT(-ltorch_cpu -lc10)\n"),
    tested: true,
};

/// On other systems, the torch wheel is a CPU build, of which all libraries are used.
const ELSEWHERE: Recipe = Recipe { wheels: &[TORCH], libraries: &[], linker_script: None, tested: false };

impl Recipe {
    fn for_platform(system: &str, architecture: &str) -> &'static Self {
        match (system, architecture) {
            ("linux", "x86_64") => &LINUX_X86_64,
            _ => &ELSEWHERE,
        }
    }

    /// The place of a wheel's file in the slim folder, if it is needed.
    fn place(&self, wheel: &Wheel, name: &str) -> Option<String> {
        if let Some(header) = name.strip_prefix("torch/include/") {
            return Some(format!("include/{header}"));
        }
        // Anyone who redistributes the libraries must include their licenses.
        if let Some((_, license)) = name.split_once(".dist-info/licenses/") {
            return Some(format!("licenses/{}/{license}", wheel.name));
        }
        let (folder, file) = name.rsplit_once('/')?;
        let wanted = match self.libraries {
            [] => folder == "torch/lib" && !file.contains("torch_python"),
            libraries => matches!(folder, "torch/lib" | "nvidia/cu13/lib") && libraries.contains(&file),
        };
        wanted.then(|| format!("lib/{file}"))
    }
}

/// Makes a verified slim libtorch in `folder`, again if the one there is not valid.
pub fn set_up(workspace: &Workspace, folder: &Path) -> Result<()> {
    let (system, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let recipe = Recipe::for_platform(system, architecture);
    let made_for = format!("libtorch {VERSION} for {system} {architecture}");
    let shown = workspace.shown(folder);

    // Held until the end: of two set-ups at once, the second waits and then finds the result of the first.
    let _lock = lock(&with_suffix(folder, "lock"))?;
    match Manifest::verify(folder, &made_for) {
        Ok(manifest) => {
            eprintln!("libtorch: {VERSION} is in `{shown}`, {} files verified", manifest.len());
            return Ok(());
        }
        Err(Mismatch::Absent) => eprintln!("libtorch: setting up {VERSION} in `{shown}`, once"),
        Err(mismatch) => eprintln!("libtorch: `{shown}` {mismatch}; setting it up again"),
    }
    if !recipe.tested {
        eprintln!(
            "libtorch: this set-up was never tested on {system} {architecture}; if it fails, set \
             `LIBTORCH` to a libtorch {VERSION}, or `LIBTORCH_USE_PYTORCH=1` with `torch=={VERSION}` installed"
        );
    }

    let mut wheels = Vec::new();
    for wheel in recipe.wheels {
        wheels.push((wheel, wheel.obtain(workspace)?));
    }
    let partial = with_suffix(folder, "partial");
    remove_folder(&partial)?;
    let manifest = assemble(recipe, &wheels, &partial)?;
    manifest.write(&partial, &made_for)?;
    replace(folder, &partial)?;

    for (_, wheel) in &wheels {
        std::fs::remove_file(wheel).on("remove", wheel)?;
    }
    eprintln!("libtorch: {VERSION} is ready in `{shown}`, {} files", manifest.len());
    Ok(())
}

/// Writes the slim folder's files.
fn assemble(recipe: &Recipe, wheels: &[(&Wheel, PathBuf)], folder: &Path) -> Result<Manifest> {
    let mut manifest = Manifest::default();
    for (wheel, path) in wheels {
        eprintln!("libtorch: extracting {}", wheel.name);
        wheel::extract(path, folder, |name| recipe.place(wheel, name), &mut manifest)?;
    }
    let mut write = |file: &str, text: &str| {
        let path = folder.join(file);
        std::fs::write(&path, text).on("write", &path)?;
        manifest.insert(file.to_owned(), text.len() as u64);
        Ok(())
    };
    write("build-version", &format!("{VERSION}\n"))?;
    if let Some(script) = recipe.linker_script {
        write("lib/libtorch.so", script)?;
    }
    let necessary = recipe.libraries.iter().map(|library| format!("lib/{library}"));
    for file in necessary.chain(["include/torch/csrc/api/include/torch/torch.h".to_owned()]) {
        if !manifest.contains(&file) {
            return Err(Error::IncompleteWheels { file });
        }
    }
    Ok(manifest)
}

/// Replaces the existing folder by a finished one.
fn replace(folder: &Path, finished: &Path) -> Result<()> {
    let old = with_suffix(folder, "old");
    remove_folder(&old)?;
    if folder.exists() {
        std::fs::rename(folder, &old).on("move", folder)?;
    }
    std::fs::rename(finished, folder).on("move", finished)?;
    remove_folder(&old)
}

fn remove_folder(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).on("remove", folder)?;
    }
    Ok(())
}

/// Waits for the lock of a file and takes it; it is released when the file is dropped.
fn lock(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).on("create", parent)?;
    }
    let file = File::create(path).on("create", path)?;
    file.lock().on("lock", path)?;
    Ok(file)
}

/// A sibling: `libtorch` becomes `libtorch.partial`.
fn with_suffix(folder: &Path, suffix: &str) -> PathBuf {
    folder.with_added_extension(suffix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use zip::write::{SimpleFileOptions, ZipWriter};

    fn write_wheel(path: &Path, files: &[&str]) {
        let mut writer = ZipWriter::new(File::create(path).unwrap());
        for name in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(name.repeat(100).as_bytes()).unwrap();
        }
        writer.finish().unwrap();
    }

    /// A small copy of the wheels for Linux: each needed file and some that are not needed.
    fn synthetic_wheels(folder: &Path) -> Vec<(&'static Wheel, PathBuf)> {
        let contents: [&[&str]; 3] = [
            &[
                "torch/include/torch/csrc/api/include/torch/torch.h",
                "torch/lib/libc10.so",
                "torch/lib/libtorch_cpu.so",
                "torch/lib/libtorch_global_deps.so",
                "torch/lib/libgomp.so.1",
                "torch/lib/libtorch.so",
                "torch/lib/libtorch_cuda.so",
                "torch/nn/functional.py",
                "torch-2.11.0.dist-info/licenses/NOTICE",
            ],
            &["nvidia/cu13/lib/libcudart.so.13"],
            &["nvidia/cu13/lib/libcupti.so.13", "nvidia/cu13/lib/libcheckpoint.so"],
        ];
        LINUX_X86_64
            .wheels
            .iter()
            .zip(contents)
            .map(|(wheel, files)| {
                let path = folder.join(format!("{}.whl", wheel.name));
                write_wheel(&path, files);
                (wheel, path)
            })
            .collect()
    }

    #[test]
    fn the_slim_folder_holds_what_is_wanted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let slim = folder.path().join("slim");
        let manifest = assemble(&LINUX_X86_64, &synthetic_wheels(folder.path()), &slim).unwrap();

        let mut libraries: Vec<_> = slim
            .join("lib")
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        libraries.sort();
        let mut expected = LINUX_X86_64.libraries.to_vec();
        expected.push("libtorch.so");
        expected.sort();
        assert_eq!(libraries, expected);
        let script = std::fs::read_to_string(slim.join("lib/libtorch.so")).unwrap();
        assert_eq!(script, "INPUT(-ltorch_cpu -lc10)\n");
        assert_eq!(std::fs::read_to_string(slim.join("build-version")).unwrap(), "2.11.0\n");
        assert!(slim.join("licenses/torch/NOTICE").is_file());
        assert!(!slim.join("nn").exists());

        // The recorded files are exactly those in the folder, and it verifies.
        manifest.write(&slim, "here").unwrap();
        assert_eq!(Manifest::verify(&slim, "here").unwrap(), manifest);
    }

    #[test]
    fn a_library_that_no_wheel_holds_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let wheels = synthetic_wheels(folder.path());
        write_wheel(&wheels[1].1, &["nvidia/cu13/lib/libcudart.so.14"]);
        let error = assemble(&LINUX_X86_64, &wheels, &folder.path().join("slim")).unwrap_err();
        assert!(error.to_string().contains("lib/libcudart.so.13"), "{error}");
    }

    #[test]
    fn elsewhere_the_libraries_of_the_torch_wheel_are_taken_except_pythons() {
        let recipe = Recipe::for_platform("macos", "aarch64");
        let place = |name| recipe.place(&TORCH, name);
        assert_eq!(place("torch/lib/libtorch_cpu.dylib").as_deref(), Some("lib/libtorch_cpu.dylib"));
        assert_eq!(place("torch/lib/libtorch_python.dylib"), None);
        assert_eq!(place("torch/bin/protoc"), None);
        assert_eq!(place("torch/include/ATen/ATen.h").as_deref(), Some("include/ATen/ATen.h"));
    }

    #[test]
    fn a_finished_folder_takes_the_place_of_another_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (place, finished) = (folder.path().join("libtorch"), folder.path().join("libtorch.partial"));
        for (path, file) in [(&place, "old"), (&finished, "new")] {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join(file), file).unwrap();
        }
        replace(&place, &finished).unwrap();
        assert!(place.join("new").exists() && !place.join("old").exists());
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
