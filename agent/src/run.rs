//! Owns the wiring of a running agent: what is started, in which order, and how it stops.
//!
//! **Invariant:** a part that cannot start (a bundle, the queue's disk, the broker) leaves the
//! rest running; only a port or a queue that another process has ends the start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_models::{Bundle, Decoder};
use holdfast_wire::message::{Health, ModelState};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::api::{Api, Socket, Tls, TlsError};
use crate::audit::Audit;
use crate::cache::Cache;
use crate::clock::{self, Clock};
use crate::config::{ApiConfig, Config};
use crate::drain::Drain;
use crate::engine::Engine;
use crate::escalate::{Bundles, EscalateError, Escalator, Purse, TaskHints};
use crate::gauges;
use crate::health::Sources;
use crate::identity::{Identity, IdentityError};
use crate::link::{self, LinkConfig};
use crate::network::Network;
use crate::pressure::Pressure;
use crate::queue::{Forgotten, Queue, QueueError};
use crate::reach;
use crate::request::TaskName;
use crate::results;
use crate::results::receiver::{Address, Receiver, Webhook};
use crate::results::takers::{Foreseen, TakerError, Takers};
use crate::service::Service;
use crate::slot::Slot;
use crate::supervise::supervise;
use crate::together::Together;
use crate::tune::Tuning;
use crate::tune::probe::Program;

/// The agent stops within this time.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// Lost requests that are named in one line of the log.
const NAMED: usize = 100;
/// The API, the tasks and the queue, one after the other, get this long each.
const PART_WITHIN: Duration = Duration::from_millis(1600);
/// The queue's disk is tried again after this time.
const REOPEN_AFTER: Duration = Duration::from_secs(5);
/// Metrics are folded together this often.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// Answers past their time are looked for this often.
const TIDY_EVERY: Duration = Duration::from_secs(10);

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
    let (tls, grpc_tls) = (tls(&config.api, b"http/1.1")?, tls(&config.api, b"h2")?);
    let socket = bind_socket(&config)?;
    let addresses = Addresses {
        api: address,
        grpc: grpc.as_ref().map(|(_, address)| *address),
        is_tls: tls.is_some(),
        socket: socket_path(&config),
    };
    let tuning = Arc::new(Tuning::open(program, &config.state_dir).careful());
    tuning.recover();
    let (engine, slot) = tokio::join!(Engine::start(&config.models, &tuning), open_queue(&config));
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
    let service = Service {
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
        stop: stop.clone(),
    };
    let tasks = TaskTracker::new();
    // What still works while the rest stops is stopped after it.
    let stop_behind = CancellationToken::new();
    let takers = Takers::load(&config.state_dir, config.results.max_takers);
    let parts =
        Parts { config: config.clone(), service: service.clone(), takers: takers.clone(), started };
    parts.spawn(&tasks, &stop_behind);
    tasks.spawn(upkeep(metrics.clone(), stop_behind.clone()));

    let access = Access::open(&config.state_dir, config.api.require_token, service.clock.clone())
        .map_err(RunError::Random)?;
    let api = Api::new(service.clone(), &config, metrics, takers, access, stop.clone());
    tracing::info!(%address, models = service.engine.lanes().len(), ready_ms = started.elapsed().as_millis(), "ready");
    ready(addresses)?;
    let by_grpc = async {
        if let Some((listener, address)) = grpc {
            tracing::info!(%address, "gRPC is served");
            crate::oip::serve_grpc(listener, grpc_tls, api.clone(), stop.clone()).await;
        }
    };
    let router = api.clone().router();
    let by_socket = async {
        if let Some(socket) = socket {
            let (router, stop) = (router.clone(), stop.clone());
            crate::api::serve_socket(socket, router, &config.api, stop).await;
        }
    };
    let by_http = crate::api::serve(listener, tls, router.clone(), &config.api, stop.clone());
    tokio::select! {
        ((), (), ()) = async { tokio::join!(by_http, by_grpc, by_socket) } => {}
        () = stopped_for_long(&stop) => {}
    }
    stop_behind.cancel();
    tasks.close();
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
    Ok(())
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

/// Listens on an address of the configuration; says which one that is, should its port be 0.
async fn bind(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source| RunError::Listen { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Where the Unix socket is. With TLS there always is one: the command line of this device goes that way.
fn socket_path(config: &Config) -> Option<PathBuf> {
    let default = || config.api.tls.is_some().then(|| config.state_dir.join("agent.sock"));
    config.api.unix_socket.clone().or_else(default)
}

fn bind_socket(config: &Config) -> Result<Option<Socket>, RunError> {
    let Some(path) = socket_path(config) else { return Ok(None) };
    let bound = Socket::bind(&path).map_err(|source| RunError::Socket { path, source })?;
    Ok(Some(bound))
}

fn tls(config: &ApiConfig, alpn: &[u8]) -> Result<Option<Tls>, TlsError> {
    let Some(files) = &config.tls else { return Ok(None) };
    Tls::read(files, alpn, config.header_timeout).map(Some)
}

/// Opens the queue; a disk that does not let it is tried again by [`hold_task`].
async fn open_queue(config: &Config) -> Result<Slot, RunError> {
    let slot = Slot::default();
    match open(config).await {
        Ok(queue) => slot.fill(queue),
        Err(error @ QueueError::InUse { .. }) => return Err(RunError::Queue(error)),
        Err(error) => slot.refuse(&error),
    }
    Ok(slot)
}

async fn open(config: &Config) -> Result<Queue, QueueError> {
    let (dir, limits) = (queue_dir(&config.state_dir), config.queue.clone());
    let opening = tokio::task::spawn_blocking(move || Queue::open(&dir, limits));
    let (queue, report) = opening.await.map_err(|_| QueueError::Closed)??;
    tracing::info!(held = report.held, replayed = report.replayed, "queue opened");
    if let Some(why) = &report.rebuilt {
        tracing::warn!(%why, "the queue's index was made anew from its journal");
    }
    if report.damaged > 0 {
        tracing::error!(damaged = report.damaged, damage = ?report.damage, "damaged records in the queue");
    }
    for path in &report.bad {
        tracing::warn!(path = %path.display(), "set aside: it could not be read as a part of the queue");
    }
    if let Some(why) = &report.untold {
        tracing::warn!(%why, "what is lost with a part of the journal cannot be named by the old index");
    }
    if !report.lost.is_empty() {
        for ids in report.lost.chunks(NAMED) {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            tracing::error!(ids = ids.join(" "), "lost with a part of the journal");
        }
        tracing::error!(lost = report.lost.len(), "requests are lost with a part of the journal");
    }
    Ok(queue)
}

/// Where the queue is kept under a state folder.
pub fn queue_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("queue")
}

/// Empties the queue upward, and forgets answers past their time.
async fn hold_task(parts: Arc<Parts>, stop: CancellationToken) {
    let Parts { config, service, takers, .. } = &*parts;
    let queue = loop {
        if let Some(queue) = service.queue.get() {
            break queue.clone();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
        match open(config).await {
            Ok(queue) => service.queue.fill(queue),
            Err(error) => service.queue.refuse(&error),
        }
    };
    let drain = Drain {
        queue: queue.clone(),
        escalator: service.escalator.clone(),
        destinations: service.destinations.clone(),
        balancing: service.balancing.clone(),
        routes: config.routes.clone().into(),
        policy: service.policy.clone(),
        clock: service.clock.clone(),
        max_attempts: config.max_attempts,
    };
    let tidy = async {
        let webhooks: Vec<_> = config.results.webhooks.iter().map(|hook| &hook.name).collect();
        takers.keep_webhooks(&webhooks).await;
        for name in &config.results.takers {
            if let Err(error) = takers.ensure(name).await {
                let error = crate::error_chain(&error);
                tracing::warn!(taker = %name, %error, "a taker of results could not be made");
            }
        }
        let mut every = tokio::time::interval(TIDY_EVERY);
        loop {
            every.tick().await;
            match tidy(&queue, config, takers, service.clock.now_ms()).await {
                Ok(forgotten) => note_forgotten(forgotten),
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::warn!(%error, "kept answers could not be removed");
                }
            }
        }
    };
    tokio::select! {
        () = drain.run(stop.clone()) => {}
        () = tidy => {}
    }
}

/// Forgets answers past their time; takers that did not have them are told of the gap.
async fn tidy(
    queue: &Queue,
    config: &Config,
    takers: &Takers,
    now_ms: u64,
) -> Result<Forgotten, TakerError> {
    let keep_ms = config.keep_answers_ms;
    let to_ms = now_ms.checked_sub(keep_ms);
    let foreseen = takers.before_forgetting(queue, to_ms, config.queue.max_finals).await;
    // A disk that is too full to note it must not keep the queue from shrinking.
    let foreseen = foreseen.or_else(|error| match error {
        TakerError::File { .. } => {
            let error = crate::error_chain(&error);
            tracing::error!(%error, "what takers of results are about to miss cannot be noted");
            Ok(Foreseen::nothing())
        }
        error => Err(error),
    })?;
    let forgotten = queue.forget_foreseen(now_ms, keep_ms, foreseen.surplus).await?;
    takers.after_forgetting(foreseen, forgotten).await?;
    Ok(forgotten)
}

fn note_forgotten(Forgotten { by_age, by_count }: Forgotten) {
    let forgotten =
        |rule: &'static str| metrics::counter!("holdfast_forgotten_total", "rule" => rule);
    forgotten("age").increment(by_age);
    forgotten("count").increment(by_count);
    if by_count > 0 {
        let limit = "queue.max_answers";
        tracing::warn!(
            by_count,
            limit,
            "answers were removed before their time: too many are kept"
        );
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

/// The queue, as soon as it is open; `None` when the agent stops first.
async fn queue_of(service: &Service, stop: &CancellationToken) -> Option<Queue> {
    loop {
        if let Some(queue) = service.queue.get() {
            return Some(queue.clone());
        }
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(REOPEN_AFTER) => {}
        }
    }
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
