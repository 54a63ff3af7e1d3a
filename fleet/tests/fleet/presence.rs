//! When a device counts as there, and when not.

use holdfast_wire::message::{Down, Up};
use holdfast_wire::unit::Millis;

use crate::controller::Controller;
use crate::device::{Device, health};

#[tokio::test]
async fn a_device_appears_with_its_hello_and_shows_its_health() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.greet().await;
    let seen = controller.json("/api/v1/devices/cam-7").await;
    assert_eq!(seen["state"], "online");
    assert_eq!(seen["health"], serde_json::Value::Null);
    assert_eq!(seen["public_key"], device.signer.public_key().to_string());
    assert_eq!(seen["models"][0]["variant"], "int8");
    assert_eq!(seen["started"], "2026-11-18T11:06:40Z");

    device.send(&Up::Health(health(Millis(61_000), 3))).await;
    let seen = controller
        .device("cam-7", "health", |device| device["health"]["uptime_ms"] == 61_000)
        .await;
    assert_eq!(seen["health"]["queue"]["held"], 3);
    assert_eq!(seen["health"]["temperature_celsius"], 51.5);
    assert_eq!(seen["health"]["tasks"][0]["p95_us"], 3900);
    assert_eq!(seen["health"]["links"][0]["state"], "up");
    let list = controller.json("/api/v1/devices").await;
    assert_eq!(list["devices"].as_array().unwrap().len(), 1);
    assert_eq!(list["devices"][0]["id"], "cam-7");
}

#[tokio::test]
async fn a_broken_connection_is_known_by_the_last_will() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let port = controller.mqtt_port();
    let mut device = Device::connect("cam-7", 1, port, 1).await;
    device.greet().await;
    let next = device.sequence;
    // The socket closes without a goodbye.
    drop(device);
    let seen =
        controller.device("cam-7", "the last will", |device| device["state"] == "offline").await;
    assert_eq!(seen["reason"], "last-will");

    let mut device = Device::connect("cam-7", 1, port, next).await;
    device.greet().await;
    assert_eq!(controller.json("/api/v1/devices/cam-7").await["state"], "online");
    // A will of the connection before changes nothing any more.
    let old = device.signer.seal(&device.topic(Up::Lost.kind()), 1, &Up::Lost.encode().unwrap());
    let status = device.topic(Up::Lost.kind()).to_string();
    device.send_bytes(&status, old).await;
    controller.refused("replay", 1).await;
    assert_eq!(controller.json("/api/v1/devices/cam-7").await["state"], "online");
}

#[tokio::test]
async fn a_silent_device_is_offline_and_online_again_with_its_next_health() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.interval = Millis(300);
    device.greet().await;
    let seen = controller.device("cam-7", "silence", |device| device["state"] == "offline").await;
    assert_eq!(seen["reason"], "silence");
    device.send(&Up::Health(health(Millis(5), 0))).await;
    let seen =
        controller.device("cam-7", "health", |device| device["health"]["uptime_ms"] == 5).await;
    assert_eq!((&seen["state"], &seen["reason"]), (&"online".into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn a_goodbye_is_acknowledged_and_is_not_a_failure() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.greet().await;
    let sequence = device.send(&Up::Bye).await;
    assert_eq!(
        device.answer(|down| matches!(down, Down::Ack { .. })).await,
        Down::Ack { sequence }
    );
    let seen = controller.json("/api/v1/devices/cam-7").await;
    assert_eq!((&seen["state"], &seen["reason"]), (&"offline".into(), &"bye".into()));
    // Its connection breaks afterwards; that it said goodbye is what remains.
    drop(device);
    let mut other = Device::connect("cam-8", 2, controller.mqtt_port(), 1).await;
    other.greet().await;
    assert_eq!(controller.json("/api/v1/devices/cam-7").await["reason"], "bye");
}
