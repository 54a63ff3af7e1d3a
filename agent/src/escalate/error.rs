//! Owns what can go wrong with a send, and how it is told. What is done about it stands in `next`.
//!
//! **Invariant:** no text here holds a credential, a payload or a control character.

use std::time::Duration;

use holdfast_chat::Unfit;
use thiserror::Error;

use super::credential::CredentialError;
use crate::request::TaskName;

/// Why a destination gave no answer.
#[derive(Debug, Error)]
pub enum SendError {
    /// The destination is known to be out of reach; nothing was sent.
    #[error("no link to {destination}; nothing was sent")]
    LinkDown {
        /// The destination.
        destination: String,
    },
    /// No connection.
    #[error("{destination} cannot be reached: {cause}")]
    Unreachable {
        /// The destination.
        destination: String,
        /// What the network said.
        cause: String,
    },
    /// No answer in all the time that the destination has.
    #[error("{destination} gave no answer within its timeout of {} ms", .limit.as_millis())]
    TimedOut {
        /// The destination.
        destination: String,
        /// Its time.
        limit: Duration,
    },
    /// The exchange was cut off, or the time given ended.
    #[error("{destination} did not finish its answer: {cause}")]
    Interrupted {
        /// The destination.
        destination: String,
        /// What happened.
        cause: String,
        /// How long its caller waited in vain, where the time ended; nothing where it was cut off.
        waited: Option<Duration>,
    },
    /// The model there fails on everybody; nothing was sent.
    #[error(
        "{destination} has failed on everything that {model} was asked; nothing was sent, the next may go in {} s",
        .retry_after.as_secs().saturating_add(1)
    )]
    CircuitOpen {
        /// The destination.
        destination: String,
        /// Its model, or the task of another agent.
        model: String,
        /// When one is sent again, to see.
        retry_after: Duration,
    },
    /// Every place for a request under way was taken for all the time given.
    #[error("{destination} is busy with as many requests as its concurrency allows")]
    Busy {
        /// The destination.
        destination: String,
    },
    /// Its rate lets the request in later than its caller waits.
    #[error("{destination} has had what its limits allow; the next goes in {} s", .retry_after.as_secs())]
    Limited {
        /// The destination.
        destination: String,
        /// When the next may go.
        retry_after: Duration,
    },
    /// What may be spent there today is spent.
    #[error("the day's budget for {destination} is spent; it renews in {} s", .renews_in.as_secs())]
    OverBudget {
        /// The destination.
        destination: String,
        /// When there is a new one.
        renews_in: Duration,
    },
    /// What a metered link may carry is used up, and this is not urgent; nothing was sent.
    #[error(
        "nothing goes to {destination}: the data budget of the metered link is used up until {until}"
    )]
    OverPlan {
        /// The destination.
        destination: String,
        /// When it renews, as a date of the device's count.
        until: String,
        /// The same, from now on.
        renews_in: Duration,
    },
    /// What would be spent cannot be written down first.
    #[error("nothing is spent at {destination} while the spending cannot be noted: {cause}")]
    Unnoted {
        /// The destination.
        destination: String,
        /// What the disk said.
        cause: String,
    },
    /// That it goes out cannot be put on record first.
    #[error("nothing goes to {destination} while it cannot be put on record: {cause}")]
    Unrecorded {
        /// The destination.
        destination: String,
        /// What the disk said.
        cause: String,
    },
    /// The destination holds the request itself; asking again under the same id gets its answer.
    #[error("{destination} holds the request and has no answer yet")]
    Pending {
        /// The destination.
        destination: String,
    },
    /// The destination asks to be left alone for a while.
    #[error("{destination} asks to wait {} s", .retry_after.as_secs())]
    Throttled {
        /// The destination.
        destination: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// The destination is broken for the moment.
    #[error("{destination} failed {}: {detail}", where_told(.status))]
    Failed {
        /// The destination.
        destination: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// The account there is out of credit.
    #[error(
        "the account at {destination} is out of credit ({}): pay there, then requests go on by themselves: {detail}",
        where_told(.status)
    )]
    OutOfCredit {
        /// The destination.
        destination: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
    /// The destination does not accept who we are.
    #[error(
        "{destination} refused the credential {}: renew it, then requests go on by themselves",
        where_told(.status)
    )]
    Unauthorised {
        /// The destination.
        destination: String,
        /// The HTTP status.
        status: u16,
    },
    /// Nobody gave an access token for the credential; nothing was sent.
    #[error("no access token for {destination}: of its token server, {cause}")]
    NoToken {
        /// The destination.
        destination: String,
        /// What happened.
        cause: String,
    },
    /// It may cost more than no more than; nothing was sent.
    #[error(
        "{destination} may want up to {most} millionths for this, and no more than {limit} are allowed"
    )]
    TooDear {
        /// The destination.
        destination: String,
        /// What would be set apart.
        most: u64,
        /// What is allowed.
        limit: u64,
    },
    /// There is no credential to send with.
    #[error("no credential for {destination}: the agent's log says why")]
    Credential {
        /// The destination.
        destination: String,
        /// Why.
        source: CredentialError,
    },
    /// The destination will never answer this request.
    #[error("{destination} refused the request {}: {detail}", where_told(.status))]
    Refused {
        /// The destination.
        destination: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
        /// Its own code for it, where it has one that its callers may look for.
        code: Option<String>,
    },
    /// The destination took the request and gave it up.
    #[error("{destination} gave the request up: {detail}")]
    GaveUp {
        /// The destination.
        destination: String,
        /// What it said.
        detail: String,
    },
    /// What came back is no answer.
    #[error("{destination} sent no usable answer: {fault}")]
    Unusable {
        /// The destination.
        destination: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The request cannot be put into the destination's protocol; nothing was sent.
    #[error("{destination} cannot be asked this, nothing was sent: {source}")]
    Unfit {
        /// The destination.
        destination: String,
        /// What does not fit.
        source: Unfit,
    },
    /// Nobody can tell the destination what the task is.
    #[error(
        "{destination} cannot be asked {task}: no bundle on this device names the task's labels"
    )]
    NoLabels {
        /// The destination.
        destination: String,
        /// The task.
        task: TaskName,
    },
    /// Nobody can make the destination's tensors of the request, or an answer of them.
    #[error(
        "{destination} cannot be asked {task}: no bundle on this device says what its tensors mean"
    )]
    NoBundle {
        /// The destination.
        destination: String,
        /// The task.
        task: TaskName,
    },
    /// The input cannot be made the tensors that the destination takes; nothing was sent.
    #[error("nothing was sent to {destination}: {cause}")]
    Unprepared {
        /// The destination.
        destination: String,
        /// Why.
        cause: String,
    },
    /// The model there is another one than the task's bundle on this device; nothing was sent.
    #[error(
        "{destination} does not do {task} as the bundle {bundle} does: {what}; correct one of the two"
    )]
    Misfit {
        /// The destination.
        destination: String,
        /// The task.
        task: TaskName,
        /// The bundle.
        bundle: String,
        /// What is otherwise.
        what: String,
    },
    /// The destination is asked tasks, and no model by its name.
    #[error("{destination} is asked tasks alone: its protocol has no conversations")]
    TasksAlone {
        /// The destination.
        destination: String,
    },
    /// The request came through too many agents already.
    #[error("it came through too many agents to be sent to {destination}")]
    TooManyHops {
        /// The destination.
        destination: String,
    },
    /// The permission names a destination that this process does not have, or has otherwise.
    #[error("{destination} is not configured as the policy saw it: nothing was sent")]
    NotConfigured {
        /// The destination.
        destination: String,
    },
}

/// What is wrong with what came back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// More bytes than any answer has.
    #[error("more than {limit} bytes")]
    TooLong {
        /// The most that is read.
        limit: usize,
    },
    /// Something that the protocol does not know, such as a captive portal's page.
    #[error("not what its protocol says: {what}")]
    Foreign {
        /// What.
        what: String,
    },
    /// Somebody else's answer, of a destination that never said anything of its own: most likely a captive
    /// portal's.
    #[error("somebody else answers in its place: {what}")]
    Elsewhere {
        /// What it says.
        what: String,
    },
    /// The model would not answer.
    #[error("the model declined: {text}")]
    Declined {
        /// Its words.
        text: String,
    },
    /// The provider's filter refused the question; the model did not see it.
    #[error("its content filter did not let the question through")]
    NotLetThrough,
    /// The provider's filter took the answer away.
    #[error("its content filter took the answer away")]
    Filtered,
    /// The answer ended before it was complete.
    #[error("the answer was cut at its length limit")]
    CutShort,
    /// The model answered beside the question.
    #[error("the model's answer is {what}")]
    BesideTheQuestion {
        /// What it is instead of a label with a confidence.
        what: String,
    },
}

impl SendError {
    /// A stable word for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::LinkDown { .. } => "link_down",
            Self::Unreachable { .. } => "unreachable",
            Self::TimedOut { .. } => "timed_out",
            Self::Interrupted { .. } => "interrupted",
            Self::CircuitOpen { .. } => "circuit_open",
            Self::Busy { .. } => "busy",
            Self::Limited { .. } => "limited",
            Self::OverBudget { .. } => "over_budget",
            Self::OverPlan { .. } => "over_plan",
            Self::Unnoted { .. } => "unnoted",
            Self::Unrecorded { .. } => "unrecorded",
            Self::Pending { .. } => "pending",
            Self::Throttled { .. } => "throttled",
            Self::Failed { .. } => "failed",
            Self::OutOfCredit { .. } => "out_of_credit",
            Self::Unauthorised { .. } => "unauthorised",
            Self::Credential { .. } => "credential",
            Self::NoToken { .. } => "no_token",
            Self::TooDear { .. } => "too_dear",
            Self::TasksAlone { .. } => "tasks_alone",
            Self::Refused { .. } => "refused",
            Self::GaveUp { .. } => "gave_up",
            Self::Unusable { .. } => "unusable",
            Self::Unfit { .. } => "unfit",
            Self::NoLabels { .. } => "no_labels",
            Self::NoBundle { .. } => "no_bundle",
            Self::Unprepared { .. } => "unprepared",
            Self::Misfit { .. } => "misfit",
            Self::TooManyHops { .. } => "too_many_hops",
            Self::NotConfigured { .. } => "not_configured",
        }
    }
}

/// Why the destinations cannot be set up.
#[derive(Debug, Error)]
pub enum EscalateError {
    /// Two destinations have one name.
    #[error("destination {name} is configured twice: give each its own name")]
    Twice {
        /// The name.
        name: String,
    },
    /// The URL is none.
    #[error("destination {name}: {url} is not an http or https address")]
    Url {
        /// The destination.
        name: String,
        /// Its URL as configured.
        url: String,
    },
    /// TLS or the sockets cannot be set up.
    #[error("destination {name} cannot be set up: {cause}")]
    Setup {
        /// The destination.
        name: String,
        /// What went wrong.
        cause: String,
    },
}

/// With which status it was told; one of success is that of a stream which broke off with an error.
fn where_told(status: &u16) -> String {
    match status {
        200..=299 => "in mid-stream".to_owned(),
        _ => format!("with status {status}"),
    }
}

/// `text` fit for a log line and an error: one line, no control characters, at most 200 characters.
pub(super) fn clean(text: &str) -> String {
    clean_up_to(text, 200)
}

/// As [`clean`], with this many characters at most.
pub(super) fn clean_up_to(text: &str, most: usize) -> String {
    let mut line: String =
        text.chars().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(most).is_some() {
        line.push('…');
    }
    line
}
