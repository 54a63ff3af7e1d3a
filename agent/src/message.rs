//! Owns what a model said in a conversation, as an answer that is kept tells it.
//!
//! **Invariant:** on disk nothing of it is left out, seals and hidden thoughts too, so that the answer can
//! be told as its caller knows it; for people and programs there are its words and its calls.

use std::time::Duration;

use holdfast_chat::{self as chat, Said, Stop, Usage};
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use crate::answer::{Answer, millis};
use crate::destination::Zone;
use crate::outcome::{Outcome, shortened};

/// What a model said.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Message {
    /// In the order in which it was said.
    pub said: Vec<Said>,
    /// Why it ended.
    pub stop: Stop,
    /// What was counted.
    pub usage: Option<Usage>,
}

/// A tool that is to be called, with its arguments as a text of JSON.
#[derive(Debug, Serialize)]
struct Call<'a> {
    id: &'a str,
    name: &'a str,
    arguments: String,
}

/// Tokens.
#[derive(Debug, Serialize)]
struct Tokens {
    input: u64,
    cached: u64,
    output: u64,
    reasoning: u64,
}

impl Message {
    /// The answer of the model that calls itself `model`.
    pub fn answer(&self, model: &str) -> chat::Answer {
        let Self { said, stop, usage } = self.clone();
        chat::Answer { model: model.to_owned(), said, stop, usage }
    }

    /// The message in a few words.
    pub(crate) fn label(&self) -> String {
        let (text, calls) = (self.text(), self.calls());
        let names: Vec<&str> = calls.iter().map(|call| call.name).collect();
        shortened(match (text.is_empty(), names.is_empty(), &self.stop) {
            (false, ..) => text,
            (true, false, _) => format!("calls {}", names.join(", ")),
            (true, true, Stop::Declined(words)) if !words.is_empty() => words.clone(),
            (true, true, Stop::Declined(_)) => "declined".to_owned(),
            (true, true, Stop::Filtered) => "filtered".to_owned(),
            (true, true, Stop::End | Stop::Length | Stop::Calls | Stop::Other(_)) => {
                "no text".to_owned()
            }
        })
    }

    fn text(&self) -> String {
        let words = self.said.iter().filter_map(|said| match said {
            Said::Text(text) => Some(text.as_str()),
            Said::Reasoning { .. } | Said::Redacted(_) | Said::Call(_) => None,
        });
        words.collect()
    }

    fn thoughts(&self) -> String {
        let words = self.said.iter().filter_map(|said| match said {
            Said::Reasoning { text, .. } => Some(text.as_str()),
            Said::Text(_) | Said::Redacted(_) | Said::Call(_) => None,
        });
        words.collect()
    }

    fn calls(&self) -> Vec<Call<'_>> {
        let calls = self.said.iter().filter_map(|said| match said {
            Said::Call(call) => Some(Call {
                id: &call.id,
                name: &call.name,
                // What was no JSON goes on as it came.
                arguments: match call.arguments.as_str() {
                    Some(text) => text.to_owned(),
                    None => call.arguments.to_string(),
                },
            }),
            Said::Text(_) | Said::Reasoning { .. } | Said::Redacted(_) => None,
        });
        calls.collect()
    }
}

impl Answer {
    /// What a model said, by whom it was asked for, and how long that took.
    pub(crate) fn said(
        answer: chat::Answer,
        (place, zone): (String, Zone),
        took: Duration,
        cost_micros: Option<u64>,
    ) -> Self {
        let model = answer.model.clone();
        let outcome = Outcome::Message(answer.into());
        Self {
            label: outcome.label(),
            confidence: None,
            classes: Vec::new(),
            outcome: Some(outcome),
            recorded: None,
            zone,
            place,
            model,
            took_ms: millis(took),
            provisional: false,
            cost_micros,
        }
    }
}

impl From<chat::Answer> for Message {
    fn from(answer: chat::Answer) -> Self {
        let chat::Answer { said, stop, usage, .. } = answer;
        Self { said, stop, usage }
    }
}

/// The word for the end of an answer.
fn word(stop: &Stop) -> &'static str {
    match stop {
        Stop::End => "end",
        Stop::Length => "length",
        Stop::Calls => "calls",
        Stop::Declined(_) => "declined",
        Stop::Filtered => "filtered",
        Stop::Other(_) => "other",
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            // As it is read back: field by field, in their order.
            let mut stored = serializer.serialize_struct("Message", 3)?;
            stored.serialize_field("said", &self.said)?;
            stored.serialize_field("stop", &self.stop)?;
            stored.serialize_field("usage", &self.usage)?;
            return stored.end();
        }
        let (thoughts, calls) = (self.thoughts(), self.calls());
        let refusal = match &self.stop {
            Stop::Declined(words) if !words.is_empty() => Some(words),
            _ => None,
        };
        let usage = self.usage.as_ref().map(|usage| Tokens {
            input: usage.input,
            cached: usage.cached,
            output: usage.output,
            reasoning: usage.reasoning,
        });
        let mut told = serializer.serialize_struct("Message", 6)?;
        told.serialize_field("text", &self.text())?;
        if !thoughts.is_empty() {
            told.serialize_field("reasoning", &thoughts)?;
        }
        if !calls.is_empty() {
            told.serialize_field("tool_calls", &calls)?;
        }
        told.serialize_field("stop", word(&self.stop))?;
        if let Some(words) = refusal {
            told.serialize_field("refusal", words)?;
        }
        if let Some(usage) = &usage {
            told.serialize_field("usage", usage)?;
        }
        told.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_is_told_in_words_and_stored_whole() {
        let call = chat::ToolCall {
            id: "c".to_owned(),
            name: "weather".to_owned(),
            arguments: json!({ "city": "Bonn" }),
            signature: Some("seal".to_owned()),
        };
        let thought = Said::Reasoning { text: "hm".to_owned(), signature: Some("s".to_owned()) };
        let usage = Usage { input: 3, cached: 1, output: 2, reasoning: 1 };
        let message = |said: Vec<Said>, stop| Message { said, stop, usage: Some(usage) };
        let tokens = json!({ "input": 3, "cached": 1, "output": 2, "reasoning": 1 });
        for (message, label, told) in [
            (
                message(vec![thought, Said::Text("yes".to_owned())], Stop::End),
                "yes",
                json!({ "text": "yes", "reasoning": "hm", "stop": "end", "usage": tokens }),
            ),
            (
                message(vec![Said::Redacted("x".to_owned()), Said::Call(call)], Stop::Calls),
                "calls weather",
                json!({ "text": "", "stop": "calls", "usage": tokens, "tool_calls":
                    [{ "id": "c", "name": "weather", "arguments": "{\"city\":\"Bonn\"}" }] }),
            ),
            (
                message(Vec::new(), Stop::Declined("no".to_owned())),
                "no",
                json!({ "text": "", "stop": "declined", "refusal": "no", "usage": tokens }),
            ),
            (
                message(Vec::new(), Stop::Filtered),
                "filtered",
                json!({ "text": "", "stop": "filtered", "usage": tokens }),
            ),
        ] {
            assert_eq!(message.label(), label);
            assert_eq!(serde_json::to_value(&message).unwrap(), told);
            let bytes = postcard::to_stdvec(&message).unwrap();
            assert_eq!(postcard::from_bytes::<Message>(&bytes).unwrap(), message);
        }
    }
}
