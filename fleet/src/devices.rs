//! `devices` and `results`: ask a controller, print a table or JSON.
//!
//! **Invariant:** what devices said reaches the terminal without control characters.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use holdfast_wire::id::DeviceId;
use holdfast_wire::unit::Bytes;
use jiff::Timestamp;

use crate::api::view::{DeviceList, DeviceView, ResultList, ResultView};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevicesError {
    #[error(
        "no controller answers at {server}; is `holdfast-fleet serve` running there? name another with --server"
    )]
    Unreachable { server: String, source: reqwest::Error },
    #[error("--server {server}: {why}; give a URL such as http://127.0.0.1:8480")]
    Address { server: String, why: String },
    #[error("{server} answers, but not as a controller does (status {status}); check --server")]
    Foreign { server: String, status: u16 },
    #[error(
        "no device {device} ever said hello there; `holdfast-fleet devices` lists those that did"
    )]
    Unknown { device: DeviceId },
}

/// A client, and the controller's address without a slash at its end.
fn client(server: &str) -> Result<(reqwest::Client, &str), DevicesError> {
    let server = server.trim_end_matches('/');
    let address = |why: String| DevicesError::Address { server: server.to_owned(), why };
    let base = reqwest::Url::parse(server).map_err(|error| address(error.to_string()))?;
    if !matches!(base.scheme(), "http" | "https") {
        return Err(address(format!("{}:// is not spoken here", base.scheme())));
    }
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|source| DevicesError::Unreachable { server: server.to_owned(), source })?;
    Ok((client, server))
}

/// The newest results of one device.
pub(crate) async fn fetch_results(
    server: &str,
    device: &DeviceId,
    limit: usize,
) -> Result<ResultList, DevicesError> {
    let (client, server) = client(server)?;
    let url = format!("{server}/api/v1/devices/{device}/results?limit={limit}");
    let sent = client.get(url).send().await;
    let response =
        sent.map_err(|source| DevicesError::Unreachable { server: server.to_owned(), source })?;
    let status = response.status().as_u16();
    match status {
        404 => return Err(DevicesError::Unknown { device: device.clone() }),
        200 => {}
        _ => return Err(DevicesError::Foreign { server: server.to_owned(), status }),
    }
    let list = response.json().await;
    list.map_err(|_| DevicesError::Foreign { server: server.to_owned(), status })
}

/// The results for people.
pub(crate) fn results_table(list: &ResultList) -> String {
    if list.results.is_empty() {
        return "no results; a device reports them when its configuration says fleet.results = true"
            .to_owned();
    }
    let now = list.now.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["REQUEST", "RECEIVED", "TASK", "CLASS", "STATE", "ANSWER", "BY"]);
    for result in &list.results {
        table.add_row(result_row(result, now).map(|cell| plain(&cell)));
    }
    table.trim_fmt()
}

fn result_row(result: &ResultView, now: Timestamp) -> [String; 7] {
    let answer = result.answer.as_ref();
    let dash = || "-".to_owned();
    [
        result.id.clone(),
        ago(&result.received, now),
        result.task.clone(),
        result.class.clone(),
        result.state.clone(),
        answer.map_or_else(dash, |answer| format!("{} {:.2}", answer.label, answer.confidence)),
        answer.map_or_else(dash, |answer| answer.place.clone()),
    ]
}

/// Every device of a controller.
pub(crate) async fn fetch(server: &str) -> Result<DeviceList, DevicesError> {
    let (client, server) = client(server)?;
    let unreachable = |source| DevicesError::Unreachable { server: server.to_owned(), source };
    let mut all: Option<DeviceList> = None;
    let mut after = String::new();
    loop {
        let url = format!("{server}/api/v1/devices{after}");
        let response = client.get(url).send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let foreign = || DevicesError::Foreign { server: server.to_owned(), status };
        if status != 200 {
            return Err(foreign());
        }
        let mut page: DeviceList = response.json().await.map_err(|_| foreign())?;
        let next = page.next.take();
        let list = match all.take() {
            Some(mut list) => {
                list.devices.append(&mut page.devices);
                list
            }
            None => page,
        };
        match next {
            Some(id) => after = format!("?after={id}"),
            None => return Ok(list),
        }
        all = Some(list);
    }
}

/// The table for people.
pub(crate) fn table(list: &DeviceList) -> String {
    if list.devices.is_empty() {
        return "no device has said hello yet; point an agent at this controller's MQTT address"
            .to_owned();
    }
    let now = list.now.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "DEVICE",
        "STATE",
        "LAST SEEN",
        "BOARD",
        "MODELS",
        "QUEUE",
        "P95",
        "MEMORY",
        "TEMPERATURE",
    ]);
    for device in &list.devices {
        table.add_row(row(device, now).map(|cell| plain(&cell)));
    }
    table.trim_fmt()
}

fn row(device: &DeviceView, now: Timestamp) -> [String; 9] {
    let state = match &device.reason {
        Some(reason) => format!("{} ({reason})", device.state),
        None => device.state.clone(),
    };
    let models: Vec<String> = device
        .models
        .iter()
        .map(|model| format!("{} {} {}", model.name, model.version, model.variant))
        .collect();
    let health = device.health.as_ref();
    let dash = || "-".to_owned();
    let slowest = health.and_then(|health| health.tasks.iter().map(|task| task.p95_us).max());
    [
        device.id.clone(),
        state,
        ago(&device.last_seen, now),
        device.board.clone(),
        if models.is_empty() { dash() } else { models.join(", ") },
        health.map_or_else(dash, |health| health.queue_waiting.to_string()),
        slowest.map_or_else(dash, micros),
        health.map_or_else(dash, |health| Bytes(health.memory_rss_bytes).to_string()),
        health
            .and_then(|health| health.temperature_celsius)
            .map_or_else(dash, |degrees| format!("{degrees:.1} °C")),
    ]
}

fn micros(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us % 1000 / 100)
}

fn ago(date: &str, now: Timestamp) -> String {
    let Ok(date) = date.parse::<Timestamp>() else { return "?".to_owned() };
    match now.as_second().saturating_sub(date.as_second()).max(0) {
        s @ 0..60 => format!("{s} s ago"),
        s @ 60..3600 => format!("{} min ago", s / 60),
        s @ 3600..172_800 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}

fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
