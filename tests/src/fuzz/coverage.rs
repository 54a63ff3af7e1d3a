//! Which code ran, in programs that count it (`-C passes=sancov-module` with inline 8-bit counters).
//!
//! **Invariant:** in a program that counts nothing there is nothing to see, and nothing else changes.

#![allow(unsafe_code, reason = "what the compiler puts into a program is found in no other way")]

use std::sync::{Mutex, PoisonError};

/// Begin and end of each crate's counters.
static AREAS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// Called by each crate that counts, before `main`.
///
/// # Safety
/// As the compiler calls it: between the two lie counters that live as long as the program.
// SAFETY: the name is that of the compiler's contract, and nothing else here has it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(begin: *mut u8, end: *mut u8) {
    let mut areas = AREAS.lock().unwrap_or_else(PoisonError::into_inner);
    let area = (begin as usize, end as usize);
    if area.0 < area.1 && !areas.contains(&area) {
        areas.push(area);
    }
}

/// What was reached until now.
#[derive(Debug, Default)]
pub struct Reached {
    /// For each counter the orders of magnitude that it was seen in, a bit each.
    seen: Vec<u8>,
}

impl Reached {
    /// Whether this program counts.
    pub fn is_counted() -> bool {
        !AREAS.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sets all counters to nothing.
    pub fn begin() {
        each_area(|counters| counters.fill(0));
    }

    /// How many counters are in an order of magnitude that none was in before.
    pub fn end(&mut self) -> usize {
        let (mut at, mut new) = (0, 0);
        each_area(|counters| {
            self.seen.resize(self.seen.len().max(at + counters.len()), 0);
            let seen = self.seen[at..].iter_mut();
            for (count, seen) in counters.iter().zip(seen).filter(|(count, _)| **count > 0) {
                // 1, 2, up to 4, 8, 16 ... times.
                let bit = 1u8 << (u8::BITS - count.leading_zeros() - 1).min(7);
                new += usize::from(*seen & bit == 0);
                *seen |= bit;
            }
            at += counters.len();
        });
        new
    }

    /// Counters that were ever above nothing, of all.
    pub fn count(&self) -> (usize, usize) {
        (self.seen.iter().filter(|seen| **seen > 0).count(), self.seen.len())
    }
}

fn each_area(mut run: impl FnMut(&mut [u8])) {
    for (begin, end) in AREAS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // SAFETY: the area was given by the compiler's own call, lives as long as the program, and its
        // counters are bytes that may be lost or doubled without harm when other threads count.
        let counters = unsafe { std::slice::from_raw_parts_mut(*begin as *mut u8, end - begin) };
        run(counters);
    }
}
