//! The memory that the models of this device may take together.
//!
//! **Invariant:** what is taken never exceeds the limit; whatever is taken is given back when it is
//! dropped.

use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

/// What is taken, of what may be.
#[derive(Debug, Clone)]
pub(super) struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit_kib: Option<u64>,
    taken_kib: Mutex<u64>,
}

/// Some memory, until this is dropped.
#[derive(Debug)]
pub(super) struct Room {
    memory: Memory,
    kib: u64,
}

/// It does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "it takes {:.1} MiB beside {:.1} MiB of the models that are loaded, models.max_memory_mib is {}: unload one, or allow more",
    mib(*need_kib), mib(*taken_kib), limit_kib >> 10
)]
pub(super) struct NoRoom {
    need_kib: u64,
    taken_kib: u64,
    limit_kib: u64,
}

#[expect(clippy::cast_precision_loss, reason = "shown to one digit")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

impl Memory {
    /// Nothing taken of so much; `None`: of any.
    pub(super) fn new(limit_kib: Option<u64>) -> Self {
        Self(Arc::new(Inner { limit_kib, taken_kib: Mutex::default() }))
    }

    /// Takes so much.
    ///
    /// # Errors
    /// So much is not left.
    pub(super) fn take(&self, kib: u64) -> Result<Room, NoRoom> {
        let mut taken = self.0.taken_kib.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = taken.saturating_add(kib);
        if let Some(limit_kib) = self.0.limit_kib.filter(|limit| sum > *limit) {
            return Err(NoRoom { need_kib: kib, taken_kib: *taken, limit_kib });
        }
        *taken = sum;
        Ok(Room { memory: self.clone(), kib })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.memory.0.taken_kib.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = taken.saturating_sub(self.kib);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_until_something_goes() {
        let memory = Memory::new(Some(10 << 10));
        let first = memory.take(6 << 10).unwrap();
        let second = memory.take(4 << 10).unwrap();
        let refused = memory.take(1 << 10).unwrap_err().to_string();
        let want = "it takes 1.0 MiB beside 10.0 MiB";
        assert!(refused.starts_with(want) && refused.contains("max_memory_mib is 10"), "{refused}");
        drop(second);
        let third = memory.take(3 << 10).unwrap();
        drop((first, third));
        assert_eq!(*memory.0.taken_kib.lock().unwrap(), 0);
        assert!(Memory::new(None).take(u64::MAX).is_ok());
    }
}
