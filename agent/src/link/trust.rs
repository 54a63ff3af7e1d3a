//! Owns who is believed to be the controller, and what it says.
//!
//! **Invariant:** what counts is signed by the first controller that ever acknowledged a hello, and newer
//! than all that it said before.

use holdfast_wire::message::{Down, Health};
use holdfast_wire::sign::{self, PublicKey, Verified};
use holdfast_wire::topic::{Kind, Topic};
use rumqttc::Publish;

use super::{Event, Link};

/// What the controller says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// What changes the link.
    Event(Event),
    /// What was sent with this sequence is on record.
    Ack(u64),
}

impl<H: Fn() -> Health + Send> Link<H> {
    /// What a message means, if it is from the controller and new.
    pub(super) fn take(&mut self, publish: &Publish, hello: u64) -> Option<Word> {
        let (verified, message) = self.read(publish)?;
        let answers_me = matches!(message, Down::HelloAck(ack) if ack.sequence == hello);
        if !self.is_trusted(verified.key, answers_me) {
            return None;
        }
        self.heard = self.heard.accept(verified.sequence).ok()?;
        match message {
            Down::HelloAck(_) => answers_me.then_some(Word::Event(Event::Acknowledged)),
            Down::Announce { .. } => Some(Word::Event(Event::Announced)),
            Down::Ack { sequence } => Some(Word::Ack(sequence)),
        }
    }

    /// A signed message to this device or its shard, from whomever.
    fn read<'a>(&self, publish: &'a Publish) -> Option<(Verified<'a>, Down)> {
        let topic = Topic::parse(&publish.topic).ok()?;
        let device = self.identity.device();
        let mine = [Topic::Device(device.clone(), Kind::Down), Topic::Announce(device.shard())];
        // The broker is not trusted to deliver only what was subscribed to.
        if !mine.contains(&topic) {
            return None;
        }
        let verified = sign::open(&topic, &publish.payload).ok()?;
        Some((verified, Down::decode(verified.payload).ok()?))
    }

    /// Whether `key` is the controller's; the first that answers a hello becomes it.
    fn is_trusted(&mut self, key: PublicKey, answers_me: bool) -> bool {
        match self.identity.controller() {
            Some(trusted) if trusted == key => true,
            Some(_) if self.foreign == Some(key) => false,
            Some(trusted) => {
                self.foreign = Some(key);
                tracing::warn!(%trusted, got = %key, "a controller with another key was not heard; if it replaced \
                    the old one, remove controller.pub from the state folder");
                false
            }
            None if answers_me => match self.identity.trust(key) {
                Ok(()) => {
                    tracing::info!(controller = %key, "this controller is trusted from now on");
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, "the controller's key could not be written down");
                    false
                }
            },
            None => false,
        }
    }

    /// Whether the controller has on record what was sent with this sequence.
    pub(super) fn acknowledges(&self, publish: &Publish, sequence: u64) -> bool {
        let Some((verified, message)) = self.read(publish) else { return false };
        Some(verified.key) == self.identity.controller()
            && matches!(message, Down::Ack { sequence: got } if got == sequence)
    }
}
