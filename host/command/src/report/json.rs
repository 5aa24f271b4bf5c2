//! Problems as JSON, for programs that run the host.

use schemars::JsonSchema;
use serde::Serialize;

use super::problem::Problem;

/// A problem in the JSON that `--json` writes. Fields may be added; these stay.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ProblemJson<'a> {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong.
    pub message: &'a str,
    /// Why, the nearest cause first.
    pub causes: &'a [String],
    /// What to do next.
    pub hint: Option<String>,
    /// The text that it is about: a file as it was given, or `--set`.
    pub file: Option<&'a str>,
    /// Where in it, counted from 1.
    pub line: Option<usize>,
    /// The column in characters, counted from 1.
    pub column: Option<usize>,
    /// The JSON pointer of the part of the run file.
    pub pointer: Option<&'a str>,
}

impl<'a> ProblemJson<'a> {
    /// A problem, at its first place.
    pub fn new(severity: &'static str, problem: &'a Problem) -> Self {
        let label = problem.labels().first();
        let position = label.map(|label| label.position());
        Self {
            severity,
            message: problem.message(),
            causes: problem.causes(),
            hint: (!problem.hints().is_empty()).then(|| problem.hints().join("; ")),
            file: label.map(|label| label.source.name()),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            pointer: label.and_then(|label| label.pointer.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Label, Source};

    #[test]
    fn every_field_is_there_even_if_it_is_empty() {
        let source = Source::new("run.toml", "[run]\n# é\nname = \"é\", x = 1\n");
        let mut label = Label::new(&source, 24..25, "here");
        label.pointer = Some("/run/x".to_owned());
        let problem = Problem::new("no `x`").with_label(label).with_hint("remove it".to_owned());
        let json = serde_json::to_value(ProblemJson::new("error", &problem)).unwrap();
        let expected = serde_json::json!({
            "severity": "error", "message": "no `x`", "causes": [], "hint": "remove it", "file": "run.toml", "line": 3,
            "column": 13, "pointer": "/run/x",
        });
        assert_eq!(json, expected);
        let bare = Problem::new("nothing");
        let json = serde_json::to_value(ProblemJson::new("warning", &bare)).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 8);
        assert!(json["file"].is_null() && json["hint"].is_null());
    }
}
