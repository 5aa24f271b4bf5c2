//! What libraries said of themselves when they were opened last, so that a run opens only those that it uses: to open one is to
//! read it whole, and the exporters' are tens of megabytes.
//!
//! A file of the user's cache for each library. Its content is believed only of a file that is still the same: by its identity
//! or, where that is another, by its hash. Whatever is wrong with the cache, the library is opened.

use std::fs::Metadata;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use plugin_api::abi;
use plugin_api::protocol::Descriptor;
use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::regular_file::{self, LARGEST};

/// The environment variable that names the folder of the cache; if it is empty, nothing is kept.
const VARIABLE: &str = "HOST_CACHE";

/// The most libraries that are cached; the ones that were longest not opened are dropped.
const MOST: usize = 200;

/// What a library says of itself.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Description {
    pub(super) descriptors: Vec<Descriptor>,
    /// What built it.
    pub(super) build: String,
}

/// The content of a file of the cache.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// The version of the host, and of its ABI: another one may refuse what this one takes.
    host: String,
    path: PathBuf,
    identity: Identity,
    hash: String,
    #[serde(flatten)]
    description: Description,
}

/// What tells a file from any other, and from itself after a change, without reading it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    length: u64,
    /// Nanoseconds since 1970, as text: JSON's numbers are shorter.
    modified: String,
    /// The device, the number in it, and the last change of content or owner, which nobody can set.
    #[serde(default)]
    place: String,
}

impl Identity {
    fn of(metadata: &Metadata) -> Option<Identity> {
        let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt;
            format!("{} {} {}.{}", metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
        };
        #[cfg(not(unix))]
        let place = String::new();
        Some(Identity { length: metadata.len(), modified: modified.as_nanos().to_string(), place })
    }
}

fn this_host() -> String {
    format!("{} {}.{}", env!("CARGO_PKG_VERSION"), abi::MAJOR, abi::MINOR)
}

/// The cache.
pub(super) struct DescriptorCache {
    folder: Option<PathBuf>,
}

impl DescriptorCache {
    /// That of this user.
    pub(super) fn of_user() -> DescriptorCache {
        let folder = match std::env::var_os(VARIABLE) {
            Some(folder) => (!folder.is_empty()).then(|| PathBuf::from(folder)),
            None => user_cache().map(|folder| folder.join("host")),
        };
        DescriptorCache { folder: folder.map(|folder| folder.join("libraries")) }
    }

    /// What the library at `path` said, if its file is the same; if its content is known, it must be that one.
    pub(super) fn recall(&self, path: &Path, content: Option<&Checksum>) -> Option<Description> {
        let path = path.canonicalize().ok()?;
        let text = regular_file::read(&self.file(&path)?, LARGEST).ok()?;
        let entry: Entry = serde_json::from_slice(&text).ok()?;
        if let Some(content) = content {
            return (entry.host == this_host() && entry.hash == content.to_string()).then_some(entry.description);
        }
        let identity = Identity::of(&path.metadata().ok()?)?;
        if entry.host != this_host() || entry.path != path || entry.identity.length != identity.length {
            return None;
        }
        if entry.identity != identity {
            let (hash, _) = Checksum::of_reader(&mut regular_file::open(&path, LARGEST).ok()?).ok()?;
            if hash.to_string() != entry.hash {
                return None;
            }
            let renewed = Entry { identity, ..entry };
            self.write(&renewed);
            return Some(renewed.description);
        }
        Some(entry.description)
    }

    /// Keeps what the library at `path` said, whose file had `bytes` and, before they were read, `metadata`.
    pub(super) fn keep(&self, path: &Path, metadata: &Metadata, bytes: &[u8], description: Description) {
        let (Ok(path), Some(identity)) = (path.canonicalize(), Identity::of(metadata)) else { return };
        self.write(&Entry { host: this_host(), path, identity, hash: Checksum::of(bytes).to_string(), description });
    }

    /// As [`Self::keep`], unless the file has changed since `before`.
    pub(super) fn keep_unchanged(&self, path: &Path, before: &Metadata, bytes: &[u8], description: Description) {
        let is_same = |now: Metadata| Identity::of(&now) == Identity::of(before);
        if path.metadata().is_ok_and(is_same) {
            self.keep(path, before, bytes, description);
        }
    }

    fn write(&self, entry: &Entry) {
        let written = || -> std::io::Result<()> {
            let (Some(folder), Some(file)) = (&self.folder, self.file(&entry.path)) else { return Ok(()) };
            make_private(folder)?;
            if !file.exists() {
                drop_oldest(folder)?;
            }
            // Whole or not at all: another process may read it.
            let mut new = tempfile::NamedTempFile::new_in(folder)?;
            new.write_all(&serde_json::to_vec(entry)?)?;
            new.persist(file)?;
            Ok(())
        };
        if let Err(error) = written() {
            tracing::debug!("what a library says is not cached: {error}");
        }
    }

    /// The file about a library.
    fn file(&self, path: &Path) -> Option<PathBuf> {
        let name = Checksum::of(path.as_os_str().as_encoded_bytes()).to_string();
        Some(self.folder.as_ref()?.join(format!("{}.json", &name[..32])))
    }
}

/// The folder of this user's caches, by the system's rules.
fn user_cache() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if cfg!(windows) {
        return variable("LOCALAPPDATA");
    }
    let home = variable("HOME");
    if cfg!(target_os = "macos") {
        return home.map(|home| home.join("Library/Caches"));
    }
    variable("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")))
}

/// Makes the folder, if it is not there, so that only its owner may write: who else could would say what a library offers.
fn make_private(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

fn drop_oldest(folder: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            // One that another process has just removed has no time.
            files.extend(entry.metadata().and_then(|metadata| metadata.modified()).map(|time| (time, entry.path())));
        }
    }
    files.sort();
    for (_, path) in files.iter().take((files.len() + 1).saturating_sub(MOST)) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_in(folder: &Path) -> DescriptorCache {
        DescriptorCache { folder: Some(folder.join("cache")) }
    }

    fn keep(cache: &DescriptorCache, library: &Path) {
        let description = Description { descriptors: Vec::new(), build: "by somebody".to_owned() };
        cache.keep(library, &library.metadata().unwrap(), &std::fs::read(library).unwrap(), description);
    }

    fn recalls(cache: &DescriptorCache, library: &Path) -> bool {
        cache.recall(library, None).is_some_and(|description| description.build == "by somebody")
    }

    #[test]
    fn a_library_is_cached_until_its_content_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, library) = (cache_in(folder.path()), folder.path().join("libmine.so"));
        std::fs::write(&library, "first").unwrap();
        assert!(!recalls(&cache, &library));
        keep(&cache, &library);
        assert!(recalls(&cache, &library));
        assert!(cache.recall(&library, Some(&Checksum::of(b"first"))).is_some());
        assert!(cache.recall(&library, Some(&Checksum::of(b"other"))).is_none());
        // The same content in a new file, then other content of the same length, then nothing.
        std::fs::remove_file(&library).unwrap();
        std::fs::write(&library, "first").unwrap();
        assert!(recalls(&cache, &library) && recalls(&cache, &library));
        std::fs::write(&library, "other").unwrap();
        assert!(!recalls(&cache, &library));
        std::fs::remove_file(&library).unwrap();
        assert!(!recalls(&cache, &library));
    }

    #[test]
    fn a_damaged_entry_and_that_of_another_host_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, library) = (cache_in(folder.path()), folder.path().join("libmine.so"));
        std::fs::write(&library, "first").unwrap();
        keep(&cache, &library);
        let file = cache.file(&library.canonicalize().unwrap()).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        for damaged in [text.replace(&this_host(), "9.9.9 1.0"), text[..text.len() / 2].to_owned(), String::new()] {
            std::fs::write(&file, damaged).unwrap();
            assert!(!recalls(&cache, &library));
        }
        keep(&cache, &library);
        assert!(recalls(&cache, &library));
        let nowhere = DescriptorCache { folder: None };
        keep(&nowhere, &library);
        assert!(!recalls(&nowhere, &library));
    }

    #[test]
    fn only_so_many_libraries_are_cached() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache_in(folder.path());
        for number in 0..MOST + 5 {
            let library = folder.path().join(format!("lib{number}.so"));
            std::fs::write(&library, "first").unwrap();
            keep(&cache, &library);
        }
        assert_eq!(std::fs::read_dir(folder.path().join("cache")).unwrap().count(), MOST);
    }
}
