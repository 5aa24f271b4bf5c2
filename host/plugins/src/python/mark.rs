//! Which files of Python are plugins: those with the line `# host-plugin: KIND` at their top level. They are read for it, never
//! executed.

use std::path::{Path, PathBuf};

use crate::regular_file;

/// What begins the line, after its `#`.
const MARK: &str = "host-plugin:";

/// The longest source file that is looked at, in bytes.
pub(super) const LONGEST: u64 = 4 << 20;

/// The most source files of a folder that are looked at.
const MOST: usize = 1000;

/// Whether a path is that of a source file of Python.
pub(crate) fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "py")
}

/// The source files of a folder that are plugins, each with its kinds, by file name. One that cannot be read is none.
pub(crate) fn sources_in(folder: &Path) -> Vec<(PathBuf, Vec<String>)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_source(path)).collect();
    files.sort();
    files.truncate(MOST);
    let marked = files.into_iter().filter_map(|path| {
        let kinds = kinds_in(&read(&path).ok()?);
        (!kinds.is_empty()).then_some((path, kinds))
    });
    marked.collect()
}

/// The kinds of a source file.
///
/// # Errors
///
/// When it cannot be read, is no file, or is longer than [`LONGEST`].
pub(crate) fn kinds_of(path: &Path) -> std::io::Result<Vec<String>> {
    Ok(kinds_in(&read(path)?))
}

/// The content of a source file.
pub(super) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    Ok(regular_file::read(path, LONGEST)?)
}

/// The kinds that marks in a source name, in their order: comments that begin a line, outside of strings.
fn kinds_in(source: &[u8]) -> Vec<String> {
    let mut kinds: Vec<String> = Vec::new();
    let mut rest = source;
    let mut begins_line = true;
    while let Some(&byte) = rest.first() {
        match byte {
            b'#' => {
                let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
                let kind = begins_line.then(|| marked(&rest[1..end])).flatten();
                kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
                rest = &rest[end..];
            }
            b'"' | b'\'' => rest = after_string(rest, byte),
            _ => {
                begins_line = byte == b'\n';
                // A character that is escaped outside of strings is the end of a line that goes on.
                rest = &rest[if byte == b'\\' { 2.min(rest.len()) } else { 1 }..];
                continue;
            }
        }
        begins_line = false;
    }
    kinds
}

/// The kind that a comment names, without its `#`.
fn marked(comment: &[u8]) -> Option<String> {
    let kind = std::str::from_utf8(comment).ok()?.trim().strip_prefix(MARK)?.trim();
    let is_kind = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    (!kind.is_empty() && kind.len() <= 100 && kind.chars().all(is_kind)).then(|| kind.to_owned())
}

/// What follows a string that begins here with `quote`, once or three times. One that does not end goes on to the end of its
/// line or, with three, of the file.
fn after_string(source: &[u8], quote: u8) -> &[u8] {
    let triple = [quote; 3];
    let is_long = source.starts_with(&triple);
    let mut rest = &source[if is_long { 3 } else { 1 }..];
    while let Some(&byte) = rest.first() {
        match byte {
            b'\\' => rest = &rest[2.min(rest.len())..],
            _ if is_long && rest.starts_with(&triple) => return &rest[3..],
            b'\n' if !is_long => return rest,
            _ if !is_long && byte == quote => return &rest[1..],
            _ => rest = &rest[1..],
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(source: &str) -> Vec<String> {
        kinds_in(source.as_bytes())
    }

    #[test]
    fn a_mark_is_a_comment_that_begins_a_line_outside_of_strings() {
        assert_eq!(kinds("#!/usr/bin/env python3\n# host-plugin: mine\n#host-plugin:other-2\n"), ["mine", "other-2"]);
        assert_eq!(kinds("# host-plugin: mine"), ["mine"]);
        assert_eq!(kinds("import a\r\n# host-plugin: mine\r\n"), ["mine"]);
        assert_eq!(kinds("'''\n# host-plugin: no\n'''\n# host-plugin: yes\n"), ["yes"]);
        assert_eq!(kinds("\"\"\"It's \\\"\"\" still\n# host-plugin: no\n\"\"\"\n# host-plugin: yes\n"), ["yes"]);
        assert_eq!(
            kinds("x = '\\'' # it's\n# host-plugin: yes\ny = 'not closed\n# host-plugin: too\n"),
            ["yes", "too"]
        );
        for none in [
            "  # host-plugin: indented\n",
            "x = 1 # host-plugin: behind\n",
            "# host-plugin: Upper\n",
            "# host-plugin:\n",
            "# host-plugin: two words\n",
            "## host-plugin: mine\n",
            "x = \\\n# host-plugin: mine\n",
            "'''\n# host-plugin: mine\n",
        ] {
            assert_eq!(kinds(none), Vec::<String>::new(), "{none}");
        }
        assert_eq!(kinds("# host-plugin: a\n# host-plugin: a\n"), ["a"]);
    }

    #[test]
    fn only_files_of_python_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
        write("b.py", b"# host-plugin: b\n");
        write("a.py", b"\xff\n# host-plugin: a\n");
        write("c.txt", b"# host-plugin: c\n");
        write("d.py", b"x = 1\n");
        write("e.py", &[vec![b'\n'; LONGEST as usize], b"# host-plugin: e\n".to_vec()].concat());
        std::fs::create_dir(folder.path().join("f.py")).unwrap();
        let found = sources_in(folder.path());
        let named = |name: &str, kind: &str| (folder.path().join(name), vec![kind.to_owned()]);
        assert_eq!(found, [named("a.py", "a"), named("b.py", "b")]);
        assert!(kinds_of(&folder.path().join("f.py")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_their_end(source in proptest::collection::vec(
            prop_oneof![Just(b'\''), Just(b'"'), Just(b'\\'), Just(b'#'), Just(b'\n'), any::<u8>()], 0..200,
        )) {
            kinds_in(&source);
        }

        #[test]
        fn a_mark_after_whole_lines_is_found(lines in proptest::collection::vec("[a-z0-9 =()#]{0,20}", 0..20)) {
            let source = format!("{}\n# host-plugin: mine\n", lines.join("\n"));
            prop_assert!(kinds(&source).contains(&"mine".to_owned()));
        }
    }
}
