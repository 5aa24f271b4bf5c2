//! Expressions that callbacks ask for, each read once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use plugin_api::protocol::requests::Evaluate;

use super::{Expression, ExpressionError};

/// The most expressions that are kept. A plugin that writes a new one each time must not fill the memory.
const MOST: usize = 256;

/// The expressions that were asked for so far; any thread may ask.
#[derive(Default)]
pub struct Expressions(Mutex<HashMap<Key, Expression>>);

/// The text, whether it is actions, and the names of the variables.
#[derive(PartialEq, Eq, Hash)]
struct Key(String, bool, Vec<String>);

impl Expressions {
    /// The expression of a request, read if it is new.
    ///
    /// # Errors
    ///
    /// Those of [`Expression::read`].
    pub fn get(&self, request: &Evaluate) -> Result<Expression, ExpressionError> {
        let variables = || request.variables.keys();
        let key = Key(request.expression.clone(), request.actions, variables().cloned().collect());
        // Each entry is put whole, so that a thread that panicked leaves a map that can be read.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expression) = known.get(&key) {
            return Ok(expression.clone());
        }
        let read = if request.actions { Expression::read_actions } else { Expression::read };
        let names: Vec<&str> = variables().map(String::as_str).collect();
        let expression = read(&request.expression, names)?;
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key, expression.clone());
        Ok(expression)
    }
}
