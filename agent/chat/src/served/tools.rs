//! Owns tools and schemas as requests declare them: names, parameters, the form of an answer, the choice.
//!
//! **Invariant:** a tool that is chosen is there; a schema is one of an object.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Refusal;
use super::fault::{invalid, missing, unsupported_value};
use super::fields::{Object, WordOr};
use crate::conversation::{Output, Tool, ToolChoice};
use crate::schema::is_strict;

/// OpenAI takes so many tools.
const MOST_TOOLS: usize = 128;

/// A name of a tool or a schema.
pub(super) fn named(param: &str, name: String) -> Result<String, Refusal> {
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    match is_name {
        true => Ok(name),
        false => {
            Err(invalid(param, format!("{param}: must be 1 to 64 of letters, digits, _ and -")))
        }
    }
}

/// The schema of an object, or of any object.
pub(super) fn schema(
    param: &str,
    schema: Option<Map<String, Value>>,
    is_to_be_strict: bool,
) -> Result<Value, Refusal> {
    let schema = match schema {
        Some(schema) => Value::Object(schema),
        None => json!({ "type": "object", "properties": {} }),
    };
    if schema["type"] != "object" {
        return Err(invalid(param, format!("{param}: must be the schema of an object")));
    }
    if is_to_be_strict && !is_strict(&schema) {
        let message = "where strict is true, every object has all its properties required and \
                       additionalProperties false";
        return Err(invalid(param, format!("{param}: {message}")));
    }
    Ok(schema)
}

/// A tool of `function`'s fields, at `param`.
pub(super) fn tool(param: &str, function: Function) -> Result<Tool, Refusal> {
    let at = |field: &str| format!("{param}.{field}");
    let name = function.name.ok_or_else(|| missing(at("name")))?;
    let strict = function.strict.unwrap_or_default();
    Ok(Tool {
        name: named(&at("name"), name)?,
        description: function.description.unwrap_or_default(),
        parameters: schema(&at("parameters"), function.parameters, strict)?,
        strict,
    })
}

/// Tools of what is declared, of which `read` makes one at its path.
pub(super) fn tools<T>(
    declared: Option<Vec<Object<T>>>,
    read: impl Fn(&str, T) -> Result<Tool, Refusal>,
) -> Result<Vec<Tool>, Refusal> {
    let declared = declared.unwrap_or_default();
    if declared.len() > MOST_TOOLS {
        return Err(invalid("tools", format!("tools: must be up to {MOST_TOOLS}")));
    }
    let each = declared.into_iter().enumerate();
    each.map(|(at, Object(declared))| read(&format!("tools[{at}]"), declared)).collect()
}

/// Refuses a tool, or the choice of one, at `param`, that is no function.
pub(super) fn is_function(param: &str, kind: Option<&str>) -> Result<(), Refusal> {
    let param = format!("{param}.type");
    match kind {
        Some("function") => Ok(()),
        None => Err(missing(param)),
        Some(_) => {
            let message = format!("{param}: can only be function here");
            Err(unsupported_value(param, message))
        }
    }
}

/// The choice of a tool that is there; `name` is the one that an object names.
pub(super) fn choice<T>(
    choice: Option<WordOr<T>>,
    tools: &[Tool],
    name: impl FnOnce(T) -> Result<String, Refusal>,
) -> Result<ToolChoice, Refusal> {
    let param = "tool_choice";
    let choice = match choice {
        None => return Ok(ToolChoice::Auto),
        Some(WordOr::Word(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::Never,
            "required" => ToolChoice::Any,
            _ => {
                let message = format!("{param}: must be none, auto, required or a function");
                return Err(invalid(param, message));
            }
        },
        Some(WordOr::Object(choice)) => ToolChoice::Named(name(choice)?),
    };
    let is_there = match &choice {
        ToolChoice::Auto | ToolChoice::Never => true,
        ToolChoice::Any => !tools.is_empty(),
        ToolChoice::Named(name) => tools.iter().any(|tool| tool.name == *name),
    };
    match is_there {
        true => Ok(choice),
        false => Err(invalid(param, format!("{param}: no such tool is in tools"))),
    }
}

/// A function that may be called.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Function {
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) parameters: Option<Map<String, Value>>,
    #[serde(default)]
    pub(super) strict: Option<bool>,
}

/// The fields of a form of JSON.
#[derive(Debug, Default)]
pub(super) struct Form {
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) schema: Option<Map<String, Value>>,
    pub(super) strict: Option<bool>,
}

/// The form of an answer; any object is the schema `{"type": "object"}`.
pub(super) fn output(param: &str, kind: &str, form: Option<Form>) -> Result<Output, Refusal> {
    let any = || json!({ "type": "object" });
    match (kind, form) {
        ("text", None) => Ok(Output::Text),
        ("json_object", None) => Ok(Output::Json { name: "object".to_owned(), schema: any() }),
        ("json_schema", Some(form)) => {
            let at = |field: &str| format!("{param}.{field}");
            let name = form.name.ok_or_else(|| missing(at("name")))?;
            let name = named(&at("name"), name)?;
            let is_to_be_strict = form.strict.unwrap_or_default();
            let mut schema = match form.schema {
                None => any(),
                given => schema(&at("schema"), given, is_to_be_strict)?,
            };
            if let (Some(description), true) = (form.description, schema["description"].is_null()) {
                schema["description"] = description.into();
            }
            Ok(Output::Json { name, schema })
        }
        ("json_schema", None) => Err(missing(param)),
        ("text" | "json_object", Some(_)) => {
            Err(invalid(param, format!("{param}: only of the type json_schema")))
        }
        _ => {
            let message = format!("{param}: must be of the type text, json_object or json_schema");
            Err(invalid(param, message))
        }
    }
}
