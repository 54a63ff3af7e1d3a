//! What a caller sends: bytes, and what kind of file they are.
//!
//! **Invariant:** the kind is what the bytes begin with, never what the caller says it is; a caller
//! that says otherwise is told.

use std::fmt;

use bytes::Bytes;

use crate::bundle::MediaKind;

/// Largest body that is taken, in bytes.
const MAX_BYTES: usize = 64 << 20;

/// A file that a caller sent, by its first bytes one of the kinds that are taken.
#[derive(Debug, Clone)]
pub struct Media {
    bytes: Bytes,
    media_type: MediaType,
}

/// The kinds of file that are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the formats' own names")]
pub enum MediaType {
    Wav,
    Jpeg,
    Png,
    Webp,
}

/// Why a body was refused before it was decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// No bytes.
    #[error("the body is empty: send a WAV, JPEG, PNG or WebP file")]
    Empty,
    /// Too many bytes.
    #[error("the body of {0} bytes is too large: at most {MAX_BYTES} bytes")]
    TooLarge(usize),
    /// The content type names something that is not taken.
    #[error("content type {0} is not taken: send audio/wav, image/jpeg, image/png or image/webp")]
    ContentType(String),
    /// The bytes are of no kind that is taken.
    #[error("the body is not a WAV, JPEG, PNG or WebP file: its first bytes are {0}")]
    Unknown(String),
    /// The content type is one thing and the bytes another.
    #[error("the content type says {said}, the body is {found}: correct one of them")]
    Mismatch {
        /// What the caller said.
        said: MediaType,
        /// What the bytes are.
        found: MediaType,
    },
}

impl Media {
    /// Finds out what the bytes are. `content_type` is what the caller said, if anything;
    /// `application/octet-stream`, and the form type that curl sends when it is told nothing, say
    /// nothing.
    ///
    /// # Errors
    /// Nothing there, too much, of no kind that is taken, or not what the content type says.
    pub fn detect(bytes: impl Into<Bytes>, content_type: Option<&str>) -> Result<Self, MediaError> {
        let bytes = bytes.into();
        let said = match content_type {
            Some(text) => said(text)?,
            None => None,
        };
        if bytes.is_empty() {
            return Err(MediaError::Empty);
        }
        if bytes.len() > MAX_BYTES {
            return Err(MediaError::TooLarge(bytes.len()));
        }
        let found = MediaType::sniff(&bytes).ok_or_else(|| {
            MediaError::Unknown(bytes[..bytes.len().min(8)].escape_ascii().to_string())
        })?;
        match said {
            Some(said) if said != found => Err(MediaError::Mismatch { said, found }),
            _ => Ok(Self { bytes, media_type: found }),
        }
    }

    /// What `detect` found earlier, read back from where it was kept.
    pub fn trusted(media_type: MediaType, bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), media_type }
    }

    /// The bytes as they were sent.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What they are.
    pub fn media_type(&self) -> MediaType {
        self.media_type
    }
}

impl MediaType {
    /// The content type to send it with.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }

    /// What tasks it is for.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Wav => MediaKind::Audio,
            Self::Jpeg | Self::Png | Self::Webp => MediaKind::Image,
        }
    }

    fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(Self::Wav),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            _ => None,
        }
    }

    /// The kind that a content type names; parameters behind `;` are left aside.
    pub fn from_mime(text: &str) -> Option<Self> {
        match essence(text).as_str() {
            "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => Some(Self::Wav),
            "image/jpeg" | "image/jpg" => Some(Self::Jpeg),
            "image/png" => Some(Self::Png),
            "image/webp" => Some(Self::Webp),
            _ => None,
        }
    }
}

fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// What a content type says; nothing when it leaves it open.
fn said(content_type: &str) -> Result<Option<MediaType>, MediaError> {
    match essence(content_type).as_str() {
        "" | "*/*" | "application/octet-stream" | "application/x-www-form-urlencoded" => Ok(None),
        other => match MediaType::from_mime(other) {
            Some(media_type) => Ok(Some(media_type)),
            None => Err(MediaError::ContentType(other.chars().take(100).collect())),
        },
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wav => "WAV",
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WebP",
        })
    }
}
