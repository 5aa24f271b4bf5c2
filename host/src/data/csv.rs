//! CSV files (RFC 4180), plain or compressed with gzip (RFC 1952).

use std::path::PathBuf;

use csv::{ByteRecord, ReaderBuilder, Trim};

use super::{
    DataError, Source, Table, file,
    options::{Column, CsvOptions},
};

/// A longer field is cut in messages.
const SHOWN_CHARACTERS: usize = 40;

/// Reads the whole file: the values take as much memory as their text, and an error's line is counted in it.
pub(super) fn read(options: &CsvOptions, source: Source<'_>) -> Result<Table, DataError> {
    let (path, text) = file::read(&options.path, source)?;
    let parser = Parser { options, path, text: &text };
    parser.parse()
}

struct Parser<'a> {
    options: &'a CsvOptions,
    path: PathBuf,
    text: &'a [u8],
}

impl Parser<'_> {
    fn parse(&self) -> Result<Table, DataError> {
        if self.options.classes == 0 {
            return Err(DataError::Option {
                option: "data.classes".to_owned(),
                value: "0".to_owned(),
                expected: "at least 1",
            });
        }
        // The header is read as a record, and lengths are compared here, so that every message has its line.
        let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).trim(Trim::All).from_reader(self.text);
        let mut record = ByteRecord::new();
        let mut header = None;
        if self.options.header && self.next(&mut reader, &mut record)? {
            header = Some(record.clone());
        }
        let mut columns = header.as_ref().map(ByteRecord::len);
        let mut target = None;
        let mut features = Vec::new();
        let mut targets = Vec::new();
        while self.next(&mut reader, &mut record)? {
            let start = record.position().map_or(0, csv::Position::byte);
            let expected = *columns.get_or_insert(record.len());
            if record.len() != expected {
                return Err(DataError::Ragged {
                    path: self.path.clone(),
                    line: self.line(start),
                    expected,
                    found: record.len(),
                });
            }
            let target = match target {
                Some(target) => target,
                None => *target.insert(self.target_column(header.as_ref(), expected)?),
            };
            for (column, field) in record.iter().enumerate() {
                if column == target {
                    targets.push(self.class(start, column, field)?);
                } else {
                    features.push(self.feature(start, column, field)?);
                }
            }
        }
        let Some(columns) = columns.filter(|_| !targets.is_empty()) else {
            return Err(DataError::Empty { path: self.path.clone() });
        };
        if targets.len() > u32::MAX as usize {
            return Err(DataError::TooManySamples { limit: u32::MAX as usize });
        }
        let row_length = columns - 1;
        Ok(Table { features, targets, sample_shape: self.sample_shape(row_length)?, row_length })
    }

    /// Reads the next record; false at the end of the file.
    fn next(&self, reader: &mut csv::Reader<&[u8]>, record: &mut ByteRecord) -> Result<bool, DataError> {
        // Every sequence of bytes is a CSV of some shape, so this fails only where reading does.
        reader
            .read_byte_record(record)
            .map_err(|error| DataError::Read { path: self.path.clone(), source: error.into() })
    }

    /// The line, counted from 1, of the record that is found from byte `start` on. The reader's own count stops before
    /// the blank lines, and the second half of a line's end, that it skips next.
    fn line(&self, start: u64) -> u64 {
        let mut line = 1;
        let mut before = 0;
        for (position, byte) in (0..).zip(self.text) {
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

    fn target_column(&self, header: Option<&ByteRecord>, columns: usize) -> Result<usize, DataError> {
        let found = match (&self.options.target, header) {
            (Column::Index(index), _) => Some(*index).filter(|index| *index < columns),
            (Column::Name(name), Some(header)) => header.iter().position(|column| column == name.as_bytes()),
            (Column::Name(name), None) => {
                return Err(DataError::NameWithoutHeader { path: self.path.clone(), name: name.clone() });
            }
        };
        found.ok_or_else(|| DataError::UnknownColumn {
            path: self.path.clone(),
            column: self.options.target.clone(),
            available: match (&self.options.target, header) {
                (Column::Name(_), Some(header)) => {
                    let names: Vec<_> = header.iter().map(|name| format!("`{}`", shown(name))).collect();
                    names.join(", ")
                }
                _ => format!("columns 0 to {}", columns.saturating_sub(1)),
            },
        })
    }

    fn feature(&self, start: u64, column: usize, field: &[u8]) -> Result<f32, DataError> {
        let value = std::str::from_utf8(field).ok().and_then(|text| text.parse::<f32>().ok());
        match value {
            Some(value) if value.is_finite() => Ok(value),
            Some(_) => Err(self.field(start, column, field, "not a finite 32-bit number".to_owned())),
            None => Err(self.field(start, column, field, "not a number".to_owned())),
        }
    }

    /// A class may be written as `3` or `3.0`.
    fn class(&self, start: u64, column: usize, field: &[u8]) -> Result<i64, DataError> {
        let classes = self.options.classes;
        let value = std::str::from_utf8(field)
            .ok()
            .and_then(|text| text.parse::<f64>().ok())
            .filter(|value| value.fract() == 0.0);
        match value {
            // Not lossy: whole, not negative and below the number of classes.
            Some(value) if value >= 0.0 && value < classes as f64 => Ok(value as i64),
            Some(_) => {
                let problem = format!("not a class; `classes` = `{classes}` allows 0 to {}", classes - 1);
                Err(self.field(start, column, field, problem))
            }
            None => Err(self.field(start, column, field, "not a whole number, as classes are".to_owned())),
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
        if shape.is_empty() || expected != row_length as u64 || row_length == 0 {
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
    use std::{collections::BTreeMap, io::Write, path::Path};

    use proptest::prelude::*;

    use super::*;
    use crate::data::Normalise;

    fn options(target: Column, header: bool) -> CsvOptions {
        CsvOptions {
            path: Path::new("table.csv").to_owned(),
            header,
            target,
            shape: None,
            classes: 3,
            normalise: Normalise::None,
            splits: BTreeMap::new(),
        }
    }

    fn parse(text: &[u8]) -> Result<Table, DataError> {
        read(&options(Column::Index(2), false), Source::Bytes(text))
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn features_and_classes_are_read_plain_and_compressed() {
        let text = b"1,2,0\n-3.5, 4e1 ,2.0\n";
        let table = parse(text).unwrap();
        assert_eq!(table.features, [1.0, 2.0, -3.5, 40.0]);
        assert_eq!(table.targets, [0, 2]);
        assert_eq!(table.sample_shape, [2]);
        assert_eq!(parse(&gzip(text)).unwrap(), table);
    }

    #[test]
    fn columns_are_found_by_name() {
        let text = b"kind,a,b\n1,5,6\n";
        let named = options(Column::Name("kind".to_owned()), true);
        let table = read(&named, Source::Bytes(text)).unwrap();
        assert_eq!((table.features, table.targets), (vec![5.0, 6.0], vec![1]));
        let missing = options(Column::Name("sort".to_owned()), true);
        assert_eq!(
            read(&missing, Source::Bytes(text)).unwrap_err().to_string(),
            "`table.csv` has no column `sort`; it has `kind`, `a`, `b`"
        );
        let without_header = options(Column::Name("kind".to_owned()), false);
        let error = read(&without_header, Source::Bytes(text)).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("header = true")));
    }

    #[test]
    fn errors_name_the_place_and_the_text() {
        let message = |text: &[u8]| parse(text).unwrap_err().to_string();
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
        assert_eq!(message(b"1,2,0.5\n"), "`table.csv` line 1, column 2: `0.5` is not a whole number, as classes are");
        assert_eq!(message(b"1,2,0\n\n1,2\n"), "`table.csv` line 3 has 2 columns, the lines before it 3");
        assert_eq!(message(b"1,2,0\r\n\r\n\"1\",2,0\r\n1,z,0"), "`table.csv` line 4, column 1: `z` is not a number");
        assert_eq!(message(b""), "`table.csv` holds no samples");
        assert_eq!(message(b"1,2\n"), "`table.csv` has no column `2`; it has columns 0 to 1");
        assert!(message(b"\xff,2,0").contains("is not a number"));
        let long = format!("1,{},0\n", "y".repeat(1000));
        assert!(message(long.as_bytes()).len() < 200);
    }

    #[test]
    fn a_truncated_archive_and_a_missing_file_are_read_errors() {
        let whole = gzip("1,2,0\n".repeat(5000).as_bytes());
        let error = parse(&whole[..whole.len() / 2]).unwrap_err();
        assert!(matches!(&error, DataError::Read { path, .. } if path == Path::new("table.csv")), "{error}");
        let error = read(&options(Column::Index(0), false), Source::Folder(Path::new("nowhere")));
        assert!(error.unwrap_err().to_string().starts_with("failed to read `nowhere/table.csv`"));
    }

    #[test]
    fn the_shape_takes_all_features() {
        let mut shaped = options(Column::Index(0), false);
        shaped.shape = Some(vec![1, 2, 2]);
        let table = read(&shaped, Source::Bytes(b"0,1,2,3,4\n")).unwrap();
        assert_eq!(table.sample_shape, [1, 2, 2]);
        assert_eq!(
            read(&shaped, Source::Bytes(b"0,1,2,3\n")).unwrap_err().to_string(),
            "`table.csv` has 3 features a line, but shape [1, 2, 2] takes 4"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_whole_table_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300), header: bool) {
            if let Ok(table) = read(&options(Column::Index(0), header), Source::Bytes(&bytes)) {
                prop_assert_eq!(table.features.len(), table.targets.len() * table.row_length);
                prop_assert!(table.targets.iter().all(|target| (0..3).contains(target)));
            }
        }

        #[test]
        fn what_is_written_is_read(
            rows in prop::collection::vec((prop::array::uniform3(-1e30f32..1e30), 0i64..3), 1..40),
            compressed: bool,
        ) {
            let text: String = rows.iter().map(|([a, b, c], class)| format!("{a},{b},{class},{c}\n")).collect();
            let bytes = if compressed { gzip(text.as_bytes()) } else { text.into_bytes() };
            let table = read(&options(Column::Index(2), false), Source::Bytes(&bytes)).unwrap();
            prop_assert_eq!(table.targets, rows.iter().map(|(_, class)| *class).collect::<Vec<_>>());
            prop_assert_eq!(table.features, rows.iter().flat_map(|(row, _)| *row).collect::<Vec<_>>());
        }
    }
}
