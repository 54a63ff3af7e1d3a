//! Owns putting the pieces of an answer together.
//!
//! **Invariant:** what is gathered of a stream is what the provider would have answered in one piece;
//! without an end there is no answer.

use serde_json::{Map, Value};

use crate::conversation::{Answer, Said, Stop, ToolCall, Usage};
use crate::event::Event;

/// Puts the pieces of an answer together.
#[derive(Debug, Clone, Default)]
pub struct Gathering {
    model: String,
    said: Vec<Said>,
    /// The text of the arguments of each call.
    arguments: Vec<String>,
    usage: Option<Usage>,
    stop: Option<Stop>,
}

impl Gathering {
    /// The next piece.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Model(model) => self.model.clone_from(model),
            Event::Text(text) => match self.said.last_mut() {
                Some(Said::Text(words)) => words.push_str(text),
                _ => self.said.push(Said::Text(text.clone())),
            },
            Event::Reasoning(text) => match self.said.last_mut() {
                Some(Said::Reasoning { text: thoughts, signature: None }) => {
                    thoughts.push_str(text);
                }
                _ => self.said.push(Said::Reasoning { text: text.clone(), signature: None }),
            },
            Event::Sealed(seal) => match self.said.last_mut() {
                Some(Said::Reasoning { signature: signature @ None, .. }) => {
                    *signature = Some(seal.clone());
                }
                _ => {
                    let signature = Some(seal.clone());
                    self.said.push(Said::Reasoning { text: String::new(), signature });
                }
            },
            Event::Redacted(data) => self.said.push(Said::Redacted(data.clone())),
            Event::Call { id, name, signature, .. } => {
                self.arguments.push(String::new());
                self.said.push(Said::Call(ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: Value::Null,
                    signature: signature.clone(),
                }));
            }
            Event::Arguments { index, text } => {
                if let Some(arguments) = self.arguments.get_mut(*index) {
                    arguments.push_str(text);
                }
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Stop(stop) => self.stop = Some(stop.clone()),
        }
    }

    /// The answer; `None` where it has not come to its end.
    pub fn answer(self) -> Option<Answer> {
        let mut texts = self.arguments.into_iter();
        let mut said = self.said;
        for said in &mut said {
            if let Said::Call(call) = said {
                call.arguments = arguments(texts.next().unwrap_or_default());
            }
        }
        Some(Answer { model: self.model, said, stop: self.stop?, usage: self.usage })
    }

    /// What was counted so far.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }
}

/// Arguments out of the text that a model wrote; a text where that is no object.
pub(crate) fn arguments(text: String) -> Value {
    if text.trim().is_empty() {
        return Map::new().into();
    }
    serde_json::from_str(&text).map_or(Value::String(text), Value::Object)
}

/// What follows in an answer: words follow words in one, and so do thoughts that have no seal.
pub(crate) fn add(said: &mut Vec<Said>, next: Said) {
    match (said.last_mut(), next) {
        (Some(Said::Text(words)), Said::Text(more)) => words.push_str(&more),
        (
            Some(Said::Reasoning { text, signature: signature @ None }),
            Said::Reasoning { text: more, signature: seal },
        ) => {
            text.push_str(&more);
            *signature = seal;
        }
        (_, next) => said.push(next),
    }
}
