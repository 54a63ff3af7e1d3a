//! Owns how far each taker has acknowledged results: one small file each under `state_dir/takers`.
//!
//! Results are kept for a time and up to a number. Before some are forgotten, the first result that a
//! taker has not acknowledged is noted in its file; when that one is gone later, the taker is told that
//! there is a gap (`forgetting`). So no crash makes a loss silent.
//!
//! **Invariant:** a cursor is on disk before it counts, and only goes forward.

mod forgetting;
mod name;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;
use tokio::sync::{Mutex, MutexGuard};

pub use self::forgetting::Foreseen;
pub use self::name::TakerName;
pub use super::cursor::{Cursor, Gap};
use crate::queue::{Queue, QueueError};
use crate::whole_file;

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
mod tests;
