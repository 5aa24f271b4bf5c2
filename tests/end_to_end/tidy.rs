use std::path::{Path, PathBuf};

use fixture::{cargo, workspace_root};
use serde_json::Value;

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace_root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// The files of a folder and those below it that are ours, with these ends.
fn files(folder: &Path, ends: &[&str], found: &mut Vec<PathBuf>) {
    for entry in folder.read_dir().expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files(&path, ends, found);
            }
        } else if path.extension().is_some_and(|end| ends.iter().any(|wanted| end == *wanted)) {
            found.push(path);
        }
    }
}

fn sources(ends: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["host", "plugin-api", "plugins", "tests", "xtask", "examples"] {
        files(&workspace_root().join(folder), ends, &mut found);
    }
    assert!(found.len() > 10, "{found:?}");
    let relative = |path: &Path| path.strip_prefix(workspace_root()).unwrap_or(path).display().to_string();
    found.iter().map(|path| (relative(path), std::fs::read_to_string(path).expect("a text"))).collect()
}

#[test]
fn the_map_is_whole() {
    let map = read("ARCHITECTURE.md");
    let mut command = cargo("metadata");
    command.args(["--no-deps", "--offline", "--format-version", "1"]).current_dir(workspace_root());
    let metadata: Value = serde_json::from_slice(&command.output().expect("cargo starts").stdout).expect("JSON");
    let mut missing = Vec::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap_or_default());
        let folder = manifest.parent().and_then(|folder| folder.strip_prefix(workspace_root()).ok());
        let folder = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
        if !map.contains(&format!("`{folder}`")) {
            missing.push(folder);
        }
    }
    for entry in workspace_root().join("host/src").read_dir().expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && name != "bin" && !map.contains(&format!("`{name}`")) {
            missing.push(format!("host/src/{name}"));
        }
    }
    assert!(missing.is_empty(), "ARCHITECTURE.md does not name {missing:?}");
}

#[test]
fn files_are_of_a_size_that_can_be_read() {
    let long: Vec<String> = sources(&["rs", "cpp", "h"])
        .into_iter()
        .filter_map(|(path, text)| (text.lines().count() > 700).then(|| format!("{path}: {}", text.lines().count())))
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

#[test]
fn plugins_know_no_libtorch() {
    let plugins =
        ["standard", "checkpoint", "onnx", "tflite", "weights", "tensorboard", "mlflow", "webhook", "command"];
    for package in plugins.into_iter().chain(["report", "dashboard", "plugin-api"]) {
        let mut command = cargo("tree");
        command.args(["--offline", "--package", package, "--edges", "all", "--prefix", "none", "--format", "{p}"]);
        let output = command.current_dir(workspace_root()).output().expect("cargo starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tree = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(tree.contains("plugin-api v"), "{tree}");
        let of_torch = ["tch v", "torch-sys v", "host v"];
        let found: Vec<&str> = tree.lines().filter(|line| of_torch.iter().any(|name| line.starts_with(name))).collect();
        assert!(found.is_empty(), "{package} depends on {found:?}");
    }
}

#[test]
fn one_module_names_abi_stable() {
    let allowed = |path: &str| path == "plugin-api/src/abi/root.rs" || path.starts_with("tests/");
    let uses =
        |text: &str| text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains("abi_stable::"));
    let found: Vec<String> = sources(&["rs"])
        .into_iter()
        .filter(|(path, text)| !allowed(path) && uses(text))
        .map(|(path, _)| path)
        .collect();
    assert!(found.is_empty(), "{found:?}");
}

/// The code blocks of a language in the README.
fn blocks(language: &str) -> Vec<String> {
    let readme = read("README.md");
    let begin = format!("```{language}\n");
    readme.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

#[test]
fn the_readmes_run_file_is_a_run_file() {
    let block = blocks("toml").into_iter().find(|block| block.starts_with("[run]")).expect("a run file");
    let folder = fixture::temporary_folder();
    std::fs::write(folder.path().join("run.toml"), block).expect("a file");
    std::fs::copy(workspace_root().join("examples/digits/digits.csv.gz"), folder.path().join("digits.csv.gz"))
        .expect("a copy");
    let shipped = fixture::build_workspace_plugins();
    let mut command = fixture::host();
    command.args(["run", "run.toml", "--try"]).current_dir(folder.path());
    for library in shipped.values() {
        command.arg("--plugins").arg(library);
    }
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_readmes_plugin_compiles_and_runs() {
    let block = blocks("rust").into_iter().find(|block| block.contains("impl Callback")).expect("a plugin");
    let folder = fixture::temporary_folder();
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    std::fs::write(folder.path().join("src/lib.rs"), block).expect("a file");
    let api = workspace_root().join("plugin-api").display().to_string().replace('\\', "\\\\");
    let manifest = format!(
        "[package]\nname = \"readme\"\nversion = \"0.1.0\"\nedition = \"2024\"\nlicense = \"MIT\"\n\
         [lib]\ncrate-type = [\"cdylib\"]\n[dependencies]\nplugin-api = {{ path = \"{api}\" }}\n[workspace]\n"
    );
    std::fs::write(folder.path().join("Cargo.toml"), manifest).expect("a file");
    std::fs::copy(workspace_root().join("tests/plugins/Cargo.lock"), folder.path().join("Cargo.lock")).expect("a copy");
    fixture::build_test_plugins();
    let mut command = cargo("build");
    command.args(["--release", "--offline", "--target-dir"]).arg(fixture::target_folder().join("test-plugins"));
    let artifacts = fixture::cargo_artifacts(command.current_dir(folder.path()));
    let library = artifacts.into_iter().find_map(|artifact| artifact.library).expect("a library was built");
    let training = crate::training::Training::new("[[plugins]]\nkind = \"loss-watcher\"\n");
    let output = training.run("run", &["--plugins", &library.display().to_string()]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr.matches("worst loss after epoch").count(), 2, "{stderr}");
}
