//! Puts packages into a folder of plugins and its lock, and takes them out again.
//!
//! Invariant: whenever the process ends, what was there before still works, with the lock and without. A library comes into
//! its place whole, by a rename; the lock lists the old and the new one before, and only the new one after.

use std::fs::File;
use std::path::{Path, PathBuf};

use host_command::report::did_you_mean;
use semver::Version;

use super::read::unpack;
use super::{Index, Keys, Manifest, PackageError, Signed, Source, signature};
use crate::checksum::Checksum;
use crate::inspect::this_target;
use crate::lock::{Lock, LockError, Locked, LockedPackage, kinds_of, sync_folder};
use crate::regular_file;

/// The folder within a folder of plugins that has the texts of its packages, by name.
const TEXTS: &str = "packages";

/// What is being unpacked, and left behind where a process was ended.
const ASIDE: &str = ".host-add-";

/// A folder of plugins and its lock, which no other command changes meanwhile.
pub struct Folder {
    folder: PathBuf,
    lock_file: PathBuf,
    target: String,
    _held: File,
}

/// How packages are added.
#[derive(Clone, Debug)]
pub struct How {
    /// The index, if one was named.
    pub index: Option<Index>,
    /// The keys.
    pub keys: Keys,
    /// Whether only what is signed with one of the keys is taken.
    pub require_signed: bool,
    /// Whether an older version may take the place of a newer one.
    pub downgrade: bool,
}

/// What was added.
#[derive(Debug)]
pub struct Added {
    /// The package.
    pub manifest: Manifest,
    /// What it changed.
    pub change: Change,
    /// Who signed it.
    pub signed: Signed,
}

/// What became of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    New,
    /// It has taken the place of this version.
    Replaced(Version),
    /// The same was there.
    None,
}

/// What was removed.
#[derive(Debug)]
pub struct Removed {
    /// The library, as the lock had it.
    pub locked: Locked,
    /// For which other targets the lock had it, too.
    pub other_targets: Vec<String>,
}

impl Folder {
    /// Opens a folder, which is made if it is not there, for changes; `lock_file` is its lock.
    ///
    /// # Errors
    ///
    /// Those of the system; another command that changes it.
    pub fn open(folder: &Path, lock_file: &Path) -> Result<Self, PackageError> {
        let unwritable = |source| PackageError::Unwritable { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(unwritable)?;
        #[cfg(unix)]
        let held = File::open(folder);
        #[cfg(not(unix))]
        let held = File::create(folder.join(".host-lock"));
        let held = held.map_err(unwritable)?;
        match held.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(PackageError::Busy { folder: folder.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => return Err(unwritable(source)),
        }
        let opened =
            Self { folder: folder.to_owned(), lock_file: lock_file.to_owned(), target: this_target(), _held: held };
        opened.tidy()?;
        Ok(opened)
    }

    /// Removes what an ended process left behind.
    fn tidy(&self) -> Result<(), PackageError> {
        let unreadable = |source| PackageError::Unreadable { path: self.folder.clone(), source };
        for entry in self.folder.read_dir().map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && entry.file_name().to_string_lossy().starts_with(ASIDE) {
                let path = entry.path();
                std::fs::remove_dir_all(&path).map_err(|source| PackageError::Unwritable { path, source })?;
            }
        }
        let lock = self.lock()?;
        let mut tidied = lock.clone();
        for locked in lock.of_target(&self.target) {
            let is_twice = lock.of_target(&self.target).filter(|other| other.file == locked.file).count() > 1;
            if is_twice && let Ok(there) = self.checksum(&locked.file) {
                tidied.retain(|other| {
                    other.file != locked.file || other.target != locked.target || other.sha256 == there
                });
            }
        }
        if tidied == lock { Ok(()) } else { self.write(&tidied) }
    }

    /// Adds a package: a path, an address, or a name of the index, which may end with `@VERSION`.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it; nothing is changed then.
    pub fn add(&self, what: &str, how: &How) -> Result<Added, PackageError> {
        let (source, release) = self.locate(what, how)?;
        let package = source.to_string();
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |source| PackageError::Unwritable { path, source }
        };
        let aside =
            tempfile::Builder::new().prefix(ASIDE).tempdir_in(&self.folder).map_err(unwritable(&self.folder))?;
        let packed = aside.path().join("package");
        let sum = source.fetch(&packed)?;
        if release.as_ref().is_some_and(|release| release.sha256 != sum) {
            return Err(PackageError::Checksum { package, what: "the file, which the index has,".to_owned() });
        }
        let signature = source.with_end(signature::EXTENSION).read(signature::LONGEST)?;
        let signed = how.keys.verify(&package, &packed, signature.as_deref(), how.require_signed)?;
        let files = aside.path().join("files");
        std::fs::create_dir(&files).map_err(unwritable(&files))?;
        let file = File::open(&packed).map_err(unwritable(&packed))?;
        let unpacked = unpack(&package, &file, &files)?;
        let manifest = unpacked.manifest;
        if let Some(release) = &release {
            let name = what.split_once('@').map_or(what, |(name, _)| name);
            if manifest.name != name || manifest.version != release.version {
                let detail = format!("it is `{}` {}", manifest.name, manifest.version);
                return Err(PackageError::OtherThanIndexed { package, detail });
            }
        }
        let signed_by = match &signed {
            Signed::By(key) => Some(key.clone()),
            Signed::ByUnknown | Signed::Not => None,
        };
        let locked = locked(&manifest, unpacked.library, signed_by);
        let mut lock = self.lock()?;
        let before = lock.of_target(&self.target).find(|other| is_package(other, &manifest.name)).cloned();
        let change = self.compare(&manifest, &locked, before.as_ref(), &lock, how)?;
        if change != Change::None {
            let old = lock.clone();
            lock.add(locked.clone());
            self.write(&lock)?;
            if let Err(error) = self.put(&files, &manifest, aside.path()) {
                if self.checksum(&manifest.library).ok() != Some(locked.sha256) {
                    self.write(&old)?;
                    return Err(error);
                }
                // Texts that cannot be put into their place are no reason to take the library back.
                tracing::warn!("{error}");
            }
        }
        lock.put(locked);
        self.write(&lock)?;
        Ok(Added { manifest, change, signed })
    }

    /// Where a package is, and what the index says of it.
    fn locate(&self, what: &str, how: &How) -> Result<(Source, Option<super::Release>), PackageError> {
        let is_file = what.contains("://") || what.contains(['/', '\\']) || what.ends_with(super::EXTENSION);
        if is_file {
            return Ok((Source::parse(what)?, None));
        }
        let Some(index) = &how.index else { return Err(PackageError::NoIndex { name: what.to_owned() }) };
        let (name, version) = what.split_once('@').map_or((what, None), |(name, version)| (name, Some(version)));
        let version = version
            .map(|text| Version::parse(text).map_err(|_| PackageError::Version { version: text.to_owned() }))
            .transpose()?;
        let (release, source) = index.find(name, version.as_ref())?;
        Ok((source, Some(release)))
    }

    /// Holds a package to what is there.
    fn compare(
        &self,
        manifest: &Manifest,
        locked: &Locked,
        before: Option<&Locked>,
        lock: &Lock,
        how: &How,
    ) -> Result<Change, PackageError> {
        let name = manifest.name.clone();
        let path = self.folder.join(&manifest.library);
        let others = lock.of_target(&self.target).filter(|other| !is_package(other, &manifest.name));
        for other in others {
            if let Some(kind) =
                manifest.kinds.iter().find(|kind| other.kinds.iter().any(|taken| taken.kind == kind.kind))
            {
                return Err(PackageError::KindTaken { file: other.file.clone(), kind: kind.kind.clone() });
            }
        }
        let is_there = path.symlink_metadata().is_ok();
        let Some(before) = before else {
            return if is_there { Err(PackageError::InTheWay { path, name }) } else { Ok(Change::New) };
        };
        if before.file != manifest.library {
            let (version, found) = (manifest.version.clone(), manifest.library.clone());
            return Err(PackageError::Renamed { name, version, found, installed: before.file.clone() });
        }
        let installed = before.package.as_ref().and_then(|package| Version::parse(&package.version).ok());
        let installed = installed.unwrap_or_else(|| manifest.version.clone());
        if manifest.version < installed && !how.downgrade {
            return Err(PackageError::Older { name, found: manifest.version.clone(), installed });
        }
        if !is_there {
            return Ok(Change::New);
        }
        let there = self.checksum(&before.file)?;
        if there == locked.sha256 {
            return Ok(Change::None);
        }
        // Somebody's own build in its place is not the package's.
        if self.is_of_lock(lock, &before.file, there) {
            Ok(Change::Replaced(installed))
        } else {
            Err(PackageError::InTheWay { path, name })
        }
    }

    /// Whether a file has the content that the lock says.
    fn is_of_lock(&self, lock: &Lock, file: &str, content: Checksum) -> bool {
        lock.of_target(&self.target).any(|locked| locked.file == file && locked.sha256 == content)
    }

    /// Renames what was unpacked into its place.
    fn put(&self, files: &Path, manifest: &Manifest, aside: &Path) -> Result<(), PackageError> {
        let rename = |from: &Path, to: &Path| {
            std::fs::rename(from, to).map_err(|source| PackageError::Unwritable { path: to.to_owned(), source })
        };
        rename(&files.join(&manifest.library), &self.folder.join(&manifest.library))?;
        sync_folder(&self.folder);
        let own = self.folder.join(TEXTS).join(&manifest.name);
        let unwritable = |source| PackageError::Unwritable { path: own.clone(), source };
        std::fs::create_dir_all(self.folder.join(TEXTS)).map_err(unwritable)?;
        if own.symlink_metadata().is_ok() {
            rename(&own, &aside.join("old"))?;
        }
        rename(files, &own)
    }

    /// Removes a package, by its name, by one of its kinds, or by its file.
    ///
    /// # Errors
    ///
    /// When there is none; those of the system.
    pub fn remove(&self, name: &str) -> Result<Removed, PackageError> {
        let mut lock = self.lock()?;
        let packages = || lock.of_target(&self.target).filter(|locked| locked.package.is_some());
        let is_meant = |locked: &&Locked| {
            is_package(locked, name) || locked.file == name || locked.kinds.iter().any(|kind| kind.kind == name)
        };
        let found = packages().find(|locked| is_package(locked, name)).or_else(|| packages().find(is_meant)).cloned();
        let Some((locked, package)) = found.and_then(|locked| locked.package.clone().map(|package| (locked, package)))
        else {
            let names: Vec<&str> =
                packages().filter_map(|locked| Some(locked.package.as_ref()?.name.as_str())).collect();
            let hint = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| match names.is_empty() {
                true => format!("the lock `{}` has no packages", self.lock_file.display()),
                false => format!("there are {}", names.join(", ")),
            });
            return Err(PackageError::NotThere { name: name.to_owned(), folder: self.folder.clone(), hint });
        };
        let path = self.folder.join(&locked.file);
        if path.symlink_metadata().is_ok() && !self.is_of_lock(&lock, &locked.file, self.checksum(&locked.file)?) {
            return Err(PackageError::InTheWay { path, name: package.name });
        }
        self.remove_file(&path)?;
        // Names of packages are checked where they come in; a lock may have been written by anybody.
        if super::is_name(&package.name) {
            let texts = self.folder.join(TEXTS).join(&package.name);
            match std::fs::remove_dir_all(&texts) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(PackageError::Unwritable { path: texts, source });
                }
                // Unless others are in it.
                _ => drop(std::fs::remove_dir(self.folder.join(TEXTS))),
            }
        }
        let is_same = |other: &Locked| is_package(other, &package.name);
        let other_targets = lock
            .libraries()
            .iter()
            .filter(|other| is_same(other) && other.target != self.target)
            .map(|other| other.target.clone());
        let other_targets = other_targets.collect();
        lock.retain(|other| !is_same(other));
        self.write(&lock)?;
        Ok(Removed { locked, other_targets })
    }

    /// The names of the packages that are there, with their versions.
    ///
    /// # Errors
    ///
    /// A lock that cannot be read.
    pub fn packages(&self) -> Result<Vec<LockedPackage>, PackageError> {
        Ok(self.lock()?.of_target(&self.target).filter_map(|locked| locked.package.clone()).collect())
    }

    fn remove_file(&self, path: &Path) -> Result<(), PackageError> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(PackageError::Unwritable { path: path.to_owned(), source })
            }
            _ => {
                sync_folder(&self.folder);
                Ok(())
            }
        }
    }

    fn checksum(&self, file: &str) -> Result<Checksum, PackageError> {
        let path = self.folder.join(file);
        let unreadable = |source| PackageError::Unreadable { path: path.clone(), source };
        let mut content = regular_file::open(&path, regular_file::LARGEST).map_err(|error| unreadable(error.into()))?;
        Checksum::of_reader(&mut content).map(|(sum, _)| sum).map_err(unreadable)
    }

    fn lock(&self) -> Result<Lock, LockError> {
        Lock::read_or_empty(&self.lock_file)
    }

    fn write(&self, lock: &Lock) -> Result<(), PackageError> {
        Ok(lock.write(&self.lock_file)?)
    }
}

fn is_package(locked: &Locked, name: &str) -> bool {
    locked.package.as_ref().is_some_and(|package| package.name == name)
}

/// The entry of the lock for a package.
fn locked(manifest: &Manifest, (sha256, size): (Checksum, u64), signed_by: Option<String>) -> Locked {
    Locked {
        file: manifest.library.clone(),
        target: manifest.target.clone(),
        size,
        sha256,
        abi: manifest.abi.clone(),
        build: manifest.build.clone(),
        kinds: kinds_of(&manifest.kinds),
        package: Some(LockedPackage { name: manifest.name.clone(), version: manifest.version.to_string(), signed_by }),
        beside: Vec::new(),
    }
}
