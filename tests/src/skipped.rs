//! Skips tests that need a program which is not installed.
//!
//! `tests/exports` includes this file too: it uses only the standard library.

use std::io::Write;

/// Tells the user that this test is skipped, since something is `missing`.
///
/// # Panics
///
/// If no test may be skipped: with `HOST_TEST_NO_SKIP=1` or, unless that variable is set, with `CI=true`.
pub fn skipped(missing: &str) {
    let variable = |name: &str| std::env::var(name).ok();
    assert!(
        may_skip(variable("HOST_TEST_NO_SKIP").as_deref(), variable("CI").as_deref()),
        "{missing}; no test may be skipped here: `cargo xtask test` installs what is missing, or says why it cannot"
    );
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // The test harness captures the output of `eprintln!` in a test that passes.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {missing}");
}

/// Whether tests may be skipped, by the values of `HOST_TEST_NO_SKIP` and `CI`.
fn may_skip(no_skip: Option<&str>, ci: Option<&str>) -> bool {
    let set = |value: &str| ["1", "true"].contains(&value);
    !no_skip.or(ci).is_some_and(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_decides_and_without_it_the_server() {
        assert!(may_skip(None, None));
        assert!(!may_skip(Some("1"), None));
        assert!(!may_skip(None, Some("true")));
        assert!(may_skip(Some("0"), Some("true")));
        assert!(may_skip(None, Some("")));
    }
}
