//! Owns the local HTTP API: tasks, requests, health and metrics.
//!
//! **Invariant:** a handler turns bytes into a [`Request`] or a [`Problem`] and leaves everything
//! else to [`Service`]; no body larger than the limit is ever in memory.

pub(crate) mod access_log;
pub(crate) mod body;
pub(crate) mod guard;
mod head;
pub(crate) mod listen;
mod openai;
mod openapi;
mod problem;
mod queue;
mod requests;
mod results;
pub(crate) mod seats;
pub(crate) mod server;
pub(crate) mod stalled;
mod terms;
pub(crate) mod tls;
pub(crate) mod unread;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use holdfast_models::{Bundle, Media, MediaError, MediaKind};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use self::access_log::Logged;
pub(crate) use self::listen::Socket;
pub use self::problem::Problem;
pub use self::queue::Ids;
pub(crate) use self::server::{serve, serve_socket};
use self::terms::{Terms, TermsQuery};
pub(crate) use self::tls::Tls;
pub use self::tls::TlsError;
use crate::access::{Access, Caller};
use crate::config::{ApiConfig, Config, RequestDefaults};
use crate::engine::Load;
use crate::gateway::Gateway;
use crate::gauges;
use crate::pressure;
use crate::queue::{RequestId, State as Stage};
use crate::reach::{self, Reach};
use crate::reply::{Reply, ReplyBody};
use crate::request::{Request, TaskName};
use crate::results::takers::Takers;
use crate::service::Service;
use crate::tune::choice::Choice;

/// What the handlers share.
#[derive(Clone)]
pub struct Api {
    /// Answers requests.
    pub service: Service,
    /// Answers what is asked of a model by its name.
    pub gateway: Gateway,
    /// Limits.
    pub config: ApiConfig,
    /// The terms of requests that state none.
    pub defaults: RequestDefaults,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    /// Who takes results, and how far each is.
    pub takers: Takers,
    /// Ends the streams when the agent stops.
    pub stop: CancellationToken,
    /// Who may call, and for what.
    pub(crate) access: Access,
    /// What connections from the network speak, if that is TLS.
    pub(crate) tls: Option<Tls>,
    places: Arc<Semaphore>,
    pub(crate) room: body::Room,
    waiting: Arc<Semaphore>,
}

/// The longest that `GET /v1/requests/{id}?wait_ms=` waits, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

impl Api {
    /// An API over `service`.
    pub(crate) fn new(
        service: Service,
        config: &Config,
        metrics: PrometheusHandle,
        takers: Takers,
        access: Access,
        tls: Option<Tls>,
        stop: CancellationToken,
    ) -> Self {
        let gateway = Gateway::new(service.clone(), config.routes.clone());
        let (config, defaults) = (config.api.clone(), config.requests);
        let places = Arc::new(Semaphore::new(config.max_concurrent));
        let room = body::Room::of(&config);
        let waiting = Arc::new(Semaphore::new(config.max_waiting));
        Self {
            service,
            gateway,
            config,
            defaults,
            metrics,
            takers,
            stop,
            access,
            tls,
            places,
            room,
            waiting,
        }
    }

    /// A place for one who waits: a long poll or a stream of events.
    fn waiting_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.waiting.clone().try_acquire_owned().map_err(|_| {
            let limit = self.config.max_waiting;
            let detail = format!(
                "{limit} callers wait for results already, as many as api.max_waiting allows; ask \
                 without waiting, or later"
            );
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
                .retry_after(pressure::UNKNOWN_S)
        })
    }

    /// When one of the calls under way is done.
    pub(crate) fn retry_after_s(&self) -> u64 {
        let rate = self.service.pressure.calls();
        // Before the first is measured: one is done within the deadline of most.
        rate.time_for(1).unwrap_or(1).clamp(1, pressure::LONGEST_S)
    }

    /// A place for one request under way.
    pub(crate) fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.places.try_acquire().map_err(|_| self.no_place())
    }

    /// The same, for one that goes on behind its response's head.
    fn owned_place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        self.places.clone().try_acquire_owned().map_err(|_| self.no_place())
    }

    fn no_place(&self) -> Problem {
        let limit = self.config.max_concurrent;
        let detail = format!("{limit} requests are under way already; try again shortly");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
            .retry_after(self.retry_after_s())
    }

    /// All routes.
    pub fn router(self) -> Router {
        let is_for_this_device =
            !self.config.require_token && self.config.listen.ip().is_loopback();
        let gate = guard::Gate {
            access: self.access.clone(),
            has_log: self.config.access_log,
            own_hosts: is_for_this_device.then(|| self.config.hosts.as_slice().into()),
        };
        let router = routes()
            .into_iter()
            .fold(Router::new(), |router, (path, methods)| router.route(path, methods));
        router
            .nest("/v2", crate::oip::router())
            .fallback(unknown_path)
            .method_not_allowed_fallback(wrong_method)
            .layer(from_fn_with_state(gate, guard::pass))
            .with_state(self)
    }
}

/// A path, and what its methods do.
type Route = (&'static str, MethodRouter<Api>);

/// Every route but those of the Open Inference Protocol.
fn routes() -> Vec<Route> {
    let mut routes = vec![
        ("/v1/tasks", get(list_tasks)),
        ("/v1/tasks/{task}", post(ask)),
        ("/v1/requests", get(requests::list)),
        ("/v1/requests/{id}", get(look_up).delete(queue::cancel)),
        ("/v1/requests/{id}/events", get(results::request_events)),
        ("/v1/requests/{id}/record", get(queue::export)),
        ("/v1/requests/{id}/retry", post(queue::retry)),
        ("/v1/results", get(results::results)),
        ("/v1/results/{number}/ack", post(results::acknowledge)),
        ("/v1/takers", get(results::takers)),
        ("/v1/takers/{name}", delete(results::forget_taker)),
        ("/v1/queue", get(queue::list)),
        ("/v1/queue/ids", get(queue::ids)),
        ("/v1/queue/records", post(queue::import)),
        ("/v1/queue/stats", get(queue::stats)),
        ("/v1/network", get(network)),
        ("/healthz", get(|| async { "ok\n" })),
        ("/readyz", get(ready)),
        ("/metrics", get(render_metrics)),
        ("/openapi.json", get(openapi::show)),
    ];
    routes.extend(openai::routes());
    routes
}

async fn ask(
    State(api): State<Api>,
    caller: Caller,
    Path(task): Path<String>,
    query: Result<Query<TermsQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    // What can be said without the body is said before it is read.
    let (task, terms, (ttl_ms, not_before_ms), _place) =
        admit(&api, &caller, &task, query, &headers).await?;
    let busy_s = api.retry_after_s();
    let limit = body::Limit::Configured { frame: 0 };
    let (bytes, _room) = body::read(&api.room, &api.config, limit, &headers, body, busy_s).await?;
    let media = read_media(&api, &task, &headers, bytes)?;
    let class = terms.class.unwrap_or(api.service.policy.default_class);
    let logged = Extension(Logged { task: Some(task.to_string()), class: Some(class) });
    let request = Request {
        id: RequestId::new(),
        task,
        media,
        class,
        priority: terms.priority.unwrap_or_default(),
        escalate: terms.escalate.unwrap_or_default(),
        deadline_ms: terms.deadline_ms.unwrap_or(api.defaults.deadline_ms),
        ttl_ms,
        not_before_ms,
        key: terms.key,
        hops: terms.hops,
    };
    let asked = api.service.ask(request).await;
    api.service.pressure.note_call();
    let (waiting, rate) = (api.service.waiting(), api.service.pressure.queue());
    let reply = asked.map_err(|error| Problem::of_queue(error, waiting, rate))?;
    if reply.state.is_final() {
        return Ok((logged, Json(ReplyBody::from(&reply))).into_response());
    }
    Ok((logged, told_later(&api, &reply, not_before_ms)).into_response())
}

/// What is told who was not answered yet: the request, where it is found, and what waits with it.
fn told_later(api: &Api, reply: &Reply, not_before_ms: u64) -> Response {
    let (length, rate) = (api.service.waiting(), api.service.pressure.queue());
    let expected_wait_s = length.and_then(|length| rate.time_for(length));
    let now_ms = api.service.clock.now_ms();
    let due_in_ms = match &reply.kept {
        Some(before) => before.not_before_ms.saturating_sub(now_ms),
        None => not_before_ms,
    };
    let due_in_ms = Some(due_in_ms).filter(|ms| *ms > 0 && reply.state == Stage::Held);
    let queue = Ahead { length, expected_wait_s };
    let body = HeldBody { reply: ReplyBody::from(reply), due_in_ms, queue };
    let location = format!("/v1/requests/{}", reply.id);
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(body)).into_response()
}

/// A reply to who was not answered yet: the request, and what waits with it.
#[derive(Debug, Serialize)]
struct HeldBody<'a> {
    #[serde(flatten)]
    reply: ReplyBody<'a>,
    /// Milliseconds before which it is not sent, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    due_in_ms: Option<u64>,
    queue: Ahead,
}

#[derive(Debug, Serialize)]
struct Ahead {
    /// Requests in the queue, this one included; `null` when that is not known.
    length: Option<u64>,
    /// Seconds in which so many were finished lately; `null` when nothing was.
    expected_wait_s: Option<u64>,
}

/// What can be said of a request before its body is read.
async fn admit<'a>(
    api: &'a Api,
    caller: &Caller,
    task: &str,
    query: Result<Query<TermsQuery>, QueryRejection>,
    headers: &HeaderMap,
) -> Result<(TaskName, Terms, (u64, u64), SemaphorePermit<'a>), Problem> {
    let task = known_task(api, task).await?;
    let Query(query) = query.map_err(|error| bad_query(&error, TermsQuery::KEYS))?;
    let mut terms = terms::read(headers, &query)?;
    terms.key = terms.key.map(|key| caller.own(key));
    caller.may_label(terms.class.unwrap_or(api.service.policy.default_class))?;
    let times = terms.times(api.defaults.ttl_ms, terms::in_query)?;
    Ok((task, terms, times, api.place()?))
}

/// A query with a parameter that is not known, is there twice, or is no number where one must be.
fn bad_query(error: &QueryRejection, known: &str) -> Problem {
    let why = error.body_text();
    let why = why.split_once("query string: ").map_or(&*why, |(_, why)| why);
    let why = why.split(", expected").next().unwrap_or_default();
    let why = match why.split_once(": ") {
        Some((name, "invalid digit found in string")) => format!("{name} must be a whole number"),
        Some((name, "number too large to fit in target type")) => format!("{name} is too large"),
        Some((_, unknown)) if unknown.starts_with("unknown field") => unknown.to_owned(),
        _ => why.to_owned(),
    };
    Problem::bad_term(format!("the query cannot be used: {why}; known parameters: {known}"))
}

/// How long a caller waits for something to happen.
fn wait_of(wait_ms: Option<u64>) -> Result<Duration, Problem> {
    match wait_ms.unwrap_or(0) {
        ms @ 0..=MAX_WAIT_MS => Ok(Duration::from_millis(ms)),
        ms => Err(Problem::bad_term(format!(
            "wait_ms is {ms} and can be {MAX_WAIT_MS} at most; ask again"
        ))),
    }
}

/// A task that a bundle here does or a destination names.
///
/// A destination that names no tasks is asked those of the bundles here, also of one that is not in
/// service: otherwise every mistyped task would wait in the queue for somebody who knows it.
async fn known_task(api: &Api, text: &str) -> Result<TaskName, Problem> {
    let lanes = api.service.engine.lanes();
    let bundled = lanes.iter().map(|lane| lane.task());
    let named = api.service.destinations.iter().flat_map(|destination| &destination.tasks);
    let known: BTreeSet<&TaskName> = bundled.chain(named).collect();
    if let Some(task) = known.iter().find(|task| task.as_str() == text) {
        return Ok((*task).clone());
    }
    let shown: String = text.chars().take(64).collect();
    if let Some(task) = TaskName::parse(text)
        && let Some(why) = api.service.engine.absence(text).await
    {
        if api.service.destinations.iter().any(|destination| destination.serves(&task)) {
            return Ok(task);
        }
        let detail = format!("nothing does task \"{shown}\" now: {why}");
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_in_service", detail);
        return Err(problem.retry_after(pressure::UNKNOWN_S));
    }
    let names: Vec<_> = known.iter().map(|task| task.as_str()).collect();
    let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let detail = format!(
        "no task \"{shown}\" here; known tasks: {known}; a task that only a destination does is \
         named in its `tasks`"
    );
    Err(Problem::new(StatusCode::NOT_FOUND, "unknown_task", detail))
}

fn read_media(
    api: &Api,
    task: &TaskName,
    headers: &HeaderMap,
    bytes: Bytes,
) -> Result<Media, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let lane = api.service.engine.lane(task);
    let expects = lane.map(|lane| lane.expects());
    let media = Media::detect_for(bytes, content_type, expects).map_err(|error| {
        let status = if !matches!(error, MediaError::Empty | MediaError::TooLarge(_)) {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        } else {
            StatusCode::UNPROCESSABLE_ENTITY
        };
        Problem::new(status, "bad_input", crate::error_chain(&error))
    })?;
    if let Some(expects) = expects.filter(|expects| !expects.takes(media.media_type())) {
        let want = match expects {
            MediaKind::Audio => "a recording",
            MediaKind::Image => "a picture",
            MediaKind::Tensor => "numbers",
            MediaKind::Text => "a text",
        };
        let accepted = expects.content_types();
        let got = media.media_type().mime();
        let detail = format!("task {task} takes {want} ({accepted}), this is {got}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_media", detail));
    }
    Ok(media)
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LookUpQuery {
    wait_ms: Option<u64>,
}

async fn look_up(
    State(api): State<Api>,
    caller: Caller,
    Path(text): Path<String>,
    query: Result<Query<LookUpQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|error| bad_query(&error, "wait_ms in 0..=60000"))?;
    let id = known_id(&text)?;
    let wait = wait_of(query.wait_ms)?;
    let _place = if wait.is_zero() { None } else { Some(api.waiting_place()?) };
    check_own(&api, &caller, id, &text).await?;
    let reply = api.service.look_up(id, wait).await?.ok_or_else(|| unknown_request(&text))?;
    Ok(Json(ReplyBody::at(&reply, api.service.clock.now_ms())).into_response())
}

/// A token that is for some tasks or classes is told of their requests alone; of others it hears as of none.
async fn check_own(api: &Api, caller: &Caller, id: RequestId, text: &str) -> Result<(), Problem> {
    if !caller.is_bounded() {
        return Ok(());
    }
    let reply = api.service.look_up(id, Duration::ZERO).await?;
    let is_own = reply.is_some_and(|reply| caller.may_hear(reply.subject.name(), reply.class));
    if is_own { Ok(()) } else { Err(unknown_request(text)) }
}

fn known_id(text: &str) -> Result<RequestId, Problem> {
    text.parse().map_err(|_| unknown_request(text))
}

fn unknown_request(text: &str) -> Problem {
    let shown: String = text.chars().take(64).collect();
    let detail = format!(
        "no request {shown} here; answers given in the call itself are not kept unless an \
         idempotency key was sent, others for queue.keep_answers_s"
    );
    Problem::new(StatusCode::NOT_FOUND, "unknown_request", detail)
}

/// One task, as `GET /v1/tasks` lists it.
#[derive(Debug, Serialize)]
struct TaskBody<'a> {
    task: &'a str,
    bundle: &'a str,
    version: &'a str,
    #[serde(flatten)]
    choice: &'a Choice,
    description: &'a str,
    kind: &'static str,
    takes: String,
    /// What goes under which name in `{"inputs": {...}}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<InputBody<'a>>,
    labels: &'a [String],
    /// Nothing for kinds that tell no confidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f32>,
    /// Requests that wait for it, its workers, and how many of them have something to do.
    #[serde(flatten)]
    load: Load,
}

/// One input of a task that takes them by their names.
#[derive(Debug, Serialize)]
struct InputBody<'a> {
    name: &'a str,
    /// Of the numbers as they are sent.
    dtype: &'static str,
    shape: &'a [usize],
}

fn inputs(bundle: &Bundle) -> Vec<InputBody<'_>> {
    if bundle.expects() != MediaKind::Tensor {
        return Vec::new();
    }
    let sent = bundle.sources().iter().filter(|input| !input.is_constant());
    sent.map(|input| InputBody {
        name: &input.name,
        dtype: input.sent_dtype().name(),
        shape: &input.shape,
    })
    .collect()
}

#[derive(Debug, Serialize)]
struct TasksBody<'a> {
    tasks: Vec<TaskBody<'a>>,
}

async fn list_tasks(State(api): State<Api>) -> Response {
    let lanes = api.service.engine.lanes();
    let tasks: Vec<_> = lanes
        .iter()
        .map(|lane| TaskBody {
            task: lane.task().as_str(),
            bundle: lane.name(),
            version: lane.version(),
            choice: lane.choice(),
            description: lane.description(),
            kind: lane.bundle().decoder().kind(),
            takes: lane.expects().to_string(),
            inputs: inputs(lane.bundle()),
            labels: lane.labels(),
            threshold: lane.bundle().decoder().threshold(),
            load: lane.load(),
        })
        .collect();
    Json(TasksBody { tasks }).into_response()
}

async fn network(State(api): State<Api>) -> Json<Reach> {
    Json(Reach::of(&api.service.escalator))
}

async fn ready(State(api): State<Api>) -> Response {
    let engine = &api.service.engine;
    let refused: Vec<_> = engine
        .refused()
        .iter()
        .filter(|bundle| !bundle.is_spare)
        .map(|bundle| serde_json::json!({ "bundle": bundle.path.display().to_string(), "why": bundle.why }))
        .collect();
    let lanes = engine.lanes();
    let healthy = lanes.iter().filter(|lane| lane.fault().is_none());
    let models: Vec<_> = healthy.map(|lane| lane.model()).collect();
    let can_answer = !models.is_empty() || !api.service.destinations.is_empty();
    let status = if can_answer { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    // Without its queue the device still answers, and stays ready; it is told beside.
    let missing = api.service.queue.missing();
    let queue = serde_json::json!({ "open": missing.is_none(), "why": missing });
    // So it is with a certificate that was renewed and cannot be used.
    let tls = api.tls.as_ref().map(Tls::fault);
    let tls = tls.map(|why| serde_json::json!({ "current": why.is_none(), "why": why }));
    let body = serde_json::json!({
        "ready": can_answer, "models": models, "refused": refused, "unmet": engine.unmet(),
        "queue": queue, "network": { "state": reach::state(&api.service.escalator) }, "tls": tls,
    });
    (status, Json(body)).into_response()
}

async fn render_metrics(State(api): State<Api>) -> Response {
    // These numbers are taken when somebody asks for them.
    let models = gauges::of_models(&api.service.engine);
    gauges::of_queue_open(api.service.queue.get().is_some());
    if let Some(queue) = api.service.queue.get()
        && let Ok(stats) = queue.stats().await
    {
        gauges::of_queue(&stats);
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], api.metrics.render() + &models).into_response()
}

async fn unknown_path(uri: Uri) -> Response {
    let shown: String = uri.path().chars().take(128).collect();
    let detail = format!(
        "nothing at {shown}; ask with POST /v1/tasks/{{task}} or /v1/chat/completions, list with GET \
         /v1/tasks or /v1/models; GET /openapi.json has all there is"
    );
    let problem = Problem::new(StatusCode::NOT_FOUND, "unknown_path", detail);
    guard::in_form(uri.path(), problem)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let shown: String = uri.path().chars().take(128).collect();
    let detail = format!("{method} does not work on {shown}");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", detail);
    guard::in_form(uri.path(), problem)
}
