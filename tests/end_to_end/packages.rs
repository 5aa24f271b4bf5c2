//! Plugins that come from others: what a lock lets be opened, who else can change it, and packages.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fixture::{TempDir, build_c_plugins, build_test_plugins, compile_c, host, shown, temporary_folder, workspace_root};

use crate::small_run::SmallRun;

/// A folder with the folder `plugins`; commands run in it.
struct Project(TempDir);

impl Project {
    fn new() -> Self {
        let project = Self(temporary_folder());
        std::fs::create_dir(project.path("plugins")).expect("a folder can be made");
        project
    }

    /// One with the plugin in C, locked.
    fn locked() -> Self {
        let project = Self::new();
        project.copy(&build_c_plugins()["norm_limit"], "plugins/libnorm_limit.so");
        project.succeeds(&["lock", "--plugins", "plugins"]);
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn copy(&self, from: &Path, to: &str) {
        std::fs::copy(from, self.path(to)).expect("a file can be copied");
    }

    /// `host plugins …`, which ends within a minute.
    fn plugins(&self, arguments: &[&str]) -> Output {
        let mut command = host();
        command.env("XDG_CONFIG_HOME", self.path("config")).args(["plugins"]).args(arguments).current_dir(&self.0);
        command.output().expect("the host starts")
    }

    fn shows(&self, arguments: &[&str]) -> String {
        let hash = regex::Regex::new("[0-9a-f]{64}").expect("a pattern");
        let size = regex::Regex::new(r"\d+ bytes").expect("a pattern");
        let text = shown(&self.plugins(arguments), &[(self.0.path(), "[PROJECT]")]);
        let text = hash.replace_all(&text, "[HASH]").into_owned();
        let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
        size.replace_all(&text, "[SIZE] bytes").replace(&target, "[TARGET]")
    }

    fn succeeds(&self, arguments: &[&str]) -> String {
        let output = self.plugins(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", shown(&output, &[]));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The kinds that are listed with the lock.
    fn is_admitted(&self) -> bool {
        self.plugins(&["list", "--plugins", "plugins", "--locked"]).status.success()
    }
}

/// A plugin in C that leaves a file when it is loaded, and does nothing.
fn leaves_a_file(project: &Project, mark: &Path) -> PathBuf {
    let plugin = std::fs::read_to_string(workspace_root().join("examples/c-plugin/norm_limit.c")).expect("an example");
    let constructor = format!(
        "#include <stdio.h>\n__attribute__((constructor)) static void leave(void) {{ FILE *file = fopen(\"{}\", \"w\"); if (file) fclose(file); }}\n{plugin}",
        mark.display()
    );
    let source = project.path("leaves.c");
    std::fs::write(&source, constructor).expect("a file can be written");
    compile_c(&source, project.0.path())
}

#[test]
fn a_lock_lists_what_may_be_opened() {
    let project = Project::new();
    project.copy(&build_c_plugins()["norm_limit"], "plugins/libnorm_limit.so");
    insta::assert_snapshot!(project.shows(&["lock", "--plugins", "plugins"]), @r#"
    exit code: 0
    -- stdout
    added    libnorm_limit.so  norm-limit 1.0.0
    `plugins.lock`: 1 library for [TARGET]
    "#);
    assert!(project.is_admitted());
    let text = std::fs::read_to_string(project.path("plugins.lock")).expect("the lock");
    let mut lock: toml::Table = text.parse().expect("TOML");
    let library = lock["library"][0].as_table_mut().expect("a table");
    assert_eq!(library["kinds"].to_string(), r#"["norm-limit 1.0.0"]"#);
    // What is locked for another target stays.
    library["target"] = "sparc-solaris".into();
    library["sha256"] = "0".repeat(64).into();
    std::fs::write(project.path("plugins.lock"), lock.to_string()).expect("the lock can be written");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @r#"
    exit code: 2
    -- stderr
      × the lock `plugins.lock` does not fit the plugins: `plugins/libnorm_limit.so` is not listed
      hint: the lock has it for sparc-solaris: run `host plugins lock` here, too, if you trust the file
    "#);
    insta::assert_snapshot!(project.shows(&["lock", "--plugins", "plugins"]), @r#"
    exit code: 0
    -- stdout
    added    libnorm_limit.so  norm-limit 1.0.0
    `plugins.lock`: 1 library for [TARGET], 1 for other targets
    "#);
    assert!(project.is_admitted());
}

/// A file of Python is locked with the modules beside it.
#[test]
#[cfg(target_os = "linux")]
fn modules_of_python_are_locked_with_their_plugin() {
    let project = Project::new();
    let write = |file: &str, text: &str| std::fs::write(project.path(file), text).expect("a file can be written");
    write("plugins/watches.py", "# host-plugin: watches\nfrom helper import Base\nclass Watches(Base):\n    pass\n");
    let helper =
        "from host_plugin import Callback\nclass Base(Callback):\n    def on_setup(self, run, event):\n        pass\n";
    write("plugins/helper.py", helper);
    project.succeeds(&["lock", "--plugins", "plugins"]);
    let lock = std::fs::read_to_string(project.path("plugins.lock")).expect("the lock");
    assert!(lock.contains("file = \"watches.py\"") && lock.contains("file = \"helper.py\""), "{lock}");
    let describe = &["describe", "watches", "--plugins", "plugins", "--locked"];
    project.succeeds(describe);
    write("plugins/helper.py", &format!("{helper}# changed\n"));
    let output = project.plugins(describe);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("helper.py"), "{told}");
}

#[test]
fn nothing_of_a_library_that_is_not_locked_runs() {
    let project = Project::locked();
    let mark = project.path("mark");
    let library = leaves_a_file(&project, &mark);
    // In the place of the one that is locked, and beside it: neither by the cache nor by opening.
    project.copy(&library, "plugins/libnorm_limit.so");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @r#"
    exit code: 2
    -- stderr
      × the lock `plugins.lock` does not fit the plugins: `plugins/libnorm_limit.so` has another content than when it was locked: it has [SIZE] bytes, and had [SIZE] bytes
      hint: put the file back that was locked, or run `host plugins lock` if you trust this one
    "#);
    assert!(!mark.exists());
    project.succeeds(&["list", "--plugins", "plugins"]);
    assert!(mark.exists());
    std::fs::remove_file(&mark).expect("the file can be removed");
    assert!(!project.is_admitted() && !mark.exists());
    project.copy(&build_c_plugins()["norm_limit"], "plugins/libnorm_limit.so");
    assert!(project.is_admitted());
    project.copy(&library, "plugins/libnorm_limt.so");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @r#"
    exit code: 2
    -- stderr
      × the lock `plugins.lock` does not fit the plugins: `plugins/libnorm_limt.so` is not listed
      hint: did you mean `libnorm_limit.so`? Otherwise take it out of the folder, or run `host plugins lock` if you trust it
    "#);
    assert!(!mark.exists());
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked", "--lock", "other.lock"]), @r#"
    exit code: 2
    -- stderr
      × there is no lock `other.lock`
      hint: write it with `host plugins lock`, or name another with `--lock FILE`
    "#);
}

#[test]
fn a_run_may_ask_for_the_lock_itself() {
    let run = |prepare: fn(&SmallRun), arguments: &[&str], line: &str| {
        let run = SmallRun::new().with("seed = 7", &format!("seed = 7\n{line}")).recorder("watcher", "", "");
        prepare(&run);
        run.arguments(arguments.iter().copied()).run()
    };
    let lock = |run: &SmallRun| {
        let mut command = host();
        command.args(["plugins", "lock", "--plugins"]).arg(run.plugins()).arg("--lock");
        let output = command.arg(run.out().with_file_name("plugins.lock")).output().expect("the host starts");
        assert!(output.status.success(), "{}", shown(&output, &[]));
    };
    run(|_| {}, &[], "").succeeded();
    insta::assert_snapshot!(run(|_| {}, &[], "locked = true").shown(), @r#"
    exit code: 2
    -- stderr
      × there is no lock `[FOLDER]/plugins.lock`
      hint: write it with `host plugins lock`, or name another with `--lock FILE`
    "#);
    assert_eq!(run(|_| {}, &["--locked"], "").code(), Some(2));
    let locked = |arguments: &[&str], line: &str| {
        let run = SmallRun::new().with("seed = 7", &format!("seed = 7\n{line}")).recorder("watcher", "", "");
        lock(&run);
        run.arguments(arguments.iter().copied()).run().succeeded().events_of("watcher")
    };
    let events = locked(&[], "locked = true");
    assert!(!events.is_empty());
    assert_eq!(locked(&["--locked"], ""), events);
    if cfg!(target_os = "linux") {
        assert_eq!(locked(&["--locked", "--isolate", "all"], ""), events);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn libraries_beside_a_plugin_are_locked_with_it() {
    let project = Project::new();
    let compile = |arguments: &[&str]| {
        let mut command = Command::new("cc");
        command.current_dir(&project.0).args(["-shared", "-fPIC"]).args(arguments);
        assert!(command.status().expect("the compiler starts").success());
    };
    std::fs::create_dir(project.path("plugins/lib")).expect("a folder can be made");
    std::fs::write(project.path("neighbor.c"), "int neighbor(void) { return 1; }").expect("a file can be written");
    compile(&["-o", "plugins/lib/libneighbor.so", "neighbor.c"]);
    let plugin = std::fs::read_to_string(workspace_root().join("examples/c-plugin/norm_limit.c")).expect("an example");
    let plugin = format!("int neighbor(void);\nint uses(void);\nint uses(void) {{ return neighbor(); }}\n{plugin}");
    std::fs::write(project.path("plugin.c"), plugin).expect("a file can be written");
    let include = workspace_root().join("plugin-api/include").display().to_string();
    let build = ["-I", &include, "-o", "plugins/libplugin.so", "plugin.c", "-Lplugins/lib", "-lneighbor"];
    compile(&[&build[..], &["-Wl,-rpath,$ORIGIN/lib"]].concat());
    project.succeeds(&["lock", "--plugins", "plugins"]);
    let text = std::fs::read_to_string(project.path("plugins.lock")).expect("the lock");
    let lock: toml::Table = text.parse().expect("TOML");
    assert_eq!(lock["library"][0]["beside"][0]["file"].as_str(), Some("lib/libneighbor.so"));
    assert!(project.is_admitted());
    // Opened, not only listed.
    let mut check = host();
    check.args(["plugins", "list", "--plugins", "plugins", "--locked"]).env("HOST_CACHE", "").current_dir(&project.0);
    assert!(check.status().expect("the host starts").success());
    std::fs::write(project.path("neighbor.c"), "int neighbor(void) { return 2; }").expect("a file can be written");
    compile(&["-o", "plugins/lib/libneighbor.so", "neighbor.c"]);
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @r#"
    exit code: 2
    -- stderr
      × the lock `plugins.lock` does not fit the plugins: `plugins/lib/libneighbor.so` has another content than when it was locked: its SHA-256 is another one
      hint: put the file back that was locked, or run `host plugins lock` if you trust this one
    "#);
    insta::assert_snapshot!(project.shows(&["package", "plugins/libplugin.so"]), @r#"
    exit code: 2
    -- stderr
      × `plugins/libplugin.so` needs libraries beside itself: `lib/libneighbor.so`
      hint: link them statically, or give users the folder instead of a package
    "#);
}

#[test]
#[cfg(unix)]
fn what_others_can_change_is_told_and_refused_with_a_lock() {
    use std::os::unix::fs::PermissionsExt;

    let project = Project::locked();
    let chmod = |name: &str, mode: u32| {
        std::fs::set_permissions(project.path(name), std::fs::Permissions::from_mode(mode)).expect("a mode can be set");
    };
    chmod("plugins", 0o777);
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins"]), @r#"
    exit code: 0
    -- stdout
    KIND        VERSION  BY DEFAULT  DISPATCH  LIBRARY           SUMMARY
    norm-limit  1.0.0    no          inline    libnorm_limit.so  Measures the norm of a parameter, and stops the run when it stays too large
    -- stderr
      × everybody can change `[PROJECT]/plugins`, and with it what is loaded
      hint: take the right away: `chmod go-w [PROJECT]/plugins`
    "#);
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @r#"
    exit code: 2
    -- stderr
      × the lock `plugins.lock` does not fit the plugins: everybody can change `[PROJECT]/plugins`, and with it what is loaded
      hint: take the right away: `chmod go-w [PROJECT]/plugins`
    "#);
    chmod("plugins", 0o755);
    assert!(project.is_admitted());
    chmod("plugins.lock", 0o666);
    assert!(!project.is_admitted());
    chmod("plugins.lock", 0o644);
    // The folder is the user's own; where a link leads to is not.
    std::fs::create_dir(project.path("elsewhere")).expect("a folder can be made");
    std::fs::rename(project.path("plugins/libnorm_limit.so"), project.path("elsewhere/x.so")).expect("a rename");
    std::os::unix::fs::symlink("../elsewhere/x.so", project.path("plugins/libnorm_limit.so")).expect("a link");
    assert!(project.is_admitted());
    chmod("elsewhere", 0o777);
    let listed = project.shows(&["list", "--plugins", "plugins"]);
    assert!(listed.contains("libnorm_limit.so -> [PROJECT]/elsewhere/x.so"), "{listed}");
    assert!(listed.contains("everybody can change `[PROJECT]/elsewhere`"), "{listed}");
    assert!(!project.is_admitted());
}

#[test]
#[cfg(unix)]
fn what_is_no_file_is_passed_over() {
    let project = Project::locked();
    let made = Command::new("mkfifo").arg(project.path("plugins/libpipe.so")).status().expect("mkfifo starts");
    assert!(made.success());
    let sparse = std::fs::File::create(project.path("plugins/libsparse.so")).expect("a file can be made");
    sparse.set_len(1 << 40).expect("a length can be set");
    std::os::unix::fs::symlink("/dev/zero", project.path("plugins/libzero.so")).expect("a link");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @r#"
    exit code: 0
    -- stdout
    KIND        VERSION  BY DEFAULT  DISPATCH  LIBRARY           SUMMARY
    norm-limit  1.0.0    no          inline    libnorm_limit.so  Measures the norm of a parameter, and stops the run when it stays too large
    -- stderr
      × `plugins/libpipe.so` is passed over: it is a FIFO, not a file
      hint: take it out of the folder, or leave it: nothing of it is read

      × `plugins/libsparse.so` is passed over: it has [SIZE] bytes, more than 1073741824
      hint: take it out of the folder, or leave it: nothing of it is read

      × `plugins/libzero.so` is passed over: it is a device, not a file
      hint: take it out of the folder, or leave it: nothing of it is read
    "#);
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins/libpipe.so"]), @r#"
    exit code: 2
    -- stderr
      × `plugins/libpipe.so` is passed over: it is a FIFO, not a file
      hint: take it out of the folder, or leave it: nothing of it is read
    "#);
}

/// A project with a package of the plugin in C in `out`, and its file's name.
fn packed() -> (Project, String) {
    let project = Project::new();
    project.copy(&build_c_plugins()["norm_limit"], "libnorm_limit.so");
    std::fs::write(project.path("README.md"), "# Norms\n").expect("a file can be written");
    std::fs::write(project.path("LICENSE"), "Anybody may use it.\n").expect("a file can be written");
    let path = project.succeeds(&["package", "libnorm_limit.so", "--out", "out"]);
    let file = path.trim().trim_start_matches("out/").to_owned();
    (project, file)
}

#[test]
fn a_package_is_made_added_and_removed() {
    let (project, file) = packed();
    insta::assert_snapshot!(project.shows(&["package", "libnorm_limit.so", "--out", "out"]), @r#"
    exit code: 0
    -- stdout
    out/norm-limit-1.0.0-[TARGET].tar.zst
    -- stderr
    `norm-limit` 1.0.0 for [TARGET], with LICENSE, README.md
    [SIZE] bytes, SHA-256 [HASH]
    "#);
    let package = format!("out/{file}");
    insta::assert_snapshot!(project.shows(&["add", &package]), @r#"
    exit code: 0
    -- stdout
    added `norm-limit` 1.0.0, `plugins/libnorm_limit.so`, not signed
    kinds: norm-limit
    "#);
    assert!(project.is_admitted());
    insta::assert_snapshot!(project.shows(&["add", &package]), @r#"
    exit code: 0
    -- stdout
    was there already: `norm-limit` 1.0.0, `plugins/libnorm_limit.so`, not signed
    "#);
    insta::assert_snapshot!(project.shows(&["add", "norm-limit"]), @r#"
    exit code: 2
    -- stderr
      × `norm-limit` is the name of a package, and no index is named
      hint: name the index with `--index FOLDER|URL`, or with the variable `HOST_INDEX`; for a file give its path, as in `./NAME`
    "#);
    insta::assert_snapshot!(project.shows(&["add", &package, "--require-signed"]), @r#"
    exit code: 2
    -- stderr
      × `out/norm-limit-1.0.0-[TARGET].tar.zst` is not signed: there is no `out/norm-limit-1.0.0-[TARGET].tar.zst.minisig`
      hint: ask its author for a signature: `minisign -Sm PACKAGE`
    "#);
    insta::assert_snapshot!(project.shows(&["remove", "norm-limits"]), @r#"
    exit code: 2
    -- stderr
      × no package `norm-limits` is in `plugins`
      hint: did you mean `norm-limit`?
    "#);
    insta::assert_snapshot!(project.shows(&["remove", "norm-limit"]), @r#"
    exit code: 0
    -- stdout
    removed `norm-limit` 1.0.0, `plugins/libnorm_limit.so`
    "#);
    assert!(!project.path("plugins/libnorm_limit.so").exists());
    std::fs::write(project.path("no.tar.zst"), "text").expect("a file can be written");
    insta::assert_snapshot!(project.shows(&["add", "no.tar.zst"]), @r#"
    exit code: 2
    -- stderr
      × `no.tar.zst` is not a package: it is not compressed by Zstandard
      hint: give a file that `host plugins package` wrote
    "#);
    insta::assert_snapshot!(project.shows(&["add", "http://example.org/x.tar.zst"]), @r#"
    exit code: 2
    -- stderr
      × `http://example.org/x.tar.zst` is not contacted: whoever is between could change what comes
      hint: use `https://`; `http://` is for servers on this machine, such as `http://localhost:8000`
    "#);
}

#[test]
fn an_update_that_is_killed_leaves_something_that_works() {
    let (project, old) = packed();
    let source = std::fs::read_to_string(workspace_root().join("examples/c-plugin/norm_limit.c")).expect("an example");
    let source = source.replace("\"version\": \"1.0.0\"", "\"version\": \"1.1.0\"");
    std::fs::create_dir(project.path("new")).expect("a folder can be made");
    std::fs::write(project.path("new/norm_limit.c"), source).expect("a file can be written");
    compile_c(&project.path("new/norm_limit.c"), &project.path("new"));
    let new = project.succeeds(&["package", "new/libnorm_limit.so", "--out", "out"]);
    let old = format!("out/{old}");
    let mut interrupted = 0;
    for delay in (0..24).map(|step| Duration::from_millis(step * 4)) {
        project.succeeds(&["add", &old, "--downgrade"]);
        let mut command = host();
        command.args(["plugins", "add", new.trim()]).current_dir(&project.0);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut adding = command.spawn().expect("the host starts");
        std::thread::sleep(delay);
        adding.kill().expect("it can be killed");
        interrupted += usize::from(!adding.wait().expect("it ends").success());
        let listed = project.succeeds(&["list", "--plugins", "plugins", "--locked"]);
        assert!(listed.contains("norm-limit  1.0.0") || listed.contains("norm-limit  1.1.0"), "{listed}");
    }
    assert!(interrupted > 0, "none was killed in time");
    project.succeeds(&["add", new.trim()]);
    let left: Vec<_> =
        project.path("plugins").read_dir().expect("the folder").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn add_loads_nothing() {
    let project = Project::new();
    let mark = project.path("mark");
    let library = leaves_a_file(&project, &mark);
    let path = project.succeeds(&["package", library.to_str().expect("text"), "--out", "out"]);
    std::fs::remove_file(&mark).expect("packing opens the library");
    project.succeeds(&["add", path.trim()]);
    assert!(!mark.exists());
    assert!(project.is_admitted() && mark.exists());
}

#[test]
fn a_key_of_the_user_counts_as_signed() {
    let (project, file) = packed();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().expect("a pair of keys");
    let content = std::fs::File::open(project.path("out").join(&file)).expect("the package");
    let signature = minisign::sign(None, &pair.sk, content, None, None).expect("a signature");
    std::fs::write(project.path(&format!("out/{file}.minisig")), signature.to_string()).expect("a file");
    let package = format!("out/{file}");
    insta::assert_snapshot!(project.shows(&["add", &package, "--require-signed"]), @r#"
    exit code: 2
    -- stderr
      × `out/norm-limit-1.0.0-[TARGET].tar.zst` is signed with a key that is not in `[PROJECT]/config/host/keys`
      hint: get the author's public key in a way that you trust, and put it there as `NAME.pub`
    "#);
    std::fs::create_dir_all(project.path("config/host/keys")).expect("a folder can be made");
    let key = pair.pk.to_box().expect("a key").to_string();
    std::fs::write(project.path("config/host/keys/team.pub"), key).expect("a file can be written");
    insta::assert_snapshot!(project.shows(&["add", &package, "--require-signed"]), @r#"
    exit code: 0
    -- stdout
    added `norm-limit` 1.0.0, `plugins/libnorm_limit.so`, signed with the key `team`
    kinds: norm-limit
    "#);
    let lock = std::fs::read_to_string(project.path("plugins.lock")).expect("the lock");
    assert!(lock.contains("signed_by = \"team\""), "{lock}");
    let mut bytes = std::fs::read(project.path(&package)).expect("the package");
    bytes.push(0);
    std::fs::write(project.path(&package), bytes).expect("a file can be written");
    insta::assert_snapshot!(project.shows(&["add", &package]), @r#"
    exit code: 2
    -- stderr
      × the signature of `out/norm-limit-1.0.0-[TARGET].tar.zst` is wrong: the content is another one than was signed
      hint: do not use it: it is not what the key's owner signed
    "#);
}

/// A server on this machine that gives files of a folder, until it is dropped.
struct Server {
    address: String,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn of(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (ends, folder) = (Arc::new(AtomicBool::new(false)), folder.to_owned());
        let asked_to_end = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if asked_to_end.load(Ordering::SeqCst) {
                    return;
                }
                // A client that goes away is its own affair.
                let _ = stream.and_then(|stream| answer(stream, &folder));
            }
        });
        Self { address: format!("http://{address}"), ends, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let address = self.address.trim_start_matches("http://");
        drop(TcpStream::connect(address));
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let name = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let (status, body) = match std::fs::read(folder.join(&name)) {
        Ok(_) if name == "elsewhere.tar.zst" => ("302 Found\r\nLocation: https://example.org/x", Vec::new()),
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")?;
    stream.write_all(&body)
}

#[test]
fn an_index_is_a_folder_or_a_site() {
    let (project, file) = packed();
    insta::assert_snapshot!(project.shows(&["index", "out"]), @r#"
    exit code: 0
    -- stdout
    `out`: 1 package: norm-limit
    "#);
    let server = Server::of(&project.path("out"));
    let address = server.address.as_str();
    for (index, folder) in [("out", "by-path"), (address, "by-address")] {
        let arguments =
            ["add", "norm-limit", "--index", index, "--plugins", folder, "--lock", &format!("{folder}.lock")];
        project.succeeds(&arguments);
        assert!(project.path(&format!("{folder}/libnorm_limit.so")).exists());
    }
    project.succeeds(&["add", &format!("{address}/{file}")]);
    insta::assert_snapshot!(project.shows(&["update", "--index", address]), @r#"
    exit code: 0
    -- stdout
    `norm-limit` 1.0.0 is the newest
    "#);
    let missing = project.shows(&["add", "norm-limits", "--index", address]);
    insta::assert_snapshot!(missing.replace(address, "[SERVER]"), @r#"
    exit code: 2
    -- stderr
      × the index `[SERVER]` has no package `norm-limits`
      hint: did you mean `norm-limit`?
    "#);
    std::fs::write(project.path("out/elsewhere.tar.zst"), "").expect("a file can be written");
    let elsewhere = project.shows(&["add", &format!("{address}/elsewhere.tar.zst")]);
    insta::assert_snapshot!(elsewhere.replace(address, "[SERVER]"), @r#"
    exit code: 2
    -- stderr
      × cannot get `[SERVER]/elsewhere.tar.zst`: the server answers with status 302
      hint: check the address and the connection
    "#);
    // Another file in the place of the one that is indexed.
    std::fs::write(project.path("out").join(&file), "another").expect("a file can be written");
    let another = project.shows(&["add", "norm-limit", "--index", address]);
    insta::assert_snapshot!(another.replace(address, "[SERVER]"), @r#"
    exit code: 2
    -- stderr
      × `[SERVER]/norm-limit-1.0.0-[TARGET].tar.zst` is damaged: the SHA-256 of the file, which the index has, is another one
      hint: get it again; if it stays so, ask whoever it comes from
    "#);
}

#[test]
fn a_check_has_a_tier_and_a_badge() {
    let check = |name: &str, arguments: &[&str]| {
        let mut command = host();
        command.args(["plugins", "check", "--budget-ms", "10000"]).arg(&build_test_plugins()[name]).args(arguments);
        command.output().expect("the host starts")
    };
    let tier = |name: &str, arguments: &[&str]| {
        let output = check(name, &[&["--json"], arguments].concat());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (report["tier"].clone(), output.status.code())
    };
    assert_eq!(tier("recorder", &[]), ("full".into(), Some(0)));
    assert_eq!(tier("state-loses", &[]), ("basic".into(), Some(1)));
    assert_eq!(tier("state-loses", &["--tier", "basic"]), ("basic".into(), Some(0)));
    assert_eq!(tier("panics", &["--tier", "basic"]), (serde_json::Value::Null, Some(1)));
    assert_eq!(tier("crashes", &["--tier", "basic"]), (serde_json::Value::Null, Some(1)));
    insta::assert_snapshot!(shown(&check("recorder", &["--badge"]), &[]), @r#"
    exit code: 0
    -- stdout
    ![host plugins check: full, ABI 1.0, host 0.1.0](https://img.shields.io/badge/host_plugin-full_%7C_ABI_1.0_%7C_host_0.1.0-brightgreen)
    "#);
}
