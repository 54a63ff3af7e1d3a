//! What callers ask of the writer, and how they are answered.
//!
//! **Invariant:** every command has one reply, and it is sent when the batch it is in has its outcome.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    Accepted, Forgotten, NewEntry, QueueError, Recorded, RequestId, entry::GivenBack,
    journal::FinalState, wear::URGENT,
};

/// What a final state is to be recorded with.
#[derive(Debug)]
pub(super) struct Finish {
    pub(super) id: RequestId,
    pub(super) state: FinalState,
    pub(super) answer: Bytes,
    pub(super) answer_crc: u32,
    pub(super) reason: Option<String>,
    pub(super) now_ms: u64,
    /// Leave a request alone that a worker has.
    pub(super) spare_in_flight: bool,
}

/// Where an answer is sent.
pub(super) type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

/// What callers ask of the writer.
#[derive(Debug)]
pub(super) enum Command {
    /// Put a request in, or a request with its answer.
    Accept { entry: Box<NewEntry>, crc: u32, answer: Option<(Bytes, u32)>, reply: Reply<Accepted> },
    /// End a request. `None`: it was left alone.
    Finish { finish: Box<Finish>, reply: Reply<Option<Recorded>> },
    /// Give a request back, or let one go that nobody has.
    Retry { id: RequestId, back: GivenBack, spare_in_flight: bool, reply: Reply<Recorded> },
    /// Forget finals up to this time, and of those that are too many so many.
    Forget { to_ms: Option<u64>, most: u64, reply: Reply<Forgotten> },
    /// Forget one final.
    ForgetOne { id: RequestId, reply: Reply<bool> },
    /// Close in good order.
    Close { reply: Reply<()> },
}

impl Command {
    /// Whether its caller cannot wait for others to share its sync.
    pub(super) fn is_urgent(&self) -> bool {
        match self {
            Command::Accept { entry, .. } => entry.priority >= URGENT,
            Command::Finish { .. } | Command::Retry { .. } => false,
            Command::Forget { .. } | Command::ForgetOne { .. } | Command::Close { .. } => true,
        }
    }
}

/// Who waits for a batch, and what they are told when it is durable.
#[derive(Debug)]
pub(super) enum Ack {
    /// A request is in.
    Accepted(Reply<Accepted>, Result<Accepted, QueueError>),
    /// One ended, or was left alone.
    Finished(Reply<Option<Recorded>>, Result<Option<Recorded>, QueueError>),
    /// One was given back.
    Retried(Reply<Recorded>, Result<Recorded, QueueError>),
    /// Some are forgotten.
    Forgot(Reply<Forgotten>, Result<Forgotten, QueueError>),
    /// One is forgotten, or was not there.
    ForgotOne(Reply<bool>, Result<bool, QueueError>),
}

impl Ack {
    /// Tells; a caller that no longer listens is no fault: what it asked for is done.
    pub(super) fn send(self, batch: &Result<(), QueueError>) {
        let batch = batch.clone();
        match self {
            Ack::Accepted(reply, own) => drop(reply.send(batch.and(own))),
            Ack::Finished(reply, own) => drop(reply.send(batch.and(own))),
            Ack::Retried(reply, own) => drop(reply.send(batch.and(own))),
            Ack::Forgot(reply, own) => drop(reply.send(batch.and(own))),
            Ack::ForgotOne(reply, own) => drop(reply.send(batch.and(own))),
        }
    }
}
