//! Owns the device's report of its own health.
//!
//! **Invariant:** reading health never fails; what the board does not tell is reported as unknown
//! or zero.

use std::path::{Path, PathBuf};

use holdfast_targets::{Profile, TemperatureSource};
use holdfast_wire::message::{
    Escalations, Health, LinkHealth, LinkState as WireLink, ModelState, QueueDepth, TaskHealth,
};
use holdfast_wire::unit::{Bytes, Celsius, Micros, Millis};
use tokio::time::Instant;

use crate::escalate::LinkState;
use crate::service::Service;

/// Where health is read from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// When the agent started.
    pub started: Instant,
    /// The folder whose file system is reported.
    pub state_dir: PathBuf,
    /// The board.
    pub board: &'static Profile,
    /// Models, queue and links.
    pub service: Service,
}

impl Sources {
    /// The device's health now.
    pub async fn snapshot(&self) -> Health {
        let memory = read_text(Path::new("/proc/meminfo"));
        let status = read_text(Path::new("/proc/self/status"));
        let load = read_text(Path::new("/proc/loadavg"));
        let disk = rustix::fs::statvfs(&self.state_dir).ok();
        let counts = self.service.escalator.counts();
        Health {
            uptime: Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)),
            memory_rss: Bytes(kib(&status, "VmRSS:")),
            memory_total: Bytes(kib(&memory, "MemTotal:")),
            memory_available: Bytes(kib(&memory, "MemAvailable:")),
            disk_free: Bytes(disk.as_ref().map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize))),
            disk_total: Bytes(
                disk.as_ref().map_or(0, |fs| fs.f_blocks.saturating_mul(fs.f_frsize)),
            ),
            temperature: temperature(self.board.temperature()),
            load_milli: load_milli(&load),
            queue: self.queue().await,
            tasks: self.tasks(),
            escalations: Escalations {
                sent: counts.sent,
                answered: counts.answered,
                failed: counts.failed,
            },
            links: self.links(),
        }
    }

    /// The models in service, as a hello lists them.
    pub fn models(&self) -> Vec<ModelState> {
        let lanes = self.service.engine.lanes();
        lanes
            .iter()
            .map(|lane| {
                let choice = lane.choice().clone();
                ModelState {
                    name: lane.name().to_owned(),
                    version: lane.version().to_owned(),
                    task: lane.task().to_string(),
                    variant: choice.variant,
                    runtime: choice.runtime,
                }
            })
            .collect()
    }

    async fn queue(&self) -> Vec<QueueDepth> {
        let Some(queue) = self.service.queue.get() else { return Vec::new() };
        let Ok(stats) = queue.stats().await else { return Vec::new() };
        [
            ("held", stats.held),
            ("in_flight", stats.in_flight),
            ("answered", stats.answered),
            ("failed", stats.failed),
        ]
        .into_iter()
        .map(|(state, requests)| QueueDepth { state: state.to_owned(), requests })
        .collect()
    }

    fn tasks(&self) -> Vec<TaskHealth> {
        let lanes = self.service.engine.lanes();
        lanes
            .iter()
            .map(|lane| {
                let latency = lane.latency();
                TaskHealth {
                    task: lane.task().to_string(),
                    inferences: latency.count,
                    failures: lane.failures(),
                    p50: Micros(latency.p50_us.into()),
                    p95: Micros(latency.p95_us.into()),
                    p99: Micros(latency.p99_us.into()),
                }
            })
            .collect()
    }

    fn links(&self) -> Vec<LinkHealth> {
        let destinations = self.service.destinations.iter();
        destinations
            .map(|destination| {
                let (state, since) = self.service.escalator.link(&destination.name);
                LinkHealth {
                    name: destination.name.clone(),
                    zone: destination.zone.to_string(),
                    state: match state {
                        LinkState::Unknown => WireLink::Unknown,
                        LinkState::Up => WireLink::Up,
                        LinkState::Down { .. } => WireLink::Down,
                    },
                    since: Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
                }
            })
            .collect()
    }
}

fn read_text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The bytes in a line such as `MemTotal:  16315392 kB`.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024)
}

/// Thousandths of the first number in `/proc/loadavg`.
fn load_milli(text: &str) -> u32 {
    let first = text.split_whitespace().next().unwrap_or_default();
    let (whole, part) = first.split_once('.').unwrap_or((first, "0"));
    let whole: u32 = whole.parse().unwrap_or(0);
    let milli: u32 = format!("{part:0<3}").get(..3).and_then(|t| t.parse().ok()).unwrap_or(0);
    whole.saturating_mul(1000).saturating_add(milli)
}

/// The temperature of the board's thermal zones.
fn temperature(source: &TemperatureSource) -> Option<Celsius> {
    let zones = Path::new(&source.zones);
    let prefix = zones.file_name()?.to_str()?.trim_end_matches('*').to_owned();
    let folders = std::fs::read_dir(zones.parent()?).ok()?;
    let folders = folders.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let named =
        |path: &Path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix));
    let texts: Vec<_> = folders
        .filter(|path| named(path))
        .map(|path| (read_text(&path.join("type")), read_text(&path.join("temp"))))
        .collect();
    let read = source.pick(texts.iter().map(|(kind, temp)| (&**kind, &**temp)))?;
    // Sensors give thousandths of a degree; the profile keeps what a working board can have.
    #[allow(clippy::cast_possible_truncation, reason = "within a few hundred degrees")]
    let milli = (read.0 * 1000.0).round() as i32;
    Some(Celsius::from_milli(milli))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(
            kib("MemFree: 1 kB\nMemTotal:       16315392 kB\n", "MemTotal:"),
            16_315_392 * 1024
        );
        assert_eq!(kib("", "MemTotal:"), 0);
        for (text, want) in
            [("0.52 0.58 0.59 1/977 1234", 520), ("12.5 1 1", 12_500), ("", 0), ("x.y", 0)]
        {
            assert_eq!(load_milli(text), want, "{text}");
        }
    }
}
