//! A checked expression: a tree in which each part has its type, so that computing it cannot fail.
//!
//! A metric that has no value yet is NaN. Every operation and function of NaN gives NaN, also those that ignore it in
//! IEEE 754 (`min`, `max`, `pow`): a number that is not known must not make a condition hold. Every comparison with NaN is false,
//! `!=` too.

use std::collections::BTreeMap;

use plugin_api::Direction;
use plugin_api::protocol::Evaluated;

use super::Surroundings;
use super::actions::{self, ActionTree};

/// An expression of any type, or actions.
pub(super) enum Tree {
    Number(Number),
    Condition(Condition),
    Text(Text),
    Actions(Vec<ActionTree>),
}

/// What an expression gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Number,
    /// True or false.
    Condition,
    /// A text.
    Text,
    /// Things to do.
    Actions,
}

impl Kind {
    /// With its article, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Number => "a number",
            Kind::Condition => "a condition",
            Kind::Text => "a text",
            Kind::Actions => "actions",
        }
    }
}

pub(super) enum Number {
    Constant(f64),
    Metric(String),
    Variable(String),
    /// In `set`, the present value of the hyper-parameter.
    Old,
    Position(Counter),
    Negative(Box<Number>),
    Function(fn(f64) -> f64, Box<Number>),
    Operation(fn(f64, f64) -> f64, Box<(Number, Number)>),
    OfHistory(String, Summary),
}

/// A part of the position.
#[derive(Clone, Copy)]
pub(super) enum Counter {
    Epoch,
    Step,
    GlobalStep,
}

/// One number of a metric's values so far.
#[derive(Clone, Copy)]
pub(super) enum Summary {
    Best(Direction),
    /// Over the last so many.
    Mean(usize),
    /// Counted from the end; 1 is the latest.
    Last(usize),
}

pub(super) enum Condition {
    Constant(bool),
    Compare(fn(f64, f64) -> bool, Box<(Number, Number)>),
    SameText(bool, Box<(Text, Text)>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
}

pub(super) enum Text {
    Constant(String),
    OfNumber(Number),
    OfCondition(Condition),
    Joined(Box<(Text, Text)>),
}

/// What a tree reads while it is computed.
pub(super) struct Scope<'s> {
    pub(super) surroundings: &'s mut dyn Surroundings,
    pub(super) variables: &'s BTreeMap<String, f64>,
    pub(super) old: Option<f64>,
}

impl Scope<'_> {
    pub(super) fn reborrowed(&mut self) -> Scope<'_> {
        Scope { surroundings: &mut *self.surroundings, variables: self.variables, old: self.old }
    }
}

impl Tree {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Tree::Number(_) => Kind::Number,
            Tree::Condition(_) => Kind::Condition,
            Tree::Text(_) => Kind::Text,
            Tree::Actions(_) => Kind::Actions,
        }
    }

    pub(super) fn evaluate(&self, scope: &mut Scope<'_>) -> Evaluated {
        match self {
            Tree::Number(number) => Evaluated::Number(number.value(scope)),
            Tree::Condition(condition) => Evaluated::Bool(condition.holds(scope)),
            Tree::Text(text) => Evaluated::Text(text.written(scope)),
            Tree::Actions(trees) => Evaluated::Actions(actions::evaluate(trees, scope)),
        }
    }
}

impl Number {
    pub(super) fn value(&self, scope: &mut Scope<'_>) -> f64 {
        match self {
            Number::Constant(value) => *value,
            Number::Metric(name) => scope.surroundings.metric(name).unwrap_or(f64::NAN),
            Number::Variable(name) => scope.variables.get(name).copied().unwrap_or(f64::NAN),
            Number::Old => scope.old.unwrap_or(f64::NAN),
            Number::Position(counter) => {
                let position = scope.surroundings.position();
                let count = match counter {
                    Counter::Epoch => position.epoch,
                    Counter::Step => position.step,
                    Counter::GlobalStep => position.global_step,
                };
                count as f64
            }
            Number::Negative(number) => -number.value(scope),
            Number::Function(function, number) => function(number.value(scope)),
            Number::Operation(operation, operands) => {
                let (left, right) = (operands.0.value(scope), operands.1.value(scope));
                if left.is_nan() || right.is_nan() { f64::NAN } else { operation(left, right) }
            }
            Number::OfHistory(name, summary) => {
                scope.surroundings.history().values(name, |values| summary.of(values)).unwrap_or(f64::NAN)
            }
        }
    }
}

impl Summary {
    /// Of values of which there is at least one.
    fn of(self, values: &[f64]) -> f64 {
        match self {
            // A value that is no number is not the best.
            Summary::Best(Direction::Min) => values.iter().copied().fold(f64::NAN, f64::min),
            Summary::Best(Direction::Max) => values.iter().copied().fold(f64::NAN, f64::max),
            Summary::Mean(count) => {
                let last = &values[values.len().saturating_sub(count)..];
                last.iter().sum::<f64>() / last.len() as f64
            }
            Summary::Last(place) => values.len().checked_sub(place).map_or(f64::NAN, |index| values[index]),
        }
    }
}

impl Condition {
    pub(super) fn holds(&self, scope: &mut Scope<'_>) -> bool {
        match self {
            Condition::Constant(value) => *value,
            Condition::Compare(compare, operands) => {
                let (left, right) = (operands.0.value(scope), operands.1.value(scope));
                !left.is_nan() && !right.is_nan() && compare(left, right)
            }
            Condition::SameText(same, texts) => (texts.0.written(scope) == texts.1.written(scope)) == *same,
            Condition::And(conditions) => conditions.iter().all(|condition| condition.holds(scope)),
            Condition::Or(conditions) => conditions.iter().any(|condition| condition.holds(scope)),
            Condition::Not(condition) => !condition.holds(scope),
        }
    }
}

impl Text {
    pub(super) fn written(&self, scope: &mut Scope<'_>) -> String {
        match self {
            Text::Constant(text) => text.clone(),
            Text::OfNumber(number) => shown(number.value(scope)),
            Text::OfCondition(condition) => condition.holds(scope).to_string(),
            Text::Joined(texts) => texts.0.written(scope) + texts.1.written(scope).as_str(),
        }
    }
}

/// A number for people: as short as it comes back, and not with hundreds of zeros.
fn shown(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && size.is_finite() && !(1e-5..1e15).contains(&size) {
        format!("{number:e}")
    } else {
        number.to_string()
    }
}
