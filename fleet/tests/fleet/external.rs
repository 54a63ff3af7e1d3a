//! Mosquitto in place of the embedded broker.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use holdfast_wire::message::Down;
use tokio::net::TcpStream;

use crate::controller::{Controller, until};
use crate::device::Device;

struct Mosquitto(Child);

impl Mosquitto {
    async fn start(directory: &Path, port: u16) -> Option<Self> {
        let config = directory.join("mosquitto.conf");
        std::fs::write(
            &config,
            format!("listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n"),
        )
        .unwrap();
        let program = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find(|program| {
            Command::new(program)
                .arg("-h")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok()
        });
        let Some(program) = program else {
            println!("LEFT OUT: a fleet behind Mosquitto (mosquitto is not installed)");
            return None;
        };
        let child =
            Command::new(program).arg("-c").arg(config).stderr(Stdio::null()).spawn().unwrap();
        until("mosquitto", async || TcpStream::connect(("127.0.0.1", port)).await.ok()).await;
        Some(Self(child))
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn devices_behind_mosquitto_outlive_controller_and_broker() {
    let data = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(mosquitto) = Mosquitto::start(data.path(), port).await else { return };
    let broker = format!("127.0.0.1:{port}");
    let mut controller = Controller::start(data.path(), &["--broker", &broker]).await;
    assert_eq!(controller.mqtt, broker);
    let mut device = Device::connect("cam-7", 1, port, 1).await;
    device.greet().await;

    // The device's connection outlives the controller; the new one asks it to say hello.
    controller.kill();
    let controller = Controller::start(data.path(), &["--broker", &broker]).await;
    device.answer(|down| matches!(down, Down::Announce { .. })).await;
    device.greet().await;

    let next = device.sequence;
    drop(device);
    let seen =
        controller.device("cam-7", "the last will", |device| device["state"] == "offline").await;
    assert_eq!(seen["reason"], "last-will");

    // The broker goes away and comes back: the controller is not ready meanwhile, and subscribes again.
    drop(mosquitto);
    until("the loss", async || (controller.get("/readyz").await.0 == 503).then_some(())).await;
    let _mosquitto = Mosquitto::start(data.path(), port).await.unwrap();
    until("the return", async || (controller.get("/readyz").await.0 == 200).then_some(())).await;
    let mut device = Device::connect("cam-7", 1, port, next).await;
    device.greet().await;
    assert_eq!(controller.json("/api/v1/devices/cam-7").await["state"], "online");
}

#[tokio::test]
async fn a_broker_that_is_not_there_does_not_stop_the_controller() {
    let data = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let controller =
        Controller::start(data.path(), &["--broker", &format!("127.0.0.1:{port}")]).await;
    let (status, kind, body) = controller.get("/readyz").await;
    assert_eq!((status, kind.as_str()), (503, "application/problem+json"));
    assert!(body.contains(&format!("the broker at 127.0.0.1:{port} is not connected")), "{body}");
    assert_eq!(controller.get("/healthz").await.0, 200);
    assert_eq!(controller.get("/").await.0, 200);
}
