//! Owns where work on bodies is done, and the room of what is made of them.
//!
//! **Invariant:** the reactor does no work that takes longer than a fraction of a millisecond. A body and
//! its tensors take room like the larger of the two.

use super::refusal::{Kind, Refusal};
use crate::api::body::{Place, Room};

/// Work of this weight is done where it is: a copy of so many bytes takes a tenth of a millisecond, and
/// handing it over to another thread and back would take a good part of that.
const SMALL: usize = 1 << 20;
/// A byte of JSON is as much work as so many of a binary tensor.
pub(super) const TEXT_WEIGHT: usize = 16;

/// Does work of a weight: about so many bytes that are copied.
pub(super) async fn off_reactor<T: Send + 'static>(
    weight: usize,
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    if weight <= SMALL {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| {
        Err(Refusal::new(Kind::Failed, "the request could not be worked on; report this as a bug"))
    })
}

/// The room of tensors that come in place of a body's bytes.
pub(super) struct InPlaceOf<'a> {
    /// Bytes that have room, and that are needed.
    covered: usize,
    needed: usize,
    room: &'a Room,
    busy_s: u64,
    place: &'a mut Place,
}

impl<'a> InPlaceOf<'a> {
    /// In place of a body of so many bytes, which has its room.
    pub(super) fn body(bytes: usize, room: &'a Room, busy_s: u64, place: &'a mut Place) -> Self {
        Self { covered: bytes, needed: 0, room, busy_s, place }
    }

    /// Takes room for a tensor of so many bytes.
    ///
    /// # Errors
    /// There is not so much, now or ever.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.needed = self.needed.saturating_add(bytes);
        let most = self.room.all_bytes();
        if self.needed > most {
            return Err(Refusal::new(
                Kind::TooLarge,
                format!(
                    "the tensors of the request take {} bytes, api.max_body_memory_mib allows \
                     {most} for all requests: send fewer at once, or in binary",
                    self.needed
                ),
            ));
        }
        let more = self.needed.saturating_sub(self.covered);
        if more > 0 && !self.room.try_take(more, self.place) {
            return Err(no_room(self.busy_s));
        }
        self.covered = self.covered.max(self.needed);
        Ok(())
    }
}

/// The bodies of others leave no room now.
pub(super) fn no_room(busy_s: u64) -> Refusal {
    let what = "other requests take the memory that api.max_body_memory_mib allows; try again";
    Refusal::new(Kind::Busy, what).retry_after(busy_s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_take_the_room_of_their_body_and_more_only_beyond_it() {
        let room = Room::with(1 << 20);
        let mut place = Place::default();
        assert!(room.try_take(100 << 10, &mut place), "the body's own");
        let free = room.free_bytes();
        let mut tensors = InPlaceOf::body(100 << 10, &room, 7, &mut place);
        assert_eq!(tensors.take(60 << 10), Ok(()));
        assert_eq!(tensors.take(40 << 10), Ok(()));
        assert_eq!(room.free_bytes(), free, "as much as the body");
        assert_eq!(tensors.take(300 << 10), Ok(()));
        assert_eq!(room.free_bytes(), free - (300 << 10));
        let mut other = Place::default();
        let mut others = InPlaceOf::body(0, &room, 7, &mut other);
        let refused = others.take(700 << 10).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_s), (Kind::Busy, Some(7)));
        let refused = others.take(600 << 10).unwrap_err();
        assert_eq!(refused.kind, Kind::TooLarge, "never so much: {}", refused.message);
        drop((place, other));
        assert_eq!(room.free_bytes(), 1 << 20);
    }
}
