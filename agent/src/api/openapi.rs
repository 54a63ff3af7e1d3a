//! Owns the OpenAPI document of the API: written by hand, a file for each family of routes, and put
//! together when somebody asks for it.
//!
//! **Invariant:** the document has every route of the API and no other.

use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

/// What all have in common, and what each family adds to it.
const PARTS: [&str; 4] = [
    include_str!("openapi/document.json"),
    include_str!("openapi/native.json"),
    include_str!("openapi/openai.json"),
    include_str!("openapi/oip.json"),
];

pub(super) async fn show() -> Response {
    Json(document()).into_response()
}

fn document() -> Value {
    let mut document = Value::Null;
    for part in PARTS {
        // The tests read each of them.
        merge(&mut document, serde_json::from_str(part).unwrap_or_default());
    }
    if let Some(version) = document.pointer_mut("/info/version") {
        *version = env!("CARGO_PKG_VERSION").into();
    }
    document
}

/// Adds the entries of a part to those that are there.
fn merge(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                merge(whole.entry(key).or_insert(Value::Null), value);
            }
        }
        (whole, part) => *whole = part,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The leaves of a value: objects and lists are counted by what is in them.
    fn leaves(value: &Value) -> usize {
        match value {
            Value::Object(map) if !map.is_empty() => map.values().map(leaves).sum(),
            Value::Array(list) if !list.is_empty() => list.iter().map(leaves).sum(),
            _ => 1,
        }
    }

    /// Every `$ref` in a value.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|inner| references(inner, found));
            }
            Value::Array(list) => list.iter().for_each(|inner| references(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn no_part_hides_anything_of_another() {
        let parts = PARTS.map(|part| serde_json::from_str::<Value>(part).unwrap());
        assert_eq!(leaves(&document()), parts.iter().map(leaves).sum::<usize>());
    }

    #[test]
    fn every_route_is_in_the_document_and_nothing_else() {
        let own = crate::api::routes::routes().into_iter().map(|(path, _)| path.replace("{*", "{"));
        let of_protocol = crate::oip::routes().into_iter();
        let of_protocol = of_protocol.map(|(path, _)| format!("/v2{}", path.trim_end_matches('/')));
        let routes: BTreeSet<String> = own.chain(of_protocol).collect();
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        assert_eq!(routes, paths.keys().cloned().collect());
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_component_is_used() {
        let document = document();
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        let kinds = document["components"].as_object().unwrap().iter();
        let kinds = kinds.filter(|(kind, _)| *kind != "securitySchemes");
        let there = kinds.flat_map(|(kind, map)| {
            map.as_object().unwrap().keys().map(move |name| format!("#/components/{kind}/{name}"))
        });
        assert_eq!(used, there.collect());
    }
}
