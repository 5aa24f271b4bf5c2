//! The file that the results are written to.

use std::fs::File;
use std::io::Write;

use plugin_api::Result;
use serde::Serialize;
use serde_json::{Value, json};

/// A file in append mode, or none.
pub struct Journal {
    file: Option<File>,
}

/// The journal during one hook.
pub struct Page<'a> {
    file: Option<&'a File>,
    hook: &'static str,
}

impl Journal {
    /// A journal at `path`; none if it is empty.
    pub fn open(path: &str) -> Result<Self> {
        let file = match path {
            "" => None,
            path => Some(File::options().append(true).create(true).open(path)?),
        };
        Ok(Self { file })
    }

    /// Its page for `hook`.
    pub fn at(&self, hook: &'static str) -> Page<'_> {
        Page { file: self.file.as_ref(), hook }
    }
}

impl Page<'_> {
    /// Writes the answer of a service, and returns it. An error of the service is written, not returned.
    pub fn note<T: Serialize>(&self, service: &str, answer: Result<T>) -> Result<Option<T>> {
        let line = match &answer {
            Ok(value) => json!({ "hook": self.hook, "service": service, "value": written(value) }),
            Err(error) => json!({
                "hook": self.hook, "service": service,
                "error": error.message(), "error_kind": format!("{:?}", error.kind()),
            }),
        };
        if let Some(mut file) = self.file {
            file.write_all(format!("{line}\n").as_bytes())?;
        }
        Ok(answer.ok())
    }
}

/// The value as JSON; NaN and infinities are null.
fn written(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
