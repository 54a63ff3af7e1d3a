//! Owns how far each taker has acknowledged results: one small file each under `state_dir/takers`.
//!
//! Results are kept for a time and up to a number. Before some are forgotten, the first result that a
//! taker has not acknowledged is noted in its file; when that one is gone later, the taker is told that
//! there is a gap. So no crash makes a loss silent.
//!
//! **Invariant:** a cursor is on disk before it counts, and only goes forward.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard};

pub use super::cursor::{Cursor, Gap};
use crate::queue::{Forgotten, Queue, QueueError, Summary};
use crate::whole_file;

/// Results that are looked at, to count how many a taker had acknowledged of those that are forgotten.
const COUNTED: usize = 1000;

/// The name of a taker: 1 to 64 of `a-z`, `0-9`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakerName(String);

impl TakerName {
    /// A name that a caller or the configuration gives.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then(|| Self(text.to_owned()))
    }

    /// The agent's own taker for a webhook; no caller can have that name.
    pub fn webhook(name: &Self) -> Self {
        Self(format!("webhook.{}", name.0))
    }

    /// The agent's own taker for the fleet's controller.
    pub fn fleet() -> Self {
        Self("fleet.controller".to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The webhook whose taker this is.
    fn of_webhook(&self) -> Option<&str> {
        self.0.strip_prefix("webhook.")
    }

    fn is_own(&self) -> bool {
        self.0.contains('.')
    }

    fn of_file(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".toml")?;
        let name = Self(stem.to_owned());
        let bare = name.of_webhook().unwrap_or(stem);
        (name == Self::fleet() || Self::parse(bare).is_some()).then_some(name)
    }
}

impl std::fmt::Display for TakerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// Why an acknowledgement was not taken.
#[derive(Debug, Error)]
pub enum TakerError {
    /// The number is beyond every result.
    #[error("there is no result {number} yet: acknowledge numbers that were received")]
    Unknown {
        /// What was acknowledged.
        number: u64,
    },
    /// No more takers are kept.
    #[error(
        "{limit} takers are known already; remove one with DELETE /v1/takers/{{name}}, or raise results.max_takers"
    )]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The cursor could not be written.
    #[error("the cursor of a taker cannot be written to {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The queue did not say.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

/// All takers; clones are the same.
#[derive(Debug, Clone)]
pub struct Takers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    limit: usize,
    cursors: Mutex<BTreeMap<TakerName, Cursor>>,
    /// The highest number that anybody was shown.
    shown: AtomicU64,
}

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
    /// Reads the takers under `state_dir`. Blocks. A file that cannot be read is warned of; its taker
    /// gets everything again that is kept.
    pub fn load(state_dir: &Path, limit: usize) -> Self {
        let dir = state_dir.join("takers");
        let mut cursors = BTreeMap::new();
        let files = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        for path in files.map(|file| file.path()) {
            let Some(name) = TakerName::of_file(&path) else { continue };
            let read = std::fs::read_to_string(&path).ok();
            let cursor = read.and_then(|text| toml::from_str::<Cursor>(&text).ok());
            if cursor.is_none() {
                tracing::warn!(taker = %name, path = %path.display(), "a taker's cursor cannot be read; \
                    it gets every result again that is kept");
            }
            cursors.insert(name, cursor.unwrap_or_default());
        }
        let cursors = Mutex::new(cursors);
        Self(Arc::new(Inner { dir, limit, cursors, shown: AtomicU64::new(0) }))
    }

    /// The cursor of a taker; at the beginning for one that is not known.
    pub async fn cursor(&self, name: &TakerName) -> Cursor {
        self.0.cursors.lock().await.get(name).copied().unwrap_or_default()
    }

    /// Every taker.
    pub async fn list(&self) -> Vec<(TakerName, Cursor)> {
        let cursors = self.0.cursors.lock().await;
        cursors.iter().map(|(name, cursor)| (name.clone(), *cursor)).collect()
    }

    /// Notes that results up to `number` were shown to somebody.
    pub fn note_shown(&self, number: u64) {
        self.0.shown.fetch_max(number, Ordering::Relaxed);
    }

    /// Makes a taker known, at the beginning, unless it is.
    ///
    /// # Errors
    /// When it cannot be written, or there are too many.
    pub async fn ensure(&self, name: &TakerName) -> Result<(), TakerError> {
        let mut cursors = self.0.cursors.lock().await;
        if cursors.contains_key(name) {
            return Ok(());
        }
        self.put(&mut cursors, name, Cursor::default()).await
    }

    /// Everything up to `number` is acknowledged; on disk when this returns. A lower number than before
    /// changes nothing.
    ///
    /// # Errors
    /// See [`TakerError`]; the cursor is then as it was.
    pub async fn acknowledge(
        &self,
        queue: &Queue,
        name: &TakerName,
        number: u64,
    ) -> Result<Cursor, TakerError> {
        let mut cursors = self.0.cursors.lock().await;
        let known = cursors.get(name).copied();
        let cursor = known.unwrap_or_default();
        if number <= cursor.number && known.is_some() {
            return Ok(cursor);
        }
        let was_there = number <= self.0.shown.load(Ordering::Relaxed)
            || cursor.next.is_some_and(|next| number <= next)
            || !queue.results_after(number.saturating_sub(1), 1).await?.is_empty();
        if !was_there {
            return Err(TakerError::Unknown { number });
        }
        let cursor = cursor.advanced(number);
        self.put(&mut cursors, name, cursor).await?;
        Ok(cursor)
    }

    /// Forgets a taker; false when it was not known.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub async fn remove(&self, name: &TakerName) -> Result<bool, TakerError> {
        let mut cursors = self.0.cursors.lock().await;
        if !cursors.contains_key(name) {
            return Ok(false);
        }
        let path = self.path(name);
        match tokio::fs::remove_file(&path).await {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(TakerError::File { path, source });
            }
            _ => {}
        }
        cursors.remove(name);
        Ok(true)
    }

    /// Forgets the takers of webhooks that are configured no more: nobody else acknowledges for them.
    pub async fn keep_webhooks(&self, configured: &[&TakerName]) {
        for (name, _) in self.list().await {
            let Some(webhook) = name.of_webhook() else { continue };
            if configured.iter().any(|kept| kept.as_str() == webhook) {
                continue;
            }
            match self.remove(&name).await {
                Ok(_) => {
                    tracing::info!(webhook, "it is configured no more; how far it was is forgotten")
                }
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::warn!(webhook, %error, "what is left of a webhook cannot be removed");
                }
            }
        }
    }

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

    /// Writes a cursor down, then takes it.
    async fn put(
        &self,
        cursors: &mut MutexGuard<'_, BTreeMap<TakerName, Cursor>>,
        name: &TakerName,
        cursor: Cursor,
    ) -> Result<(), TakerError> {
        let callers = cursors.keys().filter(|name| !name.is_own()).count();
        if !cursors.contains_key(name) && !name.is_own() && callers >= self.0.limit {
            return Err(TakerError::TooMany { limit: self.0.limit });
        }
        let (dir, path) = (self.0.dir.clone(), self.path(name));
        let text = toml::to_string(&cursor).map_err(|error| TakerError::File {
            path: path.clone(),
            source: io::Error::other(error),
        })?;
        let file = path.clone();
        let writing = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(&dir)?;
            whole_file::write(&file, text.as_bytes(), 0o644)
        });
        let written = writing.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        written.map_err(|source| TakerError::File { path, source })?;
        cursors.insert(name.clone(), cursor);
        Ok(())
    }

    fn path(&self, name: &TakerName) -> PathBuf {
        self.0.dir.join(format!("{name}.toml"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tempfile::TempDir;

    use super::*;
    use crate::queue::{NewEntry, QueueConfig, RequestId};

    fn name(text: &str) -> TakerName {
        TakerName::parse(text).unwrap()
    }

    /// A queue with `count` answered requests, each a millisecond later than the one before.
    async fn queue(count: u64) -> (TempDir, Queue, Vec<u64>) {
        let dir = tempfile::tempdir().unwrap();
        let config = QueueConfig { headroom_bytes: 0, max_finals: 100, ..QueueConfig::default() };
        let (queue, _) = Queue::open(&dir.path().join("queue"), config).unwrap();
        answer(&queue, 1..=count).await;
        let numbers = queue.results_after(0, 1000).await.unwrap();
        let numbers: Vec<u64> = numbers.into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers.len() as u64, count);
        (dir, queue, numbers)
    }

    async fn answer(queue: &Queue, at: std::ops::RangeInclusive<u64>) {
        for at_ms in at {
            let id = RequestId::new();
            let entry = NewEntry {
                id,
                idempotency: None,
                priority: 4,
                accepted_at_ms: at_ms,
                not_before_ms: 0,
                expires_at_ms: None,
                envelope: Bytes::from_static(b"envelope"),
                body: Bytes::from_static(b"body"),
            };
            queue.accept(entry).await.unwrap();
            queue.answer(id, Bytes::from_static(b"answer"), at_ms).await.unwrap();
        }
    }

    async fn forget(takers: &Takers, queue: &Queue, to_ms: u64) {
        let foreseen = takers.before_forgetting(queue, Some(to_ms), 100).await.unwrap();
        let forgotten = queue.forget_before(to_ms, 0).await.unwrap();
        takers.after_forgetting(foreseen, forgotten).await.unwrap();
    }

    #[tokio::test]
    async fn a_cursor_only_goes_forward_and_survives_a_restart() {
        let (dir, queue, numbers) = queue(3).await;
        let takers = Takers::load(dir.path(), 2);
        let plc = name("plc");
        for (number, want) in [(numbers[1], numbers[1]), (numbers[0], numbers[1])] {
            let cursor = takers.acknowledge(&queue, &plc, number).await.unwrap();
            assert_eq!(cursor.number, want);
        }
        let beyond = takers.acknowledge(&queue, &plc, numbers[2] + 1).await;
        assert!(matches!(beyond, Err(TakerError::Unknown { .. })), "{beyond:?}");
        let again = Takers::load(dir.path(), 2);
        assert_eq!(again.cursor(&plc).await.number, numbers[1]);
        again.ensure(&name("mes")).await.unwrap();
        let third = again.ensure(&name("third")).await;
        assert!(matches!(third, Err(TakerError::TooMany { limit: 2 })), "{third:?}");
        // The agent's own takers do not count.
        again.ensure(&TakerName::fleet()).await.unwrap();
        again.ensure(&TakerName::webhook(&name("mes"))).await.unwrap();
        assert!(again.remove(&plc).await.unwrap() && !again.remove(&plc).await.unwrap());
        again.ensure(&name("third")).await.unwrap();
        let known = Takers::load(dir.path(), 2).list().await;
        let known: Vec<_> = known.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(known, ["fleet.controller", "mes", "third", "webhook.mes"]);
        again.keep_webhooks(&[&name("mes")]).await;
        assert_eq!(again.list().await.len(), 4);
        again.keep_webhooks(&[]).await;
        assert_eq!(Takers::load(dir.path(), 2).list().await.len(), 3, "no webhook is configured");
    }

    #[tokio::test]
    async fn results_that_came_since_nobody_looked_are_not_forgotten() {
        let (dir, queue, _) = queue(99).await;
        let takers = Takers::load(dir.path(), 8);
        takers.ensure(&name("slow")).await.unwrap();
        // The queue keeps a hundred.
        answer(&queue, 100..=102).await;
        let foreseen = takers.before_forgetting(&queue, None, 100).await.unwrap();
        answer(&queue, 103..=110).await;
        let forgotten = queue.forget_foreseen(0, 1, foreseen.surplus).await.unwrap();
        assert_eq!(forgotten.by_count, 2, "of ten that are too many");
        takers.after_forgetting(foreseen, forgotten).await.unwrap();
        let cursor = takers.cursor(&name("slow")).await;
        let first = queue.results_after(0, 1).await.unwrap()[0].0;
        assert_eq!(cursor.gap(Some(first)).unwrap().missed, Some(2));
    }

    #[tokio::test]
    async fn results_that_a_taker_never_acknowledged_leave_a_gap_that_is_told() {
        let (dir, queue, numbers) = queue(10).await;
        let takers = Takers::load(dir.path(), 8);
        let (slow, quick, new) = (name("slow"), name("quick"), name("new"));
        takers.acknowledge(&queue, &slow, numbers[1]).await.unwrap();
        takers.acknowledge(&queue, &quick, numbers[7]).await.unwrap();
        takers.ensure(&new).await.unwrap();
        forget(&takers, &queue, 6).await;
        let first = async |takers: &Takers, name: &TakerName| {
            let cursor = takers.cursor(name).await;
            let page = queue.results_after(cursor.number, 1).await.unwrap();
            cursor.gap(page.first().map(|(number, _)| *number))
        };
        let up_to = numbers[6] - 1;
        let takers = Takers::load(dir.path(), 8);
        for (name, after, missed) in [(&slow, numbers[1], 4), (&new, 0, 6)] {
            let gap = first(&takers, name).await;
            assert_eq!(gap, Some(Gap { after, up_to, missed: Some(missed) }), "{name}");
        }
        assert_eq!(first(&takers, &quick).await, None);
        // More is forgotten while the gap is open: it grows.
        forget(&takers, &queue, 7).await;
        let gap = first(&takers, &slow).await.unwrap();
        assert_eq!((gap.up_to, gap.missed), (numbers[7] - 1, Some(5)));
        takers.acknowledge(&queue, &slow, gap.up_to).await.unwrap();
        assert_eq!(first(&takers, &slow).await, None);
        // Everything is gone: the gap is there without a result behind it, and can be acknowledged.
        forget(&takers, &queue, 10).await;
        let gap = first(&takers, &slow).await.unwrap();
        assert_eq!(gap.missed, Some(3));
        takers.acknowledge(&queue, &slow, gap.up_to).await.unwrap();
        assert_eq!(first(&takers, &slow).await, None);
    }

    #[tokio::test]
    async fn a_crash_between_noting_and_forgetting_hides_no_gap() {
        let (dir, queue, numbers) = queue(4).await;
        let takers = Takers::load(dir.path(), 8);
        let slow = name("slow");
        takers.acknowledge(&queue, &slow, numbers[0]).await.unwrap();
        let _foreseen = takers.before_forgetting(&queue, Some(3), 100).await.unwrap();
        // Noted, and not forgotten yet: there is no gap.
        let cursor = Takers::load(dir.path(), 8).cursor(&slow).await;
        assert_eq!(cursor.gap(Some(numbers[1])), None);
        queue.forget_before(3, 0).await.unwrap();
        let cursor = Takers::load(dir.path(), 8).cursor(&slow).await;
        let gap = cursor.gap(Some(numbers[3])).unwrap();
        assert_eq!((gap.up_to, gap.missed), (numbers[3] - 1, None), "told, but not counted");
    }

    #[tokio::test]
    async fn a_damaged_cursor_means_everything_again() {
        let (dir, queue, numbers) = queue(2).await;
        let takers = Takers::load(dir.path(), 8);
        takers.acknowledge(&queue, &name("plc"), numbers[1]).await.unwrap();
        std::fs::write(dir.path().join("takers/plc.toml"), "number = soon").unwrap();
        assert_eq!(Takers::load(dir.path(), 8).cursor(&name("plc")).await, Cursor::default());
    }
}
