//! The controller killed and started again.

use holdfast_wire::message::Up;
use holdfast_wire::topic::Kind;
use holdfast_wire::unit::Millis;

use crate::controller::Controller;
use crate::device::{Device, health};

#[tokio::test]
async fn a_killed_controller_knows_its_fleet_again() {
    let data = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(data.path(), &[]).await;
    let port = controller.mqtt_port();
    let mut device = Device::connect("cam-7", 1, port, 1).await;
    device.greet().await;
    device.send(&Up::Health(health(Millis(61_000), 3))).await;
    controller.device("cam-7", "health", |device| device["health"]["uptime_ms"] == 61_000).await;
    let next = device.sequence;
    let before = controller.json("/api/v1/status").await;
    // Another hello is acknowledged, therefore on disk, and the health with it.
    device.greet().await;
    controller.kill();
    drop(device);

    let address = format!("127.0.0.1:{port}");
    let controller = Controller::start(data.path(), &["--mqtt", &address]).await;
    let seen = controller.json("/api/v1/devices/cam-7").await;
    assert_eq!(seen["health"]["uptime_ms"], 61_000);
    assert_eq!(controller.json("/api/v1/status").await["public_key"], before["public_key"]);
    let mut device = Device::connect("cam-7", 1, port, next + 10).await;
    device.greet().await;
    // What it said before the kill is still too old.
    let topic = device.topic(Kind::Health);
    let old = device.signer.seal(&topic, next, &Up::Health(health(Millis(1), 0)).encode().unwrap());
    device.send_bytes(&topic.to_string(), old).await;
    controller.refused("replay", 1).await;
}

#[tokio::test]
async fn a_device_that_stays_away_after_a_restart_is_offline_by_silence() {
    let data = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.interval = Millis(300);
    device.greet().await;
    controller.kill();
    let controller = Controller::start(data.path(), &[]).await;
    let seen = controller.device("cam-7", "silence", |device| device["state"] == "offline").await;
    assert_eq!(seen["reason"], "silence");
}

#[tokio::test]
async fn a_stop_is_quick_even_with_watchers_and_devices() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.greet().await;
    device.send(&Up::Health(health(Millis(61_000), 3))).await;
    controller.device("cam-7", "health", |device| device["health"]["uptime_ms"] == 61_000).await;
    let watcher = crate::controller::client()
        .get(format!("{}/api/v1/events", controller.http))
        .send()
        .await
        .unwrap();
    let (code, took) = controller.stop().await;
    assert_eq!(code, 0);
    assert!(took < std::time::Duration::from_secs(5), "{took:?}");
    drop(watcher);
    // What was heard is on disk.
    let controller = Controller::start(data.path(), &[]).await;
    assert_eq!(controller.json("/api/v1/devices/cam-7").await["health"]["uptime_ms"], 61_000);
}
