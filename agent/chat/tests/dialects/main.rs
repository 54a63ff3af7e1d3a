//! What every protocol makes of one conversation and of its answers, and what it cannot.

mod answered;
mod asked;

use holdfast_chat::{Dialect, ToolCall};
use serde_json::json;

fn dialects() -> [Dialect; 7] {
    [
        Dialect::OpenAi,
        Dialect::AzureOpenAi { deployment: "gpt".into(), api_version: "2024-10-21".into() },
        Dialect::Mistral,
        Dialect::Anthropic,
        Dialect::Gemini,
        Dialect::Vertex { project: "p".into(), region: "r".into() },
        Dialect::Bedrock { region: "r".into() },
    ]
}

fn call() -> ToolCall {
    ToolCall {
        id: "call00001".to_owned(),
        name: "weather".to_owned(),
        arguments: json!({ "city": "Bonn" }),
        signature: Some("seal".to_owned()),
    }
}
