//! Owns the live circuits of one destination, one for each model that it is asked.
//!
//! **Invariant:** a circuit changes by [`Circuit::step`] and [`Circuit::admit`] alone, and what was let
//! through is taken in once, by its [`Pass`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::circuit::{Asker, Circuit, Gate, Seen, Ticket};
use super::error::{Fault, SendError};
use super::jitter;
use crate::queue::RequestId;

/// Models remembered at most: another agent is asked what its callers name.
const MOST_MODELS: usize = 256;
/// Who waited less in vain says nothing of the destination.
const SILENCE: Duration = Duration::from_secs(3);

/// The circuits of one destination.
#[derive(Debug)]
pub(super) struct Circuits {
    destination: String,
    by_model: Mutex<BTreeMap<Arc<str>, Circuit>>,
}

/// That something goes to a model, until it is over. Dropped without a word, it says nothing.
#[derive(Debug)]
pub(super) struct Pass {
    circuits: Arc<Circuits>,
    model: Arc<str>,
    ticket: Ticket,
    is_answered: bool,
    /// What went out, and when; nothing before, and when it is over.
    out: Option<(RequestId, Instant)>,
}

impl Circuits {
    pub(super) fn new(destination: &str) -> Self {
        Self { destination: destination.to_owned(), by_model: Mutex::default() }
    }

    /// How the circuit of `model` stands for `asker`.
    pub(super) fn gate(&self, model: &str, asker: Asker) -> Gate {
        self.lock().get(model).map_or(Gate::Closed, |circuit| circuit.gate(asker, now()))
    }

    /// How the circuits of all models stand together: one that is closed lets some of them through.
    pub(super) fn gate_of_all(&self, asker: Asker) -> Gate {
        let (circuits, now) = (self.lock(), now());
        let mut soonest = None;
        for circuit in circuits.values() {
            match (circuit.gate(asker, now), soonest) {
                (gate @ (Gate::Closed | Gate::HalfOpen), _) => return gate,
                (Gate::Open(left), Some(before)) if before <= left => {}
                (Gate::Open(left), _) => soonest = Some(left),
            }
        }
        soonest.map_or(Gate::Closed, Gate::Open)
    }

    /// Whether `model` fails on everybody, as far as is known.
    pub(super) fn is_closed(&self, model: &str) -> bool {
        self.lock().get(model).is_none_or(Circuit::is_closed)
    }

    /// Lets something go to `model`.
    ///
    /// # Errors
    /// How long it is until something may.
    pub(super) fn admit(self: &Arc<Self>, model: &str, asker: Asker) -> Result<Pass, Duration> {
        let now = now();
        let mut circuits = self.lock();
        let found =
            circuits.get_key_value(model).map(|(name, circuit)| (name.clone(), circuit.clone()));
        let (model, circuit) = found.unwrap_or_else(|| (model.into(), Circuit::new(now)));
        let (admitted, ticket) = circuit.clone().admit(asker, now)?;
        if admitted != circuit {
            self.tell(&model, &circuit, &admitted);
            circuits.insert(model.clone(), admitted);
        }
        drop(circuits);
        let circuits = Arc::clone(self);
        Ok(Pass { circuits, model, ticket, is_answered: false, out: None })
    }

    /// Begins anew: the destination was out of reach.
    pub(super) fn renew(&self) {
        let now = now();
        for (model, circuit) in self.lock().iter_mut().filter(|(_, circuit)| !circuit.is_closed()) {
            let renewed = circuit.clone().renewed(now);
            self.tell(model, circuit, &renewed);
            *circuit = renewed;
        }
    }

    fn note(&self, model: &Arc<str>, ticket: Ticket, seen: Seen) {
        let now = now();
        let mut circuits = self.lock();
        if !circuits.contains_key(model) {
            if circuits.len() >= MOST_MODELS {
                circuits.retain(|_, circuit| !circuit.is_closed());
            }
            if matches!(seen, Seen::Nothing | Seen::Left) || circuits.len() >= MOST_MODELS {
                return;
            }
            circuits.insert(model.clone(), Circuit::new(now));
        }
        let Some(circuit) = circuits.get_mut(model) else { return };
        let after = circuit.clone().step(ticket, seen, now, jitter());
        self.tell(model, circuit, &after);
        *circuit = after;
    }

    /// Tells people of a change.
    fn tell(&self, model: &str, before: &Circuit, after: &Circuit) {
        if before.level() == after.level() {
            return;
        }
        let destination = &self.destination;
        let labels = [("destination", destination.clone()), ("model", model.to_owned())];
        metrics::gauge!("holdfast_destination_circuit", &labels).set(f64::from(after.level()));
        match (before.is_closed(), after.is_closed()) {
            (true, false) => {
                tracing::warn!(%destination, model, "it fails on every request; asked slowly until it answers");
            }
            (false, true) => tracing::info!(%destination, model, "its circuit is closed again"),
            _ => {}
        }
    }

    /// What a panicked holder left is circuits all the same.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Circuit>> {
        self.by_model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pass {
    /// Takes in that the request goes out now.
    pub(super) fn goes_out(&mut self, id: RequestId) {
        self.out = Some((id, Instant::now()));
    }

    /// Takes in that an answer came, or its beginning.
    pub(super) fn answered(&mut self) {
        if !self.is_answered {
            self.is_answered = true;
            self.circuits.note(&self.model, self.ticket, Seen::Answered);
        }
    }

    /// Takes in what the send of `id` failed with.
    pub(super) fn failed(&mut self, id: RequestId, error: &SendError) {
        self.out = None;
        match seen(id, error) {
            Seen::Answered => self.answered(),
            seen => self.circuits.note(&self.model, self.ticket, seen),
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        // Where it ended with something, that is over, and this says nothing more.
        let seen = match self.out.filter(|_| !self.is_answered) {
            Some((id, since)) if since.elapsed() >= SILENCE => Seen::Failed(id),
            Some(_) => Seen::Left,
            None => Seen::Nothing,
        };
        self.circuits.note(&self.model, self.ticket, seen);
    }
}

/// What a failure says of the destination. Being out of reach is the link's affair, and what the
/// destination asks to be left alone for that of its pause.
fn seen(id: RequestId, error: &SendError) -> Seen {
    match error {
        SendError::TimedOut { .. } | SendError::Failed { .. } => Seen::Failed(id),
        SendError::Interrupted { waited: Some(waited), .. } if *waited < SILENCE => Seen::Nothing,
        SendError::Interrupted { .. } => Seen::Failed(id),
        SendError::Unusable { fault: Fault::Foreign { .. } | Fault::Elsewhere { .. }, .. } => {
            Seen::Failed(id)
        }
        SendError::Unusable { .. }
        | SendError::Refused { .. }
        | SendError::GaveUp { .. }
        | SendError::Pending { .. } => Seen::Answered,
        SendError::LinkDown { .. }
        | SendError::Unreachable { .. }
        | SendError::CircuitOpen { .. }
        | SendError::Busy { .. }
        | SendError::Limited { .. }
        | SendError::OverBudget { .. }
        | SendError::OverPlan { .. }
        | SendError::Unnoted { .. }
        | SendError::Unrecorded { .. }
        | SendError::Throttled { .. }
        | SendError::OutOfCredit { .. }
        | SendError::Unauthorised { .. }
        | SendError::Credential { .. }
        | SendError::NoToken { .. }
        | SendError::TooDear { .. }
        | SendError::Unfit { .. }
        | SendError::NoLabels { .. }
        | SendError::NoBundle { .. }
        | SendError::Unprepared { .. }
        | SendError::Misfit { .. }
        | SendError::TasksAlone { .. }
        | SendError::TooManyHops { .. }
        | SendError::NotConfigured { .. } => Seen::Nothing,
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_what_failures_say() {
        let (id, destination) = (RequestId::new(), || "a".to_owned());
        let (detail, cause) = (String::new, String::new);
        let wait = Duration::from_secs(1);
        let cut =
            |waited| SendError::Interrupted { destination: destination(), cause: cause(), waited };
        let unusable = |fault| SendError::Unusable { destination: destination(), fault };
        let failed = Seen::Failed(id);
        for (error, want) in [
            (
                SendError::Failed { destination: destination(), status: 500, detail: detail() },
                failed,
            ),
            (SendError::TimedOut { destination: destination(), limit: wait }, failed),
            (cut(None), failed),
            (cut(Some(SILENCE)), failed),
            (cut(Some(wait)), Seen::Nothing),
            (unusable(Fault::Foreign { what: detail() }), failed),
            (unusable(Fault::CutShort), Seen::Answered),
            (unusable(Fault::NotLetThrough), Seen::Answered),
            (
                SendError::Refused {
                    destination: destination(),
                    status: 400,
                    detail: detail(),
                    code: None,
                },
                Seen::Answered,
            ),
            (SendError::Pending { destination: destination() }, Seen::Answered),
            (SendError::Throttled { destination: destination(), retry_after: wait }, Seen::Nothing),
            (SendError::Unauthorised { destination: destination(), status: 401 }, Seen::Nothing),
            (
                SendError::OutOfCredit {
                    destination: destination(),
                    status: 402,
                    detail: detail(),
                },
                Seen::Nothing,
            ),
            (SendError::Unreachable { destination: destination(), cause: cause() }, Seen::Nothing),
            (SendError::Busy { destination: destination() }, Seen::Nothing),
        ] {
            assert_eq!(seen(id, &error), want, "{error}");
        }
    }

    fn fail(circuits: &Arc<Circuits>, model: &str) {
        let error =
            SendError::Failed { destination: "a".to_owned(), status: 500, detail: String::new() };
        circuits.admit(model, Asker::Waiting).unwrap().failed(RequestId::new(), &error);
    }

    #[tokio::test(start_paused = true)]
    async fn models_have_circuits_of_their_own_and_are_forgotten_when_they_are_too_many() {
        let circuits = Arc::new(Circuits::new("a"));
        for _ in 0..4 {
            fail(&circuits, "bad");
        }
        circuits.admit("good", Asker::Waiting).unwrap().answered();
        assert!(circuits.admit("bad", Asker::Waiting).is_err() && circuits.is_closed("good"));
        assert_eq!(circuits.gate_of_all(Asker::Held), Gate::Closed);
        for model in 0..2 * MOST_MODELS {
            circuits.admit(&model.to_string(), Asker::Waiting).unwrap().answered();
        }
        assert!(circuits.lock().len() <= MOST_MODELS && !circuits.is_closed("bad"));
        circuits.renew();
        assert!(circuits.is_closed("bad"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pass_that_is_dropped_leaves_the_try_to_the_next() {
        let circuits = Arc::new(Circuits::new("a"));
        for _ in 0..4 {
            fail(&circuits, "bad");
        }
        assert!(matches!(circuits.gate_of_all(Asker::Held), Gate::Open(_)));
        tokio::time::advance(Duration::from_secs(2)).await;
        let trial = circuits.admit("bad", Asker::Waiting).unwrap();
        assert!(circuits.admit("bad", Asker::Waiting).is_err());
        drop(trial);
        circuits.admit("bad", Asker::Waiting).unwrap().answered();
        assert_eq!(circuits.gate("bad", Asker::Held), Gate::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_wait_in_vain_open_it_and_those_who_leave_at_once_do_not() {
        for (waits, opens) in [(SILENCE, true), (SILENCE / 2, false)] {
            let circuits = Arc::new(Circuits::new("a"));
            for _ in 0..4 {
                let mut pass = circuits.admit("hung", Asker::Waiting).unwrap();
                pass.goes_out(RequestId::new());
                tokio::time::advance(waits).await;
                drop(pass);
            }
            assert_eq!(circuits.is_closed("hung"), !opens, "{waits:?}");
        }
    }
}
