//! The checks of `host plugins check`.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

macro_rules! checks {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal of $scope:ident for $tier:ident;)*) => {
        /// One check. Its description is its documentation: here, in `--help`, and beside a failure.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Check {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Check {
            /// Every check, in the order in which they run.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name in tables and JSON.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it requires, in one sentence.
            pub fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// The lowest tier that requires it.
            pub fn tier(self) -> Tier {
                match self { $(Self::$variant => Tier::$tier,)* }
            }

            /// What it examines.
            pub fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope,)* }
            }
        }
    };
}

checks! {
    /// The library loads, as it would for a run; a warning when that takes longer than the budget.
    Load = "load" of Library for Basic;
    /// The descriptor is whole: version, summary, license, known hooks and needs, and a `when` that is understood.
    Descriptor = "descriptor" of Kind for Basic;
    /// There is a valid JSON Schema for the options: without one a run file's mistakes go unnoticed.
    Schema = "schema" of Kind for Basic;
    /// The default options satisfy the schema, and an instance can be made with them.
    DefaultOptions = "default-options" of Kind for Basic;
    /// Options that the schema refuses, which a host does not pass on, do not make it panic.
    GarbageOptions = "garbage-options" of Kind for Full;
    /// Every hook returns without an error and without a panic.
    Hooks = "hooks" of Kind for Basic;
    /// No hook is slower than the budget on the training thread; in hooks of a step and `epoch_trained` that is a failure, elsewhere a warning.
    Budget = "budget" of Kind for Basic;
    /// A handle is not used after its hook: it is spent by then.
    StaleHandle = "stale-handle" of Kind for Full;
    /// State that is saved, loaded into a new instance and saved again has the same bytes.
    State = "state" of Kind for Full;
    /// Two instances with different names work in one run.
    TwoInstances = "two-instances" of Kind for Full;
}

/// What a library is good for, by the checks that none of its kinds fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// It loads, describes itself and its options, and every hook answers without a fault and within the budget.
    Basic,
    /// And it takes wrong options and spent handles without a panic, its state survives a checkpoint, and several instances
    /// work in one run: every check.
    Full,
}

impl Tier {
    /// Its name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Full => "full",
        }
    }
}

/// What a check examines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The library as a whole.
    Library,
    /// Each of its kinds.
    Kind,
}

/// The checks and what each is about, for `--help`.
pub(super) fn help() -> String {
    let mut text = "Checks:\n".to_owned();
    for check in Check::ALL {
        text.push_str(&format!("  {:<16} {}\n", check.name(), check.description()));
    }
    let basic = Check::ALL.iter().filter(|check| check.tier() == Tier::Basic).map(|check| check.name());
    text.push_str(&format!(
        "\nTiers (a check that warns or has nothing to check is not failed):\n  basic  no kind fails {}\n  full   no kind fails any check\n",
        basic.collect::<Vec<_>>().join(", ")
    ));
    text.push_str("\nExamples:\n  cargo build --release && host plugins check target/release/libloss_alarm.so\n  host plugins check target/release/libloss_alarm.so --badge");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_called_the_same_everywhere() {
        for check in Check::ALL {
            assert_eq!(serde_json::to_value(check).unwrap(), check.name());
            assert!(check.description().ends_with('.'), "{}", check.name());
        }
    }
}
