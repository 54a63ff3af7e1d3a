//! The HTTP side: JSON, server-sent events and the page. It only reads.
//!
//! ```text
//! GET /                     the page
//! GET /api/v1/devices       every device; ?limit=1..=1000 &after={id}
//! GET /api/v1/devices/{id}  one device
//! GET /api/v1/devices/{id}/results  its newest results; ?limit=1..=1000
//! GET /api/v1/events        changes as they happen (server-sent events)
//! GET /api/v1/status        the controller itself
//! GET /healthz /readyz      for probes
//! ```
//!
//! **Invariant:** nothing here changes a device, and no answer holds a lock while it is sent.

mod events;
mod page;
mod problem;
pub(crate) mod view;

use std::sync::Arc;

use axum::extract::{Path, Query, State as From};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use holdfast_wire::id::DeviceId;
use holdfast_wire::sign::PublicKey;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::date;
use crate::intake::{State, tally};
use crate::link::Link;
use crate::store::{MAX_RESULTS, ResultReader};
use problem::Problem;
use view::{DeviceList, DeviceView, ResultList, ResultView, StatusView};

/// Most devices in one answer.
const MAX_LIMIT: usize = 1000;

/// What the handlers read.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) state: Arc<State>,
    pub(crate) results: ResultReader,
    pub(crate) link: Link,
    pub(crate) broker: String,
    pub(crate) public_key: PublicKey,
    /// Ends the event streams, so that a stop does not wait for watchers.
    pub(crate) cancel: CancellationToken,
}

/// Every route.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .route("/api/v1/devices", get(devices))
        .route("/api/v1/devices/{id}", get(device))
        .route("/api/v1/devices/{id}/results", get(results))
        .route("/api/v1/events", get(events::stream))
        .route("/api/v1/status", get(status))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn(guard))
        .with_state(api)
}

/// Headers that every answer carries.
async fn guard(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Paging {
    limit: Option<usize>,
    after: Option<String>,
}

async fn devices(
    From(api): From<Api>,
    paging: Result<Query<Paging>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<DeviceList>, Problem> {
    let Query(paging) = paging.map_err(|error| Problem::bad_parameter(error.body_text()))?;
    let limit = paging.limit.unwrap_or(MAX_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_parameter(format!("limit = {limit}: must be 1..={MAX_LIMIT}")));
    }
    let after = paging
        .after
        .map(DeviceId::parse)
        .transpose()
        .map_err(|error| Problem::bad_parameter(format!("after: {error}")))?;
    Ok(Json(list(&api, after.as_ref(), limit)))
}

/// At most `limit` devices behind `after`, and where to go on.
fn list(api: &Api, after: Option<&DeviceId>, limit: usize) -> DeviceList {
    let roster = api.state.roster();
    let devices: Vec<DeviceView> = roster.page(after, limit).map(DeviceView::from).collect();
    let next = match (devices.last(), roster.last()) {
        (Some(shown), Some(last)) if shown.id != last.id.as_str() => Some(shown.id.clone()),
        _ => None,
    };
    DeviceList { now: view::date(date()), devices, next }
}

async fn device(From(api): From<Api>, Path(id): Path<String>) -> Result<Json<DeviceView>, Problem> {
    let id = DeviceId::parse(id).map_err(|error| Problem::bad_parameter(error.to_string()))?;
    let view = api.state.roster().get(&id).map(DeviceView::from);
    view.map(Json).ok_or_else(|| unknown(&id))
}

fn unknown(id: &DeviceId) -> Problem {
    let detail = format!("no device {id} ever said hello");
    Problem::new(StatusCode::NOT_FOUND, "unknown_device", detail)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    limit: Option<usize>,
}

async fn results(
    From(api): From<Api>,
    Path(id): Path<String>,
    newest: Result<Query<Newest>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<ResultList>, Problem> {
    let Query(newest) = newest.map_err(|error| Problem::bad_parameter(error.body_text()))?;
    let limit = newest.limit.unwrap_or(100);
    if !(1..=MAX_RESULTS).contains(&limit) {
        return Err(Problem::bad_parameter(format!("limit = {limit}: must be 1..={MAX_RESULTS}")));
    }
    let id = DeviceId::parse(id).map_err(|error| Problem::bad_parameter(error.to_string()))?;
    if api.state.roster().get(&id).is_none() {
        return Err(unknown(&id));
    }
    let found = api.results.newest(&id, limit).await.map_err(|error| {
        tracing::error!(%error, "results cannot be read");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_registry", error.to_string())
    })?;
    let results = found.into_iter().map(ResultView::from).collect();
    Ok(Json(ResultList { now: view::date(date()), results }))
}

fn status_view(api: &Api) -> StatusView {
    let (online, offline) = tally(&api.state.roster());
    let refused = api
        .state
        .refused()
        .map(|(reason, count)| (format!("{reason:?}").to_lowercase(), count))
        .collect();
    StatusView {
        now: view::date(date()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started: view::date(api.state.started.date),
        public_key: api.public_key.to_string(),
        broker: api.broker.clone(),
        broker_connected: api.link.is_up(),
        registry_writable: api.state.store_works(),
        online,
        offline,
        refused,
        dropped: api.link.dropped(),
    }
}

async fn status(From(api): From<Api>) -> Json<StatusView> {
    Json(status_view(&api))
}

/// What `/readyz` answers as long as all is well.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
}

async fn ready(From(api): From<Api>) -> Result<Json<Ready>, Problem> {
    let unavailable =
        |code, detail: String| Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail));
    if !api.link.is_up() {
        let detail = format!("the broker at {} is not connected", api.broker);
        return unavailable("no_broker", detail);
    }
    if !api.state.store_works() {
        return unavailable("no_registry", "the registry cannot be written".to_owned());
    }
    Ok(Json(Ready { ready: true }))
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_path",
        format!("nothing is at {}; the API begins at /api/v1/devices", uri.path()),
    )
}

async fn not_allowed(method: Method, uri: Uri) -> Response {
    let problem = Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "wrong_method",
        format!("{} takes GET, not {method}", uri.path()),
    );
    ([(header::ALLOW, "GET, HEAD")], problem).into_response()
}
