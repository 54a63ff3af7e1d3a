//! Owns the calls under way that have an idempotency key: whoever asks the same again meanwhile waits
//! with the first for one result, and nothing is sent or paid twice (`in_flight.rs`).
//!
//! **Invariant:** under one key at most one call is under way, and it is found here until its outcome can
//! be found in the queue.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::ask_error::AskError;
use crate::asked::Asked;
use crate::in_flight::{InFlight, Working};
use crate::queue::{Idempotency, QueueError, RequestId};
use crate::reply::Reply;

/// How a call comes out.
pub type Outcome = Result<Reply, AskError>;

/// A call that several may wait for.
type Call = Working<Outcome>;

/// The calls under way, by key.
#[derive(Debug, Clone, Default)]
pub struct Together(InFlight<String, Known, Outcome>);

/// What is known of a call under way.
#[derive(Debug, Clone)]
struct Known {
    id: RequestId,
    asked: Asked,
    digest: [u8; 32],
}

impl Together {
    /// The call under way under this name, or `begin` as a new one. True: somebody else began it.
    ///
    /// # Errors
    /// [`QueueError::KeyConflict`] when something else is asked under the key.
    pub fn join(
        &self,
        name: &Idempotency,
        (id, asked): (RequestId, &Asked),
        begin: impl FnOnce() -> BoxFuture<'static, Outcome>,
    ) -> Result<(Call, bool), QueueError> {
        let about = Known { id, asked: asked.clone(), digest: name.digest };
        let (call, known) = self.0.join(name.key.clone(), about, |listed| {
            let work = begin();
            let call = async move {
                let outcome = work.await;
                drop(listed);
                outcome
            };
            call.boxed()
        });
        match known {
            Some(known) if known.digest != name.digest => {
                Err(QueueError::KeyConflict { key: name.key.clone(), id: known.id })
            }
            known => Ok((call, known.is_some())),
        }
    }

    /// What is asked by the call under way under a key.
    pub fn asked(&self, key: &str) -> Option<Asked> {
        self.0.about(key).map(|known| known.asked)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;

    use super::*;
    use crate::request::{DataClass, Escalate, TaskName};

    fn asked() -> Asked {
        let task = TaskName::parse("look-up").unwrap();
        let (class, escalate) = (DataClass::Internal, Escalate::Auto);
        Asked { task, class, escalate, media_type: "audio/wav".to_owned() }
    }

    fn name(key: &str, digest: u8) -> Idempotency {
        Idempotency { key: key.to_owned(), digest: [digest; 32] }
    }

    /// A call that says its number when the door opens.
    struct Door {
        begun: Arc<AtomicUsize>,
        open: watch::Sender<bool>,
    }

    impl Door {
        fn new() -> Self {
            Self { begun: Arc::default(), open: watch::Sender::new(false) }
        }

        fn call(&self) -> BoxFuture<'static, Outcome> {
            let (begun, mut open) = (self.begun.clone(), self.open.subscribe());
            async move {
                let nth = begun.fetch_add(1, Ordering::Relaxed) + 1;
                drop(open.wait_for(|open| *open).await);
                Err(AskError::Input(format!("call {nth}")))
            }
            .boxed()
        }

        fn join(&self, together: &Together, name: &Idempotency) -> Call {
            together.join(name, (RequestId::new(), &asked()), || self.call()).unwrap().0
        }
    }

    fn said(outcome: Outcome) -> String {
        outcome.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn who_asks_the_same_waits_for_the_same_call() {
        let (together, door) = (Together::default(), Door::new());
        let calls: Vec<_> =
            (0..8).map(|_| tokio::spawn(door.join(&together, &name("k", 1)))).collect();
        let other = tokio::spawn(door.join(&together, &name("another", 1)));
        while door.begun.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        let refused = together.join(&name("k", 2), (RequestId::new(), &asked()), || door.call());
        assert!(matches!(refused, Err(QueueError::KeyConflict { .. })));
        assert_eq!((together.asked("k"), together.asked("l")), (Some(asked()), None));
        door.open.send_replace(true);
        let mut told = Vec::new();
        for call in calls {
            told.push(said(call.await.unwrap()));
        }
        assert!(told.iter().all(|said| *said == told[0]), "{told:?}");
        assert_ne!(said(other.await.unwrap()), told[0]);
        assert_eq!(together.asked("k"), None, "what is done is not listed");
        assert_eq!(said(door.join(&together, &name("k", 2)).await), "call 3");
    }

    #[tokio::test]
    async fn the_call_goes_on_without_its_first_caller_and_ends_with_its_last() {
        let (together, door) = (Together::default(), Door::new());
        let mut first = door.join(&together, &name("k", 1));
        assert!((&mut first).now_or_never().is_none(), "it is at work");
        let second = tokio::spawn(door.join(&together, &name("k", 1)));
        tokio::task::yield_now().await;
        drop(first);
        door.open.send_replace(true);
        assert_eq!(said(second.await.unwrap()), "call 1");
        door.open.send_replace(false);
        let mut left = door.join(&together, &name("k", 1));
        assert!((&mut left).now_or_never().is_none());
        drop(left);
        assert_eq!(together.asked("k"), None, "nobody waits for it");
        let refused = together.join(&name("k", 2), (RequestId::new(), &asked()), || door.call());
        assert!(refused.is_ok(), "its key is free");
    }
}
