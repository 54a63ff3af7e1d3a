//! Owns taking an answer apart into the pieces in which it could have come.
//!
//! **Invariant:** what is gathered of the pieces is the answer.

use serde_json::Value;

use crate::conversation::{Answer, Said};
use crate::event::Event;

impl Answer {
    /// The pieces of the answer, each as long as it can be.
    pub fn pieces(&self) -> Vec<Event> {
        let mut pieces = Vec::new();
        if !self.model.is_empty() {
            pieces.push(Event::Model(self.model.clone()));
        }
        let mut calls = 0;
        for said in &self.said {
            match said {
                Said::Text(text) => pieces.push(Event::Text(text.clone())),
                Said::Reasoning { text, signature } => {
                    if !text.is_empty() {
                        pieces.push(Event::Reasoning(text.clone()));
                    }
                    pieces.extend(signature.clone().map(Event::Sealed));
                }
                Said::Redacted(data) => pieces.push(Event::Redacted(data.clone())),
                Said::Call(call) => {
                    let (id, name) = (call.id.clone(), call.name.clone());
                    let signature = call.signature.clone();
                    pieces.push(Event::Call { index: calls, id, name, signature });
                    let text = match &call.arguments {
                        // The model wrote something else than an object.
                        Value::String(text) => text.clone(),
                        arguments => arguments.to_string(),
                    };
                    pieces.push(Event::Arguments { index: calls, text });
                    calls += 1;
                }
            }
        }
        pieces.push(Event::Stop(self.stop.clone()));
        pieces.extend(self.usage.map(Event::Usage));
        pieces
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conversation::{Stop, ToolCall, Usage};
    use crate::gathering::Gathering;

    #[test]
    fn what_is_gathered_of_the_pieces_is_the_answer() {
        let thoughts = |text: &str, seal: Option<&str>| Said::Reasoning {
            text: text.to_owned(),
            signature: seal.map(str::to_owned),
        };
        let call = |id: &str, arguments| {
            let (id, name) = (id.to_owned(), "weather".to_owned());
            Said::Call(ToolCall { id, name, arguments, signature: Some("s".to_owned()) })
        };
        let text = |words: &str| Said::Text(words.to_owned());
        for (said, stop) in [
            (vec![text("hello")], Stop::End),
            (Vec::new(), Stop::End),
            (vec![thoughts("hm", None), text("yes")], Stop::Length),
            (vec![thoughts("hm", Some("seal")), thoughts("", Some("another"))], Stop::End),
            (vec![Said::Redacted("x".to_owned()), text("yes")], Stop::Other("w".to_owned())),
            (
                vec![
                    text("I look"),
                    call("1", json!({ "city": "Bonn" })),
                    call("2", json!({})),
                    call("3", json!("{not JSON")),
                ],
                Stop::Calls,
            ),
        ] {
            let usage = Some(Usage { input: 3, ..Usage::default() });
            let answer = Answer { model: "m".to_owned(), said, stop, usage };
            let mut gathering = Gathering::default();
            answer.pieces().iter().for_each(|piece| gathering.take(piece));
            assert_eq!(gathering.answer(), Some(answer));
        }
    }
}
