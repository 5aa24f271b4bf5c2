//! Makes packages.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use plugin_api::protocol::Descriptor;
use semver::Version;

use super::{FORMAT, LARGEST, MANIFEST, MOST_FILES, Manifest, PackageError, SUMS, TEXTS, is_plain, is_text};
use crate::checksum::Checksum;
use crate::inspect::this_target;
use crate::lock::abi_of;
use crate::neighbors;
use crate::regular_file;

/// How hard it is compressed: as far as a reader needs no more than 8 MiB of memory.
const LEVEL: i32 = 19;

/// The longest text for people, in bytes.
const LONGEST_TEXT: u64 = 16 << 20;

/// A text for people.
pub struct Text {
    /// The name of its file.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// A package that was written.
#[derive(Debug)]
pub struct Written {
    /// Its file.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Checksum,
    /// What it says of itself.
    pub manifest: Manifest,
}

/// The texts for people in a folder, by name: `README…`, `LICENSE…` and their like.
///
/// # Errors
///
/// A folder or a file that cannot be read.
pub fn texts_in(folder: &Path) -> Result<Vec<Text>, PackageError> {
    let unreadable = |path: &Path, source| PackageError::Unreadable { path: path.to_owned(), source };
    let mut texts = Vec::new();
    for entry in folder.read_dir().map_err(|source| unreadable(folder, source))? {
        let path = entry.map_err(|source| unreadable(folder, source))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if is_text(name) && is_plain(name) && path.is_file() {
            let content = regular_file::read(&path, LONGEST_TEXT).map_err(|error| unreadable(&path, error.into()))?;
            texts.push(Text { name: name.to_owned(), content });
        }
    }
    texts.sort_by(|one, other| one.name.cmp(&other.name));
    // Two short of the most are for the manifest and the library, one for the checksums.
    texts.truncate(MOST_FILES - 3);
    Ok(texts)
}

/// Writes a package of the library at `library`, which offers `kinds`, into the folder `out`. Without a `name` it has that of
/// its one kind, or of its file.
///
/// # Errors
///
/// A library that cannot be read or needs others beside itself; a version that cannot be compared; a folder that cannot be
/// written.
pub fn write(
    library: &Path,
    kinds: &[Descriptor],
    build: &str,
    name: Option<&str>,
    texts: &[Text],
    out: &Path,
) -> Result<Written, PackageError> {
    let unreadable = |path: PathBuf, source: io::Error| PackageError::Unreadable { path, source };
    let bytes = regular_file::read(library, LARGEST).map_err(|error| unreadable(library.to_owned(), error.into()))?;
    let beside = neighbors::of(library, &bytes).map_err(|(path, error)| unreadable(path, error.into()))?;
    if !beside.is_empty() {
        let beside = beside.iter().map(|neighbor| format!("`{}`", neighbor.file)).collect::<Vec<_>>().join(", ");
        return Err(PackageError::Beside { library: library.to_owned(), beside });
    }
    let file = library.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let manifest = Manifest {
        format: FORMAT,
        name: name.map_or_else(|| own_name(&file, kinds), str::to_owned),
        version: version(kinds)?,
        target: this_target(),
        abi: abi_of(kinds),
        build: build.to_owned(),
        library: file,
        kinds: kinds.to_vec(),
    };
    let wrong = |detail| PackageError::NotAPackage { package: library.display().to_string(), detail };
    manifest.check().map_err(wrong)?;
    let mut described = serde_json::to_vec_pretty(&manifest).map_err(|error| wrong(error.to_string()))?;
    described.push(b'\n');
    let mut files: Vec<(&str, &[u8])> = vec![(&manifest.library, &bytes)];
    files.extend(texts.iter().map(|text| (text.name.as_str(), text.content.as_slice())));
    let path = out.join(manifest.file_name());
    let unwritable = |source| PackageError::Unwritable { path: path.clone(), source };
    std::fs::create_dir_all(out).map_err(unwritable)?;
    let packed = pack(&described, files).map_err(unwritable)?;
    let absolute = std::path::absolute(&path).map_err(unwritable)?;
    crate::lock::replace(&absolute, &packed).map_err(unwritable)?;
    Ok(Written { size: packed.len() as u64, sha256: Checksum::of(&packed), path, manifest })
}

/// The archive, whose bytes are a function of the files.
pub(super) fn pack(manifest: &[u8], mut files: Vec<(&str, &[u8])>) -> io::Result<Vec<u8>> {
    files.sort_by_key(|(name, _)| *name);
    let sums: String = std::iter::once((MANIFEST, manifest))
        .chain(files.iter().copied())
        .map(|(name, content)| format!("{}  {name}\n", Checksum::of(content)))
        .collect();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), LEVEL)?;
    encoder.include_checksum(true)?;
    let mut archive = tar::Builder::new(encoder);
    for (name, content) in [(MANIFEST, manifest), (SUMS, sums.as_bytes())].into_iter().chain(files) {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_cksum();
        archive.append(&header, content)?;
    }
    let mut packed = archive.into_inner()?.finish()?;
    packed.flush()?;
    Ok(packed)
}

/// The name of the one kind, or that of the library's file: `libmy_alarms.so` is `my-alarms`.
fn own_name(file: &str, kinds: &[Descriptor]) -> String {
    if let [kind] = kinds {
        return kind.kind.clone();
    }
    let stem = file.split('.').next().unwrap_or(file);
    stem.strip_prefix(std::env::consts::DLL_PREFIX).unwrap_or(stem).replace('_', "-").to_ascii_lowercase()
}

/// The highest version of the kinds.
fn version(kinds: &[Descriptor]) -> Result<Version, PackageError> {
    let read = |kind: &Descriptor| {
        Version::parse(&kind.version).map_err(|_| PackageError::Version { version: kind.version.clone() })
    };
    let versions = kinds.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    versions.into_iter().max().ok_or(PackageError::Version { version: String::new() })
}

/// Whether there is a text whose name begins with one of these.
impl Text {
    /// Whether it is a license.
    pub fn is_license(&self) -> bool {
        self.begins(&TEXTS[1..4])
    }

    /// Whether it says what the plugin does.
    pub fn is_readme(&self) -> bool {
        self.begins(&TEXTS[..1])
    }

    fn begins(&self, names: &[&str]) -> bool {
        let name = self.name.to_ascii_uppercase();
        names.iter().any(|text| name.starts_with(text))
    }
}
