//! Damages valid files and messages, and watches what their readers do: a reader of what a stranger wrote gives a value or an
//! error. It does not panic, no signal ends it, it takes no more memory than ten times its input and 256 MiB, and it ends.
//!
//! Damage finds more than random bytes, which hardly any reader gets beyond the first of. proptest chooses the damage, and makes
//! one that finds something as small as it can.
//!
//! Each reader has its share of a minute, or of ten minutes with `cargo xtask test --long`.

mod damage;
mod memory;
mod watch;

use std::time::{Duration, Instant};

use proptest::test_runner::{Config, TestCaseError, TestRunner};

pub use memory::Counting;

/// How many readers share the time, over all programs of tests that use this crate.
const READERS: u32 = 18;

/// The most memory of a reader beside ten times its input, in bytes.
const ALLOWANCE: usize = 256 << 20;

/// Cases between two looks at the clock.
const CASES: u32 = 64;

/// Reads damaged `seeds` for its share of the time.
///
/// # Panics
///
/// When a reader panics or takes too much memory, with the smallest input that was found; when a seed that is not damaged is
/// not read, as `read` says. A reader that does not end ends the process, which prints the input before.
pub fn fuzz(reader: &str, seeds: &[Vec<u8>], read: impl Fn(&[u8]) -> bool) {
    for (index, seed) in seeds.iter().enumerate() {
        assert!(read(seed), "{reader}: the seed {index} is valid");
    }
    let is_long = std::env::var_os("HOST_TEST_LONG").is_some();
    let share = Duration::from_secs(if is_long { 600 } else { 60 }) / READERS;
    let began = Instant::now();
    let config = Config { cases: CASES, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let inputs = damage::damaged(seeds);
    let watch = watch::Watch::start(reader);
    while began.elapsed() < share {
        // A runner counts its cases over all its runs, so that one that is used again has none left.
        let outcome = TestRunner::new(config.clone()).run(&inputs, |input| {
            let taken = watch.over(&input, || {
                memory::taken_by(|| {
                    read(&input);
                })
            });
            let most = input.len().saturating_mul(10).saturating_add(ALLOWANCE);
            if taken > most {
                return Err(TestCaseError::fail(format!("{taken} bytes of memory for {} bytes", input.len())));
            }
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{reader}: {error}");
        }
    }
}
