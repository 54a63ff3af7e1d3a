//! Every topic there is. Topic text exists nowhere else.
//!
//! ```text
//! holdfast/1/{shard}/{device}/hello     device -> controller   who I am, on every connect
//! holdfast/1/{shard}/{device}/health    device -> controller   how I am, every few seconds
//! holdfast/1/{shard}/{device}/status    device -> controller   bye, and the last will
//! holdfast/1/{shard}/{device}/result    device -> controller   what requests came to
//! holdfast/1/{shard}/{device}/down      controller -> device   acknowledgements
//! holdfast/1/{shard}/announce           controller -> shard    "I am here: say hello"
//! ```
//!
//! **Invariant:** [`Topic::parse`] inverts printing, and refuses a device under a shard that is not its own.

use std::fmt;

use crate::id::{DeviceId, Shard};

const PREFIX: &str = "holdfast/1/";
/// No topic is longer, in bytes: prefix, shard, the longest device id, the longest kind.
pub const MAX_TOPIC: usize = 128;

/// What a topic under a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The device says who it is.
    Hello,
    /// The device says how it is.
    Health,
    /// The device says goodbye, or its broker does so for it.
    Status,
    /// The controller answers.
    Down,
    /// The device tells what requests came to.
    Result,
}

impl Kind {
    /// Every kind that a device sends.
    pub const UP: [Self; 4] = [Self::Hello, Self::Health, Self::Status, Self::Result];

    fn text(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Health => "health",
            Self::Status => "status",
            Self::Down => "down",
            Self::Result => "result",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Hello, Self::Health, Self::Status, Self::Down, Self::Result]
            .into_iter()
            .find(|kind| kind.text() == text)
    }
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Between one device and its controller.
    Device(DeviceId, Kind),
    /// From the controller to all devices of a shard.
    Announce(Shard),
}

/// A text is not one of our topics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a topic of this contract, or a device under a foreign shard")]
pub struct NotATopic;

impl Topic {
    /// Reads a topic.
    ///
    /// # Errors
    /// [`NotATopic`] for anything that printing a [`Topic`] cannot produce.
    pub fn parse(text: &str) -> Result<Self, NotATopic> {
        if text.len() > MAX_TOPIC {
            return Err(NotATopic);
        }
        let mut parts = text.strip_prefix(PREFIX).ok_or(NotATopic)?.split('/');
        let shard = parts.next().and_then(shard_from).ok_or(NotATopic)?;
        match (parts.next(), parts.next(), parts.next()) {
            (Some("announce"), None, None) => Ok(Self::Announce(shard)),
            (Some(device), Some(kind), None) => {
                let device = DeviceId::parse(device).map_err(|_| NotATopic)?;
                let kind = Kind::parse(kind).ok_or(NotATopic)?;
                if device.shard() == shard {
                    Ok(Self::Device(device, kind))
                } else {
                    Err(NotATopic)
                }
            }
            _ => Err(NotATopic),
        }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device, kind) => {
                write!(f, "{PREFIX}{}/{device}/{}", device.shard(), kind.text())
            }
            Self::Announce(shard) => write!(f, "{PREFIX}{shard}/announce"),
        }
    }
}

/// Reads a shard number in its one canonical form: no sign, no leading zero.
fn shard_from(text: &str) -> Option<Shard> {
    let shard = text.parse().ok().and_then(Shard::new)?;
    (shard.to_string() == text).then_some(shard)
}

/// What a controller subscribes to: one kind of message from the devices of one shard, or of all.
#[must_use]
pub fn filter_up(shard: Option<Shard>, kind: Kind) -> String {
    match shard {
        Some(shard) => format!("{PREFIX}{shard}/+/{}", kind.text()),
        None => format!("{PREFIX}+/+/{}", kind.text()),
    }
}

/// What a device subscribes to: its own answers and its shard's announcements.
#[must_use]
pub fn filters_down(device: &DeviceId) -> [String; 2] {
    [
        Topic::Device(device.clone(), Kind::Down).to_string(),
        Topic::Announce(device.shard()).to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topics() -> impl Strategy<Value = Topic> {
        let kinds = prop_oneof![
            Just(Kind::Hello),
            Just(Kind::Health),
            Just(Kind::Status),
            Just(Kind::Down),
            Just(Kind::Result)
        ];
        prop_oneof![
            ("[a-z0-9-]{1,64}", kinds)
                .prop_map(|(id, kind)| Topic::Device(DeviceId::parse(id).unwrap(), kind)),
            (0..Shard::COUNT).prop_map(|n| Topic::Announce(Shard::new(n).unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn parsing_inverts_printing(topic in topics()) {
            prop_assert_eq!(Topic::parse(&topic.to_string()), Ok(topic));
        }

        #[test]
        fn what_parses_prints_the_same(text in "(holdfast/1/)?[0-9]{1,3}(/[a-z]{1,8}){0,3}(/(hello|health|announce))?") {
            if let Ok(topic) = Topic::parse(&text) {
                prop_assert_eq!(topic.to_string(), text);
            }
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _checked = Topic::parse(&text).is_ok();
        }
    }

    #[test]
    fn text_that_is_not_ours_is_refused() {
        let own = DeviceId::parse("cam-7").unwrap().shard();
        let foreign = Shard::all().find(|shard| *shard != own).unwrap();
        for text in [
            String::new(),
            "holdfast/1/".into(),
            format!("holdfast/2/{own}/cam-7/hello"),
            format!("holdfast/1/{foreign}/cam-7/hello"),
            format!("holdfast/1/0{own}/cam-7/hello"),
            format!("holdfast/1/+{own}/cam-7/hello"),
            format!("holdfast/1/{own}/cam-7/hello/"),
            format!("holdfast/1/{own}/cam-7/hello/x"),
            format!("holdfast/1/{own}/cam-7/gossip"),
            format!("holdfast/1/{own}/CAM-7/hello"),
            format!("/holdfast/1/{own}/cam-7/hello"),
            "holdfast/1/64/announce".into(),
            "holdfast/1/3/announce/".into(),
        ] {
            assert_eq!(Topic::parse(&text), Err(NotATopic), "{text}");
        }
    }

    #[test]
    fn filters_match_what_is_sent() {
        let device = DeviceId::parse("cam-7").unwrap();
        let shard = device.shard();
        assert_eq!(filter_up(None, Kind::Hello), "holdfast/1/+/+/hello");
        assert_eq!(filter_up(Some(shard), Kind::Health), format!("holdfast/1/{shard}/+/health"));
        assert_eq!(
            filters_down(&device),
            [format!("holdfast/1/{shard}/cam-7/down"), format!("holdfast/1/{shard}/announce")]
        );
    }
}
