//! Owns answers that were given before, by rule and class, for a time: off by default.
//!
//! An answer belongs to who asked and to the class of what was asked; only the very same inquiry finds it
//! (`digest.rs`). What lies on disk of one above `public` is sealed (`entry.rs`). Whether a found answer may
//! still be given is the [`gateway`](crate::gateway)'s affair, with the policy.
//!
//! **Invariant:** nothing here is worth an error or a wait: a disk that is slow, full or broken makes
//! misses; no answer is given beyond its time, whatever the date does.

mod digest;
mod entry;
mod folder;
mod rule;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use self::digest::{Digest, Distinct, way_of};
use self::entry::{Head, Press};
pub(crate) use self::entry::{Kept, What};
pub use self::folder::Stats;
use self::folder::{Folder, count, remove_all};
pub use self::rule::{ALL, CacheConfig, Rule};
use crate::clock;
use crate::request::DataClass;
use crate::store_key::StoreKey;

/// A disk that takes longer is stuck: nobody waits for it before something came of it.
const DISK_WITHIN: Duration = Duration::from_secs(2);
/// Reads and writes under way at once: a disk that hangs does not hold all threads.
const AT_ONCE: usize = 16;
/// What is over is looked for this often.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Answers that were given before; clones are the same.
#[derive(Debug, Clone)]
pub struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: CacheConfig,
    /// `None` where nothing can be kept.
    shelf: Option<Arc<Shelf>>,
    places: Arc<Semaphore>,
    is_stuck: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Shelf {
    press: Press,
    folder: Folder,
}

/// What is kept under `state_dir`. Blocks.
///
/// # Errors
/// When its folder cannot be read.
pub fn stats(state_dir: &Path) -> io::Result<Stats> {
    count(&folder_of(state_dir), false)
}

/// Removes what is kept under `state_dir`, and says what that was; beside a running agent, too, which has
/// misses then. Blocks.
///
/// # Errors
/// When its folder cannot be read, or a file not be removed.
pub fn clear(state_dir: &Path) -> io::Result<Stats> {
    count(&folder_of(state_dir), true)
}

fn folder_of(state_dir: &Path) -> PathBuf {
    state_dir.join("cache")
}

impl Cache {
    /// The answers that are kept under `state_dir`, while `headroom` bytes of its disk are free; `None`
    /// without a rule. What no rule keeps any more is removed.
    pub async fn open(state_dir: &Path, config: &CacheConfig, headroom: u64) -> Option<Self> {
        let dir = folder_of(state_dir);
        let shelf = if config.keeps() {
            match StoreKey::read(config.key.as_ref(), state_dir).await {
                Ok(key) => {
                    let folder = Folder::new(dir, config.max_bytes, headroom);
                    Some(Arc::new(Shelf { press: Press::new(&key), folder }))
                }
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::warn!(%error, "no answers are kept until the agent is restarted");
                    None
                }
            }
        } else {
            drop(tokio::task::spawn_blocking(move || remove_all(&dir)).await);
            None
        };
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let is_stuck = Arc::default();
        let inner = Inner { config: config.clone(), shelf, places, is_stuck };
        (!config.rules.is_empty()).then(|| Self(Arc::new(inner)))
    }

    /// How long an answer of `model` to what has this class is kept; zero: a send under way is shared and
    /// nothing kept. `None` where no rule covers it.
    pub fn ttl(&self, model: &str, class: DataClass) -> Option<Duration> {
        self.0.config.ttl(model, class)
    }

    /// The answer to this inquiry, if it was given before and at most `ttl` ago; with its age. Takes no
    /// longer than `within`.
    pub(crate) async fn find(
        &self,
        digest: Digest,
        class: DataClass,
        ttl: Duration,
        within: Duration,
    ) -> Option<(Kept, Duration)> {
        let shelf = self.shelf(ttl)?;
        self.behind(within, move || shelf.find(&digest, class, ttl)).await.flatten()
    }

    /// Keeps the answer to this inquiry.
    pub(crate) async fn keep(&self, digest: Digest, class: DataClass, ttl: Duration, kept: Kept) {
        let Some(shelf) = self.shelf(ttl) else { return };
        self.behind(DISK_WITHIN, move || shelf.keep(&digest, class, ttl, &kept)).await;
    }

    /// Looks at what is there, and removes what is over from time to time.
    pub async fn tidy(self, stop: CancellationToken) {
        let Some(shelf) = self.0.shelf.clone() else { return };
        let mut is_loaded = false;
        let mut every = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = every.tick() => {}
            }
            let shelf = shelf.clone();
            let tidied = tokio::task::spawn_blocking(move || match is_loaded {
                false => shelf.folder.load(&clock::stamp()),
                true => shelf.folder.sweep(&clock::stamp()),
            });
            is_loaded |= tidied.await.is_ok();
        }
    }

    fn shelf(&self, ttl: Duration) -> Option<Arc<Shelf>> {
        self.0.shelf.clone().filter(|_| !ttl.is_zero())
    }

    /// Does `work` off the reactor when there is a place for it; `None` where that takes longer than
    /// `within`, or the disk is stuck.
    async fn behind<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let Inner { places, is_stuck, .. } = &*self.0;
        // With all places free nothing hangs any more.
        if is_stuck.load(Ordering::Relaxed) && places.available_permits() < AT_ONCE {
            return None;
        }
        let (places, moves) = (places.clone(), is_stuck.clone());
        let working = async move {
            let place = places.acquire_owned().await.ok()?;
            let working = tokio::task::spawn_blocking(move || {
                let done = work();
                moves.store(false, Ordering::Relaxed);
                drop(place);
                done
            });
            working.await.ok()
        };
        let done = timeout(within.min(DISK_WITHIN), working).await;
        if done.is_err() && within >= DISK_WITHIN {
            is_stuck.store(true, Ordering::Relaxed);
        }
        done.ok().flatten()
    }
}

impl Shelf {
    fn find(&self, digest: &Digest, class: DataClass, ttl: Duration) -> Option<(Kept, Duration)> {
        let name = self.press.name(digest);
        let bytes = self.folder.read(&name)?;
        let read = self.press.read(&bytes, digest).filter(|(head, _)| head.class == class);
        let now = clock::stamp();
        let found = read.and_then(|(head, kept)| Some((kept, head.age_ms(&now)?)));
        let Some((kept, age_ms)) = found else {
            self.folder.remove(&name);
            return None;
        };
        let age = Duration::from_millis(age_ms);
        (age < ttl).then_some((kept, age))
    }

    fn keep(&self, digest: &Digest, class: DataClass, ttl: Duration, kept: &Kept) {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let head = Head { class, ttl_ms, kept: clock::stamp() };
        if let Some(bytes) = self.press.write(head, digest, kept) {
            self.folder.keep(self.press.name(digest), head, &bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn config(ttl: Duration) -> CacheConfig {
        let classes = vec![DataClass::Public, DataClass::Internal];
        let rules = vec![Rule { models: vec![ALL.to_owned()], classes, ttl }];
        CacheConfig { max_bytes: 1 << 20, key: None, rules }
    }

    fn kept(text: &str) -> Kept {
        let what = What::Text(text.to_owned());
        Kept { place: "near".to_owned(), way: [1; 32], what }
    }

    #[tokio::test]
    async fn an_answer_is_found_for_its_time_under_its_class_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let (digest, class) = (Digest([1; 32]), DataClass::Internal);
        let cache = Cache::open(dir.path(), &config(HOUR), 0).await.unwrap();
        assert_eq!(cache.find(digest, class, HOUR, HOUR).await, None);
        cache.keep(digest, class, HOUR, kept("one")).await;
        let again = Cache::open(dir.path(), &config(HOUR), 0).await.unwrap();
        for cache in [&cache, &again] {
            let (found, age) = cache.find(digest, class, HOUR, HOUR).await.unwrap();
            assert_eq!(found, kept("one"));
            assert!(age < HOUR / 60, "{age:?}");
        }
        // What the operator has shortened since counts, too.
        assert_eq!(cache.find(digest, class, Duration::ZERO, HOUR).await, None);
        assert_eq!(cache.find(Digest([2; 32]), class, HOUR, HOUR).await, None);
        // Another key: nothing is found, and nothing in the way.
        std::fs::write(dir.path().join("store.key"), [9; 32]).unwrap();
        let other = Cache::open(dir.path(), &config(HOUR), 0).await.unwrap();
        assert_eq!(other.find(digest, class, HOUR, HOUR).await, None);
        other.keep(digest, class, HOUR, kept("two")).await;
        assert_eq!(other.find(digest, class, HOUR, HOUR).await.unwrap().0, kept("two"));
    }

    #[tokio::test]
    async fn a_burst_of_questions_finds_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (digest, class) = (Digest([1; 32]), DataClass::Internal);
        let cache = Cache::open(dir.path(), &config(HOUR), 0).await.unwrap();
        cache.keep(digest, class, HOUR, kept("one")).await;
        let all = u32::try_from(AT_ONCE).unwrap();
        let places = cache.0.places.clone().acquire_many_owned(all).await.unwrap();
        let asking = join_all((0..10 * AT_ONCE).map(|_| cache.find(digest, class, HOUR, HOUR)));
        let mut asking = std::pin::pin!(asking);
        assert!((&mut asking).now_or_never().is_none(), "they wait for a place");
        drop(places);
        assert!(asking.await.iter().all(Option::is_some));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_disk_that_is_stuck() {
        let dir = tempfile::tempdir().unwrap();
        let (digest, class) = (Digest([1; 32]), DataClass::Internal);
        let cache = Cache::open(dir.path(), &config(HOUR), 0).await.unwrap();
        let all = u32::try_from(AT_ONCE).unwrap();
        let stuck = cache.0.places.clone().acquire_many_owned(all).await.unwrap();
        for (within, waited) in [
            (Duration::from_millis(50), Duration::from_millis(50)),
            (HOUR, DISK_WITHIN),
            (HOUR, Duration::ZERO),
        ] {
            let began = tokio::time::Instant::now();
            assert_eq!(cache.find(digest, class, HOUR, within).await, None);
            assert_eq!(began.elapsed().as_millis() / 10, waited.as_millis() / 10);
        }
        drop(stuck);
        assert_eq!(cache.behind(HOUR, || 7).await, Some(7), "it goes again");
        assert!(!cache.0.is_stuck.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_is_over_or_damaged_is_a_miss_and_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (digest, class) = (Digest([1; 32]), DataClass::Public);
        let cache = Cache::open(dir.path(), &config(HOUR), 0).await.unwrap();
        let files = || {
            let entries = std::fs::read_dir(dir.path().join("cache")).unwrap();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        cache.keep(digest, class, Duration::from_nanos(1), kept("one")).await;
        assert_eq!(files().len(), 1);
        assert_eq!(cache.find(digest, class, HOUR, HOUR).await, None);
        assert!(files().is_empty(), "{:?}", files());
        for damage in [&b""[..], b"HFC1", &[0; 200]] {
            cache.keep(digest, class, HOUR, kept("one")).await;
            std::fs::write(&files()[0], damage).unwrap();
            assert_eq!(cache.find(digest, class, HOUR, HOUR).await, None);
            assert!(files().is_empty(), "{:?}", files());
        }
    }

    #[tokio::test]
    async fn without_a_rule_there_is_nothing_and_without_a_time_nothing_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let (digest, class) = (Digest([1; 32]), DataClass::Internal);
        let cache = Cache::open(dir.path(), &config(HOUR), 0).await.unwrap();
        cache.keep(digest, class, HOUR, kept("one")).await;
        let shares = Cache::open(dir.path(), &config(Duration::ZERO), 0).await.unwrap();
        assert_eq!(shares.ttl("any", class), Some(Duration::ZERO));
        assert!(!dir.path().join("cache").exists(), "what no rule keeps is gone");
        shares.keep(digest, class, Duration::ZERO, kept("one")).await;
        assert_eq!(shares.find(digest, class, Duration::ZERO, HOUR).await, None);
        assert!(!dir.path().join("cache").exists());
        let none = CacheConfig { rules: Vec::new(), ..config(HOUR) };
        assert!(Cache::open(dir.path(), &none, 0).await.is_none());
    }
}
