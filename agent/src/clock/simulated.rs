//! A machine whose date, boots and clocks a test makes up; its time goes by as tokio's does.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::time::Instant;

use super::reckoning::Reading;

/// A machine; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Machine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    boot: u32,
    booted: Instant,
    date_ms: u64,
    date_set: Instant,
    is_trusted: bool,
}

fn millis_since(at: Instant) -> u64 {
    u64::try_from(at.elapsed().as_millis()).unwrap()
}

impl Machine {
    /// A machine that has just booted.
    pub(crate) fn new(date_ms: u64, is_trusted: bool) -> Self {
        let now = Instant::now();
        let state = State { boot: 1, booted: now, date_ms, date_set: now, is_trusted };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Sets the date.
    pub(crate) fn set_date(&self, date_ms: u64, is_trusted: bool) {
        let mut state = self.state();
        (state.date_ms, state.date_set) = (date_ms, Instant::now());
        state.is_trusted = is_trusted;
    }

    /// Boots anew.
    pub(crate) fn reboot(&self) {
        let mut state = self.state();
        state.boot += 1;
        state.booted = Instant::now();
    }

    pub(super) fn reading(&self) -> Reading {
        let state = self.state();
        Reading {
            boot: format!("boot-{}", state.boot),
            since_boot_ms: millis_since(state.booted),
            date_ms: state.date_ms + millis_since(state.date_set),
            trusted: state.is_trusted,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}
