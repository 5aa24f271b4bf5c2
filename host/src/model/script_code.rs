//! What the code of a TorchScript module may call.
//!
//! A module is a stranger's file, and libtorch runs parts of it while it loads it. So its source is looked at before.

/// Operators of libtorch that read or write files. Only a name after a dot calls one; whose the name is, the source alone does
/// not say, so a method of the model's own with such a name is refused, too.
const OF_FILES: [&str; 2] = ["from_file", "save"];

/// Calls of other processes.
const REMOTE: [&str; 3] = ["rpc_async", "rpc_remote", "rpc_sync"];

/// The libraries of operators that compute. Others register operators for networks, streams, and tests.
const LIBRARIES: [&str; 3] = ["aten", "prim", "quantized"];

/// The first thing in `source` that a module may not do, as the object of "its code"; `None` if there is none.
pub(super) fn refused(source: &str) -> Option<String> {
    let mut rest = source;
    // Whether a dot came last, and the name before it, if that is no attribute itself.
    let (mut after_dot, mut root) = (false, "");
    while let Some((token, after)) = next(rest) {
        rest = after;
        match token {
            Token::Dot => after_dot = true,
            Token::Name(name) => {
                let is_library = after_dot && root == "ops";
                if REMOTE.contains(&name) || after_dot && OF_FILES.contains(&name) {
                    return Some(format!("calls the operator `{name}`"));
                }
                if is_library && !LIBRARIES.contains(&name) {
                    return Some(format!("calls an operator of the library `{name}`"));
                }
                (root, after_dot) = (if after_dot { "" } else { name }, false);
            }
            Token::Other => (after_dot, root) = (false, ""),
            Token::Broken => return Some("has a string without an end".to_owned()),
        }
    }
    None
}

/// A part of Python's grammar.
enum Token<'s> {
    Name(&'s str),
    Dot,
    /// A number, a string, or an operator.
    Other,
    /// A string that does not end in its line.
    Broken,
}

/// The first token of `source`, and what follows it. Spaces, joined lines, and comments are none.
fn next(mut source: &str) -> Option<(Token<'_>, &str)> {
    loop {
        let trimmed = source.trim_start_matches(|letter: char| letter.is_whitespace() || letter == '\\');
        match trimmed.strip_prefix('#') {
            Some(comment) => source = comment.find('\n').map_or("", |end| &comment[end..]),
            None => {
                source = trimmed;
                break;
            }
        }
    }
    let first = source.chars().next()?;
    let is_part = |letter: char| letter == '_' || letter.is_alphanumeric();
    if is_part(first) {
        let (name, rest) = source.split_at(source.find(|letter| !is_part(letter)).unwrap_or(source.len()));
        let token = if first.is_numeric() { Token::Other } else { Token::Name(name) };
        return Some((token, rest));
    }
    match first {
        '.' => Some((Token::Dot, &source[1..])),
        '"' | '\'' => Some(match after_string(source, first) {
            Some(rest) => (Token::Other, rest),
            None => (Token::Broken, ""),
        }),
        _ => Some((Token::Other, &source[first.len_utf8()..])),
    }
}

/// What follows the string at the start of `source`; `None` if it has no end, or, with single quotes, none in its line.
fn after_string(source: &str, quote: char) -> Option<&str> {
    let triple: String = std::iter::repeat_n(quote, 3).collect();
    let is_triple = source.starts_with(&triple);
    let mut rest = &source[if is_triple { 3 } else { 1 }..];
    loop {
        if let Some(after) = if is_triple { rest.strip_prefix(&triple) } else { rest.strip_prefix(quote) } {
            return Some(after);
        }
        let mut letters = rest.chars();
        match letters.next()? {
            '\n' if !is_triple => return None,
            // What is escaped does not end the string.
            '\\' => drop(letters.next()?),
            _ => {}
        }
        rest = letters.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_touch_files_or_processes_are_found_however_they_are_written() {
        let files = Some("calls the operator `from_file`".to_owned());
        for source in [
            "x = torch.from_file(\"/etc/passwd\", False, 8)",
            "x = ops.aten.from_file(\"/etc/passwd\")",
            "x = torch . from_file(path)",
            "x = (torch.  # a comment\n from_file)(path)",
            "x = torch.\\\n from_file(path)",
            "x = (\"#\", 'it\\'s', torch.from_file(path))",
            "\"\"\"a \" text\"\"\"; torch.from_file(path)",
        ] {
            assert_eq!(refused(source), files, "{source}");
        }
        assert_eq!(refused("_0 = (x).save(\"/tmp/file\")").unwrap(), "calls the operator `save`");
        assert_eq!(refused("_0 = rpc_async(\"worker\", f)").unwrap(), "calls the operator `rpc_async`");
        assert_eq!(refused("ops.c10d.barrier(x)").unwrap(), "calls an operator of the library `c10d`");
        assert_eq!(refused("x = 'no end\ntorch.relu(x)").unwrap(), "has a string without an end");
    }

    #[test]
    fn what_computes_is_not_refused() {
        let source = r#"
class Net(Module):
  __parameters__ = ["weight", ]
  training : bool
  def forward(self: __torch__.Net, x: Tensor) -> Tensor:
    # torch.save
    save = ops.prim.NumToTensor(torch.size(x, 0))
    saved = self.ops.save_less
    _0 = "torch.from_file: no \" such thing"
    _1 = uninitialized(Tensor)
    return torch.mul(torch.relu(save), 0.5)
"#;
        assert_eq!(refused(source), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_to_its_end(source in "(?s)([a-z.#'\"\\\\\n ]|\\PC){0,40}") {
            let _ = refused(&source);
        }
    }
}
