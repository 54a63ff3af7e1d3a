//! Owns why a call of the protocol is refused, and which status that is in HTTP and in gRPC.
//!
//! **Invariant:** a refusal says what is wrong, of which part, and what was expected; it never echoes
//! a tensor's contents.

use holdfast_models::Dtype;

/// What kind of refusal it is, which decides the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request cannot be used as it is.
    Bad,
    /// The caller shows no token, or none that counts.
    Unauthenticated,
    /// The caller's token is for something else.
    Forbidden,
    /// No such model, version or path.
    Unknown,
    /// The request is larger than is allowed.
    TooLarge,
    /// The content encoding is not known.
    Encoding,
    /// The caller asks more than its token lets it.
    TooFast,
    /// It did not arrive in time.
    Slow,
    /// Too much is under way, or the model is not in service now.
    Busy,
    /// The caller's time is over, or would be.
    Late,
    /// Not offered here.
    NotOffered,
    /// The agent or the model failed.
    Failed,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    /// Seconds after which it may be asked again.
    pub(crate) retry_after_s: Option<u64>,
    /// What was said of the input whose data cannot be used.
    pub(crate) declared: Option<Box<Declared>>,
}

/// An input's type and shape, as the caller gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) input: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
}

impl Kind {
    /// The HTTP status.
    pub(crate) fn http(self) -> u16 {
        match self {
            Self::Bad => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::Unknown => 404,
            Self::Slow => 408,
            Self::TooLarge => 413,
            Self::TooFast => 429,
            Self::Encoding => 415,
            Self::Failed => 500,
            Self::NotOffered => 501,
            Self::Busy => 503,
            Self::Late => 504,
        }
    }
}

impl Refusal {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after_s: None, declared: None }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(Kind::Bad, message)
    }

    /// The same, of an input or output.
    pub(crate) fn of(self, what: &str, name: &str) -> Self {
        Self { message: format!("{what} {}: {}", shown(name), self.message), ..self }
    }

    /// The same, of the data of an input that is said to be so.
    pub(crate) fn about(self, declared: Declared) -> Self {
        Self { declared: Some(Box::new(declared)), ..self }
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }
}

/// A name that a caller gave, quoted and at most 64 characters long.
pub(crate) fn shown(name: &str) -> String {
    let short: String = name.chars().take(64).collect();
    format!("{short:?}")
}
