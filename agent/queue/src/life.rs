//! What becomes of a request, as the records that say so: it is put in, given back, ended.
//!
//! **Invariant:** a request ends once: whoever comes second is told of the first end. A refusal writes
//! nothing, and leaves the request in the hand that it was in.

use bytes::Bytes;
use tracing::error;

use super::{
    Accepted, Idempotency, NewEntry, QueueError, Recorded, RequestId,
    begin::Purpose,
    command::Finish,
    entry::{Attempts, GivenBack, cut_reason},
    journal::{AcceptMeta, FinalMeta, FinalState, Meta, RetryMeta, Wait},
    keys::Entry,
    line::LINE,
    writer::Writer,
};

impl Writer {
    /// Puts a request in, or a request with its answer.
    pub(super) fn accept(
        &mut self,
        new: &NewEntry,
        crc: u32,
        answer: Option<(Bytes, u32)>,
    ) -> Result<Accepted, QueueError> {
        let index = self.shared.index()?;
        if let Some(name) = &new.idempotency
            && let Some(id) = self.ledger.named(&index, &name.key)?
            && let Some(entry) = self.ledger.entry(&index, id)?
        {
            let same = entry.key.as_ref().is_some_and(|(_, digest)| *digest == name.digest);
            return if same {
                Ok(Accepted::Known { id, state: self.shared.state_of(id, &entry) })
            } else {
                Err(QueueError::KeyConflict { key: name.key.clone(), id })
            };
        }
        if self.ledger.entry(&index, new.id)?.is_some() {
            return Err(QueueError::IdTaken { id: new.id });
        }
        if answer.is_none() {
            self.make_room(new)?;
        }
        let oldest = new.accepted_at_ms.checked_add(self.shared.config.max_age_ms);
        let meta = AcceptMeta {
            idempotency: new.idempotency.clone(),
            priority: new.priority.min(9),
            order: self.journal.next_sequence(),
            accepted_at_ms: new.accepted_at_ms,
            not_before_ms: if new.not_before_ms > new.accepted_at_ms {
                new.not_before_ms.min(LINE - 1)
            } else {
                0
            },
            expires_at_ms: new.expires_at_ms.into_iter().chain(oldest).min(),
            attempts: 0,
            reason: None,
            wait: Wait::Turn,
            envelope: new.envelope.clone(),
        };
        match answer {
            None => {
                self.write(new.id, None, &Meta::Accept(meta), &new.body, crc, Purpose::Accept)?;
            }
            Some((answer, crc)) => {
                let meta = FinalMeta {
                    state: FinalState::Answered,
                    finished_at_ms: new.accepted_at_ms,
                    number: self.journal.next_sequence(),
                    request: meta,
                    accepts_in: Vec::new(),
                };
                self.write(new.id, None, &Meta::Final(meta), &answer, crc, Purpose::Accept)?;
            }
        }
        Ok(Accepted::New)
    }

    /// Ends a request. `None`: a worker has it, and was to be spared.
    pub(super) fn finish(&mut self, finish: &Finish) -> Result<Option<Recorded>, QueueError> {
        let id = finish.id;
        let index = self.shared.index()?;
        let entry = self.ledger.entry(&index, id)?.ok_or(QueueError::Unknown { id })?;
        if entry.ended.is_some() {
            return Ok(Some(Recorded::AlreadyFinal(entry.state())));
        }
        // From here on nobody leases it; whoever has it already is overtaken, or left alone.
        if !self.shared.in_flight.take(id, finish.spare_in_flight) {
            return Ok(None);
        }
        let written = self.write_final(id, entry, finish);
        self.took(id, &written);
        written.map(|()| Some(Recorded::Stored))
    }

    fn write_final(
        &mut self,
        id: RequestId,
        entry: Entry,
        finish: &Finish,
    ) -> Result<(), QueueError> {
        let mut request = match self.accepted_as(id, &entry) {
            Err(QueueError::Damaged { .. }) => {
                error!(%id, "queue: a request's envelope is damaged; it ends without it");
                accept_meta(&entry, Bytes::new())
            }
            read => read?,
        };
        if finish.reason.is_some() {
            request.reason = finish.reason.as_deref().map(cut_reason);
        }
        let meta = Meta::Final(FinalMeta {
            state: finish.state,
            finished_at_ms: finish.now_ms,
            number: self.journal.next_sequence(),
            request,
            accepts_in: entry.accepts_in.clone(),
        });
        self.write(id, Some(entry), &meta, &finish.answer, finish.answer_crc, Purpose::Progress)
    }

    /// The accept's meta as of now.
    pub(super) fn accepted_as(
        &mut self,
        id: RequestId,
        entry: &Entry,
    ) -> Result<AcceptMeta, QueueError> {
        self.envelope(id, entry).map(|envelope| accept_meta(entry, envelope))
    }

    fn envelope(&mut self, id: RequestId, entry: &Entry) -> Result<Bytes, QueueError> {
        if let Some(known) = self.shared.in_flight.envelope(id) {
            return Ok(known);
        }
        if let Err(failed) = self.journal.write_out(&entry.place) {
            // What was in the buffer is not on its way to the disk any more.
            self.fail_batch(&failed);
            return Err(failed);
        }
        match self.shared.read_meta(id, &entry.place)?.0 {
            Meta::Accept(meta) => Ok(meta.envelope),
            Meta::Retry(_) | Meta::Final(_) | Meta::Tombstone(_) => Ok(Bytes::new()),
        }
    }

    /// Gives a request back, or lets one go that nobody has.
    pub(super) fn retry(
        &mut self,
        id: RequestId,
        back: GivenBack,
        spare_in_flight: bool,
    ) -> Result<Recorded, QueueError> {
        let index = self.shared.index()?;
        let entry = self.ledger.entry(&index, id)?.ok_or(QueueError::Unknown { id })?;
        if !self.shared.in_flight.take(id, spare_in_flight) {
            return Ok(Recorded::Stored);
        }
        if entry.ended.is_some() {
            self.settle_later(id);
            return Ok(Recorded::AlreadyFinal(entry.state()));
        }
        let meta = Meta::Retry(RetryMeta {
            attempts: match back.attempts {
                Attempts::Counted => entry.attempts.saturating_add(1),
                Attempts::Kept => entry.attempts,
                Attempts::Reset => 0,
            },
            not_before_ms: back.not_before_ms,
            reason: back.reason.as_deref().map(cut_reason).or_else(|| entry.reason.clone()),
            wait: back.wait,
        });
        let written = self.write(id, Some(entry), &meta, &[], 0, Purpose::Progress);
        self.took(id, &written);
        written.map(|()| Recorded::Stored)
    }

    /// What was taken is given up when the batch is durable, or at once when nothing was written.
    fn took(&mut self, id: RequestId, written: &Result<(), QueueError>) {
        match written {
            Ok(()) => self.settle_later(id),
            Err(_) => self.shared.in_flight.hand_back(&[id]),
        }
    }
}

fn accept_meta(entry: &Entry, envelope: Bytes) -> AcceptMeta {
    AcceptMeta {
        idempotency: entry.key.clone().map(|(key, digest)| Idempotency { key, digest }),
        priority: entry.priority,
        order: entry.order,
        accepted_at_ms: entry.accepted_at_ms,
        not_before_ms: entry.not_before_ms,
        expires_at_ms: entry.expires_at_ms,
        attempts: entry.attempts,
        reason: entry.reason.clone(),
        wait: entry.wait,
        envelope,
    }
}
