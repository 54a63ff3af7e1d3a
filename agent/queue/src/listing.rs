//! Looking through many requests: by id, by state, by number of the result, by time; and their sums.
//!
//! **Invariant:** nothing in here reads the journal: what many requests are is told by the index alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    QueueError, RequestId, State, Stats, Summary,
    keys::{self, Entry},
    shared::{Published, Shared, read_entry, summary},
};

impl Shared {
    /// Requests behind `after` in the order of their ids, which is that of their making; in a state, if
    /// one is given.
    pub(super) fn list(
        &self,
        state: Option<State>,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<Summary>, QueueError> {
        let mut found = Vec::new();
        self.each(after, |id, is, entry| {
            if found.len() < limit && state.is_none_or(|wanted| wanted == is) {
                found.push(summary(id, is, entry));
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    /// The ids of requests in one state, or of all that have no end yet.
    pub(super) fn ids(&self, state: Option<State>) -> Result<Vec<RequestId>, QueueError> {
        let mut found = Vec::new();
        self.each(None, |id, is, _| {
            if state.map_or(!is.is_final(), |wanted| wanted == is) {
                found.push(id);
            }
            true
        })?;
        Ok(found)
    }

    /// Passes every request behind `after` to `visit`, in order of ids, until it has enough.
    fn each(
        &self,
        after: Option<RequestId>,
        mut visit: impl FnMut(RequestId, State, &Entry) -> bool,
    ) -> Result<(), QueueError> {
        const PAGE: usize = 256;
        let index = self.index()?;
        let (mut from, to) = keys::prefix_bounds(&[keys::ENTRIES]);
        if let Some(after) = after {
            from = [&*keys::entry_key(after), &[0]].concat();
        }
        loop {
            let page = index.range(&from, &to, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            from = [last.as_slice(), &[0]].concat();
            let is_last = page.len() < PAGE;
            for (key, value) in page {
                let Some(id) = keys::id_in(&key) else { continue };
                let entry: Entry = keys::decode(&value)?;
                if !visit(id, self.state_of(id, &entry), &entry) {
                    return Ok(());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Requests without an end in the order of their ids, behind `after`.
    pub(super) fn open_after(
        &self,
        after: Option<RequestId>,
        limit: usize,
    ) -> Result<Vec<RequestId>, QueueError> {
        const PAGE: usize = 256;
        let index = self.index()?;
        let (mut from, to) = keys::prefix_bounds(&[keys::ENTRIES]);
        if let Some(after) = after {
            from = [&*keys::entry_key(after), &[0]].concat();
        }
        let mut found = Vec::new();
        loop {
            let page = index.range(&from, &to, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            from = [last.as_slice(), &[0]].concat();
            for (key, value) in page {
                let Some(id) = keys::id_in(&key) else { continue };
                if keys::decode::<Entry>(&value)?.ended.is_none() {
                    found.push(id);
                }
                if found.len() >= limit {
                    return Ok(found);
                }
            }
        }
    }

    /// When the next time to live ends.
    pub(super) fn next_expiry(&self) -> Result<Option<u64>, QueueError> {
        let (from, to) = keys::time_bounds(b'x', u64::MAX);
        let first = self.index()?.range(&from, &to, 1)?;
        Ok(first.first().and_then(|(key, _)| keys::expiry_in(key)))
    }

    /// Finals in the order of their numbers, behind `after`.
    pub(super) fn results_after(
        &self,
        after: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Summary)>, QueueError> {
        let index = self.index()?;
        let from = keys::result_key(after.saturating_add(1));
        let mut found = Vec::new();
        for (key, value) in index.range(&from, &keys::result_key(u64::MAX), limit)? {
            let (Some(number), Some(id)) = (keys::result_in(&key), keys::id_of(&value)) else {
                continue;
            };
            if let Some(entry) = read_entry(&index, id)? {
                found.push((number, summary(id, entry.state(), &entry)));
            }
        }
        Ok(found)
    }

    /// Ids whose time in `x` or `f` keys is up to `to_ms`, at most `limit`.
    pub(super) fn up_to(
        &self,
        kind: u8,
        to_ms: u64,
        limit: usize,
    ) -> Result<Vec<RequestId>, QueueError> {
        let (from, to) = keys::time_bounds(kind, to_ms);
        let pairs = self.index()?.range(&from, &to, limit)?;
        Ok(pairs.iter().filter_map(|(key, _)| keys::id_in(key)).collect())
    }

    /// The queue in numbers.
    pub(super) fn stats(&self) -> Result<Stats, QueueError> {
        let Published { totals, live_bytes, segments } = self.published();
        let in_flight = self.in_flight.worked_on();
        let counter = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Ok(Stats {
            held: totals.held.saturating_sub(in_flight + totals.budget + totals.set_aside),
            in_flight: in_flight.min(totals.held),
            waiting_for_budget: totals.budget,
            set_aside: totals.set_aside,
            answered: totals.answered,
            failed: totals.failed,
            expired: totals.expired,
            cancelled: totals.cancelled,
            held_bytes: totals.held_bytes,
            live_bytes,
            allocated_bytes: self
                .disk
                .allocated(&self.journal_dir)
                .map_err(|source| QueueError::storage("list", &self.journal_dir, source))?,
            segments,
            index_bytes: self.index()?.bytes()?,
            index_in_memory: !self.index()?.is_on_disk(),
            oldest_accepted_at_ms: self.oldest()?,
            syncs: counter(&self.meter.syncs),
            appended: counter(&self.meter.appended),
            written_bytes: counter(&self.meter.written),
            prepared_bytes: counter(&self.meter.prepared),
            moved_bytes: counter(&self.meter.moved),
            dropped: counter(&self.meter.dropped),
            process_written_bytes: self.disk.written_by_process(),
            damaged: counter(&self.meter.damaged),
        })
    }

    /// When the oldest waiting request was accepted (of the first thousand of each priority).
    fn oldest(&self) -> Result<Option<u64>, QueueError> {
        let index = self.index()?;
        let mut oldest: Option<(u64, RequestId)> = None;
        for priority in 0..=9 {
            let from = keys::queue_key(priority, 0, 0);
            let to = keys::queue_key(priority, u64::MAX, u64::MAX);
            for (key, value) in index.range(&from, &to, 1000)? {
                if let (Some((_, order)), Some((id, _))) =
                    (keys::due_and_order(&key), keys::waiting_in(&value))
                {
                    oldest = oldest.into_iter().chain([(order, id)]).min();
                }
            }
        }
        let Some((_, id)) = oldest else { return Ok(None) };
        Ok(read_entry(&index, id)?.map(|entry| entry.accepted_at_ms))
    }
}
