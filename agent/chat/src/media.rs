//! Owns the kinds of picture and recording that some protocol takes, and their names there.
//!
//! **Invariant:** a kind is told by its name alone; nothing here looks into the bytes.

use serde::{Deserialize, Serialize};

/// A kind of picture. Stored: it grows at the end only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Image {
    /// `image/jpeg`
    Jpeg,
    /// `image/png`
    Png,
    /// `image/webp`
    Webp,
    /// `image/gif`
    Gif,
}

impl Image {
    /// The media type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Gif => "image/gif",
        }
    }

    /// The bare name, as in `jpeg`.
    pub fn name(self) -> &'static str {
        self.mime().trim_start_matches("image/")
    }
}

/// A kind of recording. Stored: it grows at the end only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Audio {
    /// `audio/wav`
    Wav,
    /// `audio/mp3`
    Mp3,
    /// `audio/flac`
    Flac,
    /// `audio/ogg`
    Ogg,
}

impl Audio {
    /// The media type.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mp3",
            Self::Flac => "audio/flac",
            Self::Ogg => "audio/ogg",
        }
    }

    /// The bare name, as in `wav`.
    pub fn name(self) -> &'static str {
        self.mime().trim_start_matches("audio/")
    }
}
