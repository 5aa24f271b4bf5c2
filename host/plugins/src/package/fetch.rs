//! Where packages and indexes are: files, and servers that are named.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::Uri;

use super::{LARGEST, PackageError};
use crate::checksum::{Checksum, Hasher};
use crate::regular_file;

/// How long a server may take to connect and to begin an answer, and in all.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(30 * 60));

/// A file, or an address on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or a folder.
    File(PathBuf),
    /// An address: `https://`, or `http://` on this machine.
    Address(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Address(address) => formatter.write_str(address),
        }
    }
}

impl Source {
    /// Reads a path or an address.
    ///
    /// # Errors
    ///
    /// An address that is not contacted.
    pub fn parse(text: &str) -> Result<Self, PackageError> {
        let refused = |reason| Err(PackageError::Address { address: text.to_owned(), reason });
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::File(PathBuf::from(text))) };
        match scheme.to_ascii_lowercase().as_str() {
            "file" if rest.contains('%') => refused("`%` in a `file://` address is not understood: give the path"),
            "file" if !rest.starts_with('/') => refused("after `file://` comes an absolute path"),
            "file" => Ok(Self::File(PathBuf::from(rest))),
            "https" | "http" => {
                let Ok(address) = text.parse::<Uri>() else { return refused("it is not an address") };
                let host = address.host().unwrap_or_default();
                if scheme.eq_ignore_ascii_case("http") && !is_this_machine(host) {
                    return refused("whoever is between could change what comes");
                }
                if address.query().is_some() {
                    return refused("an address with `?` names no file");
                }
                Ok(Self::Address(text.trim_end_matches('/').to_owned()))
            }
            _ => refused("it is neither `https://` nor `file://`"),
        }
    }

    /// The file `name` in it, or beside it with `..` left out: a plain name.
    pub(super) fn join(&self, name: &str) -> Self {
        match self {
            Self::File(path) => Self::File(path.join(name)),
            Self::Address(address) => Self::Address(format!("{address}/{name}")),
        }
    }

    /// The same with `end` after its name.
    pub(super) fn with_end(&self, end: &str) -> Self {
        match self {
            Self::File(path) => {
                let mut path = path.clone().into_os_string();
                path.push(end);
                Self::File(path.into())
            }
            Self::Address(address) => Self::Address(format!("{address}{end}")),
        }
    }

    /// Its content, of at most `most` bytes; `None` if there is none.
    pub(super) fn read(&self, most: u64) -> Result<Option<Vec<u8>>, PackageError> {
        let Some(source) = self.open(most)? else { return Ok(None) };
        let mut bytes = Vec::new();
        source.take(most + 1).read_to_end(&mut bytes).map_err(|error| self.failed(error))?;
        if bytes.len() as u64 > most {
            return Err(self.failed(io::Error::other(format!("it has more than {most} bytes"))));
        }
        Ok(Some(bytes))
    }

    /// Copies the package that it is into a file, and gives its SHA-256.
    pub(super) fn fetch(&self, to: &Path) -> Result<Checksum, PackageError> {
        let missing = || self.failed(io::Error::new(io::ErrorKind::NotFound, "it is not there"));
        let mut source = self.open(LARGEST)?.ok_or_else(missing)?;
        let unwritable = |source| PackageError::Unwritable { path: to.to_owned(), source };
        let mut file = File::create_new(to).map_err(unwritable)?;
        let (mut hasher, mut buffer, mut length) = (Hasher::default(), vec![0; 1 << 16], 0);
        loop {
            match source.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish().0),
                Ok(read) => {
                    length += read as u64;
                    if length > LARGEST {
                        return Err(PackageError::TooLarge { package: self.to_string() });
                    }
                    hasher.update(&buffer[..read]);
                    file.write_all(&buffer[..read]).map_err(unwritable)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn open(&self, most: u64) -> Result<Option<Box<dyn Read>>, PackageError> {
        match self {
            Self::File(path) => match regular_file::open(path, most) {
                Ok(file) => Ok(Some(Box::new(file))),
                Err(regular_file::NotRead::System(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(self.failed(error.into())),
            },
            Self::Address(address) => get(address),
        }
    }

    fn failed(&self, source: io::Error) -> PackageError {
        match self {
            Self::File(path) => PackageError::Unreadable { path: path.clone(), source },
            Self::Address(address) => PackageError::Network { address: address.clone(), detail: source.to_string() },
        }
    }
}

/// Asks a server; `None` if it has nothing there.
fn get(address: &str) -> Result<Option<Box<dyn Read>>, PackageError> {
    const MOST_REDIRECTS: u32 = 5;
    let failed = |detail: String| PackageError::Network { address: address.to_owned(), detail };
    let is_secure = address.to_ascii_lowercase().starts_with("https://");
    let (answer, in_all) = PATIENCE;
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("host/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(answer))
        .timeout_recv_response(Some(answer))
        .timeout_global(Some(in_all))
        .max_redirects(if is_secure { MOST_REDIRECTS } else { 0 })
        .max_redirects_will_error(false)
        .https_only(is_secure);
    if !is_secure {
        // A server of this machine is not asked through another one.
        config = config.proxy(None);
    }
    let agent = config.build().new_agent();
    let response = agent.get(address).call().map_err(|error| failed(error.to_string()))?;
    match response.status().as_u16() {
        200 => Ok(Some(Box::new(response.into_body().into_reader()))),
        404 | 410 => Ok(None),
        status => Err(failed(format!("the server answers with status {status}"))),
    }
}

fn is_this_machine(host: &str) -> bool {
    let number = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || number.parse::<std::net::IpAddr>().is_ok_and(|number| number.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_safe_addresses_are_taken() {
        for (text, expected) in [
            ("mine.tar.zst", Source::File("mine.tar.zst".into())),
            ("file:///a/b", Source::File("/a/b".into())),
            ("https://example.org/plugins/", Source::Address("https://example.org/plugins".to_owned())),
            ("http://localhost:80/x", Source::Address("http://localhost:80/x".to_owned())),
            ("http://127.0.0.2/x", Source::Address("http://127.0.0.2/x".to_owned())),
            ("http://[::1]:8000", Source::Address("http://[::1]:8000".to_owned())),
        ] {
            assert_eq!(Source::parse(text).unwrap(), expected);
        }
        for text in [
            "http://example.org/x",
            "http://localhost@example.org/x",
            "http://localhost.example.org/x",
            "http://127.0.0.1.example.org/",
            "ftp://localhost/x",
            "https://example.org/x?y",
            "file://relative",
            "file:///a%20b",
            "https://",
        ] {
            assert!(matches!(Source::parse(text), Err(PackageError::Address { .. })), "`{text}` was taken");
        }
    }
}
