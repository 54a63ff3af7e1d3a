//! Owns what becomes of a JSON schema on its way to a provider that knows less of it.
//!
//! **Invariant:** what is taken out only widens what the model may say; whoever asked checks the
//! answer.

use serde_json::{Map, Value, json};

/// Words that Anthropic's and Bedrock's structured outputs do not know.
const UNKNOWN: [&str; 11] = [
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];

/// The schema without limits on numbers, lengths and counts, and with every object closed.
pub(crate) fn plain(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let mut plain: Map<String, Value> = map
                .iter()
                .filter(|(key, _)| !UNKNOWN.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), within(key, value)))
                .collect();
            if map.get("type") == Some(&json!("object")) {
                plain.insert("additionalProperties".to_owned(), json!(false));
            }
            Value::Object(plain)
        }
        other => other.clone(),
    }
}

/// The schemas in a value of a schema; names of properties are no words of the schema.
fn within(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("properties" | "$defs" | "definitions", Value::Object(map)) => {
            Value::Object(map.iter().map(|(name, inner)| (name.clone(), plain(inner))).collect())
        }
        ("items" | "not", inner) => plain(inner),
        ("anyOf" | "allOf" | "oneOf", Value::Array(list)) => list.iter().map(plain).collect(),
        (_, other) => other.clone(),
    }
}

/// Whether OpenAI's strict mode takes it: every object is closed, and has all its properties
/// required.
pub(crate) fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => {
            let is_object = map.get("type") == Some(&json!("object"));
            let properties = map.get("properties").and_then(Value::as_object);
            let required = map.get("required").and_then(Value::as_array);
            let all = properties.is_none_or(|properties| {
                required.is_some_and(|all| properties.keys().all(|key| all.contains(&json!(key))))
            });
            let closed = map.get("additionalProperties") == Some(&json!(false));
            (!is_object || (all && closed)) && map.values().all(is_strict)
        }
        Value::Array(list) => list.iter().all(is_strict),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_taken_out_and_names_are_left() {
        let schema = json!({ "type": "object", "properties": {
            "maximum": { "type": "number", "minimum": 0, "maximum": 1 },
            "list": { "type": "array", "items": { "type": "object", "properties": {} } },
            "either": { "anyOf": [{ "type": "string", "maxLength": 3 }, { "type": "null" }] },
        }, "required": ["maximum"] });
        assert_eq!(
            plain(&schema),
            json!({ "type": "object", "additionalProperties": false, "properties": {
                "maximum": { "type": "number" },
                "list": { "type": "array", "items":
                    { "type": "object", "properties": {}, "additionalProperties": false } },
                "either": { "anyOf": [{ "type": "string" }, { "type": "null" }] },
            }, "required": ["maximum"] })
        );
    }

    #[test]
    fn strict_is_closed_and_whole() {
        let closed = |required: Value, inner: Value| {
            json!({ "type": "object", "properties": { "a": inner }, "required": required,
                "additionalProperties": false })
        };
        let text = || json!({ "type": "string" });
        assert!(is_strict(&closed(json!(["a"]), text())));
        assert!(!is_strict(&closed(json!([]), text())));
        assert!(!is_strict(&closed(json!(["a"]), json!({ "type": "object" }))));
        assert!(!is_strict(&json!({ "type": "object", "properties": {} })));
    }
}
