//! `if`: a condition that gates a plugin's hooks.

use std::fmt;
use std::str::FromStr;

use super::formats::{FormatError, written_as_string};
use crate::expression::{Expression, Kind, Surroundings, is_counter};
use crate::report::Report;

/// A metric compared with a number, or any other expression that is a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// `val_loss < 0.5`. Most conditions are that simple, and some hold back a hook of every step: this is one comparison.
    Metric(Threshold),
    /// `epoch > 2 and val_loss < best(train_loss)`.
    Expression(Expression),
}

/// A metric compared with a number: `val_loss < 0.5`.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// The metric's name.
    pub metric: String,
    /// The comparison.
    pub comparison: Comparison,
    /// The number; not NaN.
    pub value: f64,
}

/// A comparison of a metric with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Comparison {
    /// Every comparison; one that starts with another's sign comes before it.
    const ALL: [(&str, Comparison); 6] = [
        ("<=", Comparison::LessOrEqual),
        ("<", Comparison::Less),
        (">=", Comparison::GreaterOrEqual),
        (">", Comparison::Greater),
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
    ];

    fn sign(self) -> &'static str {
        Comparison::ALL.iter().find(|(_, comparison)| *comparison == self).map_or("", |(sign, _)| sign)
    }
}

impl Condition {
    /// Whether the condition holds. A comparison with a metric that has no value, or is NaN, never does.
    pub fn holds(&self, surroundings: &mut dyn Surroundings) -> bool {
        match self {
            Condition::Metric(threshold) => threshold.holds(surroundings.metric(&threshold.metric)),
            Condition::Expression(expression) => expression.holds(surroundings),
        }
    }

    /// The names of the metrics in it.
    pub fn metrics(&self) -> Vec<&str> {
        match self {
            Condition::Metric(threshold) => vec![&threshold.metric],
            Condition::Expression(expression) => expression.metrics().collect(),
        }
    }
}

impl Threshold {
    fn holds(&self, metric: Option<f64>) -> bool {
        let Some(metric) = metric.filter(|metric| !metric.is_nan()) else { return false };
        match self.comparison {
            Comparison::Less => metric < self.value,
            Comparison::LessOrEqual => metric <= self.value,
            Comparison::Greater => metric > self.value,
            Comparison::GreaterOrEqual => metric >= self.value,
            Comparison::Equal => metric == self.value,
            Comparison::NotEqual => metric != self.value,
        }
    }

    /// The text as a threshold, if it is one. A metric's name may have characters here that are operators in an expression
    /// (`val/f1`), but it is one word, and no name of the position.
    fn read(text: &str) -> Option<Threshold> {
        let (metric, rest) = text.split_at(text.find(['<', '>', '=', '!'])?);
        let (sign, comparison) = Comparison::ALL.into_iter().find(|(sign, _)| rest.starts_with(sign))?;
        let metric = metric.trim();
        let is_part = |character: char| character.is_alphanumeric() || "_/.-:@".contains(character);
        let is_first = |character: char| character.is_alphabetic() || "_/".contains(character);
        if !metric.starts_with(is_first) || !metric.chars().all(is_part) || is_counter(metric) {
            return None;
        }
        let value = rest[sign.len()..].trim().parse().ok().filter(|value: &f64| !value.is_nan())?;
        Some(Threshold { metric: metric.to_owned(), comparison, value })
    }
}

impl FromStr for Condition {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Condition, FormatError> {
        if let Some(threshold) = Threshold::read(text) {
            return Ok(Condition::Metric(threshold));
        }
        let example = "a condition compares numbers, as in `val_loss < 0.5` or `epoch > 2 and best(val_loss) < 0.5`";
        let refuse = |why: String, hint: Option<String>| {
            let hint = hint.unwrap_or_else(|| example.to_owned());
            FormatError::new(format!("`{text}` is not a condition: {why}"), hint)
        };
        let expression = Expression::read(text, []).map_err(|error| refuse(error.to_string(), error.hint()))?;
        match expression.kind() {
            Kind::Condition => Ok(Condition::Expression(expression)),
            other => Err(refuse(format!("it is {}", other.name()), None)),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Metric(threshold) => threshold.fmt(formatter),
            Condition::Expression(expression) => expression.fmt(formatter),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.metric, self.comparison.sign(), self.value)
    }
}

written_as_string!(
    Condition,
    "condition",
    "A metric compared with a number, as in `val_loss < 0.5`, or an expression, as in `epoch > 2 and best(val_loss) < 0.5`"
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn threshold(text: &str) -> Threshold {
        match text.parse().unwrap() {
            Condition::Metric(threshold) => threshold,
            Condition::Expression(_) => panic!("`{text}` is an expression"),
        }
    }

    #[test]
    fn each_comparison() {
        for (text, below, equal, above) in [
            ("m < 2", true, false, false),
            ("m <= 2", true, true, false),
            ("m>2", false, false, true),
            ("m >=2.0", false, true, true),
            ("m == 2e0", false, true, false),
            ("m != 2", true, false, true),
        ] {
            let condition = threshold(text);
            let holds = |value| condition.holds(Some(value));
            assert_eq!((holds(1.0), holds(2.0), holds(3.0)), (below, equal, above), "{text}");
            assert!(!holds(f64::NAN), "{text}");
            assert!(!condition.holds(None), "{text}");
        }
    }

    #[test]
    fn a_name_and_a_number_are_no_expression() {
        for (text, metric) in [("val/f1 > 0.5", "val/f1"), ("a-b.c<1", "a-b.c"), ("/x < -inf", "/x")] {
            assert_eq!(threshold(text).metric, metric);
        }
        for text in ["epoch > 2", "step == 1", "best(val_loss) < 0.5", "-m < 1", "a < b", "2 * m < 1", "not (m < 1)"] {
            assert!(matches!(text.parse(), Ok(Condition::Expression(_))), "{text}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for (text, why) in [
            ("", "it is empty"),
            ("val_loss", "it is a number"),
            ("'val_loss'", "it is a text"),
            ("val_loss = 1", "column 10: `=` is not expected here"),
            ("< 1", "column 1: `<` is not expected here"),
            ("val loss < 1", "column 5: `loss` is not expected here"),
            ("0 < val_loss < 1", "column 3: `<` takes numbers, and this is a condition"),
            ("bst(val_loss) < 1", "column 1: there is no function `bst`"),
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert_eq!(error.message, format!("`{text}` is not a condition: {why}"));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(metric in "[a-z_/]{1,8}", sign in 0..6_usize, value: f64) {
            prop_assume!(!value.is_nan() && !is_counter(&metric));
            let condition = Condition::Metric(Threshold { metric, comparison: Comparison::ALL[sign].1, value });
            prop_assert_eq!(condition.to_string().parse(), Ok(condition));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a<>=! 0-9.]{0,10}|\\PC{0,10}") {
            if let Ok(condition) = text.parse::<Condition>() {
                prop_assert_eq!(condition.to_string().parse(), Ok(condition));
            }
        }
    }
}
