//! Board profiles as data: what a kind of board is, how it is recognised, where it shows its heat.
//!
//! Each file of `targets/boards` is one profile, compiled in, so a device needs no file beside its
//! binary. [`detect`] is pure: the caller reads `/proc/device-tree/model` and hands it in.
//!
//! **Invariant:** every profile in [`profiles`] passed [`Profile::parse`]; there is no other way to
//! make one.

mod detect;
mod profile;
mod sensor;

pub use detect::{Facts, detect, profiles};
pub use profile::{Arch, Glibc, MemoryMib, OnnxRuntime, Profile, ProfileError};
pub use sensor::{Celsius, TemperatureSource, ThrottleSource};
