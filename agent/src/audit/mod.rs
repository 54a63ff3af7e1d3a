//! Owns the record of what left the device: what was sent, why it was allowed, where it went, what it cost.
//!
//! A file of lines under `audit/` in the state folder, one JSON object each, and a new file when one is
//! full. Before a request goes out its line is on disk; a second line says how that ended. No line has a
//! byte of what was asked or answered.
//!
//! Each line ends with a seal, the SHA-256 of the line before it and of its own text, so that a line that is
//! changed, taken out or put in shows (`holdfast-agent audit verify`). Who can write the file can also seal
//! it anew from there on: whoever wants to notice that too notes the last seal somewhere else.
//!
//! **Invariant:** where a record is required nothing is sent without its line on disk; where it is not, a
//! disk that takes no line stops no request, and what is missing is counted.

mod chain;
mod event;
mod reader;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

pub use self::chain::Seal;
pub use self::event::{Ended, Entry, Event, Sent};
pub use self::reader::{Break, Chain, read};
use self::writer::{Command, Writer};
use crate::clock::{self, Clock};
use crate::queue::RequestId;

/// Lines that wait for the disk at most; whoever comes then waits for a place.
const WAITING: usize = 1024;
/// Whoever sends waits so long for the disk to take its line.
const WITHIN: Duration = Duration::from_secs(5);

/// How the record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditConfig {
    /// Bytes on disk at most; the oldest file goes when there are more. 0 keeps no record.
    pub max_bytes: u64,
    /// Whether what cannot be recorded is not sent.
    pub required: bool,
}

/// The record, or none; clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    lines: mpsc::Sender<Command>,
    clock: Clock,
    required: bool,
}

/// A send under way. Dropped without its end, its caller left it.
#[derive(Debug)]
pub struct Sending {
    audit: Audit,
    under_way: Option<(RequestId, String)>,
    began: Instant,
}

/// A line that was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unwritten(pub String);

/// Where the record of a state folder is.
pub fn folder(state_dir: &Path) -> PathBuf {
    state_dir.join("audit")
}

impl Audit {
    /// Goes on with the record of a state folder, in a thread of its own; opens nothing before the first line.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn open(state_dir: &Path, config: AuditConfig, clock: Clock) -> io::Result<Self> {
        if config.max_bytes == 0 {
            return Ok(Self(None));
        }
        let (lines, waiting) = mpsc::channel(WAITING);
        let writer = Writer::new(folder(state_dir), config.max_bytes);
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || writer.run(waiting))?;
        Ok(Self(Some(Arc::new(Inner { lines, clock, required: config.required }))))
    }

    /// Puts a send on record; when this returns without an error it may go, and is under way until what is
    /// returned says how it ended.
    ///
    /// # Errors
    /// Where a record is required, and its line is not on disk.
    pub async fn sent(&self, sent: Sent) -> Result<Sending, Unwritten> {
        let (request, destination) = (sent.request, sent.destination.clone());
        if let Some(inner) = &self.0 {
            inner.sent(sent).await?;
        }
        let under_way = Some((request, destination));
        Ok(Sending { audit: self.clone(), under_way, began: Instant::now() })
    }
}

impl Inner {
    async fn sent(&self, sent: Sent) -> Result<(), Unwritten> {
        let (done, written) = oneshot::channel();
        let line = Command { entry: self.entry(Event::Sent(sent)), done: Some(done) };
        let on_disk = async {
            let gone = || Unwritten("nobody writes it".to_owned());
            self.lines.send(line).await.map_err(|_| gone())?;
            written.await.map_err(|_| gone())?
        };
        let late = || Err(Unwritten(format!("the disk does not take it within {WITHIN:?}")));
        let outcome = tokio::time::timeout(WITHIN, on_disk).await.unwrap_or_else(|_| late());
        // Whoever writes has counted and told it.
        outcome.or_else(|error| if self.required { Err(error) } else { Ok(()) })
    }

    /// Behind its caller.
    fn ended(&self, ended: Ended) {
        let line = Command { entry: self.entry(Event::Ended(ended)), done: None };
        if self.lines.try_send(line).is_err() {
            writer::count_unwritten(1);
        }
    }

    fn entry(&self, event: Event) -> Entry {
        let (date, date_is_trusted) = (clock::date_stamp(), clock::date_is_trusted());
        Entry { number: 0, at_ms: self.clock.now_ms(), date, date_is_trusted, event }
    }
}

impl Sending {
    /// Puts its end on record: a word for how it ended, tokens of question and answer, and what it cost in
    /// millionths of the operator's currency.
    pub fn ended(mut self, outcome: &str, tokens: (u64, u64), cost_micros: u64) {
        self.end(outcome, tokens, cost_micros);
    }

    fn end(&mut self, outcome: &str, (tokens_in, tokens_out): (u64, u64), cost_micros: u64) {
        let Some((request, destination)) = self.under_way.take() else { return };
        let Some(inner) = &self.audit.0 else { return };
        let took_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = outcome.to_owned();
        inner.ended(Ended {
            request,
            destination,
            outcome,
            tokens_in,
            tokens_out,
            cost_micros,
            took_ms,
        });
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.end("left", (0, 0), 0);
    }
}

#[cfg(test)]
mod tests;
