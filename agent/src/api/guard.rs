//! Owns the gate before every route: who calls, whether they may, and whether they may still while they
//! wait or are told a stream.
//!
//! **Invariant:** no handler runs for a caller whose token does not let it, and none runs on, and no stream
//! goes on, for one whose token was revoked.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::access_log::{Counted, Ending, Line, Logged};
use super::{Problem, head, openai};
use crate::access::{
    Access, Caller, Denied, Need, Peer, Place, Standing, bearer, is_foreign, named, need,
};

/// What the gate knows.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    pub(super) access: Access,
    pub(super) has_log: bool,
    /// Names of this device, where nobody is asked for a token and only programs on it are meant.
    pub(super) own_hosts: Option<Arc<[String]>>,
}

/// Lets a request through to its route, or answers it.
pub(super) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let need = need(route);
    let uri = request.uri().clone();
    // What can be read in two ways is nobody's.
    let admitted = match head::fault(request.version(), &uri, request.headers()) {
        Some(problem) => Err(and_no_more(in_form(uri.path(), problem))),
        None => admit(&gate, &request, need).map_err(|denied| told(uri.path(), denied)),
    };
    let caller = admitted.as_ref().map_or("-", |(caller, _)| caller.name());
    let line = gate.has_log.then(|| {
        let (method, route) = (request.method().clone(), route.unwrap_or("-"));
        let line = Line::begin(caller, method, route, request.headers());
        named(uri.path()).inspect(|task| line.name(task));
        line
    });
    let (caller, place) = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => return watched(refused, line, (None, None)),
    };
    if let Some(problem) = fault(&request) {
        return watched(in_form(uri.path(), problem), line, (place, None));
    }
    let mut standing = gate.access.standing(caller.clone());
    request.extensions_mut().insert(caller);
    let response = tokio::select! {
        biased;
        response = next.run(request) => response,
        // Whoever waits for it hears no more than who asks now.
        () = Standing::lost(&mut standing) => told(uri.path(), Denied::Unknown),
    };
    // What is whole already is on its way.
    let standing = standing.filter(|_| response.body().size_hint().exact().is_none());
    watched(response, line, (place, standing))
}

/// The same, after which the connection ends: where the next request begins is not known.
fn and_no_more(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn admit(gate: &Gate, request: &Request, need: Need) -> Result<(Caller, Option<Place>), Denied> {
    if need == Need::Nothing {
        return Ok((Caller::anybody(), None));
    }
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::Network);
    if let Some(hosts) = gate.own_hosts.as_ref().filter(|_| peer == Peer::Network) {
        let text = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or(""));
        // The target's own host is the Host header's, as far as there is one.
        let host = request.uri().authority().map(|own| own.as_str()).or(text(header::HOST));
        let is_across = text(HeaderName::from_static("sec-fetch-site")) == Some("cross-site");
        if is_across || is_foreign(host, text(header::ORIGIN), hosts) {
            return Err(Denied::Page);
        }
    }
    let (caller, place) = gate.access.caller(peer, shown(request.headers()))?;
    caller.may(need)?;
    if let Some(task) = named(request.uri().path()) {
        caller.may_ask(task)?;
    }
    Ok((caller, place))
}

/// A refusal in the form of the protocol that is spoken under this path.
fn told(path: &str, denied: Denied) -> Response {
    if openai::is_under(path) {
        return openai::refused(denied);
    }
    in_form(path, denied.into())
}

/// A problem in the form of the protocol that is spoken under this path.
pub(super) fn in_form(path: &str, problem: Problem) -> Response {
    if path == "/v2" || path.starts_with("/v2/") {
        return crate::oip::refused(problem);
    }
    if openai::is_under(path) {
        return openai::in_form(problem);
    }
    problem.into_response()
}

/// What stands against a request by its path and query.
fn fault(request: &Request) -> Option<Problem> {
    let (path, query) = (request.uri().path(), request.uri().query());
    if !is_text(path) {
        let what = "the path has escapes that are no UTF-8";
        return Some(Problem::new(StatusCode::BAD_REQUEST, "bad_parameter", what));
    }
    let query = query.filter(|_| request.method() == Method::POST)?;
    let name = openai::unknown_in(path, query)?;
    let name: String = name.chars().take(64).collect();
    Some(Problem::bad_term(format!(
        "{name} is not known in the query here: terms are headers such as Holdfast-Class, or stand in metadata"
    )))
}

/// Whether a path is UTF-8 behind its escapes; what is no escape stands for itself.
fn is_text(path: &str) -> bool {
    if !path.contains('%') {
        return true;
    }
    let mut rest = path.as_bytes();
    let mut bytes = Vec::new();
    while let Some((byte, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| *byte == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// The token that is shown.
pub(crate) fn shown(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok().and_then(bearer)
}

/// A refusal as the API says it.
fn refusal(denied: &Denied) -> Problem {
    let detail = denied.to_string();
    let (status, code) = match denied {
        Denied::NoToken | Denied::Unknown | Denied::Expired { .. } => {
            (StatusCode::UNAUTHORIZED, "unauthenticated")
        }
        Denied::Unreadable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no_tokens"),
        Denied::Page | Denied::Task { .. } | Denied::Class { .. } | Denied::Admin { .. } => {
            (StatusCode::FORBIDDEN, "forbidden")
        }
        Denied::TooFast { .. } | Denied::TooMany { .. } => {
            (StatusCode::TOO_MANY_REQUESTS, "too_many_requests")
        }
    };
    let problem = Problem::new(status, code, detail);
    match denied {
        Denied::TooFast { retry_after_s, .. } => problem.retry_after(*retry_after_s),
        Denied::TooMany { .. } => problem.retry_after(1),
        _ => problem,
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        refusal(&denied)
    }
}

/// The caller, for a handler.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Denied::NoToken.into())
    }
}

fn watched(
    response: Response,
    mut line: Option<Line>,
    (place, standing): (Option<Place>, Option<Standing>),
) -> Response {
    let (mut parts, body) = response.into_parts();
    if parts.status == StatusCode::UNAUTHORIZED {
        let realm = HeaderValue::from_static("Bearer realm=\"holdfast\"");
        parts.headers.entry(header::WWW_AUTHENTICATE).or_insert(realm);
    }
    if line.is_none() && place.is_none() && standing.is_none() {
        return Response::from_parts(parts, body);
    }
    if let Some(line) = &mut line {
        let logged = parts.extensions.remove::<Logged>().unwrap_or_default();
        line.respond(parts.status, logged, parts.extensions.remove::<Ending>());
    }
    let body = Watched { body: Counted::new(body, line), standing, _place: place };
    Response::from_parts(parts, Body::new(body))
}

/// A body that ends with its caller's right to it.
struct Watched {
    body: Counted<Body>,
    standing: Option<Standing>,
    _place: Option<Place>,
}

/// The caller's token was revoked, or its time is over.
#[derive(Debug, thiserror::Error)]
#[error("the caller may hear no more of this")]
struct Revoked;

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.standing.as_mut().is_some_and(|standing| standing.is_lost(context)) {
            self.body.revoke();
            // The connection ends with it: nobody takes this for a whole answer.
            return Poll::Ready(Some(Err(axum::Error::new(Revoked))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_text_behind_its_escapes() {
        for (path, want) in [
            ("/v1/tasks/voice", true),
            ("/v1/models/caf%C3%A9", true),
            ("/v1/models/%", true),
            ("/v1/models/%zz%4", true),
            ("/v1/models/%ff", false),
            ("/v1/models/%c3/%a9", false),
        ] {
            assert_eq!(is_text(path), want, "{path}");
        }
    }
}
