//! What a person is told: one problem, or several at once.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A typed error that can say what to do about it.
///
/// Every error type that may reach a person implements this; [`Problem::from`] does the rest.
pub trait Report: std::error::Error {
    /// The next step: a command, a key to add, a likely name.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// A text that problems point into: the run file, or an argument of the command line.
///
/// Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    name: Arc<str>,
    text: Arc<str>,
}

impl Source {
    /// A text and its name for people (a path as it was given, or `--set`).
    pub fn new(name: impl Into<Arc<str>>, text: impl Into<Arc<str>>) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    /// The name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A place in a [`Source`] and a text about it.
#[derive(Clone, Debug)]
pub struct Label {
    /// The source of the place.
    pub source: Source,
    /// The place, in bytes of the text.
    pub span: Range<usize>,
    /// The text at the place; may be empty.
    pub text: String,
    /// The JSON pointer (RFC 6901) of the part of the run file that it is about, if it is about one.
    pub pointer: Option<String>,
}

impl Label {
    /// A place and a text about it. A span that leaves the source or cuts a character is moved inside, and an empty one
    /// at the end covers the last character, so that there is something to point at.
    pub fn new(source: &Source, span: Range<usize>, text: impl Into<String>) -> Label {
        let inside = |position: usize| source.text().floor_char_boundary(position);
        let mut start = inside(span.start);
        let end = inside(span.end).max(start);
        if start == source.text().len() {
            start = inside(start.saturating_sub(1));
        }
        Label { source: source.clone(), span: start..end, text: text.into(), pointer: None }
    }

    /// The line and the column of its start, both counted from 1; columns count characters.
    pub fn position(&self) -> (usize, usize) {
        let before = &self.source.text()[..self.span.start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

/// One thing that is wrong, for a person to read.
#[derive(Clone, Debug)]
pub struct Problem {
    message: String,
    labels: Vec<Label>,
    causes: Vec<String>,
    hints: Vec<String>,
}

impl Problem {
    /// A problem with a message: literals in backticks, no trailing period.
    pub fn new(message: impl Into<String>) -> Problem {
        Problem { message: message.into(), labels: Vec::new(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Adds a place. All places in the source of the first one are shown together.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<Option<Label>>) -> Problem {
        self.labels.extend(label.into());
        self
    }

    /// Adds the cause, with all of its own causes.
    #[must_use]
    pub fn with_cause(mut self, cause: &(dyn std::error::Error + 'static)) -> Problem {
        let mut next = Some(cause);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// Adds one of several causes that have no error of their own.
    #[must_use]
    pub fn with_reason(mut self, reason: String) -> Problem {
        self.causes.push(reason);
        self
    }

    /// Adds what to do next; a duplicate is ignored.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Option<String>>) -> Problem {
        if let Some(hint) = hint.into()
            && !self.hints.contains(&hint)
        {
            self.hints.push(hint);
        }
        self
    }

    /// What is wrong, in one sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The places that it is about.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Why, the nearest cause first.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What to do next.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl<E: Report + ?Sized> From<&E> for Problem {
    fn from(error: &E) -> Problem {
        let problem = Problem::new(error.to_string()).with_hint(error.hint());
        match error.source() {
            Some(cause) => problem.with_cause(cause),
            None => problem,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Everything that is wrong with one thing, such as a run file: the error type of code that looks for all problems.
#[derive(Clone, Debug)]
pub struct Problems(pub Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("; ")?;
            }
            formatter.write_str(problem.message())?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read `{path}`")]
    struct CannotRead {
        path: String,
        source: std::io::Error,
    }

    impl Report for CannotRead {
        fn hint(&self) -> Option<String> {
            Some(format!("check that `{}` exists", self.path))
        }
    }

    #[test]
    fn a_typed_error_brings_its_causes_and_its_hint() {
        let error = CannotRead { path: "run.toml".into(), source: std::io::Error::other("the disk is gone") };
        let problem = Problem::from(&error);
        assert_eq!(problem.message(), "cannot read `run.toml`");
        assert_eq!(problem.causes(), ["the disk is gone"]);
        assert_eq!(problem.hints(), ["check that `run.toml` exists"]);
    }

    #[test]
    fn a_label_stays_inside_its_text_and_on_character_boundaries() {
        let source = Source::new("x", "aé");
        assert_eq!(Label::new(&source, 2..900, "").span, 1..3);
        assert_eq!(Label::new(&source, 900..905, "").span, 1..3);
        assert_eq!(Label::new(&Source::new("x", ""), 0..1, "").span, 0..0);
    }
}
