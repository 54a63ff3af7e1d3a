//! Messages that must change nothing.

use holdfast_wire::message::Up;
use holdfast_wire::sign::{self, Signer};
use holdfast_wire::topic::Kind;
use holdfast_wire::unit::Millis;
use serde_json::Value;

use crate::controller::Controller;
use crate::device::{Device, health};

/// Everything about the devices but the dates that pass.
async fn picture(controller: &Controller) -> Value {
    controller.json("/api/v1/devices").await["devices"].clone()
}

#[tokio::test]
async fn what_is_not_rightly_signed_by_the_device_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let port = controller.mqtt_port();
    let mut device = Device::connect("cam-7", 1, port, 10).await;
    device.greet().await;
    device.send(&Up::Health(health(Millis(61_000), 3))).await;
    controller.device("cam-7", "health", |device| device["health"]["uptime_ms"] == 61_000).await;
    let before = picture(&controller).await;

    let mut attacker = Device::connect("cam-8", 9, port, 1).await;
    let topic = device.topic(Kind::Health);
    let text = topic.to_string();
    let news = Up::Health(health(Millis(1), 999)).encode().unwrap();
    let genuine = device.signer.seal(&topic, 50, &news);

    // Its own key for somebody else's device.
    attacker.send_bytes(&text, attacker.signer.seal(&topic, 60, &news)).await;
    controller.refused("key", 1).await;
    // The device's key in the envelope, but not its signature.
    let mut forged = attacker.signer.seal(&topic, 60, &news);
    forged[1..33].copy_from_slice(device.signer.public_key().as_bytes());
    attacker.send_bytes(&text, forged).await;
    controller.refused("signature", 1).await;
    // A genuine message with one bit changed, and one moved to another topic.
    let mut altered = genuine.clone();
    altered[60] ^= 1;
    attacker.send_bytes(&text, altered).await;
    let hello = device.topic(Kind::Hello);
    attacker.send_bytes(&hello.to_string(), genuine).await;
    controller.refused("signature", 3).await;
    // Messages of the device that came before, and one that is older than the last.
    for sequence in [11, 12] {
        attacker.send_bytes(&text, device.signer.seal(&topic, sequence, &news)).await;
    }
    controller.refused("replay", 2).await;
    // Rubbish, too long, too short, of another kind, for another device.
    attacker.send_bytes(&text, vec![]).await;
    attacker.send_bytes(&text, vec![7; 900]).await;
    attacker.send_bytes(&text, vec![1; sign::MAX_ENVELOPE]).await;
    attacker.send_bytes(&text, device.signer.seal(&topic, 70, b"\x01\xff\xff\xff")).await;
    attacker.send_bytes(&text, device.signer.seal(&topic, 71, &Up::Bye.encode().unwrap())).await;
    attacker.send_bytes(&text, device.signer.seal(&topic, u64::MAX, &news)).await;
    let other = Up::Hello(attacker.hello()).encode().unwrap();
    attacker.send_bytes(&hello.to_string(), device.signer.seal(&hello, 72, &other)).await;
    controller.refused("malformed", 6).await;
    controller.refused("signature", 4).await;
    // A device that never said hello, and a topic that is none.
    attacker.send(&Up::Health(health(Millis(1), 0))).await;
    controller.refused("unknown", 1).await;
    attacker.send_bytes("holdfast/1/63/CAM/hello", vec![1]).await;
    controller.refused("topic", 1).await;

    assert_eq!(picture(&controller).await, before);
    // And the device itself goes on.
    device.sequence = 80;
    device.send(&Up::Health(health(Millis(62_000), 2))).await;
    controller.device("cam-7", "health", |device| device["health"]["uptime_ms"] == 62_000).await;
}

#[tokio::test]
async fn the_registry_has_a_bound() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("fleet.toml");
    std::fs::write(&config, "[registry]\nmax_devices = 1\n").unwrap();
    let controller = Controller::start(data.path(), &["--config", config.to_str().unwrap()]).await;
    let mut first = Device::connect("cam-1", 1, controller.mqtt_port(), 1).await;
    first.greet().await;
    let mut second = Device::connect("cam-2", 2, controller.mqtt_port(), 1).await;
    let hello = Up::Hello(second.hello());
    second.send(&hello).await;
    controller.refused("full", 1).await;
    first.greet().await;
    assert_eq!(controller.json("/api/v1/devices").await["devices"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_is_pinned_for_good() {
    let data = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.greet().await;
    controller.kill();
    let controller = Controller::start(data.path(), &[]).await;
    let mut impostor = Device::connect("cam-7", 2, controller.mqtt_port(), 1000).await;
    let hello = Up::Hello(impostor.hello());
    impostor.send(&hello).await;
    controller.refused("key", 1).await;
    let seen = controller.json("/api/v1/devices/cam-7").await;
    assert_eq!(seen["public_key"], Signer::from_secret(&[1; 32]).public_key().to_string());
}
