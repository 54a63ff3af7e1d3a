//! Names of devices, and the shard that a device belongs to.
//!
//! **Invariant:** a [`DeviceId`] that exists was checked by [`DeviceId::parse`]; it is safe in a topic, a file name,
//! a URL path and a log line.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest device id, in bytes.
pub const MAX_DEVICE_ID: usize = 64;

/// The name of one device: 1 to 64 characters of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// Why a text is not a device id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceIdError {
    /// Nothing at all.
    #[error("a device id is empty: it takes 1 to {MAX_DEVICE_ID} characters of a-z, 0-9 and -")]
    Empty,
    /// Longer than [`MAX_DEVICE_ID`].
    #[error("a device id has {0} bytes: at most {MAX_DEVICE_ID} are allowed")]
    TooLong(usize),
    /// A character outside `a-z`, `0-9`, `-`.
    #[error("a device id holds {0:?}: only a-z, 0-9 and - are allowed")]
    Character(char),
}

impl DeviceId {
    /// Reads a device id; this is the only way to one.
    ///
    /// # Errors
    /// [`DeviceIdError`] says which rule the text breaks.
    pub fn parse(text: impl Into<String>) -> Result<Self, DeviceIdError> {
        let text = text.into();
        if text.is_empty() {
            return Err(DeviceIdError::Empty);
        }
        if text.len() > MAX_DEVICE_ID {
            return Err(DeviceIdError::TooLong(text.len()));
        }
        match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            Some(other) => Err(DeviceIdError::Character(other)),
            None => Ok(Self(text)),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The shard that this device belongs to, for good.
    #[must_use]
    pub fn shard(&self) -> Shard {
        Shard::of(self)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceIdError;
    fn try_from(text: String) -> Result<Self, DeviceIdError> {
        Self::parse(text)
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

/// One of the [`Shard::COUNT`] parts into which a fleet is divided, so that several controllers can share it.
///
/// The rule, which never changes because it is part of every topic: 32-bit FNV-1a over the bytes of the device id,
/// folded to six bits as `h ^= h >> 16; h ^= h >> 8; h & 63`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(u8);

impl Shard {
    /// How many shards there are.
    pub const COUNT: u8 = 64;

    /// The shard of a device.
    #[must_use]
    pub fn of(device: &DeviceId) -> Self {
        let mut h: u32 = 0x811c_9dc5;
        for byte in device.as_str().bytes() {
            h = (h ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        h ^= h >> 16;
        h ^= h >> 8;
        let [low, ..] = h.to_le_bytes();
        Self(low & (Self::COUNT - 1))
    }

    /// The shard with this number, if there is one.
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// Its number, below [`Shard::COUNT`].
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// All shards, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_lower_case_names_are_ids() {
        for good in ["a", "cam-7", "-", "0", &"x".repeat(64)] {
            assert_eq!(DeviceId::parse(good).unwrap().as_str(), good);
        }
        for (bad, want) in [
            ("", DeviceIdError::Empty),
            ("Cam", DeviceIdError::Character('C')),
            ("a/b", DeviceIdError::Character('/')),
            ("a+", DeviceIdError::Character('+')),
            ("#", DeviceIdError::Character('#')),
            ("a b", DeviceIdError::Character(' ')),
            ("..", DeviceIdError::Character('.')),
            ("ä", DeviceIdError::Character('ä')),
            ("a\0", DeviceIdError::Character('\0')),
        ] {
            assert_eq!(DeviceId::parse(bad), Err(want), "{bad:?}");
        }
        assert_eq!(DeviceId::parse("x".repeat(65)), Err(DeviceIdError::TooLong(65)));
    }

    /// These numbers are in the topics of devices in the field: a change of the rule must fail here.
    #[test]
    fn shards_of_known_devices_never_change() {
        let got: Vec<(&str, u8)> = ["a", "cam-7", "press-12", "device-0001", "device-0002"]
            .into_iter()
            .map(|id| (id, DeviceId::parse(id).unwrap().shard().number()))
            .collect();
        assert_eq!(got, GOLDEN);
    }

    const GOLDEN: [(&str, u8); 5] =
        [("a", 45), ("cam-7", 37), ("press-12", 42), ("device-0001", 47), ("device-0002", 62)];

    #[test]
    fn a_numbered_fleet_spreads_over_all_shards() {
        let mut devices = [0_u32; Shard::COUNT as usize];
        for n in 0..6400 {
            let id = DeviceId::parse(format!("line-4-cam-{n:05}")).unwrap();
            devices[usize::from(id.shard().number())] += 1;
        }
        assert!(devices.iter().all(|n| (60..=150).contains(n)), "{devices:?}");
    }
}
