//! Packages from their making to their removal, and what is none.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use host_command::report::Report;
use proptest::prelude::*;
use tempfile::TempDir;

use super::write::pack;
use super::*;
use crate::checksum::Checksum;
use crate::inspect::this_target;
use crate::lock::{Admission, Lock};

/// A library that a host would open, which says `text` somewhere.
fn library(text: &str) -> Vec<u8> {
    static COMPILED: OnceLock<Vec<u8>> = OnceLock::new();
    const MARK: &str = "what-is-replaced";
    let compiled = COMPILED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = format!("const char mark[] = \"{MARK}\"; void *host_plugin_entry(void) {{ return 0; }}");
        std::fs::write(folder.path().join("source.c"), source).unwrap();
        let mut compiler = std::process::Command::new("cc");
        compiler.current_dir(&folder).args(["-shared", "-fPIC", "-s", "-o", "library", "source.c"]);
        assert!(compiler.status().unwrap().success());
        std::fs::read(folder.path().join("library")).unwrap()
    });
    let mut bytes = compiled.clone();
    let at = memchr::memmem::find(&bytes, MARK.as_bytes()).unwrap();
    bytes[at..at + text.len()].copy_from_slice(text.as_bytes());
    bytes
}

fn file(name: &str) -> String {
    format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX)
}

fn kind(name: &str, version: &str) -> Descriptor {
    serde_json::from_value(serde_json::json!({"kind": name, "version": version, "license": "MIT"})).unwrap()
}

/// A place to work in: `out` for packages, `plugins`, `plugins.lock`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Packs a library with one kind.
    fn package(&self, name: &str, version: &str) -> Written {
        let path = self.path(&file(name));
        std::fs::write(&path, library(version)).unwrap();
        let texts = [Text { name: "README.md".to_owned(), content: b"# Read me".to_vec() }];
        write(&path, &[kind(name, version)], "a compiler", None, &texts, &self.path("out")).unwrap()
    }

    fn folder(&self) -> Folder {
        Folder::open(&self.path("plugins"), &self.path("plugins.lock")).unwrap()
    }

    fn how(&self) -> How {
        let keys = Keys::in_folder(&self.path("keys"));
        How { index: None, keys, require_signed: false, downgrade: false }
    }

    fn add(&self, package: &Path) -> Result<Added, PackageError> {
        self.folder().add(package.to_str().unwrap(), &self.how())
    }

    fn lock(&self) -> Lock {
        Lock::read_or_empty(&self.path("plugins.lock")).unwrap()
    }

    /// What is in the plugins folder, folders included, by path.
    fn contents(&self) -> Vec<String> {
        fn collect(folder: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in folder.read_dir().into_iter().flatten() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(root).unwrap().display().to_string());
                collect(&path, root, found);
            }
        }
        let mut found = Vec::new();
        collect(&self.path("plugins"), &self.path("plugins"), &mut found);
        found.sort();
        found
    }

    /// Whether the lock lets what is in the folder be opened.
    fn admits(&self, name: &str) -> bool {
        let files = [self.path("plugins").join(file(name))];
        Admission::check(&self.lock(), &self.path("plugins.lock"), &files).is_ok()
    }
}

#[test]
fn the_same_files_give_the_same_bytes() {
    let (one, other) = (Place::new(), Place::new());
    let (first, second) = (one.package("alarm", "1.0.0"), other.package("alarm", "1.0.0"));
    assert_eq!(first.sha256, second.sha256);
    assert_eq!(first.path.file_name().unwrap().to_str().unwrap(), format!("alarm-1.0.0-{}.tar.zst", this_target()));
    assert_eq!(read_manifest(&first.path).unwrap().kinds[0].license, "MIT");
    let bytes = std::fs::read(&first.path).unwrap();
    assert_eq!((first.size, first.sha256), (bytes.len() as u64, Checksum::of(&bytes)));
}

#[test]
fn what_the_tools_of_the_system_say_of_a_package() {
    let place = Place::new();
    let written = place.package("alarm", "1.0.0");
    let run = |command: &str| {
        let mut shell = std::process::Command::new("sh");
        let output =
            shell.current_dir(place.path("")).args(["-ec", command, "sh"]).arg(&written.path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    if run("command -v tar zstd sha256sum").lines().count() < 3 {
        return;
    }
    let told = run("mkdir there && zstd -dc \"$1\" | tar -xf - -C there && cd there && sha256sum --check SHA256SUMS");
    assert_eq!(told, format!("package.json: OK\nREADME.md: OK\n{}: OK\n", file("alarm")));
}

#[test]
fn a_package_is_added_replaced_and_removed() {
    let place = Place::new();
    let (old, new) = (place.package("alarm", "1.0.0"), place.package("alarm", "1.1.0"));
    let added = place.add(&old.path).unwrap();
    assert_eq!((added.change, added.signed), (Change::New, Signed::Not));
    let expected = [
        file("alarm"),
        "packages".to_owned(),
        "packages/alarm".to_owned(),
        "packages/alarm/README.md".to_owned(),
        "packages/alarm/SHA256SUMS".to_owned(),
        "packages/alarm/package.json".to_owned(),
    ];
    assert_eq!(place.contents(), expected);
    assert_eq!(place.add(&old.path).unwrap().change, Change::None);
    let is_text = place.lock();
    let [locked] = is_text.libraries() else { panic!("{is_text:?}") };
    assert_eq!((locked.kinds[0].to_string().as_str(), locked.sha256), ("alarm 1.0.0", Checksum::of(&library("1.0.0"))));
    assert!(place.admits("alarm"));
    assert_eq!(place.add(&new.path).unwrap().change, Change::Replaced("1.0.0".parse().unwrap()));
    assert_eq!(std::fs::read(place.path("plugins").join(file("alarm"))).unwrap(), library("1.1.0"));
    let refused = place.add(&old.path).unwrap_err();
    assert!(matches!(refused, PackageError::Older { .. }), "{refused}");
    let downgrade = How { downgrade: true, ..place.how() };
    let back = place.folder().add(old.path.to_str().unwrap(), &downgrade).unwrap();
    assert_eq!(back.change, Change::Replaced("1.1.0".parse().unwrap()));
    assert!(place.admits("alarm") && place.contents() == expected);
    let refused = place.folder().remove("alram").unwrap_err();
    assert!(refused.hint().unwrap().contains("did you mean `alarm`"), "{:?}", refused.hint());
    assert_eq!(place.folder().remove("alarm").unwrap().locked.file, file("alarm"));
    assert_eq!((place.contents(), place.lock()), (Vec::new(), Lock::default()));
}

#[test]
fn other_libraries_are_left_alone() {
    let place = Place::new();
    let package = place.package("alarm", "1.0.0");
    std::fs::create_dir(place.path("plugins")).unwrap();
    std::fs::write(place.path("plugins").join(file("alarm")), "mine").unwrap();
    let refused = place.add(&package.path).unwrap_err();
    assert!(matches!(refused, PackageError::InTheWay { .. }), "{refused}");
    std::fs::remove_file(place.path("plugins").join(file("alarm"))).unwrap();
    place.add(&package.path).unwrap();
    let other = place.path(&file("other"));
    std::fs::write(&other, library("other")).unwrap();
    let rivals = write(&other, &[kind("alarm", "1.0.0")], "", Some("rival"), &[], &place.path("out")).unwrap();
    let refused = place.add(&rivals.path).unwrap_err();
    assert!(matches!(refused, PackageError::KindTaken { .. }), "{refused}");
    let renamed = write(&other, &[kind("alarm", "2.0.0")], "", None, &[], &place.path("out")).unwrap();
    let refused = place.add(&renamed.path).unwrap_err();
    assert!(matches!(refused, PackageError::Renamed { .. }), "{refused}");
    // Two commands at once.
    let held = place.folder();
    let refused = Folder::open(&place.path("plugins"), &place.path("plugins.lock")).err().unwrap();
    assert!(matches!(refused, PackageError::Busy { .. }), "{refused}");
    drop(held);
}

#[test]
fn whenever_it_is_interrupted_what_is_there_may_be_opened() {
    let place = Place::new();
    let (old, new) = (place.package("alarm", "1.0.0"), place.package("alarm", "1.1.0"));
    place.add(&old.path).unwrap();
    let before = place.lock();
    let library_file = place.path("plugins").join(file("alarm"));
    // The end of a process after the lock knows both, then after the library is in its place.
    let mut both = before.clone();
    let mut entry = before.libraries()[0].clone();
    entry.sha256 = Checksum::of(&library("1.1.0"));
    entry.kinds[0].version = "1.1.0".to_owned();
    entry.package.as_mut().unwrap().version = "1.1.0".to_owned();
    both.add(entry.clone());
    both.write(&place.path("plugins.lock")).unwrap();
    std::fs::create_dir_all(place.path("plugins/.host-add-x/files")).unwrap();
    assert!(place.admits("alarm"));
    drop(place.folder());
    assert_eq!(place.lock(), before);
    assert!(!place.path("plugins/.host-add-x").exists());
    both.write(&place.path("plugins.lock")).unwrap();
    std::fs::write(&library_file, library("1.1.0")).unwrap();
    assert!(place.admits("alarm"));
    assert_eq!(place.add(&new.path).unwrap().change, Change::None);
    assert_eq!(place.lock().libraries(), [entry]);
    // After the library of a removed package is gone.
    std::fs::remove_file(&library_file).unwrap();
    place.folder().remove("alarm").unwrap();
    assert_eq!((place.contents(), place.lock()), (Vec::new(), Lock::default()));
}

#[test]
fn only_signed_packages_are_taken_where_that_is_required() {
    let place = Place::new();
    let package = place.package("alarm", "1.0.0");
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let strict = How { require_signed: true, ..place.how() };
    let add = || place.folder().add(package.path.to_str().unwrap(), &strict);
    assert!(matches!(add().unwrap_err(), PackageError::Unsigned { .. }));
    let signature = minisign::sign(None, &pair.sk, File::open(&package.path).unwrap(), None, None).unwrap();
    let mut beside = package.path.clone().into_os_string();
    beside.push(".minisig");
    std::fs::write(&beside, signature.to_string()).unwrap();
    assert!(matches!(add().unwrap_err(), PackageError::UnknownKey { .. }));
    assert_eq!(place.contents(), Vec::<String>::new());
    std::fs::create_dir(place.path("keys")).unwrap();
    std::fs::write(place.path("keys/team.pub"), pair.pk.to_box().unwrap().to_string()).unwrap();
    assert_eq!(add().unwrap().signed, Signed::By("team".to_owned()));
    let locked = place.lock().libraries()[0].clone();
    assert_eq!(locked.package.unwrap().signed_by.as_deref(), Some("team"));
}

#[test]
fn an_index_gives_the_newest_release_that_fits() {
    let place = Place::new();
    for version in ["1.0.0", "1.2.0", "1.10.0", "2.0.0-beta"] {
        place.package("alarm", version);
    }
    let names = write_index(&place.path("out")).unwrap();
    assert_eq!(names, ["alarm"]);
    let index = Index::parse(place.path("out").to_str().unwrap()).unwrap();
    assert_eq!(index.find("alarm", None).unwrap().0.version.to_string(), "1.10.0");
    let beta = "2.0.0-beta".parse().unwrap();
    assert_eq!(index.find("alarm", Some(&beta)).unwrap().0.version, beta);
    let refused = index.find("alrm", None).unwrap_err();
    assert_eq!(refused.hint().as_deref(), Some("did you mean `alarm`?"));
    let refused = index.find("alarm", Some(&"3.0.0".parse().unwrap())).unwrap_err();
    assert!(refused.hint().unwrap().contains("1.2.0 for"), "{:?}", refused.hint());
    for name in ["../alarm", "/etc/passwd", "", "A"] {
        assert!(
            matches!(index.find(name, None).unwrap_err(), PackageError::NotInIndex { .. }),
            "`{name}` was looked for"
        );
    }
    let how = How { index: Some(index), ..place.how() };
    assert_eq!(place.folder().add("alarm@1.0.0", &how).unwrap().manifest.version.to_string(), "1.0.0");
    assert_eq!(place.folder().add("alarm", &how).unwrap().change, Change::Replaced("1.0.0".parse().unwrap()));
    // Another package in the place of the one that the index has.
    let package = place.package("alarm", "1.10.0").path;
    std::fs::copy(place.package("alarm", "1.2.0").path, &package).unwrap();
    assert!(matches!(place.folder().add("alarm", &how).unwrap_err(), PackageError::Checksum { .. }));
    assert!(matches!(place.folder().add("alarm", &place.how()).unwrap_err(), PackageError::NoIndex { .. }));
}

/// The entry of an archive that `tar` itself would not write.
fn entry(name: &[u8], kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    header
}

fn archive(entries: &[(tar::Header, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap());
    for (header, content) in entries {
        archive.append(header, *content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// What is wrong with a package of these bytes; nothing is left behind.
fn refused(bytes: &[u8]) -> PackageError {
    let place = Place::new();
    let path = place.path("x.tar.zst");
    std::fs::write(&path, bytes).unwrap();
    let error = place.add(&path).unwrap_err();
    assert_eq!((place.contents(), place.lock()), (Vec::new(), Lock::default()));
    error
}

#[test]
fn archives_with_anything_but_plain_files_are_refused() {
    use tar::EntryType;

    for name in
        [&b"/etc/x"[..], b"../x", b"a/x", b"a\\x", b"..", b".", b".hidden", b"", b"\xff", b"a b", b"a\nb", b"a:b"]
    {
        let error = refused(&archive(&[(entry(name, EntryType::Regular, 0), b"")]));
        assert!(matches!(error, PackageError::Forbidden { .. }), "{name:?}: {error}");
    }
    for kind in [
        EntryType::Link,
        EntryType::Symlink,
        EntryType::Directory,
        EntryType::Fifo,
        EntryType::Char,
        EntryType::Block,
        EntryType::GNUSparse,
        EntryType::GNULongName,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::Continuous,
    ] {
        let error = refused(&archive(&[(entry(b"x", kind, 0), b"")]));
        assert!(matches!(error, PackageError::Forbidden { .. }), "{kind:?}: {error}");
    }
    let plain = |name: &[u8]| (entry(name, EntryType::Regular, 1), &b"x"[..]);
    for twice in [[plain(b"a"), plain(b"a")], [plain(b"a"), plain(b"A")]] {
        let error = refused(&archive(&twice));
        assert!(matches!(error, PackageError::Forbidden { .. }), "{error}");
    }
    let names: Vec<String> = (0..=MOST_FILES).map(|number| format!("README{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| plain(name.as_bytes())).collect();
    assert!(matches!(refused(&archive(&many)), PackageError::Forbidden { .. }));
    let error = refused(&archive(&[(entry(b"x", EntryType::Regular, LARGEST + 1), b"")]));
    assert!(matches!(error, PackageError::TooLarge { .. }), "{error}");
    for bytes in [&b""[..], b"text", b"\x28\xb5\x2f\xfd"] {
        assert!(matches!(refused(bytes), PackageError::NotAPackage { .. }));
    }
}

/// A package with a changed manifest.
fn with_manifest(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let library = library("x");
    let file = file("x");
    let mut manifest = serde_json::json!({
        "format": 1, "name": "x", "version": "1.0.0", "target": this_target(), "abi": "1.0", "library": file,
        "kinds": [kind("x", "1.0.0")],
    });
    change(&mut manifest);
    let text = b"what they may read";
    pack(&serde_json::to_vec(&manifest).unwrap(), vec![(&file, &library), ("README", text)]).unwrap()
}

/// A package that is one.
fn whole() -> Vec<u8> {
    static PACKED: OnceLock<Vec<u8>> = OnceLock::new();
    PACKED.get_or_init(|| with_manifest(|_| {})).clone()
}

#[test]
fn a_manifest_is_held_to_the_host_and_to_the_files() {
    use serde_json::json;

    let set = |key: &'static str, value: serde_json::Value| refused(&with_manifest(|manifest| manifest[key] = value));
    assert!(matches!(set("target", json!("sparc-solaris")), PackageError::Target { .. }));
    assert!(matches!(set("abi", json!("1.99")), PackageError::Abi { .. }));
    assert!(matches!(set("abi", json!("2.0")), PackageError::Abi { .. }));
    for (key, value) in [
        ("format", json!(2)),
        ("name", json!("../x")),
        ("version", json!("new")),
        ("abi", json!("one")),
        ("target", json!("../x")),
        ("library", json!("libother.so")),
        ("library", json!("../../libx.so")),
        ("library", json!("README.so")),
        ("kinds", json!([])),
        ("kinds", json!([{"kind": "X"}])),
        ("kinds", json!([{"kind": "x"}, {"kind": "x"}])),
    ] {
        let error = set(key, value.clone());
        assert!(matches!(error, PackageError::NotAPackage { .. }), "{key} = {value}: {error}");
    }
    let file = file("x");
    let pack_with = |library: &[u8], other: &str| {
        let manifest = serde_json::to_vec(&json!({
            "format": 1, "name": "x", "version": "1.0.0", "target": this_target(), "abi": "1.0", "library": file,
            "kinds": [kind("x", "1.0.0")],
        }));
        pack(&manifest.unwrap(), vec![(&file, library), (other, b"other")]).unwrap()
    };
    assert!(matches!(refused(&pack_with(&library("x"), "libother.so")), PackageError::Forbidden { .. }));
    assert!(matches!(refused(&pack_with(b"no library", "README")), PackageError::Library { .. }));
    assert!(matches!(refused(&pack_with(&library("x")[..2000], "README")), PackageError::Library { .. }));
}

#[test]
fn a_changed_file_does_not_fit_the_checksums() {
    let unpacked = zstd::stream::decode_all(&whole()[..]).unwrap();
    let at = memchr::memmem::find(&unpacked, b"what they may read").unwrap();
    let mut changed = unpacked.clone();
    changed[at..at + 4].copy_from_slice(b"WHAT");
    let error = refused(&zstd::stream::encode_all(&changed[..], 1).unwrap());
    assert_eq!(error.to_string().split(": ").last(), Some("the SHA-256 of `README` is another one"));
    let mut longer = unpacked;
    longer.extend(b"something after the end");
    let error = refused(&zstd::stream::encode_all(&longer[..], 1).unwrap());
    assert!(matches!(error, PackageError::Forbidden { .. }), "{error}");
}

#[test]
fn what_unpacks_to_too_much_is_read_no_further() {
    use std::io::Read;

    let mut archive = tar::Builder::new(zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap());
    let half = LARGEST / 2 + 1;
    for name in [b"README1", b"README2"] {
        archive.append(&entry(name, tar::EntryType::Regular, half), std::io::repeat(0).take(half)).unwrap();
    }
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    assert!(bytes.len() < 1 << 20);
    let place = Place::new();
    std::fs::write(place.path("x"), bytes).unwrap();
    let error = read_manifest(&place.path("x")).unwrap_err();
    assert!(matches!(error, PackageError::TooLarge { .. }), "{error}");
}

/// Unpacks bytes, as `add` does.
fn unpacked(bytes: &[u8]) -> Result<(Unpacked, Vec<u8>), PackageError> {
    let place = Place::new();
    std::fs::write(place.path("x"), bytes).unwrap();
    std::fs::create_dir(place.path("files")).unwrap();
    let unpacked = unpack("x", &File::open(place.path("x")).unwrap(), &place.path("files"))?;
    let library = std::fs::read(place.path("files").join(&unpacked.manifest.library)).unwrap();
    Ok((unpacked, library))
}

#[test]
fn a_whole_package_is_unpacked() {
    let (found, content) = unpacked(&whole()).unwrap();
    assert_eq!(
        (found.manifest.file_name(), found.texts),
        (format!("x-1.0.0-{}.tar.zst", this_target()), vec!["README".to_owned()])
    );
    assert_eq!(content, library("x"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_are_a_package_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600), is_packed: bool) {
        let bytes = if is_packed { zstd::stream::encode_all(&bytes[..], 1).unwrap() } else { bytes };
        prop_assert!(unpacked(&bytes).is_err());
    }

    #[test]
    fn a_changed_package_is_refused_or_the_same(at in any::<proptest::sample::Index>(), byte: u8, inside: bool) {
        let whole = whole();
        let mut bytes = if inside { zstd::stream::decode_all(&whole[..]).unwrap() } else { whole };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let bytes = if inside { zstd::stream::encode_all(&bytes[..], 1).unwrap() } else { bytes };
        if let Ok((found, content)) = unpacked(&bytes) {
            prop_assert_eq!(found.manifest.name, "x");
            prop_assert_eq!(found.library.0, Checksum::of(&library("x")));
            prop_assert_eq!(content, library("x"));
        }
    }

    #[test]
    fn a_changed_library_is_looked_at_without_harm(changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8), length in any::<proptest::sample::Index>()) {
        let mut bytes = library("x");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = bytes.len();
        for bytes in [&bytes[..], &bytes[..length.index(whole)]] {
            let _ = crate::inspect::inspect(Path::new("x"), bytes);
            let _ = crate::neighbors::of(Path::new("/nowhere/x"), bytes);
        }
    }

    #[test]
    fn a_package_that_is_cut_is_refused(length in any::<proptest::sample::Index>()) {
        let whole = whole();
        prop_assert!(unpacked(&whole[..length.index(whole.len())]).is_err());
    }
}
