//! The versions of libtorch folders.

use std::path::Path;

use super::VERSION;

/// The version that a libtorch folder states: the archive's `build-version`, or the `version.py` of a
/// Python package. With its build tag, as in `2.11.0+cu130`; `None` when it states none.
pub fn of_folder(folder: &Path) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    of_python_module(&std::fs::read_to_string(folder.join("version.py")).ok()?)
}

/// The value of `__version__ = '…'`.
fn of_python_module(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.strip_prefix("__version__")?.trim_start().strip_prefix('=')?;
        Some(value.trim().trim_matches(['\'', '"']).to_owned())
    })
}

/// Whether torch-sys compiles against this version: its build script accepts no other.
pub fn fits(version: &str) -> bool {
    let number = version.trim().split('+').next().unwrap_or_default();
    number == VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_tags_do_not_matter_and_every_number_does() {
        for version in ["2.11.0", "2.11.0+cpu", "2.11.0+cu130\n"] {
            assert!(fits(version), "{version}");
        }
        for version in ["2.11.1", "2.10.0", "2.11", "12.11.0", "2.11.0rc1", ""] {
            assert!(!fits(version), "{version}");
        }
    }

    #[test]
    fn a_python_package_states_its_version_in_a_module() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_folder(folder.path()), None);
        let module = "from typing import Optional\n\n__all__ = ['__version__']\n__version__ = '2.11.0+cu130'\n";
        std::fs::write(folder.path().join("version.py"), module).unwrap();
        assert_eq!(of_folder(folder.path()).as_deref(), Some("2.11.0+cu130"));
        std::fs::write(folder.path().join("build-version"), "2.10.0\n").unwrap();
        assert_eq!(of_folder(folder.path()).as_deref(), Some("2.10.0"));
    }
}
