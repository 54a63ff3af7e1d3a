//! Owns the local HTTP API, and what its handlers share.
//!
//! **Invariant:** a handler turns bytes into a request or a [`Problem`] and leaves everything
//! else to [`Service`]; no body larger than the limit is ever in memory.

pub(crate) mod access_log;
mod ask;
pub(crate) mod body;
pub(crate) mod guard;
mod head;
pub(crate) mod listen;
mod look_up;
mod openai;
mod openapi;
mod problem;
mod query;
mod queue;
mod requests;
mod results;
mod routes;
pub(crate) mod seats;
pub(crate) mod server;
pub(crate) mod stalled;
mod status;
mod tasks;
mod terms;
pub(crate) mod tls;
pub(crate) mod unread;

use std::sync::Arc;

use axum::http::StatusCode;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

pub(crate) use self::listen::Socket;
pub use self::problem::Problem;
pub use self::queue::Ids;
use self::routes::Route;
pub(crate) use self::server::{serve, serve_socket};
pub(crate) use self::tls::Tls;
pub use self::tls::TlsError;
use crate::access::Access;
use crate::config::{ApiConfig, Config, RequestDefaults};
use crate::gateway::Gateway;
use crate::pressure;
use crate::results::takers::Takers;
use crate::service::Service;

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
}
