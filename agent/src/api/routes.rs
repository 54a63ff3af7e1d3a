//! Owns which path does what, and what is told on a path that does nothing.
//!
//! **Invariant:** every route is behind the gate.

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodRouter, delete, get, post};

use super::{
    Api, Problem, ask, guard, look_up, openai, openapi, queue, requests, results, status, tasks,
};

impl Api {
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
pub(super) type Route = (&'static str, MethodRouter<Api>);

/// Every route but those of the Open Inference Protocol.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = vec![
        ("/v1/tasks", get(tasks::list_tasks)),
        ("/v1/tasks/{task}", post(ask::ask)),
        ("/v1/requests", get(requests::list)),
        ("/v1/requests/{id}", get(look_up::look_up).delete(queue::cancel)),
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
        ("/v1/network", get(status::network)),
        ("/healthz", get(|| async { "ok\n" })),
        ("/readyz", get(status::ready)),
        ("/metrics", get(status::render_metrics)),
        ("/openapi.json", get(openapi::show)),
    ];
    routes.extend(openai::routes());
    routes
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
