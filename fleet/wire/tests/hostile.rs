//! Bytes from anywhere: nothing panics, nothing is taken that should not be.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use holdfast_wire::id::{DeviceId, Shard};
use holdfast_wire::message::*;
use holdfast_wire::sign::{self, EnvelopeError, LastSequence, Signer, Stale};
use holdfast_wire::topic::{Kind, Topic};
use holdfast_wire::unit::{Micros, Millis};
use proptest::prelude::*;

fn topic(device: &str, kind: Kind) -> Topic {
    Topic::Device(DeviceId::parse(device).unwrap(), kind)
}

fn hello(board: String, models: usize) -> Up {
    let model = ModelState {
        name: "m".into(),
        version: "1".into(),
        task: "t".into(),
        variant: "v".into(),
        runtime: "r".into(),
    };
    Up::Hello(Hello {
        device: DeviceId::parse("cam-7").unwrap(),
        agent_version: "0.1.0".into(),
        board,
        api: None,
        started: Millis(0),
        health_interval: Millis(1000),
        last_will: 0,
        models: vec![model; models],
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_decode_or_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(message) = Up::decode(&bytes) {
            prop_assert!(message.encode().is_ok());
        }
        if let Some(version) = bytes.first_mut() {
            *version = VERSION;
        }
        if let Ok(message) = Up::decode(&bytes) {
            prop_assert!(message.encode().is_ok());
        }
        let _checked = Down::decode(&bytes).is_ok();
        prop_assert!(sign::open(&topic("cam-7", Kind::Hello), &bytes).is_err());
    }

    #[test]
    fn one_flipped_bit_breaks_an_envelope(at in 0_usize..1000, bit in 0_u8..8) {
        let topic = topic("cam-7", Kind::Hello);
        let mut envelope = Signer::from_secret(&[1; 32]).seal(&topic, 5, &hello("b".into(), 2).encode().unwrap());
        let at = at % envelope.len();
        envelope[at] ^= 1 << bit;
        prop_assert!(sign::open(&topic, &envelope).is_err());
    }
}

#[test]
fn a_length_that_promises_gigabytes_is_refused() {
    // Up::Hello, then a device id whose length claims 2^63 bytes.
    let mut bytes = vec![VERSION, 0];
    bytes.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    assert_eq!(Up::decode(&bytes), Err(MessageError::Malformed));
    assert_eq!(
        Up::decode(&vec![VERSION; MAX_MESSAGE + 1]),
        Err(MessageError::TooLarge(MAX_MESSAGE + 1))
    );
}

#[test]
fn limits_hold_on_both_sides() {
    assert!(hello("b".repeat(MAX_TEXT), MAX_LIST).encode().is_ok());
    for (message, field) in [
        (hello("b".repeat(MAX_TEXT + 1), 0), "board"),
        (hello("a\nb".into(), 0), "board"),
        (hello("b".into(), MAX_LIST + 1), "models"),
    ] {
        assert_eq!(message.encode(), Err(MessageError::Field { field }), "{message:?}");
    }
    let report = |label: &str| ResultReport {
        number: 1,
        request: "r".into(),
        task: "t".into(),
        class: "public".into(),
        state: "answered".into(),
        answer: Some(AnswerReport {
            label: label.into(),
            confidence_milli: 1000,
            zone: "device".into(),
            place: "device".into(),
            model: "m".into(),
            took: Micros(1),
            provisional: false,
        }),
    };
    assert!(Up::Results(vec![report(&"l".repeat(MAX_TEXT)); MAX_LIST]).encode().is_ok());
    for results in [vec![report("a\nb")], vec![report("l"); MAX_LIST + 1]] {
        let refused = Up::Results(results).encode();
        assert_eq!(refused, Err(MessageError::Field { field: "results" }));
    }
    // The same, made by somebody who does not check what it sends.
    let mut bytes = hello("bbb".into(), 0).encode().unwrap();
    let at = bytes.windows(3).position(|window| window == b"bbb").unwrap();
    bytes[at + 1] = 0x1b;
    assert_eq!(Up::decode(&bytes), Err(MessageError::Field { field: "board" }));
}

#[test]
fn what_is_not_a_message_is_told_apart() {
    let mut trailing = Up::Bye.encode().unwrap();
    trailing.extend([0, 0]);
    for (bytes, want) in [
        (vec![], MessageError::Empty),
        (vec![2, 2], MessageError::Version(2)),
        (vec![1, 200], MessageError::Malformed),
        (trailing, MessageError::Trailing(2)),
    ] {
        assert_eq!(Up::decode(&bytes), Err(want), "{bytes:?}");
    }
}

#[test]
fn an_envelope_is_for_one_topic() {
    let signer = Signer::from_secret(&[1; 32]);
    let home = topic("cam-7", Kind::Health);
    let envelope = signer.seal(&home, 5, b"payload");
    assert_eq!(
        sign::open(&home, &envelope).map(|v| (v.key, v.sequence, v.payload)),
        Ok((signer.public_key(), 5, &b"payload"[..]))
    );
    for other in [
        topic("cam-7", Kind::Hello),
        topic("cam-8", Kind::Health),
        Topic::Announce(Shard::new(0).unwrap()),
    ] {
        assert_eq!(sign::open(&other, &envelope), Err(EnvelopeError::Signature), "{other}");
    }
    // A foreign key in the envelope does not help either.
    let mut stolen = envelope.clone();
    stolen[1..33].copy_from_slice(Signer::from_secret(&[2; 32]).public_key().as_bytes());
    assert_eq!(sign::open(&home, &stolen), Err(EnvelopeError::Signature));
    assert_eq!(
        sign::open(&home, &envelope[..sign::OVERHEAD - 1]),
        Err(EnvelopeError::Size(sign::OVERHEAD - 1))
    );
    let mut newer = envelope;
    newer[0] = 9;
    assert_eq!(sign::open(&home, &newer), Err(EnvelopeError::Version(9)));
}

#[test]
fn a_weak_key_signs_nothing() {
    // The identity point: with it, a signature of zeros would verify for any message under the lax rule.
    let mut envelope = vec![0_u8; sign::OVERHEAD];
    envelope[0] = sign::VERSION;
    envelope[1] = 1;
    envelope[41] = 1;
    assert_eq!(sign::open(&topic("cam-7", Kind::Health), &envelope), Err(EnvelopeError::Signature));
}

#[test]
fn sequences_only_grow() {
    let last = LastSequence::default();
    for (sequence, want) in
        [(0, Err(Stale { got: 0, last: 0 })), (1, Ok(1)), (u64::MAX, Ok(u64::MAX))]
    {
        assert_eq!(last.accept(sequence).map(LastSequence::get), want, "{sequence}");
    }
    let last = LastSequence::new(7);
    assert_eq!(last.accept(7), Err(Stale { got: 7, last: 7 }));
    assert_eq!(last.accept(6), Err(Stale { got: 6, last: 7 }));
    assert_eq!(last.accept(9).map(LastSequence::get), Ok(9));
}
