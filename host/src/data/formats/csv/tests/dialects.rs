//! Delimiters, quotes, decimal separators and encodings.

use super::*;

/// The table of `1.5, 2, class a` and `3, 4.25, class b`.
fn expected() -> Parsed {
    (vec![1.5, 2.0, 3.0, 4.25], vec![2], Targets::classes(vec![0, 1]))
}

#[test]
fn delimiters_are_found() {
    for (delimiter, written) in [(',', ","), (';', ";"), ('\t', "\\t"), ('|', "|")] {
        let text = "1.5,2,a\n3,4.25,b\n".replace(',', &delimiter.to_string());
        assert_eq!(parsed("target = 2", text.as_bytes()).unwrap(), expected(), "{written}");
        let told = notes("target = 2", text.as_bytes());
        match delimiter {
            ',' => assert!(told.is_empty()),
            _ => assert_eq!(told, [format!("`table.csv`: columns are separated by `{written}`")]),
        }
        let given = format!("target = 2\ndelimiter = \"{written}\"");
        assert_eq!(parsed(&given, text.as_bytes()).unwrap(), expected());
        assert!(notes(&given, text.as_bytes()).is_empty());
    }
    let spaces = b"1.5 2 a\n3 4.25 b\n";
    assert_eq!(parsed("target = 2\ndelimiter = \" \"", spaces).unwrap(), expected());
    assert_eq!(
        advice("target = 2", spaces),
        (
            "`table.csv` has one column where columns are separated by `,`, but a feature and a target need two"
                .to_owned(),
            "set `delimiter = \" \"` in `[data]`".to_owned()
        )
    );
    let (_, hint) = advice("target = 2\ndelimiter = \";\"", b"1.5,2,a\n3,4.25,b\n");
    assert_eq!(hint, "set `delimiter = \",\"` in `[data]`");
    // In quotes it separates nothing.
    assert_eq!(parsed("target = 2", b"1.5,2,\"a\"\n3,4.25,\"b\"\n").unwrap(), expected());
    assert_eq!(parsed("target = 2", b"1.5,2,\"a;x\"\n3,4.25,\"b;y\"\n").unwrap(), expected());
    let unquoted = parsed("target = 2", b"1.5,2,a;x\n3,4.25,b;y\n").unwrap_err();
    assert!(unquoted.to_string().contains("may have its columns separated by `,` or `;`"), "{unquoted}");
}

#[test]
fn decimal_commas_are_read_by_option() {
    let text = b"1,5;2;a\n3;4,25;b\n";
    let comma = "target = 2\ndecimal = \",\"";
    assert_eq!(parsed(comma, text).unwrap(), expected());
    assert_eq!(parsed(comma, b"\"1,5\",\"2\",a\n\"3\",\"4,25\",b\n").unwrap(), expected());
    let (message, hint) = advice("target = 2", b"1,5;2;a\n3,5;4,25;b\n");
    assert_eq!(
        message,
        "`table.csv` line 1, column 1 (index 0): `1,5` has a comma, but numbers are read with a decimal point"
    );
    assert!(hint.starts_with("set `decimal = \",\"`"), "{hint}");
    // Commas and semicolons in every line alike.
    let (message, hint) = advice("target = 1", b"1,5;0\n2,5;1\n");
    assert_eq!(message, "`table.csv` may have its columns separated by `,` or `;`");
    assert_eq!(
        hint,
        "set `delimiter = \",\"` or `delimiter = \";\"` in `[data]`; if commas are decimal ones, `decimal = \",\"`, too"
    );
    assert_eq!(parsed("target = 1\ndecimal = \",\"", b"1,5;0\n2,5;1\n").unwrap().0, [1.5, 2.5]);
    // A class, too, may be written with decimals.
    assert_eq!(parsed("target = 1\ndecimal = \",\"", b"1,5;0,0\n2,5;1,0\n").unwrap().2, Targets::classes(vec![0, 1]));
    for (number, problem) in [("1.234,5", "thousands"), ("1.5", "has a point")] {
        let message = super::message(comma, format!("{number};2;a\n").as_bytes());
        assert!(message.contains(problem), "{message}");
    }
}

#[test]
fn numbers_of_spreadsheets_are_refused_by_name() {
    for (number, problem) in [
        ("\"1,234.5\"", "`1,234.5` has a separator of thousands"),
        ("1 234", "`1 234` has a separator of thousands"),
        ("$5", "`$5` has a currency sign"),
        ("7%", "`7%` has a percent sign"),
    ] {
        let text = format!("x,y\n{number},0\n2,1\n");
        let (message, hint) = advice("header = true\ntarget = \"y\"", text.as_bytes());
        assert_eq!(message, format!("`table.csv` line 2, column 1 (`x`): {problem}"));
        assert!(hint.starts_with("write the number without it"), "{hint}");
    }
}

#[test]
fn quotes_are_double_single_or_none() {
    let single = "target = 1\nquote = \"single\"";
    assert_eq!(names_of(single, b"1,'a,b'\n2,'it''s'\n"), ["a,b", "it's"]);
    assert_eq!(names_of("target = 1\nquote = \"none\"", b"1,\"a\n2,b\"\n"), ["\"a", "b\""]);
    assert_eq!(names_of("target = 1", b"1,\"a \"\"b\"\"\"\n2,c\"d\n"), ["a \"b\"", "c\"d"]);
    for text in ["1,a\n2,\"b\n3,c\n4,d\n", "1,a\n\"2,b\n", "\u{feff}\"1,a\n2,b\n", "1,a\n2,b\n3,\"\"\"\n"] {
        let (message, hint) = advice("target = 1", text.as_bytes());
        let line = text.lines().position(|line| line.contains('"')).unwrap() + 1;
        assert_eq!(message, format!("`table.csv` line {line} begins a quoted text that does not end"), "{text}");
        assert!(hint.contains("quote = \"none\""), "{hint}");
    }
}

fn names_of(rest: &str, text: &[u8]) -> Vec<String> {
    match target_of(rest, text) {
        Target::Classes { names, .. } => names,
        Target::Values { names, .. } => names,
    }
}

#[test]
fn texts_are_read_in_their_encoding() {
    let text = "1.5,2,a\u{e9}\n3,4.25,b\u{20ac}\n";
    let utf_16 = |to_bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to_bytes).collect::<Vec<u8>>();
    let marked = |mark: &[u8], rest: Vec<u8>| [mark, &rest].concat();
    for (encoding, bytes) in [
        ("utf-8", text.as_bytes().to_vec()),
        ("utf-8", marked(b"\xef\xbb\xbf", text.as_bytes().to_vec())),
        ("windows-1252", b"1.5,2,a\xe9\n3,4.25,b\x80\n".to_vec()),
        ("utf-16", utf_16(u16::to_le_bytes)),
        ("utf-16", marked(b"\xff\xfe", utf_16(u16::to_le_bytes))),
        ("utf-16", marked(b"\xfe\xff", utf_16(u16::to_be_bytes))),
        ("utf-16be", utf_16(u16::to_be_bytes)),
    ] {
        let rest = format!("target = 2\nencoding = \"{encoding}\"");
        assert_eq!(parsed(&rest, &bytes).unwrap(), expected(), "{encoding}");
        assert_eq!(names_of(&rest, &bytes), ["a\u{e9}", "b\u{20ac}"]);
        if encoding.starts_with("utf-16") {
            let (message, hint) = advice("target = 2", &bytes);
            assert!(message.starts_with("`table.csv` seems to be UTF-16: "), "{message}");
            assert!(hint.starts_with("set `encoding = \"utf-16"), "{hint}");
        }
    }
    let (message, hint) = advice("target = 1\nencoding = \"shift_jis\"", b"1,a\n2,\x81\xff\n");
    assert_eq!(message, "`table.csv` line 2 is not shift_jis");
    assert!(hint.contains("`encoding`"), "{hint}");
    let header = b"\xef\xbb\xbfx,y\n1,0\n2,1\n";
    assert_eq!(parsed("header = true\ntarget = \"y\"\nfeatures = [\"x\"]", header).unwrap().0, [1.0, 2.0]);
}
