//! Owns why an inquiry has no answer, out of what each destination said.
//!
//! **Invariant:** of several failures the one is told that is likeliest to pass, with the reasons of all.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::answer::Reason;
use crate::answer::sentence;
use crate::escalate::{Next, SendError};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Refused {
    /// Nothing here is called that.
    #[error(
        "there is no model \"{model}\" here; there are: {}",
        if known.is_empty() { "none".to_owned() } else { known.join(", ") }
    )]
    Unknown {
        /// What was asked for.
        model: String,
        /// What could be.
        known: Vec<String>,
    },
    /// The class keeps it from everybody whom the name means.
    #[error("{}", sentence(.0))]
    Forbidden(Vec<Reason>),
    /// Nobody who was asked answered.
    #[error("{}", sentence(reasons))]
    Failed {
        /// The failure that is likeliest to pass.
        error: Arc<SendError>,
        /// Why it went this way.
        reasons: Vec<Reason>,
    },
    /// The agent stops.
    #[error("the agent stops before this call has its answer: send it again")]
    Stopping,
    /// It waited for what another one had asked, too, until its own time was over.
    #[error(
        "the {} ms that this call waits are over, and so long no answer came to another one that asks \
         the same",
        within.as_millis()
    )]
    TooLate {
        /// How long it waited.
        within: Duration,
    },
    /// A model of this device did not answer.
    #[error("{text}")]
    Local {
        /// Whether the input is the reason.
        is_input: bool,
        /// When it is worth to ask again.
        retry_after: Option<Duration>,
        /// What it said.
        text: String,
    },
}

impl Refused {
    /// Whether somebody may answer later what nobody answered now.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Failed { error, .. } => error.next() != Next::NotHere,
            Self::Stopping | Self::TooLate { .. } => true,
            Self::Unknown { .. } | Self::Forbidden(_) | Self::Local { .. } => false,
        }
    }

    /// Why it went this way, as far as that is known.
    pub(super) fn reasons(&self) -> &[Reason] {
        match self {
            Self::Forbidden(reasons) | Self::Failed { reasons, .. } => reasons,
            Self::Unknown { .. } | Self::Stopping | Self::TooLate { .. } | Self::Local { .. } => {
                &[]
            }
        }
    }

    /// What is made of all failures; without any, all was forbidden.
    pub(super) fn of(errors: Vec<SendError>, reasons: Vec<Reason>) -> Self {
        match errors.into_iter().min_by_key(hope) {
            Some(error) => Self::Failed { error: Arc::new(error), reasons },
            None => Self::Forbidden(reasons),
        }
    }
}

/// How likely a failure passes by itself; the smallest is the likeliest.
fn hope(error: &SendError) -> u8 {
    match error.next() {
        Next::Later { .. } => 0,
        Next::Retry => 1,
        Next::AwaitLink => 2,
        Next::AwaitBudget { .. } => 3,
        Next::AwaitOperator { .. } => 4,
        Next::NotHere => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_failures_the_one_is_told_that_passes_soonest() {
        let destination = || "a".to_owned();
        let refused = || SendError::Refused {
            destination: destination(),
            status: 400,
            detail: String::new(),
            code: None,
        };
        let down = || SendError::LinkDown { destination: destination() };
        let retry_after = Duration::from_secs(7);
        let throttled = || SendError::Throttled { destination: destination(), retry_after };
        for (case, errors, want) in [
            ("alone", vec![refused()], "refused"),
            ("a link that is down", vec![refused(), down()], "link_down"),
            ("a throttle", vec![refused(), down(), throttled()], "throttled"),
        ] {
            let Refused::Failed { error, .. } = Refused::of(errors, Vec::new()) else {
                panic!("{case}")
            };
            assert_eq!(error.code(), want, "{case}");
        }
        assert!(matches!(Refused::of(Vec::new(), Vec::new()), Refused::Forbidden(_)));
    }
}
