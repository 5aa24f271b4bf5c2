//! Looks at a library's file before it is opened: opening runs its constructors.

use std::path::Path;

use object::{Architecture, BinaryFormat, Object, ObjectSegment, ObjectSymbol};

use super::entry::Entry;
use super::error::LoadError;

/// Refuses a file that the system's loader could not use, or that is no plugin: its content is `bytes`. Gives its entry,
/// where the file tells.
pub(super) fn inspect(path: &Path, bytes: &[u8]) -> Result<Option<Entry>, LoadError> {
    let kind = object::FileKind::parse(bytes).map_err(|_| LoadError::NotALibrary { path: path.to_owned() })?;
    if let Some((expected, found)) = promised_length(bytes)
        && expected > found
    {
        return Err(LoadError::Truncated { path: path.to_owned(), expected, found });
    }
    let file = match kind {
        object::FileKind::Elf32
        | object::FileKind::Elf64
        | object::FileKind::MachO32
        | object::FileKind::MachO64
        | object::FileKind::Pe32
        | object::FileKind::Pe64 => object::File::parse(bytes)
            .map_err(|error| LoadError::Damaged { path: path.to_owned(), detail: error.to_string() })?,
        // A universal Mach-O holds several; the system picks.
        object::FileKind::MachOFat32 | object::FileKind::MachOFat64 => return Ok(None),
        _ => return Err(LoadError::NotALibrary { path: path.to_owned() }),
    };
    if !matches!(file.kind(), object::ObjectKind::Dynamic) {
        return Err(LoadError::NotALibrary { path: path.to_owned() });
    }
    let (expected, found) = (this_host(), (file.format(), file.architecture()));
    if let Some(expected) = expected
        && expected != found
    {
        return Err(LoadError::WrongArchitecture {
            path: path.to_owned(),
            expected: target_name(expected),
            found: target_name(found),
        });
    }
    for segment in file.segments() {
        let (offset, size) = segment.file_range();
        let end = offset.saturating_add(size);
        if end > bytes.len() as u64 {
            return Err(LoadError::Truncated { path: path.to_owned(), expected: end, found: bytes.len() as u64 });
        }
    }
    let exported = exported(&file);
    Entry::of(path, |symbol| exported.iter().any(|name| is_called(name, symbol))).map(Some)
}

/// The names of what a library defines for others.
fn exported(file: &object::File<'_>) -> Vec<String> {
    let symbols = file.dynamic_symbols().filter(|symbol| symbol.is_definition());
    let names = symbols.filter_map(|symbol| Some(symbol.name().ok()?.to_owned()));
    let exports = file.exports().into_iter().flatten().filter_map(Result::ok);
    let exports = exports.filter_map(|export| match export.name() {
        object::read::NameOrOrdinal::Name(name) => Some(std::str::from_utf8(name).ok()?.to_owned()),
        _ => None,
    });
    names.chain(exports).collect()
}

/// Mach-O puts an underscore in front.
fn is_called(name: &str, symbol: &str) -> bool {
    name == symbol || name.strip_prefix('_') == Some(symbol)
}

/// The length that a 64-bit little-endian ELF promises by its section table, which lies at its end,
/// and the length that it has: `object` reports a file cut there only as damaged.
fn promised_length(bytes: &[u8]) -> Option<(u64, u64)> {
    // Source: ELF-64 Object File Format, version 1.5: e_shoff, e_shentsize, e_shnum.
    const SECTION_TABLE: std::ops::Range<usize> = 40..48;
    const ENTRY_SIZE: std::ops::Range<usize> = 58..60;
    const ENTRY_COUNT: std::ops::Range<usize> = 60..62;
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = u64::from_le_bytes(bytes.get(SECTION_TABLE)?.try_into().ok()?);
    let size = u16::from_le_bytes(bytes.get(ENTRY_SIZE)?.try_into().ok()?);
    let count = u16::from_le_bytes(bytes.get(ENTRY_COUNT)?.try_into().ok()?);
    let end = table.checked_add(u64::from(size) * u64::from(count))?;
    Some((end, bytes.len() as u64))
}

/// What a library must be built for; `None` on a processor that this list does not know.
fn this_host() -> Option<(BinaryFormat, Architecture)> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => Architecture::X86_64,
        "x86" => Architecture::I386,
        "aarch64" => Architecture::Aarch64,
        "arm" => Architecture::Arm,
        "riscv64" => Architecture::Riscv64,
        "powerpc64" => Architecture::PowerPc64,
        _ => return None,
    };
    let format = match std::env::consts::OS {
        "windows" => BinaryFormat::Pe,
        "macos" | "ios" => BinaryFormat::MachO,
        _ => BinaryFormat::Elf,
    };
    Some((format, architecture))
}

/// This host's target, as locks and packages call it: processor and system.
pub fn this_target() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Whether a content begins like a shared library of some system: so much is read of a file before the rest.
pub(super) fn begins_like_a_library(start: &[u8]) -> bool {
    // Sources: ELF-64 Object File Format 1.5; `mach-o/loader.h` and `mach-o/fat.h` of macOS; the PE format's DOS stub.
    const STARTS: [&[u8]; 8] = [
        b"\x7fELF",
        &[0xfe, 0xed, 0xfa, 0xce],
        &[0xfe, 0xed, 0xfa, 0xcf],
        &[0xce, 0xfa, 0xed, 0xfe],
        &[0xcf, 0xfa, 0xed, 0xfe],
        &[0xca, 0xfe, 0xba, 0xbe],
        &[0xca, 0xfe, 0xba, 0xbf],
        b"MZ",
    ];
    STARTS.iter().any(|known| start.starts_with(known))
}

fn target_name((format, architecture): (BinaryFormat, Architecture)) -> String {
    let system = match format {
        BinaryFormat::Pe => "Windows",
        BinaryFormat::MachO => "macOS",
        BinaryFormat::Elf => "ELF",
        _ => "another format",
    };
    format!("{architecture:?} ({system})")
}
