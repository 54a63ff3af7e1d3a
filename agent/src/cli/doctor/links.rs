//! Owns what `doctor` says of the network and of the fleet's broker.
//!
//! **Invariant:** a network that is not there is no fault: the device answers without.

use serde_json::Value;

use super::{Finding, REACH_WITHIN};
use crate::cli::running;
use crate::clock;
use crate::config::Config;
use crate::escalate::Method;
use crate::network::Network;

/// What the running agent says of its links, or what the machine says of the way out.
pub(super) async fn of_network(config: &Config) -> Finding {
    let check = "network";
    let said: Option<Value> = match running::agent(config) {
        Ok(agent) => agent.ask(Method::Get, "/v1/network", Vec::new()).await.ok(),
        Err(_) => None,
    };
    let Some(said) = said else {
        let clock = clock::Clock::resume(&config.state_dir);
        let network = Network::open(&config.state_dir, clock, config.network.clone());
        let metered = if network.is_metered() { ", metered" } else { "" };
        return match network.interfaces().join(", ") {
            none if none.is_empty() => {
                let advice = "bring up a link, should this device have one; it answers without";
                Finding::warn(check, "no default route", advice)
            }
            interfaces => Finding::fine(check, format!("default route by {interfaces}{metered}")),
        };
    };
    let text = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
    let (state, why) = (text("state"), text("why"));
    let mib = |period: &str| {
        let bytes = said.get(period)?.get("metered_bytes")?.as_u64()?;
        Some(format!("{:.1} MiB metered this {period}", bytes as f64 / 1_048_576.0))
    };
    let used: Vec<String> = ["day", "month"].into_iter().filter_map(mib).collect();
    let found = format!("{state}: {why}; {}", used.join(", "));
    match (state, text("used_up_until")) {
        (_, until) if !until.is_empty() => {
            let advice = "what is not urgent waits; raise network.budget_per_day_mib or _month_mib";
            Finding::warn(check, format!("{found}; the budget is used up until {until}"), advice)
        }
        ("online" | "metered" | "unknown", _) => Finding::fine(check, found),
        ("captive_portal", _) => {
            Finding::warn(check, found, "sign in to that network; what is held goes on by itself")
        }
        _ => Finding::warn(check, found, "what is held waits; look at the links named here"),
    }
}

/// Whether the broker accepts connections.
pub(super) async fn of_fleet(config: &Config) -> Finding {
    let Some(fleet) = &config.fleet else {
        return Finding::fine("fleet", "not part of one");
    };
    let address = format!("{}:{}", fleet.host, fleet.port);
    let connect = tokio::net::TcpStream::connect((&*fleet.host, fleet.port));
    match tokio::time::timeout(REACH_WITHIN, connect).await {
        Ok(Ok(_)) => Finding::fine("fleet", format!("broker {address} accepts connections")),
        Ok(Err(error)) => {
            let advice =
                "the device works without it; start the controller or correct fleet.broker";
            Finding::warn("fleet", format!("broker {address}: {error}"), advice)
        }
        Err(_) => {
            let advice = "the device works without it; check the network between here and there";
            Finding::warn("fleet", format!("broker {address} does not answer"), advice)
        }
    }
}
