use fixture::{build_test_plugins, host, shown, temporary_folder};

use crate::small_run::SmallRun;

/// The output of a command.
fn told(arguments: &[&str]) -> String {
    let folder = temporary_folder();
    let output = host().args(arguments).current_dir(folder.path()).output().expect("the host starts");
    shown(&output, &[(folder.path(), "[FOLDER]")])
}

#[test]
fn help() {
    insta::assert_snapshot!(told(&["--help"]), @"
    exit code: 0
    -- stdout
    Trains networks with libtorch; plugins do everything besides the training

    Usage: host <COMMAND>

    Commands:
      run          Trains what a run file says, with the callbacks of plugin libraries
      evaluate     Measures a saved model on a split of its data, or on other data
      predict      Writes what a saved model says about data, with or without targets
      export       Exports a saved model with export plugins
      model        Shows the model of a run file: nodes, shapes, parameters and cost
      config       Checks run files, and prints their JSON Schema
      plugins      Creates, lists, describes and checks plugins
      list         Lists runs with their state, progress, best metrics and age
      status       Shows where a run is
      attach       Shows what a running run prints, from another terminal
      compare      Compares runs: the settings that differ, and the best and last metrics
      stop         Stops a run at its next safe point, with its end hooks
      pause        Pauses a run at its next safe point
      resume       Goes on with a paused run
      checkpoint   Has a run take a checkpoint at its next safe point
      completions  Prints a script that completes commands in a shell
      man          Prints the man page
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version

    Exit codes:
      0    it is done; a run finished, or was stopped
      1    it failed; the run to steer is not running
      2    the command, the run file or the plugins are wrong; nothing was started
      130  Ctrl-C ended it, after its end hooks; 143 after SIGTERM, 129 after SIGHUP
    ");
}

#[test]
fn help_for_run() {
    insta::assert_snapshot!(told(&["run", "--help"]), @"
    exit code: 0
    -- stdout
    Trains what a run file says, with the callbacks of plugin libraries

    Usage: host run [OPTIONS] [RUN_FILE]

    Arguments:
      [RUN_FILE]  The run file; without one, the digits example that is built in

    Options:
          --plugins [<DIR|FILE>]      A folder of plugin libraries or a library; may be given again.
                                      Without a value, `./plugins`. Without the option, what
                                      `HOST_PLUGINS` names, or else the folder `plugins` beside the
                                      program
          --locked                    Refuses plugin libraries that are not listed in `plugins.lock`, or
                                      whose content is another one there, before anything of them runs;
                                      and files and folders that others can write
          --lock <FILE>               The lock [default: `plugins.lock` beside the run file, else in the
                                      working folder]
          --plugin <KIND[=NAME]>      Adds a callback after the declared ones, unless one of that name
                                      is declared
          --isolate <KIND|all>        Runs the plugins of a kind, or all of them, each in a process of
                                      its own
          --set <KEY=VALUE>           Overrides a key of the run file: `train.epochs=3`,
                                      `plugins.checkpoint.options.keep_last=5`
          --out <DIR>                 The run folder [default: runs/<run name>/<start time>]
          --resume <auto|never|PATH>  Where to resume from: the newest whole checkpoint of the run
                                      folder (`auto`; the default where the run folder is given),
                                      nowhere, or a checkpoint
          --accept <CHANGE>           What may differ from the checkpoint, though the run is then
                                      another one, with commas between: seed, data, splits,
                                      normalization, batch_size, model, loss, optimizer, schedule,
                                      precision
          --processes <N|auto>        Trains in this many processes of this machine, as one run: a
                                      number, or `auto` for one on each GPU
          --try                       One training and one evaluation batch through every hook and
                                      trigger; publishes nothing
          --json                      Prints what happens as JSON to stdout, an object a line; the last
                                      one is the final status
      -q, --quiet                     Shows only errors
      -v, --verbose...                Shows what the host does; twice: everything, and each call of a
                                      hook in `log.jsonl`
      -h, --help                      Print help
      -V, --version                   Print version

    Examples:
      host run                                                  the built-in digits run
      host run run.toml --plugins plugins --plugins libmine.so  a run file, a folder, a library
      host run run.toml --set train.epochs=3 --plugin early-stopping
      host run run.toml --out runs/long                         started, or resumed where it stopped
      host run run.toml --processes 2                           two processes of this machine, one run
      host run run.toml --try                                   one batch through every hook
      host run run.toml --plugins plugins --locked              only what `plugins.lock` lists

    Environment:
      HOST_PLUGINS  folders of plugin libraries, or libraries, for commands without `--plugins`
      HOST_CACHE    the cache of what libraries offer; empty: there is none
    ");
}

#[test]
fn an_unknown_flag() {
    insta::assert_snapshot!(told(&["run", "--plugin-folder", "."]), @"
    exit code: 2
    -- stderr
    error: unexpected argument '--plugin-folder' found

      tip: a similar argument exists: '--plugin'

    Usage: host run --plugin <KIND[=NAME]> [RUN_FILE]

    For more information, try '--help'.
    ");
}

#[test]
fn a_missing_run_file() {
    insta::assert_snapshot!(told(&["run", "nowhere.toml"]), @"
    exit code: 2
    -- stderr
      × cannot read the run file `nowhere.toml`
      ╰─▶ No such file or directory (os error 2)
      hint: give the path of a run file, or none for the built-in digits run
    ");
}

#[test]
fn a_missing_plugin_folder() {
    insta::assert_snapshot!(told(&["run", "--plugins", "nowhere"]), @"
    exit code: 2
    -- stderr
      × the plugins folder `nowhere` does not exist
      hint: give the folder that holds the plugin libraries: `--plugins DIR`
    ");
}

#[test]
fn plugins_without_a_value_is_the_folder_plugins() {
    insta::assert_snapshot!(told(&["run", "--plugins"]), @"
    exit code: 2
    -- stderr
      × the plugins folder `plugins` does not exist
      hint: give the folder that holds the plugin libraries: `--plugins DIR`
    ");
}

#[test]
fn a_plugin_folder_without_plugins() {
    let folder = temporary_folder();
    let output = host()
        .args(["run", "--try", "--plugins"])
        .arg(folder.path())
        .current_dir(folder.path())
        .output()
        .expect("it starts");
    insta::assert_snapshot!(shown(&output, &[(folder.path(), "[FOLDER]")]), @"
    exit code: 2
    -- stderr
      × the plugins folder `[FOLDER]` holds no `*.so` file
      hint: copy plugin libraries into it; folders within it are not searched
    ");
}

#[test]
fn a_broken_file_that_the_run_does_not_need_is_a_warning() {
    let run = SmallRun::new().recorder("a", "", "").set("train.epochs=1");
    std::fs::write(run.plugins().join("libbroken.so"), "not a library").expect("the folder can be written to");
    let ran = run.run().succeeded();
    insta::assert_snapshot!(ran.shown(), @r#"
    exit code: 0
    -- stdout
    [FOLDER]/out
    -- stderr
    warning: × `[PLUGINS]/libbroken.so` is not a shared library
      hint: build the plugin with `crate-type = ["cdylib"]` and copy the library that cargo names; in C build it with `cc -shared`
    run `small`: cpu, threads 1 (as the run file says), seed 7
    kernels: [KERNELS]
    model: 3 nodes, 1210 parameters; data: train 1438, val 359
    callbacks, in order: a
    finished: 1 epoch, 3 steps in [TIME] s
    results: [FOLDER]/out
    "#);
}

#[test]
fn a_broken_file_that_the_run_needs() {
    let run = SmallRun::with_libraries(&["wrong-major"]).instance("kind = 'recorder'");
    insta::assert_snapshot!(run.run().shown(), @"
    exit code: 2
    -- stderr
      × no library offers the plugin kind `recorder`
        ╭─[[FOLDER]/run.toml:41:8]
     40 │ [[plugins]]
     41 │ kind = 'recorder'
        ·        ─────┬────
        ·             ╰── no library offers it
        ╰────
      hint: give the folder that holds its library: `--plugins DIR`; not loaded: `[PLUGINS]/libwrong_major.so`

      × `[PLUGINS]/libwrong_major.so` is built for plugin ABI 2.0.0, this host has 1.0.0
      hint: build the plugin with a `plugin-api` or a `host_plugin.h` of this host's major version
    ");
}

#[test]
fn a_plugin_file_is_enough() {
    let run = SmallRun::with_libraries(&["default-kinds"]).recorder("a", "", "").set("train.epochs=1");
    let library = build_test_plugins()["recorder"].display().to_string();
    let ran = run.arguments(["--plugins", &library]).run();
    // The folder beside it has other kinds.
    assert_eq!(ran.succeeded().lines_of("a", "train_end").len(), 1);
}

#[test]
fn an_invalid_instance_name() {
    insta::assert_snapshot!(SmallRun::new().arguments(["--plugin", "recorder=My Recorder"]).run().shown(), @"
    exit code: 2
    -- stderr
      × `My Recorder` cannot be the name of a plugin
       ╭─[--plugin:1:1]
     1 │ recorder=My Recorder
       · ──────────┬─────────
       ·           ╰── here
       ╰────
      hint: did you mean `my-recorder`? a plugin's name consists of lower-case letters, digits and `-`, since it names folders and keys
    ");
}
