use std::path::{Path, PathBuf};

use fixture::{cargo, workspace_root};
use serde_json::Value;

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace_root().join(path)).unwrap_or_else(|error| panic!("cannot read {path}: {error}"))
}

/// Our files in a folder and below it, with these endings.
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
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 20, "{packages:?}");
    for package in packages {
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
    let length = |path: &str, text: &str| {
        // The header is the specification of the ABI for C: what it says is not counted, only what it defines.
        if path.ends_with("host_plugin.h") { without_comments(text) } else { text.lines().count() }
    };
    let long: Vec<String> = sources(&["rs", "c", "cpp", "h"])
        .into_iter()
        .map(|(path, text)| (length(&path, &text), path))
        .filter(|(lines, _)| *lines > 700)
        .map(|(lines, path)| format!("{path}: {lines}"))
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

/// The lines of a C file that are not empty without its comments.
fn without_comments(text: &str) -> usize {
    let comments = regex::Regex::new(r"(?s)/\*.*?\*/").expect("the pattern is valid");
    comments.replace_all(text, "").lines().filter(|line| !line.trim().is_empty()).count()
}

#[test]
fn plugins_know_no_libtorch() {
    let plugins =
        ["standard", "checkpoint", "onnx", "tflite", "weights", "tensorboard", "mlflow", "webhook", "command"];
    for package in plugins.into_iter().chain(["report", "dashboard", "kubeflow", "wandb", "plugin-api"]) {
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
    let found: Vec<String> =
        sources(&["rs"]).into_iter().filter(|(_, text)| uses(text)).map(|(path, _)| path).collect();
    assert!(found.iter().any(|path| path == "plugin-api/src/abi/root.rs"), "{found:?}");
    let others: Vec<_> = found.iter().filter(|path| !allowed(path)).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// The code blocks of a language in a page.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let text = read(page);
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).filter_map(|rest| Some(rest.split_once("```")?.0.to_owned())).collect()
}

/// The rows of the table in a page whose first header is this: the cells of each.
fn table(page: &str, header: &str) -> Vec<Vec<String>> {
    let text = read(page);
    let rows = text.lines().skip_while(|line| !line.starts_with(&format!("| {header} |"))).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The text between the first two backquotes.
fn quoted(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or_default()
}

/// The pages of the repository, from its root: every file of Markdown.
fn pages() -> Vec<String> {
    let mut found = Vec::new();
    files(workspace_root(), &["md"], &mut found);
    let relative = |path: &Path| path.strip_prefix(workspace_root()).unwrap_or(path).display().to_string();
    found.iter().map(|path| relative(path)).collect()
}

/// The targets of the links and images of a text, outside its code blocks.
fn links(text: &str) -> Vec<&str> {
    let prose = text.split("```").step_by(2);
    prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// The names by which the headings of a text are linked.
fn anchors(text: &str) -> Vec<String> {
    let prose: String = text.split("```").step_by(2).collect();
    let headings = prose.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |letter: &char| letter.is_alphanumeric() || ['-', '_', ' '].contains(letter);
    headings.map(|heading| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn links_have_targets() {
    let (mut checked, mut broken) = (0, Vec::new());
    for page in pages() {
        let text = read(&page);
        for link in links(&text).into_iter().filter(|link| !link.starts_with("https://")) {
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let folder = Path::new(&page).parent().unwrap_or(Path::new(""));
            let target = workspace_root().join(if file.is_empty() { PathBuf::from(&page) } else { folder.join(file) });
            let leads = match std::fs::read_to_string(&target) {
                Ok(text) => anchor.is_empty() || anchors(&text).iter().any(|name| name == anchor),
                Err(_) => anchor.is_empty() && target.exists(),
            };
            if !leads {
                broken.push(format!("{page}: {link}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(checked >= 50, "only {checked} links were found");
}

#[test]
fn each_promise_has_its_test() {
    let page = read("tests/RELIABILITY.md");
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(|code| code.contains("::")).collect();
    assert!(named.len() >= 20, "{named:?}");
    for name in named {
        let (module, function) = name.rsplit_once("::").expect("a module");
        let source = read(&format!("tests/end_to_end/{}.rs", module.replace("::", "/")));
        assert!(source.contains(&format!("fn {function}")), "there is no test `{name}`");
    }
}

#[test]
fn every_shipped_plugin_has_a_page() {
    let pages = pages();
    let shipped = fixture::build_workspace_plugins();
    let missing: Vec<_> =
        shipped.keys().filter(|package| !pages.contains(&format!("plugins/{package}/README.md"))).collect();
    assert!(shipped.len() >= 11 && missing.is_empty(), "{missing:?} of {shipped:?}");
}

#[test]
fn the_table_of_examples_is_whole() {
    let rows = table("examples/README.md", "run file");
    let told: Vec<&str> = rows.iter().map(|cells| quoted(&cells[0])).collect();
    let missing: Vec<_> = told.iter().filter(|path| !workspace_root().join(path).exists()).collect();
    assert!(!told.is_empty() && missing.is_empty(), "{missing:?}");
    let text = read("examples/README.md");
    for entry in workspace_root().join("examples").read_dir().expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        assert!(!path.is_dir() || text.contains(&name), "examples/README.md does not name {name}");
    }
}

/// The output of `host config check` for a run file beside the digits, with every shipped plugin.
fn check_run_file(text: &str) -> std::process::Output {
    let folder = fixture::temporary_folder();
    std::fs::write(folder.path().join("run.toml"), text).expect("a file");
    std::fs::copy(workspace_root().join("examples/digits/digits.csv.gz"), folder.path().join("digits.csv.gz"))
        .expect("a copy");
    let mut command = fixture::host();
    command.args(["config", "check", "run.toml"]).current_dir(folder.path());
    // What the pages read from the environment.
    command.env("SLACK_URL", "http://localhost/hook");
    for library in fixture::build_workspace_plugins().values() {
        command.arg("--plugins").arg(library);
    }
    command.output().expect("the host starts")
}

/// The run file of the digits up to `section`.
fn digits_before(section: &str) -> String {
    let text = read("examples/digits/run.toml");
    text.split_once(section).expect("there is such a section").0.to_owned()
}

#[test]
fn what_pages_declare_can_be_declared() {
    let mut checked = 0;
    for page in pages() {
        for block in blocks(&page, "toml").iter().filter(|block| block.starts_with("[[plugins]]")) {
            // Projects among the examples declare plugins of their own.
            if page.starts_with("examples/") || page.starts_with("plugins/python/") {
                continue;
            }
            checked += 1;
            let output = check_run_file(&format!("{}{block}", digits_before("[[plugins]]")));
            assert!(output.status.success(), "{page}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert!(checked >= 12, "only {checked} were found");
}

#[test]
fn the_options_of_learning_can_be_set() {
    let block = blocks("host/README.md", "toml").into_iter().find(|block| block.starts_with("[train]"));
    let text = format!("{}{}", digits_before("[train]"), block.expect("a section"));
    let output = check_run_file(&text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_pages_images_are_those_of_the_example() {
    let settings = |text: &str| -> Vec<String> {
        let setting = |line: &str| line.split('#').next().unwrap_or_default().trim().to_owned();
        text.lines().map(setting).filter(|line| !line.is_empty()).collect()
    };
    let block = blocks("host/README.md", "toml").into_iter().find(|block| block.contains("format = \"images\""));
    let told = settings(&block.expect("a section"));
    let example = settings(&read("examples/images/run.toml"));
    assert!(example.windows(told.len()).any(|lines| lines == told), "{told:#?} is not in {example:#?}");
}

#[test]
fn the_pages_run_file_is_a_run_file() {
    let block = blocks("host/README.md", "toml").into_iter().find(|block| block.starts_with("[run]"));
    let folder = fixture::temporary_folder();
    std::fs::write(folder.path().join("run.toml"), block.expect("a run file")).expect("a file");
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
    let block =
        blocks("README.md", "rust").into_iter().find(|block| block.contains("impl Callback")).expect("a plugin");
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
