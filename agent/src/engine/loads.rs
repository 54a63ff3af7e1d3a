//! The loads that are under way: each goes on when nobody waits for it, and whoever asks for the same
//! meanwhile waits for the same one.
//!
//! **Invariant:** of one name at most one load is listed, and it is listed until it is over or given up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use super::{EngineError, panicked};

/// A load that several may wait for.
type Load = Shared<BoxFuture<'static, Result<(), EngineError>>>;

/// One load, which is listed until this is dropped.
struct Own {
    loads: Loads,
    name: String,
    number: u64,
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut listed = self.loads.listed();
        if listed.loads.get(&self.name).is_some_and(|(own, _)| *own == self.number) {
            listed.loads.remove(&self.name);
        }
    }
}

/// The loads under way, by the bundle's name.
#[derive(Debug, Clone, Default)]
pub(super) struct Loads(Arc<Mutex<Listed>>);

#[derive(Debug, Default)]
struct Listed {
    number: u64,
    loads: HashMap<String, (u64, Load)>,
}

impl Loads {
    /// The load of this name that is under way, or `begin` as a new one, on a task of its own. True:
    /// somebody else began it.
    pub(super) fn join<F>(&self, name: &str, begin: impl FnOnce() -> F) -> (Load, bool)
    where
        F: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let mut listed = self.listed();
        if let Some((_, load)) = listed.loads.get(name) {
            return (load.clone(), true);
        }
        listed.number += 1;
        let number = listed.number;
        let own = Own { loads: self.clone(), name: name.to_owned(), number };
        let work = begin();
        let task = tokio::spawn(async move {
            let _own = own;
            work.await
        });
        let own = name.to_owned();
        let load = task.map(move |ended| {
            ended.unwrap_or_else(|panic| {
                Err(EngineError::NotReady { model: own, why: panicked(&panic) })
            })
        });
        let load = load.boxed().shared();
        listed.loads.insert(name.to_owned(), (number, load.clone()));
        (load, false)
    }

    /// Lists the load of this name no longer: whoever asks next begins anew.
    pub(super) fn give_up(&self, name: &str) {
        self.listed().loads.remove(name);
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Loads that count themselves and end when they are let.
    #[derive(Clone, Default)]
    struct Gate {
        begun: Arc<AtomicUsize>,
        open: Arc<Notify>,
    }

    impl Gate {
        fn begin(&self) -> impl Future<Output = Result<(), EngineError>> + Send + 'static {
            let Self { begun, open } = self.clone();
            async move {
                begun.fetch_add(1, Ordering::Relaxed);
                open.notified().await;
                Ok(())
            }
        }

        async fn until_begun(&self, count: usize) {
            while self.begun.load(Ordering::Relaxed) < count {
                tokio::task::yield_now().await;
            }
        }
    }

    #[tokio::test]
    async fn a_load_goes_on_without_its_caller_and_the_next_one_joins_it() {
        let (loads, gate) = (Loads::default(), Gate::default());
        let (first, is_joined) = loads.join("a", || gate.begin());
        assert!(!is_joined);
        gate.until_begun(1).await;
        drop(first);
        let (second, is_joined) = loads.join("a", || gate.begin());
        assert!(is_joined);
        assert!(!loads.join("b", || gate.begin()).1, "another one is no part of it");
        gate.until_begun(2).await;
        gate.open.notify_waiters();
        assert!(second.await.is_ok());
        assert_eq!(gate.begun.load(Ordering::Relaxed), 2);
        assert!(!loads.join("a", || gate.begin()).1, "what is over is not joined");
    }

    #[tokio::test]
    async fn what_was_given_up_or_panicked_is_begun_anew() {
        let (loads, gate) = (Loads::default(), Gate::default());
        let (first, _) = loads.join("a", || gate.begin());
        loads.give_up("a");
        let (second, is_joined) = loads.join("a", || gate.begin());
        assert!(!is_joined);
        gate.until_begun(2).await;
        gate.open.notify_waiters();
        assert!(first.await.is_ok() && second.await.is_ok());
        let (broken, _) = loads.join("c", || async { panic!("a bug") });
        let error = broken.await.unwrap_err().to_string();
        assert!(error.contains("report this as a bug"), "{error}");
        assert!(!loads.join("c", || gate.begin()).1);
    }
}
