//! A library's table, checked before anything of it is trusted.

use std::mem::{offset_of, size_of};
use std::path::Path;

use plugin_api::abi::{self, LibraryTable, MAGIC, Table, read_table};

use super::Entry;
use crate::error::LoadError;

/// Copies the table that an entry gave.
///
/// # Errors
///
/// No table, another version's, a short one, one for another system, or one without a function.
///
/// # Safety
///
/// `table` must be null, or point to a static table that begins with its size in bytes and has as many.
pub(super) unsafe fn checked(entry: Entry, path: &Path, table: *const LibraryTable) -> Result<LibraryTable, LoadError> {
    let refused = |detail: String| LoadError::Table { path: path.to_owned(), sdk: entry.sdk(), detail };
    if table.is_null() {
        return Err(refused("there is none, only a null pointer".to_owned()));
    }
    // SAFETY: every table begins with its size.
    let size = unsafe { table.cast::<u32>().read_unaligned() } as usize;
    let too_short = || refused(format!("it has {size} bytes, and {} are needed", LibraryTable::MINIMUM));
    if size < offset_of!(LibraryTable, minor) {
        return Err(too_short());
    }
    // SAFETY: within the table, by its size. The fields are read one by one and as numbers: until they are checked,
    // nothing says that this is a table.
    let (major, magic) = unsafe {
        let number = |offset: usize| table.byte_add(offset).cast::<u32>().read_unaligned();
        let magic = table.byte_add(offset_of!(LibraryTable, magic)).cast::<u64>().read_unaligned();
        (number(offset_of!(LibraryTable, major)), magic)
    };
    if magic != MAGIC {
        return Err(refused(format!("its magic number is {magic:#018x} instead of {MAGIC:#018x}")));
    }
    if major != abi::MAJOR {
        return Err(LoadError::Version {
            path: path.to_owned(),
            expected: abi::MAJOR.to_string(),
            found: major.to_string(),
        });
    }
    if size < LibraryTable::MINIMUM {
        return Err(too_short());
    }
    for (name, offset) in [
        ("describe", offset_of!(LibraryTable, describe)),
        ("create", offset_of!(LibraryTable, create)),
        ("handle", offset_of!(LibraryTable, handle)),
        ("destroy", offset_of!(LibraryTable, destroy)),
    ] {
        // SAFETY: within the table, by its size. A function of Rust is never null, so that it is read as a number first.
        if unsafe { table.byte_add(offset).cast::<usize>().read_unaligned() } == 0 {
            return Err(refused(format!("its function `{name}` is null")));
        }
    }
    // SAFETY: as long as it must be, and its functions are there.
    let table = unsafe { read_table(table) }.ok_or_else(too_short)?;
    if table.pointer_size as usize != size_of::<*const ()>() {
        let bits = |bytes: usize| bytes * 8;
        let (found, expected) = (bits(table.pointer_size as usize), bits(size_of::<*const ()>()));
        return Err(refused(format!("it is for pointers of {found} bits, this host has {expected}")));
    }
    // SAFETY: a static text of the library.
    let target = unsafe { table.target.read() };
    if !is_for(&target, std::env::consts::ARCH, std::env::consts::OS) {
        return Err(LoadError::WrongArchitecture {
            path: path.to_owned(),
            expected: format!("{} ({})", std::env::consts::ARCH, std::env::consts::OS),
            found: target.into_owned(),
        });
    }
    if entry == Entry::C && table.unwinds == 0 {
        return Err(refused("it says that the library may end the process: `unwinds` is 0".to_owned()));
    }
    Ok(table)
}

/// Whether a target, a triple or the beginning of one, is this processor and system, as far as its words are known.
fn is_for(target: &str, processor: &str, system: &str) -> bool {
    let word = target.split('-').next().unwrap_or_default();
    let known = match word {
        "i386" | "i586" | "i686" => Some("x86"),
        "arm64" => Some("aarch64"),
        _ => ["x86_64", "x86", "aarch64", "arm", "riscv64", "powerpc64", "s390x", "loongarch64"]
            .into_iter()
            .find(|processor| word.starts_with(processor)),
    };
    let systems = [
        ("android", "android"),
        ("linux", "linux"),
        ("darwin", "macos"),
        ("windows", "windows"),
        ("freebsd", "freebsd"),
    ];
    let known_system = systems.into_iter().find(|(word, _)| target.split('-').any(|part| part == *word));
    known.is_none_or(|known| known == processor) && known_system.is_none_or(|(_, known)| known == system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_compared_by_processor_and_system() {
        for target in ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux", "x86_64-unknown", "unknown-unknown", ""] {
            assert!(is_for(target, "x86_64", "linux"), "{target}");
        }
        for target in ["aarch64-unknown-linux-gnu", "x86_64-pc-windows-msvc", "x86_64-apple-darwin", "i686-linux-gnu"] {
            assert!(!is_for(target, "x86_64", "linux"), "{target}");
        }
        assert!(is_for("arm64-apple-darwin", "aarch64", "macos"));
        assert!(is_for("riscv64gc-unknown-linux-gnu", "riscv64", "linux"));
        assert!(!is_for("aarch64-linux-android", "aarch64", "linux"));
    }
}
