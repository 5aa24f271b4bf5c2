//! All kinds that the host comes with: the table in `README.md`, from what they say of themselves, and their options.
//!
//! `HOST_WRITE_PAGES=1 cargo test --release --test end_to_end kinds` writes it again.

use std::collections::BTreeSet;
use std::path::Path;

use fixture::{build_workspace_plugins, host, temporary_folder, workspace_root};
use serde_json::Value;

/// The first line of the table.
const HEADER: &str = "| kind | what it does | runs by default |\n|---|---|---|\n";

/// The packages in the order of the table: first what most runs want.
const PACKAGES: [&str; 13] = [
    "standard",
    "checkpoint",
    "onnx",
    "tflite",
    "weights",
    "tensorboard",
    "mlflow",
    "wandb",
    "kubeflow",
    "report",
    "dashboard",
    "webhook",
    "command",
];

/// Every kind of a package, in its own order.
fn kinds_of(package: &str) -> Vec<Value> {
    let library = build_workspace_plugins().get(package).unwrap_or_else(|| panic!("there is no plugin `{package}`"));
    let output =
        host().args(["plugins", "list", "--json", "--plugins"]).arg(library).output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("a list")
}

/// The page about a kind: the section of its package's page that names it in its heading, or the whole page.
fn page(package: &str, kind: &str) -> String {
    let page = format!("plugins/{package}/README.md");
    let text = std::fs::read_to_string(workspace_root().join(&page)).expect("a page");
    let heading = text.lines().find(|line| line.starts_with("## ") && line.contains(&format!("`{kind}`")));
    let anchor = heading.map(|heading| heading[3..].replace('`', "").replace(' ', "-"));
    anchor.map_or(page.clone(), |anchor| format!("{page}#{anchor}"))
}

fn row(package: &str, kind: &Value) -> String {
    let text = |key: &str| kind[key].as_str().unwrap_or_else(|| panic!("`{key}` of {kind}"));
    let (name, summary) = (text("kind"), text("summary"));
    let mut letters = summary.chars();
    let first = letters.next().expect("a summary").to_lowercase();
    let by_default = if kind["by_default"] == true { "yes" } else { "no" };
    format!("| [`{name}`]({}) | {first}{} | {by_default} |\n", page(package, name), letters.as_str())
}

#[test]
fn the_readmes_kinds_say_what_the_kinds_say() {
    let shipped: Vec<&str> = build_workspace_plugins().keys().map(String::as_str).collect();
    for package in &shipped {
        assert!(PACKAGES.contains(package), "`{package}` has no place in the table");
    }
    let all: Vec<(&str, Value)> =
        PACKAGES.iter().flat_map(|package| kinds_of(package).into_iter().map(move |kind| (*package, kind))).collect();
    let (by_default, others): (Vec<_>, Vec<_>) = all.iter().partition(|(_, kind)| kind["by_default"] == true);
    let rows: String = by_default.into_iter().chain(others).map(|(package, kind)| row(package, kind)).collect();

    let path = workspace_root().join("README.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(HEADER).expect("the table");
    let (_, after) = rest.split_once("\n\n").expect("something follows the table");
    let written = format!("{before}{HEADER}{rows}\n{after}");
    if std::env::var_os("HOST_WRITE_PAGES").is_some() {
        write(&path, &written);
    } else {
        assert!(written == page, "the kinds in `README.md` are old: run this test with `HOST_WRITE_PAGES=1`");
    }
}

/// Whether a value of an option's schema may be a table.
fn takes_a_table(schema: &Value, definitions: &Value) -> bool {
    let of =
        |key: &str| schema[key].as_array().is_some_and(|any| any.iter().any(|one| takes_a_table(one, definitions)));
    let refers = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
    schema["type"] == "object"
        || schema["type"].as_array().is_some_and(|types| types.contains(&"object".into()))
        || of("anyOf")
        || of("oneOf")
        || refers.is_some_and(|name| takes_a_table(&definitions[name], definitions))
}

#[test]
fn a_wrong_option_of_any_kind_is_refused_at_the_check() {
    let (mut entries, mut expected) = (String::new(), Vec::new());
    for kind in PACKAGES.iter().flat_map(|package| kinds_of(package)) {
        let (name, schema) = (kind["kind"].as_str().expect("a name"), &kind["options"]);
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let known = properties.iter().map(|(option, of)| {
            let wrong = if takes_a_table(of, &schema["$defs"]) { "1e300" } else { "{ wrong = true }" };
            (option.clone(), wrong)
        });
        for (option, wrong) in known.chain([("zzzzzz".to_owned(), "1")]) {
            let number = expected.len();
            entries += &format!(
                "\n[[plugins]]\nkind = \"{name}\"\nname = \"instance-{number}\"\noptions = {{ {option} = {wrong} }}\n"
            );
            expected.push((format!("/plugins/{number}/options/{option}"), format!("{name}: {option}")));
        }
    }
    let folder = temporary_folder();
    let digits = workspace_root().join("examples/digits/run.toml");
    let text = std::fs::read_to_string(&digits).expect("a run file");
    let (before, _) = text.split_once("[[plugins]]").expect("its plugins");
    let data = workspace_root().join("examples/digits/digits.csv.gz");
    let text = before.replace("digits.csv.gz", &data.display().to_string()) + &entries;
    let file = folder.path().join("wrong.toml");
    write(&file, &text);
    let mut command = host();
    command.args(["config", "check", "--json"]).arg(&file);
    for library in build_workspace_plugins().values() {
        command.arg("--plugins").arg(library);
    }
    let output = command.output().expect("the host starts");
    let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pointers: BTreeSet<&str> = told["problems"]
        .as_array()
        .expect("problems")
        .iter()
        .filter_map(|problem| problem["pointer"].as_str())
        .collect();
    let accepted: Vec<_> = expected.iter().filter(|(pointer, _)| !pointers.contains(pointer.as_str())).collect();
    assert!(expected.len() > 100 && accepted.is_empty(), "{accepted:#?}");
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the page can be written");
}
