//! A TOML text as a JSON value that knows the place of each of its parts.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::report::{Label, Problem, Source};

/// The place of a value.
#[derive(Clone, Debug)]
pub struct Place {
    /// The text: the file, or the `--set` that set it.
    pub source: Source,
    /// The bytes of its key; entries of an array have none.
    pub key: Option<Range<usize>>,
    /// The bytes of the value; of a table written under a header, those of the header.
    pub value: Range<usize>,
    /// Why JSON cannot have the number that is written there; a `1` is read instead.
    pub unfit: Option<&'static str>,
}

/// A parsed run file. Parts are addressed by JSON pointer (RFC 6901).
#[derive(Clone, Debug)]
pub struct Document {
    source: Source,
    value: Value,
    places: BTreeMap<String, Place>,
}

impl Document {
    /// Parses TOML. `name` is the name of the text in messages.
    ///
    /// # Errors
    /// The first syntax error. A number that JSON does not have is among [`Self::unfit`].
    pub fn parse(name: &str, text: &str) -> Result<Document, Problem> {
        let source = Source::new(name, text);
        let table = DeTable::parse(text).map_err(|error| syntax_problem(&source, &error, 0))?;
        let mut places = BTreeMap::new();
        let value = Reader { source: &source, offset: 0, places: &mut places }.table(table.get_ref(), "")?;
        Ok(Document { source, value, places })
    }

    /// The name of the text in messages.
    pub fn name(&self) -> &str {
        self.source.name()
    }

    /// The whole value, always an object.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The numbers that JSON does not have: `inf`, `nan`, integers beyond 64 bits.
    pub fn unfit(&self) -> impl Iterator<Item = Problem> {
        self.places.iter().filter_map(|(pointer, place)| {
            let rule = place.unfit?;
            let problem = Problem::new(format!("the number `{}` {rule}", key_path(pointer)));
            Some(problem.with_label(label(&place.source, place.value.clone(), rule)))
        })
    }

    /// The place of the part at a pointer, if it was written.
    pub fn place(&self, pointer: &str) -> Option<&Place> {
        self.places.get(pointer)
    }

    /// A label on the key of a part, or on the part itself if it has no key.
    pub fn label_key(&self, pointer: &str, text: impl Into<String>) -> Option<Label> {
        let place = self.nearest_place(pointer)?;
        let span = place.key.clone().unwrap_or_else(|| place.value.clone());
        Some(Label { pointer: Some(pointer.to_owned()), ..label(&place.source, span, text) })
    }

    /// A label on the value of a part; on the nearest part around it if it was not written.
    pub fn label_value(&self, pointer: &str, text: impl Into<String>) -> Option<Label> {
        let place = self.nearest_place(pointer)?;
        Some(Label { pointer: Some(pointer.to_owned()), ..label(&place.source, place.value.clone(), text) })
    }

    /// The value as serde reads it: outside plugin options, a float without a fraction is an integer, as in JSON
    /// Schema, so that serde reads whatever passed the check.
    pub fn plain_value(&self) -> Value {
        let mut value = self.value.clone();
        let Some(sections) = value.as_object_mut() else {
            return value;
        };
        for (name, section) in sections.iter_mut() {
            if name != "plugins" {
                integral(section);
            }
        }
        value
    }

    pub(super) fn parts(&mut self) -> (&mut Value, &mut BTreeMap<String, Place>) {
        (&mut self.value, &mut self.places)
    }

    fn nearest_place(&self, pointer: &str) -> Option<&Place> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return Some(place);
            }
            pointer = pointer.rsplit_once('/')?.0;
        }
    }
}

/// A pointer as people write a key: `/plugins/0/options` is `plugins.0.options`, as in `--set`.
pub fn key_path(pointer: &str) -> String {
    let segments: Vec<String> = pointer.split('/').skip(1).map(unescaped).collect();
    segments.join(".")
}

/// The pointer to the member `key` of the value at `pointer`.
pub fn child(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

fn unescaped(segment: &str) -> String {
    segment.replace("~1", "/").replace("~0", "~")
}

/// A label covers one line: a table of twenty lines is labeled on its first.
fn label(source: &Source, span: Range<usize>, text: impl Into<String>) -> Label {
    let mut label = Label::new(source, span, text);
    if let Some(length) = source.text().get(label.span.clone()).and_then(|text| text.find('\n')) {
        label.span.end = label.span.start + length;
    }
    label
}

pub(super) fn syntax_problem(source: &Source, error: &toml::de::Error, offset: usize) -> Problem {
    let span = error.span().unwrap_or(0..0);
    Problem::new(format!("`{}` is not valid TOML: {}", source.name(), error.message())).with_label(label(
        source,
        span.start + offset..span.end + offset,
        "here",
    ))
}

fn integral(value: &mut Value) {
    /// Up to this number, every integer is a distinct float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Array(entries) => entries.iter_mut().for_each(integral),
        Value::Object(members) => members.values_mut().for_each(integral),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|_| number.is_f64())
                && float.fract() == 0.0
                && float.abs() <= EXACT
                // The sign of a zero would be lost.
                && (float != 0.0 || float.is_sign_positive())
            {
                *number = Number::from(float as i64);
            }
        }
        _ => {}
    }
}

/// Turns TOML into JSON and records the places. `offset` is where the parsed text starts in the source.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Source,
    pub(super) offset: usize,
    pub(super) places: &'a mut BTreeMap<String, Place>,
}

impl Reader<'_> {
    fn table(&mut self, table: &DeTable<'_>, pointer: &str) -> Result<Value, Problem> {
        let mut members = Map::new();
        for (key, value) in table {
            let member = self.value(value, &child(pointer, key.get_ref()), Some(key.span()))?;
            members.insert(key.get_ref().to_string(), member);
        }
        Ok(Value::Object(members))
    }

    /// The value at `pointer`; `key` is the place of its key in the parsed text.
    pub(super) fn value(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        pointer: &str,
        key: Option<Range<usize>>,
    ) -> Result<Value, Problem> {
        let span = self.moved(value.span());
        let key = key.map(|key| self.moved(key));
        let place = Place { source: self.source.clone(), key, value: span, unfit: None };
        self.places.insert(pointer.to_owned(), place);
        match value.get_ref() {
            DeValue::String(text) => Ok(Value::String(text.to_string())),
            DeValue::Boolean(boolean) => Ok(Value::Bool(*boolean)),
            // JSON has no dates: a plugin gets the text that was written.
            DeValue::Datetime(datetime) => Ok(Value::String(datetime.to_string())),
            DeValue::Integer(integer) => {
                let digits = integer.as_str();
                let number = i64::from_str_radix(digits, integer.radix())
                    .map(Number::from)
                    .or_else(|_| u64::from_str_radix(digits, integer.radix()).map(Number::from));
                Ok(self.number(pointer, number.ok(), "must fit 64 bits"))
            }
            DeValue::Float(float) => {
                let number = float.as_str().parse().ok().and_then(Number::from_f64);
                Ok(self.number(pointer, number, "must be finite"))
            }
            DeValue::Array(entries) => {
                let entries = entries
                    .iter()
                    .enumerate()
                    .map(|(index, entry)| self.value(entry, &format!("{pointer}/{index}"), None))
                    .collect::<Result<_, _>>()?;
                Ok(Value::Array(entries))
            }
            DeValue::Table(table) => self.table(table, pointer),
        }
    }

    /// The number at `pointer`, or a record that it breaks `rule`.
    fn number(&mut self, pointer: &str, number: Option<Number>, rule: &'static str) -> Value {
        if number.is_none()
            && let Some(place) = self.places.get_mut(pointer)
        {
            place.unfit = Some(rule);
        }
        Value::Number(number.unwrap_or_else(|| Number::from(1)))
    }

    fn moved(&self, span: Range<usize>) -> Range<usize> {
        span.start + self.offset..span.end + self.offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn written<'a>(document: &'a Document, pointer: &str) -> &'a str {
        let place = document.place(pointer).expect("the place is known");
        &place.source.text()[place.value.clone()]
    }

    #[test]
    fn values_and_their_places() {
        let document = Document::parse("run.toml", "[a]\nb.c = [1, {d = \"x\"}]\n[[e]]\nf = 2.5\n").unwrap();
        assert_eq!(document.value(), &json!({"a": {"b": {"c": [1, {"d": "x"}]}}, "e": [{"f": 2.5}]}));
        assert_eq!(written(&document, "/a"), "[a]");
        assert_eq!(written(&document, "/a/b/c/0"), "1");
        assert_eq!(written(&document, "/a/b/c/1/d"), "\"x\"");
        assert_eq!(written(&document, "/e/0/f"), "2.5");
    }

    #[test]
    fn a_key_with_a_slash_has_an_escaped_pointer() {
        let document = Document::parse("run.toml", "\"a/b~\" = 1\n").unwrap();
        assert_eq!(written(&document, "/a~1b~0"), "1");
        assert_eq!(key_path("/a~1b~0/0"), "a/b~.0");
    }

    #[test]
    fn numbers_that_json_lacks_are_refused_with_their_key() {
        for text in ["a = inf", "a = nan", "a = 99999999999999999999"] {
            let document = Document::parse("run.toml", text).unwrap();
            let problem = document.unfit().next().unwrap();
            assert!(problem.message().contains("`a`"), "{problem}");
            assert_eq!(problem.labels().len(), 1);
        }
    }

    #[test]
    fn whole_floats_are_read_as_integers_but_not_in_plugin_options() {
        let document =
            Document::parse("run.toml", "[train]\nepochs = 3.0\n[[plugins]]\noptions = {x = 3.0}\n").unwrap();
        assert_eq!(document.plain_value(), json!({"train": {"epochs": 3}, "plugins": [{"options": {"x": 3.0}}]}));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ -~\n\u{e9}]{0,60}") {
            if let Err(problem) = Document::parse("run.toml", &text) {
                prop_assert_eq!(problem.labels().len(), 1);
            }
        }
    }
}
