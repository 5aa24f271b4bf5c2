//! Problems as text.

use std::fmt;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use super::printable::{Colors, printable};
use super::problem::{Label, Problem};
use super::terminal;

/// The style of rendered problems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    color: bool,
    /// Lines are broken between words to fit.
    width: Option<usize>,
}

impl Style {
    /// Without color: the same bytes everywhere, since lines are never wrapped.
    pub fn plain() -> Style {
        Style { color: false, width: None }
    }

    /// With ANSI colors.
    pub fn colored() -> Style {
        Style { color: true, width: None }
    }

    /// As the standard error shows it: colored and wrapped on a terminal, unless [`terminal::shows_colors`] says no.
    pub fn of_stderr() -> Style {
        Style { color: terminal::shows_colors(&std::io::stderr()), width: terminal::stderr_width() }
    }

    /// The same, with lines of at most `width` characters.
    #[must_use]
    pub fn within(self, width: usize) -> Style {
        Style { width: Some(width), ..self }
    }
}

/// Writes problems one after another, each ending in a line break. What they cite is a stranger's: the text is [`printable`].
pub fn render(problems: &[Problem], style: Style) -> String {
    let theme = if style.color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .with_wrap_lines(style.width.is_some())
        .with_width(style.width.unwrap_or(usize::MAX))
        .with_break_words(false)
        .with_cause_chain()
        .without_syntax_highlighting();
    let mut text = String::new();
    for (index, problem) in problems.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        for snippet in Snippet::all(problem) {
            // Writing to a string cannot fail; a diagnostic that cannot be drawn still has its message.
            if handler.render_report(&mut text, &snippet).is_err() {
                text.push_str(&format!("  {snippet}\n"));
            }
        }
        for hint in problem.hints() {
            let (start, end) = if style.color { ("\u{1b}[36m", "\u{1b}[0m") } else { ("", "") };
            const INDENT: &str = "        ";
            let width = style.width.map_or(usize::MAX, |width| width.saturating_sub(INDENT.len()));
            let lines = terminal::wrap(hint, width).join(&format!("\n{INDENT}"));
            text.push_str(&format!("  {start}hint:{end} {lines}\n"));
        }
    }
    printable(&text, if style.color { Colors::Keep } else { Colors::Drop }).into_owned()
}

/// What miette draws at once: a message with the places in one source. A problem has one for each source.
#[derive(Debug)]
struct Snippet {
    message: String,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
    cause: Option<Cause>,
}

impl Snippet {
    fn all(problem: &Problem) -> Vec<Snippet> {
        let mut groups: Vec<Vec<&Label>> = Vec::new();
        for label in problem.labels() {
            match groups.iter_mut().find(|group| group[0].source == label.source) {
                Some(group) => group.push(label),
                None => groups.push(vec![label]),
            }
        }
        let mut groups = groups.into_iter();
        let mut snippets = vec![Snippet {
            message: problem.message().to_owned(),
            cause: Cause::chain(problem.causes()),
            ..Snippet::places(&groups.next().unwrap_or_default())
        }];
        snippets.extend(groups.map(|group| Snippet { message: "see also".to_owned(), ..Snippet::places(&group) }));
        snippets
    }

    fn places(labels: &[&Label]) -> Snippet {
        Snippet {
            message: String::new(),
            source: labels.first().map(|label| NamedSource::new(label.source.name(), label.source.text().to_owned())),
            labels: labels
                .iter()
                .map(|label| {
                    let text = (!label.text.is_empty()).then(|| label.text.clone());
                    LabeledSpan::new(text, label.span.start, label.span.len())
                })
                .collect(),
            cause: None,
        }
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Snippet {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}

impl Diagnostic for Snippet {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as _)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as _)
    }
}

/// One link of a problem's chain of causes, in the form that miette walks.
#[derive(Debug)]
struct Cause {
    message: String,
    next: Option<Box<Cause>>,
}

impl Cause {
    fn chain(messages: &[String]) -> Option<Cause> {
        let (first, others) = messages.split_first()?;
        Some(Cause { message: first.clone(), next: Cause::chain(others).map(Box::new) })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Source;

    fn example() -> Problem {
        let source = Source::new("run.toml", "[train]\nepochs = 3\nsteps = 4\n");
        Problem::new("`epochs` and `steps` are both given")
            .with_label(Label::new(&source, 8..14, "this"))
            .with_label(Label::new(&source, 19..24, "and this"))
            .with_cause(&std::io::Error::other("a run has one length"))
            .with_hint("remove one".to_owned())
    }

    #[test]
    fn places_causes_and_hints_are_shown() {
        insta::assert_snapshot!(render(&[example()], Style::plain()), @r#"
         × `epochs` and `steps` are both given
         ╰─▶ a run has one length
          ╭─[run.toml:2:1]
        1 │ [train]
        2 │ epochs = 3
          · ───┬──
          ·    ╰── this
        3 │ steps = 4
          · ──┬──
          ·   ╰── and this
          ╰────
         hint: remove one
        "#);
    }

    #[test]
    fn places_in_two_texts_are_two_snippets() {
        let argument = Source::new("--set", "train.steps=4");
        let problem = Problem::new("given twice").with_label(example().labels()[0].clone()).with_label(Label::new(
            &argument,
            6..11,
            "again",
        ));
        insta::assert_snapshot!(render(&[problem], Style::plain()), @r#"
         × given twice
          ╭─[run.toml:2:1]
        1 │ [train]
        2 │ epochs = 3
          · ───┬──
          ·    ╰── this
        3 │ steps = 4
          ╰────
         × see also
          ╭─[--set:1:7]
        1 │ train.steps=4
          ·       ──┬──
          ·         ╰── again
          ╰────
        "#);
    }

    #[test]
    fn color_comes_only_when_asked_for() {
        assert!(!render(&[example()], Style::plain()).contains('\u{1b}'));
        assert!(render(&[example()], Style::colored()).contains('\u{1b}'));
    }

    #[test]
    fn a_terminal_breaks_lines_between_words() {
        let hint = "give the folder that holds the plugin libraries: `--plugins DIR`, or set `HOST_PLUGINS`";
        let problem =
            Problem::new("no plugins were named, and none were found beside the program").with_hint(hint.to_owned());
        let text = render(&[problem], Style::plain().within(40));
        assert!(text.lines().all(|line| line.chars().count() <= 40), "{text}");
        assert!(
            text.contains("  hint: give the folder that holds the\n        plugin libraries: `--plugins\n        DIR`, or set `HOST_PLUGINS`\n"),
            "{text}"
        );
    }

    #[test]
    fn a_long_sentence_is_not_wrapped() {
        let sentence = "word ".repeat(100).trim_end().to_owned();
        assert_eq!(render(&[Problem::new(&sentence)], Style::plain()).lines().count(), 1);
    }
}
