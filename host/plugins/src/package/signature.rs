//! Who signed a package: minisign, by the public keys that the user has put into a folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use minisign_verify::{Error, PublicKey, Signature};

use super::PackageError;
use crate::regular_file;
use crate::trust;

/// What the signature of a package is called: the package's file with this at its end.
pub(super) const EXTENSION: &str = ".minisig";

/// The longest key or signature that is read, in bytes.
pub(super) const LONGEST: u64 = 16 << 10;

/// The public keys that a user trusts.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
}

/// What is known of who made a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// Signed with the key of this name.
    By(String),
    /// Signed with a key that is not among the user's.
    ByUnknown,
    /// Not signed.
    Not,
}

impl Keys {
    /// Those of this user: `*.pub` in `$XDG_CONFIG_HOME/host/keys`.
    pub fn of_user() -> Self {
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let settings = variable("XDG_CONFIG_HOME").or_else(|| {
            variable(if cfg!(windows) { "APPDATA" } else { "HOME" }).map(|home| match cfg!(windows) {
                true => home,
                false => home.join(".config"),
            })
        });
        // Without a home, there are none: those of the working folder may be anybody's.
        Self { folder: settings.map(|settings| settings.join("host").join("keys")).unwrap_or_default() }
    }

    /// Those in a folder.
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says who signed the content of `file`, whose signature is `signature`. Where a known key is `required`, the keys must be
    /// such that nobody else can change them.
    ///
    /// # Errors
    ///
    /// A signature that is not of this content; a folder or a key that cannot be used; what is required and not there.
    pub(super) fn verify(
        &self,
        package: &str,
        file: &Path,
        signature: Option<&[u8]>,
        required: bool,
    ) -> Result<Signed, PackageError> {
        let Some(signature) = signature else {
            let signature = format!("{package}{EXTENSION}");
            return if required {
                Err(PackageError::Unsigned { package: package.to_owned(), signature })
            } else {
                Ok(Signed::Not)
            };
        };
        let bad = |detail: &str| PackageError::BadSignature { package: package.to_owned(), detail: detail.to_owned() };
        let text = std::str::from_utf8(signature).map_err(|_| bad("it is not UTF-8"))?;
        let signature = Signature::decode(text).map_err(|_| bad("it is not one of minisign"))?;
        let keys = self.read()?;
        if required
            && let Some(exposed) = trust::exposed(keys.iter().map(|(path, _)| path.as_path())).into_iter().next()
        {
            return Err(exposed.into());
        }
        for (path, key) in &keys {
            let mut verifier = match key.verify_stream(&signature) {
                Ok(verifier) => verifier,
                Err(Error::UnexpectedKeyId) => continue,
                Err(Error::UnsupportedLegacyMode | Error::UnsupportedAlgorithm | Error::UnexpectedAlgorithm) => {
                    return Err(PackageError::OldSignature { package: package.to_owned() });
                }
                Err(_) => return Err(bad("it cannot be used with the key of its number")),
            };
            let unreadable = |source| PackageError::Unreadable { path: file.to_owned(), source };
            let mut content = File::open(file).map_err(unreadable)?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                match content.read(&mut buffer).map_err(unreadable)? {
                    0 => break,
                    read => verifier.update(&buffer[..read]),
                }
            }
            verifier.finalize().map_err(|_| bad("the content is another one than was signed"))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Signed::By(name));
        }
        if required {
            return Err(PackageError::UnknownKey { package: package.to_owned(), keys: self.folder.clone() });
        }
        Ok(Signed::ByUnknown)
    }

    /// The keys by file name; no folder has none.
    fn read(&self) -> Result<Vec<(PathBuf, PublicKey)>, PackageError> {
        let unreadable = |path: &Path, source| PackageError::Unreadable { path: path.to_owned(), source };
        let entries = match self.folder.read_dir() {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(unreadable(&self.folder, source)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| unreadable(&self.folder, source))?.path();
            if path.extension().is_none_or(|extension| extension != "pub") {
                continue;
            }
            let text = regular_file::read(&path, LONGEST).map_err(|error| unreadable(&path, error.into()))?;
            let text = String::from_utf8_lossy(&text);
            // Only the key, or with the comment that minisign writes before it.
            let key = PublicKey::decode(&text).or_else(|_| PublicKey::from_base64(text.trim()));
            keys.push((path.clone(), key.map_err(|_| PackageError::Key { path })?));
        }
        keys.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minisign::KeyPair;

    struct Signing {
        folder: tempfile::TempDir,
        file: PathBuf,
        keys: Keys,
    }

    /// A file with a content, and an empty folder of keys.
    fn signing() -> Signing {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("package.tar.zst");
        std::fs::write(&file, "content").unwrap();
        let keys = Keys::in_folder(&folder.path().join("keys"));
        std::fs::create_dir(keys.folder()).unwrap();
        Signing { folder, file, keys }
    }

    impl Signing {
        fn trust(&self, name: &str, pair: &KeyPair) {
            let path = self.keys.folder().join(format!("{name}.pub"));
            std::fs::write(path, pair.pk.to_box().unwrap().to_string()).unwrap();
        }

        fn verify(&self, signature: Option<&str>, required: bool) -> Result<Signed, PackageError> {
            self.keys.verify("package.tar.zst", &self.file, signature.map(str::as_bytes), required)
        }
    }

    fn sign(pair: &KeyPair, content: &str) -> String {
        minisign::sign(None, &pair.sk, content.as_bytes(), None, None).unwrap().to_string()
    }

    #[test]
    fn only_a_known_key_counts_as_signed() {
        let signing = signing();
        let (known, other) =
            (KeyPair::generate_unencrypted_keypair().unwrap(), KeyPair::generate_unencrypted_keypair().unwrap());
        let signature = sign(&known, "content");
        assert_eq!(signing.verify(Some(&signature), false).unwrap(), Signed::ByUnknown);
        assert!(matches!(signing.verify(Some(&signature), true).unwrap_err(), PackageError::UnknownKey { .. }));
        assert_eq!(signing.verify(None, false).unwrap(), Signed::Not);
        assert!(matches!(signing.verify(None, true).unwrap_err(), PackageError::Unsigned { .. }));
        signing.trust("a-stranger", &other);
        signing.trust("the-team", &known);
        assert_eq!(signing.verify(Some(&signature), true).unwrap(), Signed::By("the-team".to_owned()));
        let changed = sign(&known, "another content");
        assert!(matches!(signing.verify(Some(&changed), false).unwrap_err(), PackageError::BadSignature { .. }));
        assert!(matches!(signing.verify(Some("text"), false).unwrap_err(), PackageError::BadSignature { .. }));
        drop(signing.folder);
    }

    #[test]
    #[cfg(unix)]
    fn a_key_that_others_can_change_is_none() {
        use std::os::unix::fs::PermissionsExt;

        let signing = signing();
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        signing.trust("the-team", &pair);
        std::fs::set_permissions(signing.keys.folder(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let refused = signing.verify(Some(&sign(&pair, "content")), true).unwrap_err();
        assert!(matches!(refused, PackageError::Exposed(_)), "{refused}");
    }

    #[test]
    fn what_is_no_key_is_told() {
        let signing = signing();
        std::fs::write(signing.keys.folder().join("mine.pub"), "no key").unwrap();
        let pair = KeyPair::generate_unencrypted_keypair().unwrap();
        let refused = signing.verify(Some(&sign(&pair, "content")), false).unwrap_err();
        assert!(matches!(refused, PackageError::Key { .. }), "{refused}");
    }
}
