//! Owns the reading of `[[routes]]`.
//!
//! **Invariant:** a route has a name of its own, and names destinations that have a model.

use super::reader::Section;
use crate::destination::{Destination, Protocol};
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
            let fault = match found.map(|destination| &destination.protocol) {
                None => Some("which is no destination"),
                Some(Protocol::Holdfast) => Some("which is asked tasks and no model"),
                Some(Protocol::Chat(_)) if named.iter().take(at).any(|before| before == each) => {
                    Some("twice")
                }
                Some(Protocol::Chat(_)) => None,
            };
            if let Some(fault) = fault {
                section.fault("destinations", format!("has \"{each}\", {fault}"));
            }
        }
        section.finish();
        routes.push(Route { name, destinations: named });
    }
    routes
}
