//! Owns the question where data may go.
//!
//! **Invariant:** a [`Cleared`] exists only when the policy in force lets this request's class
//! into that destination's zone; its fields are private to this module, and the clients in
//! [`escalate`](crate::escalate) can send nothing else. So it is with a [`ClearedResult`] and the
//! receivers of results.

use thiserror::Error;

use crate::destination::{Destination, Zone};
use crate::queue::RequestId;
use crate::reply::{Reply, ReplyBody};
use crate::request::{DataClass, Labelled, Request};
use crate::results::feed::ResultBody;
use crate::results::receiver::Receiver;

/// The farthest zone that a class may reach, whatever the configuration says.
pub fn ceiling(class: DataClass) -> Zone {
    match class {
        DataClass::Restricted => Zone::Device,
        DataClass::Confidential => Zone::Site,
        DataClass::Internal => Zone::Private,
        DataClass::Public => Zone::Public,
    }
}

/// How far each class may go on this device; never farther than [`ceiling`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    farthest: [Zone; 4],
    /// The class of a request that carries none.
    pub default_class: DataClass,
}

impl Default for Policy {
    fn default() -> Self {
        Self { farthest: DataClass::ALL.map(ceiling), default_class: DataClass::Confidential }
    }
}

impl Policy {
    /// Sets how far `class` may go.
    ///
    /// # Errors
    /// The class's ceiling, when `zone` lies beyond it: a policy can only be tightened.
    pub fn tighten(&mut self, class: DataClass, zone: Zone) -> Result<(), Zone> {
        let ceiling = ceiling(class);
        if zone > ceiling {
            return Err(ceiling);
        }
        let place = DataClass::ALL.iter().zip(&mut self.farthest).find(|(each, _)| **each == class);
        if let Some((_, farthest)) = place {
            *farthest = zone;
        }
        Ok(())
    }

    /// The farthest zone that `class` may reach here.
    pub fn farthest(&self, class: DataClass) -> Zone {
        let found = DataClass::ALL.iter().zip(self.farthest).find(|(each, _)| **each == class);
        found.map_or(Zone::Device, |(_, zone)| zone)
    }

    /// Whether data of `class` may enter `zone`; a reason for people, not a permission to send.
    pub fn allows(&self, class: DataClass, zone: Zone) -> bool {
        zone <= self.farthest(class)
    }

    /// Asks for permission to send `request`, whatever it asks, to `destination`, now.
    ///
    /// # Errors
    /// [`Denied`] when the request's class may not enter the destination's zone.
    pub fn clear<'a, R: Labelled>(
        &self,
        request: &'a R,
        destination: &'a Destination,
    ) -> Result<Cleared<'a, R>, Denied> {
        let class = request.class();
        if self.allows(class, destination.zone) {
            Ok(Cleared { request, destination })
        } else {
            Err(Denied {
                class,
                destination: destination.name.clone(),
                zone: destination.zone,
                farthest: self.farthest(class),
            })
        }
    }

    /// Asks for permission to send a result, which has its request's class, to `receiver`, now.
    ///
    /// # Errors
    /// [`Denied`] when the class may not enter the receiver's zone.
    pub fn clear_result<'a>(
        &self,
        number: u64,
        reply: &'a Reply,
        receiver: &'a Receiver,
    ) -> Result<ClearedResult<'a>, Denied> {
        if self.allows(reply.class, receiver.zone) {
            return Ok(ClearedResult { number, reply, receiver });
        }
        Err(Denied {
            class: reply.class,
            destination: receiver.name.clone(),
            zone: receiver.zone,
            farthest: self.farthest(reply.class),
        })
    }
}

/// Permission to send one result to one receiver. Only [`Policy::clear_result`] makes it.
#[derive(Debug, Clone, Copy)]
pub struct ClearedResult<'a> {
    number: u64,
    reply: &'a Reply,
    receiver: &'a Receiver,
}

impl<'a> ClearedResult<'a> {
    /// The result's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The request that has its end.
    pub fn id(&self) -> RequestId {
        self.reply.id
    }

    /// The result that may be sent.
    pub fn reply(&self) -> &'a Reply {
        self.reply
    }

    /// The receiver that it may be sent to.
    pub fn receiver(&self) -> &'a Receiver {
        self.receiver
    }

    /// The result as JSON, as the API shows it.
    pub fn body(&self) -> Vec<u8> {
        let body = ResultBody::Whole { number: self.number, reply: ReplyBody::from(self.reply) };
        // Our own types always become JSON.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Permission to send one request to one destination. Only [`Policy::clear`] makes it.
#[derive(Debug)]
pub struct Cleared<'a, R = Request> {
    request: &'a R,
    destination: &'a Destination,
}

impl<R> Clone for Cleared<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Cleared<'_, R> {}

impl<'a, R> Cleared<'a, R> {
    /// The request that may be sent.
    pub fn request(&self) -> &'a R {
        self.request
    }

    /// The destination that it may be sent to.
    pub fn destination(&self) -> &'a Destination {
        self.destination
    }
}

/// The policy's refusal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{class} data may go as far as zone {farthest}, and {destination} is in zone {zone}")]
pub struct Denied {
    /// The request's class.
    pub class: DataClass,
    /// The destination that was asked for.
    pub destination: String,
    /// Its zone.
    pub zone: Zone,
    /// How far the class may go.
    pub farthest: Zone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_reaches_its_zone_and_no_farther() {
        let policy = Policy::default();
        for (class, allowed) in [
            (DataClass::Restricted, 1),
            (DataClass::Confidential, 2),
            (DataClass::Internal, 3),
            (DataClass::Public, 4),
        ] {
            let reached = Zone::ALL.into_iter().filter(|zone| policy.allows(class, *zone)).count();
            assert_eq!(reached, allowed, "{class}");
        }
    }

    #[test]
    fn a_result_reaches_the_zones_that_its_request_reaches() {
        let policy = Policy::default();
        for class in DataClass::ALL {
            for zone in Zone::ALL {
                let address = crate::results::receiver::Address::Controller;
                let receiver = Receiver { name: "mes".into(), zone, address };
                let reply = Reply {
                    id: RequestId::new(),
                    subject: crate::subject::Subject::Model("t".to_owned()),
                    class,
                    state: crate::queue::State::Answered,
                    answer: None,
                    reasons: Vec::new(),
                    note: None,
                    kept: None,
                };
                let cleared = policy.clear_result(7, &reply, &receiver);
                assert_eq!(cleared.is_ok(), policy.allows(class, zone), "{class} {zone}");
                if let Err(denied) = cleared {
                    assert_eq!((denied.class, denied.zone), (class, zone));
                }
            }
        }
    }

    #[test]
    fn a_policy_can_only_be_tightened() {
        for class in DataClass::ALL {
            for zone in Zone::ALL {
                let mut policy = Policy::default();
                let result = policy.tighten(class, zone);
                assert_eq!(result.is_ok(), zone <= ceiling(class), "{class} {zone}");
                assert!(policy.farthest(class) <= ceiling(class), "{class} {zone}");
            }
        }
    }
}
