//! Owns the form of errors that OpenAI's clients know, and which refusal becomes which.
//!
//! The clients raise an exception of their own by the status: 400, 401, 403, 404, 409, 422, 429, and
//! 500 and above. `type` and `code` are OpenAI's where it has them, and else ours.
//!
//! **Invariant:** no refusal echoes what was asked; what a destination said is there without its
//! credential.

use std::borrow::Cow;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_chat::served::{self, Refusal};

use crate::access::Denied;
use crate::api::Problem;
use crate::ask_error::AskError;
use crate::envelope::EnvelopeError;
use crate::escalate::{Fault, Next, SendError};
use crate::gateway::Refused;
use crate::queue::QueueError;

/// An error in OpenAI's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint {
    status: StatusCode,
    kind: &'static str,
    code: Cow<'static, str>,
    param: Option<String>,
    message: String,
    retry_after_s: Option<u64>,
}

/// Who cannot be reached is asked again after this time.
const SOON_S: u64 = 1;

impl Complaint {
    pub(super) fn new(
        status: StatusCode,
        kind: &'static str,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { status, kind, code, param: None, message, retry_after_s: None }
    }

    fn about(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    fn after(self, seconds: u64) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }

    /// The last piece of a stream that broke off.
    pub(super) fn event(&self) -> Vec<u8> {
        served::error_event(self.kind, Some(&self.code), self.param.as_deref(), &self.message)
    }

    pub(super) fn code(&self) -> &str {
        &self.code
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl IntoResponse for Complaint {
    fn into_response(self) -> Response {
        let Self { status, kind, code, param, message, retry_after_s } = self;
        let body = served::error(kind, Some(&code), param.as_deref(), &message);
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Refusal> for Complaint {
    fn from(refusal: Refusal) -> Self {
        let Refusal { param, code, message } = refusal;
        Self { param, ..Self::new(StatusCode::BAD_REQUEST, INVALID, code, message) }
    }
}

impl From<Problem> for Complaint {
    fn from(problem: Problem) -> Self {
        let status = StatusCode::from_u16(problem.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => API,
            _ => INVALID,
        };
        let retry_after_s = problem.retry_after_s();
        let complaint = Self::new(status, kind, problem.code(), problem.detail());
        Self { retry_after_s, ..complaint }
    }
}

impl From<AskError> for Complaint {
    fn from(error: AskError) -> Self {
        Problem::from(error).into()
    }
}

impl From<QueueError> for Complaint {
    fn from(error: QueueError) -> Self {
        AskError::from(error).into()
    }
}

impl From<EnvelopeError> for Complaint {
    fn from(error: EnvelopeError) -> Self {
        AskError::from(error).into()
    }
}

impl From<Denied> for Complaint {
    fn from(denied: Denied) -> Self {
        let problem = Problem::from(denied);
        let (kind, code) = match problem.status() {
            401 => ("authentication_error", "invalid_api_key"),
            403 => ("permission_error", "insufficient_permissions"),
            429 => ("rate_limit_error", "rate_limit_exceeded"),
            _ => (API, problem.code()),
        };
        Self { kind, code: code.into(), ..Self::from(problem) }
    }
}

const INVALID: &str = "invalid_request_error";
const API: &str = "api_error";

impl From<&Refused> for Complaint {
    fn from(refused: &Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::Unknown { .. } => {
                Self::new(StatusCode::NOT_FOUND, INVALID, "model_not_found", message).about("model")
            }
            Refused::Forbidden(_) => {
                Self::new(StatusCode::FORBIDDEN, "permission_error", "class_forbids", message)
            }
            Refused::Failed { error, .. } => Self::of_send(error, message),
            Refused::Stopping => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, API, "stopping", message).after(SOON_S)
            }
            Refused::TooLate { .. } => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "timed_out", message)
            }
            Refused::Local { is_input: true, .. } => {
                Self::new(StatusCode::BAD_REQUEST, INVALID, "bad_input", message)
            }
            Refused::Local { retry_after: Some(wait), .. } => {
                let wait = wait.as_secs().saturating_add(1);
                Self::new(StatusCode::SERVICE_UNAVAILABLE, API, "busy", message).after(wait)
            }
            Refused::Local { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, API, "model_failed", message)
            }
        }
    }
}

impl From<Refused> for Complaint {
    fn from(refused: Refused) -> Self {
        Self::from(&refused)
    }
}

/// All who shared a send are told the same.
impl From<Arc<Refused>> for Complaint {
    fn from(refused: Arc<Refused>) -> Self {
        Self::from(&*refused)
    }
}

impl From<&SendError> for Complaint {
    fn from(error: &SendError) -> Self {
        Self::of_send(error, error.to_string())
    }
}

impl Complaint {
    /// What a failure of a destination becomes.
    fn of_send(error: &SendError, message: String) -> Self {
        let code = error.code();
        let bad_gateway = |code| (StatusCode::BAD_GATEWAY, API, code);
        let unavailable = |code| (StatusCode::SERVICE_UNAVAILABLE, API, code);
        let bad_request = |code| (StatusCode::BAD_REQUEST, INVALID, code);
        let (status, kind, code) = match error {
            SendError::Throttled { .. } | SendError::Limited { .. } | SendError::Busy { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limit_exceeded")
            }
            SendError::OutOfCredit { .. } | SendError::OverBudget { .. } => {
                let quota = "insufficient_quota";
                (StatusCode::TOO_MANY_REQUESTS, quota, quota)
            }
            SendError::LinkDown { .. }
            | SendError::CircuitOpen { .. }
            | SendError::Unreachable { .. }
            | SendError::NoToken { .. }
            | SendError::OverPlan { .. }
            | SendError::Unnoted { .. }
            | SendError::Unrecorded { .. }
            | SendError::Pending { .. } => unavailable(code),
            // Its own time, or all that its caller gives.
            SendError::TimedOut { .. } | SendError::Interrupted { waited: Some(_), .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "timeout_error", "timed_out")
            }
            SendError::Interrupted { .. }
            | SendError::Failed { .. }
            | SendError::GaveUp { .. }
            | SendError::Unauthorised { .. }
            | SendError::Credential { .. }
            | SendError::NotConfigured { .. } => bad_gateway(code),
            SendError::Refused { status: 413, .. } => {
                (StatusCode::PAYLOAD_TOO_LARGE, INVALID, "refused_by_destination")
            }
            SendError::Refused { .. } => bad_request("refused_by_destination"),
            SendError::Unusable { fault: Fault::NotLetThrough | Fault::Filtered, .. } => {
                bad_request("content_filter")
            }
            SendError::Unusable { fault: Fault::Elsewhere { .. }, .. } => {
                unavailable("unreachable")
            }
            SendError::Unusable { .. } => bad_gateway(code),
            SendError::Unfit { .. }
            | SendError::TasksAlone { .. }
            | SendError::NoLabels { .. }
            | SendError::NoBundle { .. }
            | SendError::Unprepared { .. }
            | SendError::Misfit { .. } => bad_request("unsupported_by_destination"),
            SendError::TooDear { .. } => bad_request("cost_limit"),
            SendError::TooManyHops { .. } => bad_request("too_many_hops"),
        };
        let code = match error {
            // Programs look for the provider's own.
            SendError::Refused { code: Some(code), .. } => Cow::Owned(code.clone()),
            _ => Cow::Borrowed(code),
        };
        let complaint = Self::new(status, kind, code, message);
        match error.next() {
            Next::Later { after } | Next::AwaitBudget { after } => complaint.after(seconds(after)),
            Next::AwaitLink => complaint.after(SOON_S),
            Next::Retry if status == StatusCode::SERVICE_UNAVAILABLE => complaint.after(SOON_S),
            Next::Retry | Next::AwaitOperator { .. } | Next::NotHere => complaint,
        }
    }
}

fn seconds(wait: std::time::Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_failure_has_the_status_by_which_the_clients_know_it() {
        let destination = || "a".to_owned();
        let wait = Duration::from_millis(6_500);
        let (detail, cause) = (String::new, String::new);
        for (error, want) in [
            (SendError::LinkDown { destination: destination() }, (503, "link_down", Some(1))),
            (
                SendError::CircuitOpen {
                    destination: destination(),
                    model: "m".to_owned(),
                    retry_after: wait,
                },
                (503, "circuit_open", Some(7)),
            ),
            (
                SendError::Throttled { destination: destination(), retry_after: wait },
                (429, "rate_limit_exceeded", Some(7)),
            ),
            (
                SendError::OverBudget { destination: destination(), renews_in: wait },
                (429, "insufficient_quota", Some(7)),
            ),
            (
                SendError::OutOfCredit {
                    destination: destination(),
                    status: 402,
                    detail: detail(),
                },
                (429, "insufficient_quota", None),
            ),
            (
                SendError::Refused {
                    destination: destination(),
                    status: 422,
                    detail: detail(),
                    code: None,
                },
                (400, "refused_by_destination", None),
            ),
            (
                SendError::Refused {
                    destination: destination(),
                    status: 400,
                    detail: detail(),
                    code: Some("context_length_exceeded".to_owned()),
                },
                (400, "context_length_exceeded", None),
            ),
            (
                SendError::Unauthorised { destination: destination(), status: 401 },
                (502, "unauthorised", None),
            ),
            (
                SendError::Interrupted { destination: destination(), cause: cause(), waited: None },
                (502, "interrupted", None),
            ),
            (
                SendError::Interrupted {
                    destination: destination(),
                    cause: cause(),
                    waited: Some(wait),
                },
                (504, "timed_out", None),
            ),
            (
                SendError::TimedOut { destination: destination(), limit: wait },
                (504, "timed_out", None),
            ),
            (
                SendError::TooDear { destination: destination(), most: 2, limit: 1 },
                (400, "cost_limit", None),
            ),
        ] {
            let complaint = Complaint::from(&error);
            let got = (complaint.status.as_u16(), complaint.code(), complaint.retry_after_s);
            assert_eq!(got, want, "{error}");
        }
    }
}
