//! Exit codes and the sentences that come with them.

use std::net::TcpListener;

use crate::controller::{Controller, run};
use crate::device::{Device, health};
use holdfast_wire::message::Up;
use holdfast_wire::unit::Millis;

/// Ends with this code, and says each of these.
fn fails(arguments: &[&str], code: i32, says: &[&str]) {
    let (got, _, stderr) = run(arguments);
    assert_eq!(got, code, "{arguments:?}: {stderr}");
    for part in says {
        assert!(stderr.contains(part), "{arguments:?} does not say {part:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn wrong_arguments_and_configurations_say_what_is_right() {
    let data = tempfile::tempdir().unwrap();
    let config = data.path().join("fleet.toml");
    std::fs::write(&config, "[http]\nlisten = \"here\"\nspeed = 3\n").unwrap();
    let config = config.to_str().unwrap();
    fails(&[], 64, &["Usage"]);
    fails(&["sing"], 64, &["unrecognized subcommand"]);
    fails(&["serve", "--mqtt", "127.0.0.1:0", "--broker", "a:1"], 64, &["cannot be used with"]);
    fails(
        &["serve", "--config", "/nowhere/fleet.toml"],
        78,
        &["/nowhere/fleet.toml cannot be read", "because: No such file"],
    );
    fails(
        &["serve", "--config", config, "--mqtt", "x"],
        78,
        &[
            "configuration has 3 faults",
            "http.listen = \"here\"",
            "http.speed is no setting",
            "mqtt.listen = \"x\"",
        ],
    );
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!((code, stdout.starts_with("holdfast-fleet ")), (0, true));
    let (code, stdout, _) = run(&["completions", "bash"]);
    assert_eq!((code, stdout.contains("holdfast-fleet")), (0, true));
}

#[test]
fn ports_in_use_are_named() {
    let data = tempfile::tempdir().unwrap();
    let data = data.path().to_str().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(
        &["serve", "--data", data, "--http", &address, "--mqtt", "127.0.0.1:0"],
        69,
        &[&format!("http.listen = {address} cannot be used"), "--http", "Address already in use"],
    );
    fails(
        &["serve", "--data", data, "--http", "127.0.0.1:0", "--mqtt", &address],
        69,
        &[
            &format!("mqtt.listen = {address} cannot be used"),
            "--mqtt",
            &format!("--broker {address}"),
        ],
    );
}

#[tokio::test]
async fn storage_that_cannot_serve_is_named() {
    let data = tempfile::tempdir().unwrap();
    let free = ["--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0"];
    let serve = |data: &str, code: i32, says: &[&str]| {
        fails(&[&["serve", "--data", data][..], &free[..]].concat(), code, says);
    };
    // A file where the directory should be.
    let file = data.path().join("file");
    std::fs::write(&file, "").unwrap();
    serve(file.to_str().unwrap(), 74, &["data directory", "cannot be used", "--data"]);
    // Not a database; it is left as it is.
    let damaged = data.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("registry.db"), [b'x'; 9000]).unwrap();
    serve(damaged.to_str().unwrap(), 74, &["registry.db is damaged", "restore it from a backup"]);
    assert_eq!(std::fs::read(damaged.join("registry.db")).unwrap(), [b'x'; 9000]);
    // A key that is none.
    let key = data.path().join("key");
    std::fs::create_dir(&key).unwrap();
    std::fs::write(key.join("controller.key"), "short").unwrap();
    serve(key.to_str().unwrap(), 74, &["controller.key is damaged", "5 bytes instead of 32"]);
    // Two controllers for one directory.
    let used = data.path().join("used");
    let _controller = Controller::start_in_new(&used).await;
    serve(used.to_str().unwrap(), 74, &["is in use by another controller"]);
}

#[tokio::test]
async fn devices_are_listed_for_people_and_for_programs() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let list =
        |more: &[&str]| run(&[&["devices", "--server", &controller.http][..], more].concat());
    let (code, stdout, _) = list(&[]);
    assert_eq!((code, stdout.contains("no device has said hello yet")), (0, true), "{stdout}");
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.greet().await;
    device.send(&Up::Health(health(Millis(61_000), 3))).await;
    controller.device("cam-7", "health", |device| device["health"]["uptime_ms"] == 61_000).await;
    let (code, stdout, stderr) = list(&[]);
    assert_eq!(code, 0, "{stderr}");
    for part in
        ["DEVICE", "cam-7", "online", "voice-commands 1.0.0 int8", "3.9 ms", "31.0 MiB", "51.5 °C"]
    {
        assert!(stdout.contains(part), "{part} is not in\n{stdout}");
    }
    let (code, stdout, _) = list(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &json["devices"][0]["id"]), (0, &"cam-7".into()));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{free}");
    fails(
        &["devices", "--server", &server],
        69,
        &[&format!("no controller answers at {server}"), "--server"],
    );
}
