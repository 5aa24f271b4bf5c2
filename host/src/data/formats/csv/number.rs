//! The numbers in cells, and what else cells hold.

use super::problem::CellProblem;
use crate::data::options::{CsvOptions, Decimal};

/// What pandas takes for a missing value, beside a blank cell.
const MISSING: [&str; 17] = [
    "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None",
    "1.#IND", "1.#QNAN", "-1.#IND",
];

/// Currency signs and, at the end of a number, codes.
const CURRENCIES: [&str; 11] = ["$", "€", "£", "¥", "₹", "₽", "₩", "USD", "EUR", "GBP", "JPY"];

/// How numbers and missing values are written.
pub(super) struct Notation<'a> {
    decimal: Decimal,
    missing: Option<&'a [String]>,
}

impl<'a> Notation<'a> {
    pub(super) fn of(options: &'a CsvOptions) -> Notation<'a> {
        Notation { decimal: options.decimal, missing: options.missing_values.as_deref() }
    }

    /// Whether a cell says that it has no value.
    pub(super) fn is_missing(&self, field: &[u8]) -> bool {
        field.is_empty()
            || match self.missing {
                None => MISSING.iter().any(|missing| missing.as_bytes() == field),
                Some(texts) => texts.iter().any(|missing| missing.as_bytes() == field),
            }
    }

    /// The number in a cell, as exact as it is written, if it is within the range of 32 bits.
    pub(super) fn number(&self, text: &str) -> Option<f64> {
        let value = match self.decimal {
            Decimal::Point => text.parse::<f64>().ok(),
            Decimal::Comma if text.contains('.') => None,
            Decimal::Comma => text.replace(',', ".").parse().ok(),
        };
        value.filter(|value| (*value as f32).is_finite())
    }

    /// Why a cell is not a number that is there.
    pub(super) fn problem(&self, text: &str) -> CellProblem {
        if self.is_missing(text.as_bytes()) {
            return CellProblem::Missing;
        }
        let point = match self.decimal {
            Decimal::Point => text.to_owned(),
            Decimal::Comma => text.replace(',', "."),
        };
        if point.parse::<f64>().is_ok() && !text.contains('.') | (self.decimal == Decimal::Point) {
            return CellProblem::NotFinite;
        }
        if is_number(text.trim_end_matches('%').trim_end()) && text.ends_with('%') {
            return CellProblem::Percent;
        }
        let bare = CURRENCIES.iter().find_map(|currency| text.strip_prefix(currency).or(text.strip_suffix(currency)));
        let signed = text.strip_prefix(['-', '+']).unwrap_or(text);
        let signed = CURRENCIES.iter().find_map(|currency| signed.strip_prefix(currency));
        if bare.or(signed).is_some_and(|number| is_number(number.trim())) {
            return CellProblem::Currency;
        }
        match self.decimal {
            Decimal::Point if text.matches(',').count() == 1 && text.replace(',', ".").parse::<f64>().is_ok() => {
                return CellProblem::DecimalComma;
            }
            Decimal::Comma if text.parse::<f64>().is_ok() => return CellProblem::DecimalPoint,
            _ => {}
        }
        if is_date(text) {
            return CellProblem::Date;
        }
        if is_number(text) {
            return CellProblem::Thousands;
        }
        let delimiter = [';', '\t', '|', ',']
            .into_iter()
            .find(|delimiter| text.contains(*delimiter) && text.split(*delimiter).all(|part| is_number(part.trim())));
        delimiter.map_or(CellProblem::NotANumber, CellProblem::Delimiter)
    }
}

/// Whether a text is a number in some country, with or without separators between groups of three digits.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    if text.starts_with(|first: char| first.is_ascii_digit() || first == '.') && text.parse::<f64>().is_ok() {
        return true;
    }
    let mut groups = text.split([',', '.', ' ', '\'', '_', '\u{a0}', '\u{202f}', '\u{2019}']);
    let digits = |group: &str| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_digit());
    let Some(first) = groups.next() else { return false };
    let mut rest: Vec<&str> = groups.collect();
    // What follows a decimal separator need not be three digits.
    let last = rest.pop();
    digits(first)
        && first.len() <= 3
        && rest.iter().all(|group| digits(group) && group.len() == 3)
        && last.is_some_and(digits)
}

/// Whether a text is a date or a time of the day, in figures.
fn is_date(text: &str) -> bool {
    let figures = |text: &str, separator: char, counts: [usize; 2]| {
        let parts: Vec<&str> = text.split(separator).collect();
        let fits = |part: &&str| (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        counts.contains(&parts.len()) && parts.iter().all(fits)
    };
    let (day, time) = match text.split_once(['T', ' ']) {
        Some((day, time)) => (day, Some(time)),
        None => (text, None),
    };
    // Fractions of a second, and what follows them, are not looked at.
    let is_time = |time: &str| {
        let end = time.find(|character: char| character != ':' && !character.is_ascii_digit());
        figures(&time[..end.unwrap_or(time.len())], ':', [2, 3])
    };
    let is_day = ['-', '/', '.'].into_iter().any(|separator| figures(day, separator, [3, 3]));
    (is_day && time.is_none_or(is_time)) || (time.is_none() && is_time(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notation(decimal: Decimal) -> Notation<'static> {
        Notation { decimal, missing: None }
    }

    #[test]
    fn numbers_are_written_with_a_point_or_with_a_comma() {
        let (point, comma) = (notation(Decimal::Point), notation(Decimal::Comma));
        for (text, with_point, with_comma) in [
            ("1", Some(1.0), Some(1.0)),
            ("-1.5e3", Some(-1500.0), None),
            ("-1,5e3", None, Some(-1500.0)),
            ("1.234", Some(1.234), None),
            ("1.234,5", None, None),
            ("1,2,3", None, None),
            ("inf", None, None),
            ("1e39", None, None),
            ("", None, None),
        ] {
            assert_eq!((point.number(text), comma.number(text)), (with_point, with_comma), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_number_is_called_what_it_is() {
        for (text, problem) in [
            ("", CellProblem::Missing),
            ("#N/A", CellProblem::Missing),
            ("nan", CellProblem::Missing),
            ("1e39", CellProblem::NotFinite),
            ("-inf", CellProblem::NotFinite),
            ("12%", CellProblem::Percent),
            ("12.5 %", CellProblem::Percent),
            ("$5", CellProblem::Currency),
            ("-$1,234.50", CellProblem::Currency),
            ("7 €", CellProblem::Currency),
            ("1,234,567", CellProblem::Thousands),
            ("1,234.5", CellProblem::Thousands),
            ("1 234", CellProblem::Thousands),
            ("1'234'567.8", CellProblem::Thousands),
            ("1\u{a0}234", CellProblem::Thousands),
            ("2024-01-31", CellProblem::Date),
            ("31/1/24", CellProblem::Date),
            ("31.01.2024", CellProblem::Date),
            ("12:30", CellProblem::Date),
            ("2024-01-31T12:30:00.5Z", CellProblem::Date),
            ("2024-01-31 12:30", CellProblem::Date),
            ("5;2", CellProblem::Delimiter(';')),
            ("Paris", CellProblem::NotANumber),
            ("NAN", CellProblem::NotFinite),
            ("True", CellProblem::NotANumber),
            ("?", CellProblem::NotANumber),
            ("12 pm", CellProblem::NotANumber),
            ("é", CellProblem::NotANumber),
        ] {
            assert_eq!(notation(Decimal::Point).problem(text), problem, "{text}");
            assert_eq!(notation(Decimal::Comma).problem(text), problem, "{text} with a comma");
        }
        assert_eq!(notation(Decimal::Point).problem("3,14"), CellProblem::DecimalComma);
        assert_eq!(notation(Decimal::Comma).problem("3.14"), CellProblem::DecimalPoint);
        let own = ["?".to_owned()];
        let notation = Notation { decimal: Decimal::Point, missing: Some(&own) };
        assert!(notation.is_missing(b"?") && notation.is_missing(b"") && !notation.is_missing(b"NA"));
    }
}
