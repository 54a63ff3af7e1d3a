//! Owns the reading of `[[destination]]`.

use std::time::Duration;

use super::protocol;
use super::reader::{Section, bytes};
use super::transport;
use crate::destination::{Credential, Destination, Limits, Prices, Protocol, Zone};
use crate::price;
use crate::request::TaskName;

/// A million of the operator's currency, in millionths.
pub(super) const MOST_MICROS: u64 = 1_000_000_000_000;

/// The destinations, in the order of the configuration.
pub(super) fn read_destinations(sections: Vec<Section<'_>>) -> Vec<Destination> {
    let mut found = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for mut section in sections {
        let name = section.required_text("name", "site").unwrap_or_default();
        if name == "device" || names.contains(&name) {
            section.fault("name", format!("is \"{name}\", must be unique and not \"device\""));
        }
        names.push(name.clone());
        let destination = read_destination(&mut section, name);
        section.finish();
        found.extend(destination);
    }
    found
}

fn read_destination(section: &mut Section<'_>, name: String) -> Option<Destination> {
    let (protocol, usual_url) = protocol::read(section);
    let url = match usual_url {
        Some(usual) => Some(section.text("url").unwrap_or(usual)),
        None => section.required_text("url", "http://10.0.0.5:8470"),
    };
    let url = url.and_then(|url| match check_url(&url) {
        Ok(()) => Some(url.trim_end_matches('/').to_owned()),
        Err(want) => {
            section.fault("url", format!("must be {want}"));
            None
        }
    });
    let zone = section.required_text("zone", "site");
    let zone = zone.and_then(|text| match text.parse::<Zone>() {
        Ok(zone) if zone != Zone::Device => Some(zone),
        _ => {
            section.fault("zone", format!("is \"{text}\", must be one of site, private, public"));
            None
        }
    });
    if zone == Some(Zone::Private)
        && let Some(why) = protocol.as_ref().and_then(protocol::unpinned)
    {
        let what = format!("is \"private\", and {why}: name a region, or say public");
        section.fault("zone", what);
    }
    let keys = ["api_key_file", "api_key_env", "api_key_credential"];
    let credential = read_credential(section, keys);
    let mut tasks = Vec::new();
    for text in section.texts("tasks").unwrap_or_default() {
        match TaskName::parse(&text) {
            Some(task) => tasks.push(task),
            None => section.fault(
                "tasks",
                format!("has \"{text}\", must be task names: 1 to 64 of a-z, 0-9 and -"),
            ),
        }
    }
    if let Some(Protocol::Oip(oip)) = &protocol
        && oip.model.is_some()
        && tasks.len() != 1
    {
        section.fault("tasks", "must name the one task that the model does");
    }
    let connect_timeout = section.integer("connect_timeout_ms", 10..=60_000, 2_000);
    let timeout = section.integer("timeout_ms", 10..=600_000, 30_000);
    let concurrency = section.integer("concurrency", 1..=4096, 4);
    let limits = read_limits(section, protocol.as_ref());
    let transport = transport::read(section, url.as_deref());
    Some(Destination {
        name,
        zone: zone?,
        protocol: protocol?,
        url: url?,
        credential,
        tasks,
        connect_timeout: Duration::from_millis(connect_timeout),
        timeout: Duration::from_millis(timeout),
        concurrency: bytes(concurrency),
        limits,
        transport,
    })
}

/// Where a secret is read from, by the one of these keys that is given.
pub(super) fn read_credential(
    section: &mut Section<'_>,
    [in_file, in_env, in_systemd]: [&'static str; 3],
) -> Option<Credential> {
    let file = section.text(in_file).map(|path| Credential::File(path.into()));
    let env = section.text(in_env).map(Credential::Env);
    let systemd = section.text(in_systemd).map(Credential::Systemd);
    if let Some(Credential::Systemd(name)) = &systemd
        && (name.is_empty() || name.contains('/') || name.starts_with('.'))
    {
        let what = format!("is \"{name}\", must be the name of a systemd credential");
        section.fault(in_systemd, what);
    }
    let given = [(in_file, &file), (in_env, &env), (in_systemd, &systemd)];
    let given = given.into_iter().filter(|(_, each)| each.is_some()).map(|(key, _)| key);
    if let [first, .., last] = given.collect::<Vec<_>>().as_slice() {
        section.fault(last, format!("is given beside {first}, only one of them can be"));
    }
    file.or(env).or(systemd)
}

fn read_limits(section: &mut Section<'_>, protocol: Option<&Protocol>) -> Limits {
    let requests_per_min = section.optional_integer("max_requests_per_min", 1..=1_000_000);
    let kib_per_s = section.optional_integer("max_kib_per_s", 1..=1_048_576);
    let price_micros = section.integer("price_per_request_micros", 0..=MOST_MICROS, 0);
    let prices = match protocol {
        Some(Protocol::Holdfast | Protocol::HoldfastModel(_) | Protocol::Oip(_)) => {
            Prices::default()
        }
        _ => protocol::read_prices(section),
    };
    let budget_micros = section.optional_integer("budget_per_day_micros", 1..=MOST_MICROS);
    let bytes_per_s = kib_per_s.map(|kib| kib * 1024);
    let limits = Limits { requests_per_min, bytes_per_s, price_micros, prices, budget_micros };
    let tokens_out = match protocol {
        Some(Protocol::Chat(chat)) => chat.max_tokens,
        _ => None,
    };
    let set_apart = price::usual(&limits, tokens_out);
    if budget_micros.is_some_and(|budget| set_apart == 0 || set_apart > budget) {
        section.fault(
            "budget_per_day_micros",
            format!(
                "is {}, must be at least what is set apart for a request, which is {set_apart} by \
                 the prices given, and more than 0: else nothing is limited or ever sent",
                budget_micros.unwrap_or_default()
            ),
        );
    }
    limits
}

/// What is wrong with a base URL. The URL is not echoed, since it may hold a password.
pub(super) fn check_url(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else { return Err("a URL that begins with http:// or https://") };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Err("without user and password; use api_key_file or api_key_env");
    }
    if rest.contains(['?', '#']) {
        return Err("without query and fragment");
    }
    let plain = |c: char| c.is_ascii_graphic();
    if authority.is_empty() || authority.starts_with(':') || !rest.chars().all(plain) {
        return Err("a URL with a host, such as http://10.0.0.5:8470");
    }
    Ok(())
}
