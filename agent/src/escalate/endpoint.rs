//! Owns what is one destination's own: its connections, its turns, its pause, its circuits, its credential.
//!
//! **Invariant:** nothing of one destination's state is another's.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::time::Instant;

use super::circuit::{Asker, Gate};
use super::circuits::{Circuits, Pass};
use super::credential::{CredentialError, Lately, Secret};
use super::error::{EscalateError, SendError};
use super::http::Http;
use super::latency::Latency;
use super::pause::Paused;
use super::tokens::Tokens;
use super::turn::{Standing, Turn, Turns};
use super::{Share, chat, oip, proof};
use crate::destination::{Credential, Destination, Protocol};
use crate::network::{Network, Purpose};
use crate::subject::Subject;

/// Why the credential of `destination` cannot be read by this process now, where it has one and that is so.
pub async fn credential_fault(destination: &Destination) -> Option<CredentialError> {
    read(destination, destination.credential.as_ref()?).await.err()
}

async fn read(
    destination: &Destination,
    credential: &Credential,
) -> Result<Secret, CredentialError> {
    match proof::takes_whole(&destination.protocol) {
        true => Secret::read_whole(credential).await,
        false => Secret::read(credential).await,
    }
}

/// One destination with what is its own.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) destination: Destination,
    pub(super) http: Http,
    /// The same connections, for probes.
    pub(super) probes: Http,
    pub(super) turns: Turns,
    pub(super) paused: Paused,
    pub(super) circuits: Arc<Circuits>,
    pub(super) latency: Latency,
    /// What is known of the models there, where they take tensors.
    pub(super) known: oip::Known,
    /// Whether the last reply to a request was somebody else's.
    pub(super) doubted: AtomicBool,
    /// Whether a reply to a request was ever its own.
    pub(super) proved: AtomicBool,
    tokens: Tokens,
    lately: Lately,
}

impl Endpoint {
    pub(super) fn new(
        destination: &Destination,
        turns: Turns,
        network: &Network,
    ) -> Result<Self, EscalateError> {
        let tap = network.tap(Purpose::Escalation, &destination.name);
        let tokens = Tokens::new(tap.of(Purpose::Token));
        let http = Http::new(destination, tap)?;
        Ok(Self {
            destination: destination.clone(),
            probes: http.counted_as(Purpose::Probe),
            http,
            turns,
            paused: Paused::default(),
            circuits: Arc::new(Circuits::new(&destination.name)),
            latency: Latency::default(),
            known: oip::Known::default(),
            doubted: AtomicBool::new(false),
            proved: AtomicBool::new(false),
            tokens,
            lately: Lately::default(),
        })
    }

    /// The credential, read anew unless that was done a moment ago and all is well.
    pub(super) async fn secret(&self) -> Result<Option<Secret>, SendError> {
        let Some(credential) = &self.destination.credential else { return Ok(None) };
        let now = Instant::now();
        // Whoever mends what a destination is left alone for is not kept waiting.
        let kept = self.lately.get(now).filter(|_| self.paused.get(now).is_none());
        if kept.is_some() {
            return Ok(kept);
        }
        match read(&self.destination, credential).await {
            Ok(secret) => {
                self.lately.keep(&secret, now);
                Ok(Some(secret))
            }
            Err(source) => {
                let destination = self.destination.name.clone();
                let error = SendError::Credential { destination, source };
                self.paused.note(&error, None, Instant::now());
                Err(error)
            }
        }
    }

    /// What was given for `secret`, where the protocol wants that in its place.
    pub(super) async fn token(
        &self,
        secret: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Option<Secret>, SendError> {
        let Some(secret) = secret.filter(|_| proof::takes_token(&self.destination.protocol)) else {
            return Ok(None);
        };
        let token = self.tokens.token(&self.destination, secret, deadline).await;
        token.inspect_err(|error| self.note(error, Some(secret), None))
    }

    /// Takes in what a send with `secret` failed with.
    pub(super) fn note(&self, error: &SendError, secret: Option<&Secret>, token: Option<&Secret>) {
        if matches!(error, SendError::Unauthorised { .. }) {
            self.lately.forget();
            if let Some(token) = token {
                self.tokens.forget(token);
            }
        }
        if matches!(error, SendError::Unreachable { .. }) {
            self.circuits.renew();
        }
        self.paused.note(error, secret, Instant::now());
    }

    pub(super) fn check_pause(&self, secret: Option<&Secret>) -> Result<(), SendError> {
        let destination = self.destination.name.clone();
        self.paused.check(destination, secret, Instant::now())
    }

    /// A turn at once for something held that asks `asked`, let through its circuit.
    pub(super) fn try_turn(
        &self,
        asked: &Subject,
        share: Share,
        bytes: u64,
    ) -> Result<Turn, Standing> {
        let turn = self.turns.try_take(share, self.sent_bytes(bytes))?;
        let model = self.destination.model_asked(asked);
        let pass = self.circuits.admit(model, Asker::Held).map_err(Standing::Paused)?;
        Ok(turn.with_pass(pass))
    }

    /// How long what is held and asks `asked`, or whatever is held, is kept from going there by a circuit.
    pub(super) fn rest(&self, asked: Option<&Subject>) -> Option<Duration> {
        let gate = match (&self.destination.protocol, asked) {
            (_, Some(asked)) => {
                self.circuits.gate(self.destination.model_asked(asked), Asker::Held)
            }
            (Protocol::Chat(chat), None) => self.circuits.gate(&chat.model, Asker::Held),
            (_, None) => self.circuits.gate_of_all(Asker::Held),
        };
        match gate {
            Gate::Open(left) => Some(left),
            Gate::Closed | Gate::HalfOpen => None,
        }
    }

    /// Whether somebody who waits would be let through the circuit of `model`.
    pub(super) fn check_circuit(&self, model: &str) -> Result<(), SendError> {
        match self.circuits.gate(model, Asker::Waiting) {
            Gate::Open(left) => Err(self.circuit_open(model, left)),
            Gate::Closed | Gate::HalfOpen => Ok(()),
        }
    }

    /// Lets somebody who waits through the circuit of `model`.
    pub(super) fn admit(&self, model: &str) -> Result<Pass, SendError> {
        let pass = self.circuits.admit(model, Asker::Waiting);
        pass.map_err(|left| self.circuit_open(model, left))
    }

    fn circuit_open(&self, model: &str, retry_after: Duration) -> SendError {
        let (destination, model) = (self.destination.name.clone(), model.to_owned());
        SendError::CircuitOpen { destination, model, retry_after }
    }

    /// What an input of `bytes` becomes on its way.
    pub(super) fn sent_bytes(&self, bytes: u64) -> u64 {
        match self.destination.protocol {
            Protocol::Chat(_) => chat::sent_bytes(bytes),
            _ => bytes,
        }
    }
}
