use std::path::Path;
use std::process::Command;

use fixture::{build_c_plugins, host, shown, temporary_folder};

use crate::resume::{PLUGINS, goes_on};
use crate::small_run::{Ran, SmallRun};
use crate::training::Training;

/// What `host plugins list` shows of a library.
fn listed(name: &str) -> String {
    let library = &build_c_plugins()[name];
    let folder = library.parent().expect("a file is in a folder");
    let output = host().args(["plugins", "list", "--plugins"]).arg(library).output().expect("the host starts");
    shown(&output, &[(folder, "[FOLDER]")])
}

#[test]
fn a_wrong_library_gets_a_paragraph() {
    let names = [
        "no_table",
        "wrong_magic",
        "very_short_table",
        "short_table",
        "other_major",
        "other_pointers",
        "null_function",
        "ends_process",
        "two_entries",
        "not_json",
    ];
    let paragraphs: Vec<String> = names.into_iter().map(listed).collect();
    assert!(paragraphs.iter().all(|paragraph| paragraph.starts_with("exit code: 2\n-- stderr\n")), "{paragraphs:#?}");
    let paragraphs = paragraphs.join("\n").replace("exit code: 2\n-- stderr\n", "");
    insta::assert_snapshot!(paragraphs, @"");
}

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn a_library_that_says_that_it_is_for_another_system() {
    insta::assert_snapshot!(listed("other_target"), @"");
}

/// A run with a library of `tests/plugins/c`, whose kind is called `wrong`.
fn wrong(library: &str, entry: &str) -> Ran {
    let run = SmallRun::new();
    let library = &build_c_plugins()[library];
    std::fs::copy(library, run.plugins().join(library.file_name().expect("a name"))).expect("a library can be copied");
    run.instance(&format!("kind = 'wrong'\n{entry}")).run()
}

#[test]
fn an_instance_that_is_not_made_gets_a_paragraph() {
    for (library, options, said) in [
        ("null_instance", "", "it said that it had made an instance, and left it null"),
        ("not_utf8", "options = { refuse = true }", "caf\u{fffd} is closed"),
        ("silent_failure", "options = { refuse = true }", "it failed with status 1 and without a message"),
        (
            "wrong_calls",
            "options = { create = 'misspelled' }",
            "there is no option `table.patiense`; did you mean `patience`?",
        ),
        ("wrong_calls", "options = { create = 'type' }", "the option `create` is not a number"),
        ("wrong_calls", "options = { create = 'metric' }", "`metric_put` cannot be called while an instance is made"),
    ] {
        let ran = wrong(library, options);
        let shown = ran.shown();
        assert!(shown.contains(said), "{library} {options}: {shown}");
        assert_ne!(ran.code(), Some(0), "{shown}");
    }
    insta::assert_snapshot!(wrong("null_instance", "").shown(), @"");
}

#[test]
fn a_hook_that_fails_gets_a_paragraph() {
    insta::assert_snapshot!(wrong("not_utf8", "").shown(), @"");
    let silent = wrong("silent_failure", "").shown();
    assert!(silent.contains("it failed without a message"), "{silent}");
}

#[test]
fn what_the_host_answers_is_what_a_hook_fails_with() {
    let ran = wrong("wrong_calls", "on_error = 'ignore'").succeeded();
    insta::assert_snapshot!(ran.shown(), @"");
}

/// What `host plugins check` says of an example.
fn checked(name: &str) -> String {
    let library = &build_c_plugins()[name];
    let folder = library.parent().expect("a file is in a folder");
    let mut command = host();
    command.args(["plugins", "check", "--budget-ms", "10000"]).arg(library);
    shown(&command.output().expect("the host starts"), &[(folder, "[FOLDER]")])
}

#[test]
fn the_examples_pass_every_check() {
    insta::assert_snapshot!(checked("norm_limit"), @"");
    insta::assert_snapshot!(checked("loss_spread"), @"");
}

/// The training of the tests of resumes, with both examples.
fn training(norm_limit: &str, loss_spread: &str) -> Training {
    let instances = format!(
        "{PLUGINS}\n[[plugins]]\nkind = \"norm-limit\"\noptions = {norm_limit}\n\
         [[plugins]]\nkind = \"loss-spread\"\noptions = {loss_spread}\n"
    );
    let libraries = build_c_plugins();
    Training::new(&instances).with_library(&libraries["norm_limit"]).with_library(&libraries["loss_spread"])
}

#[test]
fn the_examples_run() {
    let training = training("{ parameter = \"fc1.weight\", limit = 0.5 }", "{ window = 2 }");
    let output = training.run("run", &[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("epoch 1: the norm of fc1.weight is "), "{stderr}");
    let metrics = &training.status("run")["metrics"];
    assert!(metrics["parameter_norm"].as_f64() > Some(0.5), "{metrics}");
    assert!(metrics["loss_spread"].as_f64() > Some(0.0), "{metrics}");
}

#[test]
fn the_examples_go_on() {
    // The spread of a window, and a stop after two epochs in a row, need what was saved in the first epoch.
    let training = training("{ limit = 0, patience = 2 }", "{ window = 2 }")
        .with("epochs = 2", "epochs = 3")
        .with("take_over = 9", "take_over = 0");
    let checkpoints = ["checkpoints/epoch-0001-step-00000010", "epochs/epoch-0001-step-00000023"];
    goes_on(&training, &checkpoints, "checkpoints/epoch-0002-step-00000046");
    let status = training.status("epochs-epoch-0001-step-00000023");
    assert_eq!(status["metrics"]["loss_spread"], training.status("unbroken")["metrics"]["loss_spread"]);
    let words = status.to_string();
    assert!(words.contains("the norm was above 0 for 2 epochs"), "{words}");
}

#[test]
fn a_new_plugin_in_c_builds_and_passes_every_check() {
    let folder = temporary_folder();
    let mut command = host();
    command.args(["plugins", "new", "loss-alarm", "--language", "c"]).current_dir(folder.path());
    let said = shown(&command.output().expect("the host starts"), &[]);
    insta::assert_snapshot!(said, @"");
    let project = folder.path().join("loss-alarm");
    // As it says.
    let build = said.lines().find(|line| line.starts_with("cc ")).expect("it says how to build");
    let mut words = build.split(' ');
    let mut command = Command::new(words.next().expect("the compiler"));
    command.args(words).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror"]).current_dir(&project);
    let output = command.output().expect("there is a compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let library = format!("{}loss_alarm{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let mut command = host();
    command.args(["plugins", "check"]).arg(Path::new(".").join(library)).current_dir(&project);
    let output = command.output().expect("the host starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    let mut command = host();
    command.args(["plugins", "new", "other", "--language", "c", "--plugin-api", "."]).current_dir(folder.path());
    insta::assert_snapshot!(shown(&command.output().expect("the host starts"), &[]), @"");
}
