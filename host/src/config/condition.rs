//! `if`: a condition on one metric that gates a plugin's hooks.

use std::fmt;
use std::str::FromStr;

use super::formats::{FormatError, written_as_string};
use crate::report::list;

/// A metric compared with a number: `val_loss < 0.5`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
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
    /// Whether the condition holds. It never holds for a metric that `lookup` does not know or that is NaN.
    pub fn holds(&self, lookup: impl FnOnce(&str) -> Option<f64>) -> bool {
        let Some(metric) = lookup(&self.metric).filter(|metric| !metric.is_nan()) else {
            return false;
        };
        match self.comparison {
            Comparison::Less => metric < self.value,
            Comparison::LessOrEqual => metric <= self.value,
            Comparison::Greater => metric > self.value,
            Comparison::GreaterOrEqual => metric >= self.value,
            Comparison::Equal => metric == self.value,
            Comparison::NotEqual => metric != self.value,
        }
    }
}

impl FromStr for Condition {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Condition, FormatError> {
        let refuse = |why: &str| {
            let signs = list(Comparison::ALL.iter().map(|(sign, _)| *sign), "or");
            let hint = format!("accepted: a metric, one of {signs}, and a number, as in `val_loss < 0.5`");
            FormatError::new(format!("`{text}` is not a condition: {why}"), hint)
        };
        let start = text.find(['<', '>', '=', '!']).ok_or_else(|| refuse("it has no comparison"))?;
        let (metric, rest) = text.split_at(start);
        let (sign, comparison) = Comparison::ALL
            .into_iter()
            .find(|(sign, _)| rest.starts_with(sign))
            .ok_or_else(|| refuse("its comparison is unknown"))?;
        let metric = metric.trim();
        if metric.is_empty() || metric.contains(char::is_whitespace) {
            return Err(refuse("it must start with a metric's name"));
        }
        let value = rest[sign.len()..].trim().parse().ok().filter(|value: &f64| !value.is_nan());
        let value = value.ok_or_else(|| refuse("it must end with a number"))?;
        Ok(Condition { metric: metric.to_owned(), comparison, value })
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} {}", self.metric, self.comparison.sign(), self.value)
    }
}

written_as_string!(Condition, "condition", "A metric compared with a number: `val_loss < 0.5`");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            let condition: Condition = text.parse().unwrap();
            let holds = |value| condition.holds(|name| (name == "m").then_some(value));
            assert_eq!((holds(1.0), holds(2.0), holds(3.0)), (below, equal, above), "{text}");
            assert!(!holds(f64::NAN), "{text}");
            assert!(!condition.holds(|_| None), "{text}");
        }
    }

    #[test]
    fn refusals_say_why() {
        for (text, why) in [
            ("", "it has no comparison"),
            ("val_loss", "it has no comparison"),
            ("val_loss = 1", "its comparison is unknown"),
            ("< 1", "it must start with a metric's name"),
            ("val loss < 1", "it must start with a metric's name"),
            ("val_loss < low", "it must end with a number"),
            ("val_loss < nan", "it must end with a number"),
            ("0 < val_loss < 1", "it must end with a number"),
        ] {
            let error = text.parse::<Condition>().unwrap_err();
            assert!(error.message.ends_with(why), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(metric in "[a-z_/]{1,8}", sign in 0..6_usize, value: f64) {
            prop_assume!(!value.is_nan());
            let condition = Condition { metric, comparison: Comparison::ALL[sign].1, value };
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
