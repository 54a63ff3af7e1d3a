//! The load: callers that each ask, wait for the answer, and ask again.
//!
//! **Invariant:** the callers share one thread, and each has a connection of its own that is kept.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::wire::{Connection, Question};
use crate::clock::now;
use crate::report::quantile;

/// Not counted, at the begin of each measurement.
const WARM_UP: usize = 10;

/// What came of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Requests a second.
    pub(crate) rate: f64,
}

impl Figures {
    /// Of so many times, which took so long together.
    pub(crate) fn of(times: &[Duration], all: Duration) -> Self {
        let us = |share| quantile(times, share).as_secs_f64() * 1e6;
        #[expect(clippy::cast_precision_loss, reason = "a count of some seconds")]
        let rate = times.len() as f64 / all.as_secs_f64();
        Self { p50: us(0.5), p99: us(0.99), rate }
    }
}

/// How long is asked, or how often.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Over(Duration),
    Asked(usize),
}

impl Until {
    /// Whether one of the callers asked for long, or often, enough.
    fn is_over(self, asked_for: Duration, asked: usize, callers: usize) -> bool {
        match self {
            Self::Over(time) => asked_for >= time,
            Self::Asked(all) => asked >= all.div_ceil(callers),
        }
    }
}

/// Asks with so many callers at once.
pub(crate) async fn ask(
    address: SocketAddr,
    question: &Arc<Question>,
    callers: usize,
    until: Until,
) -> anyhow::Result<Figures> {
    let mut connections = Vec::new();
    for _ in 0..callers {
        let mut connection = Connection::open(address, question).await?;
        for _ in 0..WARM_UP {
            connection.ask(question).await?;
        }
        connections.push(connection);
    }
    let start = now();
    let mut asking = JoinSet::new();
    for mut connection in connections {
        let question = Arc::clone(question);
        asking.spawn(async move {
            let mut times = Vec::new();
            let mut begun = start;
            while !until.is_over(begun - start, times.len(), callers) {
                connection.ask(&question).await?;
                let end = now();
                times.push(end - begun);
                begun = end;
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(asked) = asking.join_next().await {
        times.extend(asked??);
    }
    Ok(Figures::of(&times, start.elapsed()))
}
