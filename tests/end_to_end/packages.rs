//! Plugins that come from others: what a lock lets be opened, who else can change it, and packages.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
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
    insta::assert_snapshot!(project.shows(&["lock", "--plugins", "plugins"]), @"");
    assert!(project.is_admitted());
    let text = std::fs::read_to_string(project.path("plugins.lock")).expect("the lock");
    let mut lock: toml::Table = text.parse().expect("TOML");
    let library = lock["library"][0].as_table_mut().expect("a table");
    assert_eq!(library["kinds"].to_string(), r#"["norm-limit 1.0.0"]"#);
    // What is locked for another target stays.
    library["target"] = "sparc-solaris".into();
    library["sha256"] = "0".repeat(64).into();
    std::fs::write(project.path("plugins.lock"), lock.to_string()).expect("the lock can be written");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @"");
    insta::assert_snapshot!(project.shows(&["lock", "--plugins", "plugins"]), @"");
    assert!(project.is_admitted());
}

#[test]
fn nothing_of_a_library_that_is_not_locked_runs() {
    let project = Project::locked();
    let mark = project.path("mark");
    let library = leaves_a_file(&project, &mark);
    // In the place of the one that is locked, and beside it: neither by the cache nor by opening.
    project.copy(&library, "plugins/libnorm_limit.so");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @"");
    assert!(!mark.exists());
    project.succeeds(&["list", "--plugins", "plugins"]);
    assert!(mark.exists());
    std::fs::remove_file(&mark).expect("the file can be removed");
    assert!(!project.is_admitted() && !mark.exists());
    project.copy(&build_c_plugins()["norm_limit"], "plugins/libnorm_limit.so");
    assert!(project.is_admitted());
    project.copy(&library, "plugins/libnorm_limt.so");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @"");
    assert!(!mark.exists());
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked", "--lock", "other.lock"]), @"");
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
    insta::assert_snapshot!(run(|_| {}, &[], "locked = true").shown(), @"");
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
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @"");
    insta::assert_snapshot!(project.shows(&["package", "plugins/libplugin.so"]), @"");
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
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins"]), @"");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @"");
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
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins"]), @"");
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
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins", "--locked"]), @"");
    insta::assert_snapshot!(project.shows(&["list", "--plugins", "plugins/libpipe.so"]), @"");
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
    insta::assert_snapshot!(project.shows(&["package", "libnorm_limit.so", "--out", "out"]), @"");
    let package = format!("out/{file}");
    insta::assert_snapshot!(project.shows(&["add", &package]), @"");
    assert!(project.is_admitted());
    insta::assert_snapshot!(project.shows(&["add", &package]), @"");
    insta::assert_snapshot!(project.shows(&["add", "norm-limit"]), @"");
    insta::assert_snapshot!(project.shows(&["add", &package, "--require-signed"]), @"");
    insta::assert_snapshot!(project.shows(&["remove", "norm-limits"]), @"");
    insta::assert_snapshot!(project.shows(&["remove", "norm-limit"]), @"");
    assert!(!project.path("plugins/libnorm_limit.so").exists());
    std::fs::write(project.path("no.tar.zst"), "text").expect("a file can be written");
    insta::assert_snapshot!(project.shows(&["add", "no.tar.zst"]), @"");
    insta::assert_snapshot!(project.shows(&["add", "http://example.org/x.tar.zst"]), @"");
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
    insta::assert_snapshot!(project.shows(&["add", &package, "--require-signed"]), @"");
    std::fs::create_dir_all(project.path("config/host/keys")).expect("a folder can be made");
    let key = pair.pk.to_box().expect("a key").to_string();
    std::fs::write(project.path("config/host/keys/team.pub"), key).expect("a file can be written");
    insta::assert_snapshot!(project.shows(&["add", &package, "--require-signed"]), @"");
    let lock = std::fs::read_to_string(project.path("plugins.lock")).expect("the lock");
    assert!(lock.contains("signed_by = \"team\""), "{lock}");
    let mut bytes = std::fs::read(project.path(&package)).expect("the package");
    bytes.push(0);
    std::fs::write(project.path(&package), bytes).expect("a file can be written");
    insta::assert_snapshot!(project.shows(&["add", &package]), @"");
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
    insta::assert_snapshot!(project.shows(&["index", "out"]), @"");
    let server = Server::of(&project.path("out"));
    let address = server.address.as_str();
    for (index, folder) in [("out", "by-path"), (address, "by-address")] {
        let arguments =
            ["add", "norm-limit", "--index", index, "--plugins", folder, "--lock", &format!("{folder}.lock")];
        project.succeeds(&arguments);
        assert!(project.path(&format!("{folder}/libnorm_limit.so")).exists());
    }
    project.succeeds(&["add", &format!("{address}/{file}")]);
    insta::assert_snapshot!(project.shows(&["update", "--index", address]), @"");
    let missing = project.shows(&["add", "norm-limits", "--index", address]);
    insta::assert_snapshot!(missing.replace(address, "[SERVER]"), @"");
    std::fs::write(project.path("out/elsewhere.tar.zst"), "").expect("a file can be written");
    let elsewhere = project.shows(&["add", &format!("{address}/elsewhere.tar.zst")]);
    insta::assert_snapshot!(elsewhere.replace(address, "[SERVER]"), @"");
    // Another file in the place of the one that is indexed.
    std::fs::write(project.path("out").join(&file), "another").expect("a file can be written");
    let another = project.shows(&["add", "norm-limit", "--index", address]);
    insta::assert_snapshot!(another.replace(address, "[SERVER]"), @"");
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
    insta::assert_snapshot!(shown(&check("recorder", &["--badge"]), &[]), @"");
}
