//! An index of packages: a folder, or a static site, with a file `NAME.json` for each package and `index.json` with the names.
//! The packages lie beside them.

use std::collections::BTreeMap;
use std::path::Path;

use host_command::report::did_you_mean;
use semver::Version;
use serde::{Deserialize, Serialize};

use super::{EXTENSION, LARGEST, PackageError, Source, fits_this_host, is_name, is_plain, read_manifest};
use crate::checksum::Checksum;
use crate::inspect::this_target;
use crate::regular_file;

/// The version of the format.
const FORMAT: u32 = 1;

/// The longest file of an index, in bytes.
const LONGEST: u64 = 8 << 20;

const NAMES: &str = "index.json";

/// An index that was named.
#[derive(Clone, Debug)]
pub struct Index(Source);

/// A package of an index, for one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// What it is built for.
    pub target: String,
    /// The version of the plugin ABI that it needs.
    pub abi: String,
    /// Its kinds.
    pub kinds: Vec<String>,
    /// Its file, beside the index.
    pub file: String,
    /// The length of the file in bytes.
    pub size: u64,
    /// The SHA-256 of the file.
    pub sha256: Checksum,
}

/// The file of one package.
#[derive(Serialize, Deserialize)]
struct Package {
    format: u32,
    name: String,
    releases: Vec<Release>,
}

/// The file of all names.
#[derive(Serialize, Deserialize)]
struct Names {
    format: u32,
    packages: Vec<String>,
}

impl Index {
    /// The index at a path or an address.
    ///
    /// # Errors
    ///
    /// An address that is not contacted.
    pub fn parse(text: &str) -> Result<Self, PackageError> {
        Source::parse(text).map(Self)
    }

    /// The newest release of `name` for this host, or that of the version; and where it is. A version before a first one, as in
    /// `1.0.0-beta`, is taken only if there is no other, or if it is asked for.
    ///
    /// # Errors
    ///
    /// An index that cannot be read, or does not have it.
    pub fn find(&self, name: &str, version: Option<&Version>) -> Result<(Release, Source), PackageError> {
        let missing = |what: String, hint: String| PackageError::NotInIndex { index: self.0.to_string(), what, hint };
        if !is_name(name) {
            return Err(missing(format!("package `{name}`"), "names of packages are `[a-z0-9-]+`".to_owned()));
        }
        let Some(package) = self.read::<Package>(&format!("{name}.json"))? else {
            let names = self.read::<Names>(NAMES)?.map(|names| names.packages).unwrap_or_default();
            let hint = did_you_mean(name, names.iter().map(String::as_str));
            let hint = hint.unwrap_or_else(|| match names.is_empty() {
                true => format!("there is no `{NAMES}` either: is it an index?"),
                false => format!("it has {}", names.iter().take(20).cloned().collect::<Vec<_>>().join(", ")),
            });
            return Err(missing(format!("package `{name}`"), hint));
        };
        if package.format != FORMAT || package.name != name {
            return Err(
                self.damaged(format!("`{name}.json` has format {} and is about `{}`", package.format, package.name))
            );
        }
        let target = this_target();
        let here: Vec<&Release> = package.releases.iter().filter(|release| release.target == target).collect();
        let usable = here.iter().filter(|release| fits_this_host(&release.abi));
        let wanted = usable.filter(|release| version.is_none_or(|version| release.version == *version));
        let newest = wanted.max_by_key(|release| (release.version.pre.is_empty(), &release.version)).copied();
        let Some(release) = newest else {
            let what = version
                .map_or_else(|| format!("`{name}` for {target}"), |version| format!("`{name}` {version} for {target}"));
            let known = |release: &Release| format!("{} for {} (ABI {})", release.version, release.target, release.abi);
            let all: Vec<String> = package.releases.iter().take(20).map(known).collect();
            let hint = if all.is_empty() {
                "it has no release of it".to_owned()
            } else {
                format!("it has {}", all.join(", "))
            };
            return Err(missing(what, hint));
        };
        if !is_plain(&release.file) || release.size > LARGEST {
            return Err(self.damaged(format!("`{}` is not a package", release.file.escape_debug())));
        }
        Ok((release.clone(), self.0.join(&release.file)))
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, file: &str) -> Result<Option<T>, PackageError> {
        let Some(bytes) = self.0.join(file).read(LONGEST)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| self.damaged(format!("`{file}`: {error}")))
    }

    fn damaged(&self, detail: String) -> PackageError {
        PackageError::Index { index: self.0.to_string(), detail }
    }
}

/// Makes a folder of packages an index: writes the files about those that lie in it, and gives their names.
///
/// # Errors
///
/// A package that cannot be read; a folder that cannot be written.
pub fn write_index(folder: &Path) -> Result<Vec<String>, PackageError> {
    let unreadable = |path: &Path, source| PackageError::Unreadable { path: path.to_owned(), source };
    let mut packages: BTreeMap<String, Vec<Release>> = BTreeMap::new();
    for entry in folder.read_dir().map_err(|source| unreadable(folder, source))? {
        let path = entry.map_err(|source| unreadable(folder, source))?.path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !file.ends_with(EXTENSION) || !is_plain(file) {
            continue;
        }
        let manifest = read_manifest(&path)?;
        let mut content = regular_file::open(&path, LARGEST).map_err(|error| unreadable(&path, error.into()))?;
        let (sha256, size) = Checksum::of_reader(&mut content).map_err(|source| unreadable(&path, source))?;
        packages.entry(manifest.name).or_default().push(Release {
            version: manifest.version,
            target: manifest.target,
            abi: manifest.abi,
            kinds: manifest.kinds.into_iter().map(|kind| kind.kind).collect(),
            file: file.to_owned(),
            size,
            sha256,
        });
    }
    let names: Vec<String> = packages.keys().cloned().collect();
    for (name, mut releases) in packages {
        releases.sort_by(|one, other| (&one.version, &one.target).cmp(&(&other.version, &other.target)));
        write_json(folder, &format!("{name}.json"), &Package { format: FORMAT, name, releases })?;
    }
    write_json(folder, NAMES, &Names { format: FORMAT, packages: names.clone() })?;
    Ok(names)
}

fn write_json(folder: &Path, file: &str, value: &impl Serialize) -> Result<(), PackageError> {
    let path = folder.join(file);
    let written = || -> std::io::Result<()> {
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        crate::lock::replace(&std::path::absolute(&path)?, &text)
    };
    written().map_err(|source| PackageError::Unwritable { path: path.clone(), source })
}
