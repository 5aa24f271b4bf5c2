//! The run that needs no run file: the digits example, data and all, is built into the program.

/// What messages call the built-in run file.
pub(super) const NAME: &str = "the built-in digits run";

/// Its run file.
pub(super) const RUN_FILE: &str = include_str!("../../../examples/digits/run.toml");

/// What the run file calls its data.
pub(super) const DATA_FILE: &str = "digits.csv.gz";

/// Its data: 1,797 handwritten digits of 8×8 pixels (E. Alpaydin 1998, CC BY 4.0).
pub(super) const DATA: &[u8] = include_bytes!("../../../examples/digits/digits.csv.gz");
