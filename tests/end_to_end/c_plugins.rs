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
    insta::assert_snapshot!(paragraphs, @r#"
    × the table of functions that `[FOLDER]/libno_table.so` gives cannot be used: there is none, only a null pointer
    hint: build the plugin with an unmodified `host_plugin.h`, which fills the table in

    × the table of functions that `[FOLDER]/libwrong_magic.so` gives cannot be used: its magic number is 0x4e4f54504c554749 instead of 0x484f5354504c5547
    hint: build the plugin with an unmodified `host_plugin.h`, which fills the table in

    × the table of functions that `[FOLDER]/libvery_short_table.so` gives cannot be used: it has 4 bytes, and 112 are needed
    hint: build the plugin with an unmodified `host_plugin.h`, which fills the table in

    × the table of functions that `[FOLDER]/libshort_table.so` gives cannot be used: it has 96 bytes, and 112 are needed
    hint: build the plugin with an unmodified `host_plugin.h`, which fills the table in

    × `[FOLDER]/libother_major.so` is built for plugin ABI 2, this host has 1
    hint: build the plugin with a `plugin-api` or a `host_plugin.h` of this host's major version

    × the table of functions that `[FOLDER]/libother_pointers.so` gives cannot be used: it is for pointers of 32 bits, this host has 64
    hint: build the plugin with an unmodified `host_plugin.h`, which fills the table in

    × the table of functions that `[FOLDER]/libnull_function.so` gives cannot be used: its function `handle` is null
    hint: build the plugin with an unmodified `host_plugin.h`, which fills the table in

    × the table of functions that `[FOLDER]/libends_process.so` gives cannot be used: it says that the library may end the process: `unwinds` is 0
    hint: build the plugin with an unmodified `host_plugin.h`, which fills the table in

    × `[FOLDER]/libtwo_entries.so` exports a plugin header and `host_plugin_entry`: which of them counts is not clear
    hint: export one of them: a plugin is in Rust or in C

    × kind 0 of `[FOLDER]/libnot_json.so` does not describe itself: its descriptor is not JSON: expected `,` or `}` at line 1 column 19
    hint: this is a fault of the plugin: tell its author
    "#);
}

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn a_library_that_says_that_it_is_for_another_system() {
    insta::assert_snapshot!(listed("other_target"), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libother_target.so` is built for aarch64-apple-darwin, this host for x86_64 (linux)
      hint: build the plugin for this host's target: `cargo build --release --target …`, or with a compiler for it
    "#);
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
        ("silent_failure", "options = { refuse = true }", "it failed without a message, with status 1"),
        (
            "wrong_calls",
            "options = { create = 'misspelled' }",
            "there is no option `table.patiense`; did you mean `table.patience`?",
        ),
        ("wrong_calls", "options = { create = 'type' }", "the option `create` is not a number"),
        (
            "wrong_calls",
            "options = { create = 'metric' }",
            "`metric_put` cannot be called while an instance is created",
        ),
    ] {
        let ran = wrong(library, options);
        let shown = ran.shown();
        assert!(shown.contains(said), "{library} {options}: {shown}");
        assert_ne!(ran.code(), Some(0), "{shown}");
    }
    insta::assert_snapshot!(wrong("null_instance", "").shown(), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: wrong
    error: × plugin `wrong` failed in `new`: it said that it had made an instance, and left it null
      hint: kind `wrong` of `[PLUGINS]/libnull_instance.so`
    failed: 0 epochs, 0 steps in [TIME] s
    results: [FOLDER]/out
    "#);
}

#[test]
fn a_hook_that_fails_gets_a_paragraph() {
    insta::assert_snapshot!(wrong("not_utf8", "").shown(), @r#"
    exit code: 1
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: wrong
    error: × plugin `wrong` failed in `setup`: na�ve: �
      hint: kind `wrong` of `[PLUGINS]/libnot_utf8.so`; `on_error = "disable"` would let the run continue without it
    failed: 0 epochs, 0 steps in [TIME] s
    results: [FOLDER]/out
    "#);
    let silent = wrong("silent_failure", "").shown();
    assert!(silent.contains("failed in `setup`: it gave no message"), "{silent}");
}

#[test]
fn what_the_host_answers_is_what_a_hook_fails_with() {
    let ran = wrong("wrong_calls", "on_error = 'ignore'").succeeded();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 0
    -- stdout
    [FOLDER]/out
    -- stderr
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: wrong
    ERROR plugin `wrong` failed in `setup`: there is no metric `val_los`; did you mean `val_loss`? plugin="wrong" hook="setup"
    ERROR plugin `wrong` failed in `train_start`: the metric `val_loss` has no value yet plugin="wrong" hook="train_start"
    ERROR plugin `wrong` failed in `epoch_start`: `loss` can be called only in `step_end`, `gradients`, `eval_step_end` and `trigger`, not in `epoch_start` plugin="wrong" hook="epoch_start"
    ERROR plugin `wrong` failed in `epoch_trained`: the request is not understood: wrong msgpack marker Reserved plugin="wrong" hook="epoch_trained"
    ERROR plugin `wrong` failed in `epoch_end`: the host of an earlier hook is spent plugin="wrong" hook="epoch_end"
    ERROR plugin `wrong` failed in `epoch_start`: `loss` can be called only in `step_end`, `gradients`, `eval_step_end` and `trigger`, not in `epoch_start` plugin="wrong" hook="epoch_start"
    ERROR plugin `wrong` failed in `epoch_trained`: the request is not understood: wrong msgpack marker Reserved plugin="wrong" hook="epoch_trained"
    ERROR plugin `wrong` failed in `epoch_end`: the host of an earlier hook is spent plugin="wrong" hook="epoch_end"
    ERROR plugin `wrong` failed in `train_end`: this host has no service 9999; use a newer host plugin="wrong" hook="train_end"
    finished: 2 epochs, 6 steps in [TIME] s
    results: [FOLDER]/out
    "#);
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
    insta::assert_snapshot!(checked("norm_limit"), @r#"
    exit code: 0
    -- stdout
    [FOLDER]/libnorm_limit.so: host_plugin.h 1.0, [COMPILER], loaded in [TIME] ms

    KIND        CHECK            RESULT   DETAILS
    -           load             ok
    norm-limit  descriptor       ok
    norm-limit  schema           ok
    norm-limit  default-options  ok
    norm-limit  garbage-options  skipped  a plugin in C leaves its options to the schema
    norm-limit  hooks            ok
    norm-limit  budget           ok
    norm-limit  stale-handle     ok
    norm-limit  state            ok
    norm-limit  two-instances    ok

    10 checks: 9 passed, 0 warned, 0 failed, 1 skipped; tier: full
    "#);
    insta::assert_snapshot!(checked("loss_spread"), @r#"
    exit code: 0
    -- stdout
    [FOLDER]/libloss_spread.so: host_plugin.h 1.0, [COMPILER], loaded in [TIME] ms

    KIND         CHECK            RESULT   DETAILS
    -            load             ok
    loss-spread  descriptor       ok
    loss-spread  schema           ok
    loss-spread  default-options  ok
    loss-spread  garbage-options  skipped  a plugin in C leaves its options to the schema
    loss-spread  hooks            ok
    loss-spread  budget           ok
    loss-spread  stale-handle     ok
    loss-spread  state            ok
    loss-spread  two-instances    ok

    10 checks: 9 passed, 0 warned, 0 failed, 1 skipped; tier: full
    "#);
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
    insta::assert_snapshot!(said, @r#"
    exit code: 0
    -- stdout
    Made the plugin `loss-alarm` in `loss-alarm`. What to write is marked with `WRITE HERE`.

    cd loss-alarm
    cc -shared -fPIC -O2 -I include -o libloss_alarm.so loss-alarm.c
    host plugins check ./libloss_alarm.so
    host run --plugins ./libloss_alarm.so --plugin loss-alarm
    "#);
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
    insta::assert_snapshot!(shown(&command.output().expect("the host starts"), &[]), @r#"
    exit code: 2
    -- stderr
      × `--plugin-api` is for a plugin in Rust: any other has all that it needs in its own folder
      hint: leave it out
    "#);
}
