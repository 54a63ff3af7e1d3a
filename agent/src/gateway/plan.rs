//! Owns what the name of a model means: a route, a destination, or a model that destinations have.
//!
//! Pure: nothing is sent here, and whether anything may be is the policy's affair.
//!
//! **Invariant:** a name means the same destinations in the same order as long as the configuration is
//! the same.

use holdfast_chat::served::models::ModelEntry;

use crate::balance::Balancing;
use crate::destination::Destination;

/// A name of the operator's for some destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name, which no destination has.
    pub name: String,
    /// The destinations' names, in the configured order.
    pub destinations: Vec<String>,
    /// Which of them comes first.
    pub balancing: Balancing,
}

/// The destinations that `model` means, in the configured order: those of the route of
/// that name, else the one of that name, else all that have a model of that name. Nothing where there
/// is none. The route, too, where it is one.
#[must_use]
pub fn meant<'a>(
    model: &str,
    destinations: &'a [Destination],
    routes: &'a [Route],
) -> (Vec<&'a Destination>, Option<&'a Route>) {
    let by_name = |name: &str| talked_to(destinations).find(|each| each.name == name);
    if let Some(route) = routes.iter().find(|route| route.name == model) {
        let found = route.destinations.iter().filter_map(|name| by_name(name)).collect();
        return (found, Some(route));
    }
    if let Some(destination) = by_name(model) {
        return (vec![destination], None);
    }
    (talked_to(destinations).filter(|each| model_of(each) == Some(model)).collect(), None)
}

/// Every name that means something, as models are listed: routes, destinations, and their models.
#[must_use]
pub fn names(destinations: &[Destination], routes: &[Route]) -> Vec<ModelEntry> {
    let mut entries: Vec<ModelEntry> = Vec::new();
    let mut add = |id: &str, owned_by: &str| {
        if !entries.iter().any(|entry| entry.id == id) {
            let (id, owned_by) = (id.to_owned(), owned_by.to_owned());
            entries.push(ModelEntry { id, owned_by, created: 0 });
        }
    };
    for route in routes {
        add(&route.name, "route");
    }
    for destination in talked_to(destinations) {
        add(&destination.name, destination.zone.as_str());
    }
    for destination in talked_to(destinations) {
        add(model_of(destination).unwrap_or_default(), &destination.name);
    }
    entries
}

/// The destinations that have a model which is asked by its name.
fn talked_to(destinations: &[Destination]) -> impl Iterator<Item = &Destination> {
    destinations.iter().filter(|destination| model_of(destination).is_some())
}

pub(super) fn model_of(destination: &Destination) -> Option<&str> {
    destination.chat().map(|chat| chat.model.as_str())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_chat::Dialect;

    use super::*;
    use crate::destination::{Chat, Limits, Protocol, Transport, Zone};

    fn destination(name: &str, model: Option<&str>) -> Destination {
        let chat = |model| Protocol::Chat(Chat::new(Dialect::OpenAi, model));
        Destination {
            name: name.to_owned(),
            zone: Zone::Site,
            protocol: model.map_or(Protocol::Holdfast, chat),
            url: "http://127.0.0.1:9".to_owned(),
            credential: None,
            tasks: Vec::new(),
            transport: Transport::default(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            concurrency: 1,
            limits: Limits::default(),
        }
    }

    #[test]
    fn a_name_is_a_route_then_a_destination_then_a_model() {
        let destinations = [
            destination("site", None),
            destination("near", Some("small")),
            destination("far", Some("large")),
            destination("farther", Some("large")),
            destination("large-at-home", Some("near")),
            Destination {
                protocol: Protocol::HoldfastModel(Chat::new(Dialect::OpenAi, "helper")),
                ..destination("agent", None)
            },
        ];
        let route = |name: &str, of: &[&str]| Route {
            name: name.to_owned(),
            destinations: of.iter().map(|name| (*name).to_owned()).collect(),
            balancing: Balancing::default(),
        };
        let routes = [route("any", &["farther", "near"]), route("small", &["far"])];
        for (model, want) in [
            ("any", &["farther", "near"][..]),
            ("small", &["far"]),
            ("near", &["near"]),
            ("large", &["far", "farther"]),
            ("site", &[]),
            ("helper", &["agent"]),
            ("agent", &["agent"]),
            ("nobody", &[]),
            ("", &[]),
        ] {
            let (found, route) = meant(model, &destinations, &routes);
            assert_eq!(route.is_some(), ["any", "small"].contains(&model), "{model}");
            let found: Vec<&str> = found.iter().map(|each| each.name.as_str()).collect();
            assert_eq!(found, want, "{model}");
        }
        let names = names(&destinations, &routes);
        let ids: Vec<&str> = names.iter().map(|entry| entry.id.as_str()).collect();
        let destinations_too = ["near", "far", "farther", "large-at-home", "agent"];
        assert_eq!(ids, [&["any", "small"], &destinations_too[..], &["large", "helper"]].concat());
        for entry in names {
            assert!(!meant(&entry.id, &destinations, &routes).0.is_empty(), "{}", entry.id);
        }
    }
}
