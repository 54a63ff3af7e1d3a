//! What a caller sends: bytes, and what kind of file they are.
//!
//! **Invariant:** of a kind that has a mark, it is what the bytes begin with, never what the caller
//! says it is; a caller that says otherwise is told. Kinds that have none (JSON, CSV, text, raw
//! elements) are taken where the caller says so, or where the task takes nothing else.

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
    /// An array as NumPy saves it.
    Npy,
    /// Inputs by their names, or one list of numbers.
    Json,
    /// Rows of numbers.
    Csv,
    Text,
    /// Elements, little-endian.
    Raw,
}

/// Why a body was refused before it was decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// No bytes.
    #[error("the body is empty: send a file or values of a kind that the task takes")]
    Empty,
    /// Too many bytes.
    #[error("the body of {0} bytes is too large: at most {MAX_BYTES} bytes")]
    TooLarge(usize),
    /// The content type names something that is not taken.
    #[error(
        "content type {0} is not taken: send audio/wav, image/jpeg, image/png, image/webp, \
         application/json, text/csv, text/plain, application/x-npy or application/octet-stream"
    )]
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
        Self::detect_for(bytes, content_type, None)
    }

    /// As `detect`, for a task that takes this: what has no mark and of which the caller says nothing
    /// is what such a task takes. Of numbers that is JSON when they begin like it, CSV when they are
    /// printable, and else raw elements, as which `application/octet-stream` is taken in any case.
    ///
    /// # Errors
    /// As `detect`.
    pub fn detect_for(
        bytes: impl Into<Bytes>,
        content_type: Option<&str>,
        expects: Option<MediaKind>,
    ) -> Result<Self, MediaError> {
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
        let found = MediaType::sniff(&bytes);
        let is_raw = content_type.is_some_and(|text| essence(text) == "application/octet-stream");
        let media_type = match (said, found) {
            (Some(said), Some(found)) if said != found => {
                return Err(MediaError::Mismatch { said, found });
            }
            (_, Some(found)) => found,
            (Some(said), None) if !said.has_mark() => said,
            (None, None) if expects == Some(MediaKind::Tensor) && is_raw => MediaType::Raw,
            (None, None) if expects == Some(MediaKind::Tensor) => MediaType::of_numbers(&bytes),
            (None, None) if expects == Some(MediaKind::Text) => MediaType::Text,
            _ => {
                let first = bytes[..bytes.len().min(8)].escape_ascii().to_string();
                return Err(MediaError::Unknown(first));
            }
        };
        Ok(Self { bytes, media_type })
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
    /// Whether the first bytes of a file say that it is one; else only its sender can.
    pub fn is_marked(self) -> bool {
        match self {
            Self::Wav | Self::Jpeg | Self::Png | Self::Webp | Self::Npy => true,
            Self::Json | Self::Csv | Self::Text | Self::Raw => false,
        }
    }

    /// The content type to send it with.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Npy => "application/x-npy",
            Self::Json => "application/json",
            Self::Csv => "text/csv",
            Self::Text => "text/plain",
            Self::Raw => "application/octet-stream",
        }
    }

    /// What tasks it is for.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Wav => MediaKind::Audio,
            Self::Jpeg | Self::Png | Self::Webp => MediaKind::Image,
            Self::Npy | Self::Json | Self::Csv | Self::Raw => MediaKind::Tensor,
            Self::Text => MediaKind::Text,
        }
    }

    /// Whether its first bytes tell it.
    fn has_mark(self) -> bool {
        match self {
            Self::Wav | Self::Jpeg | Self::Png | Self::Webp | Self::Npy => true,
            Self::Json | Self::Csv | Self::Text | Self::Raw => false,
        }
    }

    /// What numbers that have no mark are.
    fn of_numbers(bytes: &[u8]) -> Self {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let is_text = bytes.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
        match first {
            Some(b'{' | b'[') if is_text || std::str::from_utf8(bytes).is_ok() => Self::Json,
            _ if is_text => Self::Csv,
            _ => Self::Raw,
        }
    }

    fn sniff(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => Some(Self::Wav),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::Webp),
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Some(Self::Png),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Some(Self::Npy),
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
            "application/x-npy" => Some(Self::Npy),
            "application/json" => Some(Self::Json),
            "text/csv" => Some(Self::Csv),
            "text/plain" => Some(Self::Text),
            "application/octet-stream" => Some(Self::Raw),
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
            Self::Npy => "NPY",
            Self::Json => "JSON",
            Self::Csv => "CSV",
            Self::Text => "text",
            Self::Raw => "raw",
        })
    }
}
