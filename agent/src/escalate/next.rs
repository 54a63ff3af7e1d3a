//! Owns what is done after a send that failed, and whether it may have cost something.
//!
//! **Invariant:** every error is sorted here by hand: one that is new does not compile before it is.

use std::time::Duration;

use super::error::{Fault, SendError};

/// What to do after a failed send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try this destination again; it may be the request that it fails on.
    Retry,
    /// Try this destination again after that time; this says nothing of the request.
    Later {
        /// When.
        after: Duration,
    },
    /// Try this destination again when its link is up; this was no attempt.
    AwaitLink,
    /// Try this destination again when there is budget; this was no attempt.
    AwaitBudget {
        /// When that is.
        after: Duration,
    },
    /// Keep the request and look again later: an operator has to mend something first.
    AwaitOperator {
        /// When to look again.
        after: Duration,
    },
    /// Never ask this destination this again.
    NotHere,
}

/// How often a destination that refuses our credential is tried with the same one.
pub(super) const OPERATOR_WAIT: Duration = Duration::from_secs(60);
/// What a token server that fails is left for.
const TOKEN_WAIT: Duration = Duration::from_secs(5);
/// What a busy destination, or one that works on it, is left for.
const SOON: Duration = Duration::from_secs(1);

impl SendError {
    /// What to do about it.
    pub fn next(&self) -> Next {
        match self {
            Self::LinkDown { .. } | Self::Unreachable { .. } => Next::AwaitLink,
            Self::TimedOut { .. } | Self::Interrupted { .. } | Self::Failed { .. } => Next::Retry,
            Self::Busy { .. } | Self::Pending { .. } => Next::Later { after: SOON },
            Self::NoToken { .. } => Next::Later { after: TOKEN_WAIT },
            // An operator has to mend something, and nothing else is kept from going there meanwhile.
            Self::NoBundle { .. } | Self::Misfit { .. } => Next::Later { after: OPERATOR_WAIT },
            Self::Limited { retry_after, .. }
            | Self::Throttled { retry_after, .. }
            | Self::CircuitOpen { retry_after, .. } => Next::Later { after: *retry_after },
            Self::OverBudget { renews_in, .. } | Self::OverPlan { renews_in, .. } => {
                Next::AwaitBudget { after: *renews_in }
            }
            Self::OutOfCredit { .. }
            | Self::Unauthorised { .. }
            | Self::Credential { .. }
            | Self::Unnoted { .. }
            | Self::Unrecorded { .. } => Next::AwaitOperator { after: OPERATOR_WAIT },
            Self::Unusable { fault, .. } => fault.next(),
            Self::Refused { .. }
            | Self::GaveUp { .. }
            | Self::Unfit { .. }
            | Self::NoLabels { .. }
            | Self::Unprepared { .. }
            | Self::TooDear { .. }
            | Self::TasksAlone { .. }
            | Self::TooManyHops { .. }
            | Self::NotConfigured { .. } => Next::NotHere,
        }
    }

    /// Whether the destination may have worked for it, and want its price.
    pub fn may_cost(&self) -> bool {
        match self {
            Self::TimedOut { .. }
            | Self::Interrupted { .. }
            | Self::Pending { .. }
            | Self::Failed { .. }
            | Self::GaveUp { .. } => true,
            Self::Unusable { fault, .. } => *fault != Fault::NotLetThrough,
            Self::LinkDown { .. }
            | Self::Unreachable { .. }
            | Self::CircuitOpen { .. }
            | Self::Busy { .. }
            | Self::Limited { .. }
            | Self::OverBudget { .. }
            | Self::OverPlan { .. }
            | Self::Unnoted { .. }
            | Self::Unrecorded { .. }
            | Self::Throttled { .. }
            | Self::Unauthorised { .. }
            | Self::Credential { .. }
            | Self::NoToken { .. }
            | Self::TooDear { .. }
            | Self::TasksAlone { .. }
            | Self::Refused { .. }
            | Self::OutOfCredit { .. }
            | Self::Unfit { .. }
            | Self::NoLabels { .. }
            | Self::NoBundle { .. }
            | Self::Unprepared { .. }
            | Self::Misfit { .. }
            | Self::TooManyHops { .. }
            | Self::NotConfigured { .. } => false,
        }
    }
}

impl Fault {
    /// A portal or a broken server passes; a model that has answered says the same again, and at the
    /// same length.
    fn next(&self) -> Next {
        match self {
            Self::Foreign { .. } | Self::Elsewhere { .. } => Next::Retry,
            Self::TooLong { .. }
            | Self::Declined { .. }
            | Self::NotLetThrough
            | Self::Filtered
            | Self::CutShort
            | Self::BesideTheQuestion { .. } => Next::NotHere,
        }
    }
}
