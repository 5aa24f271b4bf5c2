//! From syntax to a tree: every name, number of arguments and type is checked here, with its place.

use std::collections::BTreeSet;

use plugin_api::Direction;
use rhai::{AST, Expr, FnCallExpr, Position, Stmt};

use super::ExpressionError;
use super::functions::{FUNCTIONS, Function, Meaning, comparison, operation, rounded};
use super::tree::{Condition, Counter, Number, Summary, Text, Tree};
use crate::report::{did_you_mean, list};

/// The names of the position.
const COUNTERS: [(&str, Counter); 3] =
    [("epoch", Counter::Epoch), ("step", Counter::Step), ("global_step", Counter::GlobalStep)];

/// Whether a name is one of the position, and so never that of a metric.
pub fn is_counter(name: &str) -> bool {
    COUNTERS.iter().any(|(counter, _)| *counter == name)
}

pub(super) struct Checker {
    variables: BTreeSet<String>,
    /// Whether `old` is the present value of a hyper-parameter here.
    pub(super) has_old: bool,
    /// The metrics that were found.
    pub(super) metrics: BTreeSet<String>,
    /// The metrics that actions put.
    pub(super) put: BTreeSet<String>,
}

type Result<T> = std::result::Result<T, ExpressionError>;

impl Checker {
    pub(super) fn new<'v>(variables: impl IntoIterator<Item = &'v str>) -> Checker {
        let variables = variables.into_iter().map(str::to_owned).collect();
        Checker { variables, has_old: false, metrics: BTreeSet::new(), put: BTreeSet::new() }
    }

    /// The tree of one expression.
    pub(super) fn tree(&mut self, syntax: &AST) -> Result<Tree> {
        match syntax.statements() {
            [Stmt::Expr(expression)] => self.any(expression),
            [Stmt::FnCall(call, position)] => self.call(call, *position),
            _ => Err(ExpressionError::new(Position::NONE, "it is no single expression")),
        }
    }

    /// An expression of any type.
    pub(super) fn any(&mut self, expression: &Expr) -> Result<Tree> {
        Ok(match expression {
            Expr::FloatConstant(value, _) => Tree::Number(Number::Constant(**value)),
            Expr::BoolConstant(value, _) => Tree::Condition(Condition::Constant(*value)),
            Expr::StringConstant(text, _) => Tree::Text(Text::Constant(text.to_string())),
            Expr::Variable(variable, ..) => Tree::Number(self.name(variable.1.as_str())),
            Expr::And(operands, _) => Tree::Condition(Condition::And(self.conditions("and", operands)?)),
            Expr::Or(operands, _) => Tree::Condition(Condition::Or(self.conditions("or", operands)?)),
            Expr::FnCall(call, position) => self.call(call, *position)?,
            other => {
                let hint = "an expression has numbers, texts, names, operators, and calls of functions";
                return Err(ExpressionError::new(other.position(), "this is not part of the language")
                    .with_hint(hint.to_owned()));
            }
        })
    }

    fn name(&mut self, name: &str) -> Number {
        if self.has_old && name == "old" {
            return Number::Old;
        }
        if self.variables.contains(name) {
            return Number::Variable(name.to_owned());
        }
        match COUNTERS.iter().find(|(counter, _)| *counter == name) {
            Some((_, counter)) => Number::Position(*counter),
            None => self.metric(name),
        }
    }

    fn metric(&mut self, name: &str) -> Number {
        self.metrics.insert(name.to_owned());
        Number::Metric(name.to_owned())
    }

    /// An operator or a function with its operands.
    fn call(&mut self, call: &FnCallExpr, position: Position) -> Result<Tree> {
        let name = call.name.as_str();
        if call.op_token.is_some() {
            return self.operator(name, &call.args, position);
        }
        let function = known(&FUNCTIONS, "function", name, position)?;
        check_arguments(function, call.args.len(), position)?;
        Ok(Tree::Number(self.function(function, &call.args, position)?))
    }

    fn operator(&mut self, name: &str, operands: &[Expr], position: Position) -> Result<Tree> {
        match (name, operands) {
            ("!", [operand]) => {
                let hint = "`not` takes what follows it at once: write `not (a < b)`";
                let condition = self.condition("not", operand).map_err(|error| error.with_hint(hint.to_owned()))?;
                Ok(Tree::Condition(Condition::Not(Box::new(condition))))
            }
            ("-", [operand]) => Ok(Tree::Number(Number::Negative(Box::new(self.number("-", operand)?)))),
            ("+", [operand]) => Ok(Tree::Number(self.number("+", operand)?)),
            (_, [left, right]) => self.binary(name, left, right, position),
            _ => Err(unknown_operator(name, position)),
        }
    }

    fn binary(&mut self, name: &str, left: &Expr, right: &Expr, position: Position) -> Result<Tree> {
        let (left_tree, right_tree) = (self.any(left)?, self.any(right)?);
        let is_text = |tree: &Tree| matches!(tree, Tree::Text(_));
        if is_text(&left_tree) || is_text(&right_tree) {
            return match name {
                "+" => Ok(Tree::Text(Text::Joined(Box::new((text(left_tree), text(right_tree)))))),
                "==" | "!=" if is_text(&left_tree) && is_text(&right_tree) => Ok(Tree::Condition(Condition::SameText(
                    name == "==",
                    Box::new((text(left_tree), text(right_tree))),
                ))),
                _ => Err(ExpressionError::new(position, format!("`{name}` cannot take a text"))
                    .with_hint("texts can be joined with `+`, and two of them compared with `==` and `!=`".to_owned())),
            };
        }
        let (compares, computes) = (comparison(name), operation(name));
        if compares.is_none() && computes.is_none() {
            return Err(unknown_operator(name, position));
        }
        let operands = (as_number(name, left_tree, left.position())?, as_number(name, right_tree, right.position())?);
        Ok(match (compares, computes) {
            (Some(compare), _) => Tree::Condition(Condition::Compare(compare, Box::new(operands))),
            (None, Some(compute)) => Tree::Number(Number::Operation(compute, Box::new(operands))),
            (None, None) => return Err(unknown_operator(name, position)),
        })
    }

    fn function(&mut self, function: &Function<Meaning>, arguments: &[Expr], position: Position) -> Result<Number> {
        let name = function.name;
        match function.meaning {
            Meaning::Metric => Ok(self.metric(constant_text(name, &arguments[0])?)),
            Meaning::Best => {
                let metric = self.metric_argument(name, &arguments[0])?;
                let direction = match arguments.get(1) {
                    Some(argument) => direction(argument)?,
                    None => Direction::of_metric(&metric).ok_or_else(|| {
                        ExpressionError::new(position, format!("the name `{metric}` does not tell what is best"))
                            .with_hint(format!(
                                "is it the right name? if so, write `best('{metric}', 'min')` or `best('{metric}', 'max')`"
                            ))
                    })?,
                };
                Ok(Number::OfHistory(metric, Summary::Best(direction)))
            }
            Meaning::Mean => {
                let metric = self.metric_argument(name, &arguments[0])?;
                let count = arguments.get(1).map_or(Ok(usize::MAX), |count| whole(name, count))?;
                Ok(Number::OfHistory(metric, Summary::Mean(count)))
            }
            Meaning::Last => {
                let metric = self.metric_argument(name, &arguments[0])?;
                let place = arguments.get(1).map_or(Ok(1), |place| whole(name, place))?;
                Ok(Number::OfHistory(metric, Summary::Last(place)))
            }
            Meaning::Round => {
                let value = self.number(name, &arguments[0])?;
                let digits = arguments.get(1).map_or(Ok(Number::Constant(0.0)), |digits| self.number(name, digits))?;
                Ok(Number::Operation(rounded, Box::new((value, digits))))
            }
            Meaning::One(function) => Ok(Number::Function(function, Box::new(self.number(name, &arguments[0])?))),
            Meaning::Two(function) => {
                let mut number = self.number(name, &arguments[0])?;
                for argument in &arguments[1..] {
                    number = Number::Operation(function, Box::new((number, self.number(name, argument)?)));
                }
                Ok(number)
            }
        }
    }

    /// The metric that an argument names: `val_loss`, `'val/loss'` or `metric('val/loss')`.
    fn metric_argument(&mut self, function: &str, argument: &Expr) -> Result<String> {
        let name = match argument {
            Expr::StringConstant(name, _) => name.to_string(),
            _ => match self.any(argument)? {
                Tree::Number(Number::Metric(name)) => name,
                _ => {
                    let message = format!("`{function}` takes a metric's name, not a computed number");
                    return Err(ExpressionError::new(argument.position(), message));
                }
            },
        };
        self.metrics.insert(name.clone());
        Ok(name)
    }

    fn conditions(&mut self, operator: &str, operands: &[Expr]) -> Result<Vec<Condition>> {
        operands.iter().map(|operand| self.condition(operator, operand)).collect()
    }

    fn condition(&mut self, operator: &str, operand: &Expr) -> Result<Condition> {
        match self.any(operand)? {
            Tree::Condition(condition) => Ok(condition),
            other => Err(wrong_type(operator, "conditions", &other, operand.position())),
        }
    }

    /// An operand or argument that must be a number.
    pub(super) fn number(&mut self, of: &str, operand: &Expr) -> Result<Number> {
        let tree = self.any(operand)?;
        as_number(of, tree, operand.position())
    }

    /// An argument of any type, as text.
    pub(super) fn as_text(&mut self, argument: &Expr) -> Result<Text> {
        Ok(text(self.any(argument)?))
    }
}

/// The function of that name.
pub(super) fn known<'f, M>(
    functions: &'f [Function<M>],
    what: &str,
    name: &str,
    position: Position,
) -> Result<&'f Function<M>> {
    functions.iter().find(|function| function.name == name).ok_or_else(|| {
        let names = || functions.iter().map(|function| function.name);
        let hint = did_you_mean(name, names()).unwrap_or_else(|| format!("known: {}", list(names(), "and")));
        ExpressionError::new(position, format!("there is no {what} `{name}`")).with_hint(hint)
    })
}

pub(super) fn check_arguments<M>(function: &Function<M>, given: usize, position: Position) -> Result<()> {
    if function.arguments.contains(&given) {
        return Ok(());
    }
    let (least, most) = (function.arguments.start(), function.arguments.end());
    let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
    let plural = if (least, most) == (&1, &1) { "" } else { "s" };
    let message = format!("`{}` takes {count} argument{plural}, not {given}", function.name);
    Err(ExpressionError::new(position, message).with_hint(format!("write {}", function.form)))
}

/// An argument that must be a text as it is written, so that it is known before the run.
pub(super) fn constant_text<'e>(function: &str, argument: &'e Expr) -> Result<&'e str> {
    match argument {
        Expr::StringConstant(text, _) if !text.is_empty() => Ok(text.as_str()),
        _ => {
            let message = format!("`{function}` takes a name in quotes here");
            Err(ExpressionError::new(argument.position(), message))
        }
    }
}

fn direction(argument: &Expr) -> Result<Direction> {
    match argument {
        Expr::StringConstant(text, _) if text == "min" => Ok(Direction::Min),
        Expr::StringConstant(text, _) if text == "max" => Ok(Direction::Max),
        _ => Err(ExpressionError::new(argument.position(), "`best` takes `'min'` or `'max'` here")),
    }
}

/// A number of values, from 1.
fn whole(function: &str, argument: &Expr) -> Result<usize> {
    match argument {
        Expr::FloatConstant(value, _) if value.fract() == 0.0 && (1.0..=1e9).contains(&**value) => Ok(**value as usize),
        _ => {
            let message = format!("`{function}` takes a whole number from 1 here");
            Err(ExpressionError::new(argument.position(), message))
        }
    }
}

fn as_number(of: &str, tree: Tree, position: Position) -> Result<Number> {
    match tree {
        Tree::Number(number) => Ok(number),
        other => Err(wrong_type(of, "numbers", &other, position)),
    }
}

fn text(tree: Tree) -> Text {
    match tree {
        Tree::Number(number) => Text::OfNumber(number),
        Tree::Condition(condition) => Text::OfCondition(condition),
        Tree::Text(text) => text,
        // Actions are no part of an expression.
        Tree::Actions(_) => Text::Constant(String::new()),
    }
}

fn wrong_type(of: &str, takes: &str, found: &Tree, position: Position) -> ExpressionError {
    let message = format!("`{of}` takes {takes}, and this is {}", found.kind().name());
    let hint = match (of, found) {
        ("<" | "<=" | ">" | ">=" | "==" | "!=", Tree::Condition(_)) => {
            Some("two comparisons are joined with `and`: `a < b and b < c`".to_owned())
        }
        ("and" | "or", Tree::Number(_)) => Some("compare it with a number, as in `val_loss < 0.5`".to_owned()),
        _ => None,
    };
    ExpressionError::new(position, message).with_hint(hint)
}

fn unknown_operator(name: &str, position: Position) -> ExpressionError {
    let hint = match name {
        "**" => "write `pow(a, b)`",
        _ => "the operators are `+`, `-`, `*`, `/`, `%`, the comparisons, `and`, `or`, and `not`",
    };
    ExpressionError::new(position, format!("there is no operator `{name}`")).with_hint(hint.to_owned())
}
