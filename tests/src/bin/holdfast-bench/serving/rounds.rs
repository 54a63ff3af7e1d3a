//! The rounds: who is measured, in which order, and what came of it.
//!
//! **Invariant:** a name has one figure for each round, in the order of the rounds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::agents::Kept;
use super::bare::Bare;
use super::load::{self, Figures, Until};
use super::models::{self, Models, jpeg};
use super::peers::{self, Peer, Python};
use super::processes::{hold, pin, pin_self, pss_mib};
use super::wire::Question;
use crate::machine::Others;

/// The client's core, the server's, and both.
const CLIENT: &str = "0";
const SERVER: &str = "1";
const BOTH: &str = "0,1";
/// Others may have this share of one core.
const OTHERS: f64 = 0.05;
/// A turn is taken so often at most; of noisy ones the quietest counts.
const TRIES: usize = 4;

/// How often and how long everybody has a turn.
pub(crate) struct Rounds {
    pub(crate) count: usize,
    pub(crate) time: Duration,
}

/// What came of all rounds.
#[derive(Default)]
pub(crate) struct Results {
    figures: BTreeMap<String, Vec<Figures>>,
    /// Of the servers, in MiB.
    pub(crate) memory: Vec<(&'static str, f64)>,
    /// Turns in which others used the machine all the same.
    pub(crate) noisy: f64,
}

/// One who has a turn in each round.
struct Turn<'a> {
    name: String,
    what: What<'a>,
}

enum What<'a> {
    /// So many processes that run a model at once; by their places.
    Bare {
        model: &'static str,
        places: &'a [usize],
    },
    Server {
        pid: u32,
        address: SocketAddr,
        question: Arc<Question>,
        callers: usize,
    },
}

impl Rounds {
    /// Measures everybody.
    pub(crate) async fn run(
        &self,
        kept: &Kept<'_>,
        models: &Models,
        python: Option<&Python>,
        library: &Path,
    ) -> anyhow::Result<Results> {
        let agent = kept.settled(models).await?;
        let mut peers = vec![peers::nothing(models)?];
        let mut bare = vec![peers::own(models, library)?];
        if let Some(python) = python {
            peers.push(python.fastapi("FastAPI", 1, models)?);
            peers.push(python.fastapi("FastAPI x 2", 2, models)?);
            peers.push(python.mlserver(&["tiny", "mobilenet-fp32"], models)?);
            peers.push(python.litserve("tiny", models)?);
            bare.push(python.bare(models)?);
            bare.push(python.bare(models)?);
        }
        for peer in &peers {
            peers::answering(peer, &question(peer, &models::all()[0])).await?;
        }
        let agent =
            Served { pid: agent.pid(), http: agent.api_address()?, grpc: agent.grpc_address()? };
        hold(agent.pid, true)?;
        let turns = turns(&agent, &peers, python.is_some(), models);
        let mut results = Results::default();
        for round in 0..self.count {
            for turn in &turns {
                let (figures, is_noisy) =
                    self.quiet(turn, &mut bare).await.with_context(|| turn.name.clone())?;
                results.noisy += f64::from(u8::from(is_noisy));
                results.figures.entry(turn.name.clone()).or_default().push(figures);
            }
            eprintln!("round {} of {}", round + 1, self.count);
        }
        for peer in peers.iter().filter(|peer| peer.name != "nothing") {
            results.memory.push((peer.name, pss_mib(peer.pid())?));
        }
        Ok(results)
    }

    /// One turn without others on the machine, if that can be had.
    async fn quiet(&self, turn: &Turn<'_>, bare: &mut [Bare]) -> anyhow::Result<(Figures, bool)> {
        let mut best: Option<(f64, Figures)> = None;
        for _ in 0..TRIES {
            let others = Others::look()?;
            let figures = self.take(&turn.what, bare).await?;
            let used = others.seconds()? / self.time.as_secs_f64();
            if used <= OTHERS {
                return Ok((figures, false));
            }
            if best.is_none_or(|(least, _)| used < least) {
                best = Some((used, figures));
            }
        }
        best.map(|(_, figures)| (figures, true)).context("no turn was taken")
    }

    async fn take(&self, what: &What<'_>, bare: &mut [Bare]) -> anyhow::Result<Figures> {
        match what {
            What::Bare { model, places } => {
                let cores = if places.len() == 1 { SERVER } else { BOTH };
                for place in *places {
                    let process = bare.get_mut(*place).context("no such process")?;
                    pin(process.pid(), cores)?;
                    process.begin(model, self.time)?;
                }
                let mut all: Option<Figures> = None;
                for place in *places {
                    let figures = bare.get_mut(*place).context("no such process")?.end()?;
                    let rate = figures.rate + all.map_or(0.0, |all| all.rate);
                    all = Some(Figures { rate, ..figures });
                }
                all.context("no process was asked")
            }
            What::Server { pid, address, question, callers } => {
                let (client, server) = if *callers == 1 { (CLIENT, SERVER) } else { (BOTH, BOTH) };
                pin(*pid, server)?;
                // Alone: what this program started goes where it was put.
                pin_self(client)?;
                hold(*pid, false)?;
                let asked = load::ask(*address, question, *callers, Until::Over(self.time)).await;
                hold(*pid, true)?;
                pin_self(BOTH)?;
                asked
            }
        }
    }
}

/// The agent, as it is asked.
struct Served {
    pid: u32,
    http: SocketAddr,
    grpc: SocketAddr,
}

/// How a peer is asked for a model.
fn question(peer: &Peer, model: &models::Model) -> Arc<Question> {
    match peer.name {
        "MLServer" => model.json().0,
        "LitServe" => model.lit(),
        _ => model.raw(),
    }
}

/// Everybody's turns, those that are compared one behind the other.
fn turns<'a>(agent: &Served, peers: &[Peer], has_python: bool, models: &Models) -> Vec<Turn<'a>> {
    let [tiny, fp32, int8] = &models::all();
    let mut turns = Vec::new();
    let mut add = |name: String, what| turns.push(Turn { name, what });
    let ask = |question: Arc<Question>, callers| What::Server {
        pid: agent.pid,
        address: agent.http,
        question,
        callers,
    };
    let grpc = |callers| What::Server {
        pid: agent.pid,
        address: agent.grpc,
        question: tiny.grpc(),
        callers,
    };
    let peer = |name: &str, question: Option<Arc<Question>>, model, callers| {
        let peer = peers.iter().find(|peer| peer.name == name)?;
        let question = question.unwrap_or_else(|| self::question(peer, model));
        Some(What::Server { pid: peer.pid(), address: peer.address, question, callers })
    };
    for model in [tiny, fp32, int8] {
        let name = model.name;
        if has_python {
            add(format!("{name}: bare"), What::Bare { model: name, places: &[1] });
        }
        add(format!("{name}: in process"), What::Bare { model: name, places: &[0] });
        add(format!("{name}: agent"), ask(model.binary(), 1));
        if name == tiny.name {
            add(format!("{name}: agent, gRPC"), grpc(1));
            add(format!("{name}: agent, JSON"), ask(model.json().0, 1));
            for other in ["nothing", "MLServer", "LitServe"] {
                if let Some(what) = peer(other, None, model, 1) {
                    add(format!("{name}: {other}"), what);
                }
            }
        }
        if let Some(what) = peer("FastAPI", None, model, 1) {
            add(format!("{name}: FastAPI"), what);
        }
    }
    add("JSON: agent".into(), ask(fp32.json().0, 1));
    if let Some(what) = peer("MLServer", None, fp32, 1) {
        add("JSON: MLServer".into(), what);
    }
    let task = format!("/v1/tasks/{}", fp32.name);
    add("JPEG: agent".into(), ask(jpeg(&task, &models.picture), 1));
    let picture = jpeg(&format!("/picture/{}", fp32.name), &models.picture);
    if let Some(what) = peer("FastAPI", Some(picture), fp32, 1) {
        add("JPEG: FastAPI".into(), what);
    }
    add("tiny x 16: agent".into(), ask(tiny.binary(), 16));
    add("tiny x 16: agent, gRPC".into(), grpc(16));
    for other in ["FastAPI x 2", "nothing", "MLServer", "LitServe"] {
        if let Some(what) = peer(other, None, tiny, 16) {
            add(format!("tiny x 16: {other}"), what);
        }
    }
    for model in [fp32, int8] {
        let name = model.name;
        if has_python {
            add(format!("{name} x 2: bare"), What::Bare { model: name, places: &[1, 2] });
        }
        for callers in [4, 16] {
            add(format!("{name} x {callers}: agent"), ask(model.binary(), callers));
            if let Some(what) = peer("FastAPI x 2", None, model, callers) {
                add(format!("{name} x {callers}: FastAPI x 2"), what);
            }
        }
    }
    turns
}

impl Results {
    /// The median of a figure; `None` for who had no turn.
    pub(crate) fn of(&self, name: &str, figure: fn(&Figures) -> f64) -> Option<f64> {
        median(self.figures.get(name)?.iter().map(figure).collect())
    }

    /// The median over the rounds of a figure over that of another.
    pub(crate) fn ratio(&self, name: &str, over: &str, figure: fn(&Figures) -> f64) -> Option<f64> {
        self.pairs(name, over, |a, b| figure(a) / figure(b))
    }

    /// The median over the rounds of a figure without that of another.
    pub(crate) fn difference(
        &self,
        name: &str,
        without: &str,
        figure: fn(&Figures) -> f64,
    ) -> Option<f64> {
        self.pairs(name, without, |a, b| figure(a) - figure(b))
    }

    fn pairs(&self, a: &str, b: &str, of: impl Fn(&Figures, &Figures) -> f64) -> Option<f64> {
        let pairs = self.figures.get(a)?.iter().zip(self.figures.get(b)?);
        median(pairs.map(|(a, b)| of(a, b)).collect())
    }
}

/// The middle one; of an even number, the lower of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied()
}
