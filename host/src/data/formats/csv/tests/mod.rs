//! Tables from their text to rows and targets.

mod columns;
mod cures;
mod dialects;
mod features;
mod labels;

use std::{io::Write, path::Path};

use proptest::prelude::*;

use super::*;

fn options(rest: &str) -> CsvOptions {
    toml::from_str(&format!("path = \"table.csv\"\n{rest}")).unwrap()
}

/// Features, shape of a sample, and targets.
type Parsed = (Vec<f64>, Vec<i64>, Targets);

fn parsed(rest: &str, text: &[u8]) -> Result<Parsed, DataError> {
    content(read(&options(rest), Source::Bytes(text))?.main)
}

fn content(pool: Pool) -> Result<Parsed, DataError> {
    let Pool { rows, sample_shape, targets, .. } = pool;
    let indices: Vec<u32> = (0..rows.len() as u32).collect();
    let mut features = vec![0.0; indices.len() * sample_shape.iter().product::<i64>() as usize];
    rows.read_stored(&indices, &mut features)?;
    Ok((features, sample_shape, targets))
}

fn target_of(rest: &str, text: &[u8]) -> Target {
    read(&options(rest), Source::Bytes(text)).unwrap().target
}

fn message(rest: &str, text: &[u8]) -> String {
    parsed(rest, text).unwrap_err().to_string()
}

/// The message and the hint.
fn advice(rest: &str, text: &[u8]) -> (String, String) {
    told(parsed(rest, text).map(drop))
}

fn told(result: Result<(), DataError>) -> (String, String) {
    let error = result.unwrap_err();
    (error.to_string(), error.hint().unwrap_or_default().into_owned())
}

fn notes(rest: &str, text: &[u8]) -> Vec<String> {
    read(&options(rest), Source::Bytes(text)).unwrap().notes
}

/// Reads `train.csv` and the split `test` with a file of its own.
fn with_test(rest: &str, train: &str, test: &str) -> Result<Pools, DataError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.csv"), train).unwrap();
    std::fs::write(folder.path().join("test.csv"), test).unwrap();
    let text = format!("path = \"train.csv\"\n{rest}\n[splits]\ntest = {{ path = \"test.csv\" }}");
    read(&toml::from_str(&text).unwrap(), Source::Folder(folder.path()))
}

/// Message and hint of the same, without the folder.
fn advice_with_test(rest: &str, train: &str, test: &str) -> (String, String) {
    let (message, hint) = told(with_test(rest, train, test).map(drop));
    (without_folders(&message), hint)
}

/// A message whose paths are file names.
fn without_folders(message: &str) -> String {
    let parts = message.split('`').map(|part| match part.rsplit_once('/') {
        Some((_, name)) if part.starts_with('/') => name,
        _ => part,
    });
    parts.collect::<Vec<_>>().join("`")
}

const THIRD: &str = "target = 2\nclasses = 3";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn features_and_classes_are_read_plain_and_compressed() {
    let text = b"1,2,0\n-3.5, 4e1 ,2.0\n";
    let expected = (vec![1.0, 2.0, -3.5, 40.0], vec![2], Targets::classes(vec![0, 2]));
    assert_eq!(parsed(THIRD, text).unwrap(), expected);
    assert_eq!(parsed(THIRD, &gzip(text)).unwrap(), expected);
}

#[test]
fn numbers_are_predicted_from_one_column_or_several() {
    let text = b"a,b,c\n1,0.5,7\n2,1,8\n";
    let one = "header = true\ntask = \"regression\"\ntarget = \"b\"";
    assert_eq!(target_of(one, text), Target::Values { names: vec!["b".to_owned()], within_unit: true });
    let several = "header = true\ntask = \"regression\"\ntarget = [\"c\", \"a\"]";
    let names = vec!["c".to_owned(), "a".to_owned()];
    assert_eq!(target_of(several, text), Target::Values { names, within_unit: false });
    let (features, _, targets) = parsed(several, text).unwrap();
    assert_eq!(features, [0.5, 1.0]);
    assert_eq!(targets, Targets::Values { values: vec![7.0, 1.0, 8.0, 2.0], width: 2 });
    assert!(message(&format!("{one}\nclasses = 2"), text).contains("omitted with `task"));
    assert!(message("header = true\ntarget = [\"a\", \"b\"]", text).contains("task = \"regression\""));
    assert_eq!(
        message("target = 0\ntask = \"regression\"", b"1,2\nNaN,3\n"),
        "`table.csv` line 2, column 1 (index 0): `NaN` is a missing target"
    );
}

#[test]
fn a_truncated_archive_and_a_missing_file_are_read_errors() {
    let whole = gzip("1,2,0\n".repeat(5000).as_bytes());
    let error = parsed(THIRD, &whole[..whole.len() / 2]).unwrap_err();
    assert!(matches!(&error, DataError::Read { path, .. } if path == Path::new("table.csv")), "{error}");
    let error = read(&options(THIRD), Source::Folder(Path::new("nowhere"))).err().unwrap();
    assert!(error.to_string().starts_with("failed to read `nowhere/table.csv`"));
}

#[test]
fn the_shape_takes_all_features() {
    let shaped = "target = 0\nclasses = 3\nshape = [1, 2, 2]";
    assert_eq!(parsed(shaped, b"0,1,2,3,4\n").unwrap().1, [1, 2, 2]);
    assert_eq!(message(shaped, b"0,1,2,3\n"), "`table.csv` has 3 features per line, but shape [1, 2, 2] needs 4");
}

#[test]
fn errors_name_the_place_and_the_text() {
    let message = |text: &[u8]| message(THIRD, text);
    assert_eq!(message(b"1,2,0\n1,x,0\n1,3,0\n"), "`table.csv` line 2, column 2 (index 1): `x` is not a number");
    assert_eq!(message(b"1,,0\n"), "`table.csv` line 1, column 2 (index 1): a blank cell is a missing value");
    assert_eq!(message(b"1,inf,0\n"), "`table.csv` line 1, column 2 (index 1): `inf` is not a finite 32-bit number");
    assert_eq!(message(b"1,1e39,0\n"), "`table.csv` line 1, column 2 (index 1): `1e39` is not a finite 32-bit number");
    assert_eq!(
        message(b"1,2,3\n"),
        "`table.csv` line 1, column 3 (index 2): `3` is not a class; the classes are 0 to 2"
    );
    assert_eq!(
        message(b"1,2,-1\n"),
        "`table.csv` line 1, column 3 (index 2): `-1` is not a class; the classes are 0 to 2"
    );
    assert_eq!(
        message(b"1,2,0.5\n"),
        "`table.csv` line 1, column 3 (index 2): `0.5` is not a whole number, which a class must be"
    );
    assert_eq!(message(b"1,2,0\n\n1,2\n"), "`table.csv` line 3 has 2 columns, but the lines before it have 3");
    assert_eq!(
        message(b"1,2,0\r\n\r\n\"1\",2,0\r\n1,z,0"),
        "`table.csv` line 4, column 2 (index 1): `z` is not a number"
    );
    assert_eq!(message(b""), "`table.csv` has no samples");
    assert_eq!(message(b"1,2\n"), "`table.csv` has no column `2`; it has columns 0 to 1");
    let long = format!("1,{},0\n1,2,0\n1,2,0\n", "y".repeat(1000));
    assert!(message(long.as_bytes()).len() < 200);
    let named = "header = true\ntarget = \"kind\"";
    let text = b"age,kind\n1,a\nx,b\n2,a\n";
    assert_eq!(self::message(named, text), "`table.csv` line 3, column 1 (`age`): `x` is not a number");
    assert_eq!(
        advice("target = 1", b"age,kind\n1,a\n2,b\n").1,
        "if the first line names the columns, set `header = true` in `[data]`"
    );
}

/// The options that say how a table is read, and texts with which cells and lines are made.
fn any_options() -> impl Strategy<Value = String> {
    let one_of = |key: &'static str, values: &'static [&'static str]| {
        prop::sample::select(values).prop_map(move |value| match value {
            "" => String::new(),
            value => format!("{key} = {value}\n"),
        })
    };
    (
        one_of("header", &["false", "true"]),
        one_of("task", &["\"classification\"", "\"regression\""]),
        one_of("delimiter", &["", "\",\"", "\";\"", "\"\\t\""]),
        one_of("quote", &["\"double\"", "\"single\"", "\"none\""]),
        one_of("decimal", &["\".\"", "\",\""]),
        one_of("encoding", &["", "\"latin-1\"", "\"utf-16\"", "\"shift_jis\""]),
        one_of("missing", &["\"error\"", "\"mean\"", "\"median\"", "\"zero\"", "\"drop\""]),
        one_of("missing_label", &["\"error\"", "\"drop\""]),
        one_of("categorical", &["", "[1]", "[1, 2]"]),
        one_of("categorical_as", &["", "\"one_hot\"", "\"index\""]),
        one_of("drop", &["", "[2]"]),
        one_of("first_class", &["", "", "1", "-1"]),
    )
        .prop_map(|(a, b, c, d, e, f, g, h, i, j, k, l)| [a, b, c, d, e, f, g, h, i, j, k, l].concat())
}

fn is_whole(rest: &str, bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(pools) = read(&options(rest), Source::Bytes(bytes)) else { return Ok(()) };
    let names = pools.samples.number_names().len();
    let (vocabulary, target, gaps) = (pools.samples.vocabulary(), pools.target.clone(), pools.gaps.is_some());
    let (features, shape, targets) = content(pools.main).unwrap();
    prop_assert!(!targets.is_empty());
    prop_assert_eq!(features.len(), targets.len() * shape[0] as usize);
    prop_assert!(names == 0 || names == shape[0] as usize);
    // NaN stands for what is missing, and for nothing else.
    prop_assert!(features.iter().all(|value| value.is_finite() || (gaps && value.is_nan())));
    if let Some(vocabulary) = vocabulary {
        prop_assert!(features.iter().all(|index| (0.0..vocabulary as f64).contains(index)));
    }
    if let (Targets::Classes { values, .. }, Target::Classes { count, names, .. }) = (&targets, target) {
        prop_assert!(values.iter().all(|class| (0..count as i64).contains(class)));
        prop_assert!(names.is_empty() || names.len() == count);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_give_a_whole_table_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        rest in any_options(),
        counted: bool,
    ) {
        let classes = if counted && !rest.contains("regression") { "classes = 3" } else { "" };
        is_whole(&format!("target = 0\n{rest}{classes}"), &bytes)?;
    }

    /// As above, of cells and separators that occur in files.
    #[test]
    fn any_cells_give_a_whole_table_or_an_error(
        cells in prop::collection::vec(
            prop::sample::select(vec![
                "0", "1", "2", "1.5", "1,5", "", "NA", "nan", "cat", "dog", "Paris", "$5", "5%", "2024-01-31", "\"a,b\"",
                "'x;y'", "\"", "\u{e9}", "1,234.5", "inf",
            ]),
            3..60,
        ),
        separator in prop::sample::select(vec![",", ";", "\t"]),
        end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        mark: bool,
        rest in any_options(),
    ) {
        let lines: Vec<String> = cells.chunks_exact(3).map(|cells| cells.join(separator)).collect();
        let text = format!("{}{}{end}", if mark { "\u{feff}" } else { "" }, lines.join(end));
        is_whole(&format!("target = 0\n{rest}"), text.as_bytes())?;
    }

    #[test]
    fn what_is_written_is_read(
        rows in prop::collection::vec((prop::array::uniform3(-1e30f64..1e30), 0i64..3), 1..40),
        compressed: bool,
    ) {
        let text: String = rows.iter().map(|([a, b, c], class)| format!("{a},{b},{class},{c}\n")).collect();
        let bytes = if compressed { gzip(text.as_bytes()) } else { text.into_bytes() };
        let (features, _, targets) = parsed(THIRD, &bytes).unwrap();
        prop_assert_eq!(targets, Targets::classes(rows.iter().map(|(_, class)| *class).collect()));
        prop_assert_eq!(features, rows.iter().flat_map(|(row, _)| *row).collect::<Vec<_>>());
    }

    /// In any dialect and encoding, with texts, missing cells, and columns in any order.
    #[test]
    fn what_is_written_in_another_dialect_is_read(
        rows in prop::collection::vec((prop::option::of(-1000f64..1000.0), 0usize..4, 0usize..3), 1..30),
        delimiter in prop::sample::select(vec![';', '\t', '|']),
        comma: bool,
        utf_16: bool,
        moved: bool,
    ) {
        let (cities, kinds) = (["Z\u{fc}rich", "Paris; or so", "1|2\t3", "say \"yes\""], ["a", "b\u{e9}", "c"]);
        let mut text = if moved { ["city", "x", "kind"] } else { ["x", "city", "kind"] }.join(&delimiter.to_string()) + "\n";
        for (x, city, kind) in &rows {
            let x = x.map_or("NA".to_owned(), |x| x.to_string());
            let x = if comma { x.replace('.', ",") } else { x };
            let city = format!("\"{}\"", cities[*city].replace('"', "\"\""));
            let (first, second) = if moved { (city, x) } else { (x, city) };
            text += &format!("{first}{delimiter}{second}{delimiter}{}\n", kinds[*kind]);
        }
        let bytes = match utf_16 {
            true => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            false => text.into_bytes(),
        };
        let rest = format!(
            "header = true\ntarget = \"kind\"\nfeatures = [\"x\", \"city\"]\ncategorical = [\"city\"]\nmissing = \"zero\"\n\
             classes = [\"a\", \"b\u{e9}\", \"c\"]\ndecimal = \"{}\"\nencoding = \"{}\"",
            if comma { ',' } else { '.' },
            if utf_16 { "utf-16" } else { "utf-8" },
        );
        let pools = read(&options(&rest), Source::Bytes(&bytes)).unwrap();
        let names = pools.samples.number_names();
        let (features, shape, targets) = content(pools.main).unwrap();
        prop_assert_eq!(targets, Targets::classes(rows.iter().map(|(.., kind)| *kind as i64).collect()));
        for ((x, city, _), row) in rows.iter().zip(features.chunks_exact(shape[0] as usize)) {
            prop_assert!(x.map_or(row[0].is_nan(), |x| row[0] == x));
            let hot: Vec<&str> = (1..row.len()).filter(|at| row[*at] == 1.0).map(|at| names[at].as_str()).collect();
            prop_assert_eq!(hot, [format!("city={}", cities[*city])]);
        }
    }
}
