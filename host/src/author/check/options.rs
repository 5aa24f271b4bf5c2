//! `--set KIND.OPTION=VALUE`: options for kinds that require them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::report::{Problem, Problems};

/// Options by kind.
pub(super) type Given = BTreeMap<String, Map<String, Value>>;

/// Reads the arguments of `--set`; a later one wins.
pub(super) fn given(arguments: &[String]) -> Result<Given, Problems> {
    let mut given = Given::new();
    let mut problems = Vec::new();
    for argument in arguments {
        match read(argument) {
            Some((kind, option, value)) => {
                given.entry(kind).or_default().insert(option, value);
            }
            None => problems.push(Problem::new(format!("`--set {argument}` is not understood")).with_hint(
                "write `--set KIND.OPTION=VALUE`, as in `--set webhook.url='\"http://localhost\"'`".to_owned(),
            )),
        }
    }
    if problems.is_empty() { Ok(given) } else { Err(Problems(problems)) }
}

/// Kind, option and value. A value that is not TOML is text, so that the shell's quotes are enough.
fn read(argument: &str) -> Option<(String, String, Value)> {
    let (key, text) = argument.split_once('=')?;
    let (kind, option) = key.trim().split_once('.')?;
    if kind.is_empty() || option.is_empty() {
        return None;
    }
    let value = match format!("value = {text}").parse::<toml::Table>() {
        Ok(table) => serde_json::to_value(table.get("value")?).ok()?,
        Err(_) => Value::from(text),
    };
    Some((kind.to_owned(), option.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_toml_or_text() {
        let arguments = ["a.x=1", "a.y=[1, 2]", "b.path=/tmp/a b", "a.x=2"].map(str::to_owned);
        let given = given(&arguments).unwrap();
        assert_eq!(
            serde_json::to_value(given).unwrap(),
            json!({"a": {"x": 2, "y": [1, 2]}, "b": {"path": "/tmp/a b"}})
        );
    }

    #[test]
    fn an_argument_without_kind_or_value_is_refused() {
        for argument in ["x=1", "a.x", ".x=1", "a.=1"] {
            assert!(given(&[argument.to_owned()]).is_err(), "`{argument}` was taken");
        }
    }
}
