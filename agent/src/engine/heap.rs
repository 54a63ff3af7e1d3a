//! Gives memory that nobody uses any more back to the system.
//!
//! Loading a model takes several times the room of what stays, in pieces between which small things come
//! to lie; the C library would keep all of it for later.
//!
//! **Invariant:** nothing that is in use moves or changes.

/// Gives back what can be. Takes up to some milliseconds.
#[cfg(target_env = "gnu")]
pub(super) fn give_back() {
    // SAFETY: the call takes no pointer, and locks what it looks at.
    #[expect(unsafe_code, reason = "the C library offers this by one call that nothing safe wraps")]
    let _is_any = unsafe { libc::malloc_trim(0) };
}

/// Other C libraries keep little.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_back() {}
