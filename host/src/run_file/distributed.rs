//! The section `[distributed]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Every;

/// The shortest time that ranks may wait for each other: that one was killed is found, and all others have ended, within 7 s.
pub(super) const SHORTEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest.
pub(super) const LONGEST_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The largest bucket, in MiB.
const LARGEST_BUCKET: u32 = 4096;

/// How several processes train one model. With one process nothing of this has a meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DistributedOptions {
    /// Who moves gradients from one process to the others: `auto` (gloo), `gloo`, or `nccl`, which a host without it refuses.
    #[serde(default)]
    pub backend: Backend,
    /// How long the ranks wait for one that does not answer, before they end the run: `30 s`, `10 min`; 10 s to 168 h. What
    /// rank 0 does alone, such as hooks and checkpoints, may take longer.
    #[serde(default = "timeout")]
    pub timeout: Every,
    /// Gradients are summed in buckets of about this many MiB, while the backward pass still computes others. Another size
    /// sums them in another order with three ranks or more.
    #[serde(default = "bucket")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = LARGEST_BUCKET))]
    pub bucket_mb: f64,
    /// The size in MiB of the bucket that is full first: a small one lets the averaging begin early.
    #[serde(default = "first_bucket")]
    #[schemars(extend("exclusiveMinimum" = 0, "maximum" = LARGEST_BUCKET))]
    pub first_bucket_mb: f64,
    /// Whether batch norms take mean and variance over the samples of all ranks, as one process does, instead of those of
    /// their own.
    #[serde(default)]
    pub sync_batch_norm: bool,
    /// How often `host run --processes` starts all ranks again after one has failed; they go on from the newest checkpoint.
    #[serde(default)]
    pub restarts: u32,
}

impl Default for DistributedOptions {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            timeout: timeout(),
            bucket_mb: bucket(),
            first_bucket_mb: first_bucket(),
            sync_batch_norm: false,
            restarts: 0,
        }
    }
}

impl DistributedOptions {
    /// Whether nothing is set, so that a resolved run file has no such section.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How long a rank waits for another.
    pub fn timeout(&self) -> Duration {
        match self.timeout {
            Every::Time(time) => time,
            // No run file that was loaded has these.
            Every::Epochs(_) | Every::Steps(_) => LONGEST_TIMEOUT,
        }
    }

    /// The size of a bucket, in bytes; at least one.
    pub fn bucket_bytes(&self) -> usize {
        bytes(self.bucket_mb)
    }

    /// The size of the bucket that is full first, in bytes; at least one.
    pub fn first_bucket_bytes(&self) -> usize {
        bytes(self.first_bucket_mb)
    }
}

/// Who moves gradients from one process to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// The fastest that this host was built with: gloo.
    #[default]
    Auto,
    /// gloo, over TCP; for models on GPUs by way of the machine's memory.
    Gloo,
    /// NCCL, between GPUs; a host that was built without it refuses it.
    Nccl,
}

fn timeout() -> Every {
    Every::Time(Duration::from_secs(600))
}

fn bucket() -> f64 {
    25.0
}

fn first_bucket() -> f64 {
    1.0
}

fn bytes(mebibytes: f64) -> usize {
    ((mebibytes * 1024.0 * 1024.0) as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;
    use crate::report::{Style, render};

    const RUN: &str = r#"
        [run]
        name = "a"
        [data]
        format = "csv"
        path = "a.csv"
        target = 0
        [train]
        epochs = 1
        batch_size = 4
        optimizer = { type = "sgd", learning_rate = 0.1 }
    "#;

    fn loaded(section: &str) -> (DistributedOptions, String) {
        let run_file = load("run.toml", &format!("{RUN}{section}"), &[], &[]).expect("a run file").run_file;
        (run_file.distributed.clone(), run_file.resolved_toml().expect("it can be written"))
    }

    fn refused(line: &str) -> String {
        let problems = load("run.toml", &format!("{RUN}[distributed]\n{line}"), &[], &[]).expect_err("it is refused");
        render(&problems.0, Style::plain())
    }

    #[test]
    fn a_run_file_without_the_section_stays_as_it_was() {
        for section in ["", "[distributed]", "[distributed]\ntimeout = \"600 s\"\nbucket_mb = 25"] {
            let (options, resolved) = loaded(section);
            assert_eq!(options, DistributedOptions::default(), "{section}");
            assert!(!resolved.contains("distributed"), "{resolved}");
        }
        let options = DistributedOptions::default();
        assert_eq!((options.timeout(), options.bucket_bytes()), (Duration::from_secs(600), 25 << 20));
        assert_eq!(options.first_bucket_bytes(), 1 << 20);
    }

    #[test]
    fn what_is_set_is_written_out() {
        let section = "[distributed]\nbackend = \"gloo\"\ntimeout = \"30 s\"\nbucket_mb = 0.5\nrestarts = 3";
        let (options, resolved) = loaded(section);
        assert_eq!((options.timeout(), options.bucket_bytes()), (Duration::from_secs(30), 512 << 10));
        insta::assert_snapshot!(resolved.split_once("[distributed]").expect("the section").1, @r#"
        backend = "gloo"
        timeout = "30 s"
        bucket_mb = 0.5
        first_bucket_mb = 1.0
        sync_batch_norm = false
        restarts = 3
        "#);
        assert_eq!(bytes(1e-9), 1);
    }

    #[test]
    fn values_that_cannot_be() {
        insta::assert_snapshot!(refused("timeout = \"3 epochs\""), @r#"
         × `distributed.timeout` is not a time
           ╭─[run.toml:13:11]
        12 │     [distributed]
        13 │ timeout = "3 epochs"
           ·           ─────┬────
           ·                ╰── epochs or steps
           ╰────
         hint: give a time, as in `30 s` or `10 min`
        "#);
        insta::assert_snapshot!(refused("timeout = \"169 h\""), @r#"
         × `distributed.timeout` is too long
           ╭─[run.toml:13:11]
        12 │     [distributed]
        13 │ timeout = "169 h"
           ·           ───┬───
           ·              ╰── more than 168 h
           ╰────
         hint: give a time, as in `30 s` or `10 min`
        "#);
        insta::assert_snapshot!(refused("timeout = \"9 s\""), @r#"
         × `distributed.timeout` is too short
           ╭─[run.toml:13:11]
        12 │     [distributed]
        13 │ timeout = "9 s"
           ·           ──┬──
           ·             ╰── less than 10 s
           ╰────
         hint: give a time, as in `30 s` or `10 min`
        "#);
        insta::assert_snapshot!(refused("timeout = \"0 s\""), @r#"
         × `distributed.timeout`: `0 s` is not an interval
           ╭─[run.toml:13:11]
        12 │     [distributed]
        13 │ timeout = "0 s"
           ·           ──┬──
           ·             ╰── here
           ╰────
         hint: accepted: a whole number and a unit, as in `1 epoch`, `5 epochs`, `100 steps`, `30 s`, `10 min` or `2 h`
        "#);
        insta::assert_snapshot!(refused("bucket_mb = 0"), @"
         × `distributed.bucket_mb` must be more than 0, found `0`
           ╭─[run.toml:13:13]
        12 │     [distributed]
        13 │ bucket_mb = 0
           ·             ┬
           ·             ╰── here
           ╰────
        ");
        insta::assert_snapshot!(refused("first_bucket_mb = 5000"), @"
         × `distributed.first_bucket_mb` must be at most 4096, found `5000`
           ╭─[run.toml:13:19]
        12 │     [distributed]
        13 │ first_bucket_mb = 5000
           ·                   ──┬─
           ·                     ╰── here
           ╰────
        ");
        insta::assert_snapshot!(refused("backend = \"mpi\""), @r#"
         × `distributed.backend` cannot be `mpi`
           ╭─[run.toml:13:11]
        12 │     [distributed]
        13 │ backend = "mpi"
           ·           ──┬──
           ·             ╰── not known here
           ╰────
         hint: accepted: `auto`, `gloo` or `nccl`
        "#);
        insta::assert_snapshot!(refused("restarts = -1"), @"
         × `distributed.restarts` must be at least 0, found `-1`
           ╭─[run.toml:13:12]
        12 │     [distributed]
        13 │ restarts = -1
           ·            ─┬
           ·             ╰── here
           ╰────
        ");
        insta::assert_snapshot!(refused("restart = 1"), @"
         × unknown key `restart` in `distributed`
           ╭─[run.toml:13:1]
        12 │     [distributed]
        13 │ restart = 1
           · ───┬───
           ·    ╰── not known here
           ╰────
         hint: did you mean `restarts`?
        ");
    }
}
