//! Owns what a taker is told of results that were forgotten before it acknowledged them.
//!
//! **Invariant:** what a taker is about to miss is noted before anything is forgotten, so that no gap is
//! silent.

use super::{Cursor, TakerError, TakerName, Takers};
use crate::queue::{Forgotten, Queue, Summary};

/// Results that are looked at, to count how many a taker had acknowledged of those that are forgotten.
const COUNTED: usize = 1000;

/// What was known of each taker before results were forgotten.
#[derive(Debug)]
pub struct Foreseen {
    takers: Vec<Acknowledged>,
    /// Results that were too many; what came since is not to be forgotten unseen.
    pub surplus: u64,
}

impl Foreseen {
    /// Nobody is known to miss anything.
    pub fn nothing() -> Self {
        Self { takers: Vec::new(), surplus: u64::MAX }
    }
}

#[derive(Debug)]
struct Acknowledged {
    name: TakerName,
    /// How many of the oldest results it had acknowledged.
    count: u64,
    /// There may be more of them.
    more: bool,
}

impl Takers {
    /// Notes what each taker is about to miss, if the oldest results are forgotten now: those that ended
    /// up to `to_ms`, and those beyond `max_finals`.
    ///
    /// # Errors
    /// When the queue cannot be read or a cursor not be written: then nothing may be forgotten.
    pub async fn before_forgetting(
        &self,
        queue: &Queue,
        to_ms: Option<u64>,
        max_finals: u64,
    ) -> Result<Foreseen, TakerError> {
        let mut cursors = self.0.cursors.lock().await;
        if cursors.is_empty() {
            return Ok(Foreseen::nothing());
        }
        let oldest = queue.results_after(0, COUNTED).await?;
        let stats = queue.stats().await?;
        let finals = stats.answered + stats.failed + stats.expired + stats.cancelled;
        let is_over = |summary: &Summary| {
            finals > max_finals
                || to_ms.zip(summary.finished_at_ms).is_some_and(|(to_ms, at)| at <= to_ms)
        };
        let names: Vec<_> = cursors.iter().map(|(name, cursor)| (name.clone(), *cursor)).collect();
        let mut foreseen = Vec::new();
        for (name, cursor) in names {
            let count = oldest.iter().filter(|(number, _)| *number <= cursor.number).count();
            let more = count == oldest.len() && count == COUNTED;
            if cursor.next.is_none() {
                let behind = match oldest.get(count) {
                    Some(found) => Some(found.clone()),
                    None => queue.results_after(cursor.number, 1).await?.into_iter().next(),
                };
                if let Some((next, _)) = behind.filter(|(_, summary)| is_over(summary)) {
                    let noted = Cursor { next: Some(next), ..cursor };
                    self.put(&mut cursors, &name, noted).await?;
                }
            }
            foreseen.push(Acknowledged { name, count: count as u64, more });
        }
        Ok(Foreseen { takers: foreseen, surplus: finals.saturating_sub(max_finals) })
    }

    /// Counts what each taker missed.
    ///
    /// # Errors
    /// When a cursor cannot be written; the gap is told all the same, without its size.
    pub async fn after_forgetting(
        &self,
        foreseen: Foreseen,
        forgotten: Forgotten,
    ) -> Result<(), TakerError> {
        let forgotten = forgotten.by_age + forgotten.by_count;
        let mut cursors = self.0.cursors.lock().await;
        for Acknowledged { name, count, more } in foreseen.takers {
            let missed = forgotten.saturating_sub(count);
            let Some(cursor) = cursors.get(&name).copied() else { continue };
            // Without a next one it was acknowledged meanwhile.
            if missed == 0 || cursor.next.is_none() {
                continue;
            }
            metrics::counter!("holdfast_results_missed_total", "taker" => name.to_string())
                .increment(missed);
            let at_most = more;
            tracing::warn!(taker = %name, missed, at_most, "results were forgotten before this taker acknowledged them");
            let missed = cursor.missed.saturating_add(missed);
            let cursor = Cursor { missed, missed_more: cursor.missed_more || more, ..cursor };
            self.put(&mut cursors, &name, cursor).await?;
        }
        Ok(())
    }
}
