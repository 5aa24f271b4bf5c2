//! Texts with placeholders for the fields of a notice.

use std::fmt::Write;

use plugin_api::{Error, Result};

use crate::notice::{Field, Notice};

/// The text for a field that a notice does not have.
const ABSENT: &str = "n/a";

/// More decimals than a double has.
const MOST_DECIMALS: usize = 20;

/// A text in which `{name}` stands for a field of a notice, `{name:.4}` for one with four decimals, and `{{` and `}}`
/// for braces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field { name: String, decimals: Option<usize> },
}

impl Template {
    /// Parses a template of the options.
    ///
    /// # Errors
    ///
    /// When braces do not match, or something other than decimals follows a colon.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(place) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(place);
            plain.push_str(before);
            if let Some(escaped) = after.strip_prefix("{{") {
                plain.push('{');
                rest = escaped;
            } else if let Some(escaped) = after.strip_prefix("}}") {
                plain.push('}');
                rest = escaped;
            } else if let Some((inner, tail)) = after.strip_prefix('{').and_then(|after| after.split_once('}')) {
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(field(inner)?);
                rest = tail;
            } else {
                let brace = after.chars().next().unwrap_or_default();
                return Err(Error::new(format!(
                    "a single `{brace}` in `{text}`: write `{brace}{brace}` for the character or `{{val_loss}}` for a field"
                )));
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { parts })
    }

    /// The text for a notice; fields that it does not have become `n/a`.
    pub fn render(&self, notice: &Notice) -> String {
        let mut text = String::new();
        for part in &self.parts {
            // Writing to a string cannot fail.
            let _ = match part {
                Part::Text(plain) => text.write_str(plain),
                Part::Field { name, decimals } => match (notice.field(name), decimals) {
                    (Some(Field::Number(value)), Some(decimals)) => write!(text, "{value:.decimals$}"),
                    (Some(Field::Number(value)), None) => write!(text, "{value}"),
                    (Some(Field::Text(value)), _) => text.write_str(&value),
                    (None, _) => text.write_str(ABSENT),
                },
            };
        }
        text
    }
}

fn field(inner: &str) -> Result<Part> {
    let (name, format) = inner.split_once(':').map_or((inner, None), |(name, format)| (name, Some(format)));
    let decimals = format.map(|format| format.strip_prefix('.').and_then(|digits| digits.parse().ok()));
    let problem = match decimals {
        _ if name.is_empty() || name.contains('{') || name.trim() != name => "names no field: write `{val_loss}`",
        Some(None) => "has something other than decimals after the colon: write `{val_loss:.4}`",
        Some(Some(decimals)) if decimals > MOST_DECIMALS => "has more than 20 decimals",
        _ => return Ok(Part::Field { name: name.to_owned(), decimals: decimals.flatten() }),
    };
    Err(Error::new(format!("`{{{inner}}}` {problem}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::event::Event;

    fn notice() -> Notice {
        Notice {
            event: Event::Finished,
            time: Timestamp::UNIX_EPOCH,
            run: "digits".to_owned(),
            run_folder: "/runs/digits".to_owned(),
            epoch: 3,
            epochs: 12,
            step: 69,
            steps: 276,
            seconds: 1.25,
            metrics: BTreeMap::from([("val_loss".to_owned(), 0.082_591), ("a/b c".to_owned(), f64::NAN)]),
            artifacts: BTreeMap::from([("exports".to_owned(), vec!["/a.onnx".to_owned(), "/b.npz".to_owned()])]),
            details: BTreeMap::from([("reason", "enough".to_owned())]),
        }
    }

    #[test]
    fn fields_stand_for_what_the_notice_says() {
        for (template, expected) in [
            ("{run} {event} at {time}", "digits finished at 1970-01-01T00:00:00.000Z"),
            ("{val_loss:.4} {val_loss} {seconds:.0}", "0.0826 0.082591 1"),
            ("{epoch}/{epochs} {step}/{steps}", "3/12 69/276"),
            ("{exports} {run_folder} {reason}", "/a.onnx, /b.npz /runs/digits enough"),
            ("{best_checkpoint} {a/b c:.2}", "n/a NaN"),
            ("{{{run}}} {{run}}", "{digits} {run}"),
            ("", ""),
        ] {
            assert_eq!(Template::parse(template).unwrap().render(&notice()), expected, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_told() {
        for (template, expected) in [
            ("a { b", "a single `{` in `a { b`: write `{{` for the character or"),
            ("a } b", "a single `}`"),
            ("{}", "`{}` names no field"),
            ("{ run }", "names no field"),
            ("{a{b}", "names no field"),
            ("{val_loss:4}", "something other than decimals"),
            ("{val_loss:.}", "something other than decimals"),
            ("{val_loss:.21}", "more than 20 decimals"),
        ] {
            let found = Template::parse(template).unwrap_err();
            assert!(found.message().contains(expected), "{template}: {found}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_or_an_error(text: String) {
            if let Ok(template) = Template::parse(&text) {
                template.render(&notice());
            }
        }

        #[test]
        fn escaped_braces_are_the_characters(text: String) {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(Template::parse(&escaped).unwrap().render(&notice()), text);
        }
    }
}
