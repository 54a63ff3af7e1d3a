//! The agent as a gateway to a provider that answers at once, beside the provider itself, Portkey's gateway
//! and `LiteLLM`'s proxy, in one run.
//!
//! A relay that does nothing but sync a line for each request shows what this machine leaves to any of them.
//! They take turns in rounds, each at rest while another is measured; what is quoted are medians over the
//! rounds. The agent asks for a token, counts money against a budget, and clears each request by the policy.
//!
//! **Invariant:** every ratio and difference is of turns of the same round.

mod load;
pub(crate) mod relay;
mod servers;
pub(crate) mod upstream;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use self::load::{Figures, Paced, Until, Whole};
use self::servers::{Ask, Gateway, RELAY};
use crate::report::{Report, ms, quantile};
use crate::serving::processes::{hold, pin, pin_self, pss_mib};

/// The client's core, the servers', and both.
const CLIENT: &str = "0";
const SERVERS: &str = "1";
const BOTH: &str = "0,1";
/// Streams that are followed piece by piece, in each round.
const FOLLOWED: usize = 10;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The agent's binary
    #[arg(long)]
    agent: PathBuf,
    /// The folder with the other gateways
    #[arg(long, default_value = "target/bench/gateways")]
    peers: PathBuf,
    /// Rounds in which everybody has a turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Streams that are open at once
    #[arg(long, default_value_t = 1000)]
    streams: usize,
    /// Requests after which the memory is looked at again
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
}

/// Everybody's turns, by who and what.
#[derive(Default)]
struct Results {
    alone: BTreeMap<&'static str, Vec<Figures>>,
    many: BTreeMap<&'static str, Vec<Figures>>,
    streams: BTreeMap<&'static str, Vec<Figures>>,
    paced: BTreeMap<&'static str, Paced>,
}

pub(crate) fn measure(options: &Options, out: &Path) -> anyhow::Result<Report> {
    let mut report =
        Report::new("gateway", "Chat completions through the agent, beside other gateways");
    // Only an earlier call can make this fail, and that one did the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::fs::create_dir_all(out)?;
    let folder = tempfile::tempdir_in(out)?;
    let folder = folder.path().canonicalize()?;
    runtime.block_on(async {
        let provider = servers::provider(&folder)?;
        let upstream = provider.address;
        let (agent, own) = servers::agent(&options.agent, &folder, upstream).await?;
        let places = (options.peers.as_path(), folder.as_path());
        let others = [
            Some(servers::relay(&folder, upstream)?),
            servers::portkey(&options.peers, &folder, upstream)?,
            servers::litellm("LiteLLM", 1, places, upstream)?,
            servers::litellm("LiteLLM x 2", 2, places, upstream)?,
        ];
        let mut gateways = vec![provider, own];
        gateways.extend(others.into_iter().flatten());
        let (provider, own, rest) = split(&gateways)?;
        // The provider never rests: the others need it.
        for gateway in rest {
            gateway.settle().await.with_context(|| gateway.name)?;
        }
        let mut results = Results::default();
        for round in 0..options.rounds {
            for gateway in &gateways {
                let turn = turn(gateway, provider, options, &mut results);
                turn.await.with_context(|| gateway.name)?;
            }
            eprintln!("round {} of {}", round + 1, options.rounds);
        }
        let peers = rest.iter().filter(|peer| ![own.name, RELAY].contains(&peer.name));
        let memory: Vec<_> = peers.map(|peer| (peer.name, pss_mib(peer.pid))).collect();
        rows(&mut report, &results);
        for (name, mib) in memory {
            report.add(format!("{name}: memory (PSS)"), mib?, "MiB");
        }
        // The others are not needed any more.
        for peer in rest.iter().filter(|peer| peer.name != own.name) {
            hold(peer.pid, true)?;
        }
        endure(&mut report, own, options).await?;
        drop(agent);
        anyhow::Ok(())
    })?;
    Ok(report)
}

/// The provider, the agent, and everybody in front of the provider.
fn split(gateways: &[Gateway]) -> anyhow::Result<(&Gateway, &Gateway, &[Gateway])> {
    let (provider, rest) = gateways.split_first().context("no provider")?;
    Ok((provider, rest.first().context("no agent")?, rest))
}

async fn turn(
    gateway: &Gateway,
    provider: &Gateway,
    options: &Options,
    results: &mut Results,
) -> anyhow::Result<()> {
    let is_provider = gateway.pid == provider.pid;
    let time = Until::Over(Duration::from_secs_f64(options.seconds));
    let (now, stream) = (gateway.request(Ask::Now), gateway.request(Ask::Stream));
    if !is_provider {
        hold(gateway.pid, false)?;
    }
    for pid in [provider.pid, gateway.pid] {
        pin(pid, SERVERS)?;
    }
    pin_self(CLIENT)?;
    let alone = load::ask(gateway.address, &now, 1, time, Whole::Body).await?;
    let paced = load::follow(gateway.address, &gateway.request(Ask::Paced), FOLLOWED).await?;
    for pid in [provider.pid, gateway.pid] {
        pin(pid, BOTH)?;
    }
    pin_self(BOTH)?;
    let many = load::ask(gateway.address, &now, 64, time, Whole::Body).await?;
    let streams = load::ask(gateway.address, &stream, 64, time, Whole::Stream).await?;
    if !is_provider {
        hold(gateway.pid, true)?;
    }
    results.alone.entry(gateway.name).or_default().push(alone);
    results.many.entry(gateway.name).or_default().push(many);
    results.streams.entry(gateway.name).or_default().push(streams);
    let all = results.paced.entry(gateway.name).or_default();
    all.delays.extend(paced.delays);
    all.first.extend(paced.first);
    all.merged += paced.merged;
    Ok(())
}

fn rows(report: &mut Report, results: &Results) {
    let p50 = |figures: &Figures| figures.p50;
    let p99 = |figures: &Figures| figures.p99;
    let rate = |figures: &Figures| figures.rate;
    let own = "Holdfast";
    report.detail("1 caller, the provider itself: p50", of(&results.alone, "direct", p50), "us");
    let added = |name, of| pairs(&results.alone, name, "direct", of, |a, b| a - b);
    report.at_most("1 caller: added, p50", added(own, p50), "us", 200.0);
    report.at_most("1 caller: added, p99", added(own, p99), "us", 600.0);
    report.add("1 caller: added by a relay that syncs a line, p50", added(RELAY, p50), "us");
    for name in ["Portkey", "LiteLLM"] {
        report.add(format!("1 caller: added by {name}, p50"), added(name, p50), "us");
        report.add(format!("1 caller: added by {name}, p99"), added(name, p99), "us");
    }
    report.detail("64 callers, the provider itself", of(&results.many, "direct", rate), "/s");
    report.add("64 callers", of(&results.many, own, rate), "/s");
    let slowest = of(&results.many, own, p99).map(|us| us / 1000.0);
    report.at_most("64 callers: p99", slowest, "ms", 15.0);
    report.add("64 callers: a relay that syncs a line", of(&results.many, RELAY, rate), "/s");
    for (name, bar) in [("Portkey", 10.0), ("LiteLLM x 2", 40.0)] {
        report.add(format!("64 callers: {name}"), of(&results.many, name, rate), "/s");
        let ratio = pairs(&results.many, own, name, rate, |a, b| a / b);
        report.at_least(format!("64 callers: the agent / {name}"), ratio, "x", bar);
    }
    report.add("64 callers, streams of 20 pieces", of(&results.streams, own, rate), "/s");
    let relayed = of(&results.streams, RELAY, rate);
    report.add("64 callers, streams: a relay that syncs a line", relayed, "/s");
    let ratio = pairs(&results.streams, own, "Portkey", rate, |a, b| a / b);
    report.at_least("64 callers, streams: the agent / Portkey", ratio, "x", 8.0);
    let direct = results.paced.get("direct");
    let delay = |name: &str, share| {
        let (own, direct) = results.paced.get(name).zip(direct)?;
        let added = ms(quantile(&own.delays, share)) - ms(quantile(&direct.delays, share));
        Some(added)
    };
    report.add("a piece of a stream is held, p50", delay(own, 0.5), "ms");
    report.at_most("a piece of a stream is held, p99", delay(own, 0.99), "ms", 0.3);
    #[expect(clippy::cast_precision_loss, reason = "some hundreds")]
    let merged = |name: &str| results.paced.get(name).map(|paced| paced.merged as f64);
    report.at_most("pieces that came merged", merged(own), "", 0.0);
    for name in ["Portkey", "LiteLLM"] {
        let first = results.paced.get(name).map(|paced| ms(quantile(&paced.first, 0.5)));
        report.add(format!("{name}: the first piece is held, p50"), first, "ms");
        report.detail(format!("{name}: pieces that came merged"), merged(name), "");
    }
}

/// What the agent takes with many streams open, and after many requests.
async fn endure(report: &mut Report, own: &Gateway, options: &Options) -> anyhow::Result<()> {
    hold(own.pid, false)?;
    load::ask(own.address, &own.request(Ask::Now), 64, Until::Asked(5000), Whole::Body).await?;
    let before = pss_mib(own.pid)?;
    report.add("Holdfast: memory (PSS)", before, "MiB");
    let now = own.request(Ask::Now);
    load::ask(own.address, &now, 64, Until::Asked(options.requests), Whole::Body).await?;
    let more = pss_mib(own.pid)? - before;
    let what = format!("memory more after {} requests", options.requests);
    report.at_most(what, more, "MiB", 5.0);
    let paced = own.request(Ask::Paced);
    let (open, address) = (options.streams, own.address);
    let streaming = load::at_once(address, &paced, open);
    let mut most: f64 = 0.0;
    let watching = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            most = most.max(pss_mib(own.pid).unwrap_or_default());
        }
    };
    tokio::select! {
        done = streaming => drop(done?),
        () = watching => {}
    }
    let what = format!("memory with {open} streams open (PSS)");
    report.at_most(what, most, "MiB", 100.0);
    Ok(())
}

type Turns = BTreeMap<&'static str, Vec<Figures>>;

/// The median of a figure; `None` for who had no turn.
fn of(turns: &Turns, name: &str, figure: fn(&Figures) -> f64) -> Option<f64> {
    median(turns.get(name)?.iter().map(figure).collect())
}

/// The median over the rounds of what two figures make.
fn pairs(
    turns: &Turns,
    a: &str,
    b: &str,
    figure: fn(&Figures) -> f64,
    both: fn(f64, f64) -> f64,
) -> Option<f64> {
    let pairs = turns.get(a)?.iter().zip(turns.get(b)?);
    median(pairs.map(|(a, b)| both(figure(a), figure(b))).collect())
}

/// The middle one; of an even number, the lower of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
