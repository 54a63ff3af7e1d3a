//! Owns the reading of who takes results: named takers of the API, and webhooks.

use std::path::PathBuf;
use std::time::Duration;

use super::destinations::check_url;
use super::reader::{Section, bytes};
use crate::destination::Zone;
use crate::request::TaskName;
use crate::results::receiver::{Address, Receiver, Webhook};
use crate::results::takers::TakerName;

/// Who takes results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsConfig {
    /// Takers that are known before they acknowledge anything.
    pub takers: Vec<TakerName>,
    /// Named takers of the API at most.
    pub max_takers: usize,
    /// Where results are posted.
    pub webhooks: Vec<Webhook>,
}

const NAME: &str = "1 to 64 of a-z, 0-9 and -";

pub(super) fn read(mut section: Section<'_>, webhooks: Vec<Webhook>) -> ResultsConfig {
    let max_takers = bytes(section.integer("max_takers", 1..=1024, 64));
    let mut takers = Vec::new();
    for text in section.texts("takers").unwrap_or_default() {
        match TakerName::parse(&text) {
            Some(name) => takers.push(name),
            None => section.fault("takers", format!("has \"{text}\", must be names: {NAME}")),
        }
    }
    if takers.len() > max_takers {
        let count = takers.len();
        section.fault("takers", format!("has {count}, must be at most results.max_takers"));
    }
    section.finish();
    ResultsConfig { takers, max_takers, webhooks }
}

pub(super) fn read_webhooks(sections: Vec<Section<'_>>) -> Vec<Webhook> {
    let mut names: Vec<TakerName> = Vec::new();
    let mut found = Vec::new();
    for mut section in sections {
        let name = section.required_text("name", "mes");
        let name = name.and_then(|text| match TakerName::parse(&text) {
            Some(name) if !names.contains(&name) => Some(name),
            _ => {
                section.fault("name", format!("is \"{text}\", must be unique and {NAME}"));
                None
            }
        });
        names.extend(name.clone());
        let webhook = read_webhook(&mut section, name);
        section.finish();
        found.extend(webhook);
    }
    found
}

fn read_webhook(section: &mut Section<'_>, name: Option<TakerName>) -> Option<Webhook> {
    let url = section.required_text("url", "https://mes.example/holdfast");
    let url = url.and_then(|url| match check_url(&url) {
        Ok(()) => Some(url),
        Err(want) => {
            section.fault("url", format!("must be {want}"));
            None
        }
    });
    let zone = section.required_text("zone", "site");
    let zone = zone.and_then(|text| {
        let zone: Option<Zone> = text.parse().ok();
        if zone.is_none() {
            let want = "must be one of device, site, private, public";
            section.fault("zone", format!("is \"{text}\", {want}"));
        }
        zone
    });
    let secret_file = section.required_text("secret_file", "/etc/holdfast/mes.secret");
    let mut tasks = Vec::new();
    for text in section.texts("tasks").unwrap_or_default() {
        match TaskName::parse(&text) {
            Some(task) => tasks.push(task),
            None => section.fault("tasks", format!("has \"{text}\", must be task names: {NAME}")),
        }
    }
    let timeout = Duration::from_millis(section.integer("timeout_ms", 10..=600_000, 10_000));
    let give_up = Duration::from_secs(section.integer("give_up_s", 1..=31_536_000, 3_600));
    let (name, zone) = (name?, zone?);
    let receiver = Receiver { name: name.to_string(), zone, address: Address::Url(url?) };
    let secret_file = PathBuf::from(secret_file?);
    Some(Webhook { name, receiver, secret_file, tasks, timeout, give_up })
}
