//! Owns `[fleet]`: the controller, and what it is sent.
//!
//! **Invariant:** a controller does not lie on the device.

use std::time::Duration;

use super::reader::Section;
use crate::destination::Zone;

/// The fleet's controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetConfig {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// Time between health reports.
    pub interval: Duration,
    /// Where the controller lies.
    pub zone: Zone,
    /// Results are sent to the controller, as far as their class lets them into its zone.
    pub results: bool,
}

pub(super) fn read(mut section: Section<'_>) -> Option<FleetConfig> {
    let broker = section.required_text("broker", "mqtt://127.0.0.1:1883");
    let interval = Duration::from_millis(section.integer("interval_ms", 100..=3_600_000, 5_000));
    let results = section.boolean("results", false);
    let zones = "one of site, private, public";
    let far = |text: &str| text.parse().ok().filter(|zone| *zone != Zone::Device);
    let zone = section.parsed("zone", zones, far).unwrap_or(Zone::Site);
    let broker = broker.and_then(|text| {
        let parsed = parse_broker(&text);
        if parsed.is_none() {
            section
                .fault("broker", format!("is \"{text}\", must be such as mqtt://127.0.0.1:1883"));
        }
        parsed
    });
    section.finish();
    broker.map(|(host, port)| FleetConfig { host, port, interval, zone, results })
}

fn parse_broker(text: &str) -> Option<(String, u16)> {
    let rest = text.strip_prefix("mqtt://")?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (rest, 1883),
    };
    let fits = !host.is_empty() && !host.contains(['/', '@', ' ']);
    fits.then(|| (host.to_owned(), port))
}
