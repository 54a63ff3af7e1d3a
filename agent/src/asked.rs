//! What makes a request another one than the one before under the same idempotency key.
//!
//! **Invariant:** pure; tells no more than names: never what an input holds.

use crate::envelope::{Envelope, Held};
use crate::request::{DataClass, Escalate, Request, TaskName};

/// What is asked, but for the input's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The task.
    pub task: TaskName,
    /// The input's class.
    pub class: DataClass,
    /// What the caller wants of a bigger model.
    pub escalate: Escalate,
    /// The input's media type, such as `audio/wav`.
    pub media_type: String,
}

impl Asked {
    /// What a request asks.
    pub fn of(request: &Request) -> Self {
        Self {
            task: request.task.clone(),
            class: request.class,
            escalate: request.escalate,
            media_type: request.media.media_type().mime().to_owned(),
        }
    }

    /// What a stored request asked, where that was a task.
    pub fn of_stored(envelope: &Envelope) -> Option<Self> {
        match &envelope.held {
            Held::Task(held) => Some(Self {
                task: held.task.clone(),
                class: envelope.class,
                escalate: held.escalate,
                media_type: held.media_type.clone(),
            }),
            Held::Conversation(_) => None,
        }
    }

    /// In what it differs from the one before, each part with both values; where it is none of these,
    /// it is the input.
    #[must_use]
    pub fn difference(&self, before: &Self) -> String {
        let parts = [
            ("task", self.task.as_str(), before.task.as_str()),
            ("class", self.class.as_str(), before.class.as_str()),
            ("escalate", self.escalate.as_str(), before.escalate.as_str()),
            ("media type", &self.media_type, &before.media_type),
        ];
        told(&parts).unwrap_or_else(|| "the input is another one".to_owned())
    }
}

/// In what a conversation for this model and of this class differs from what was asked before under its key;
/// no model: that was a task. It may have been somebody else, who may ask what this caller may not even hear
/// of: no name of it is told.
#[must_use]
pub fn conversations_differ(
    (model, class): (&str, DataClass),
    (model_before, class_before): (Option<&str>, DataClass),
) -> String {
    let Some(model_before) = model_before else {
        return "it is a conversation, was a task".to_owned();
    };
    let is_other_model = (model != model_before).then(|| "the model is another one".to_owned());
    let is_other_class = told(&[("class", class.as_str(), class_before.as_str())]);
    let differs: Vec<_> = is_other_model.into_iter().chain(is_other_class).collect();
    match differs.is_empty() {
        true => "the conversation, or a setting of it, is another one".to_owned(),
        false => differs.join(", "),
    }
}

/// The parts of which the values differ, now and before; `None` where none does.
fn told(parts: &[(&str, &str, &str)]) -> Option<String> {
    let other = parts.iter().filter(|(_, now, before)| now != before);
    let told: Vec<_> =
        other.map(|(what, now, before)| format!("{what} is {now}, was {before}")).collect();
    (!told.is_empty()).then(|| told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_what_a_conversation_differs_is_told_by_its_name() {
        let before = (Some("near"), DataClass::Internal);
        for (model, class, want) in [
            ("near", DataClass::Internal, "the conversation, or a setting of it, is another one"),
            ("near", DataClass::Public, "class is public, was internal"),
            ("far", DataClass::Public, "the model is another one, class is public, was internal"),
        ] {
            assert_eq!(conversations_differ((model, class), before), want);
        }
        let task = (None, DataClass::Internal);
        let told = conversations_differ(("near", DataClass::Internal), task);
        assert_eq!(told, "it is a conversation, was a task");
    }

    #[test]
    fn what_differs_is_told_by_its_name() {
        let one = Asked {
            task: TaskName::parse("look-up").unwrap(),
            class: DataClass::Internal,
            escalate: Escalate::Auto,
            media_type: "audio/wav".to_owned(),
        };
        let with = |change: fn(&mut Asked)| {
            let mut other = one.clone();
            change(&mut other);
            other.difference(&one)
        };
        for (told, want) in [
            (with(|_| {}), "the input is another one"),
            (with(|a| a.class = DataClass::Public), "class is public, was internal"),
            (with(|a| a.media_type = "text/csv".into()), "media type is text/csv, was audio/wav"),
            (
                with(|a| {
                    a.task = TaskName::parse("weld").unwrap();
                    a.escalate = Escalate::Always;
                }),
                "task is weld, was look-up, escalate is always, was auto",
            ),
        ] {
            assert_eq!(told, want);
        }
    }
}
