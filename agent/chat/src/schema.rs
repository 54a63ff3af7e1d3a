//! Owns what becomes of a JSON schema on its way to a provider that knows less of it: Anthropic's and
//! Bedrock's structured outputs.
//!
//! What they do not know is taken out where that widens what the model may say; every object is
//! closed, which keeps the model to the properties that are named. What cannot be widened, or could
//! not be said at all when closed, is refused.
//!
//! **Invariant:** what fits the plain schema and all of the words that were taken out fits the schema
//! that was asked for; whoever asked checks the answer.

use serde_json::{Map, Value, json};

use crate::unfit::What;

/// What they know that holds no schema.
const KNOWN: [&str; 9] =
    ["type", "title", "description", "enum", "const", "default", "required", "$ref", "format"];
/// Formats of texts that they know.
const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];
/// References are followed no deeper than this, and schemas nested no deeper.
const DEEPEST: usize = 64;

/// The schema called `name` without what they do not know, and with every object closed.
///
/// # Errors
/// [`What::Schema`] where it has an object whose properties are not named, a reference to itself or to
/// another document.
pub(crate) fn plain(name: &str, schema: &Value) -> Result<Value, What> {
    let refused = || What::Schema(name.to_owned());
    if !ends(schema, schema, 0) {
        return Err(refused());
    }
    widened(schema).ok_or_else(refused)
}

/// Whether every reference leads to a definition, and none to where it stands.
fn ends(root: &Value, schema: &Value, depth: usize) -> bool {
    if depth > DEEPEST {
        return false;
    }
    match schema {
        Value::Object(map) => map.iter().all(|(key, inner)| match (key.as_str(), inner) {
            ("$ref", Value::String(path)) => {
                let target = path.strip_prefix('#').and_then(|path| root.pointer(path));
                target.is_some_and(|target| ends(root, target, depth + 1))
            }
            // Definitions are looked at where they are referred to; the others hold no schemas.
            ("$defs" | "definitions" | "enum" | "const" | "default" | "examples", _) => true,
            (_, inner) => ends(root, inner, depth + 1),
        }),
        Value::Array(list) => list.iter().all(|inner| ends(root, inner, depth + 1)),
        _ => true,
    }
}

fn widened(schema: &Value) -> Option<Value> {
    let map = match schema {
        Value::Object(map) => map,
        // Anything may be said, or nothing: neither has a plain form.
        _ => return None,
    };
    let mut plain = Map::new();
    for (key, value) in map {
        let kept = match (key.as_str(), value) {
            ("format", Value::String(format)) if !FORMATS.contains(&format.as_str()) => None,
            // Values that are lists or objects are not known.
            ("enum", Value::Array(values)) if values.iter().any(is_nested) => None,
            ("const", value) if is_nested(value) => None,
            (key, value) if KNOWN.contains(&key) => Some(value.clone()),
            // No more than one can be asked for.
            ("minItems", value) => value.as_u64().map(|least| least.min(1).into()),
            ("properties" | "$defs" | "definitions", Value::Object(inner)) => {
                let each = inner.iter().map(|(name, one)| Some((name.clone(), widened(one)?)));
                Some(Value::Object(each.collect::<Option<_>>()?))
            }
            // What stands before it was about the first items only.
            ("items", inner @ Value::Object(_)) if !map.contains_key("prefixItems") => {
                Some(widened(inner)?)
            }
            ("anyOf" | "allOf", Value::Array(list)) => {
                Some(Value::Array(list.iter().map(widened).collect::<Option<_>>()?))
            }
            // One of them at least, in place of exactly one.
            ("oneOf", Value::Array(list)) if !map.contains_key("anyOf") => {
                let any = Value::Array(list.iter().map(widened).collect::<Option<_>>()?);
                plain.insert("anyOf".to_owned(), any);
                None
            }
            // Limits, patterns, conditions and whatever is to come: without them more may be said.
            _ => None,
        };
        if let Some(kept) = kept {
            plain.insert(key.clone(), kept);
        }
    }
    if may_be_object(map) {
        close(map, &mut plain)?;
    }
    Some(Value::Object(plain))
}

fn is_nested(value: &Value) -> bool {
    value.is_array() || value.is_object()
}

fn may_be_object(map: &Map<String, Value>) -> bool {
    match map.get("type") {
        Some(Value::Array(types)) => types.contains(&json!("object")),
        Some(kind) => kind == "object",
        None => map.contains_key("properties"),
    }
}

/// Closes an object, whose properties have to be named for that.
fn close(map: &Map<String, Value>, plain: &mut Map<String, Value>) -> Option<()> {
    let is_literal = map.contains_key("enum") || map.contains_key("const");
    let named = map.get("properties").and_then(Value::as_object);
    let is_closed = map.get("additionalProperties") == Some(&json!(false));
    let is_map = map.get("additionalProperties").is_some_and(Value::is_object)
        || map.contains_key("patternProperties");
    // Closed in itself, an object could say nothing that the others ask for.
    let is_split = ["allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| map.contains_key(*key));
    let is_named = named.is_some_and(|named| !named.is_empty()) || is_closed;
    if is_map || is_literal || (is_split && !is_closed) || !is_named {
        return None;
    }
    let required = map.get("required").and_then(Value::as_array);
    let is_there = |key: &Value| {
        key.as_str().is_some_and(|key| named.is_some_and(|named| named.contains_key(key)))
    };
    if !required.is_none_or(|required| required.iter().all(is_there)) {
        return None;
    }
    plain.entry("properties").or_insert_with(|| json!({}));
    plain.insert("additionalProperties".to_owned(), json!(false));
    Some(())
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
                let is_asked = |key: &String| required.is_some_and(|all| all.contains(&json!(key)));
                properties.keys().all(is_asked)
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
    fn what_is_taken_out_widens_and_objects_are_closed() {
        let object = |inner: Value| json!({ "type": "object", "properties": { "a": inner }, "required": ["a"] });
        let closed = |inner: Value| {
            let mut object = object(inner);
            object["additionalProperties"] = json!(false);
            object
        };
        let text = || json!({ "type": "string" });
        for (case, asked, want) in [
            (
                "limits",
                json!({ "type": "number", "minimum": 0, "multipleOf": 2 }),
                json!({ "type": "number" }),
            ),
            ("lengths", json!({ "type": "string", "maxLength": 3, "pattern": "^a" }), text()),
            (
                "a format",
                json!({ "type": "string", "format": "uuid" }),
                json!({ "type": "string", "format": "uuid" }),
            ),
            ("a format that is not known", json!({ "type": "string", "format": "regex" }), text()),
            (
                "counts",
                json!({ "type": "array", "items": text(), "minItems": 3, "maxItems": 4,
                "uniqueItems": true }),
                json!({ "type": "array", "items": text(), "minItems": 1 }),
            ),
            (
                "first items",
                json!({ "type": "array", "prefixItems": [text()], "items": false }),
                json!({ "type": "array" }),
            ),
            (
                "first items and others",
                json!({ "type": "array", "prefixItems": [text()],
                "items": { "type": "number" } }),
                json!({ "type": "array" }),
            ),
            ("not", json!({ "type": "string", "not": { "const": "a" } }), text()),
            (
                "not with limits",
                json!({ "type": "number", "not": { "minimum": 0 } }),
                json!({ "type": "number" }),
            ),
            (
                "one of",
                json!({ "oneOf": [{ "type": "number", "maximum": 1 }, text()] }),
                json!({ "anyOf": [{ "type": "number" }, text()] }),
            ),
            (
                "conditions",
                json!({ "type": "string", "if": { "minLength": 3 }, "then": { "const": 1 },
                "else": { "enum": [] } }),
                text(),
            ),
            ("an enum", json!({ "enum": ["a", 1, null] }), json!({ "enum": ["a", 1, null] })),
            (
                "an enum of lists",
                json!({ "type": "array", "enum": [[1], [2]] }),
                json!({ "type": "array" }),
            ),
            (
                "names like words",
                json!({ "type": "object", "properties":
                { "maximum": text(), "not": text() } }),
                json!({ "type": "object", "properties":
                { "maximum": text(), "not": text() }, "additionalProperties": false }),
            ),
            (
                "an object within",
                json!({ "anyOf": [object(text()), { "type": "null" }] }),
                json!({ "anyOf": [closed(text()), { "type": "null" }] }),
            ),
            (
                "an object or nothing",
                json!({ "type": ["object", "null"], "properties": { "a": text() } }),
                json!({ "type": ["object", "null"], "properties": { "a": text() },
                    "additionalProperties": false }),
            ),
            (
                "an object that may be empty",
                json!({ "type": "object", "additionalProperties": false }),
                json!({ "type": "object", "properties": {}, "additionalProperties": false }),
            ),
        ] {
            assert_eq!(plain("x", &object(asked)), Ok(closed(want)), "{case}");
        }
        let referring = json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/b" } },
            "$defs": { "b": { "type": "string", "maxLength": 1 } } });
        let got = plain("x", &referring).unwrap();
        assert_eq!(got["$defs"]["b"], text());
        assert_eq!(got["properties"]["a"], json!({ "$ref": "#/$defs/b" }));
    }

    #[test]
    fn what_cannot_be_widened_is_refused() {
        let object = |inner: Value| json!({ "type": "object", "properties": { "a": inner } });
        let recursive = json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/b" } },
            "$defs": { "b": { "type": "array", "items": { "$ref": "#/$defs/b" } } } });
        for (case, schema) in [
            ("any object", json!({ "type": "object" })),
            ("any object within", object(json!({ "type": "object" }))),
            (
                "a map",
                object(json!({ "type": "object", "additionalProperties": { "type": "string" } })),
            ),
            (
                "properties by a pattern",
                object(json!({ "type": "object", "properties": { "b": {} },
                "patternProperties": { "^x": {} } })),
            ),
            (
                "required and not named",
                json!({ "type": "object", "properties": { "a": {} },
                "required": ["b"] }),
            ),
            (
                "parts that are closed apart",
                json!({ "type": "object", "properties": { "a": {} },
                "allOf": [{ "properties": { "b": {} } }] }),
            ),
            (
                "an object that is a literal",
                object(json!({ "type": "object", "const": { "a": 1 } })),
            ),
            ("anything", object(json!(true))),
            ("nothing", object(json!(false))),
            ("itself", object(json!({ "$ref": "#" }))),
            ("one that refers to itself", recursive),
            ("another document", object(json!({ "$ref": "https://host/schema" }))),
            ("nowhere", object(json!({ "$ref": "#/$defs/b" }))),
        ] {
            assert_eq!(plain("x", &schema), Err(What::Schema("x".to_owned())), "{case}");
        }
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
