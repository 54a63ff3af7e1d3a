//! Owns the reading of `[[destination]]`.

use std::time::Duration;

use super::bytes;
use super::reader::Section;
use crate::destination::{Credential, Destination, Limits, Protocol, Zone};
use crate::request::TaskName;

/// A million of the operator's currency, in millionths.
const MOST_MICROS: u64 = 1_000_000_000_000;

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
    let url = section.required_text("url", "http://10.0.0.5:8470");
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
    let model = section.text("model");
    let protocol = match section.text("protocol").as_deref() {
        None | Some("holdfast") => Some(Protocol::Holdfast),
        Some("openai") => match model {
            Some(model) => Some(Protocol::OpenAi { model }),
            None => {
                section.fault(
                    "model",
                    "is missing, must name the model that an openai destination is asked for",
                );
                None
            }
        },
        Some(other) => {
            section.fault("protocol", format!("is \"{other}\", must be one of holdfast, openai"));
            None
        }
    };
    let key_file = section.text("api_key_file").map(|path| Credential::File(path.into()));
    let key_env = section.text("api_key_env").map(Credential::Env);
    if key_file.is_some() && key_env.is_some() {
        section.fault("api_key_env", "is given beside api_key_file, only one of them can be");
    }
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
    let connect_timeout = section.integer("connect_timeout_ms", 10..=60_000, 2_000);
    let timeout = section.integer("timeout_ms", 10..=600_000, 30_000);
    let concurrency = section.integer("concurrency", 1..=256, 4);
    let limits = read_limits(section);
    Some(Destination {
        name,
        zone: zone?,
        protocol: protocol?,
        url: url?,
        credential: key_file.or(key_env),
        tasks,
        connect_timeout: Duration::from_millis(connect_timeout),
        timeout: Duration::from_millis(timeout),
        concurrency: bytes(concurrency),
        limits,
    })
}

fn read_limits(section: &mut Section<'_>) -> Limits {
    let requests_per_min = section.optional_integer("max_requests_per_min", 1..=1_000_000);
    let kib_per_s = section.optional_integer("max_kib_per_s", 1..=1_048_576);
    let price_micros = section.integer("price_per_request_micros", 0..=MOST_MICROS, 0);
    let budget_micros = section.optional_integer("budget_per_day_micros", 1..=MOST_MICROS);
    if budget_micros.is_some_and(|budget| price_micros == 0 || price_micros > budget) {
        section.fault(
            "price_per_request_micros",
            format!(
                "is {price_micros}, must be more than 0 and at most budget_per_day_micros, or \
                 nothing is limited or ever sent"
            ),
        );
    }
    let bytes_per_s = kib_per_s.map(|kib| kib * 1024);
    Limits { requests_per_min, bytes_per_s, price_micros, budget_micros }
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
