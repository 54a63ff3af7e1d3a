//! Owns the record of what left the device: what was sent, why it was allowed, where it went, what it cost.
//!
//! A file of lines under `audit/` in the state folder, one JSON object each, and a new file when one is
//! full. A request's line is on disk before it goes out where a record is required, and otherwise before
//! anybody hears of its answer: the disk takes it while the destination thinks. A second line says how that
//! ended. No line has a byte of what was asked or answered.
//!
//! Each line ends with a seal, the SHA-256 of the line before it and of its own text, so that a line that is
//! changed, or taken out or put in between others, shows (`holdfast-agent audit verify`). Who can write the
//! file can also seal it anew from there on, or cut off its end: whoever wants to notice that too notes the
//! last seal somewhere else.
//!
//! **Invariant:** where a record is required nothing is sent without its line on disk; where it is not,
//! nothing is sent before its line is on the way there, a disk that takes no line stops no request, and what
//! is missing is counted.

mod chain;
mod event;
mod later;
mod reader;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::chain::Seal;
pub use self::event::{Ended, Entry, Event, Sent};
use self::later::{Later, Put};
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
    /// How sends ended.
    later: Arc<Later>,
    clock: Clock,
    required: bool,
    /// Somebody waited in vain, and the disk took nothing since.
    is_stuck: Arc<AtomicBool>,
}

/// A send under way. Dropped without its end, its caller left it.
#[derive(Debug)]
pub struct Sending {
    audit: Audit,
    under_way: Option<(RequestId, String)>,
    most_micros: u64,
    is_out: bool,
    began: Instant,
    /// Its line, while the disk has not got it.
    coming: Option<Coming>,
}

/// A line on its way to the disk.
#[derive(Debug)]
struct Coming {
    written: oneshot::Receiver<Result<(), Unwritten>>,
    until: Instant,
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
        let (is_stuck, later) = (Arc::<AtomicBool>::default(), Arc::<Later>::default());
        let writer = Writer::new(folder(state_dir), config.max_bytes, Arc::clone(&is_stuck));
        // Whatever the others do, its disk may hang.
        let own = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let writing = writer.run(waiting, Arc::clone(&later));
        let thread = std::thread::Builder::new().name("audit".to_owned());
        thread.spawn(move || own.block_on(writing))?;
        let required = config.required;
        Ok(Self(Some(Arc::new(Inner { lines, later, clock, required, is_stuck }))))
    }

    /// Puts a send on record; when this returns without an error it may go, and is under way until what is
    /// returned says how it ended. Nobody may hear of its answer before
    /// [`Sending::on_disk`] is over.
    ///
    /// # Errors
    /// Where a record is required, and its line is not on disk.
    pub async fn sent(&self, sent: Sent) -> Result<Sending, Unwritten> {
        let mut sending = Sending {
            audit: self.clone(),
            under_way: Some((sent.request, sent.destination.clone())),
            most_micros: sent.most_micros,
            is_out: false,
            began: Instant::now(),
            coming: None,
        };
        if let Some(inner) = &self.0 {
            // Whoever is not heard out leaves a line that says so.
            sending.coming = inner.sent(sent).await?;
        }
        Ok(sending)
    }

    /// Waits until what was put on record is on disk, as long as that takes no longer than a send waits.
    pub async fn flush(&self) {
        let Some(inner) = &self.0 else { return };
        let (done, written) = oneshot::channel();
        let flush = async {
            if inner.lines.send(Command { entry: None, done: Some(done) }).await.is_ok() {
                // What was not written is told already.
                drop(written.await);
            }
        };
        drop(timeout(WITHIN, flush).await);
    }
}

impl Inner {
    /// Hands a line over; returns it while it is on its way, and none where there is nothing to wait for.
    async fn sent(&self, sent: Sent) -> Result<Option<Coming>, Unwritten> {
        let (done, written) = oneshot::channel();
        let line = Command { entry: Some(self.entry(Event::Sent(sent))), done: Some(done) };
        if self.is_stuck.load(Ordering::Relaxed) && !self.required {
            // Nobody waits twice for a disk that hangs.
            self.put(line);
            return Ok(None);
        }
        let until = Instant::now() + WITHIN;
        let handed_over = match timeout_at(until, self.lines.reserve()).await {
            Ok(Ok(place)) => {
                place.send(line);
                Ok(Coming { written, until })
            }
            Ok(Err(_)) => {
                writer::count_unwritten(1);
                Err(nobody())
            }
            Err(_) => {
                writer::count_unwritten(1);
                Err(self.late())
            }
        };
        match handed_over {
            Ok(coming) if self.required => self.arrived(coming).await.map(|()| None),
            Ok(coming) => Ok(Some(coming)),
            Err(error) if self.required => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Waits until the disk has the line.
    async fn arrived(&self, Coming { written, until }: Coming) -> Result<(), Unwritten> {
        match timeout_at(until, written).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(nobody()),
            Err(_) => Err(self.late()),
        }
    }

    fn late(&self) -> Unwritten {
        if !self.is_stuck.swap(true, Ordering::Relaxed) {
            tracing::error!(within = ?WITHIN, "the disk takes no line of what leaves the device");
        }
        Unwritten(format!("the disk does not take it within {WITHIN:?}"))
    }

    /// Behind its caller.
    fn put(&self, line: Command) {
        if self.lines.try_send(line).is_err() {
            writer::count_unwritten(1);
        }
    }

    /// Behind its caller, and not at once.
    fn put_later(&self, line: Entry) {
        match self.later.put(line) {
            // Where there is no room the writer has something to do, and looks there too.
            Put::First => drop(self.lines.try_send(Command::default())),
            Put::Another => {}
            Put::TooMany => writer::count_unwritten(1),
        }
    }

    fn entry(&self, event: Event) -> Entry {
        let (date, date_is_trusted) = (clock::date_stamp(), clock::date_is_trusted());
        Entry { number: 0, at_ms: self.clock.now_ms(), date, date_is_trusted, event }
    }
}

impl Sending {
    /// It goes out now; before, nothing of it did.
    pub fn goes_out(&mut self) {
        self.is_out = true;
    }

    /// To wait for until its line is on disk, as long as a send waits for that. Done already where it had to
    /// be there before it went out; where the disk does not take it the operator is told, and nobody else.
    pub fn on_disk(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let (coming, audit) = (self.coming.take(), self.audit.clone());
        async move {
            if let (Some(coming), Some(inner)) = (coming, &audit.0) {
                // Were a record required, it would not be out.
                drop(inner.arrived(coming).await);
            }
        }
    }

    /// What it may cost at most, in millionths of the operator's currency.
    pub fn most_micros(&self) -> u64 {
        self.most_micros
    }

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
        let ended =
            Ended { request, destination, outcome, tokens_in, tokens_out, cost_micros, took_ms };
        inner.put_later(inner.entry(Event::Ended(ended)));
    }
}

fn nobody() -> Unwritten {
    Unwritten("nobody writes it any more".to_owned())
}

impl Drop for Sending {
    fn drop(&mut self) {
        match self.is_out {
            // It may have to be paid for.
            true => self.end("left", (0, 0), self.most_micros),
            false => self.end("kept", (0, 0), 0),
        }
    }
}

#[cfg(test)]
mod tests;
