//! Owns asking every protocol for a chat completion with an option and without it.
//!
//! **Invariant:** what is not said to be different has to be the same.

use holdfast_chat::served::completion;
use holdfast_chat::{Conversation, Dialect};
use serde_json::{Value, json};

/// What a protocol makes of an option.
pub(crate) enum Made {
    /// It puts these at these places.
    At(Vec<(&'static str, Value)>),
    /// Nothing: the body is the same as without it.
    Same,
    /// An error that says so.
    Unfit(&'static str),
}

use Made::{At, Same, Unfit};

pub(crate) fn dialect(name: &str) -> Dialect {
    match name {
        "openai" => Dialect::OpenAi,
        "azure-openai" => {
            Dialect::AzureOpenAi { deployment: "gpt".into(), api_version: "2024-10-21".into() }
        }
        "mistral" => Dialect::Mistral,
        "anthropic" => Dialect::Anthropic,
        "gemini" => Dialect::Gemini,
        "vertex" => Dialect::Vertex { project: "p".into(), region: "r".into() },
        _ => Dialect::Bedrock { region: "r".into() },
    }
}

fn merged(mut body: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

/// The conversation of a chat completion with these fields more.
pub(crate) fn chat(more: &Value) -> Conversation {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hello" }] });
    let asked = completion::read(merged(body, more).to_string().as_bytes());
    asked.unwrap_or_else(|refusal| panic!("{more}: {refusal}")).conversation
}

pub(crate) fn tools() -> Value {
    json!([{ "type": "function", "function": { "name": "f" } }])
}

pub(crate) fn body(
    dialect: &Dialect,
    model: &str,
    conversation: &Conversation,
) -> Result<Value, String> {
    let call = dialect.call(model, conversation).map_err(|unfit| unfit.to_string())?;
    Ok(serde_json::from_slice(&call.body).unwrap())
}

/// Checks what `protocol` makes of `option` beside `base`, for `model`.
pub(crate) fn check(protocol: &str, model: &str, base: &Value, option: &Value, want: &Made) {
    let case = format!("{protocol} {model}: {option}");
    let dialect = dialect(protocol);
    let without = body(&dialect, model, &chat(base)).unwrap();
    let with = body(&dialect, model, &chat(&merged(base.clone(), option)));
    match want {
        Unfit(why) => {
            let error = with.expect_err(&case);
            assert_eq!(
                error,
                format!("{protocol} cannot be asked that: it has no {why}"),
                "{case}"
            );
        }
        Same => assert_eq!(with.expect(&case), without, "{case}"),
        At(places) => {
            let mut with = with.expect(&case);
            for (place, value) in places {
                assert_eq!(with.pointer(place), Some(value), "{case} at {place}: {with}");
                // What the other side has there, or nothing.
                remove(&mut with, place);
            }
            let mut without = without;
            for (place, _) in places {
                remove(&mut without, place);
            }
            assert_eq!(with, without, "{case}: nothing else is different");
        }
    }
}

/// Takes out what is at a place, and what is empty then.
fn remove(body: &mut Value, place: &str) {
    let Some((above, key)) = place.rsplit_once('/') else { return };
    if let Some(map) = body.pointer_mut(above).and_then(Value::as_object_mut) {
        map.remove(key);
        if map.is_empty() && !above.is_empty() {
            remove(body, above);
        }
    }
}

/// Everybody's table of one option: those that are not named make nothing of it.
pub(crate) fn table(base: &Value, option: &Value, rows: &[(&str, &str, Made)]) {
    for (protocol, model, want) in rows {
        check(protocol, model, base, option, want);
    }
    let named: Vec<&str> = rows.iter().map(|(protocol, ..)| *protocol).collect();
    let all = ["openai", "azure-openai", "mistral", "anthropic", "gemini", "vertex", "bedrock"];
    for protocol in all.into_iter().filter(|protocol| !named.contains(protocol)) {
        check(protocol, "m", base, option, &Same);
    }
}

/// What is at these places.
macro_rules! at {
    ($($place:literal: $value:tt),* $(,)?) => {
        $crate::table::Made::At(vec![$(($place, serde_json::json!($value))),*])
    };
}
pub(crate) use at;
