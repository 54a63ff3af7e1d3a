//! What a journal record does to the index: the one place where both the running queue and a replay
//! of the journal change state.
//!
//! Owns the totals, what counts in each segment, and the changes that are not yet in the index.
//! **Invariant:** replaying the same records in the same order gives the same index, and a segment's
//! `reasons` is the number of its records that invariant 4 of the journal counts.

use std::collections::BTreeMap;

use super::{
    QueueError, RequestId,
    index::{Changes, Index, Key},
    journal::{AcceptMeta, FinalMeta, Meta, Place, RetryMeta, Wait},
    keys::{self, Ended, Entry, Mark, Totals, Use},
};

/// The state of the queue on top of an index.
#[derive(Debug)]
pub(super) struct Ledger {
    changes: Changes,
    /// Segments that exist.
    segments: BTreeMap<u64, Use>,
    /// The segments changed since the last commit, as they were then.
    undo: BTreeMap<u64, Option<Use>>,
    /// Totals, with the changes.
    pub(super) totals: Totals,
    /// Totals as of the last commit.
    committed: Totals,
    /// The greatest id that was ever seen. Ids begin with their time, so that nearly every new one is
    /// greater and need not be looked up.
    newest: RequestId,
}

impl Ledger {
    /// An empty ledger over these segments.
    pub(super) fn new(segments: impl IntoIterator<Item = u64>) -> Self {
        let segments = segments.into_iter().map(|number| (number, Use::default())).collect();
        Ledger::over(segments, Totals::default(), RequestId::from_bytes([0; 16]))
    }

    /// The ledger that an index holds.
    pub(super) fn load(index: &Index, mark: &Mark) -> Result<Self, QueueError> {
        let (from, to) = keys::prefix_bounds(&[keys::SEGMENTS]);
        let mut segments = BTreeMap::new();
        for (key, value) in index.range(&from, &to, usize::MAX)? {
            if let Some(number) = keys::segment_in(&key) {
                segments.insert(number, Use::decode(&value)?);
            }
        }
        Ok(Ledger::over(segments, mark.totals, mark.newest))
    }

    fn over(segments: BTreeMap<u64, Use>, totals: Totals, newest: RequestId) -> Self {
        Ledger {
            changes: Changes::new(),
            segments,
            undo: BTreeMap::new(),
            totals,
            committed: totals,
            newest,
        }
    }

    /// The segments that it knows, with what counts in them.
    pub(super) fn segments(&self) -> &BTreeMap<u64, Use> {
        &self.segments
    }

    /// A new segment.
    pub(super) fn add_segment(&mut self, number: u64) {
        self.touch(number);
        self.segments.entry(number).or_default();
    }

    fn touch(&mut self, number: u64) {
        self.undo.entry(number).or_insert_with(|| self.segments.get(&number).copied());
    }

    /// Whether nothing waits to be committed.
    pub(super) fn is_clean(&self) -> bool {
        self.changes.is_empty() && self.undo.is_empty()
    }

    /// How many changes wait to be committed.
    pub(super) fn pending(&self) -> usize {
        self.changes.len()
    }

    /// Puts all changes into the index, with how far they go.
    pub(super) fn commit(&mut self, index: &Index, mark: &Mark) -> Result<(), QueueError> {
        for number in self.undo.keys().copied() {
            let value = match self.segments.get(&number) {
                Some(used) => Some(keys::encode(used)?),
                None => None,
            };
            self.changes.insert(keys::segment_key(number), value);
        }
        self.changes.insert(keys::MARK.into(), Some(keys::encode(mark)?));
        index.apply(std::mem::take(&mut self.changes))?;
        self.undo.clear();
        self.committed = self.totals;
        Ok(())
    }

    /// Forgets all changes since the last commit.
    pub(super) fn roll_back(&mut self) {
        self.changes.clear();
        for (number, used) in std::mem::take(&mut self.undo) {
            match used {
                Some(used) => self.segments.insert(number, used),
                None => self.segments.remove(&number),
            };
        }
        self.totals = self.committed;
    }

    pub(super) fn read(&self, index: &Index, key: &Key) -> Result<Option<Vec<u8>>, QueueError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => index.get(key),
        }
    }

    /// The greatest id that was ever seen.
    pub(super) fn newest(&self) -> RequestId {
        self.newest
    }

    /// A request, with the changes.
    pub(super) fn entry(&self, index: &Index, id: RequestId) -> Result<Option<Entry>, QueueError> {
        if id > self.newest {
            return Ok(None);
        }
        self.read(index, &keys::entry_key(id))?.map(|value| keys::decode(&value)).transpose()
    }

    /// The request that has this idempotency key, with the changes.
    pub(super) fn named(&self, index: &Index, key: &str) -> Result<Option<RequestId>, QueueError> {
        Ok(self.read(index, &keys::name_key(key))?.and_then(|value| keys::id_of(&value)))
    }

    /// Takes in one record of the journal.
    pub(super) fn apply(
        &mut self,
        index: &Index,
        id: RequestId,
        meta: &Meta,
        place: Place,
    ) -> Result<(), QueueError> {
        let known = self.entry(index, id)?;
        self.apply_to(index, id, known, meta, place)
    }

    /// As [`Ledger::apply`], for whoever has looked the request up already.
    pub(super) fn apply_to(
        &mut self,
        index: &Index,
        id: RequestId,
        known: Option<Entry>,
        meta: &Meta,
        place: Place,
    ) -> Result<(), QueueError> {
        self.newest = self.newest.max(id);
        match meta {
            Meta::Accept(meta) => self.accept(index, id, known, meta, place),
            Meta::Retry(meta) => self.retry(id, known, meta, place),
            Meta::Final(meta) => self.end(index, id, known, meta, place),
            Meta::Tombstone(meta) => self.bury(index, id, known, *meta, place),
        }
    }

    fn accept(
        &mut self,
        index: &Index,
        id: RequestId,
        known: Option<Entry>,
        meta: &AcceptMeta,
        place: Place,
    ) -> Result<(), QueueError> {
        let entry = match known {
            Some(Entry { ended: Some(ended), .. }) if meta.order > ended.number => {
                // The final was forgotten, and the id came again.
                self.forget(index, id)?;
                self.begin(id, meta, place)
            }
            Some(entry) if entry.ended.is_some() => {
                // Left over; but while it exists the final must.
                return self.left_over_accept(index, id, entry, place.segment);
            }
            Some(mut entry) => {
                // It was moved, and says all that retry records said before, which may be gone.
                self.release(entry.place.segment, entry.place.span());
                if let Some((segment, bytes)) = entry.retry.take() {
                    self.release(segment, bytes);
                }
                self.totals.held_bytes = self.totals.held_bytes.saturating_sub(entry.place.span());
                entry.place = place;
                self.given_back(id, &mut entry, &meta.as_given_back());
                if !entry.accepts_in.contains(&place.segment) {
                    entry.accepts_in.push(place.segment);
                }
                entry
            }
            None => self.begin(id, meta, place),
        };
        self.totals.held_bytes += place.span();
        self.count(place);
        self.put_entry(id, &entry)
    }

    fn begin(&mut self, id: RequestId, meta: &AcceptMeta, place: Place) -> Entry {
        let entry = fresh(meta, place, vec![place.segment]);
        self.totals.held += 1;
        self.waits(entry.wait, 1);
        self.put(entry.queue_key(), keys::waiting_value(id, entry.accepted_at_ms));
        if let Some(at) = entry.expires_at_ms {
            self.put(keys::expiry_key(at, id), Vec::new());
        }
        self.put_name(&entry, id);
        entry
    }

    fn left_over_accept(
        &mut self,
        index: &Index,
        id: RequestId,
        mut entry: Entry,
        segment: u64,
    ) -> Result<(), QueueError> {
        if entry.accepts_in.contains(&segment) {
            return Ok(());
        }
        entry.accepts_in.push(segment);
        self.pin(index, segment, entry.place.segment)?;
        self.put_entry(id, &entry)
    }

    fn retry(
        &mut self,
        id: RequestId,
        known: Option<Entry>,
        meta: &RetryMeta,
        place: Place,
    ) -> Result<(), QueueError> {
        let Some(mut entry) = known.filter(|entry| entry.ended.is_none()) else { return Ok(()) };
        if let Some((segment, bytes)) = entry.retry.replace((place.segment, place.span())) {
            self.release(segment, bytes);
        }
        self.count(place);
        self.given_back(id, &mut entry, meta);
        self.put_entry(id, &entry)
    }

    fn given_back(&mut self, id: RequestId, entry: &mut Entry, meta: &RetryMeta) {
        self.remove(entry.queue_key());
        self.waits(entry.wait, -1);
        self.waits(meta.wait, 1);
        entry.wait = meta.wait;
        entry.attempts = meta.attempts;
        entry.reason.clone_from(&meta.reason);
        entry.not_before_ms = meta.not_before_ms;
        self.put(entry.queue_key(), keys::waiting_value(id, entry.accepted_at_ms));
    }

    fn end(
        &mut self,
        index: &Index,
        id: RequestId,
        known: Option<Entry>,
        meta: &FinalMeta,
        place: Place,
    ) -> Result<(), QueueError> {
        let known = match known {
            Some(Entry { ended: Some(ended), .. }) if ended.number != meta.number => {
                // The end of a life before this one, of which the accept is gone.
                self.forget(index, id)?;
                None
            }
            known => known,
        };
        match known {
            Some(old) if old.ended.is_some() => {
                self.release(old.place.segment, old.place.span());
                for accept in &old.accepts_in {
                    self.unpin(index, *accept, old.place.segment)?;
                }
            }
            Some(old) => {
                self.remove_held(id, &old);
                *self.totals.of(meta.state) += 1;
            }
            None => *self.totals.of(meta.state) += 1,
        }
        let mut entry = fresh(&meta.request, place, meta.accepts_in.clone());
        let FinalMeta { state, finished_at_ms: at_ms, number, .. } = *meta;
        entry.ended = Some(Ended { state, at_ms, number });
        for accept in &entry.accepts_in {
            self.pin(index, *accept, place.segment)?;
        }
        self.count(place);
        self.put(keys::final_key(at_ms, id), Vec::new());
        self.put(keys::result_key(number), id.bytes().to_vec());
        self.put_name(&entry, id);
        self.put_entry(id, &entry)
    }

    /// Takes a request that is held out of all that it is counted in.
    pub(super) fn remove_held(&mut self, id: RequestId, held: &Entry) {
        self.release(held.place.segment, held.place.span());
        if let Some((segment, bytes)) = held.retry {
            self.release(segment, bytes);
        }
        self.totals.held = self.totals.held.saturating_sub(1);
        self.waits(held.wait, -1);
        self.totals.held_bytes = self.totals.held_bytes.saturating_sub(held.place.span());
        self.remove(held.queue_key());
        if let Some(at) = held.expires_at_ms {
            self.remove(keys::expiry_key(at, id));
        }
    }

    /// Forgets a final.
    pub(super) fn forget(&mut self, index: &Index, id: RequestId) -> Result<bool, QueueError> {
        let Some(entry) = self.entry(index, id)? else { return Ok(false) };
        let Some(Ended { state, at_ms, number }) = entry.ended else { return Ok(false) };
        self.release(entry.place.segment, entry.place.span());
        let total = self.totals.of(state);
        *total = total.saturating_sub(1);
        self.remove(keys::final_key(at_ms, id));
        self.remove(keys::result_key(number));
        self.remove(keys::entry_key(id));
        self.remove_name(index, &entry, id)?;
        Ok(true)
    }

    pub(super) fn remove_name(
        &mut self,
        index: &Index,
        entry: &Entry,
        id: RequestId,
    ) -> Result<(), QueueError> {
        if let Some((key, _)) = &entry.key
            && self.named(index, key)? == Some(id)
        {
            self.remove(keys::name_key(key));
        }
        Ok(())
    }

    /// Segments other than `active` of which nothing counts.
    pub(super) fn dead_segments(&self, active: u64) -> Vec<u64> {
        self.segments
            .iter()
            .filter(|(number, used)| used.reasons == 0 && **number != active)
            .map(|(number, _)| *number)
            .collect()
    }

    /// Takes note that a segment exists no more: finals need not outlive its accepts now.
    pub(super) fn segment_gone(&mut self, index: &Index, number: u64) -> Result<(), QueueError> {
        self.touch(number);
        self.segments.remove(&number);
        self.release_pins(index, number)
    }

    fn release_pins(&mut self, index: &Index, accept: u64) -> Result<(), QueueError> {
        let (from, to) = keys::pins_of(accept);
        let mut pins: Changes = index
            .range(&from, &to, usize::MAX)?
            .into_iter()
            .map(|(key, value)| (key.into(), Some(value)))
            .collect();
        let changed = self.changes.range(from..=to);
        pins.extend(changed.map(|(key, value)| (key.clone(), value.clone())));
        for (key, value) in pins {
            let (Some(value), Some(last)) = (value, keys::pinned_in(&key)) else { continue };
            let pinned: u64 = keys::decode(&value)?;
            self.touch(last);
            if let Some(used) = self.segments.get_mut(&last) {
                used.reasons = used.reasons.saturating_sub(pinned);
            }
            self.remove(key);
        }
        Ok(())
    }

    fn pin(&mut self, index: &Index, accept: u64, last: u64) -> Result<(), QueueError> {
        if accept == last || !self.segments.contains_key(&accept) {
            return Ok(());
        }
        self.change_pin(index, accept, last, 1)
    }

    fn unpin(&mut self, index: &Index, accept: u64, last: u64) -> Result<(), QueueError> {
        self.change_pin(index, accept, last, -1)
    }

    fn change_pin(
        &mut self,
        index: &Index,
        accept: u64,
        last: u64,
        by: i64,
    ) -> Result<(), QueueError> {
        let key = keys::pin_key(accept, last);
        let old: Option<u64> =
            self.read(index, &key)?.map(|value| keys::decode(&value)).transpose()?;
        if old.is_none() && by < 0 {
            return Ok(());
        }
        let new = old.unwrap_or(0).saturating_add_signed(by);
        self.touch(last);
        if let Some(used) = self.segments.get_mut(&last) {
            used.reasons = used.reasons.saturating_add_signed(by);
        }
        let value = if new == 0 { None } else { Some(keys::encode(&new)?) };
        self.changes.insert(key, value);
        Ok(())
    }

    fn waits(&mut self, wait: Wait, by: i64) {
        let count = match wait {
            Wait::Turn => return,
            Wait::Budget => &mut self.totals.budget,
            Wait::Operator => &mut self.totals.set_aside,
        };
        *count = count.saturating_add_signed(by);
    }

    /// Takes note that the record at this place counts.
    pub(super) fn count(&mut self, place: Place) {
        self.touch(place.segment);
        let used = self.segments.entry(place.segment).or_default();
        used.reasons += 1;
        used.bytes += place.span();
        used.end = used.end.max(place.offset + place.span());
    }

    pub(super) fn release(&mut self, segment: u64, bytes: u64) {
        self.touch(segment);
        if let Some(used) = self.segments.get_mut(&segment) {
            used.reasons = used.reasons.saturating_sub(1);
            used.bytes = used.bytes.saturating_sub(bytes);
        }
    }

    fn put_entry(&mut self, id: RequestId, entry: &Entry) -> Result<(), QueueError> {
        let value = keys::encode(entry)?;
        self.put(keys::entry_key(id), value);
        Ok(())
    }

    fn put_name(&mut self, entry: &Entry, id: RequestId) {
        if let Some((key, _)) = &entry.key {
            self.put(keys::name_key(key), id.bytes().to_vec());
        }
    }

    pub(super) fn put(&mut self, key: Key, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    pub(super) fn remove(&mut self, key: Key) {
        self.changes.insert(key, None);
    }
}

fn fresh(meta: &AcceptMeta, place: Place, accepts_in: Vec<u64>) -> Entry {
    Entry {
        ended: None,
        priority: meta.priority,
        order: meta.order,
        attempts: meta.attempts,
        reason: meta.reason.clone(),
        accepted_at_ms: meta.accepted_at_ms,
        not_before_ms: meta.not_before_ms,
        wait: meta.wait,
        expires_at_ms: meta.expires_at_ms,
        key: meta.idempotency.as_ref().map(|name| (name.key.clone(), name.digest)),
        place,
        retry: None,
        accepts_in,
    }
}
