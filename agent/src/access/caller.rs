//! Owns who calls: where from, under which name, and what for.
//!
//! **Invariant:** a caller has one grant, that of what it showed; a clone costs no memory.

use std::sync::{Arc, LazyLock};

use super::grant::{Denied, Grant, Need};
use super::token::Digest;
use crate::request::{DataClass, IdempotencyKey, Owner};

/// What a caller without a token is called.
const NOBODY: &str = "-";

/// Who is at the other end of a connection, before anything is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network.
    Network,
    /// Somebody with a client certificate that was checked.
    Certified,
    /// A process of this machine, over a Unix socket.
    Process {
        /// Its user's number.
        user: u32,
    },
}

/// Who calls, and what for; goes with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(Arc<Named>);

#[derive(Debug, PartialEq, Eq)]
struct Named {
    name: String,
    shown: Shown,
    grant: Grant,
}

/// What a caller showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Nothing,
    Token(Digest),
    Certificate,
    Process(u32),
}

impl Caller {
    pub(super) fn new(name: impl Into<String>, shown: Shown, grant: Grant) -> Self {
        Self(Arc::new(Named { name: name.into(), shown, grant }))
    }

    /// Somebody who may do everything, since nobody is asked for a token.
    pub fn anybody() -> Self {
        static ANYBODY: LazyLock<Caller> =
            LazyLock::new(|| Caller::new(NOBODY, Shown::Nothing, Grant::all()));
        ANYBODY.clone()
    }

    /// The name of its token.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Tells it from every other caller, also from one whose token had the same name before; all who show
    /// nothing are one. `None` where that cannot be told: of certificates it is only known that they are
    /// good.
    pub(crate) fn identity(&self) -> Option<String> {
        match self.0.shown {
            Shown::Nothing => Some("nobody".to_owned()),
            Shown::Token(digest) => Some(format!("token:{}", digest.to_hex())),
            Shown::Process(user) => Some(format!("process:{user}")),
            Shown::Certificate => None,
        }
    }

    /// Its key for a request, which is no other caller's; of callers that cannot be told apart it is one. The
    /// name of a token counts: who is given a new token of the same name asks again under its keys.
    pub(crate) fn own(&self, key: IdempotencyKey) -> IdempotencyKey {
        match self.0.shown {
            Shown::Token(_) => key.owned_by(Owner::called(&format!("token:{}", self.name()))),
            Shown::Process(user) => key.owned_by(Owner::called(&format!("process:{user}"))),
            Shown::Nothing | Shown::Certificate => key,
        }
    }

    /// Of the token that it showed.
    pub(super) fn digest(&self) -> Option<Digest> {
        match self.0.shown {
            Shown::Token(digest) => Some(digest),
            Shown::Nothing | Shown::Certificate | Shown::Process(_) => None,
        }
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.0.grant
    }

    /// Whether there is something that it may not ask.
    pub(crate) fn is_bounded(&self) -> bool {
        !self.grant().tasks.is_empty() || !self.grant().classes.is_empty()
    }

    /// Whether it may be told of what was asked so: of what it may ask, and of nothing more sensitive than
    /// what it may send itself.
    pub(crate) fn may_hear(&self, subject: &str, class: DataClass) -> bool {
        let most = self.grant().classes.iter().max();
        self.may_ask(subject).is_ok() && most.is_none_or(|most| class <= *most)
    }

    /// Whether it may ask this task or model.
    ///
    /// # Errors
    /// [`Denied::Task`]
    pub fn may_ask(&self, task: &str) -> Result<(), Denied> {
        self.grant().may_ask(self.name(), task)
    }

    /// Whether it may label data so.
    ///
    /// # Errors
    /// [`Denied::Class`]
    pub fn may_label(&self, class: DataClass) -> Result<(), Denied> {
        self.grant().may_label(self.name(), class)
    }

    /// Whether it may do what a route needs.
    ///
    /// # Errors
    /// [`Denied::Admin`]
    pub(crate) fn may(&self, need: Need) -> Result<(), Denied> {
        match need {
            Need::Admin if !self.grant().admin => {
                Err(Denied::Admin { name: self.name().to_owned() })
            }
            Need::Nothing | Need::Token | Need::Admin => Ok(()),
        }
    }
}
