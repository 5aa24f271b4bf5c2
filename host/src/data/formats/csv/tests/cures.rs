//! Hints cure: the key that a hint names reads the file.

use super::*;

/// Options and a text that are refused, a part of the hint, and the options that it asks for.
const CASES: &[(&str, &[u8], &str, &str)] = &[
    (
        "target = 1",
        b"caf\xe9,0\nth\xe9,1\n",
        "encoding = \"windows-1252\"",
        "target = 1\nencoding = \"windows-1252\"\ncategorical = [0]",
    ),
    (
        "target = 1",
        b"\xff\xfe1\x00,\x000\x00\n\x002\x00,\x001\x00\n\x00",
        "encoding = \"utf-16\"",
        "target = 1\nencoding = \"utf-16\"",
    ),
    ("target = 1", b"\"1,0\n2,1\n", "quote = \"none\"", "target = 1\nquote = \"none\"\ncategorical = [0]"),
    ("target = 1\ndelimiter = \",\"", b"1;0\n2;1\n", "delimiter = \";\"", "target = 1\ndelimiter = \";\""),
    ("header = true\ntarget = 1", b"1,0\n2,1\n", "header = false", "header = false\ntarget = 1"),
    ("target = \"y\"", b"x,y\n1,0\n2,1\n", "header = true", "header = true\ntarget = \"y\""),
    (
        "header = true\ntarget = \"kidn\"",
        b"x,kind\n1,0\n2,1\n",
        "did you mean `kind`?",
        "header = true\ntarget = \"kind\"",
    ),
    ("target = 1", b"Rome,0\nParis,1\n", "categorical = [0]", "target = 1\ncategorical = [0]"),
    ("target = 2", b"2024-01-31,1,0\n2024-02-01,2,1\n", "drop = [0]", "target = 2\ndrop = [0]"),
    (
        "target = 1\ndelimiter = \";\"",
        b"1,5;0\n2,5;1\n",
        "decimal = \",\"",
        "target = 1\ndelimiter = \";\"\ndecimal = \",\"",
    ),
    (
        "header = true\ntarget = 1",
        b"x,y\n1,0\n,1\n3,1\n",
        "`\"mean\"`",
        "header = true\ntarget = 1\nmissing = \"mean\"",
    ),
    ("target = 1", b"1,0\n2,1\n3,\n", "missing_label = \"drop\"", "target = 1\nmissing_label = \"drop\""),
    (
        "header = true\ntarget = 1",
        b"x,y\n1,0\n2,1\n?,1\n",
        "missing_values = [\"?\"]",
        "header = true\ntarget = 1\nmissing_values = [\"?\"]\nmissing = \"zero\"",
    ),
    (
        "header = true\ntarget = 1",
        b"x,y,w\n1,0,1\n2,1,2\n$5,1,3\n",
        "drop = [\"x\"]",
        "header = true\ntarget = 1\ndrop = [\"x\"]",
    ),
    ("target = 1", b"1,0.5\n2,1.5\n", "task = \"regression\"", "target = 1\ntask = \"regression\""),
    ("target = 1", b"1,0.5\n2,1.5\n", "classes = [\"0.5\", \"1.5\"]", "target = 1\nclasses = [\"0.5\", \"1.5\"]"),
    ("target = 1", b"1,1\n2,2\n3,1\n", "first_class = 1", "target = 1\nfirst_class = 1"),
    ("target = 1\nclasses = 2", b"1,1\n2,2\n3,1\n", "first_class = 1", "target = 1\nclasses = 2\nfirst_class = 1"),
    (
        "target = 1",
        b"1,0\n2,1\n3,cat\n",
        "missing_values",
        "target = 1\nmissing_values = [\"cat\"]\nmissing_label = \"drop\"",
    ),
    (
        "target = 1\nclasses = [\"cat\", \"dog\"]",
        b"1,cat\n2,dgo\n",
        "did you mean `dog`?",
        "target = 1\nclasses = [\"cat\", \"dgo\"]",
    ),
];

#[test]
fn the_key_that_a_hint_names_reads_the_file() {
    for (rest, text, key, cure) in CASES {
        let (message, hint) = advice(rest, text);
        assert!(hint.contains(key), "{message}: {hint}");
        if let Err(error) = parsed(cure, text) {
            panic!("after {hint}: {error}");
        }
    }
}
