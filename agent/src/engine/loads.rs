//! The loads that are under way: each goes on when nobody waits for it, and whoever asks for the same
//! meanwhile waits for the same one.
//!
//! **Invariant:** of one thing at most one load is listed, and it is listed until it is over or given up.
//! What was given up stays so: its [`Turn`] says it, and nothing of it comes into service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use holdfast_models::Bundle;

use super::{EngineError, panicked};

/// A load that several may wait for.
type Load = Shared<BoxFuture<'static, Result<(), EngineError>>>;

/// What is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// The bundle's name.
    pub(super) name: String,
    /// This version; `None`: the one that its folders make the default.
    pub(super) version: Option<String>,
}

impl Wanted {
    /// This version of it.
    pub(super) fn of(bundle: &Bundle) -> Self {
        let version = Some(bundle.version().to_owned());
        Self { name: bundle.name().to_owned(), version }
    }
}

/// One load's right to change what is in service, until it is given up.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Whether the load was given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A load that was begun, or was under way.
pub(super) struct Joined {
    pub(super) load: Load,
    pub(super) turn: Turn,
    /// Somebody else began it.
    pub(super) is_others: bool,
}

/// One load, which is listed until this is dropped.
struct Own {
    loads: Loads,
    wanted: Wanted,
    turn: Turn,
}

impl Drop for Own {
    fn drop(&mut self) {
        let mut listed = self.loads.listed();
        let is_own = |(turn, _): &(Turn, Load)| Arc::ptr_eq(&turn.0, &self.turn.0);
        if listed.get(&self.wanted).is_some_and(is_own) {
            listed.remove(&self.wanted);
        }
    }
}

/// The loads under way, by what they load.
#[derive(Debug, Clone, Default)]
pub(super) struct Loads(Arc<Mutex<HashMap<Wanted, (Turn, Load)>>>);

impl Loads {
    /// The load of this that is under way, or `begin` as a new one, on a task of its own.
    pub(super) fn join<F>(&self, wanted: &Wanted, begin: impl FnOnce(Turn) -> F) -> Joined
    where
        F: Future<Output = Result<(), EngineError>> + Send + 'static,
    {
        let mut listed = self.listed();
        if let Some((turn, load)) = listed.get(wanted) {
            return Joined { load: load.clone(), turn: turn.clone(), is_others: true };
        }
        let turn = Turn::default();
        let own = Own { loads: self.clone(), wanted: wanted.clone(), turn: turn.clone() };
        let work = begin(turn.clone());
        let task = tokio::spawn(async move {
            let _own = own;
            work.await
        });
        let model = wanted.name.clone();
        let load = task.map(move |ended| {
            ended
                .unwrap_or_else(|panic| Err(EngineError::NotReady { model, why: panicked(&panic) }))
        });
        let load = load.boxed().shared();
        listed.insert(wanted.clone(), (turn.clone(), load.clone()));
        Joined { load, turn, is_others: false }
    }

    /// Gives up what is being loaded of this name: whoever asks next begins anew.
    pub(super) fn give_up(&self, name: &str) {
        self.listed().retain(|wanted, (turn, _)| {
            let is_kept = wanted.name != name;
            if !is_kept {
                turn.0.store(true, Ordering::Release);
            }
            is_kept
        });
    }

    /// Whether something is being loaded of this name.
    #[cfg(test)]
    pub(super) fn has(&self, name: &str) -> bool {
        self.listed().keys().any(|wanted| wanted.name == name)
    }

    fn listed(&self) -> MutexGuard<'_, HashMap<Wanted, (Turn, Load)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Notify;

    use super::*;
    use crate::engine::tests::deadline::{until, within};

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
            until("a load begins", || self.begun.load(Ordering::Relaxed) >= count).await;
        }
    }

    fn wanted(name: &str) -> Wanted {
        Wanted { name: name.to_owned(), version: None }
    }

    #[tokio::test]
    async fn a_load_goes_on_without_its_caller_and_the_next_one_joins_it() {
        let (loads, gate) = (Loads::default(), Gate::default());
        let join = |name| loads.join(&wanted(name), |_| gate.begin());
        let first = join("a");
        assert!(!first.is_others);
        gate.until_begun(1).await;
        drop(first);
        let second = join("a");
        assert!(second.is_others);
        assert!(!join("b").is_others, "another one is no part of it");
        let version = Wanted { version: Some("1.0.0".to_owned()), ..wanted("a") };
        assert!(!loads.join(&version, |_| gate.begin()).is_others, "nor is another version");
        gate.until_begun(3).await;
        gate.open.notify_waiters();
        assert!(within(second.load).await.is_ok());
        assert_eq!(gate.begun.load(Ordering::Relaxed), 3);
        assert!(!join("a").is_others, "what is over is not joined");
    }

    #[tokio::test]
    async fn what_was_given_up_or_panicked_is_begun_anew() {
        let (loads, gate) = (Loads::default(), Gate::default());
        let join = |name| loads.join(&wanted(name), |_| gate.begin());
        let (first, other) = (join("a"), join("b"));
        loads.give_up("a");
        assert!(first.turn.is_given_up() && !other.turn.is_given_up());
        let second = join("a");
        assert!(!second.is_others && !second.turn.is_given_up());
        gate.until_begun(3).await;
        gate.open.notify_waiters();
        assert!(within(first.load).await.is_ok());
        assert!(within(second.load).await.is_ok());
        let broken = loads.join(&wanted("c"), |_| async { panic!("a bug") });
        let error = within(broken.load).await.unwrap_err().to_string();
        assert!(error.contains("report this as a bug"), "{error}");
        assert!(!join("c").is_others);
    }
}
