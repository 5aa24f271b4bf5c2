//! The checks of `host plugins check`.

use serde::{Deserialize, Serialize};

macro_rules! checks {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal of $scope:ident;)*) => {
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

            /// What it examines.
            pub fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope,)* }
            }
        }
    };
}

checks! {
    /// The library loads, as it would for a run; a warning when that takes longer than the budget.
    Load = "load" of Library;
    /// The descriptor is whole: version, summary, license, known hooks and needs, and a `when` that is understood.
    Descriptor = "descriptor" of Kind;
    /// There is a valid JSON Schema for the options: without one a run file's mistakes go unnoticed.
    Schema = "schema" of Kind;
    /// The default options satisfy the schema, and an instance can be made with them.
    DefaultOptions = "default-options" of Kind;
    /// Options that the schema refuses, which a host does not pass on, do not make it panic.
    GarbageOptions = "garbage-options" of Kind;
    /// Every hook returns without an error and without a panic.
    Hooks = "hooks" of Kind;
    /// No hook is slower than the budget on the training thread; in hooks of a step and `epoch_trained` that is a failure, elsewhere a warning.
    Budget = "budget" of Kind;
    /// A handle is not used after its hook: it is spent by then.
    StaleHandle = "stale-handle" of Kind;
    /// State that is saved, loaded into a new instance and saved again has the same bytes.
    State = "state" of Kind;
    /// Two instances with different names work in one run.
    TwoInstances = "two-instances" of Kind;
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
    text.push_str("\nExample:\n  cargo build --release && host plugins check target/release/libloss_alarm.so");
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
