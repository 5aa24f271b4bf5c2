//! How the text is divided: delimiters and quotes.

use csv::{ByteRecord, ReaderBuilder, Trim};

use super::problem::TableProblem;
use super::text::{Text, line_breaks};
use crate::data::options::{CsvOptions, Decimal, Quote};

/// The records by which a delimiter is found.
const SAMPLE: usize = 20;

/// The delimiters that are looked for.
const DELIMITERS: [u8; 4] = *b",;\t|";

/// That of UTF-8, which the reader passes over.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a text is divided into records and fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    quote: Option<u8>,
    /// Whether the delimiter was found, and is not a comma.
    pub(super) is_news: bool,
}

impl Dialect {
    /// The dialect of the options, or the one that the text has.
    pub(super) fn of(options: &CsvOptions, text: &Text<'_>) -> Result<Dialect, TableProblem> {
        let quote = match options.quote {
            Quote::Double => Some(b'"'),
            Quote::Single => Some(b'\''),
            Quote::None => None,
        };
        let with = |delimiter| Dialect { delimiter, quote, is_news: false };
        let dialect = match options.delimiter {
            Some(delimiter) => with(delimiter.byte()),
            None => {
                let fitting: Vec<u8> = DELIMITERS.into_iter().filter(|delimiter| with(*delimiter).fits(text)).collect();
                // Commas within numbers separate no columns, if anything else does.
                let fitting = match (fitting.as_slice(), options.decimal) {
                    ([b',', rest @ ..], Decimal::Comma) if !rest.is_empty() => rest.to_vec(),
                    _ => fitting,
                };
                match fitting.as_slice() {
                    [] => with(b','),
                    [delimiter] => Dialect { is_news: *delimiter != b',', ..with(*delimiter) },
                    several => {
                        // A wrong delimiter may divide quoted texts.
                        let whole = several.iter().copied().filter(|delimiter| with(*delimiter).keeps_quotes(text));
                        let whole: Vec<u8> = whole.collect();
                        if let [delimiter] = whole.as_slice() {
                            return Ok(Dialect { is_news: *delimiter != b',', ..with(*delimiter) });
                        }
                        let candidates = several.iter().map(|delimiter| written(*delimiter)).collect();
                        return Err(TableProblem::Delimiters { candidates });
                    }
                }
            }
        };
        if dialect.widths(text).next() == Some(1) {
            if let Some(quote) = dialect.unclosed_quote(text.bytes(), 0) {
                return Err(TableProblem::UnclosedQuote { line: line_breaks(&text.bytes()[..quote]) + 1 });
            }
            // A file of one column has no target; what else its text may be, the delimiters tell.
            let others = DELIMITERS.into_iter().chain([b' ']);
            let better = others.into_iter().find(|delimiter| with(*delimiter).fits(text));
            if better.is_some() || dialect.widths(text).all(|width| width == 1) {
                return Err(TableProblem::OneColumn {
                    delimiter: written(dialect.delimiter),
                    better: better.map(written),
                });
            }
        }
        Ok(dialect)
    }

    /// The lengths of the first records.
    fn widths<'t>(&self, text: &'t Text<'_>) -> impl Iterator<Item = usize> + use<'t> {
        self.reader(text.bytes()).into_byte_records().take(SAMPLE).map_while(|record| Some(record.ok()?.len()))
    }

    /// Whether the first records have the same length, of several columns.
    fn fits(&self, text: &Text<'_>) -> bool {
        let mut widths = self.widths(text);
        widths.next().is_some_and(|first| first > 1 && widths.all(|width| width == first))
    }

    /// Whether no field of the first records has a quote that another lacks.
    fn keeps_quotes(&self, text: &Text<'_>) -> bool {
        let mut records = self.reader(text.bytes()).into_byte_records().take(SAMPLE).map_while(Result::ok);
        let count = |field: &[u8]| field.iter().filter(|byte| Some(**byte) == self.quote).count();
        records.all(|record| record.iter().all(|field| count(field) % 2 == 0))
    }

    /// A reader of records. The header is read as a record, and lengths are compared by the caller, so that every
    /// message can name its line.
    pub(super) fn reader<'t>(&self, bytes: &'t [u8]) -> csv::Reader<&'t [u8]> {
        ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .trim(Trim::All)
            .delimiter(self.delimiter)
            .quoting(self.quote.is_some())
            .quote(self.quote.unwrap_or(b'"'))
            .from_reader(bytes)
    }

    /// The byte, from `start` on, of a quote that is not closed: the rest of the file is in it. `start` is the place of
    /// the last record.
    pub(super) fn unclosed_quote(&self, bytes: &[u8], start: usize) -> Option<usize> {
        let quote = self.quote?;
        let start = if start == 0 && bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { start };
        let mut opened = None;
        let mut field_begins = true;
        let mut rest = bytes.iter().copied().enumerate().skip(start).peekable();
        while let Some((position, byte)) = rest.next() {
            match opened {
                None if byte == quote && field_begins => opened = Some(position),
                None => field_begins = byte == self.delimiter || matches!(byte, b'\n' | b'\r'),
                // Two quotes within a quoted text stand for one.
                Some(_) if byte == quote && rest.next_if(|(_, next)| *next == quote).is_none() => {
                    opened = None;
                    field_begins = false;
                }
                Some(_) => {}
            }
        }
        opened
    }
}

/// A delimiter as a run file has it between quotes.
pub(super) fn written(delimiter: u8) -> String {
    char::from(delimiter).escape_default().to_string()
}

/// Reads the next record; false at the end of the text.
pub(super) fn next(reader: &mut csv::Reader<&[u8]>, record: &mut ByteRecord) -> std::io::Result<bool> {
    // Any bytes are records, and a slice can be read, so this does not fail.
    reader.read_byte_record(record).map_err(std::io::Error::from)
}
