//! Owns the form of errors: problem details (RFC 9457), with a stable `code` for programs.
//!
//! **Invariant:** every refusal of the API is one of these; none echoes the body of a request.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::ask_error::AskError;
use crate::pressure::{self, Rate};
use crate::queue::QueueError;

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `about:blank`: the code says it all.
    r#type: &'static str,
    /// The status, in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What went wrong, which, and what to do now.
    detail: String,
    /// A stable name, for programs.
    code: &'static str,
    /// How full the queue is, where that is the reason.
    #[serde(flatten)]
    queue: Option<Box<QueueAhead>>,
    #[serde(skip)]
    retry_after_s: Option<u64>,
}

/// What a caller whom the queue refused may know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct QueueAhead {
    queue_length: Option<u64>,
    expected_wait_s: Option<u64>,
}

impl Problem {
    /// A refusal with `status`.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            queue: None,
            retry_after_s: None,
        }
    }

    /// Its stable name.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Its HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// What went wrong, in words.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// Seconds after which to come back, if they are known.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        self.retry_after_s
    }

    /// A refusal by the queue, with what is known of its pace; `length` of the requests wait in it.
    pub fn of_queue(error: AskError, length: Option<u64>, rate: Rate) -> Self {
        let problem = Self::from(error);
        if !["queue_full", "no_space", "no_queue"].contains(&problem.code) {
            return problem;
        }
        let expected_wait_s = length.and_then(|length| rate.time_for(length));
        let retry_after_s = pressure::retry_after_s(rate, length.unwrap_or(0));
        let queue = Some(Box::new(QueueAhead { queue_length: length, expected_wait_s }));
        Self { queue, retry_after_s: Some(retry_after_s), ..problem }
    }

    /// The same, telling the caller to come back in `seconds`.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// 400: a header or parameter that cannot be used.
    pub fn bad_term(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_parameter", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after_s;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        let detail = crate::error_chain(&error);
        match error {
            AskError::Input(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_input", detail),
            AskError::Nobody(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "nobody_can_answer", detail)
            }
            AskError::Busy { expected, .. } => {
                let seconds = expected.as_secs().saturating_add(1).min(pressure::LONGEST_S);
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).retry_after(seconds)
            }
            AskError::Conflict { .. } | AskError::Queue(QueueError::KeyConflict { .. }) => {
                Self::new(StatusCode::CONFLICT, "idempotency_key_conflict", detail)
            }
            AskError::Queue(QueueError::Full { .. }) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", detail)
                    .retry_after(pressure::UNKNOWN_S)
            }
            AskError::Queue(error) if error.is_no_space() => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", detail)
                    .retry_after(pressure::UNKNOWN_S)
            }
            AskError::UnderWay => Self::new(StatusCode::SERVICE_UNAVAILABLE, "under_way", detail)
                .retry_after(pressure::UNKNOWN_S),
            AskError::NoQueue(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_queue", detail)
                .retry_after(pressure::UNKNOWN_S),
            AskError::Queue(QueueError::TooLarge { .. }) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
            }
            AskError::Queue(QueueError::Damaged { .. }) | AskError::Stored(_) => {
                tracing::error!(error = %detail, "a record is damaged");
                let detail = format!("{detail}: send it again under a new key");
                Self::new(StatusCode::GONE, "damaged", detail)
            }
            AskError::Queue(_) => {
                tracing::error!(error = %detail, "the queue failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", detail)
            }
        }
    }
}
