//! Owns what the agent tells of its own state: whether it can answer, its links, its metrics.
//!
//! **Invariant:** a device without its queue still answers, and stays ready; what it lacks is told beside.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Api, Tls};
use crate::gauges;
use crate::reach::{self, Reach};

pub(super) async fn network(State(api): State<Api>) -> Json<Reach> {
    Json(Reach::of(&api.service.escalator))
}

pub(super) async fn ready(State(api): State<Api>) -> Response {
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

pub(super) async fn render_metrics(State(api): State<Api>) -> Response {
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
