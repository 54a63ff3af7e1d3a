//! Owns the turns of calls under one idempotency key: one at a time asks, and who comes meanwhile waits for
//! what becomes of it.
//!
//! **Invariant:** who has a key's turn is alone with it; it ends with the call, however that ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Turns, OwnedMutexGuard};
use tokio::time::timeout;

/// The keys under which somebody asks now.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Arc<Mutex<HashMap<String, Weak<Turns<()>>>>>);

/// That nobody else asks under a key, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _alone: OwnedMutexGuard<()>,
}

impl Keys {
    /// The next turn of `key`; `None`: it did not come `within` that time.
    pub(super) async fn turn(&self, key: &str, within: Duration) -> Option<Turn> {
        let turns = self.turns(key);
        timeout(within, turns.lock_owned()).await.ok().map(|alone| Turn { _alone: alone })
    }

    fn turns(&self, key: &str) -> Arc<Turns<()>> {
        // What a panicked holder left is keys all the same.
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = keys.get(key).and_then(Weak::upgrade) {
            return turns;
        }
        keys.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::default();
        keys.insert(key.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_key_has_one_turn_at_a_time_and_is_forgotten() {
        let keys = Keys::default();
        let first = keys.turn("k", LONG).await.unwrap();
        assert!(keys.turn("another", LONG).now_or_never().flatten().is_some());
        let mut second = Box::pin(keys.turn("k", LONG));
        assert!((&mut second).now_or_never().is_none(), "somebody asks");
        assert!(keys.turn("k", Duration::from_secs(1)).await.is_none(), "it waits no longer");
        drop(first);
        assert!(second.await.is_some());
        assert!(keys.turn("a third", LONG).await.is_some());
        assert_eq!(keys.0.lock().unwrap().len(), 1, "what is over is forgotten");
    }
}
