//! Reads packages: each is a stranger's, and may be anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use super::{
    FORMAT, LARGEST, LONGEST_MANIFEST, MANIFEST, MOST_FILES, Manifest, PackageError, SUMS, fits_this_host, is_plain,
    is_text,
};
use crate::checksum::{Checksum, Hasher};
use crate::inspect::{inspect, this_target};

/// The most memory for what was read last, as a power of two: 64 MiB, eight times what is needed for what we write.
const LOG_OF_WINDOW: u32 = 26;

/// How Zstandard's files begin. Source: RFC 8878, 3.1.1.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// What was unpacked into a folder, and fits what it says of itself.
#[derive(Debug)]
pub struct Unpacked {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The SHA-256 of the library, and its length in bytes.
    pub library: (Checksum, u64),
    /// The texts for people.
    pub texts: Vec<String>,
}

/// Unpacks the package in `file` into `folder`, an empty one, and checks it; `package` names it in errors.
///
/// # Errors
///
/// Whatever is wrong with it; `folder` then has a part of it.
pub fn unpack(package: &str, file: &File, folder: &Path) -> Result<Unpacked, PackageError> {
    let mut found = BTreeMap::new();
    entries(package, file, &mut |name, content| {
        let path = folder.join(name);
        let unwritable = |source| PackageError::Unwritable { path: path.clone(), source };
        let mut out = File::create_new(&path).map_err(unwritable)?;
        let mut hasher = Hasher::default();
        copy(package, content, &mut |bytes| {
            hasher.update(bytes);
            out.write_all(bytes).map_err(unwritable)
        })?;
        out.sync_all().map_err(unwritable)?;
        found.insert(name.to_owned(), hasher.finish());
        Ok(true)
    })?;
    check(package, found, folder)
}

/// What the package at `path` says of itself; the rest of it is not read.
///
/// # Errors
///
/// When it is none.
pub fn read_manifest(path: &Path) -> Result<Manifest, PackageError> {
    let package = path.display().to_string();
    let unreadable = |source| PackageError::Unreadable { path: path.to_owned(), source };
    let file = crate::regular_file::open(path, LARGEST).map_err(|error| unreadable(error.into()))?;
    let mut found = None;
    entries(&package, &file, &mut |name, content| {
        if name != MANIFEST {
            return Ok(true);
        }
        let mut bytes = Vec::new();
        copy(&package, &mut content.take(LONGEST_MANIFEST + 1), &mut |read| {
            bytes.extend_from_slice(read);
            Ok(())
        })?;
        found = Some(bytes);
        Ok(false)
    })?;
    let bytes = found.ok_or_else(|| not_a_package(&package, format!("it has no `{MANIFEST}`")))?;
    manifest(&package, &bytes)
}

/// Calls `each` with every file of the archive, until it says that that is enough.
fn entries(
    package: &str,
    file: &File,
    each: &mut dyn FnMut(&str, &mut dyn Read) -> Result<bool, PackageError>,
) -> Result<(), PackageError> {
    let forbidden = |detail: String| PackageError::Forbidden { package: package.to_owned(), detail };
    let cannot = |error: io::Error| cannot_read(package, &error);
    let mut source = BufReader::new(file);
    if !source.fill_buf().map_err(cannot)?.starts_with(&MAGIC) {
        return Err(not_a_package(package, "it is not compressed by Zstandard".to_owned()));
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(cannot)?;
    decoder.window_log_max(LOG_OF_WINDOW).map_err(cannot)?;
    let mut archive = tar::Archive::new(Limited { source: decoder, left: LARGEST });
    let mut names: Vec<String> = Vec::new();
    // Raw: no header is believed that changes the next one, nor read into memory.
    for entry in archive.entries().map_err(cannot)?.raw(true) {
        let mut entry = entry.map_err(cannot)?;
        let path = entry.path_bytes();
        let shown = String::from_utf8_lossy(&path).escape_debug().to_string();
        match entry.header().entry_type() {
            tar::EntryType::Regular => {}
            tar::EntryType::Link | tar::EntryType::Symlink => {
                return Err(forbidden(format!("`{shown}` is a link")));
            }
            tar::EntryType::Directory => return Err(forbidden(format!("`{shown}` is a folder"))),
            _ => return Err(forbidden(format!("`{shown}` is not a file"))),
        }
        let Some(name) = std::str::from_utf8(&path).ok().filter(|name| is_plain(name)).map(str::to_owned) else {
            return Err(forbidden(format!("`{shown}` is not a plain name of a file")));
        };
        // Where letters are not told apart by case, they are one file.
        if names.iter().any(|other| other.eq_ignore_ascii_case(&name)) {
            return Err(forbidden(format!("`{name}` is in it twice")));
        }
        if names.len() == MOST_FILES {
            return Err(forbidden(format!("it has more than {MOST_FILES} files")));
        }
        if entry.size() > LARGEST {
            return Err(PackageError::TooLarge { package: package.to_owned() });
        }
        if !each(&name, &mut entry)? {
            return Ok(());
        }
        names.push(name);
    }
    // What comes after the end is not ours; the checksum of the compression is at its end.
    let mut rest = archive.into_inner();
    copy(package, &mut rest, &mut |bytes| match bytes.iter().all(|byte| *byte == 0) {
        true => Ok(()),
        false => Err(forbidden("there is something after its end".to_owned())),
    })
}

fn check(package: &str, mut found: BTreeMap<String, (Checksum, u64)>, folder: &Path) -> Result<Unpacked, PackageError> {
    let read = |name: &str| {
        let path = folder.join(name);
        crate::regular_file::read(&path, LONGEST_MANIFEST)
            .map_err(|error| not_a_package(package, format!("`{name}`: {error}")))
    };
    for name in [MANIFEST, SUMS] {
        if !found.contains_key(name) {
            return Err(not_a_package(package, format!("it has no `{name}`")));
        }
    }
    let manifest = manifest(package, &read(MANIFEST)?)?;
    let sums = String::from_utf8(read(SUMS)?).map_err(|_| not_a_package(package, format!("`{SUMS}` is not UTF-8")))?;
    let mut summed = BTreeMap::new();
    for line in sums.lines() {
        let read = line.split_once("  ").and_then(|(sum, name)| Some((name, sum.parse::<Checksum>().ok()?)));
        let Some((name, sum)) = read else {
            return Err(not_a_package(package, format!("`{SUMS}` has the line `{}`", line.escape_debug())));
        };
        summed.insert(name, sum);
    }
    found.remove(SUMS);
    for (name, (sum, _)) in &found {
        match summed.remove(name.as_str()) {
            Some(expected) if expected == *sum => {}
            Some(_) => return Err(PackageError::Checksum { package: package.to_owned(), what: format!("`{name}`") }),
            None => return Err(not_a_package(package, format!("`{SUMS}` does not have `{name}`"))),
        }
    }
    if let Some(missing) = summed.keys().next() {
        return Err(not_a_package(package, format!("it has no `{}`", missing.escape_debug())));
    }
    found.remove(MANIFEST);
    let library = found
        .remove(&manifest.library)
        .ok_or_else(|| not_a_package(package, format!("it has no `{}`", manifest.library)))?;
    if let Some(other) = found.keys().find(|name| !is_text(name)) {
        let detail = format!("`{other}` is neither its library nor a text such as `README.md` or `LICENSE`");
        return Err(PackageError::Forbidden { package: package.to_owned(), detail });
    }
    let this = this_target();
    if manifest.target != this {
        return Err(PackageError::Target { package: package.to_owned(), expected: this, found: manifest.target });
    }
    if !fits_this_host(&manifest.abi) {
        let expected = format!("{}.{}", plugin_api::abi::MAJOR, plugin_api::abi::MINOR);
        return Err(PackageError::Abi { package: package.to_owned(), expected, found: manifest.abi });
    }
    inspect_library(package, folder, &manifest.library)?;
    Ok(Unpacked { manifest, library, texts: found.into_keys().collect() })
}

fn manifest(package: &str, bytes: &[u8]) -> Result<Manifest, PackageError> {
    #[derive(serde::Deserialize)]
    struct Formatted {
        format: u32,
    }
    if bytes.len() as u64 > LONGEST_MANIFEST {
        return Err(not_a_package(package, format!("`{MANIFEST}` is longer than {LONGEST_MANIFEST} bytes")));
    }
    let wrong = |error: serde_json::Error| not_a_package(package, format!("`{MANIFEST}`: {error}"));
    let Formatted { format } = serde_json::from_slice(bytes).map_err(wrong)?;
    if format != FORMAT {
        return Err(not_a_package(package, format!("its format is {format}, this host knows {FORMAT}")));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(wrong)?;
    manifest.check().map_err(|detail| not_a_package(package, format!("`{MANIFEST}`: {detail}")))?;
    Ok(manifest)
}

/// Refuses a library that a host would not open. It is looked at where it lies: only what is looked at is in memory.
fn inspect_library(package: &str, folder: &Path, library: &str) -> Result<(), PackageError> {
    let path = folder.join(library);
    let extension = Path::new(library).extension().unwrap_or_default();
    if extension != std::env::consts::DLL_EXTENSION {
        let detail = format!("`{library}` does not end with `.{}`", std::env::consts::DLL_EXTENSION);
        return Err(PackageError::Library { package: package.to_owned(), detail, hint: None });
    }
    let unreadable = |source| PackageError::Unreadable { path: path.clone(), source };
    let file = File::open(&path).map_err(unreadable)?;
    // SAFETY: the file is in a folder that this process has made only for itself.
    let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(unreadable)?;
    match inspect(Path::new(library), &bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(PackageError::library(package, &error)),
    }
}

/// Passes everything of `source` on, a piece at a time.
fn copy(
    package: &str,
    source: &mut dyn Read,
    to: &mut dyn FnMut(&[u8]) -> Result<(), PackageError>,
) -> Result<(), PackageError> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot_read(package, &error)),
        }
    }
}

fn not_a_package(package: &str, detail: String) -> PackageError {
    PackageError::NotAPackage { package: package.to_owned(), detail }
}

fn cannot_read(package: &str, error: &io::Error) -> PackageError {
    if error.get_ref().is_some_and(|inner| inner.is::<PastLimit>()) {
        PackageError::TooLarge { package: package.to_owned() }
    } else {
        not_a_package(package, error.to_string())
    }
}

/// A source of which only so much is read, whatever the headers in it say.
struct Limited<R> {
    source: R,
    left: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("it is longer than a package may be")]
struct PastLimit;

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(PastLimit))?;
        Ok(read)
    }
}
