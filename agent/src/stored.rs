//! Owns the shapes in which answers, and what is around them, are written to disk.
//!
//! **Invariant:** a released shape never changes. Version 1 tells classes only, version 2 answers of
//! every kind, version 3 what they cost, version 4 conversations; each answer is written as the first
//! that can tell it, so that an agent that knows no other can read it.

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Class, Reason};
use crate::destination::Zone;
use crate::envelope::{Envelope, Final, Frame, Held, HeldConversation};
use crate::outcome::{Outcome, Recorded};
use crate::request::{DataClass, Escalate, Priority, TaskName};
use crate::subject::Subject;

/// An answer of version 1.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerV1 {
    label: String,
    confidence: f32,
    classes: Vec<Class>,
    zone: Zone,
    place: String,
    model: String,
    took_ms: f64,
    provisional: bool,
}

/// An answer of version 2.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerV2 {
    label: String,
    confidence: Option<f32>,
    classes: Vec<Class>,
    zone: Zone,
    place: String,
    model: String,
    took_ms: f64,
    provisional: bool,
    outcome: Option<Outcome>,
    recorded: Option<Recorded>,
}

/// An answer of version 3.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerV3 {
    answer: AnswerV2,
    cost_micros: Option<u64>,
}

/// Everything about a held request but its input, with the answers of one version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EnvelopeOf<A> {
    pub(crate) task: TaskName,
    pub(crate) class: DataClass,
    pub(crate) priority: Priority,
    pub(crate) escalate: Escalate,
    pub(crate) media_type: String,
    pub(crate) deadline_ms: u64,
    pub(crate) ttl_ms: u64,
    pub(crate) key: Option<String>,
    pub(crate) hops: u8,
    pub(crate) provisional: Option<A>,
    pub(crate) reasons: Vec<Reason>,
}

/// A final answer with its reasons, with the answers of one version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FinalOf<A> {
    pub(crate) task: TaskName,
    pub(crate) class: DataClass,
    pub(crate) answer: A,
    pub(crate) reasons: Vec<Reason>,
}

/// Everything about a held conversation but its turns.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EnvelopeV4 {
    model: String,
    class: DataClass,
    priority: Priority,
    within_ms: u64,
    ttl_ms: u64,
    cost_limit_micros: Option<u64>,
    key: Option<String>,
    hops: u8,
    reasons: Vec<Reason>,
    frame: Frame,
}

/// The final answer to a conversation with its reasons.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct FinalV4 {
    model: String,
    class: DataClass,
    answer: AnswerV3,
    reasons: Vec<Reason>,
}

impl EnvelopeV4 {
    pub(crate) fn of(envelope: &Envelope, held: &HeldConversation) -> Self {
        Self {
            model: held.model.clone(),
            class: envelope.class,
            priority: envelope.priority,
            within_ms: held.within_ms,
            ttl_ms: envelope.ttl_ms,
            cost_limit_micros: held.cost_limit_micros,
            key: envelope.key.clone(),
            hops: envelope.hops,
            reasons: envelope.reasons.clone(),
            frame: held.frame.clone(),
        }
    }
}

impl From<EnvelopeV4> for Envelope {
    fn from(stored: EnvelopeV4) -> Self {
        Self {
            held: Held::Conversation(Box::new(HeldConversation {
                model: stored.model,
                within_ms: stored.within_ms,
                cost_limit_micros: stored.cost_limit_micros,
                frame: stored.frame,
            })),
            class: stored.class,
            priority: stored.priority,
            ttl_ms: stored.ttl_ms,
            key: stored.key,
            hops: stored.hops,
            reasons: stored.reasons,
        }
    }
}

impl FinalV4 {
    pub(crate) fn of(stored: &Final, model: &str) -> Self {
        Self {
            model: model.to_owned(),
            class: stored.class,
            answer: AnswerV3::from(&stored.answer),
            reasons: stored.reasons.clone(),
        }
    }
}

impl From<FinalV4> for Final {
    fn from(stored: FinalV4) -> Self {
        let FinalV4 { model, class, answer, reasons } = stored;
        Self { subject: Subject::Model(model), class, answer: answer.into(), reasons }
    }
}

impl AnswerV1 {
    /// The answer, if version 1 can tell it.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        if answer.outcome.is_some() || answer.recorded.is_some() || answer.cost_micros.is_some() {
            return None;
        }
        Some(Self {
            label: answer.label.clone(),
            confidence: answer.confidence?,
            classes: answer.classes.clone(),
            zone: answer.zone,
            place: answer.place.clone(),
            model: answer.model.clone(),
            took_ms: answer.took_ms,
            provisional: answer.provisional,
        })
    }
}

impl From<AnswerV1> for Answer {
    fn from(stored: AnswerV1) -> Self {
        Self {
            label: stored.label,
            confidence: Some(stored.confidence),
            classes: stored.classes,
            outcome: None,
            recorded: None,
            zone: stored.zone,
            place: stored.place,
            model: stored.model,
            took_ms: stored.took_ms,
            provisional: stored.provisional,
            cost_micros: None,
        }
    }
}

impl AnswerV2 {
    /// The answer, if version 2 can tell it.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        answer.cost_micros.is_none().then(|| Self::without_cost(answer))
    }

    fn without_cost(answer: &Answer) -> Self {
        Self {
            label: answer.label.clone(),
            confidence: answer.confidence,
            classes: answer.classes.clone(),
            zone: answer.zone,
            place: answer.place.clone(),
            model: answer.model.clone(),
            took_ms: answer.took_ms,
            provisional: answer.provisional,
            outcome: answer.outcome.clone(),
            recorded: answer.recorded.clone(),
        }
    }
}

impl From<AnswerV2> for Answer {
    fn from(stored: AnswerV2) -> Self {
        Self {
            label: stored.label,
            confidence: stored.confidence,
            classes: stored.classes,
            outcome: stored.outcome,
            recorded: stored.recorded,
            zone: stored.zone,
            place: stored.place,
            model: stored.model,
            took_ms: stored.took_ms,
            provisional: stored.provisional,
            cost_micros: None,
        }
    }
}

impl From<&Answer> for AnswerV3 {
    fn from(answer: &Answer) -> Self {
        Self { answer: AnswerV2::without_cost(answer), cost_micros: answer.cost_micros }
    }
}

impl From<AnswerV3> for Answer {
    fn from(stored: AnswerV3) -> Self {
        Self { cost_micros: stored.cost_micros, ..stored.answer.into() }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_chat::{
        Conversation, Detail, Effort, Hints, Image, Output, Part, Said, Sampling, Stop, Thinking,
        Tool, ToolCall, ToolChoice, ToolResult, Turn, Usage, Verbosity,
    };
    use serde_json::json;

    use super::*;
    use crate::envelope::{body_of, conversation_of};
    use crate::message::Message;
    use crate::outcome::Anomaly;

    fn answered(label: &str, confidence: Option<f32>, outcome: Option<Outcome>) -> Final {
        Final {
            subject: Subject::Task(TaskName::parse("look").unwrap()),
            class: DataClass::Internal,
            answer: Answer {
                label: label.to_owned(),
                confidence,
                classes: Vec::new(),
                outcome,
                recorded: None,
                zone: Zone::Device,
                place: "device".to_owned(),
                model: "m".to_owned(),
                took_ms: 2.0,
                provisional: false,
                cost_micros: None,
            },
            reasons: vec![if confidence.is_some() { Reason::Held } else { Reason::NoConfidence }],
        }
    }

    #[test]
    fn released_bytes_stay_as_they_are() {
        let anomaly = Outcome::Anomaly(Anomaly { score: 2.0, threshold: 1.0, is_anomaly: true });
        let first: &[&[u8]] = &[
            b"\x01\x04look\x01\x04stop",
            &0.5f32.to_le_bytes(),
            b"\x00\x00\x06device\x01m",
            &2.0f64.to_le_bytes(),
            b"\x00\x01\x0c",
        ];
        let second: &[&[u8]] = &[
            b"\x02\x04look\x01\x07anomaly\x00\x00\x00\x06device\x01m",
            &2.0f64.to_le_bytes(),
            b"\x00\x01\x03",
            &2.0f32.to_le_bytes(),
            &1.0f32.to_le_bytes(),
            b"\x01\x00\x01\x11",
        ];
        let third: &[&[u8]] = &[
            b"\x03\x04look\x01\x04stop\x01",
            &0.5f32.to_le_bytes(),
            b"\x00\x00\x06device\x01m",
            &2.0f64.to_le_bytes(),
            b"\x00\x00\x00\x01\xac\x02\x01\x0c",
        ];
        let mut paid = answered("stop", Some(0.5), None);
        paid.answer.cost_micros = Some(300);
        for (stored, bytes) in [
            (paid, third.concat()),
            (answered("stop", Some(0.5), None), first.concat()),
            (answered("anomaly", None, Some(anomaly)), second.concat()),
        ] {
            assert_eq!(stored.to_bytes(), bytes, "{stored:?}");
            assert_eq!(Final::from_bytes(&bytes), Ok(stored));
        }
        let newer = [&[5], &first.concat()[1..]].concat();
        assert!(Final::from_bytes(&newer).is_err());
    }

    #[test]
    fn released_bytes_of_conversations_stay_as_they_are() {
        let told = Message {
            said: vec![
                Said::Reasoning { text: "h".to_owned(), signature: None },
                Said::Text("hi".to_owned()),
                Said::Call(ToolCall {
                    id: "c".to_owned(),
                    name: "f".to_owned(),
                    arguments: json!({ "a": 1 }),
                    signature: None,
                }),
            ],
            stop: Stop::Calls,
            usage: Some(Usage { input: 300, cached: 1, output: 2, reasoning: 3 }),
        };
        let mut stored = answered("hi", None, Some(Outcome::Message(told)));
        stored.subject = Subject::Model("any".to_owned());
        stored.reasons = vec![Reason::Held];
        let bytes: &[&[u8]] = &[
            b"\x04\x03any\x01\x02hi\x00\x00\x00\x06device\x01m",
            &2.0f64.to_le_bytes(),
            // A message of three parts.
            b"\x00\x01\x08\x03\x01\x01h\x00\x00\x02hi\x03\x01c\x01f\x07{\"a\":1}\x00",
            b"\x02\x01\xac\x02\x01\x02\x03\x00\x00\x01\x0c",
        ];
        assert_eq!(stored.to_bytes(), bytes.concat(), "{stored:?}");
        assert_eq!(Final::from_bytes(&bytes.concat()), Ok(stored));
    }

    #[test]
    fn released_bytes_of_what_is_held_stay_as_they_are() {
        let png = Bytes::from_static(b"png");
        let conversation = Conversation {
            system: Some("s".to_owned()),
            turns: vec![
                Turn::User(vec![
                    Part::Text("t".to_owned()),
                    Part::Image(Image::Png, png, Detail::High),
                ]),
                Turn::Model(vec![Said::Redacted("r".to_owned())]),
                Turn::Results(vec![ToolResult {
                    id: "c".to_owned(),
                    name: "f".to_owned(),
                    content: "x".to_owned(),
                    is_error: true,
                }]),
            ],
            tools: vec![Tool {
                name: "f".to_owned(),
                description: "d".to_owned(),
                parameters: json!({}),
                strict: true,
            }],
            tool_choice: ToolChoice::Named("f".to_owned()),
            parallel_tool_calls: Some(false),
            output: Output::Json { name: "o".to_owned(), schema: json!({}) },
            thinking: Thinking { effort: Some(Effort::High), is_told: true },
            verbosity: Some(Verbosity::Low),
            sampling: Sampling { temperature: Some(0.5), seed: Some(7), ..Sampling::default() },
            max_tokens: Some(300),
            stop: vec!["!".to_owned()],
            hints: Hints::default(),
        };
        let body: &[&[u8]] = &[
            b"\x01\x01\x01s\x03\x00\x02\x01\x01t\x02\x01\x03png\x02",
            b"\x01\x01\x02\x01r\x02\x01\x01c\x01f\x01x\x01",
            b"\x01\x01f\x01d\x02{}\x01\x03\x01f\x01\x00\x01\x01o\x02{}\x01\x04\x01\x01\x00\x01",
            &0.5f32.to_le_bytes(),
            b"\x00\x00\x01\x07\x00\x00\x01\xac\x02\x01\x01!",
        ];
        assert_eq!(body_of(&conversation), body.concat());
        assert_eq!(conversation_of(&body.concat()), Ok(conversation.clone()));
        let hints = Hints {
            user: Some("u".to_owned()),
            safety_identifier: None,
            prompt_cache_key: Some("k".to_owned()),
            prediction: Some("p".to_owned()),
        };
        let hinted = Conversation { hints, ..conversation };
        let bare = body.concat().split_off(1);
        let body = [b"\x02\x01\x01u\x00\x01\x01k\x01\x01p".to_vec(), bare].concat();
        assert_eq!(body_of(&hinted), body);
        assert_eq!(conversation_of(&body), Ok(hinted));
        let settings = Conversation { max_tokens: Some(3), ..Conversation::default() };
        let metadata = [("k".to_owned(), "v".to_owned())].into();
        let frame = Frame { created_s: 5, metadata, user: Some("u".to_owned()), settings };
        let envelope = Envelope {
            held: Held::Conversation(Box::new(HeldConversation {
                model: "any".to_owned(),
                within_ms: 9,
                cost_limit_micros: Some(8),
                frame,
            })),
            class: DataClass::Internal,
            priority: Priority::default(),
            ttl_ms: 7,
            key: Some("key".to_owned()),
            hops: 1,
            reasons: vec![Reason::Held],
        };
        let bytes: &[&[u8]] = &[
            b"\x04\x03any\x01\x04\x09\x07\x01\x08\x01\x03key\x01\x01\x0c",
            b"\x05\x01\x01k\x01v\x01\x01u",
            b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x03\x00",
        ];
        assert_eq!(envelope.to_bytes(), bytes.concat());
        assert_eq!(Envelope::from_bytes(&bytes.concat()), Ok(envelope));
    }
}
