//! Owns the wiring of a running agent: what is started, in which order, and how it stops.
//!
//! **Invariant:** a part that cannot start (a bundle, the queue's disk, the broker) leaves the
//! rest running; only a port or a queue that another process has ends the start.

mod doors;
mod hold;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_models::{Bundle, Decoder};
use holdfast_wire::message::{Health, ModelState};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::doors::{bind, bind_socket, socket_path, tls};
pub use self::hold::queue_dir;
use self::hold::{hold_task, open_queue, queue_of};
use crate::access::Access;
use crate::api::{Api, TlsError};
use crate::audit::Audit;
use crate::cache::Cache;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::engine::Engine;
use crate::escalate::{Bundles, EscalateError, Escalator, Purse, TaskHints};
use crate::gauges;
use crate::health::Sources;
use crate::identity::{Identity, IdentityError};
use crate::link::{self, LinkConfig};
use crate::network::Network;
use crate::pressure::Pressure;
use crate::queue::QueueError;
use crate::reach;
use crate::request::TaskName;
use crate::results;
use crate::results::receiver::{Address, Receiver, Webhook};
use crate::results::takers::Takers;
use crate::service::Service;
use crate::supervise::supervise;
use crate::together::Together;
use crate::tune::Tuning;
use crate::tune::probe::Program;

/// The agent stops within this time.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// The API, the tasks and the queue, one after the other, get this long each.
const PART_WITHIN: Duration = Duration::from_millis(1600);
/// Metrics are folded together this often.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Where the agent answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP.
    pub api: SocketAddr,
    /// gRPC, if that is served.
    pub grpc: Option<SocketAddr>,
    /// Whether both speak TLS.
    pub is_tls: bool,
    /// A Unix socket, if one is served.
    pub socket: Option<PathBuf>,
}

/// Why the agent does not run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The port is taken, or is not ours to take.
    #[error("cannot listen on {address}; stop what uses it, or set {key} to another port")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent has the queue.
    #[error(transparent)]
    Queue(QueueError),
    /// A destination's client cannot be made.
    #[error(transparent)]
    Escalate(#[from] EscalateError),
    /// The socket cannot be had.
    #[error("cannot serve the socket {}; stop what serves it, or set api.unix_socket to another path", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// TLS cannot be spoken.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The operator's token cannot be made.
    #[error("the system gives no random numbers")]
    Random(#[source] std::io::Error),
    /// The record of what leaves the device has no thread.
    #[error("the record of what leaves the device cannot be begun")]
    Audit(#[source] std::io::Error),
    /// The metrics cannot be set up.
    #[error("cannot set up the metrics")]
    Metrics(#[from] BuildError),
    /// The ready file cannot be written.
    #[error("cannot write the ready file {}", path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs the agent until `stop` is cancelled.
///
/// `program` is started to try ways to run a bundle; without it, tract alone is used.
/// `ready` is called once with the API's addresses, when the agent answers.
///
/// # Errors
/// When the port or the queue belongs to another process.
pub async fn run(
    config: Config,
    program: Option<Program>,
    stop: CancellationToken,
    ready: impl FnOnce(Addresses) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let started = Instant::now();
    let metrics = recorder()?;
    let (listener, address) = bind("api.listen", config.api.listen).await?;
    let grpc = match config.api.grpc_listen {
        Some(address) => Some(bind("api.grpc_listen", address).await?),
        None => None,
    };
    let tls = tls(&config.api)?;
    let socket = bind_socket(&config)?;
    let addresses = Addresses {
        api: address,
        grpc: grpc.as_ref().map(|(_, address)| *address),
        is_tls: tls.is_some(),
        socket: socket_path(&config),
    };
    let service = service_of(&config, program, stop.clone()).await?;
    let tasks = TaskTracker::new();
    // What still works while the rest stops is stopped after it.
    let stop_behind = CancellationToken::new();
    let takers = Takers::load(&config.state_dir, config.results.max_takers);
    let parts =
        Parts { config: config.clone(), service: service.clone(), takers: takers.clone(), started };
    parts.spawn(&tasks, &stop_behind);
    tasks.spawn(upkeep(metrics.clone(), stop_behind.clone()));
    let escalator = service.escalator.clone();
    tasks.spawn(async move { escalator.tell_missing_credentials().await });
    if let Some(tls) = tls.clone() {
        let token = stop_behind.clone();
        let kept = move || tls.clone().keep(token.clone());
        tasks.spawn(supervise("tls", stop_behind.clone(), kept));
    }

    let access = Access::open(&config.state_dir, config.api.require_token, service.clock.clone())
        .map_err(RunError::Random)?;
    let api =
        Api::new(service.clone(), &config, metrics, takers, access, tls.clone(), stop.clone());
    tracing::info!(%address, models = service.engine.lanes().len(), ready_ms = started.elapsed().as_millis(), "ready");
    ready(addresses)?;
    let by_grpc = async {
        if let Some((listener, address)) = grpc {
            tracing::info!(%address, "gRPC is served");
            crate::oip::serve_grpc(listener, tls.clone(), api.clone(), stop.clone()).await;
        }
    };
    let router = api.clone().router();
    let by_socket = async {
        if let Some(socket) = socket {
            let (router, stop) = (router.clone(), stop.clone());
            crate::api::serve_socket(socket, router, &config.api, stop).await;
        }
    };
    let by_http =
        crate::api::serve(listener, tls.clone(), router.clone(), &config.api, stop.clone());
    tokio::select! {
        ((), (), ()) = async { tokio::join!(by_http, by_grpc, by_socket) } => {}
        () = stopped_for_long(&stop) => {}
    }
    stop_behind.cancel();
    tasks.close();
    wind_down(&tasks, &service).await;
    Ok(())
}

/// Everything that a request passes: models, queue, destinations, record.
async fn service_of(
    config: &Config,
    program: Option<Program>,
    stop: CancellationToken,
) -> Result<Service, RunError> {
    let tuning = Arc::new(Tuning::open(program, &config.state_dir).careful());
    tuning.recover();
    let (engine, slot) = tokio::join!(Engine::start(&config.models, &tuning), open_queue(config));
    let engine = Arc::new(engine);
    let of_classes = |bundle: &Bundle| matches!(bundle.decoder(), Decoder::Classification(_));
    let hints = engine.bundles().into_iter().filter(of_classes).filter_map(|bundle| {
        let hints = TaskHints {
            labels: bundle.labels().to_vec(),
            description: bundle.description().to_owned(),
        };
        Some((TaskName::parse(bundle.task())?, hints))
    });
    let clock = Clock::resume(&config.state_dir);
    let purse = Purse::open(&config.state_dir, clock.clone(), &config.destinations);
    let audit =
        Audit::open(&config.state_dir, config.audit, clock.clone()).map_err(RunError::Audit)?;
    let network = Network::open(&config.state_dir, clock.clone(), config.network.clone());
    let hints = hints.collect();
    let escalator = Escalator::over(network, &config.destinations, hints, purse, audit)?;
    let bundles = Engine::clone(&engine);
    let bundles = Bundles::from_fn(move |task| bundles.bundle_of(task));
    let escalator = Arc::new(escalator.with_bundles(bundles));
    let headroom = config.queue.headroom_bytes;
    let cache = Cache::open(&config.state_dir, &config.cache, headroom).await;
    Ok(Service {
        engine,
        queue: slot?,
        escalator,
        destinations: config.destinations.clone().into(),
        balancing: Arc::new(config.balancing.clone()),
        policy: Arc::new(config.policy.clone()),
        clock,
        pressure: Pressure::default(),
        together: Together::default(),
        cache,
        stop,
    })
}

/// Waits for what still works, a while for each.
async fn wind_down(tasks: &TaskTracker, service: &Service) {
    if tokio::time::timeout(PART_WITHIN, tasks.wait()).await.is_err() {
        tracing::warn!("some tasks did not stop in time; what is held is on disk");
    }
    if tokio::time::timeout(PART_WITHIN, service.escalator.audit().flush()).await.is_err() {
        tracing::warn!("how the last sends ended is not on record");
    }
    if let Some(queue) = service.queue.get()
        && !matches!(tokio::time::timeout(PART_WITHIN, queue.close()).await, Ok(Ok(())))
    {
        tracing::warn!("the queue was not closed in good order; nothing is lost");
    }
}

/// What runs behind the API.
struct Parts {
    config: Config,
    service: Service,
    takers: Takers,
    started: Instant,
}

impl Parts {
    /// Starts every part, each begun again should it panic.
    fn spawn(self, tasks: &TaskTracker, stop: &CancellationToken) {
        let parts = Arc::new(self);
        let (this, token) = (parts.clone(), stop.clone());
        tasks.spawn(supervise("queue", stop.clone(), move || {
            hold_task(this.clone(), token.clone())
        }));
        let (this, token) = (parts.clone(), stop.clone());
        tasks.spawn(supervise("probes", stop.clone(), move || {
            this.service.escalator.clone().probe_task(token.clone())
        }));
        let (clock, token) = (parts.service.clock.clone(), stop.clone());
        tasks.spawn(supervise("clock", stop.clone(), move || clock.clone().keep(token.clone())));
        let (network, token) = (parts.service.escalator.network().clone(), stop.clone());
        tasks
            .spawn(supervise("network", stop.clone(), move || network.clone().keep(token.clone())));
        let (this, token) = (parts.clone(), stop.clone());
        tasks.spawn(supervise("reach", stop.clone(), move || {
            let (this, token) = (this.clone(), token.clone());
            async move { reach::watch(&this.service.escalator, token).await }
        }));
        let (service, token) = (parts.service.clone(), stop.clone());
        tasks.spawn(supervise("pressure", stop.clone(), move || {
            let Service { pressure, queue, clock, .. } = service.clone();
            pressure.keep(queue, clock, token.clone())
        }));
        if let Some(cache) = parts.service.cache.clone() {
            let token = stop.clone();
            tasks
                .spawn(supervise("cache", stop.clone(), move || cache.clone().tidy(token.clone())));
        }
        for webhook in parts.config.results.webhooks.clone() {
            let (this, token) = (parts.clone(), stop.clone());
            tasks.spawn(supervise("webhook", stop.clone(), move || {
                webhook_task(this.clone(), webhook.clone(), token.clone())
            }));
        }
        let (this, token) = (parts.clone(), stop.clone());
        tasks.spawn(supervise("tuning", stop.clone(), move || {
            tuning_task(this.clone(), token.clone())
        }));
        let token = stop.clone();
        tasks.spawn(supervise("fleet", stop.clone(), move || {
            link_task(parts.clone(), token.clone())
        }));
    }
}

async fn stopped_for_long(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(PART_WITHIN).await;
}

fn recorder() -> Result<PrometheusHandle, BuildError> {
    let seconds = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
    let rows = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("holdfast_batch_rows".to_owned()), &rows)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)?
        .install_recorder()
        .inspect(|_handle| gauges::describe())
}

/// Folds what was recorded into the histograms' buckets; without it, it would pile up.
async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => metrics.run_upkeep(),
        }
    }
}

/// Finds out how each bundle runs best on this board.
async fn tuning_task(parts: Arc<Parts>, stop: CancellationToken) {
    let Parts { service, .. } = &*parts;
    tokio::select! {
        () = stop.cancelled() => {}
        () = service.engine.tune() => {}
    }
}

/// Reports to the fleet's controller, if there is one.
async fn link_task(parts: Arc<Parts>, stop: CancellationToken) {
    let Parts { config, service, takers, started, .. } = &*parts;
    let Some(fleet) = &config.fleet else { return };
    let identity = match Identity::load(&config.state_dir, config.device.clone()) {
        Ok(identity) => identity,
        Err(error) => return no_link(&error),
    };
    let board = holdfast_targets::detect(&board_facts());
    let (state_dir, service) = (config.state_dir.clone(), service.clone());
    let sources = Sources { started: *started, state_dir, board, service: service.clone() };
    let (served, models) = watch::channel(sources.models());
    let link = LinkConfig {
        host: fleet.host.clone(),
        port: fleet.port,
        interval: fleet.interval,
        board: board.name().to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        models,
        started_ms: clock::date_ms(),
        network: service.escalator.network().clone(),
    };
    let (latest, health) = watch::channel(Health::default());
    let (status, _) = watch::channel(link::State::Waiting { attempt: 0 });
    let health = move || health.borrow().clone();
    let (batches, results) = mpsc::channel(1);
    let results = fleet.results.then_some(results);
    let deliver = async {
        if !fleet.results {
            return;
        }
        let Some(queue) = queue_of(&service, &stop).await else { return };
        let name = "controller".to_owned();
        let receiver = Receiver { name, zone: fleet.zone, address: Address::Controller };
        let (takers, policy) = (takers.clone(), service.policy.clone());
        results::fleet::run(queue, takers, policy, receiver, batches, stop.clone()).await;
    };
    tokio::join!(
        watch_health(sources, fleet.interval / 2, (latest, served), stop.clone()),
        link::run(link, identity, health, results, status, stop.clone()),
        deliver,
    );
}

/// Posts results to one webhook.
async fn webhook_task(parts: Arc<Parts>, webhook: Webhook, stop: CancellationToken) {
    let Some(queue) = queue_of(&parts.service, &stop).await else { return };
    let (takers, policy) = (parts.takers.clone(), parts.service.policy.clone());
    let escalator = &parts.service.escalator;
    let sent = (escalator.audit().clone(), escalator.network().clone());
    results::webhook::run(webhook, queue, takers, policy, sent, stop).await;
}

/// Keeps the latest health at hand, so that the link never waits for it.
async fn watch_health(
    sources: Sources,
    interval: Duration,
    (latest, served): (watch::Sender<Health>, watch::Sender<Vec<ModelState>>),
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(interval);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        latest.send_replace(sources.snapshot().await);
        served.send_replace(sources.models());
    }
}

fn no_link(error: &IdentityError) {
    let error = crate::error_chain(error);
    tracing::warn!(%error, "no link to the fleet: the device's key cannot be used");
}

/// What is known of the board.
pub fn board_facts() -> holdfast_targets::Facts {
    let model = std::fs::read_to_string("/proc/device-tree/model").ok();
    holdfast_targets::Facts {
        arch: std::env::consts::ARCH.to_owned(),
        device_tree_model: model.map(|text| text.trim_end_matches('\0').trim().to_owned()),
    }
}
