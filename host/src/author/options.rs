//! The options of a kind, read from their JSON Schema for people.

use serde_json::{Map, Value};

/// One option.
#[derive(Debug, PartialEq)]
pub(super) struct OptionRow {
    /// Its key.
    pub name: String,
    /// Its type, in a few words.
    pub type_name: String,
    /// Its default; `None` if the option is required, or has no value by default.
    pub default: Option<Value>,
    /// Whether it must be given.
    pub required: bool,
    /// The author's description.
    pub description: String,
}

/// The options that `schema` describes, in its order.
pub(super) fn rows(schema: &Value) -> Vec<OptionRow> {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required.as_str() == Some(name)))
    };
    let Some(properties) = schema["properties"].as_object() else { return Vec::new() };
    properties
        .iter()
        .map(|(name, property)| {
            let referred = referred(property, schema);
            let own = |key: &str| property.get(key).or_else(|| referred.get(key));
            OptionRow {
                name: name.clone(),
                type_name: type_name(property, schema),
                default: own("default").filter(|default| !default.is_null()).cloned(),
                required: required(name),
                description: own("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " "),
            }
        })
        .collect()
}

/// The options for an example: the required ones, with a placeholder, and those with a default.
pub(super) fn example(rows: &[OptionRow]) -> Map<String, Value> {
    rows.iter()
        .filter_map(|row| {
            let value = match &row.default {
                Some(default) => default.clone(),
                None if row.required => Value::String(format!("<{}>", row.type_name)),
                None => return None,
            };
            Some((row.name.clone(), value))
        })
        .collect()
}

/// The target of a property's `$ref`, or the property itself.
fn referred<'a>(property: &'a Value, root: &'a Value) -> &'a Value {
    property
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(property)
}

/// The type of a schema, in TOML's terms.
fn type_name(property: &Value, root: &Value) -> String {
    let schema = referred(property, root);
    if let Some(values) = schema["enum"].as_array() {
        return alternatives(values.iter().filter(|value| !value.is_null()).map(Value::to_string));
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(branches) = schema[key].as_array() {
            let names = branches.iter().filter(|branch| branch["type"] != "null");
            return alternatives(names.map(|branch| type_name(branch, root)));
        }
    }
    match &schema["type"] {
        Value::String(name) => named(name, schema, root),
        Value::Array(names) => {
            let names = names.iter().filter_map(Value::as_str).filter(|&name| name != "null");
            alternatives(names.map(|name| named(name, schema, root)))
        }
        _ => "any value".to_owned(),
    }
}

fn named(name: &str, schema: &Value, root: &Value) -> String {
    match name {
        "array" => match schema.get("items") {
            Some(items) => format!("array of {}", type_name(items, root)),
            None => "array".to_owned(),
        },
        "object" => "table".to_owned(),
        other => other.to_owned(),
    }
}

fn alternatives(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<String> = names.collect();
    names.dedup();
    names.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn types_defaults_and_words_are_read() {
        let schema = json!({
            "properties": {
                "patience": {"type": "integer", "default": 5, "description": "Epochs\nwithout progress."},
                "mode": {"$ref": "#/$defs/Mode", "default": "min"},
                "url": {"type": "string"},
                "limit": {"type": ["number", "null"], "default": null},
                "keep": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}}
            },
            "required": ["url"],
            "$defs": {"Mode": {"enum": ["min", "max"], "description": "Which is better."}}
        });
        let rows = rows(&schema);
        let types: Vec<_> = rows.iter().map(|row| row.type_name.as_str()).collect();
        assert_eq!(types, ["integer", "\"min\" or \"max\"", "string", "number", "array of string"]);
        assert_eq!(
            (rows[0].description.as_str(), rows[1].description.as_str()),
            ("Epochs without progress.", "Which is better.")
        );
        assert_eq!(Value::Object(example(&rows)), json!({"patience": 5, "mode": "min", "url": "<string>"}));
    }
}
