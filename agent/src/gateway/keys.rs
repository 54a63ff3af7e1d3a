//! Owns the turns of calls under one idempotency key: one at a time asks, and who comes meanwhile with the
//! same content waits for what becomes of it. Another content is told at once that the key is taken.
//!
//! **Invariant:** who has a key's turn is alone with it; it ends with the call, however that ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Turns, OwnedMutexGuard};
use tokio::time::timeout;

use crate::ask_error::AskError;
use crate::asked::conversations_differ;
use crate::queue::{Idempotency, RequestId};
use crate::request::DataClass;

/// The keys under which somebody asks now.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Arc<Mutex<HashMap<String, UnderWay>>>);

/// What is asked under a key.
#[derive(Debug)]
struct UnderWay {
    id: RequestId,
    model: String,
    class: DataClass,
    digest: [u8; 32],
    turns: Weak<Turns<()>>,
}

/// That nobody else asks under a key, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _alone: OwnedMutexGuard<()>,
}

impl Keys {
    /// The next turn under this name, for a request to this model.
    ///
    /// # Errors
    /// [`AskError::UnderWay`] when it does not come `within` that time, [`AskError::Conflict`] when something
    /// else is asked under the key now.
    pub(super) async fn turn(
        &self,
        name: &Idempotency,
        asked: (RequestId, &str, DataClass),
        within: Duration,
    ) -> Result<Turn, AskError> {
        let turns = self.turns(name, asked)?;
        let alone = timeout(within, turns.lock_owned()).await.map_err(|_| AskError::UnderWay)?;
        Ok(Turn { _alone: alone })
    }

    fn turns(
        &self,
        name: &Idempotency,
        (id, model, class): (RequestId, &str, DataClass),
    ) -> Result<Arc<Turns<()>>, AskError> {
        // What a panicked holder left is keys all the same.
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(&name.key);
        if let Some((known, turns)) = known.and_then(|each| Some((each, each.turns.upgrade()?))) {
            if known.digest == name.digest {
                return Ok(turns);
            }
            let before = (Some(known.model.as_str()), known.class);
            let differs = Some(conversations_differ((model, class), before));
            return Err(AskError::Conflict { key: name.key.clone(), id: known.id, differs });
        }
        keys.retain(|_, known| known.turns.strong_count() > 0);
        let turns = Arc::default();
        let (model, digest) = (model.to_owned(), name.digest);
        let under_way = UnderWay { id, model, class, digest, turns: Arc::downgrade(&turns) };
        keys.insert(name.key.clone(), under_way);
        Ok(turns)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn name(key: &str, digest: u8) -> Idempotency {
        Idempotency { key: key.to_owned(), digest: [digest; 32] }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_has_one_turn_at_a_time_and_is_forgotten() {
        let keys = Keys::default();
        let first_id = RequestId::new();
        let asked = (first_id, "near", DataClass::Internal);
        let first = keys.turn(&name("k", 1), asked, LONG).await.unwrap();
        assert!(keys.turn(&name("another", 2), asked, LONG).now_or_never().unwrap().is_ok());
        let same = name("k", 1);
        let mut second = Box::pin(keys.turn(&same, asked, LONG));
        assert!((&mut second).now_or_never().is_none(), "somebody asks");
        let late = keys.turn(&same, asked, Duration::from_secs(1)).await.unwrap_err();
        assert!(matches!(late, AskError::UnderWay), "it waits no longer: {late}");
        drop(first);
        assert!(second.await.is_ok());
        assert!(keys.turn(&name("a third", 1), asked, LONG).await.is_ok());
        assert_eq!(keys.0.lock().unwrap().len(), 1, "what is over is forgotten");
    }

    #[tokio::test]
    async fn another_content_hears_of_the_conflict_at_once_and_as_long_as_somebody_asks() {
        let keys = Keys::default();
        let first_id = RequestId::new();
        let asked = (first_id, "near", DataClass::Internal);
        let first = keys.turn(&name("k", 1), asked, LONG).await.unwrap();
        for (model, class, want) in [
            ("near", DataClass::Internal, "the conversation, or a setting of it, is another one"),
            ("far", DataClass::Internal, "the model is another one"),
            ("near", DataClass::Public, "class is public, was internal"),
        ] {
            let other = (RequestId::new(), model, class);
            let told = keys.turn(&name("k", 2), other, LONG).now_or_never().unwrap().unwrap_err();
            let AskError::Conflict { key, id, differs } = told else { panic!("{told}") };
            assert_eq!((key.as_str(), id, differs.as_deref()), ("k", first_id, Some(want)));
        }
        drop(first);
        assert!(keys.turn(&name("k", 2), asked, LONG).await.is_ok(), "the key is free");
    }
}
