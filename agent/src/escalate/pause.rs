//! Owns how long a destination is left alone after it said so.
//!
//! **Invariant:** nothing is sent to a destination before the time that it asked for is over, nor
//! with a credential that it has just refused.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::credential::Secret;
use super::error::SendError;
use super::next::OPERATOR_WAIT;

/// Why a destination is left alone, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// It asked for it.
    Throttled {
        /// What is left of the wait.
        left: Duration,
    },
    /// The account is out of credit.
    OutOfCredit {
        /// Until the same credential is tried again; another one is tried at once.
        left: Duration,
        /// The status that it answered with.
        status: u16,
    },
    /// It does not accept our credential.
    Unauthorised {
        /// Until the same credential is tried again; a renewed one is tried at once.
        left: Duration,
        /// The status that it answered with.
        status: u16,
    },
    /// There is no credential to send with; one that is there by now is used at once.
    NoCredential {
        /// Until somebody looks again for what is held.
        left: Duration,
    },
}

impl Pause {
    /// How long it still lasts.
    pub fn left(&self) -> Duration {
        match self {
            Self::Throttled { left }
            | Self::OutOfCredit { left, .. }
            | Self::Unauthorised { left, .. }
            | Self::NoCredential { left } => *left,
        }
    }
}

/// The pause of one destination.
#[derive(Debug, Default)]
pub(super) struct Paused(Mutex<Option<Hold>>);

#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    why: Why,
}

#[derive(Debug, Clone, Copy)]
enum Why {
    Throttled,
    OutOfCredit { status: u16, refused: Option<[u8; 32]> },
    Unauthorised { status: u16, refused: Option<[u8; 32]> },
    NoCredential,
}

impl Paused {
    /// Takes in what a send ended with.
    pub(super) fn note(&self, error: &SendError, secret: Option<&Secret>, now: Instant) {
        let hold = match error {
            SendError::Throttled { retry_after, .. } => {
                Hold { until: now + *retry_after, why: Why::Throttled }
            }
            SendError::Unauthorised { destination, status } => {
                tracing::warn!(%destination, status, "credential refused; its requests are held");
                let refused = secret.map(Secret::digest);
                let why = Why::Unauthorised { status: *status, refused };
                Hold { until: now + OPERATOR_WAIT, why }
            }
            SendError::OutOfCredit { destination, status, .. } => {
                tracing::warn!(%destination, status, "out of credit; its requests are held");
                let refused = secret.map(Secret::digest);
                let why = Why::OutOfCredit { status: *status, refused };
                Hold { until: now + OPERATOR_WAIT, why }
            }
            SendError::Credential { destination, source } => {
                tracing::warn!(%destination, %source, "no credential; its requests are held");
                Hold { until: now + OPERATOR_WAIT, why: Why::NoCredential }
            }
            _ => return,
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
    }

    /// Whether a send with `secret` may go out now.
    pub(super) fn check(
        &self,
        destination: String,
        secret: Option<&Secret>,
        now: Instant,
    ) -> Result<(), SendError> {
        let Some((hold, left)) = self.hold(now) else { return Ok(()) };
        match hold.why {
            Why::Throttled => Err(SendError::Throttled { destination, retry_after: left }),
            Why::NoCredential => Ok(()),
            Why::Unauthorised { refused, .. } | Why::OutOfCredit { refused, .. }
                if refused != secret.map(Secret::digest) =>
            {
                Ok(())
            }
            Why::OutOfCredit { status, .. } => {
                let detail = "nothing is sent before it is looked at again".to_owned();
                Err(SendError::OutOfCredit { destination, status, detail })
            }
            Why::Unauthorised { status, .. } => {
                Err(SendError::Unauthorised { destination, status })
            }
        }
    }

    /// The pause in force, for people.
    pub(super) fn get(&self, now: Instant) -> Option<Pause> {
        let (hold, left) = self.hold(now)?;
        Some(match hold.why {
            Why::Throttled => Pause::Throttled { left },
            Why::Unauthorised { status, .. } => Pause::Unauthorised { left, status },
            Why::OutOfCredit { status, .. } => Pause::OutOfCredit { left, status },
            Why::NoCredential => Pause::NoCredential { left },
        })
    }

    fn hold(&self, now: Instant) -> Option<(Hold, Duration)> {
        let hold = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let left = hold.until.saturating_duration_since(now);
        (!left.is_zero()).then_some((hold, left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Credential;

    async fn secret(text: &str) -> Secret {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        Secret::read(&Credential::File(path)).await.unwrap()
    }

    fn check(paused: &Paused, secret: Option<&Secret>) -> Option<&'static str> {
        paused.check("cloud".to_owned(), secret, Instant::now()).err().map(|error| error.code())
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_destination_is_asked_when_its_time_is_over() {
        let paused = Paused::default();
        assert_eq!(check(&paused, None), None);
        let retry_after = Duration::from_secs(17);
        let error = SendError::Throttled { destination: "cloud".to_owned(), retry_after };
        paused.note(&error, None, Instant::now());
        tokio::time::advance(Duration::from_secs(16)).await;
        let left = Duration::from_secs(1);
        assert_eq!(paused.get(Instant::now()), Some(Pause::Throttled { left }));
        assert_eq!(check(&paused, None), Some("throttled"));
        tokio::time::advance(left).await;
        assert_eq!((check(&paused, None), paused.get(Instant::now())), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_credential_rests_and_a_new_one_does_not() {
        let (old, new) = (secret("old").await, secret("new").await);
        let paused = Paused::default();
        let error = SendError::Unauthorised { destination: "cloud".to_owned(), status: 401 };
        paused.note(&error, Some(&old), Instant::now());
        for (secret, want) in [(Some(&old), Some("unauthorised")), (Some(&new), None), (None, None)]
        {
            assert_eq!(check(&paused, secret), want, "{secret:?}");
        }
        tokio::time::advance(OPERATOR_WAIT).await;
        assert_eq!(check(&paused, Some(&old)), None, "tried again after a while");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_account_rests_until_the_credential_is_of_another_one() {
        let (empty, full) = (secret("empty").await, secret("full").await);
        let paused = Paused::default();
        let (destination, detail) = ("cloud".to_owned(), "pay".to_owned());
        let error = SendError::OutOfCredit { destination, status: 400, detail };
        paused.note(&error, Some(&empty), Instant::now());
        assert_eq!(check(&paused, Some(&empty)), Some("out_of_credit"));
        assert_eq!(check(&paused, Some(&full)), None);
        let left = OPERATOR_WAIT;
        assert_eq!(paused.get(Instant::now()), Some(Pause::OutOfCredit { left, status: 400 }));
    }

    #[tokio::test(start_paused = true)]
    async fn other_failures_pause_nothing() {
        let paused = Paused::default();
        let destination = "cloud".to_owned();
        paused.note(&SendError::Busy { destination }, None, Instant::now());
        assert_eq!(paused.get(Instant::now()), None);
    }
}
