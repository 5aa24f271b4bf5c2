use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};

use fixture::{TempDir, build_test_plugins, folder_of, host, shown, temporary_folder};

use crate::small_run::SmallRun;

/// The recorder, a plugin that loads; tests damage copies of it.
fn good() -> &'static Path {
    &build_test_plugins()["recorder"]
}

/// What `host plugins list` shows for one file.
fn listed(file: &Path) -> String {
    let folder = file.parent().expect("a file is in a folder");
    let output = host().args(["plugins", "list", "--plugins"]).arg(file).output().expect("the host starts");
    shown(&output, &[(folder, "[FOLDER]")])
}

/// A copy of the recorder, changed.
fn damaged(change: impl FnOnce(&mut Vec<u8>)) -> (TempDir, PathBuf) {
    let folder = temporary_folder();
    let path = folder.path().join("libdamaged.so");
    let mut bytes = std::fs::read(good()).expect("the library can be read");
    change(&mut bytes);
    std::fs::write(&path, bytes).expect("the copy can be written");
    (folder, path)
}

fn test_plugin(name: &str) -> String {
    listed(&build_test_plugins()[name])
}

#[test]
fn a_text_file() {
    let (_folder, path) = damaged(|bytes| *bytes = b"not a library\n".to_vec());
    insta::assert_snapshot!(listed(&path), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libdamaged.so` is not a shared library
      hint: build the plugin with `crate-type = ["cdylib"]` and copy the library that cargo names; in C build it with `cc -shared`
    "#);
}

#[test]
fn an_empty_file() {
    let (_folder, path) = damaged(Vec::clear);
    insta::assert_snapshot!(listed(&path), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libdamaged.so` is not a shared library
      hint: build the plugin with `crate-type = ["cdylib"]` and copy the library that cargo names; in C build it with `cc -shared`
    "#);
}

#[test]
#[cfg(all(target_os = "linux", target_endian = "little"))]
fn a_truncated_library() {
    let (_folder, path) = damaged(|bytes| bytes.truncate(bytes.len() / 2));
    let lengths = regex::Regex::new(r"\d{4,}").expect("the pattern is valid");
    insta::assert_snapshot!(lengths.replace_all(&listed(&path), "[BYTES]"), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libdamaged.so` is truncated: it has [BYTES] bytes, its headers promise [BYTES]
      hint: copy the file again, or build it anew
    "#);
}

#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn a_library_for_another_architecture() {
    // Source: ELF-64 Object File Format, version 1.5: e_machine; 183 is AArch64.
    let (_folder, path) = damaged(|bytes| bytes[18..20].copy_from_slice(&183_u16.to_le_bytes()));
    insta::assert_snapshot!(listed(&path), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libdamaged.so` is built for Aarch64 (ELF), this host for X86_64 (ELF)
      hint: build the plugin for this host's target: `cargo build --release --target …`, or with a compiler for it
    "#);
}

#[test]
fn a_library_that_is_not_a_plugin() {
    insta::assert_snapshot!(test_plugin("not-a-plugin"), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libnot_a_plugin.so` is a shared library, but no plugin: it exports neither a plugin header nor `host_plugin_entry`
      hint: export its kinds: `#[plugin] const KINDS: &[Kind] = &[…];`, in C `HP_LIBRARY(…)`; a library that plugins need belongs beside the folder, not in it
    "#);
}

#[test]
fn another_major_version() {
    insta::assert_snapshot!(test_plugin("wrong-major"), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libwrong_major.so` is built for plugin ABI 2.0.0, this host has 1.0.0
      hint: build the plugin with a `plugin-api` or a `host_plugin.h` of this host's major version
    "#);
}

#[test]
fn another_layout() {
    insta::assert_snapshot!(test_plugin("wrong-layout"), @r#"
    exit code: 2
    -- stderr
      × the binary layout of `[FOLDER]/libwrong_layout.so` does not match this host's plugin ABI 1.0: its root module is another type
      hint: build the plugin with an unmodified `plugin-api`; `-v` writes the difference to the log
    "#);
}

#[test]
fn no_layout_to_check() {
    insta::assert_snapshot!(test_plugin("no-layout"), @r#"
    exit code: 2
    -- stderr
      × the binary layout of `[FOLDER]/libno_layout.so` does not match this host's plugin ABI 1.0: it exports no layout, so that nothing can be checked
      hint: build the plugin with an unmodified `plugin-api`; `-v` writes the difference to the log
    "#);
}

#[test]
#[cfg(target_os = "linux")]
fn a_missing_symbol() {
    insta::assert_snapshot!(test_plugin("missing-symbol"), @r#"
    exit code: 2
    -- stderr
      × the system cannot load `[FOLDER]/libmissing_symbol.so`: undefined symbol: a_function_that_no_library_has
      hint: install what it needs, or build it against this system
    "#);
}

#[test]
fn a_module_loader_that_fails() {
    insta::assert_snapshot!(test_plugin("loader-fails"), @r#"
    exit code: 2
    -- stderr
      × the module loader of `[FOLDER]/libloader_fails.so` failed: the license server is not reachable
      hint: this is a fault of the plugin: tell its author
    "#);
}

#[test]
fn a_module_loader_that_panics() {
    insta::assert_snapshot!(test_plugin("loader-panics"), @r#"
    exit code: 2
    -- stderr

    thread '<unnamed>' panicked at loader-panics/src/lib.rs:7:5:
    the loader panics
    note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
      × the module loader of `[FOLDER]/libloader_panics.so` failed: it panicked
      hint: this is a fault of the plugin: tell its author
    "#);
}

#[test]
fn a_library_whose_panics_would_end_the_host() {
    insta::assert_snapshot!(test_plugin("aborts-on-panic"), @r#"
    exit code: 2
    -- stderr
      × `[FOLDER]/libaborts_on_panic.so` is built with `panic = "abort"`: a panic in it would end the run
      hint: build it with `panic = "unwind"`, which is cargo's default
    "#);
}

#[test]
fn two_libraries_with_one_kind() {
    let plugins = build_test_plugins();
    let folder = folder_of([plugins["twin-a"].as_path(), &plugins["twin-b"]]);
    let output = host().args(["plugins", "list", "--plugins"]).arg(folder.path()).output().expect("the host starts");
    insta::assert_snapshot!(shown(&output, &[(folder.path(), "[FOLDER]")]), @r#"
    exit code: 2
    -- stderr
      × two libraries offer the kind `twin`: `[FOLDER]/libtwin_a.so` and `[FOLDER]/libtwin_b.so`
      hint: take one of them out of the folder
    "#);
}

#[test]
fn an_empty_folder() {
    let folder = temporary_folder();
    let output = host().args(["plugins", "list", "--plugins"]).arg(folder.path()).output().expect("the host starts");
    insta::assert_snapshot!(shown(&output, &[(folder.path(), "[FOLDER]")]), @r#"
    exit code: 2
    -- stderr
      × the plugins folder `[FOLDER]` holds no `*.so` file
      hint: copy plugin libraries into it; folders within it are not searched
    "#);
}

#[test]
fn a_missing_folder() {
    insta::assert_snapshot!(listed(Path::new("no/such/folder")), @r#"
    exit code: 2
    -- stderr
      × the plugins folder `[FOLDER]/folder` does not exist
      hint: give the folder that holds the plugin libraries: `--plugins DIR`
    "#);
}

#[test]
fn an_unknown_kind() {
    let folder = folder_of([good()]);
    let output = host().args(["plugins", "describe", "recoder", "--plugins"]).arg(folder.path()).output();
    insta::assert_snapshot!(shown(&output.expect("the host starts"), &[(folder.path(), "[FOLDER]")]), @r#"
    exit code: 2
    -- stderr
      × no library offers the plugin kind `recoder`
      hint: did you mean `recorder`?
    "#);
}

#[test]
fn a_broken_file_in_a_folder_is_a_warning() {
    let plugins = build_test_plugins();
    let folder = folder_of([good(), &plugins["wrong-major"], &plugins["not-a-plugin"]]);
    let output = host().args(["plugins", "list", "--plugins"]).arg(folder.path()).output().expect("the host starts");
    insta::assert_snapshot!(shown(&output, &[(folder.path(), "[FOLDER]")]), @r#"
    exit code: 0
    -- stdout
    KIND      VERSION  BY DEFAULT  DISPATCH  LIBRARY         SUMMARY
    recorder  0.1.0    no          inline    librecorder.so  Writes a line for every hook
    -- stderr
      × `[FOLDER]/libnot_a_plugin.so` is a shared library, but no plugin: it exports neither a plugin header nor `host_plugin_entry`
      hint: export its kinds: `#[plugin] const KINDS: &[Kind] = &[…];`, in C `HP_LIBRARY(…)`; a library that plugins need belongs beside the folder, not in it

      × `[FOLDER]/libwrong_major.so` is built for plugin ABI 2.0.0, this host has 1.0.0
      hint: build the plugin with a `plugin-api` or a `host_plugin.h` of this host's major version
    "#);
}

/// A plugin in C that needs a library in another folder, which its run path names from its own.
#[test]
#[cfg(target_os = "linux")]
fn a_library_finds_what_it_needs_from_its_own_folder() {
    let folder = fixture::temporary_folder();
    let within = |name: &str| folder.path().join(name);
    for name in ["plugins", "lib"] {
        std::fs::create_dir(within(name)).expect("a folder is made");
    }
    std::fs::write(within("neighbor.c"), "int neighbor(void); int neighbor(void) { return 7; }\n").expect("written");
    fixture::compile_c(&within("neighbor.c"), &within("lib"));
    let common = fixture::workspace_root().join("tests/plugins/c/common.h");
    let source = format!(
        "#define OWN_CREATE\n#include \"{}\"\nint neighbor(void);\n\
         static hp_status create(uint32_t kind, const hp_create *request, void **instance, const hp_reply *reply) {{\n\
         (void) kind, (void) request, (void) reply; *instance = &nothing; return neighbor() == 7 ? HP_OK : HP_ERROR; }}\n\
         HP_LIBRARY(KINDS, create, handle, destroy)\n",
        common.display()
    );
    std::fs::write(within("needs.c"), source).expect("written");
    let library = format!("-L{}", within("lib").display());
    let arguments = [library.as_str(), "-lneighbor", "-Wl,-rpath,$ORIGIN/../lib"];
    fixture::compile_c_with(&within("needs.c"), &within("plugins"), &arguments);
    std::fs::create_dir(within("temporary")).expect("a folder is made");
    let plugins = within("plugins").display().to_string();
    let run = SmallRun::new().instance("kind = 'wrong'").arguments(["--plugins", &plugins]);
    let child = run.start_with(|command| {
        command.env("TMPDIR", within("temporary"));
    });
    let output = child.wait_with_output().expect("the host ends");
    run.ended(output).succeeded();
    let left = std::fs::read_dir(within("temporary")).expect("it can be read").count();
    assert_eq!(left, 0, "the copies that were loaded are gone");
}

/// The process would get a signal where code of a file is read that is no longer there.
#[test]
#[cfg(unix)]
fn a_library_that_is_overwritten_while_it_is_in_use_harms_nothing() {
    let run = SmallRun::new().set("train.epochs=20").recorder("slow", "", "sleep_ms = 20, sleep_in = 'step_end'");
    let child = run.start();
    run.wait_for("step_end");
    let library = run.plugins().join(format!("{DLL_PREFIX}recorder{DLL_SUFFIX}"));
    let length = std::fs::metadata(&library).expect("it is there").len();
    // In place: the same file with other content, and shorter.
    std::fs::write(&library, vec![0u8; length as usize / 2]).expect("it is overwritten");
    let output = child.wait_with_output().expect("the host ends");
    let ran = run.ended(output).succeeded();
    assert_eq!(ran.status()["position"]["epoch"], 20);
}
