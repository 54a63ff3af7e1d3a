//! Owns the form of errors: problem details (RFC 9457), with a stable `code` for programs.
//!
//! **Invariant:** every refusal of the API is one of these; none echoes the body of a request.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::queue::QueueError;
use crate::service::AskError;

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
    #[serde(skip)]
    retry_after_s: Option<u64>,
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
            retry_after_s: None,
        }
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
            AskError::Queue(QueueError::KeyConflict { .. }) => {
                Self::new(StatusCode::CONFLICT, "idempotency_key_conflict", detail)
            }
            AskError::Queue(QueueError::Full { .. }) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "queue_full", detail).retry_after(30)
            }
            AskError::Queue(QueueError::NoSpace { .. }) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_space", detail).retry_after(30)
            }
            AskError::NoQueue(_) => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "no_queue", detail).retry_after(10)
            }
            AskError::Queue(_) | AskError::Stored(_) => {
                tracing::error!(error = %detail, "the queue failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", detail)
            }
        }
    }
}
