//! Owns the two decisions of a request: where to begin, and whether the answer is good enough.
//!
//! **Invariant:** everything here is pure; the link, the policy and the local answer are arguments,
//! so that a decision can be replayed.

use crate::answer::Reason;
use crate::destination::Zone;
use crate::policy::Policy;
use crate::request::{DataClass, Escalate, MAX_HOPS};

/// What a decision is made of.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// How sensitive the input is.
    pub class: DataClass,
    /// What the caller wants of a bigger model.
    pub escalate: Escalate,
    /// How many agents the request came through.
    pub hops: u8,
    /// Whether a bundle on this device does the task.
    pub has_local: bool,
    /// Milliseconds before which the caller wants nothing sent; 0: at once.
    pub not_before_ms: u64,
    /// The destinations that serve the task, in the configured order.
    pub above: &'a [Above<'a>],
    /// The policy in force.
    pub policy: &'a Policy,
}

/// A destination, as far as a decision needs to know it.
#[derive(Debug, Clone, Copy)]
pub struct Above<'a> {
    /// The destination's name.
    pub name: &'a str,
    /// Where it lies.
    pub zone: Zone,
    /// Whether its link is up, or not known to be down.
    pub reachable: bool,
}

/// Where a request begins.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// With the local model.
    Local,
    /// With a destination, since there is no local model.
    Up,
    /// Nowhere: nobody can answer it.
    Refuse(Vec<Reason>),
}

/// A local answer, as far as a decision needs to know it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Local {
    /// How sure it is, in `0.0..=1.0`; nothing for a kind of answer that cannot tell.
    pub confidence: Option<f32>,
    /// The confidence that the bundle asks for.
    pub threshold: f32,
}

/// What becomes of a request after the local model had its turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What to do.
    pub next: Next,
    /// Why.
    pub reasons: Vec<Reason>,
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The local answer is the answer.
    Answer,
    /// Send it to these destinations, by name, in this order, until one answers; else hold it.
    Send(Vec<String>),
    /// Keep it on disk until a destination can be reached.
    Hold,
    /// There is no answer and nobody to ask.
    Refuse,
}

/// Decides where a request begins.
#[must_use]
pub fn decide(question: &Question<'_>) -> Start {
    if question.has_local {
        return Start::Local;
    }
    let verdict = judge(question, None);
    match verdict.next {
        Next::Send(_) | Next::Hold => Start::Up,
        Next::Answer | Next::Refuse => Start::Refuse(verdict.reasons),
    }
}

/// Decides whether the local answer is good enough, and who is asked if it is not.
///
/// `local` is `None` when there is no local model or it failed.
#[must_use]
pub fn judge(question: &Question<'_>, local: Option<Local>) -> Verdict {
    let (is_sure, reason) = certainty(question, local);
    let mut reasons = Vec::from_iter(reason);
    match question.escalate {
        Escalate::Auto if is_sure => return Verdict { next: Next::Answer, reasons },
        Escalate::Auto => {}
        Escalate::Always => reasons.push(Reason::CallerAsked),
        Escalate::Never => {
            reasons.push(Reason::CallerForbade);
            return stay(local, reasons);
        }
    }
    if question.hops >= MAX_HOPS {
        reasons.push(Reason::TooManyHops);
        return stay(local, reasons);
    }
    if question.above.is_empty() {
        reasons.push(Reason::NoDestination);
        return stay(local, reasons);
    }
    let (cleared, forbidden): (Vec<&Above<'_>>, Vec<&Above<'_>>) =
        question.above.iter().partition(|each| question.policy.allows(question.class, each.zone));
    if cleared.is_empty() {
        reasons.extend(forbidden.iter().map(|each| Reason::ClassForbids {
            class: question.class,
            destination: each.name.to_owned(),
            zone: each.zone,
        }));
        return stay(local, reasons);
    }
    if question.not_before_ms > 0 {
        reasons.push(Reason::NotBefore { ms: question.not_before_ms });
        return Verdict { next: Next::Hold, reasons };
    }
    let reachable: Vec<_> =
        cleared.iter().filter(|each| each.reachable).map(|each| each.name.to_owned()).collect();
    if reachable.is_empty() {
        reasons.extend(
            cleared.iter().map(|each| Reason::LinkDown { destination: each.name.to_owned() }),
        );
        return Verdict { next: Next::Hold, reasons };
    }
    Verdict { next: Next::Send(reachable), reasons }
}

/// Whether the local answer is sure enough, and why, where there is something to say.
fn certainty(question: &Question<'_>, local: Option<Local>) -> (bool, Option<Reason>) {
    match local {
        // What cannot tell how sure it is goes up only if the caller wants that.
        Some(Local { confidence: None, .. }) => (true, Some(Reason::NoConfidence)),
        Some(Local { confidence: Some(confidence), threshold }) if confidence >= threshold => {
            (true, Some(Reason::ConfidenceReached { confidence, threshold }))
        }
        Some(Local { confidence: Some(confidence), threshold }) => {
            (false, Some(Reason::ConfidenceBelow { confidence, threshold }))
        }
        None => (false, (!question.has_local).then_some(Reason::NoLocalModel)),
    }
}

/// Nobody above may be asked: the local answer stands, if there is one.
fn stay(local: Option<Local>, mut reasons: Vec<Reason>) -> Verdict {
    match local {
        Some(_) => {
            reasons.push(Reason::LocalStands);
            Verdict { next: Next::Answer, reasons }
        }
        None => Verdict { next: Next::Refuse, reasons },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SURE: Option<Local> = Some(Local { confidence: Some(0.9), threshold: 0.8 });
    const UNSURE: Option<Local> = Some(Local { confidence: Some(0.5), threshold: 0.8 });
    const UNTOLD: Option<Local> = Some(Local { confidence: None, threshold: 0.0 });
    const UP: Above<'_> = Above { name: "site", zone: Zone::Site, reachable: true };
    const DOWN: Above<'_> = Above { name: "site", zone: Zone::Site, reachable: false };
    const CLOUD: Above<'_> = Above { name: "cloud", zone: Zone::Public, reachable: true };

    fn next(
        class: DataClass,
        escalate: Escalate,
        local: Option<Local>,
        above: &[Above<'_>],
    ) -> Next {
        let policy = Policy::default();
        let question = Question {
            class,
            escalate,
            hops: 0,
            has_local: local.is_some(),
            not_before_ms: 0,
            above,
            policy: &policy,
        };
        judge(&question, local).next
    }

    #[test]
    fn the_table_of_decisions() {
        use DataClass::{Confidential, Internal, Public, Restricted};
        use Escalate::{Always, Auto, Never};
        let send = |names: &[&str]| Next::Send(names.iter().map(|n| (*n).to_owned()).collect());
        for (case, class, escalate, local, above, want) in [
            ("sure", Public, Auto, SURE, &[UP][..], Next::Answer),
            ("unsure", Internal, Auto, UNSURE, &[UP], send(&["site"])),
            ("of no confidence", Internal, Auto, UNTOLD, &[UP], Next::Answer),
            ("of no confidence, but asked", Internal, Always, UNTOLD, &[UP], send(&["site"])),
            ("unsure, link down", Internal, Auto, UNSURE, &[DOWN], Next::Hold),
            ("unsure, nobody above", Internal, Auto, UNSURE, &[], Next::Answer),
            ("sure, but asked", Internal, Always, SURE, &[UP], send(&["site"])),
            ("unsure, but forbidden by the caller", Public, Never, UNSURE, &[UP], Next::Answer),
            ("restricted stays", Restricted, Always, UNSURE, &[UP, CLOUD], Next::Answer),
            ("restricted is not held", Restricted, Always, UNSURE, &[DOWN], Next::Answer),
            ("restricted without a model", Restricted, Auto, None, &[UP], Next::Refuse),
            (
                "confidential stays at the site",
                Confidential,
                Auto,
                UNSURE,
                &[CLOUD, UP],
                send(&["site"]),
            ),
            (
                "confidential waits for the site",
                Confidential,
                Auto,
                UNSURE,
                &[CLOUD, DOWN],
                Next::Hold,
            ),
            (
                "public goes to the first that is there",
                Public,
                Auto,
                UNSURE,
                &[DOWN, CLOUD],
                send(&["cloud"]),
            ),
            ("no model, somebody above", Internal, Auto, None, &[UP], send(&["site"])),
            ("no model, caller forbids", Internal, Never, None, &[UP], Next::Refuse),
        ] {
            assert_eq!(next(class, escalate, local, above), want, "{case}");
        }
    }

    #[test]
    fn no_input_makes_a_decision_send_beyond_the_policy() {
        let all = [DOWN, UP, CLOUD, Above { name: "vpc", zone: Zone::Private, reachable: true }];
        let policy = Policy::default();
        for class in DataClass::ALL {
            for escalate in Escalate::ALL {
                for local in [None, SURE, UNSURE, UNTOLD] {
                    let has_local = local.is_some();
                    let question = Question {
                        class,
                        escalate,
                        hops: 0,
                        has_local,
                        not_before_ms: 0,
                        above: &all,
                        policy: &policy,
                    };
                    if let Next::Send(names) = judge(&question, local).next {
                        for name in names {
                            let zones: Vec<_> =
                                all.iter().filter(|a| a.name == name).map(|a| a.zone).collect();
                            assert!(
                                zones.iter().all(|zone| policy.allows(class, *zone)),
                                "{class} {name}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_caller_wants_sent_later_is_held_and_never_sent_now() {
        use Escalate::{Always, Auto, Never};
        let policy = Policy::default();
        for (case, class, escalate, local, want) in [
            ("sure", DataClass::Public, Auto, SURE, Next::Answer),
            ("unsure", DataClass::Public, Auto, UNSURE, Next::Hold),
            ("asked", DataClass::Public, Always, SURE, Next::Hold),
            ("forbidden by the caller", DataClass::Public, Never, UNSURE, Next::Answer),
            ("forbidden by its class", DataClass::Restricted, Always, UNSURE, Next::Answer),
            ("no model", DataClass::Internal, Auto, None, Next::Hold),
        ] {
            let (has_local, above) = (local.is_some(), &[UP, CLOUD]);
            let not_before_ms = 5;
            let hops = 0;
            let question = Question {
                class,
                escalate,
                hops,
                has_local,
                not_before_ms,
                above,
                policy: &policy,
            };
            let verdict = judge(&question, local);
            assert_eq!(verdict.next, want, "{case}");
            let is_said = verdict.reasons.contains(&Reason::NotBefore { ms: 5 });
            assert_eq!(is_said, want == Next::Hold, "{case}");
        }
    }

    #[test]
    fn a_request_that_goes_in_circles_stops() {
        let policy = Policy::default();
        let question = Question {
            class: DataClass::Public,
            escalate: Escalate::Auto,
            hops: MAX_HOPS,
            has_local: true,
            not_before_ms: 0,
            above: &[UP],
            policy: &policy,
        };
        let verdict = judge(&question, UNSURE);
        assert_eq!(verdict.next, Next::Answer);
        assert!(verdict.reasons.contains(&Reason::TooManyHops));
        let without = Question { has_local: false, ..question };
        assert!(matches!(decide(&without), Start::Refuse(_)));
    }
}
