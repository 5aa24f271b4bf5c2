//! Writes the defaults that a JSON Schema states into a value.

use serde_json::{Map, Value};

/// Adds to a plugin's options every key that its schema gives a default, so that the resolved run file shows them.
///
/// `instance` is the instance's name where it is not its kind's: the defaults of what it writes then carry the name, so
/// that two instances of a kind write two files.
///
/// Present tables inside are filled too. A default of null means "none" and is omitted, since TOML has no null.
pub fn fill_defaults(options: &mut Map<String, Value>, schema: &Value, instance: Option<&str>) {
    fill(options, schema, schema, instance);
}

fn fill(options: &mut Map<String, Value>, schema: &Value, root: &Value, instance: Option<&str>) {
    let Some(properties) = resolved(schema, root).get("properties").and_then(Value::as_object) else {
        return;
    };
    for (key, property) in properties {
        match options.get_mut(key) {
            Some(Value::Object(inner)) => fill(inner, property, root, instance),
            Some(_) => {}
            None => {
                if let Some(default) = default_of(property, root) {
                    let is_output = property
                        .get("format")
                        .and_then(Value::as_str)
                        .is_some_and(|format| format.starts_with("output-"));
                    let default = match (default, instance) {
                        (Value::String(path), Some(instance)) if is_output => named_for(&path, instance).into(),
                        (default, _) => default,
                    };
                    options.insert(key.clone(), default);
                }
            }
        }
    }
}

/// The default that a schema states for a property, as the resolved run file has it; `None` for none and for null.
pub fn default_of(property: &Value, root: &Value) -> Option<Value> {
    let default = property.get("default").or_else(|| resolved(property, root).get("default"))?;
    (!default.is_null()).then(|| without_nulls(default.clone()))
}

/// A default with the keys left out whose value is null.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        other => other,
    }
}

/// The path of an instance's own output: `report.html` becomes `report-small.html`.
pub fn named_for(path: &str, instance: &str) -> String {
    let name = path.rfind(['/', '\\']).map_or(0, |separator| separator + 1);
    match path[name..].rfind('.').filter(|dot| *dot > 0) {
        Some(dot) => format!("{}-{instance}{}", &path[..name + dot], &path[name + dot..]),
        None => format!("{}-{instance}", path.trim_end_matches(['/', '\\'])),
    }
}

/// The target of a schema's `$ref` inside the same schema, one level deep; else the schema itself.
pub fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
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
                "list": {"default": [{"a": null, "b": 1}]},
                "inner": {"properties": {"a": {"default": 1}}}, "absent": {"properties": {"b": {"default": 2}}}
            },
            "$defs": {"Mode": {"default": "min"}}
        });
        let mut options = json!({"patience": 9, "inner": {}}).as_object().cloned().unwrap();
        fill_defaults(&mut options, &schema, None);
        assert_eq!(
            Value::Object(options),
            json!({"patience": 9, "list": [{"b": 1}], "inner": {"a": 1}, "mode": "min"})
        );
    }

    #[test]
    fn what_another_instance_writes_carries_its_name() {
        let schema = json!({
            "properties": {
                "file": {"default": "a.b/report.html", "format": "output-file"}, "title": {"default": "report"},
                "name": {"default": "model", "format": "output-name"}, "log": {"default": ".log", "format": "output-file"}
            }
        });
        let filled = |instance| {
            let mut options = json!({}).as_object().cloned().unwrap();
            fill_defaults(&mut options, &schema, instance);
            Value::Object(options)
        };
        let own = json!({"file": "a.b/report.html", "title": "report", "name": "model", "log": ".log"});
        assert_eq!(filled(None), own);
        let other =
            json!({"file": "a.b/report-small.html", "title": "report", "name": "model-small", "log": ".log-small"});
        assert_eq!(filled(Some("small")), other);
    }
}
