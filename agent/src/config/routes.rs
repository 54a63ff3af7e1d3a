//! Owns the reading of `[[routes]]`, and of which of several destinations comes first.
//!
//! **Invariant:** a route has a name of its own, and names destinations that have a model.

use std::time::Duration;

use super::reader::Section;
use crate::balance::{Balance, Balancing};
use crate::destination::Destination;
use crate::gateway::Route;

/// The routes, in the order of the configuration.
pub(super) fn read(sections: Vec<Section<'_>>, destinations: &[Destination]) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for mut section in sections {
        let name = section.required_text("name", "any").unwrap_or_default();
        let is_taken = destinations.iter().any(|destination| destination.name == name)
            || routes.iter().any(|route| route.name == name);
        if name.trim().is_empty() || is_taken {
            let what = format!("is \"{name}\", must be a name that no destination or route has");
            section.fault("name", what);
        }
        let named = section.texts("destinations").unwrap_or_default();
        if named.is_empty() {
            section.fault("destinations", "must name at least one destination");
        }
        for (at, each) in named.iter().enumerate() {
            let found = destinations.iter().find(|destination| destination.name == *each);
            let fault = match found.map(Destination::chat) {
                None => Some("which is no destination"),
                Some(None) => Some("which is asked tasks and no model"),
                Some(Some(_)) if named.iter().take(at).any(|before| before == each) => {
                    Some("twice")
                }
                Some(Some(_)) => None,
            };
            if let Some(fault) = fault {
                section.fault("destinations", format!("has \"{each}\", {fault}"));
            }
        }
        let balancing = read_balancing(&mut section, &named);
        section.finish();
        routes.push(Route { name, destinations: named, balancing });
    }
    routes
}

/// Which of the destinations `named` comes first.
pub(super) fn read_balancing(section: &mut Section<'_>, named: &[String]) -> Balancing {
    let words = Balance::ALL.map(|(word, _)| word).join(", ");
    let balance = section.parsed("balance", &format!("one of {words}"), |text| text.parse().ok());
    let balance = balance.unwrap_or_default();
    let weights = section.integer_table("weights", 0..=1000);
    for name in weights.keys().filter(|name| !named.contains(name)) {
        section.fault("weights", format!("has \"{name}\", which is none of the destinations"));
    }
    let is_weighed = balance == Balance::Weight;
    if !is_weighed && !weights.is_empty() {
        section.fault("weights", "is given, and balance is not \"weight\"");
    }
    let hedge_after = section.optional_integer("hedge_after_ms", 1..=600_000);
    let hedge_after = hedge_after.map(Duration::from_millis);
    let balancing = Balancing { balance, weights, hedge_after };
    if is_weighed && !named.is_empty() && named.iter().all(|name| balancing.weight(name) == 0) {
        section.fault("weights", "is 0 for every destination, must be 1..=1000 for one at least");
    }
    balancing
}
