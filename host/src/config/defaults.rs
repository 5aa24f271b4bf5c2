//! Writes the defaults that a JSON Schema states into a value.

use serde_json::{Map, Value};

/// Adds to a plugin's options every key that its schema gives a default, so that the resolved run file shows them.
///
/// Present tables inside are filled too. A default of null means "none" and is omitted, since TOML has no null.
pub fn fill_defaults(options: &mut Map<String, Value>, schema: &Value) {
    fill(options, schema, schema);
}

fn fill(options: &mut Map<String, Value>, schema: &Value, root: &Value) {
    let Some(properties) = resolved(schema, root).get("properties").and_then(Value::as_object) else {
        return;
    };
    for (key, property) in properties {
        match options.get_mut(key) {
            Some(Value::Object(inner)) => fill(inner, property, root),
            Some(_) => {}
            None => {
                let default = property.get("default").or_else(|| resolved(property, root).get("default"));
                if let Some(default) = default.filter(|default| !default.is_null()) {
                    options.insert(key.clone(), default.clone());
                }
            }
        }
    }
}

/// The target of a schema's `$ref` inside the same schema, one level deep; else the schema itself.
pub(super) fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| reference.strip_prefix('#'))
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_are_added_and_given_values_stay() {
        let schema = json!({
            "properties": {
                "patience": {"default": 5}, "mode": {"$ref": "#/$defs/Mode"}, "none": {"default": null},
                "inner": {"properties": {"a": {"default": 1}}}, "absent": {"properties": {"b": {"default": 2}}}
            },
            "$defs": {"Mode": {"default": "min"}}
        });
        let mut options = json!({"patience": 9, "inner": {}}).as_object().cloned().unwrap();
        fill_defaults(&mut options, &schema);
        assert_eq!(Value::Object(options), json!({"patience": 9, "inner": {"a": 1}, "mode": "min"}));
    }
}
