//! Owns the shapes in which answers, and what is around them, are written to disk.
//!
//! **Invariant:** a released shape never changes. Version 1 tells classes only, version 2 answers of
//! every kind, version 3 what they cost; each answer is written as the first that can tell it, so that
//! an agent that knows no other can read it.

use serde::{Deserialize, Serialize};

use crate::answer::{Answer, Class, Reason};
use crate::destination::Zone;
use crate::outcome::{Outcome, Recorded};
use crate::request::{DataClass, Escalate, Priority, TaskName};

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
    use super::*;
    use crate::envelope::Final;
    use crate::outcome::Anomaly;

    fn answered(label: &str, confidence: Option<f32>, outcome: Option<Outcome>) -> Final {
        Final {
            task: TaskName::parse("look").unwrap(),
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
        let newer = [&[4], &first.concat()[1..]].concat();
        assert!(Final::from_bytes(&newer).is_err());
    }
}
