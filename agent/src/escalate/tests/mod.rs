//! Sends against strict fakes and against everything that can go wrong on a wire.

mod circuit;
mod faults;
mod holdfast;
mod limits;
mod link;
mod oip;
mod openai;

use std::time::Duration;

use bytes::Bytes;
use holdfast_models::Media;

use super::{Escalator, Hints, Purse, SendError, TaskHints};
use crate::answer::Answer;
use crate::audit::Audit;
use crate::clock::Clock;
use crate::destination::{Credential, Destination, Limits, Protocol, Transport, Zone};
use crate::policy::Policy;
use crate::queue::RequestId;
use crate::request::{DataClass, Escalate, Priority, Request, TaskName};

/// Long enough for any exchange on loopback that is meant to succeed.
pub(super) const PLENTY: Duration = Duration::from_secs(20);

/// Ten milliseconds of a ramp.
pub(super) fn wav() -> Bytes {
    let mut bytes = Vec::from(*b"RIFF\x64\x01\0\0WAVEfmt \x10\0\0\0");
    for field in [1_u16, 1, 16_000, 0, 32_000, 0, 2, 16] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(*b"data\x40\x01\0\0");
    bytes.extend((0..160_i16).flat_map(|sample| (sample * 100).to_le_bytes()));
    bytes.into()
}

pub(super) fn request(class: DataClass) -> Request {
    Request {
        id: RequestId::new(),
        task: TaskName::parse("voice-commands").unwrap(),
        media: Media::detect(wav(), Some("audio/wav")).unwrap(),
        class,
        priority: Priority::new(7).unwrap(),
        escalate: Escalate::Auto,
        deadline_ms: 800,
        ttl_ms: 60_000,
        not_before_ms: 0,
        key: None,
        hops: 0,
    }
}

pub(super) fn destination(protocol: Protocol, url: String) -> Destination {
    Destination {
        name: "site".to_owned(),
        zone: Zone::Site,
        protocol,
        url,
        credential: None,
        tasks: Vec::new(),
        transport: Transport::default(),
        connect_timeout: Duration::from_secs(5),
        timeout: PLENTY,
        concurrency: 4,
        limits: Limits::default(),
    }
}

pub(super) fn hints() -> Hints {
    let hints = TaskHints {
        labels: ["yes", "no", "stop"].map(str::to_owned).to_vec(),
        description: "which of a few commands is spoken.".to_owned(),
    };
    Hints::from([(TaskName::parse("voice-commands").unwrap(), hints)])
}

/// For destinations without a budget.
pub(super) fn purse() -> Purse {
    let nowhere = tempfile::tempdir().unwrap();
    Purse::open(nowhere.path(), Clock::resume(nowhere.path()), &[])
}

pub(super) fn escalator(destination: &Destination) -> Escalator {
    Escalator::new(std::slice::from_ref(destination), hints(), purse(), Audit::default()).unwrap()
}

/// Sends an internal request to `destination`, as the policy by default allows for a site.
pub(super) async fn send(
    escalator: &Escalator,
    destination: &Destination,
    request: &Request,
) -> Result<Answer, SendError> {
    let cleared = Policy::default().clear(request, destination).unwrap();
    escalator.send(cleared, PLENTY).await
}

/// A credential file that lives as long as the returned folder.
pub(super) fn credential(secret: &str) -> (tempfile::TempDir, Credential) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, format!("{secret}\n")).unwrap();
    (dir, Credential::File(path))
}
