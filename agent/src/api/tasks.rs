//! Owns the tasks that can be asked, by their names and as they are listed.
//!
//! **Invariant:** a task that nobody here knows is refused, and waits for nobody.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holdfast_models::{Bundle, MediaKind};
use serde::Serialize;

use super::{Api, Problem};
use crate::engine::Load;
use crate::pressure;
use crate::request::TaskName;
use crate::tune::choice::Choice;

/// A task that a bundle here does or a destination names.
///
/// A destination that names no tasks is asked those of the bundles here, also of one that is not in
/// service: otherwise every mistyped task would wait in the queue for somebody who knows it.
pub(super) async fn known_task(api: &Api, text: &str) -> Result<TaskName, Problem> {
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

pub(super) async fn list_tasks(State(api): State<Api>) -> Response {
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
