//! Owns the sends under way that are shared: whoever asks the very same meanwhile waits with the first.
//!
//! Who waits works on the send, so that it goes on when the first one goes away, and ends with the last.
//!
//! **Invariant:** under one key at most one send is under way; it is found here until its listing is
//! dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use tokio::time::Instant;

/// A send that several may wait for.
pub(super) type Sending<T> = Shared<BoxFuture<'static, T>>;

/// The sends under way.
#[derive(Debug)]
pub(super) struct InFlight<T: Clone>(Arc<Mutex<Sends<T>>>);

#[derive(Debug)]
struct Sends<T: Clone> {
    by_key: HashMap<[u8; 32], UnderWay<T>>,
    next: u64,
}

#[derive(Debug)]
struct UnderWay<T: Clone> {
    number: u64,
    /// When the time of who began it ends.
    until: Instant,
    send: WeakShared<BoxFuture<'static, T>>,
}

/// A send is found as long as this is there.
pub(super) struct Listed<T: Clone> {
    sends: Arc<Mutex<Sends<T>>>,
    key: [u8; 32],
    number: u64,
}

impl<T: Clone> Drop for Listed<T> {
    fn drop(&mut self) {
        let mut sends = lock(&self.sends);
        if sends.by_key.get(&self.key).is_some_and(|each| each.number == self.number) {
            sends.by_key.remove(&self.key);
        }
    }
}

impl<T: Clone> Default for InFlight<T> {
    fn default() -> Self {
        let sends = Sends { by_key: HashMap::new(), next: 0 };
        Self(Arc::new(Mutex::new(sends)))
    }
}

impl<T: Clone> InFlight<T> {
    /// Whether a send under `key` can be joined.
    pub(super) fn is_under_way(&self, key: [u8; 32]) -> bool {
        let send = lock(&self.0).by_key.get(&key).and_then(|each| each.send.upgrade());
        // Should it be the last to go, it needs the list to be taken off it.
        send.is_some()
    }

    /// The send under way under `key`, with the end of the time of who began it; or `begin` as a new one,
    /// whose time ends at `until`.
    pub(super) fn join(
        &self,
        key: [u8; 32],
        until: Instant,
        begin: impl FnOnce(Listed<T>) -> BoxFuture<'static, T>,
    ) -> (Sending<T>, Option<Instant>) {
        let mut sends = lock(&self.0);
        let known = sends.by_key.get(&key);
        if let Some((send, until)) = known.and_then(|each| Some((each.send.upgrade()?, each.until)))
        {
            return (send, Some(until));
        }
        let number = sends.next;
        sends.next += 1;
        // It does nothing before it is waited for.
        let send = begin(Listed { sends: self.0.clone(), key, number }).shared();
        if let Some(weak) = send.downgrade() {
            sends.by_key.insert(key, UnderWay { number, until, send: weak });
        }
        (send, None)
    }
}

fn lock<T: Clone>(sends: &Mutex<Sends<T>>) -> MutexGuard<'_, Sends<T>> {
    sends.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    /// A send that ends with this number when the door is open.
    fn send(
        door: &watch::Sender<bool>,
        number: u32,
    ) -> impl FnOnce(Listed<u32>) -> BoxFuture<'static, u32> {
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
        let (in_flight, door) = (InFlight::default(), watch::Sender::new(false));
        let until = Instant::now();
        let (first, joined) = in_flight.join(KEY, until, send(&door, 1));
        assert_eq!(joined, None);
        let (second, joined) = in_flight.join(KEY, Instant::now(), send(&door, 2));
        assert_eq!(joined, Some(until));
        let (other, joined) = in_flight.join([8; 32], until, send(&door, 3));
        assert_eq!(joined, None, "another key");
        let mut first = Box::pin(first);
        assert!((&mut first).now_or_never().is_none(), "it is at work");
        drop(first);
        door.send_replace(true);
        assert_eq!((second.await, other.await), (1, 3));
        let (third, joined) = in_flight.join(KEY, until, send(&door, 4));
        assert_eq!((third.await, joined), (4, None), "what is over is not joined");
        assert!(lock(&in_flight.0).by_key.is_empty());
    }

    #[tokio::test]
    async fn a_send_ends_with_the_last_who_waits_for_it() {
        let (in_flight, door) = (InFlight::default(), watch::Sender::new(false));
        let (first, _) = in_flight.join(KEY, Instant::now(), send(&door, 1));
        let (second, _) = in_flight.join(KEY, Instant::now(), send(&door, 2));
        drop(first);
        assert_eq!(door.receiver_count(), 1, "it goes on");
        drop(second);
        assert_eq!(door.receiver_count(), 0);
        assert!(lock(&in_flight.0).by_key.is_empty());
    }
}
