//! Why a stranger's file is refused, where its messages are many and nobody tells them apart.

use std::fmt;

use crate::report::Report;

/// What is wrong with a stranger's file, and what to do.
#[derive(Debug)]
pub struct Refusal {
    message: String,
    hint: Option<String>,
}

impl Refusal {
    /// A message, which goes on after the name of the file.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// The same with what to do.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same hint with another message, such as one that says where it is.
    pub fn with_message(self, message: String) -> Self {
        Self { message, ..self }
    }
}

impl Report for Refusal {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
