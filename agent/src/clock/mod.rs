//! Owns time: the date, and the device's own count of milliseconds that stored times are in.
//!
//! A date can jump: a board without a battery boots in 1970, an operator mistypes a year. So times to
//! live, retries and ages follow a count that only goes forward: [`Clock`]. It goes on with
//! CLOCK_BOOTTIME, which counts sleep too, across restarts of the agent and of the machine
//! (`reckoning.rs` says how). The date counts only for the time that the machine was off, and only when
//! it was trusted before and after: set by NTP, as the kernel knows.
//!
//! **Invariant:** no change of the date ends or retries a request; the count never goes back while the
//! agent runs.

mod reckoning;
#[cfg(test)]
pub(crate) mod simulated;
mod stamp;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

use self::reckoning::{Note, Reading, Reckoning};
pub(crate) use self::stamp::Stamp;
use crate::whole_file;

/// The count is looked at this often, and written down when it is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// At most this much of the count is lost when the power is cut; more often would wear the flash.
const NOTE_EVERY_MS: u64 = 5 * 60 * 1000;

/// Milliseconds since 1970-01-01 UTC, as this device believes; 0 when its clock is before that.
/// Never compare it with a stored time: those are a [`Clock`]'s.
pub fn date_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the one place for dates")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// [`date_ms`] as `YYYYMMDDTHHMMSSZ`.
pub fn date_stamp() -> String {
    let seconds = i64::try_from(date_ms() / 1000).unwrap_or(i64::MAX);
    let date = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    date.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Whether something keeps the date right: NTP, as far as the kernel was told.
pub fn date_is_trusted() -> bool {
    // SAFETY: all fields are plain numbers, for which zero is a value.
    #[expect(unsafe_code, reason = "the kernel tells this by one call that nothing safe wraps")]
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid timex; with `modes` 0 the call only reads.
    #[expect(unsafe_code, reason = "as above")]
    let clock = unsafe { libc::adjtimex(&raw mut state) };
    clock >= 0 && clock != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}

/// This moment, for what is put on disk and has an age later.
pub(crate) fn stamp() -> Stamp {
    Stamp::of(&reading())
}

/// The device's count of milliseconds; clones are the same count.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reckoning: Mutex<Reckoning>,
    path: PathBuf,
    machine: Machine,
}

/// Whose clocks are read.
#[derive(Debug)]
enum Machine {
    This,
    #[cfg(test)]
    Simulated(simulated::Machine),
}

impl Clock {
    /// Goes on with the count that is noted under `state_dir`. Without a note it begins at the date.
    /// Blocks; changes nothing on disk.
    pub fn resume(state_dir: &Path) -> Self {
        Self::resume_on(state_dir, Machine::This)
    }

    /// As [`Clock::resume`], on a machine that a test makes up.
    #[cfg(test)]
    pub(crate) fn simulated(state_dir: &Path, machine: simulated::Machine) -> Self {
        Self::resume_on(state_dir, Machine::Simulated(machine))
    }

    fn resume_on(state_dir: &Path, machine: Machine) -> Self {
        let path = state_dir.join("clock.toml");
        let note = match std::fs::read_to_string(&path) {
            Ok(text) => Note::parse(&text).or_else(|| {
                tracing::warn!(path = %path.display(), "the noted time cannot be read, the date is taken");
                None
            }),
            Err(_) => None,
        };
        let reckoning = Mutex::new(Reckoning::resume(note, &machine.reading()));
        Self(Arc::new(Inner { reckoning, path, machine }))
    }

    /// Milliseconds of the count now; near to those since 1970 on a device whose date was right at its
    /// first start.
    pub fn now_ms(&self) -> u64 {
        self.reckoning().at(self.0.machine.since_boot_ms())
    }

    /// Notes the count every few minutes and when the agent stops, and makes up for the time that the
    /// machine was off as soon as the date can be trusted.
    pub async fn keep(self, stop: CancellationToken) {
        let mut noted_ms = None::<u64>;
        loop {
            let now = self.0.machine.reading();
            let gained = self.reckoning().look(&now);
            if gained > 0 {
                tracing::info!(
                    gained_s = gained / 1000,
                    "the time that the machine was off is made up for"
                );
            }
            metrics::gauge!("holdfast_clock_trusted").set(if now.trusted { 1.0 } else { 0.0 });
            let due =
                noted_ms.is_none_or(|at| now.since_boot_ms >= at.saturating_add(NOTE_EVERY_MS));
            let stops = stop.is_cancelled();
            if due || gained > 0 || stops {
                self.note(&now).await;
                noted_ms = Some(now.since_boot_ms);
            }
            if stops {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn note(&self, now: &Reading) {
        let text = self.reckoning().note(now).to_text();
        let path = self.0.path.clone();
        let writing = move || whole_file::write(&path, text.as_bytes(), 0o644);
        let written = match tokio::task::spawn_blocking(writing).await {
            Ok(written) => written,
            Err(stopped) => Err(std::io::Error::other(stopped)),
        };
        if let Err(error) = written {
            // After the next restart the count goes on from the note before.
            tracing::warn!(%error, "the time cannot be noted");
        }
    }

    /// What a panicked holder left is numbers all the same.
    fn reckoning(&self) -> MutexGuard<'_, Reckoning> {
        self.0.reckoning.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine {
    fn reading(&self) -> Reading {
        match self {
            Self::This => reading(),
            #[cfg(test)]
            Self::Simulated(machine) => machine.reading(),
        }
    }

    fn since_boot_ms(&self) -> u64 {
        match self {
            Self::This => since_boot_ms(),
            #[cfg(test)]
            Self::Simulated(machine) => machine.reading().since_boot_ms,
        }
    }
}

fn reading() -> Reading {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Reading {
        boot: boot.trim().to_owned(),
        since_boot_ms: since_boot_ms(),
        date_ms: date_ms(),
        trusted: date_is_trusted(),
    }
}

fn since_boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let whole = u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000);
    whole.saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_count_goes_on_after_a_restart_of_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::resume(dir.path());
        let first = clock.now_ms();
        assert!(first.abs_diff(date_ms()) < 10_000, "without a note it begins at the date");
        let stop = CancellationToken::new();
        stop.cancel();
        clock.keep(stop).await;
        let again = Clock::resume(dir.path()).now_ms();
        assert!((first..first + 10_000).contains(&again), "{first} {again}");
        std::fs::write(dir.path().join("clock.toml"), "garbage").unwrap();
        assert!(
            Clock::resume(dir.path()).now_ms() >= first,
            "an unreadable note is as good as none"
        );
    }
}
