//! The metrics of a run in files, a row at a time.

pub(crate) mod csv;
pub(crate) mod json_lines;
mod line_file;
mod rows;
