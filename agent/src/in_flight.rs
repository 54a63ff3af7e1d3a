//! Owns work under way that several wait for: whoever asks for the same meanwhile waits with the first.
//!
//! Who waits works on it, so that it goes on when the first one goes away, and ends with the last.
//!
//! **Invariant:** under one key at most one work is under way; it is found here until its listing is
//! dropped.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// Work that several may wait for.
pub(crate) type Working<T> = Shared<BoxFuture<'static, T>>;

/// What is under way, by `K`; of each `A` is known, and it comes out as `T`. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct InFlight<K: Hash + Eq, A, T: Clone>(Arc<Mutex<Works<K, A, T>>>);

#[derive(Debug)]
struct Works<K: Hash + Eq, A, T: Clone> {
    by_key: HashMap<K, UnderWay<A, T>>,
    next: u64,
}

#[derive(Debug)]
struct UnderWay<A, T: Clone> {
    number: u64,
    about: A,
    work: WeakShared<BoxFuture<'static, T>>,
}

/// Work is found as long as this is there.
pub(crate) struct Listed<K: Hash + Eq, A, T: Clone> {
    works: Arc<Mutex<Works<K, A, T>>>,
    key: K,
    number: u64,
}

impl<K: Hash + Eq, A, T: Clone> Drop for Listed<K, A, T> {
    fn drop(&mut self) {
        let mut works = lock(&self.works);
        if works.by_key.get(&self.key).is_some_and(|each| each.number == self.number) {
            works.by_key.remove(&self.key);
        }
    }
}

impl<K: Hash + Eq, A, T: Clone> Default for InFlight<K, A, T> {
    fn default() -> Self {
        let works = Works { by_key: HashMap::new(), next: 0 };
        Self(Arc::new(Mutex::new(works)))
    }
}

impl<K: Hash + Eq + Clone, A: Clone, T: Clone> InFlight<K, A, T> {
    /// What is known of the work under `key` that can be joined.
    pub(crate) fn about<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<A>
    where
        K: Borrow<Q>,
    {
        let known =
            lock(&self.0).by_key.get(key).map(|each| (each.work.upgrade(), each.about.clone()));
        // Should it be the last to go, it needs the list to be taken off it.
        known.and_then(|(work, about)| work.map(|_| about))
    }

    /// The work under way under `key`, with what is known of it; or `begin` as a new one, of which `about` is
    /// known.
    pub(crate) fn join(
        &self,
        key: K,
        about: A,
        begin: impl FnOnce(Listed<K, A, T>) -> BoxFuture<'static, T>,
    ) -> (Working<T>, Option<A>) {
        let mut works = lock(&self.0);
        let known = works.by_key.get(&key);
        if let Some((work, about)) =
            known.and_then(|each| Some((each.work.upgrade()?, each.about.clone())))
        {
            return (work, Some(about));
        }
        let number = works.next;
        works.next += 1;
        // It does nothing before it is waited for.
        let listed = Listed { works: self.0.clone(), key: key.clone(), number };
        let work = begin(listed).shared();
        if let Some(weak) = work.downgrade() {
            works.by_key.insert(key, UnderWay { number, about, work: weak });
        }
        (work, None)
    }
}

fn lock<K: Hash + Eq, A, T: Clone>(
    works: &Mutex<Works<K, A, T>>,
) -> MutexGuard<'_, Works<K, A, T>> {
    works.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    type Sends = InFlight<[u8; 32], u8, u32>;

    /// A send that ends with this number when the door is open.
    fn send(
        door: &watch::Sender<bool>,
        number: u32,
    ) -> impl FnOnce(Listed<[u8; 32], u8, u32>) -> BoxFuture<'static, u32> {
        let mut open = door.subscribe();
        move |listed| {
            let sending = async move {
                open.wait_for(|open| *open).await.unwrap();
                drop(listed);
                number
            };
            sending.boxed()
        }
    }

    #[tokio::test]
    async fn who_asks_meanwhile_waits_with_the_first_and_goes_on_without_it() {
        let (in_flight, door) = (Sends::default(), watch::Sender::new(false));
        assert_eq!(in_flight.about(&KEY), None);
        let (first, joined) = in_flight.join(KEY, 1, send(&door, 1));
        assert_eq!((joined, in_flight.about(&KEY)), (None, Some(1)));
        let (second, joined) = in_flight.join(KEY, 2, send(&door, 2));
        assert_eq!(joined, Some(1));
        let (other, joined) = in_flight.join([8; 32], 3, send(&door, 3));
        assert_eq!(joined, None, "another key");
        let mut first = Box::pin(first);
        assert!((&mut first).now_or_never().is_none(), "it is at work");
        drop(first);
        door.send_replace(true);
        assert_eq!((second.await, other.await), (1, 3));
        let (third, joined) = in_flight.join(KEY, 4, send(&door, 4));
        assert_eq!((third.await, joined), (4, None), "what is over is not joined");
        assert!(lock(&in_flight.0).by_key.is_empty());
    }

    #[tokio::test]
    async fn a_send_ends_with_the_last_who_waits_for_it() {
        let (in_flight, door) = (Sends::default(), watch::Sender::new(false));
        let (first, _) = in_flight.join(KEY, 1, send(&door, 1));
        let (second, _) = in_flight.join(KEY, 2, send(&door, 2));
        drop(first);
        assert_eq!(door.receiver_count(), 1, "it goes on");
        drop(second);
        assert_eq!(door.receiver_count(), 0);
        assert!(lock(&in_flight.0).by_key.is_empty());
    }
}
