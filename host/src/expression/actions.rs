//! Actions: calls that ask for something, such as `stop('done'); put('doubled', 2 * val_loss)`.
//!
//! To evaluate them does nothing: it gives what is asked for, with all values computed, and the plugin does it as its own.

use plugin_api::protocol::Action;
use rhai::{AST, Expr, FnCallExpr, Position, Stmt};

use super::ExpressionError;
use super::check::{Checker, check_arguments, constant_text, known};
use super::functions::{ACTIONS, Ask};
use super::tree::{Number, Scope, Text};

/// One action, before its values are computed.
pub(super) enum ActionTree {
    Stop(Text),
    Checkpoint,
    Log(Text),
    Put(String, Number),
    Set { name: String, group: Option<String>, value: Number },
}

impl Checker {
    /// Actions with `;` between them.
    pub(super) fn actions(&mut self, syntax: &AST) -> Result<Vec<ActionTree>, ExpressionError> {
        let mut actions = Vec::new();
        for statement in syntax.statements() {
            match statement {
                Stmt::Noop(_) => {}
                Stmt::FnCall(call, position) => actions.push(self.action(call, *position)?),
                Stmt::Expr(expression) => match &**expression {
                    Expr::FnCall(call, position) if call.op_token.is_none() => {
                        actions.push(self.action(call, *position)?)
                    }
                    other => return Err(no_action(other.position())),
                },
                other => return Err(no_action(other.position())),
            }
        }
        if actions.is_empty() {
            return Err(no_action(Position::NONE));
        }
        Ok(actions)
    }

    fn action(&mut self, call: &FnCallExpr, position: Position) -> Result<ActionTree, ExpressionError> {
        let (name, arguments) = (call.name.as_str(), &call.args);
        if call.op_token.is_some() {
            return Err(no_action(position));
        }
        let action = known(&ACTIONS, "action", name, position)?;
        check_arguments(action, arguments.len(), position)?;
        Ok(match action.meaning {
            Ask::Checkpoint => ActionTree::Checkpoint,
            Ask::Stop => ActionTree::Stop(self.as_text(&arguments[0])?),
            Ask::Log => ActionTree::Log(self.as_text(&arguments[0])?),
            Ask::Put => {
                let metric = constant_text(name, &arguments[0])?.to_owned();
                self.put.insert(metric.clone());
                ActionTree::Put(metric, self.number(name, &arguments[1])?)
            }
            Ask::Set => {
                let hyper_parameter = constant_text(name, &arguments[0])?.to_owned();
                let group = arguments.get(2).map(|group| constant_text(name, group)).transpose()?.map(str::to_owned);
                self.has_old = true;
                let value = self.number(name, &arguments[1]);
                self.has_old = false;
                ActionTree::Set { name: hyper_parameter, group, value: value? }
            }
        })
    }
}

fn no_action(position: Position) -> ExpressionError {
    let names: Vec<String> = ACTIONS.iter().map(|action| format!("`{}`", action.form)).collect();
    ExpressionError::new(position, "this is no action").with_hint(format!("the actions are {}", names.join(", ")))
}

/// What is asked for now. `set` is asked for once for each parameter group, since `old` differs.
pub(super) fn evaluate(trees: &[ActionTree], scope: &mut Scope<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    for tree in trees {
        actions.push(match tree {
            ActionTree::Stop(reason) => Action::Stop { reason: reason.written(scope) },
            ActionTree::Checkpoint => Action::Checkpoint {},
            ActionTree::Log(text) => Action::Log { text: text.written(scope) },
            ActionTree::Put(name, value) => Action::Put { name: name.clone(), value: value.value(scope) },
            ActionTree::Set { name, group, value } => {
                let groups = scope.surroundings.groups();
                let wanted = groups.iter().filter(|other| group.as_ref().is_none_or(|group| *group == other.name));
                let had: Vec<_> = wanted.filter_map(|group| Some((&group.name, *group.values.get(name)?))).collect();
                for (group, old) in &had {
                    let value = value.value(&mut Scope { old: Some(*old), ..scope.reborrowed() });
                    actions.push(Action::Set { name: name.clone(), group: Some((*group).clone()), value });
                }
                if had.is_empty() {
                    // Whoever sets it gets the host's error, which names the nearest ones.
                    let value = value.value(scope);
                    actions.push(Action::Set { name: name.clone(), group: group.clone(), value });
                }
                continue;
            }
        });
    }
    actions
}
