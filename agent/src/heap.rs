//! How the C library's heap is kept small.
//!
//! Loading a model takes several times the room of what stays, in pieces between which small things come
//! to lie; the C library would keep all of it for later.
//!
//! **Invariant:** nothing that is in use moves or changes.

/// What is at least as large is taken from the system by itself, and goes back to it as soon as it is not
/// needed any more, in bytes. Left to itself the C library raises this up to 32 MiB with each large piece
/// that is given back, and keeps the weights of models that were loaded among small things from then on.
/// Smaller is dearer: the buffers of bodies and pictures, and the tensors between tract's operators, would
/// be new pages each time. A MobileNetV2 in tract spends 13 of 54 ms on them at 1 MiB, 4 of 43 at 2 MiB; at
/// 8 MiB next to nothing, for 20 MiB more.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
const LARGE: libc::c_int = 2 << 20;
/// More is refused by glibc up to 2.33 there.
#[cfg(all(target_env = "gnu", not(target_pointer_width = "64")))]
const LARGE: libc::c_int = 512 << 10;
/// So much is kept at the end of a heap for what comes next, in bytes.
#[cfg(target_env = "gnu")]
const KEPT: libc::c_int = 4 << 20;

/// Has large pieces stay apart, from the start of the process on.
#[cfg(target_env = "gnu")]
pub(crate) fn begin() {
    for (what, bytes) in [(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, KEPT)] {
        // SAFETY: the call takes no pointer, and locks what it changes.
        #[expect(
            unsafe_code,
            reason = "the C library offers this by one call that nothing safe wraps"
        )]
        let is_set = unsafe { libc::mallopt(what, bytes) };
        if is_set == 0 {
            // The other without the first would keep the first at 128 KiB.
            return;
        }
    }
}

/// Gives back what can be. Takes up to some milliseconds.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // SAFETY: the call takes no pointer, and locks what it looks at.
    #[expect(unsafe_code, reason = "the C library offers this by one call that nothing safe wraps")]
    let _is_any = unsafe { libc::malloc_trim(0) };
}

/// Other C libraries keep little.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn begin() {}

/// Other C libraries keep little.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
