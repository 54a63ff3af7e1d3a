//! Owns the line in the log about each request, when its response is over.
//!
//! **Invariant:** there is one line for each request, however it ends, and no byte in it of what was asked
//! or answered.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::http::{HeaderMap, Method, StatusCode, header};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use crate::request::DataClass;

/// A longer name of a task is not what anything here is called.
const NAME: usize = 64;

/// What a handler adds to the line, in its response's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logged {
    pub(crate) task: Option<String>,
    pub(crate) class: Option<DataClass>,
}

/// By which a stream says that it ended before what it tells was whole, in its response's extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending(Arc<AtomicBool>);

impl Ending {
    /// It ends here, and is not whole.
    pub(crate) fn break_off(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Passes on what comes next of a stream that has no end of its own.
    pub(crate) fn endless<T>(&self, next: Option<T>) -> Option<T> {
        if next.is_none() {
            self.break_off();
        }
        next
    }
}

/// How a response is told, in its protocol's own numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Http(StatusCode),
    Grpc(u16),
}

impl Status {
    fn is_good(self) -> bool {
        match self {
            Self::Http(status) => status.is_success(),
            Self::Grpc(status) => status == 0,
        }
    }
}

/// How far a response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Its caller went away, or did not take it.
    Cut,
    ToItsEnd,
    BrokeOff,
    Revoked,
}

/// One request, as it is logged when this value goes: also where its caller went before any response.
pub(crate) struct Line {
    caller: String,
    method: Method,
    route: String,
    task: OnceLock<String>,
    class: Option<DataClass>,
    bytes_in: Option<u64>,
    begun: Instant,
    /// None before there is a response.
    status: Option<Status>,
    bytes_out: usize,
    came: Came,
    ending: Option<Ending>,
}

impl Line {
    /// A request that begins now.
    pub(crate) fn begin(caller: &str, method: Method, route: &str, headers: &HeaderMap) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        Self {
            caller: caller.to_owned(),
            method,
            route: route.to_owned(),
            task: OnceLock::new(),
            class: None,
            bytes_in: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            begun: Instant::now(),
            status: None,
            bytes_out: 0,
            came: Came::Cut,
            ending: None,
        }
    }

    /// The task or model that it is for; the first name that is told counts.
    pub(crate) fn name(&self, task: &str) {
        // The first one stands.
        drop(self.task.set(task.chars().take(NAME).collect()));
    }

    /// The response is there.
    pub(super) fn respond(&mut self, status: StatusCode, logged: Logged, ending: Option<Ending>) {
        self.status = Some(Status::Http(status));
        if let Some(task) = logged.task {
            self.task = OnceLock::from(task);
        }
        (self.class, self.ending) = (logged.class, ending);
    }

    /// What came of asking the body for more.
    fn note<E>(&mut self, got: Option<&Result<Frame<Bytes>, E>>) {
        match got {
            Some(Ok(frame)) => self.bytes_out += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => self.came = Came::BrokeOff,
            None => self.end(),
        }
    }

    /// Nothing of the body is left.
    fn end(&mut self) {
        if self.came == Came::Cut {
            self.came = Came::ToItsEnd;
        }
    }

    fn outcome(&self) -> &'static str {
        let is_broken = self.ending.as_ref().is_some_and(|it| it.0.load(Ordering::Relaxed));
        match (self.came, self.status) {
            (Came::Revoked, _) => "revoked",
            (Came::Cut, _) | (_, None) => "cut",
            (_, Some(status)) if !status.is_good() => "refused",
            (Came::BrokeOff, _) => "broke_off",
            (Came::ToItsEnd, _) if is_broken => "broke_off",
            (Came::ToItsEnd, _) => "answered",
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let ms = crate::answer::millis(self.begun.elapsed());
        let (status, grpc_status) = match self.status {
            Some(Status::Http(status)) => (Some(status.as_u16()), None),
            Some(Status::Grpc(status)) => (None, Some(status)),
            None => (None, None),
        };
        tracing::info!(
            target: "holdfast_agent::access",
            caller = self.caller,
            method = %self.method,
            route = self.route,
            task = self.task.get().map(String::as_str),
            class = self.class.map(DataClass::as_str),
            status,
            grpc_status,
            bytes_in = self.bytes_in,
            bytes_out = self.bytes_out,
            ms = format_args!("{ms:.1}"),
            outcome = self.outcome(),
            "request",
        );
    }
}

/// A body that is counted for its line.
pub(crate) struct Counted<B> {
    body: B,
    line: Option<Line>,
}

impl<B: Body<Data = Bytes> + Unpin> Counted<B> {
    pub(crate) fn new(body: B, mut line: Option<Line>) -> Self {
        if let Some(line) = line.as_mut().filter(|_| body.is_end_stream()) {
            line.end();
        }
        Self { body, line }
    }

    /// Of a response of gRPC, which has its status in its head where it is a refusal.
    pub(crate) fn of_grpc(head: &HeaderMap, body: B, mut line: Option<Line>) -> Self {
        if let (Some(line), Some(status)) = (&mut line, grpc_status(head)) {
            line.status = Some(status);
        }
        Self::new(body, line)
    }

    /// The caller has lost its right to the rest.
    pub(super) fn revoke(&mut self) {
        if let Some(line) = &mut self.line {
            line.came = Came::Revoked;
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Self { body, line } = &mut *self;
        let polled = Pin::new(&mut *body).poll_frame(context);
        if let (Poll::Ready(got), Some(line)) = (&polled, line) {
            line.note(got.as_ref());
            // gRPC tells its status behind the answer.
            let trailers = got.as_ref().and_then(|got| got.as_ref().ok()?.trailers_ref());
            if let Some(status) = trailers.and_then(grpc_status) {
                line.status = Some(status);
            }
            if trailers.is_some() || body.is_end_stream() {
                line.end();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<Status> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok().map(Status::Grpc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_it_ended() {
        type Told = Result<Frame<Bytes>, std::io::Error>;
        type Case = (&'static str, Option<Status>, bool, Vec<Option<Told>>, &'static str, usize);
        let data = || Some(Ok(Frame::data(Bytes::from_static(b"1234"))));
        let broken = || Some(Err(std::io::Error::other("broken")));
        let (ok, refused) = (Status::Http(StatusCode::OK), Status::Http(StatusCode::NOT_FOUND));
        let cases: Vec<Case> = vec![
            ("no response", None, false, vec![], "cut", 0),
            ("left in the middle", Some(ok), false, vec![data()], "cut", 4),
            ("whole", Some(ok), false, vec![data(), data(), None], "answered", 8),
            ("said to be broken", Some(ok), true, vec![data(), None], "broke_off", 4),
            ("left before it broke", Some(ok), true, vec![data()], "cut", 4),
            ("an error", Some(ok), false, vec![data(), broken()], "broke_off", 4),
            ("refused", Some(refused), false, vec![data(), None], "refused", 4),
            ("by gRPC", Some(Status::Grpc(5)), false, vec![None], "refused", 0),
            ("over gRPC", Some(Status::Grpc(0)), false, vec![data(), None], "answered", 4),
        ];
        for (case, status, is_broken, told, want, bytes) in cases {
            let mut line = Line::begin("line-7", Method::GET, "/", &HeaderMap::new());
            let ending = Ending::default();
            line.respond(StatusCode::OK, Logged::default(), Some(ending.clone()));
            line.status = status;
            if is_broken {
                ending.break_off();
            }
            for got in &told {
                line.note(got.as_ref());
            }
            assert_eq!((line.outcome(), line.bytes_out), (want, bytes), "{case}");
        }
        let mut line = Line::begin("line-7", Method::GET, "/", &HeaderMap::new());
        line.respond(StatusCode::OK, Logged::default(), None);
        line.came = Came::Revoked;
        assert_eq!(line.outcome(), "revoked");
    }

    #[tokio::test]
    async fn grpc_tells_its_status_before_or_behind_its_answer() {
        use http_body_util::BodyExt as _;

        let status = |text: &'static str| {
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), text.parse().unwrap())])
        };
        let line = || Some(Line::begin("line-7", Method::POST, "/", &HeaderMap::new()));
        let outcome = |line: &Option<Line>| line.as_ref().unwrap().outcome();
        let refused = Counted::of_grpc(&status("7"), http_body_util::Empty::new(), line());
        assert_eq!(outcome(&refused.line), "refused");
        for (text, want) in [("0", "answered"), ("13", "refused")] {
            let answer = http_body_util::Full::new(Bytes::from_static(b"1234"));
            let trailers = std::future::ready(Some(Ok(status(text))));
            let answer = answer.with_trailers(trailers);
            let mut counted = Counted::of_grpc(&HeaderMap::new(), answer, line());
            assert_eq!(outcome(&counted.line), "cut");
            while counted.frame().await.is_some() {}
            assert_eq!(outcome(&counted.line), want);
            assert_eq!(counted.line.as_ref().unwrap().bytes_out, 4);
        }
    }
}
