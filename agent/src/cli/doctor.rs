//! Owns `holdfast-agent doctor`: what is wrong, or will be, with this device, and what to do about it.
//!
//! **Invariant:** it leaves nothing behind, and works whether or not the agent runs.

mod finding;
mod links;
mod receivers;
mod record;
mod storage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::finding::{Finding, Health, report};
use self::links::{of_fleet, of_network};
use self::receivers::{of_credential, of_destination, of_tasks, of_webhook};
use self::record::of_record;
use self::storage::{of_queue, of_state_dir};
use super::{ConfigArgs, Exit, Failure, Places};
use crate::access::Tokens;
use crate::api::Tls;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::engine::Engine;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_from_before_the_build_is_noticed() {
        assert_eq!(of_clock(0, true).health, Health::Warn);
        assert_eq!(of_clock(BUILT_AFTER_S + 1, false).health, Health::Warn);
        assert_eq!(of_clock(BUILT_AFTER_S + 1, true).health, Health::Fine);
    }
}
