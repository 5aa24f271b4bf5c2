//! The findings of the kinds of this library, one object per line.

use std::fs::File;
use std::io::Write;

use plugin_api::Result;
use serde_json::{Value, json};

/// A file in append mode, or none.
pub struct Journal(Option<File>);

impl Journal {
    /// A journal at `path`; none if it is empty.
    pub fn open(path: &str) -> Result<Self> {
        let file = match path {
            "" => None,
            path => Some(File::options().append(true).create(true).open(path)?),
        };
        Ok(Self(file))
    }

    /// Writes a line.
    pub fn line(&self, line: Value) -> Result<()> {
        let Some(mut file) = self.0.as_ref() else { return Ok(()) };
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }

    /// Writes whether something is as it must be.
    pub fn check(&self, name: &str, passed: bool, detail: Value) -> Result<()> {
        self.line(json!({ "check": name, "passed": passed, "detail": detail }))
    }

    /// Writes whether two numbers are equal up to rounding of f32.
    pub fn near(&self, name: &str, found: f64, expected: f64) -> Result<()> {
        let passed = (found - expected).abs() <= 1e-4 * expected.abs().max(1.0);
        self.check(name, passed, json!({ "found": found, "expected": expected }))
    }

    /// Writes the message of a call that must be refused.
    pub fn refused<T>(&self, name: &str, answer: Result<T>) -> Result<()> {
        let detail = match &answer {
            Ok(_) => Value::Null,
            Err(error) => json!(format!("{:?}: {}", error.kind(), error.message())),
        };
        self.check(name, answer.is_err(), detail)
    }
}
