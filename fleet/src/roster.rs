//! All devices, and the rules by which a message changes one of them. Pure: bytes and times are arguments.
//!
//! **Invariant:** what [`Roster::take`] refuses has changed nothing.

use std::collections::BTreeMap;
use std::ops::Bound;

use holdfast_wire::id::DeviceId;
use holdfast_wire::message::{Hello, ResultReport, Up};
use holdfast_wire::sign::{self, EnvelopeError, LastSequence, PublicKey};
use holdfast_wire::topic::Topic;
use serde::Serialize;

use crate::clock::Now;
use crate::device::Device;

/// Sequences are kept as signed 64-bit numbers, as every database has them.
const MAX_SEQUENCE: u64 = i64::MAX as u64;

/// What a message did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) device: DeviceId,
    pub(crate) sequence: u64,
    pub(crate) what: What,
}

/// The kinds of change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A device that was never seen before; it is acknowledged.
    Appeared,
    /// Hello; it is acknowledged.
    Hello,
    Health,
    /// Goodbye; it is acknowledged.
    Bye,
    Lost,
    /// What requests came to; acknowledged when it is on record.
    Results(Vec<ResultReport>),
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Refused {
    /// Not a topic that devices send on.
    Topic,
    /// Not an envelope or not a message.
    Malformed,
    /// Signed for something else, or not at all.
    Signature,
    /// Another key than the one that this device appeared with.
    Key,
    /// It came before, or is older than what came before.
    Replay,
    /// Health or goodbye of a device that never said hello.
    Unknown,
    /// The registry holds as many devices as it may.
    Full,
}

impl Refused {
    pub(crate) const ALL: [Self; 7] = [
        Self::Topic,
        Self::Malformed,
        Self::Signature,
        Self::Key,
        Self::Replay,
        Self::Unknown,
        Self::Full,
    ];

    /// What it means for who reads the log.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Topic => {
                "message on a foreign topic refused; does something else use this broker?"
            }
            Self::Malformed => "damaged message refused; is the agent of another version?",
            Self::Signature => "wrongly signed message refused; somebody may be forging it",
            Self::Key => {
                "message with another key than this device appeared with refused; was it set up anew, or do two devices share a name?"
            }
            Self::Replay => "repeated or outdated message refused",
            Self::Unknown => "message of a device that never said hello refused",
            Self::Full => "new device refused, the registry is full; raise registry.max_devices",
        }
    }
}

/// All devices.
#[derive(Debug)]
pub(crate) struct Roster {
    devices: BTreeMap<DeviceId, Device>,
    max_devices: usize,
}

impl Roster {
    pub(crate) fn new(devices: Vec<Device>, max_devices: usize) -> Self {
        Self {
            devices: devices.into_iter().map(|device| (device.id.clone(), device)).collect(),
            max_devices,
        }
    }

    pub(crate) fn get(&self, id: &DeviceId) -> Option<&Device> {
        self.devices.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// At most `limit` devices behind `after`, by name.
    pub(crate) fn page(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> impl Iterator<Item = &Device> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.devices
            .range::<DeviceId, _>((from, Bound::Unbounded))
            .map(|(_, device)| device)
            .take(limit)
    }

    /// The last one, by name.
    pub(crate) fn last(&self) -> Option<&Device> {
        self.devices.values().next_back()
    }

    pub(crate) fn len(&self) -> usize {
        self.devices.len()
    }

    /// A message arrives.
    ///
    /// # Errors
    /// [`Refused`] says why it changed nothing.
    pub(crate) fn take(
        &mut self,
        topic: &str,
        envelope: &[u8],
        now: Now,
    ) -> Result<Taken, Refused> {
        let topic = Topic::parse(topic).map_err(|_| Refused::Topic)?;
        let Topic::Device(id, kind) = &topic else { return Err(Refused::Topic) };
        let opened = sign::open(&topic, envelope).map_err(|error| match error {
            EnvelopeError::Signature => Refused::Signature,
            EnvelopeError::Size(_) | EnvelopeError::Version(_) => Refused::Malformed,
        })?;
        let message = Up::decode(opened.payload).map_err(|_| Refused::Malformed)?;
        if message.kind() != *kind || opened.sequence > MAX_SEQUENCE {
            return Err(Refused::Malformed);
        }
        if matches!(&message, Up::Hello(hello) if hello.device != *id) {
            return Err(Refused::Malformed);
        }
        let what = match self.devices.get_mut(id) {
            Some(device) => known(device, opened.key, opened.sequence, message, now)?,
            None => self.unknown(opened.key, opened.sequence, message, now)?,
        };
        Ok(Taken { device: id.clone(), sequence: opened.sequence, what })
    }

    fn unknown(
        &mut self,
        key: PublicKey,
        sequence: u64,
        message: Up,
        now: Now,
    ) -> Result<What, Refused> {
        let Up::Hello(hello) = message else { return Err(Refused::Unknown) };
        if self.devices.len() >= self.max_devices {
            return Err(Refused::Full);
        }
        let hello: Hello = hello;
        self.devices.insert(
            hello.device.clone(),
            Device::new(key, LastSequence::new(sequence), hello, now),
        );
        Ok(What::Appeared)
    }

    /// Time passes: the devices that have now been silent for too long.
    pub(crate) fn tick(&mut self, now: Now) -> Vec<DeviceId> {
        self.devices
            .values_mut()
            .filter_map(|device| device.tick(now).then(|| device.id.clone()))
            .collect()
    }
}

fn known(
    device: &mut Device,
    key: PublicKey,
    sequence: u64,
    message: Up,
    now: Now,
) -> Result<What, Refused> {
    if key != device.key {
        return Err(Refused::Key);
    }
    if message == Up::Lost {
        return if device.lost(sequence, now) { Ok(What::Lost) } else { Err(Refused::Replay) };
    }
    device.sequence = device.sequence.accept(sequence).map_err(|_| Refused::Replay)?;
    Ok(match message {
        Up::Hello(hello) => {
            device.hello(hello, now);
            What::Hello
        }
        Up::Health(health) => {
            device.health(health, now);
            What::Health
        }
        Up::Results(results) => {
            device.results(now);
            What::Results(results)
        }
        Up::Bye | Up::Lost => {
            device.bye(now);
            What::Bye
        }
    })
}
