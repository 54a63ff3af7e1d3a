//! One device, as the controller knows it.
//!
//! **Invariant:** a device that was once seen keeps its key; whether it is online changes only through the methods
//! here, each of which says whether anything changed.

use holdfast_wire::id::DeviceId;
use holdfast_wire::message::{Health, Hello};
use holdfast_wire::sign::{LastSequence, PublicKey};
use holdfast_wire::unit::Millis;

use crate::clock::Now;

/// So many health reports may be missing before a device counts as offline.
const MISSED: u64 = 3;
/// In place of a last will that has come: no message has this sequence, because the roster refuses it.
const SPENT: u64 = u64::MAX;

/// Whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Online,
    Offline(Why),
}

/// Why a device is offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It said goodbye.
    Bye,
    /// Its broker saw the connection break.
    LastWill,
    /// Nothing came for three intervals.
    Silence,
}

impl Presence {
    pub(crate) const ALL: [Self; 4] = [
        Self::Online,
        Self::Offline(Why::Bye),
        Self::Offline(Why::LastWill),
        Self::Offline(Why::Silence),
    ];

    /// As it is stored.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline(why) => why.text(),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|presence| presence.text() == text)
    }
}

impl Why {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Bye => "bye",
            Self::LastWill => "last-will",
            Self::Silence => "silence",
        }
    }
}

/// One device.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    /// The first key that was seen for it.
    pub(crate) key: PublicKey,
    pub(crate) first_seen: Millis,
    pub(crate) last_seen: Millis,
    pub(crate) sequence: LastSequence,
    pub(crate) hello: Hello,
    pub(crate) health: Option<Health>,
    pub(crate) presence: Presence,
    /// Since when it is so, as a date.
    pub(crate) presence_since: Millis,
    /// When it was last heard, on the clock that never jumps; after a restart of the controller, the restart.
    pub(crate) heard: Millis,
}

impl Device {
    /// A device that says hello for the first time.
    pub(crate) fn new(key: PublicKey, sequence: LastSequence, hello: Hello, now: Now) -> Self {
        Self {
            id: hello.device.clone(),
            key,
            first_seen: now.date,
            last_seen: now.date,
            sequence,
            hello,
            health: None,
            presence: Presence::Online,
            presence_since: now.date,
            heard: now.span,
        }
    }

    /// It says hello again. A health of an earlier run is not kept.
    pub(crate) fn hello(&mut self, hello: Hello, now: Now) {
        if hello.started != self.hello.started {
            self.health = None;
        }
        self.hello = hello;
        self.alive(now);
    }

    /// It says how it is.
    pub(crate) fn health(&mut self, health: Health, now: Now) {
        self.health = Some(health);
        self.alive(now);
    }

    /// It tells what requests came to.
    pub(crate) fn results(&mut self, now: Now) {
        self.alive(now);
    }

    /// It says goodbye.
    pub(crate) fn bye(&mut self, now: Now) {
        self.heard(now);
        self.turn(Presence::Offline(Why::Bye), now);
    }

    /// Its last will arrives; `true` if it is that of the present connection and did not come before.
    #[must_use]
    pub(crate) fn lost(&mut self, sequence: u64, now: Now) -> bool {
        let is_present = sequence == self.hello.last_will;
        if is_present {
            self.hello.last_will = SPENT;
            if self.presence == Presence::Online {
                self.turn(Presence::Offline(Why::LastWill), now);
            }
        }
        is_present
    }

    /// Time passes; `true` if it has now been silent for too long.
    #[must_use]
    pub(crate) fn tick(&mut self, now: Now) -> bool {
        let is_late = now.span.since(self.heard) > self.hello.health_interval.times(MISSED);
        let falls_silent = is_late && self.presence == Presence::Online;
        if falls_silent {
            self.turn(Presence::Offline(Why::Silence), now);
        }
        falls_silent
    }

    fn alive(&mut self, now: Now) {
        self.heard(now);
        self.turn(Presence::Online, now);
    }

    fn heard(&mut self, now: Now) {
        self.last_seen = now.date;
        self.heard = now.span;
    }

    fn turn(&mut self, presence: Presence, now: Now) {
        if self.presence != presence {
            self.presence = presence;
            self.presence_since = now.date;
        }
    }
}
