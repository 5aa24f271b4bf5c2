//! What can be wrong with an environment that says which of several processes this is.

use super::origin::Origin;
use crate::report::{Report, list};

/// Why the environment does not say which process of a run this is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// Only some of the variables are set.
    #[error(
        "the environment says only in part which of several processes this is: {} {} not set",
        named(missing),
        are(missing)
    )]
    Missing {
        /// Who should have set them.
        origin: Origin,
        /// Those that are set.
        set: Vec<&'static str>,
        /// Those that are not.
        missing: Vec<&'static str>,
    },
    /// A value that cannot be read.
    #[error("`{variable}` in the environment is `{value}`, which is not {expected}")]
    Unreadable {
        /// The variable.
        variable: &'static str,
        /// Its value, shortened if it is long.
        value: String,
        /// What it should be, as in `a port: a whole number from 1 to 65535`.
        expected: &'static str,
    },
    /// A rank that a run of that many processes does not have.
    #[error("`{variable}` in the environment is {rank}, but `{size_variable}` is {size}: ranks are from 0 to {last}", last = size - 1)]
    NoSuchRank {
        /// The variable with the rank.
        variable: &'static str,
        /// Its value.
        rank: u32,
        /// The variable with the number of processes.
        size_variable: &'static str,
        /// Its value; not zero.
        size: u32,
    },
    /// Two variables that contradict each other.
    #[error("in the environment `{first}` is {first_value}, but `{second}` is {second_value}")]
    Contradiction {
        /// One of them.
        first: &'static str,
        /// Its value.
        first_value: u32,
        /// The other.
        second: &'static str,
        /// Its value.
        second_value: u32,
    },
}

fn named(names: &[&'static str]) -> String {
    list(names.iter().copied(), "and")
}

fn are(names: &[&'static str]) -> &'static str {
    if names.len() == 1 { "is" } else { "are" }
}

impl Report for LaunchError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { origin: Origin::Variables, set, missing } => {
                format!("set {} for every process; or, to train in one process, unset {}", named(missing), named(set))
            }
            Self::Missing { origin, set, .. } => {
                format!("{} {} set, as {origin} does: let it start every process", named(set), are(set))
            }
            Self::Unreadable { variable, .. } => format!("correct `{variable}`, or unset it if this is one process"),
            Self::NoSuchRank { variable, .. } => format!("give every process another `{variable}`, counted from 0"),
            Self::Contradiction { first, .. } => format!("correct `{first}`, or unset it"),
        })
    }
}
