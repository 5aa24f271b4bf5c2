//! The libraries that a library finds beside itself, by `$ORIGIN` in its run path.

use std::collections::VecDeque;
use std::path::{Component, Path, PathBuf};

use object::read::elf::{ElfFile, FileHeader};
use object::{ReadRef, elf};
use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::regular_file::{self, LARGEST, NotRead};

/// The most libraries that are looked for.
const MOST: usize = 256;

/// A library beside another one, and its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Neighbor {
    /// The file, relative to the folder of the library that needs it, with `/` between folders; it may begin with `../`.
    pub file: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Checksum,
}

/// What an ELF library says of what it needs.
#[derive(Default)]
struct Needs {
    libraries: Vec<String>,
    /// Where they are looked for, and whether those that they need are looked for there, too.
    folders: Vec<String>,
    is_inherited: bool,
}

impl Needs {
    /// What the loader would look for in the working folder: a library with a folder in its name, or all of them in a relative
    /// folder.
    fn in_working_folder(&self) -> Option<String> {
        let is_origin = |folder: &str| folder.starts_with("$ORIGIN") || folder.starts_with("${ORIGIN}");
        let by_name = self.libraries.iter().find(|library| library.contains('/') && !library.starts_with('/'));
        let by_folder = self.folders.iter().find(|folder| !is_origin(folder) && !folder.starts_with('/'));
        by_name
            .map(|library| format!("`{library}`"))
            .or_else(|| by_folder.map(|folder| format!("libraries by `{folder}`")))
    }
}

/// The libraries beside the one at `path`, whose content is `bytes`, that it needs, and that those need. What the system has
/// itself is none of them.
///
/// # Errors
///
/// One that is there and cannot be read; a library that looks for others in the working folder, which may be anybody's.
pub fn of(path: &Path, bytes: &[u8]) -> Result<Vec<Neighbor>, (PathBuf, NotRead)> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut found: Vec<Neighbor> = Vec::new();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut left = VecDeque::from([(name, String::new(), needs(bytes), Vec::new())]);
    while let Some((file, within, needs, inherited)) = left.pop_front() {
        let mut folders = needs.folders.iter().filter_map(|folder| from_origin(folder, &within)).collect::<Vec<_>>();
        let passed_on =
            if needs.is_inherited { [folders.clone(), inherited.clone()].concat() } else { inherited.clone() };
        folders.extend(inherited);
        if let Some(what) = needs.in_working_folder() {
            let text = format!(
                "it looks for {what} in the working folder: link it with a run path that begins with `$ORIGIN`"
            );
            return Err((folder.join(&file), NotRead::System(std::io::Error::other(text))));
        }
        for library in &needs.libraries {
            let candidates = folders.iter().filter_map(|within| joined(within, library));
            let Some(file) = candidates.into_iter().find(|file| folder.join(file).exists()) else { continue };
            if found.iter().any(|known| known.file == file) || found.len() == MOST {
                continue;
            }
            let path = folder.join(&file);
            let bytes = regular_file::read(&path, LARGEST).map_err(|error| (path, error))?;
            let within = file.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            left.push_back((file.clone(), within, self::needs(&bytes), passed_on.clone()));
            found.push(Neighbor { file, size: bytes.len() as u64, sha256: Checksum::of(&bytes) });
        }
    }
    found.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(found)
}

/// `$ORIGIN/lib` of a library in the folder `within`, relative to the first library's folder.
fn from_origin(folder: &str, within: &str) -> Option<String> {
    let rest = folder.strip_prefix("$ORIGIN").or_else(|| folder.strip_prefix("${ORIGIN}"))?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    joined(within, rest.trim_start_matches('/'))
}

/// `path` in the folder `within`, both relative, without `.` and with `..` at the beginning only.
pub(super) fn joined(within: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for text in [within, path] {
        for component in Path::new(text).components() {
            match component {
                Component::Normal(name) => parts.push(name.to_str()?),
                Component::ParentDir if parts.last().is_none_or(|last| *last == "..") => parts.push(".."),
                Component::ParentDir => {
                    parts.pop();
                }
                Component::CurDir => {}
                Component::RootDir | Component::Prefix(_) => return None,
            }
        }
    }
    Some(parts.join("/"))
}

fn needs(bytes: &[u8]) -> Needs {
    match object::FileKind::parse(bytes) {
        Ok(object::FileKind::Elf64) => {
            ElfFile::<elf::FileHeader64<object::Endianness>>::parse(bytes).ok().and_then(|file| read(&file))
        }
        Ok(object::FileKind::Elf32) => {
            ElfFile::<elf::FileHeader32<object::Endianness>>::parse(bytes).ok().and_then(|file| read(&file))
        }
        _ => None,
    }
    .unwrap_or_default()
}

fn read<'data, H: FileHeader, R: ReadRef<'data>>(file: &ElfFile<'data, H, R>) -> Option<Needs> {
    let table = file.elf_dynamic_table().ok()?;
    let mut needs = Needs::default();
    // A run path takes the place of the older kind of path, which is inherited.
    let (mut run_path, mut old_path) = (Vec::new(), Vec::new());
    for entry in table.iter() {
        let text = || Some(std::str::from_utf8(table.string(entry).ok()?).ok()?.to_owned());
        let folders = |text: String| text.split(':').map(str::to_owned).collect::<Vec<_>>();
        match entry.tag {
            elf::DT_NEEDED => needs.libraries.extend(text()),
            elf::DT_RUNPATH => run_path.extend(text().map(folders).unwrap_or_default()),
            elf::DT_RPATH => old_path.extend(text().map(folders).unwrap_or_default()),
            _ => {}
        }
    }
    needs.is_inherited = run_path.is_empty();
    needs.folders = if run_path.is_empty() { old_path } else { run_path };
    Some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_first_library() {
        let origin = |folder: &str, within: &str| from_origin(folder, within);
        assert_eq!(origin("$ORIGIN", ""), Some(String::new()));
        assert_eq!(origin("${ORIGIN}/./lib/", ""), Some("lib".to_owned()));
        assert_eq!(origin("$ORIGIN/../../a", "lib"), Some("../a".to_owned()));
        assert_eq!(origin("$ORIGIN/../lib", ""), Some("../lib".to_owned()));
        assert_eq!(origin("$ORIGINAL", ""), None);
        assert_eq!(origin("/usr/lib", ""), None);
        assert_eq!(joined("lib", "/etc/passwd"), None);
    }

    #[test]
    fn what_is_no_library_needs_nothing() {
        for bytes in [&b""[..], b"\x7fELF\x02\x01\x01", b"text"] {
            assert_eq!(of(Path::new("/nowhere/libx.so"), bytes).unwrap(), []);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_a_library_needs_is_found_beside_it_and_beside_its_neighbors() {
        let folder = tempfile::tempdir().unwrap();
        let compile = |output: &str, source: &str, arguments: &[&str]| {
            std::fs::write(folder.path().join("source.c"), source).unwrap();
            let mut command = std::process::Command::new("cc");
            command.current_dir(&folder).args(["-shared", "-fPIC", "-o", output, "source.c"]).args(arguments);
            assert!(command.status().unwrap().success(), "{output}");
        };
        std::fs::create_dir_all(folder.path().join("plugins/lib")).unwrap();
        compile("plugins/lib/libinner.so", "int inner(void) { return 1; }", &[]);
        let inner = ["-Lplugins/lib", "-linner", "-Wl,-rpath,$ORIGIN"];
        compile("plugins/lib/libouter.so", "int inner(void); int outer(void) { return inner(); }", &inner);
        let outer = ["-Lplugins/lib", "-louter", "-Wl,-rpath,$ORIGIN/lib", "-Wl,--allow-shlib-undefined"];
        compile("plugins/libmine.so", "int outer(void); int mine(void) { return outer(); }", &outer);
        let library = folder.path().join("plugins/libmine.so");
        let found = of(&library, &std::fs::read(&library).unwrap()).unwrap();
        let files: Vec<&str> = found.iter().map(|neighbor| neighbor.file.as_str()).collect();
        assert_eq!(files, ["lib/libinner.so", "lib/libouter.so"]);
        let inner = std::fs::read(folder.path().join("plugins/lib/libinner.so")).unwrap();
        assert_eq!((found[0].size, found[0].sha256), (inner.len() as u64, Checksum::of(&inner)));
    }
}
