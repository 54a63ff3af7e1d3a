//! The load: callers that each ask, read the answer to its end, and ask again.
//!
//! **Invariant:** the callers share one thread, and each has a connection of its own that is kept; an
//! answer with less in it than the provider gave is an error.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tokio::task::JoinSet;

use super::upstream::CHUNKS;
use super::wire::Caller;
use crate::clock::{now, stamp_ns};
use crate::report::quantile;

/// Not counted, at the begin of each measurement.
const WARM_UP: usize = 5;

/// What came of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Answers a second.
    pub(crate) rate: f64,
}

/// How long is asked, or how often.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Over(Duration),
    Asked(usize),
}

/// How much of a streamed answer must be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    /// An answer in one piece.
    Body,
    /// Every piece of a stream.
    Stream,
}

/// Asks with so many callers at once.
pub(crate) async fn ask(
    address: SocketAddr,
    request: &Arc<Vec<u8>>,
    callers: usize,
    until: Until,
    whole: Whole,
) -> anyhow::Result<Figures> {
    let mut ready = Vec::new();
    for _ in 0..callers {
        let mut caller = Caller::open(address).await?;
        for _ in 0..WARM_UP {
            one(&mut caller, request, whole).await?;
        }
        ready.push(caller);
    }
    let start = now();
    let mut asking = JoinSet::new();
    for mut caller in ready {
        let request = Arc::clone(request);
        asking.spawn(async move {
            let mut times = Vec::new();
            let mut begun = start;
            loop {
                let is_over = match until {
                    Until::Over(time) => begun - start >= time,
                    Until::Asked(all) => times.len() >= all.div_ceil(callers),
                };
                if is_over {
                    return anyhow::Ok(times);
                }
                one(&mut caller, &request, whole).await?;
                let end = now();
                times.push(end - begun);
                begun = end;
            }
        });
    }
    let mut times = Vec::new();
    while let Some(asked) = asking.join_next().await {
        times.extend(asked??);
    }
    let us = |share| quantile(&times, share).as_secs_f64() * 1e6;
    #[expect(clippy::cast_precision_loss, reason = "a count of some seconds")]
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    Ok(Figures { p50: us(0.5), p99: us(0.99), rate })
}

/// Follows so many streams at once, each to its end.
pub(crate) async fn at_once(
    address: SocketAddr,
    request: &Arc<Vec<u8>>,
    streams: usize,
) -> anyhow::Result<()> {
    let mut following = JoinSet::new();
    for _ in 0..streams {
        let request = Arc::clone(request);
        following.spawn(async move {
            one(&mut Caller::open(address).await?, &request, Whole::Stream).await
        });
    }
    while let Some(followed) = following.join_next().await {
        followed??;
    }
    Ok(())
}

async fn one(caller: &mut Caller, request: &[u8], whole: Whole) -> anyhow::Result<()> {
    let (mut bytes, mut tail) = (Vec::new(), 0);
    caller
        .ask(request, |piece| {
            tail = piece.len();
            bytes.extend_from_slice(piece);
        })
        .await?;
    let text = std::str::from_utf8(&bytes)?;
    match whole {
        Whole::Body => ensure!(text.contains("How can I help"), "not the answer: {text}"),
        Whole::Stream => {
            let pieces = text.matches("\"content\":").count();
            ensure!(pieces >= CHUNKS && tail > 0, "{pieces} of {CHUNKS} pieces came: {text}");
        }
    }
    Ok(())
}

/// What became of the pieces of paced streams on their way.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    /// From where the provider wrote a piece to where the caller had it.
    pub(crate) delays: Vec<Duration>,
    /// The same of the first piece of each stream alone.
    pub(crate) first: Vec<Duration>,
    /// Pieces that came together with the one before.
    pub(crate) merged: usize,
}

/// Follows paced streams, one after the other.
pub(crate) async fn follow(
    address: SocketAddr,
    request: &[u8],
    streams: usize,
) -> anyhow::Result<Paced> {
    let mut caller = Caller::open(address).await?;
    let mut paced = Paced::default();
    for number in 0..=streams {
        let mut seen = Paced::default();
        let mut text = String::new();
        let mut is_first = true;
        caller
            .ask(request, |piece| {
                let at = stamp_ns();
                text.push_str(&String::from_utf8_lossy(piece));
                let mut here = 0;
                // What is not whole yet waits for its end.
                while let Some(end) = text.find("\n\n") {
                    let event: String = text.drain(..end + 2).collect();
                    let Some(written) = stamp(&event) else { continue };
                    let delay = Duration::from_nanos(at.saturating_sub(written));
                    seen.delays.push(delay);
                    if std::mem::take(&mut is_first) {
                        seen.first.push(delay);
                    }
                    here += 1;
                }
                seen.merged += usize::from(here > 1) * (here.max(1) - 1);
            })
            .await?;
        let got = seen.delays.len();
        ensure!(got == CHUNKS, "{got} of {CHUNKS} pieces came");
        // The first stream warms everybody up.
        if number > 0 {
            paced.delays.extend(seen.delays);
            paced.first.extend(seen.first);
            paced.merged += seen.merged;
        }
    }
    Ok(paced)
}

/// When the provider wrote an event.
fn stamp(event: &str) -> Option<u64> {
    let (_, rest) = event.split_once("\"content\":\"")?;
    rest.split([' ', '"']).next()?.parse().ok()
}
