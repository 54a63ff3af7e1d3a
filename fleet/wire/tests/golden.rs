//! The bytes of every message, by version. What is here is in the field: a change is a new version, not an edit.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use holdfast_wire::id::DeviceId;
use holdfast_wire::message::*;
use holdfast_wire::sign::Signer;
use holdfast_wire::topic::{Kind, Topic};
use holdfast_wire::unit::{Bytes, Celsius, Micros, Millis};

fn hello() -> Hello {
    Hello {
        device: DeviceId::parse("cam-7").unwrap(),
        agent_version: "0.1.0".into(),
        board: "raspberry-pi-4".into(),
        api: Some("http://10.0.0.7:8470".into()),
        started: Millis(1_795_000_000_000),
        health_interval: Millis(5000),
        last_will: 4096,
        models: vec![ModelState {
            name: "voice-commands".into(),
            version: "1.0.0".into(),
            task: "voice-commands".into(),
            variant: "int8".into(),
            runtime: "tract".into(),
        }],
    }
}

fn health() -> Health {
    Health {
        uptime: Millis(61_000),
        memory_rss: Bytes::mib(31),
        memory_total: Bytes::mib(3792),
        memory_available: Bytes::mib(2900),
        disk_free: Bytes::mib(20_000),
        disk_total: Bytes::mib(29_000),
        temperature: Some(Celsius::from_milli(51_121)),
        load_milli: 420,
        queue: vec![QueueDepth { state: "held".into(), requests: 3 }],
        tasks: vec![TaskHealth {
            task: "voice-commands".into(),
            inferences: 120,
            failures: 1,
            p50: Micros(2100),
            p95: Micros(3900),
            p99: Micros(6000),
        }],
        escalations: Escalations { sent: 9, answered: 6, failed: 1 },
        links: vec![LinkHealth {
            name: "site".into(),
            zone: "site".into(),
            state: LinkState::Up,
            since: Millis(30_000),
        }],
    }
}

fn results() -> Vec<ResultReport> {
    let answered = ResultReport {
        number: 4099,
        request: "01a1fd07-e5c8-712a-b58f-da26b1bfc112".into(),
        task: "voice-commands".into(),
        class: "internal".into(),
        state: "answered".into(),
        answer: Some(AnswerReport {
            label: "yes".into(),
            confidence_milli: 998,
            zone: "site".into(),
            place: "hall-2".into(),
            model: "voice-commands-large@1.0.0 int8 tract".into(),
            took: Micros(81_250),
            provisional: false,
        }),
    };
    let expired = ResultReport {
        number: 4100,
        request: "01a1fd07-e5c8-712a-b58f-da26b1bfc113".into(),
        state: "expired".into(),
        answer: None,
        ..answered.clone()
    };
    vec![answered, expired]
}

#[test]
fn version_1_from_devices() {
    for (message, golden) in [
        (Up::Hello(hello()), HELLO),
        (Up::Health(health()), HEALTH),
        (Up::Bye, "0102"),
        (Up::Lost, "0103"),
        (Up::Results(results()), RESULTS),
    ] {
        assert_eq!(hex::encode(message.encode().unwrap()), golden, "{message:?}");
        assert_eq!(Up::decode(&hex::decode(golden).unwrap()), Ok(message));
    }
}

#[test]
fn version_1_from_the_controller() {
    for (message, golden) in [
        (Down::HelloAck(HelloAck { sequence: 4097, time: Millis(1_795_000_000_000) }), HELLO_ACK),
        (Down::Ack { sequence: 4098 }, "01018220"),
        (Down::Announce { started: Millis(1_795_000_000_000) }, ANNOUNCE),
    ] {
        assert_eq!(hex::encode(message.encode().unwrap()), golden, "{message:?}");
        assert_eq!(Down::decode(&hex::decode(golden).unwrap()), Ok(message));
    }
}

#[test]
fn version_1_envelope() {
    let signer = Signer::from_secret(&[7; 32]);
    let topic = Topic::Device(DeviceId::parse("cam-7").unwrap(), Kind::Status);
    let envelope = signer.seal(&topic, 4096, &Up::Lost.encode().unwrap());
    assert_eq!(hex::encode(&envelope), ENVELOPE);
    let opened = holdfast_wire::sign::open(&topic, &hex::decode(ENVELOPE).unwrap())
        .map(|v| (v.key, v.sequence, v.payload.to_vec()));
    assert_eq!(opened, Ok((signer.public_key(), 4096, vec![1, 3])));
}

const HELLO: &str = "01000563616d2d3705302e312e300e7261737062657272792d70692d340114687474703a2f2f31302e302e302e373a3834373080bcd9f29e3488278020010e766f6963652d636f6d6d616e647305312e302e300e766f6963652d636f6d6d616e647304696e7438057472616374";
const HEALTH: &str = "0101c8dc038080c00f808080e80e808080aa0b808080904e808080a47101e29e06a403010468656c6403010e766f6963652d636f6d6d616e64737801b410bc1ef02e090601010473697465047369746501b0ea01";
const RESULTS: &str = "01040283202430316131666430372d653563382d373132612d623538662d6461323662316266633131320e766f6963652d636f6d6d616e647308696e7465726e616c08616e7377657265640103796573e60704736974650668616c6c2d3225766f6963652d636f6d6d616e64732d6c6172676540312e302e3020696e7438207472616374e2fa040084202430316131666430372d653563382d373132612d623538662d6461323662316266633131330e766f6963652d636f6d6d616e647308696e7465726e616c076578706972656400";
const HELLO_ACK: &str = "0100812080bcd9f29e34";
const ANNOUNCE: &str = "010280bcd9f29e34";
const ENVELOPE: &str = "01ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c00100000000000000103ff5410a2a05087ed698b497315c614c99364d6ab9a995c94d19cf1fb748175b7054536f6a01f87a61f47576360f66ffdc278e9fe6be8628a14d88586b010ab09";
