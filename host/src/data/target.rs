//! What there is to be predicted.

/// The targets of a data set: what a loss needs to know before the first batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of `count` classes, i64 in `0..count`.
    Classes {
        /// How many there are.
        count: usize,
        /// What they are called, in order; empty where nobody said.
        names: Vec<String>,
        /// The shape of one sample's targets: `[]` is one class a sample, `[length]` one for each position of a
        /// sequence.
        shape: Vec<i64>,
    },
    /// Numbers, f32 `[size, names.len()]`.
    Values {
        /// What they are called, in order.
        names: Vec<String>,
    },
}

impl Target {
    /// One class a sample, without names.
    pub fn classes(count: usize) -> Target {
        Target::Classes { count, names: Vec::new(), shape: Vec::new() }
    }
}

/// The dtype of samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleType {
    /// Measurements and images, f32.
    F32,
    /// Tokens, i64.
    I64,
}
