use std::path::Path;
use std::process::Output;

use fixture::{build_test_plugins, cargo, folder_of, host, shown, target_folder, temporary_folder, workspace_root};
use serde_json::Value;

/// A budget that even a busy machine meets.
const PATIENT: [&str; 2] = ["--budget-ms", "10000"];

/// The output of `host plugins check` for a test plugin.
fn check(name: &str, arguments: &[&str]) -> Output {
    let library = &build_test_plugins()[name];
    host().args(["plugins", "check"]).arg(library).args(arguments).output().expect("the host starts")
}

fn check_shown(name: &str, arguments: &[&str]) -> String {
    let folder = build_test_plugins()[name].parent().expect("a file is in a folder");
    shown(&check(name, arguments), &[(folder, "[FOLDER]")])
}

/// The failed checks with their details, from the JSON form.
fn failures(name: &str, arguments: &[&str]) -> Vec<String> {
    let output = check(name, &[&["--json"], arguments].concat());
    let report: Value = serde_json::from_slice(&output.stdout).expect("the report is JSON");
    let findings = report["findings"].as_array().expect("the findings are a list");
    assert!(!findings.is_empty(), "nothing was checked");
    let failed: Vec<String> = findings
        .iter()
        .filter(|finding| finding["verdict"] == "failed")
        .map(|finding| format!("{} {}: {}", finding["kind"], finding["check"], finding["details"]).replace('"', ""))
        .collect();
    assert_eq!(output.status.code(), Some(i32::from(!failed.is_empty())), "{findings:?}");
    failed
}

#[test]
fn a_good_plugin_passes_every_check() {
    insta::assert_snapshot!(check_shown("recorder", &PATIENT), @r#"
    exit code: 0
    -- stdout
    [FOLDER]/librecorder.so: plugin-api 1.0.0, [COMPILER], loaded in [TIME] ms

    KIND      CHECK            RESULT  DETAILS
    -         load             ok
    recorder  descriptor       ok
    recorder  schema           ok
    recorder  default-options  ok
    recorder  garbage-options  ok
    recorder  hooks            ok
    recorder  budget           ok
    recorder  stale-handle     ok
    recorder  state            ok
    recorder  two-instances    ok

    10 checks: 10 passed, 0 warned, 0 failed, 0 skipped; tier: full
    "#);
}

#[test]
fn every_service_answers_a_plugin_under_check() {
    assert_eq!(failures("services", &PATIENT), [""; 0]);
}

#[test]
fn what_we_ship_passes_its_own_check() {
    let options = [
        ("command", "command.command=['true']"),
        ("standard", "lr-schedule.points=[[0, 0.1]]"),
        ("standard", "time-limit.duration='1 h'"),
        ("standard", "remote-control.stop='stop'"),
        ("standard", "freeze.freeze=['fc1.*']"),
        ("standard", "limit-batches.batches={ train = 2 }"),
        ("standard", "inference-runner.split='val'"),
        ("standard", "summaries.summaries=[{ name = '*' }]"),
        ("standard", "lambda.do=put('twice', 2 * val_loss)"),
    ];
    for (name, library) in fixture::build_workspace_plugins() {
        // These two do not know where to send, and the report's state has the time in it.
        if ["webhook", "report", "mlflow"].contains(&name.as_str()) {
            continue;
        }
        let mut command = host();
        command.args(["plugins", "check"]).arg(library).args(PATIENT);
        command.args(options.iter().filter(|(kind, _)| kind == name).flat_map(|(_, option)| ["--set", option]));
        let output = command.output().expect("the host starts");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn checks_can_run_in_this_process() {
    let library = &build_test_plugins()["recorder"];
    let output = host().args(["plugins", "check", "--in-process"]).arg(library).output().expect("the host starts");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("10 checks: "), "{told}");
}

#[test]
fn a_panic_is_reported_and_hides_no_other_hook() {
    insta::assert_snapshot!(check_shown("panics", &PATIENT), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/libpanics.so: plugin-api 1.0.0, [COMPILER], loaded in [TIME] ms

    KIND    CHECK            RESULT   DETAILS
    -       load             ok
    panics  descriptor       ok
    panics  schema           ok
    panics  default-options  ok
    panics  garbage-options  ok
    panics  hooks            FAILED   `step_end` panics: it panics in `step_end` (at panics/src/lib.rs:26:13)
    panics  budget           ok
    panics  stale-handle     ok
    panics  state            skipped  it saves no state
    panics  two-instances    ok

    hooks: Every hook returns without an error and without a panic.

    10 checks: 8 passed, 0 warned, 1 failed, 1 skipped; tier: none
    "#);
}

#[test]
fn an_error_is_reported_once() {
    insta::assert_debug_snapshot!(failures("returns-errors", &["--set", "returns-errors.hook=epoch_end"]), @r#"
    [
        "returns-errors hooks: [`epoch_end` fails: it fails in `epoch_end`]",
    ]
    "#);
}

#[test]
fn unusable_options_are_reported() {
    insta::assert_debug_snapshot!(failures("panics", &["--set", "panics.hook=new"]), @r#"
    [
        "panics default-options: [it panicked in `new`: it panics in `new` (panicked at panics/src/lib.rs:26:13)]",
    ]
    "#);
    insta::assert_debug_snapshot!(failures("panics", &["--set", "panics.hook=3"]), @r#"
    [
        "panics default-options: [the options do not satisfy the schema: 3 is not of type \\string\\,if an option is required, set it: `--set panics.OPTION=VALUE`]",
    ]
    "#);
}

#[test]
fn a_slow_hook_of_a_step_is_a_failure() {
    insta::assert_debug_snapshot!(slow(&[]), @r#"
    [
        "slow budget: [`step_end` takes [TIME] ms, the budget is 50 ms,`epoch_end` takes [TIME] ms, the budget is 50 ms]",
    ]
    "#);
    assert_eq!(failures("slow", &PATIENT), [""; 0]);
}

/// The failures of the plugin that sleeps 80 ms, without the time that was measured.
fn slow(arguments: &[&str]) -> Vec<String> {
    let times = regex::Regex::new(r"takes \d+ ms").expect("the pattern is valid");
    failures("slow", arguments).iter().map(|text| times.replace_all(text, "takes [TIME] ms").into_owned()).collect()
}

#[test]
fn a_spent_handle_is_noticed() {
    insta::assert_debug_snapshot!(failures("stale-handle", &PATIENT), @r#"
    [
        "stale-handle stale-handle: [3 calls used a handle whose hook had returned; other threads need `Run::remote`]",
    ]
    "#);
}

#[test]
fn state_that_does_not_come_back_is_noticed() {
    insta::assert_debug_snapshot!(failures("state-loses", &PATIENT), @r#"
    [
        "state-loses state: [the state saved after loading differs from byte 1 on]",
        "state-saved-only state: [it saves state in `save_state`, and has no `load_state` to load it]",
    ]
    "#);
}

#[test]
fn a_missing_schema_is_noticed() {
    insta::assert_debug_snapshot!(failures("no-schema", &PATIENT), @r#"
    [
        "no-schema schema: [the descriptor has no schema of the options]",
    ]
    "#);
}

#[test]
fn a_file_that_does_not_load_is_a_failure() {
    insta::assert_snapshot!(check_shown("wrong-major", &[]), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/libwrong_major.so

    KIND  CHECK  RESULT  DETAILS
    -     load   FAILED  `[FOLDER]/libwrong_major.so` is built for plugin ABI 2.0.0, this host has 1.0.0
                         hint: build the plugin with a `plugin-api` or a `host_plugin.h` of this host's major version

    load: The library loads, as it would for a run; a warning when that takes longer than the budget.

    1 check: 0 passed, 0 warned, 1 failed, 0 skipped; tier: none
    "#);
}

#[test]
#[cfg(unix)]
fn a_crash_is_reported_with_its_check_and_hook() {
    insta::assert_debug_snapshot!(failures("crashes", &PATIENT), @r#"
    [
        "crashes hooks: [the process was ended by signal 6 (SIGABRT) in `epoch_end`]",
    ]
    "#);
    insta::assert_debug_snapshot!(failures("crashes", &["--set", "crashes.how=exit"]), @r#"
    [
        "crashes hooks: [the process ended with exit code 0 in `epoch_end`]",
    ]
    "#);
    insta::assert_debug_snapshot!(failures("crashes", &["--set", "crashes.how=hang", "--timeout-s", "2"]), @r#"
    [
        "crashes hooks: [it did not return within 2 s in `epoch_end`]",
    ]
    "#);
}

#[test]
fn kinds_are_listed() {
    let plugins = build_test_plugins();
    let folder = folder_of([plugins["slow"].as_path(), &plugins["state-loses"]]);
    let list = |arguments: &[&str]| {
        let mut command = host();
        command.args(["plugins", "list", "--plugins"]).arg(folder.path()).args(arguments);
        command.output().expect("the host starts")
    };
    insta::assert_snapshot!(shown(&list(&[]), &[(folder.path(), "[FOLDER]")]), @r#"
    exit code: 0
    -- stdout
    KIND              VERSION  BY DEFAULT  DISPATCH  LIBRARY            SUMMARY
    slow              0.1.0    no          inline    libslow.so         Sleeps on the training thread
    state-loses       0.1.0    no          inline    libstate_loses.so  Forgets a part of its state
    state-saved-only  0.1.0    no          inline    libstate_loses.so  Saves state that it cannot load
    "#);
    let listed: Vec<Value> = serde_json::from_slice(&list(&["--json"]).stdout).expect("the list is JSON");
    let kinds: Vec<&str> = listed.iter().filter_map(|kind| kind["kind"].as_str()).collect();
    assert_eq!(kinds, ["slow", "state-loses", "state-saved-only"]);
    assert_eq!(listed[0]["options"]["properties"]["milliseconds"]["default"], 80);
}

#[test]
fn a_kind_is_described() {
    let folder = folder_of([build_test_plugins()["slow"].as_path()]);
    let output = host().args(["plugins", "describe", "slow", "--plugins"]).arg(folder.path()).output();
    insta::assert_snapshot!(shown(&output.expect("the host starts"), &[(folder.path(), "[FOLDER]")]), @r#"
    exit code: 0
    -- stdout
    slow 0.1.0: Sleeps on the training thread

    license     MIT OR Apache-2.0
    hooks       epoch_end, step_end
    dispatch    inline
    by default  no
    ranks       zero
    library     [FOLDER]/libslow.so
    built by    plugin-api 1.0.0, [COMPILER]

    OPTION        TYPE     DEFAULT  DESCRIPTION
    milliseconds  integer  80       Milliseconds that each hook takes.

    In the run file:

    [[plugins]]
    kind = "slow"

    [plugins.options]
    milliseconds = 80
    "#);
}

#[test]
fn a_new_plugin_builds_passes_its_test_and_loads() {
    let folder = temporary_folder();
    let api = workspace_root().join("plugin-api");
    let new = || {
        let mut command = host();
        command.args(["plugins", "new", "loss-alarm", "--plugin-api"]).arg(&api).current_dir(folder.path());
        command.output().expect("the host starts")
    };
    insta::assert_snapshot!(shown(&new(), &[]), @r#"
    exit code: 0
    -- stdout
    Made the plugin `loss-alarm` in `loss-alarm`. What to write is marked with `WRITE HERE`.

    cd loss-alarm
    cargo test
    cargo build --release
    host plugins check target/release/libloss_alarm.so
    host run --plugins target/release/libloss_alarm.so --plugin loss-alarm
    "#);

    let project = folder.path().join("loss-alarm");
    // It has the dependencies of the test plugins: with their lock file they are already built, and need no network.
    let lock = workspace_root().join("tests/plugins/Cargo.lock");
    std::fs::copy(lock, project.join("Cargo.lock")).expect("the lock file can be copied");
    build_test_plugins();
    let target = target_folder().join("test-plugins");
    for subcommand in ["test", "build"] {
        let mut command = cargo(subcommand);
        command.args(["--release", "--offline", "--target-dir"]).arg(&target).current_dir(&project);
        let output = command.output().expect("cargo can be started");
        assert!(output.status.success(), "cargo {subcommand}: {}", String::from_utf8_lossy(&output.stderr));
        if subcommand == "test" {
            let words = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(words.contains("1 passed"), "{words}");
        }
    }
    let library = target.join("release").join(library_file("loss_alarm"));
    let output = host().args(["plugins", "check"]).arg(&library).output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    // The second time, the folder exists.
    insta::assert_snapshot!(shown(&new(), &[]), @r#"
    exit code: 2
    -- stderr
      × `loss-alarm` exists already
      hint: choose another name, or another folder with `--path DIR`
    "#);
}

fn library_file(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

#[test]
fn an_invalid_name_is_refused() {
    let folder = temporary_folder();
    let output = host().args(["plugins", "new", "My_Plugin", "--path"]).arg(folder.path()).output();
    insta::assert_snapshot!(shown(&output.expect("the host starts"), &[]), @r#"
    exit code: 2
    -- stderr
      × `My_Plugin` cannot name a plugin: a name is lower-case letters, digits and `-`, a letter first
      hint: use lower-case letters, digits and `-`, as in `loss-alarm`
    "#);
    assert_eq!(folder_entries(folder.path()), 0);
}

fn folder_entries(folder: &Path) -> usize {
    folder.read_dir().expect("the folder can be read").count()
}
