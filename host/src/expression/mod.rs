//! Expressions: the small language of a run file, for `if` and for options of plugins.
//!
//! `rhai` reads a text (`read.rs`); the host checks every name and type in what it read (`check.rs`, `functions.rs`) and
//! computes it (`tree.rs`). `rhai`'s own evaluation would find a wrong name or type only when it comes to it, hours into a
//! run, takes numbers that are nearly the same for equal, and divides `5 / 2` to 2. What was read can neither fail nor go on
//! without end: there is no loop, and its length and depth are limited.
//!
//! Dependencies: `config`, `services` and `job` use this module; it uses `history`.

mod actions;
mod cache;
mod check;
mod functions;
mod read;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use plugin_api::protocol::{Evaluated, ParameterGroup};

use crate::history::{HistoryView, Position};
use crate::report::Report;
use check::Checker;
use tree::{Scope, Tree};

pub use cache::Expressions;
pub use check::is_counter;
pub use tree::Kind;

/// The longest text of an expression, in bytes.
pub const LONGEST: usize = 4096;

/// What an expression reads.
pub trait Surroundings {
    /// Where the run is.
    fn position(&self) -> Position;

    /// The present value of a metric; `None` if it has none.
    fn metric(&mut self, name: &str) -> Option<f64>;

    /// The values so far.
    fn history(&self) -> HistoryView;

    /// The optimizer's parameter groups.
    fn groups(&self) -> Vec<ParameterGroup>;
}

/// An expression that was read and checked. A clone shares it.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    tree: Arc<Tree>,
    names: Arc<Names>,
}

/// The metrics in an expression.
#[derive(Default)]
struct Names {
    read: BTreeSet<String>,
    put: BTreeSet<String>,
}

impl Expression {
    /// Reads an expression. Each name in it that is none of `variables` and no position is a metric.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub fn read<'v>(text: &str, variables: impl IntoIterator<Item = &'v str>) -> Result<Expression, ExpressionError> {
        let syntax = read::expression(text)?;
        let mut checker = Checker::new(variables);
        let tree = checker.tree(&syntax)?;
        Ok(Expression::new(text, tree, checker))
    }

    /// Reads actions: calls such as `stop('done')`, with `;` between them.
    ///
    /// # Errors
    ///
    /// As [`Expression::read`].
    pub fn read_actions<'v>(
        text: &str,
        variables: impl IntoIterator<Item = &'v str>,
    ) -> Result<Expression, ExpressionError> {
        let syntax = read::statements(text)?;
        let mut checker = Checker::new(variables);
        let tree = Tree::Actions(checker.actions(&syntax)?);
        Ok(Expression::new(text, tree, checker))
    }

    fn new(text: &str, tree: Tree, checker: Checker) -> Expression {
        let names = Names { read: checker.metrics, put: checker.put };
        Expression { text: text.into(), tree: Arc::new(tree), names: Arc::new(names) }
    }

    /// What it gives.
    pub fn kind(&self) -> Kind {
        self.tree.kind()
    }

    /// The names of the metrics that it reads, sorted.
    pub fn metrics(&self) -> impl Iterator<Item = &str> {
        self.names.read.iter().map(String::as_str)
    }

    /// The names of the metrics that its actions put, sorted.
    pub fn put_metrics(&self) -> impl Iterator<Item = &str> {
        self.names.put.iter().map(String::as_str)
    }

    /// Its value now, or the actions that it asks for. A variable that is not given is NaN.
    pub fn evaluate(&self, surroundings: &mut dyn Surroundings, variables: &BTreeMap<String, f64>) -> Evaluated {
        self.tree.evaluate(&mut Scope { surroundings, variables, old: None })
    }

    /// Whether it holds now; one that is no condition never does.
    pub fn holds(&self, surroundings: &mut dyn Surroundings) -> bool {
        self.evaluate(surroundings, &BTreeMap::new()) == Evaluated::Bool(true)
    }
}

/// Two expressions are equal if they are written alike.
impl PartialEq for Expression {
    fn eq(&self, other: &Expression) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// Why a text is no expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{message}")]
pub struct ExpressionError {
    /// `column 7: `, or nothing if it is about the whole.
    place: String,
    /// What is wrong.
    message: String,
    /// What to do.
    hint: Option<String>,
}

impl ExpressionError {
    fn new(position: rhai::Position, message: impl Into<String>) -> ExpressionError {
        let place = match (position.line(), position.position()) {
            (Some(1), Some(column)) => format!("column {column}: "),
            (Some(line), Some(column)) => format!("line {line}, column {column}: "),
            _ => String::new(),
        };
        ExpressionError { place, message: message.into(), hint: None }
    }

    fn with_hint(self, hint: impl Into<Option<String>>) -> ExpressionError {
        ExpressionError { hint: hint.into(), ..self }
    }
}

impl Report for ExpressionError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}

#[cfg(test)]
mod tests;
