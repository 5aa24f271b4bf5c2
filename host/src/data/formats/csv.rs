//! CSV files (RFC 4180), plain or compressed with gzip (RFC 1952).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csv::{ByteRecord, ReaderBuilder, Trim};

use super::{Pool, Pools, file};
use crate::data::classes::ClassTable;
use crate::data::narrowing;
use crate::data::options::{Column, CsvOptions, Task};
use crate::data::rows::Table;
use crate::data::split::Place;
use crate::data::{DataError, Source, Target, Targets};
use crate::report::did_you_mean;

/// A longer field is shortened in messages.
const SHOWN_CHARACTERS: usize = 40;

/// Reads whole files: the values take as much memory as their text, and errors can name the line.
pub(in crate::data) fn read(options: &CsvOptions, source: Source<'_>) -> Result<Pools, DataError> {
    let parse = |path: &Path| CsvFile::open(options, path, source)?.parse();
    let main = parse(&options.path)?;
    let mut given = BTreeMap::new();
    let mut held_out = BTreeMap::new();
    for (name, split) in &options.splits {
        match Place::of(name, split.fraction, split.stratified, split.path.as_deref())? {
            Place::Given(path) => drop(given.insert(name.clone(), (parse(path)?, !split.stratified))),
            Place::HeldOut(split) => drop(held_out.insert(name.clone(), split)),
        }
    }
    let target = target(options, &main, given.values().map(|(table, _)| table))?;
    let all = std::iter::once(&main).chain(given.values().map(|(table, _)| table));
    let notes = all.filter_map(CsvTable::note).collect();
    let given = given.into_iter().map(|(name, (table, may_lack))| Ok((name, (table.pool(&target)?, may_lack))));
    let given = given.collect::<Result<_, DataError>>()?;
    let classes_given = options.classes.is_some();
    Ok(Pools { main: main.pool(&target)?, given, held_out, target, classes_given, notes })
}

/// What is predicted, from the options and all files.
fn target<'a>(
    options: &CsvOptions,
    main: &'a CsvTable<'_>,
    given: impl Iterator<Item = &'a CsvTable<'a>>,
) -> Result<Target, DataError> {
    let all: Vec<&CsvTable<'_>> = std::iter::once(main).chain(given).collect();
    let ClassTable { count, names } = match (&main.targets, &options.classes) {
        (TargetColumns::Values(_), Some(_)) => {
            return Err(DataError::Option {
                option: "data.classes".to_owned(),
                value: "given".to_owned(),
                expected: "omitted with `task = \"regression\"`",
            });
        }
        (TargetColumns::Values(_), None) => {
            let within_unit = all.iter().all(|table| table.is_within_unit());
            return Ok(Target::Values { names: main.target_names.clone(), within_unit });
        }
        (TargetColumns::Classes(_), Some(classes)) => ClassTable::new(classes)?,
        // The first label decides what labels are; a later one that differs is reported as a possible mistake.
        (TargetColumns::Classes(labels), None) if labels.first_is_number() => {
            let mut count = 0;
            for table in &all {
                count = count.max(table.class_count()?);
            }
            ClassTable { count, names: Vec::new() }
        }
        (TargetColumns::Classes(_), None) => {
            let names: BTreeSet<&str> = all.iter().flat_map(|table| table.labels()).map(|label| &*label.text).collect();
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            ClassTable { count: names.len(), names }
        }
    };
    Ok(Target::Classes { count, names, shape: Vec::new() })
}

/// A file that has been read and parsed.
struct CsvTable<'a> {
    file: CsvFile<'a>,
    features: Table,
    sample_shape: Vec<i64>,
    targets: TargetColumns,
    target_names: Vec<String>,
    target_column: usize,
}

/// The content of the target columns.
enum TargetColumns {
    /// The one column of a classification.
    Classes(Labels),
    /// Those of a regression, one row after another.
    Values(Vec<f64>),
}

/// A column of labels, each stored once.
#[derive(Default)]
struct Labels {
    distinct: Vec<Label>,
    /// The label of each row, as an index of `distinct`.
    rows: Vec<u32>,
    known: HashMap<Box<[u8]>, u32>,
}

struct Label {
    text: String,
    /// The place of the record in which it occurs first.
    start: u64,
}

impl Labels {
    fn push(&mut self, field: &[u8], start: u64) {
        let label = match self.known.get(field) {
            Some(label) => *label,
            None => {
                let label = self.distinct.len() as u32;
                self.distinct.push(Label { text: String::from_utf8_lossy(field).into_owned(), start });
                self.known.insert(field.into(), label);
                label
            }
        };
        self.rows.push(label);
    }

    fn first_is_number(&self) -> bool {
        self.distinct.first().is_some_and(|label| label.number().is_some())
    }
}

impl Label {
    /// The number of a class, which may be written as `3` or `3.0`.
    fn number(&self) -> Option<f64> {
        self.text.parse::<f64>().ok().filter(|number| number.fract() == 0.0)
    }
}

impl CsvTable<'_> {
    fn labels(&self) -> &[Label] {
        match &self.targets {
            TargetColumns::Classes(labels) => &labels.distinct,
            TargetColumns::Values(_) => &[],
        }
    }

    fn is_within_unit(&self) -> bool {
        match &self.targets {
            TargetColumns::Classes(_) => false,
            TargetColumns::Values(values) => values.iter().all(|value| (0.0..=1.0).contains(value)),
        }
    }

    /// What f32 cannot hold apart of the numbers to predict.
    fn note(&self) -> Option<String> {
        match &self.targets {
            TargetColumns::Classes(_) => None,
            TargetColumns::Values(values) => narrowing::targets(&self.file.path, values, &self.target_names),
        }
    }

    /// One more than the largest class.
    fn class_count(&self) -> Result<usize, DataError> {
        let mut count = 0;
        for label in self.labels() {
            match label.number() {
                // Not lossy: whole, not negative and far below 2^53.
                Some(number) if (0.0..1e9).contains(&number) => count = count.max(number as usize + 1),
                Some(_) => return Err(self.wrong_label(label, "not a class; classes are numbered from 0")),
                None => return Err(self.wrong_label(label, "not a whole number, unlike the labels before it")),
            }
        }
        Ok(count)
    }

    /// The class of a label.
    fn class(&self, label: &Label, count: usize, names: &[String]) -> Result<i64, DataError> {
        if !names.is_empty() {
            let class = names.iter().position(|name| *name == label.text);
            return class.map(|class| class as i64).ok_or_else(|| {
                let near = did_you_mean(&label.text, names.iter().map(String::as_str));
                let near = near.map_or_else(String::new, |near| format!("; {near}"));
                self.wrong_label(label, &format!("not one of the {count} classes{near}"))
            });
        }
        match label.number() {
            Some(number) if number >= 0.0 && number < count as f64 => Ok(number as i64),
            Some(_) => {
                let problem = format!("not a class; `classes` = `{count}` allows 0 to {}", count - 1);
                Err(self.wrong_label(label, &problem))
            }
            None => Err(self.wrong_label(label, "not a whole number, which a class must be")),
        }
    }

    fn wrong_label(&self, label: &Label, problem: &str) -> DataError {
        self.file.field(label.start, self.target_column, label.text.as_bytes(), problem.to_owned())
    }

    fn pool(self, target: &Target) -> Result<Pool, DataError> {
        let targets = match (&self.targets, target) {
            (TargetColumns::Classes(labels), Target::Classes { count, names, .. }) => {
                let classes: Vec<i64> =
                    labels.distinct.iter().map(|label| self.class(label, *count, names)).collect::<Result<_, _>>()?;
                Targets::classes(labels.rows.iter().map(|label| classes[*label as usize]).collect())
            }
            (TargetColumns::Values(values), _) => {
                let values = values.iter().map(|value| *value as f32).collect();
                Targets::Values { values, width: self.target_names.len() }
            }
            (TargetColumns::Classes(_), Target::Values { .. }) => {
                return Err(DataError::Empty { path: self.file.path });
            }
        };
        let rows = Arc::new(self.features);
        Ok(Pool { path: self.file.path, rows, sample_shape: self.sample_shape, targets })
    }
}

struct CsvFile<'a> {
    options: &'a CsvOptions,
    path: PathBuf,
    text: Cow<'a, [u8]>,
}

impl<'a> CsvFile<'a> {
    fn open(options: &'a CsvOptions, path: &Path, source: Source<'a>) -> Result<CsvFile<'a>, DataError> {
        let (path, text) = file::read(path, source)?;
        Ok(CsvFile { options, path, text })
    }

    fn parse(self) -> Result<CsvTable<'a>, DataError> {
        // The header is read as a record, and lengths are compared here, so that every message can name its line.
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(&*self.text);
        let mut record = ByteRecord::new();
        let mut header = None;
        if self.options.header && self.next(&mut reader, &mut record)? {
            header = Some(record.clone());
        }
        let mut width = header.as_ref().map(ByteRecord::len);
        let mut columns = None;
        let mut values = Vec::new();
        let mut targets = match self.options.task {
            Task::Classification => TargetColumns::Classes(Labels::default()),
            Task::Regression => TargetColumns::Values(Vec::new()),
        };
        let mut count = 0usize;
        while self.next(&mut reader, &mut record)? {
            let start = record.position().map_or(0, csv::Position::byte);
            let expected = *width.get_or_insert(record.len());
            if record.len() != expected {
                let (path, line) = (self.path.clone(), self.line(start));
                return Err(DataError::Ragged { path, line, expected, found: record.len() });
            }
            let (features, target) = match &columns {
                Some(columns) => columns,
                None => columns.insert(self.columns(header.as_ref(), expected)?),
            };
            for column in features {
                values.push(self.number(start, *column, &record[*column])?);
            }
            match &mut targets {
                TargetColumns::Classes(labels) => labels.push(&record[target[0]], start),
                TargetColumns::Values(values) => {
                    for column in target {
                        values.push(self.number(start, *column, &record[*column])?);
                    }
                }
            }
            count += 1;
        }
        let Some((features, target)) = columns else {
            return Err(DataError::Empty { path: self.path });
        };
        if u32::try_from(count).is_err() {
            return Err(DataError::TooManySamples { limit: u32::MAX as usize });
        }
        let name = |column: &usize| match &header {
            Some(header) => String::from_utf8_lossy(&header[*column]).into_owned(),
            None => column.to_string(),
        };
        Ok(CsvTable {
            sample_shape: self.sample_shape(features.len())?,
            features: Table { values, row_length: features.len() },
            targets,
            target_names: target.iter().map(name).collect(),
            target_column: target[0],
            file: self,
        })
    }

    /// Reads the next record; false at the end of the file.
    fn next(&self, reader: &mut csv::Reader<&[u8]>, record: &mut ByteRecord) -> Result<bool, DataError> {
        // Any bytes are valid CSV, so this fails only where reading does.
        reader
            .read_byte_record(record)
            .map_err(|error| DataError::Read { path: self.path.clone(), source: error.into() })
    }

    /// The line, counted from 1, of the record that is found from byte `start` on. The reader's own count does not
    /// include the blank lines, and the second half of a line break, that it skips next.
    fn line(&self, start: u64) -> u64 {
        let mut line = 1;
        let mut before = 0;
        for (position, byte) in (0..).zip(&*self.text) {
            if position >= start && !matches!(byte, b'\n' | b'\r') {
                break;
            }
            let second_half = *byte == b'\n' && before == b'\r';
            if matches!(byte, b'\n' | b'\r') && !second_half {
                line += 1;
            }
            before = *byte;
        }
        line
    }

    /// The columns of the features and of the targets, at least one each.
    fn columns(&self, header: Option<&ByteRecord>, width: usize) -> Result<(Vec<usize>, Vec<usize>), DataError> {
        let find = |column: &Column| self.column(column, header, width);
        let targets: Vec<usize> = self.options.target.as_slice().iter().map(find).collect::<Result<_, _>>()?;
        let wrong =
            |key: &str, value: String, expected| DataError::Option { option: format!("data.{key}"), value, expected };
        match (targets.len(), self.options.task) {
            (0, _) => return Err(wrong("target", "[]".to_owned(), "at least one column")),
            (2.., Task::Classification) => {
                let expected = "one column, or `task = \"regression\"` with it to predict several numbers";
                return Err(wrong("target", format!("{} columns", targets.len()), expected));
            }
            _ => {}
        }
        let features: Vec<usize> = match &self.options.features {
            None => (0..width).filter(|column| !targets.contains(column)).collect(),
            Some(features) => features.iter().map(find).collect::<Result<_, _>>()?,
        };
        if let Some(both) = features.iter().position(|column| targets.contains(column)) {
            let value = self.options.features.as_ref().map_or(String::new(), |features| features[both].to_string());
            return Err(wrong("features", value, "columns other than the target"));
        }
        if features.is_empty() {
            return Err(wrong("features", "[]".to_owned(), "at least one column other than the target"));
        }
        Ok((features, targets))
    }

    fn column(&self, column: &Column, header: Option<&ByteRecord>, width: usize) -> Result<usize, DataError> {
        let found = match (column, header) {
            (Column::Index(index), _) => Some(*index).filter(|index| *index < width),
            (Column::Name(name), Some(header)) => header.iter().position(|column| column == name.as_bytes()),
            (Column::Name(name), None) => {
                return Err(DataError::NameWithoutHeader { path: self.path.clone(), name: name.clone() });
            }
        };
        found.ok_or_else(|| DataError::UnknownColumn {
            path: self.path.clone(),
            column: column.clone(),
            available: match (column, header) {
                (Column::Name(_), Some(header)) => {
                    let names: Vec<_> = header.iter().map(|name| format!("`{}`", shown(name))).collect();
                    names.join(", ")
                }
                _ => format!("columns 0 to {}", width.saturating_sub(1)),
            },
        })
    }

    /// A number that f32 can hold, as exact as it is written.
    fn number(&self, start: u64, column: usize, field: &[u8]) -> Result<f64, DataError> {
        let value = std::str::from_utf8(field).ok().and_then(|text| text.parse::<f64>().ok());
        match value {
            Some(value) if (value as f32).is_finite() => Ok(value),
            Some(_) => Err(self.field(start, column, field, "not a finite 32-bit number".to_owned())),
            None => Err(self.field(start, column, field, "not a number".to_owned())),
        }
    }

    fn field(&self, start: u64, column: usize, field: &[u8], problem: String) -> DataError {
        DataError::Field { path: self.path.clone(), line: self.line(start), column, text: shown(field), problem }
    }

    fn sample_shape(&self, row_length: usize) -> Result<Vec<i64>, DataError> {
        let Some(shape) = &self.options.shape else {
            return Ok(vec![i64::try_from(row_length).unwrap_or(i64::MAX)]);
        };
        let expected = shape.iter().fold(1, |count: u64, length| count.saturating_mul(u64::from(*length)));
        if shape.is_empty() || expected != row_length as u64 {
            return Err(DataError::Shape {
                path: self.path.clone(),
                shape: shape.clone(),
                expected,
                found: row_length,
            });
        }
        Ok(shape.iter().map(|length| i64::from(*length)).collect())
    }
}

fn shown(field: &[u8]) -> String {
    let text = String::from_utf8_lossy(field);
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::data::Normalization;

    fn options(rest: &str) -> CsvOptions {
        toml::from_str(&format!("path = \"table.csv\"\n{rest}")).unwrap()
    }

    /// Features, shape of a sample, and targets.
    type Parsed = (Vec<f32>, Vec<i64>, Targets);

    fn parsed(rest: &str, text: &[u8]) -> Result<Parsed, DataError> {
        let pools = read(&options(rest), Source::Bytes(text))?;
        let Pool { rows, sample_shape, targets, .. } = pools.main;
        let indices: Vec<u32> = (0..rows.len() as u32).collect();
        let mut features = vec![0.0; indices.len() * sample_shape.iter().product::<i64>() as usize];
        rows.read(&indices, &Normalization::none(), &mut features)?;
        Ok((features, sample_shape, targets))
    }

    fn target_of(rest: &str, text: &[u8]) -> Target {
        read(&options(rest), Source::Bytes(text)).unwrap().target
    }

    fn message(rest: &str, text: &[u8]) -> String {
        parsed(rest, text).unwrap_err().to_string()
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
    fn columns_are_found_by_name() {
        let text = b"kind,a,b\n1,5,6\n";
        let named = "header = true\ntarget = \"kind\"\nclasses = 3";
        let (features, _, targets) = parsed(named, text).unwrap();
        assert_eq!((features, targets), (vec![5.0, 6.0], Targets::classes(vec![1])));
        let (features, ..) = parsed(&format!("{named}\nfeatures = [\"b\", 1, \"b\"]"), text).unwrap();
        assert_eq!(features, [6.0, 5.0, 6.0]);
        assert_eq!(
            message("header = true\ntarget = \"sort\"", text),
            "`table.csv` has no column `sort`; it has `kind`, `a`, `b`"
        );
        let error = parsed("target = \"kind\"", text).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("header = true")));
        assert_eq!(
            message(&format!("{named}\nfeatures = [\"a\", \"kind\"]"), text),
            "`data.features` = `kind` must be columns other than the target"
        );
    }

    #[test]
    fn classes_are_named_counted_or_given() {
        let names = |target: Target| match target {
            Target::Classes { count, names, .. } => (count, names.join(" ")),
            Target::Values { names, .. } => (0, names.join(" ")),
        };
        let text = b"1,dog\n2,cat\n3,dog\n";
        assert_eq!(names(target_of("target = 1", text)), (2, "cat dog".to_owned()));
        let (_, _, targets) = parsed("target = 1", text).unwrap();
        assert_eq!(targets, Targets::classes(vec![1, 0, 1]));
        let given = "target = 1\nclasses = [\"dog\", \"cat\"]";
        assert_eq!(names(target_of(given, text)), (2, "dog cat".to_owned()));
        assert_eq!(
            message("target = 1\nclasses = [\"dog\", \"bird\", \"cats\"]", text),
            "`table.csv` line 2, column 1: `cat` is not one of the 3 classes; did you mean `cats`?"
        );
        assert_eq!(names(target_of("target = 1", b"1,0\n2,3\n")), (4, String::new()));
        assert_eq!(
            message("target = 1", b"1,0\n2,x\n"),
            "`table.csv` line 2, column 1: `x` is not a whole number, unlike the labels before it"
        );
        assert_eq!(
            message("target = 1", b"1,0\n2,-1\n"),
            "`table.csv` line 2, column 1: `-1` is not a class; classes are numbered from 0"
        );
        assert!(message("target = 1\nclasses = [\"a\", \"a\"]", text).contains("names each class once"));
        assert!(message("target = 1\nclasses = 0", text).contains("at least 1"));
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
            "`table.csv` line 2, column 0: `NaN` is not a finite 32-bit number"
        );
    }

    #[test]
    fn errors_name_the_place_and_the_text() {
        let message = |text: &[u8]| message(THIRD, text);
        assert_eq!(message(b"1,2,0\n1,x,0\n"), "`table.csv` line 2, column 1: `x` is not a number");
        assert_eq!(message(b"1,,0\n"), "`table.csv` line 1, column 1: `` is not a number");
        assert_eq!(message(b"1,NaN,0\n"), "`table.csv` line 1, column 1: `NaN` is not a finite 32-bit number");
        assert_eq!(message(b"1,1e39,0\n"), "`table.csv` line 1, column 1: `1e39` is not a finite 32-bit number");
        assert_eq!(
            message(b"1,2,3\n"),
            "`table.csv` line 1, column 2: `3` is not a class; `classes` = `3` allows 0 to 2"
        );
        assert_eq!(
            message(b"1,2,-1\n"),
            "`table.csv` line 1, column 2: `-1` is not a class; `classes` = `3` allows 0 to 2"
        );
        assert_eq!(
            message(b"1,2,0.5\n"),
            "`table.csv` line 1, column 2: `0.5` is not a whole number, which a class must be"
        );
        assert_eq!(message(b"1,2,0\n\n1,2\n"), "`table.csv` line 3 has 2 columns, but the lines before it have 3");
        assert_eq!(message(b"1,2,0\r\n\r\n\"1\",2,0\r\n1,z,0"), "`table.csv` line 4, column 1: `z` is not a number");
        assert_eq!(message(b""), "`table.csv` has no samples");
        assert_eq!(message(b"1,2\n"), "`table.csv` has no column `2`; it has columns 0 to 1");
        assert!(message(b"\xff,2,0").contains("is not a number"));
        let long = format!("1,{},0\n", "y".repeat(1000));
        assert!(message(long.as_bytes()).len() < 200);
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

    proptest! {
        #[test]
        fn any_bytes_give_a_whole_table_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            header: bool,
            regression: bool,
            counted: bool,
        ) {
            let task = if regression { "regression" } else { "classification" };
            let classes = if counted && !regression { "classes = 3" } else { "" };
            let rest = format!("header = {header}\ntask = \"{task}\"\ntarget = 0\n{classes}");
            if let Ok((features, shape, targets)) = parsed(&rest, &bytes) {
                prop_assert_eq!(features.len(), targets.len() * shape[0] as usize);
                if let (Targets::Classes { values, .. }, true) = (&targets, counted) {
                    prop_assert!(values.iter().all(|target| (0..3).contains(target)));
                }
            }
        }

        #[test]
        fn what_is_written_is_read(
            rows in prop::collection::vec((prop::array::uniform3(-1e30f32..1e30), 0i64..3), 1..40),
            compressed: bool,
        ) {
            let text: String = rows.iter().map(|([a, b, c], class)| format!("{a},{b},{class},{c}\n")).collect();
            let bytes = if compressed { gzip(text.as_bytes()) } else { text.into_bytes() };
            let (features, _, targets) = parsed(THIRD, &bytes).unwrap();
            prop_assert_eq!(targets, Targets::classes(rows.iter().map(|(_, class)| *class).collect()));
            prop_assert_eq!(features, rows.iter().flat_map(|(row, _)| *row).collect::<Vec<_>>());
        }
    }
}
