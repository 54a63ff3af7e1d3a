//! What the API says, as JSON. The command line reads the same types.
//!
//! **Invariant:** every number carries its unit in its name; every date is RFC 3339 in UTC.

use std::collections::BTreeMap;

use holdfast_wire::message::{Health, LinkState, ResultReport};
use holdfast_wire::unit::Millis;
use serde::{Deserialize, Serialize};

use crate::device::{Device, Presence};

/// `GET /api/v1/devices`
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeviceList {
    pub(crate) now: String,
    pub(crate) devices: Vec<DeviceView>,
    /// Pass as `after` for the following devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// `GET /api/v1/devices/{id}`
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DeviceView {
    pub(crate) id: String,
    /// `online` or `offline`
    pub(crate) state: String,
    /// Why it is offline: `bye`, `last-will` or `silence`
    pub(crate) reason: Option<String>,
    pub(crate) state_since: String,
    pub(crate) first_seen: String,
    pub(crate) last_seen: String,
    /// The ed25519 public key it appeared with, in hex
    pub(crate) public_key: String,
    pub(crate) agent_version: String,
    pub(crate) board: String,
    pub(crate) api: Option<String>,
    pub(crate) started: String,
    pub(crate) health_interval_ms: u64,
    pub(crate) models: Vec<ModelView>,
    pub(crate) health: Option<HealthView>,
}

/// A model in service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ModelView {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) task: String,
    pub(crate) variant: String,
    pub(crate) runtime: String,
}

/// How a device is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct HealthView {
    pub(crate) uptime_ms: u64,
    pub(crate) memory_rss_bytes: u64,
    pub(crate) memory_total_bytes: u64,
    pub(crate) memory_available_bytes: u64,
    pub(crate) disk_free_bytes: u64,
    pub(crate) disk_total_bytes: u64,
    pub(crate) temperature_celsius: Option<f64>,
    pub(crate) load: f64,
    /// Requests by state
    pub(crate) queue: BTreeMap<String, u64>,
    /// Those of them that still wait for an answer
    pub(crate) queue_waiting: u64,
    pub(crate) tasks: Vec<TaskView>,
    pub(crate) escalations: EscalationsView,
    pub(crate) links: Vec<LinkView>,
}

/// Inference of one task.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TaskView {
    pub(crate) task: String,
    pub(crate) inferences: u64,
    pub(crate) failures: u64,
    pub(crate) p50_us: u64,
    pub(crate) p95_us: u64,
    pub(crate) p99_us: u64,
}

/// What went up, since the agent started.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EscalationsView {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

/// One link to a destination.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LinkView {
    pub(crate) name: String,
    pub(crate) zone: String,
    /// `up`, `down` or `unknown`
    pub(crate) state: String,
    pub(crate) since_ms: u64,
}

/// `GET /api/v1/devices/{id}/results`, newest first
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ResultList {
    pub(crate) now: String,
    pub(crate) results: Vec<ResultView>,
}

/// What one request came to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ResultView {
    /// Its place in the order of the device's results
    pub(crate) number: u64,
    /// The request
    pub(crate) id: String,
    /// When the controller had it
    pub(crate) received: String,
    pub(crate) task: String,
    pub(crate) class: String,
    /// `answered`, `failed`, `expired` or `cancelled`
    pub(crate) state: String,
    pub(crate) answer: Option<AnswerView>,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AnswerView {
    pub(crate) label: String,
    pub(crate) confidence: f64,
    pub(crate) zone: String,
    pub(crate) place: String,
    pub(crate) model: String,
    pub(crate) took_us: u64,
    pub(crate) provisional: bool,
}

/// `GET /api/v1/status`
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StatusView {
    pub(crate) now: String,
    pub(crate) version: String,
    pub(crate) started: String,
    pub(crate) public_key: String,
    pub(crate) broker: String,
    pub(crate) broker_connected: bool,
    pub(crate) registry_writable: bool,
    pub(crate) online: usize,
    pub(crate) offline: usize,
    /// Messages refused since the start, by reason
    pub(crate) refused: BTreeMap<String, u64>,
    /// Messages dropped since the start because too many came at once
    pub(crate) dropped: u64,
}

/// A date as RFC 3339.
pub(crate) fn date(millis: Millis) -> String {
    i64::try_from(millis.0)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

impl From<(Millis, ResultReport)> for ResultView {
    fn from((received, report): (Millis, ResultReport)) -> Self {
        Self {
            number: report.number,
            id: report.request,
            received: date(received),
            task: report.task,
            class: report.class,
            state: report.state,
            answer: report.answer.map(|answer| AnswerView {
                label: answer.label,
                confidence: f64::from(answer.confidence_milli) / 1000.0,
                zone: answer.zone,
                place: answer.place,
                model: answer.model,
                took_us: answer.took.0,
                provisional: answer.provisional,
            }),
        }
    }
}

impl From<&Device> for DeviceView {
    fn from(device: &Device) -> Self {
        let hello = &device.hello;
        let (state, reason) = match device.presence {
            Presence::Online => ("online", None),
            Presence::Offline(why) => ("offline", Some(why.text().to_owned())),
        };
        Self {
            id: device.id.to_string(),
            state: state.to_owned(),
            reason,
            state_since: date(device.presence_since),
            first_seen: date(device.first_seen),
            last_seen: date(device.last_seen),
            public_key: device.key.to_string(),
            agent_version: hello.agent_version.clone(),
            board: hello.board.clone(),
            api: hello.api.clone(),
            started: date(hello.started),
            health_interval_ms: hello.health_interval.0,
            models: hello
                .models
                .iter()
                .map(|model| ModelView {
                    name: model.name.clone(),
                    version: model.version.clone(),
                    task: model.task.clone(),
                    variant: model.variant.clone(),
                    runtime: model.runtime.clone(),
                })
                .collect(),
            health: device.health.as_ref().map(HealthView::from),
        }
    }
}

impl From<&Health> for HealthView {
    fn from(health: &Health) -> Self {
        Self {
            uptime_ms: health.uptime.0,
            memory_rss_bytes: health.memory_rss.0,
            memory_total_bytes: health.memory_total.0,
            memory_available_bytes: health.memory_available.0,
            disk_free_bytes: health.disk_free.0,
            disk_total_bytes: health.disk_total.0,
            temperature_celsius: health.temperature.map(|temperature| temperature.degrees()),
            load: f64::from(health.load_milli) / 1000.0,
            queue: health.queue.iter().map(|depth| (depth.state.clone(), depth.requests)).collect(),
            queue_waiting: health.waiting(),
            tasks: health
                .tasks
                .iter()
                .map(|task| TaskView {
                    task: task.task.clone(),
                    inferences: task.inferences,
                    failures: task.failures,
                    p50_us: task.p50.0,
                    p95_us: task.p95.0,
                    p99_us: task.p99.0,
                })
                .collect(),
            escalations: EscalationsView {
                sent: health.escalations.sent,
                answered: health.escalations.answered,
                failed: health.escalations.failed,
            },
            links: health
                .links
                .iter()
                .map(|link| LinkView {
                    name: link.name.clone(),
                    zone: link.zone.clone(),
                    state: match link.state {
                        LinkState::Unknown => "unknown",
                        LinkState::Up => "up",
                        LinkState::Down => "down",
                    }
                    .to_owned(),
                    since_ms: link.since.0,
                })
                .collect(),
        }
    }
}
