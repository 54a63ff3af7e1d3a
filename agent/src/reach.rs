//! Owns what the device as a whole is called, of all its links together, and telling people of it.
//!
//! **Invariant:** it is decided by [`of_device`] alone, from what the links saw; nothing is sent here.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::escalate::connectivity::of_device;
use crate::escalate::{Connectivity, Escalator};
use crate::network::{Bytes, Count, Network};

/// The links tell of themselves; what else there is is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A name that no destination can have.
const DEVICE: &str = "device";

/// What is known of the device's links, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Reach {
    /// `online`, `metered`, `degraded`, `captive_portal` or `offline`.
    state: &'static str,
    why: String,
    /// The interfaces of the default route.
    interfaces: Vec<String>,
    metered: bool,
    /// Until when what is not urgent waits for a budget, if it does.
    used_up_until: Option<String>,
    /// By destination.
    links: BTreeMap<String, &'static str>,
    /// What was sent and fetched, by period.
    day: Period,
    month: Period,
}

/// A day or a month.
#[derive(Debug, Serialize)]
struct Period {
    /// Bytes over metered links.
    metered_bytes: u64,
    /// What they may be; none where there is no limit.
    budget_bytes: Option<u64>,
    by_purpose: BTreeMap<&'static str, Bytes>,
}

impl Reach {
    /// As it is now.
    pub fn of(escalator: &Escalator) -> Self {
        let network = escalator.network();
        let (state, why) = now(escalator);
        let Count { day, month, metered } = network.count();
        let (of_day, of_month) = (network.plan().per_day, network.plan().per_month);
        let period = |metered_bytes, budget_bytes, by_purpose| Period {
            metered_bytes,
            budget_bytes,
            by_purpose,
        };
        Self {
            state: state.as_str(),
            why,
            interfaces: network.interfaces(),
            metered: network.is_metered(),
            used_up_until: network.may(DEVICE, false).err().map(|used_up| used_up.until()),
            links: escalator.connectivity().into_iter().map(|(n, s)| (n, s.as_str())).collect(),
            day: period(metered.0, of_day, day),
            month: period(metered.1, of_month, month),
        }
    }
}

/// What the device is called now.
pub fn state(escalator: &Escalator) -> &'static str {
    now(escalator).0.as_str()
}

/// Tells of every change, until `stop`.
pub async fn watch(escalator: &Escalator, stop: CancellationToken) {
    let mut links = escalator.links();
    let mut was = Connectivity::Unknown;
    loop {
        links.borrow_and_update();
        for (name, is) in escalator.connectivity() {
            note_metric(&name, is);
        }
        let (is, why) = now(escalator);
        if is != was {
            note_metric(DEVICE, is);
            tracing::info!(was = was.as_str(), why, "the device is {}", is.as_str());
            was = is;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = links.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
    }
}

/// Sets the metric of what a link is called; the device's own is under the name `device`.
fn note_metric(name: &str, is: Connectivity) {
    for each in Connectivity::ALL {
        let labels = [("destination", name.to_owned()), ("state", each.as_str().to_owned())];
        let value = if each == is { 1.0 } else { 0.0 };
        metrics::gauge!("holdfast_connectivity", &labels).set(value);
    }
}

fn now(escalator: &Escalator) -> (Connectivity, String) {
    let network: &Network = escalator.network();
    let has_route = !network.interfaces().is_empty();
    of_device(&escalator.connectivity(), network.controller(), has_route, network.is_metered())
}
