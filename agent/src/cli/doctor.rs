//! `holdfast-agent doctor`

mod record;
mod storage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use self::record::of_record;
use self::storage::{of_queue, of_state_dir};
use super::nearest::nearest;
use super::{ConfigArgs, Exit, Failure, Places, output, running};
use crate::access::Tokens;
use crate::api::Tls;
use crate::audit::Audit;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::destination::{Credential, Destination};
use crate::engine::Engine;
use crate::escalate::{CredentialError, Hook, Method, ProbeError, credential_fault};
use crate::network::Network;
use crate::request::TaskName;
use crate::results::receiver::Webhook;
use crate::tune::Tuning;
use crate::tune::library::OnnxRuntimeConfig;
use crate::tune::probe::{Looked, Program};

#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Fine,
    Warn,
    Fault,
}

/// One check.
#[derive(Debug, Serialize)]
struct Finding {
    check: String,
    health: Health,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn fine(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), health: Health::Fine, found: found.into(), advice: None }
    }

    fn warn(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { check: check.into(), health: Health::Warn, found: found.into(), advice }
    }

    fn fault(
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { health: Health::Fault, ..Self::warn(check, found, advice) }
    }
}

/// Seconds since 1970 of 2026-01-01: no clock that is right is before it.
const BUILT_AFTER_S: u64 = 1_767_225_600;
/// The limit for each attempt to reach something.
const REACH_WITHIN: Duration = Duration::from_secs(3);

pub(super) fn doctor(args: &DoctorArgs, program: Option<Program>) -> Result<Exit, Failure> {
    let mut findings = Vec::new();
    match args.config.load() {
        Ok(config) => {
            let origin = args.config.config.as_ref().map(|path| path.display().to_string());
            findings.push(Finding::fine(
                "configuration",
                origin.unwrap_or_else(|| "all defaults".into()),
            ));
            let runtime = super::runtime()?;
            runtime.block_on(examine(&config, program, &mut findings));
        }
        Err(error) => findings.extend(of_configuration(&error)),
    }
    findings.push(of_clock(clock::date_ms() / 1000, clock::date_is_trusted()));
    report(&findings, args.json)?;
    let faulty = findings.iter().any(|finding| finding.health == Health::Fault);
    Ok(if faulty { Exit::Found } else { Exit::Fine })
}

async fn examine(config: &Config, program: Option<Program>, findings: &mut Vec<Finding>) {
    let looking = Tuning::open(program, &config.state_dir);
    findings.push(of_onnxruntime(&looking, config).await);
    // What is looked at is not measured.
    let tuning = Arc::new(Tuning::open(None, &config.state_dir));
    let engine = Engine::start(&config.models, &tuning).await;
    of_bundles(&engine, config, findings);
    findings.push(of_state_dir(&config.state_dir, &config.queue));
    findings.push(of_queue(config).await);
    findings.extend(of_callers(config));
    findings.push(of_record(config));
    let bundled: Vec<_> = engine.lanes().iter().map(|lane| lane.task().clone()).collect();
    for destination in &config.destinations {
        findings.push(of_destination(destination).await);
        findings.extend(of_credential(destination).await);
        findings.extend(of_tasks(destination, &bundled, &config.destinations));
    }
    if config.destinations.is_empty() {
        let found = "none: every local answer is final, however unsure";
        findings.push(Finding::fine("destinations", found));
    }
    for webhook in &config.results.webhooks {
        findings.push(of_webhook(webhook).await);
    }
    findings.push(of_network(config).await);
    findings.push(of_fleet(config).await);
    findings.extend(of_key(&config.state_dir.join("device.key")));
}

async fn of_onnxruntime(tuning: &Tuning, config: &Config) -> Finding {
    let check = "onnxruntime";
    if config.models.onnxruntime == OnnxRuntimeConfig::Off {
        return Finding::fine(check, "off: models run on tract");
    }
    let broken = |why: String| {
        let advice = "models run on tract meanwhile; put a whole library of this machine there";
        Finding::warn(check, why, advice)
    };
    match tuning.look(&config.models).await {
        Ok(Looked::Found(found)) => {
            let version = found.version.as_deref().unwrap_or("of an unknown version");
            let runtimes = found.runtimes.join(", ");
            let by = match &config.models.onnxruntime {
                OnnxRuntimeConfig::Installed(_) => ", put in place by `runtime install`",
                _ => "",
            };
            Finding::fine(check, format!("{version}, {} ({runtimes}){by}", found.path.display()))
        }
        Ok(Looked::Absent) => {
            let found =
                "not there: models run on tract; `runtime install` says what fits this board";
            Finding::fine(check, found)
        }
        Ok(Looked::Broken(why)) | Err(why) => broken(why),
    }
}

/// Nothing is posted: that would be a result.
async fn of_webhook(webhook: &Webhook) -> Finding {
    let check = format!("webhook {}", webhook.name);
    let fault = match Hook::new(webhook, Audit::default(), &Network::default()) {
        Ok(hook) => hook.secret_fault().await,
        Err(error) => Some(crate::error_chain(&error)),
    };
    match fault {
        None => {
            Finding::fine(check, format!("its secret is there; zone {}", webhook.receiver.zone))
        }
        Some(fault) => {
            let advice = "no results are sent to it until its url and secret_file can be used";
            Finding::fault(check, fault, advice)
        }
    }
}

fn of_configuration(error: &ConfigError) -> Vec<Finding> {
    match error {
        ConfigError::Faults { faults, .. } => faults
            .iter()
            .map(|fault| {
                let advice = "correct this key; no key is used until all are right";
                Finding::fault(format!("configuration {}", fault.key), &*fault.what, advice)
            })
            .collect(),
        other => {
            let advice = "give a readable TOML file with --config";
            vec![Finding::fault("configuration", crate::error_chain(other), advice)]
        }
    }
}

fn of_bundles(engine: &Engine, config: &Config, findings: &mut Vec<Finding>) {
    for lane in engine.lanes() {
        let (kind, labels) = (lane.bundle().decoder().kind(), lane.labels().len());
        let what = match kind {
            "classification" => format!("{labels} classes"),
            _ if labels > 0 => format!("{kind} of {labels}"),
            _ => kind.to_owned(),
        };
        let (model, workers) = (lane.model(), lane.workers());
        let found = format!("{model}, {what}, golden outputs agree, up to {workers} at once");
        findings.push(Finding::fine(format!("task {}", lane.task()), found));
    }
    for refused in engine.refused() {
        let check = format!("bundle {}", refused.path.display());
        if refused.is_spare {
            findings.push(Finding::fine(check, format!("not needed: {}", refused.why)));
            continue;
        }
        findings.push(Finding::fault(check, &*refused.why, "replace the bundle by an intact one"));
    }
    for unmet in engine.unmet() {
        let (check, found) = unmet.split_once(": ").unwrap_or(("models", &unmet));
        let advice = "correct this key, or bring what it names to this device";
        findings.push(Finding::warn(check, found, advice));
    }
    if engine.lanes().is_empty() {
        let found = format!("no bundle in service; looked in {}", Places(&config.models.bundles));
        let advice = "set models.bundles to folders that hold bundles";
        findings.push(Finding::fault("bundles", found, advice));
    }
}

/// What the running agent says of its links, or what the machine says of the way out.
async fn of_network(config: &Config) -> Finding {
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

/// Who can call the API, and how.
fn of_callers(config: &Config) -> Vec<Finding> {
    let tls = config.api.tls.as_ref().map(|tls| match Tls::read(tls, REACH_WITHIN) {
        Ok(_) => Finding::fine("api.tls", "certificate and key fit each other"),
        Err(error) => {
            let advice =
                "correct the file: an agent that runs keeps what it read before, and none starts";
            Finding::fault("api.tls", crate::error_chain(&error), advice)
        }
    });
    let tokens = match Tokens::read(&config.state_dir) {
        Err(error) => {
            let advice = "until it can be read nobody who must show a token is let in";
            Finding::fault("tokens", crate::error_chain(&error), advice)
        }
        Ok(_) if !config.api.require_token => {
            Finding::fine("tokens", "not required: who reaches the API may call")
        }
        Ok(tokens) => match tokens.iter().count() {
            0 => {
                let found = "required, and there is none: only the command line may call";
                Finding::warn("tokens", found, "make one with `holdfast-agent token add NAME`")
            }
            count => Finding::fine("tokens", format!("required, and there are {count}")),
        },
    };
    tls.into_iter().chain([tokens]).collect()
}

async fn of_destination(destination: &Destination) -> Finding {
    let check = format!("destination {}", destination.name);
    match crate::escalate::probe(destination, REACH_WITHIN).await {
        Ok(()) => Finding::fine(check, format!("{} answers", destination.url)),
        Err(error @ ProbeError::Portal { .. }) => {
            let advice =
                "sign in to that network, or check the URL; until then its requests are held";
            Finding::warn(check, crate::error_chain(&error), advice)
        }
        Err(error @ ProbeError::Configured(_)) => {
            let advice = "correct its section: the agent does not start with it";
            Finding::fault(check, crate::error_chain(&error), advice)
        }
        Err(error) => {
            let advice =
                "requests for it are held until it answers; check its URL, and that it runs";
            Finding::warn(check, crate::error_chain(&error), advice)
        }
    }
}

/// A credential that cannot be read. What the environment holds here says little of the agent's.
async fn of_credential(destination: &Destination) -> Option<Finding> {
    let fault = credential_fault(destination).await?;
    let check = format!("destination {}, credential", destination.name);
    let found = crate::error_chain(&fault);
    Some(match (&destination.credential, &fault) {
        (Some(Credential::Systemd(name)), CredentialError::Variable { .. }) => {
            let found = format!("{name}, which systemd gives to the agent's service alone");
            Finding::fine(check, found)
        }
        (Some(Credential::Env(_)), _) => {
            let advice = "nothing goes to it without; the agent's environment may be another than \
                          this one, its log says at its start what is missing";
            Finding::warn(check, found, advice)
        }
        _ => Finding::fault(check, found, "nothing goes to it until it can be read"),
    })
}

/// The tasks that one destination names and nothing else here does: they may be its own, or mistyped.
fn of_tasks(destination: &Destination, bundled: &[TaskName], all: &[Destination]) -> Vec<Finding> {
    let others = all.iter().filter(|other| other.name != destination.name);
    let known: Vec<&TaskName> = bundled.iter().chain(others.flat_map(|each| &each.tasks)).collect();
    let own = destination.tasks.iter().filter(|task| !known.contains(task));
    own.map(|task| {
        let check = format!("destination {}, task {task}", destination.name);
        let found = "no bundle here and no other destination does it";
        match nearest(task.as_str(), known.iter().map(|known| known.as_str())) {
            Some(meant) => {
                let advice =
                    format!("if {meant} is meant, correct its tasks: nobody sends it that");
                Finding::warn(check, format!("{found}; is {meant} meant?"), advice)
            }
            None => Finding::fine(check, found),
        }
    })
    .collect()
}

/// The device's key, once there is one.
fn of_key(path: &Path) -> Option<Finding> {
    let metadata = std::fs::metadata(path).ok()?;
    let check = format!("key {}", path.display());
    if metadata.len() == 32 {
        return Some(Finding::fine(check, "there"));
    }
    let advice =
        "restore it, or remove it for a new one, which the controller takes for another device";
    Some(Finding::fault(check, format!("has {} bytes instead of 32", metadata.len()), advice))
}

async fn of_fleet(config: &Config) -> Finding {
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

fn of_clock(date_s: u64, trusted: bool) -> Finding {
    if date_s < BUILT_AFTER_S {
        let found = format!("{date_s} s since 1970, which is before this agent was built");
        return Finding::warn("clock", found, "set the date, or let NTP or chrony set it");
    }
    let date = i64::try_from(date_s).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    let date = date.map(|date| date.to_string()).unwrap_or_default();
    if trusted {
        return Finding::fine("clock", format!("{date}, kept by NTP"));
    }
    let found = format!("{date}, kept by nobody: time that the machine is off does not count");
    let advice = "let NTP or chrony keep the date, or count times to live in powered-on time";
    Finding::warn("clock", found, advice)
}

fn report(findings: &[Finding], json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json(&findings);
    }
    for (at, finding) in findings.iter().enumerate() {
        let mark = match finding.health {
            Health::Fine => "ok   ",
            Health::Warn => "warn ",
            Health::Fault => "FAULT",
        };
        output::print(&format!("{mark}  {}: {}", finding.check, finding.found))?;
        // Advice for several findings in a row stands behind the last.
        let next = findings.get(at + 1).and_then(|next| next.advice.as_ref());
        if let Some(advice) = finding.advice.as_ref().filter(|advice| next != Some(advice)) {
            output::print(&format!("       → {advice}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_from_before_the_build_is_noticed() {
        assert_eq!(of_clock(0, true).health, Health::Warn);
        assert_eq!(of_clock(BUILT_AFTER_S + 1, false).health, Health::Warn);
        assert_eq!(of_clock(BUILT_AFTER_S + 1, true).health, Health::Fine);
    }

    #[tokio::test]
    async fn a_credential_that_is_not_there_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("there");
        std::fs::write(&there, "sk-1\n").unwrap();
        let (there, missing) = (there.display(), dir.path().join("missing"));
        for (credential, want) in [
            (String::new(), None),
            (format!("api_key_file = \"{there}\""), None),
            (
                format!("api_key_file = \"{}\"", missing.display()),
                Some((Health::Fault, "missing cannot be read")),
            ),
            (
                "api_key_env = \"NOT_THERE_XYZ\"".to_owned(),
                Some((
                    Health::Warn,
                    "environment variable NOT_THERE_XYZ does not hold a credential",
                )),
            ),
        ] {
            let toml = format!(
                "[[destination]]\nname = \"x\"\nzone = \"site\"\nprotocol = \"openai\"\n\
                 model = \"m\"\nurl = \"http://127.0.0.1:1\"\n{credential}\n"
            );
            let config = Config::parse("test.toml", &toml, std::iter::empty()).unwrap();
            let found = of_credential(&config.destinations[0]).await;
            let found = found.map(|found| (found.health, found.found));
            match (&found, want) {
                (None, None) => {}
                (Some((health, text)), Some((want, words))) if *health == want => {
                    assert!(text.contains(words), "{text}");
                }
                _ => panic!("{credential}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_task_that_may_be_mistyped_is_noticed() {
        let toml = r#"
            [[destination]]
            name = "site"
            zone = "site"
            url = "http://127.0.0.1:1"
            tasks = ["voice-commands", "voise-commands", "weld-seams", "part-inspction"]
            [[destination]]
            name = "other"
            zone = "site"
            url = "http://127.0.0.1:2"
            tasks = ["part-inspection", "voice-commands"]
        "#;
        let config = Config::parse("test.toml", toml, std::iter::empty()).unwrap();
        let bundled = [TaskName::parse("voice-commands").unwrap()];
        let found = of_tasks(&config.destinations[0], &bundled, &config.destinations);
        let told: Vec<_> = found.iter().map(|found| (found.health, &*found.found)).collect();
        let nobody = "no bundle here and no other destination does it";
        assert_eq!(
            told,
            [
                (Health::Warn, &*format!("{nobody}; is voice-commands meant?")),
                (Health::Fine, nobody),
                (Health::Warn, &*format!("{nobody}; is part-inspection meant?")),
            ]
        );
        assert!(found[0].check.contains("site") && found[0].check.contains("voise-commands"));
        let other = of_tasks(&config.destinations[1], &bundled, &config.destinations);
        assert!(other.iter().all(|found| found.health == Health::Warn), "the good one of the two");
    }
}
