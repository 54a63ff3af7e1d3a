//! The HTTP side: shapes, problems, events, the page.

use futures_util::StreamExt;
use holdfast_wire::message::Up;
use holdfast_wire::unit::Millis;
use serde_json::Value;
use tokio::time::timeout;

use crate::controller::{Controller, PATIENCE, client};
use crate::device::{Device, health};

#[tokio::test]
async fn problems_are_problem_json() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    for (path, status, detail) in [
        ("/api/v1/devices/cam-7", 404, "no device cam-7 ever said hello"),
        ("/api/v1/devices/CAM", 400, "only a-z, 0-9 and - are allowed"),
        ("/api/v1/devices?limit=0", 400, "limit = 0: must be 1..=1000"),
        ("/api/v1/devices?limit=many", 400, "limit"),
        ("/api/v1/devices?speed=1", 400, "speed"),
        ("/api/v2/devices", 404, "the API begins at /api/v1/devices"),
        ("/assets/passwd", 404, "no such asset"),
    ] {
        let (got, kind, body) = controller.get(path).await;
        assert_eq!((got, kind.as_str()), (status, "application/problem+json"), "{path}: {body}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&problem["status"], &problem["type"]), (&status.into(), &"about:blank".into()));
        assert!(problem["code"].is_string(), "{path}: {body}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{path}: {body}");
    }
    let response =
        client().post(format!("{}/api/v1/devices", controller.http)).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(controller.get("/healthz").await.0, 200);
    assert_eq!(controller.get("/readyz").await.2, "{\"ready\":true}");
}

#[tokio::test]
async fn a_long_list_comes_in_pages() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    for (id, secret) in [("cam-1", 1), ("cam-2", 2), ("cam-3", 3)] {
        Device::connect(id, secret, controller.mqtt_port(), 1).await.greet().await;
    }
    let first = controller.json("/api/v1/devices?limit=2").await;
    assert_eq!(first["devices"].as_array().unwrap().len(), 2);
    assert_eq!(first["next"], "cam-2");
    let second = controller.json("/api/v1/devices?limit=2&after=cam-2").await;
    assert_eq!((&second["devices"][0]["id"], &second["next"]), (&"cam-3".into(), &Value::Null));
    assert_eq!(second["devices"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_watcher_sees_the_fleet_and_then_each_change() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.greet().await;
    let response = client().get(format!("{}/api/v1/events", controller.http)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.bytes_stream();
    let mut text = String::new();
    let mut is_sent = false;
    let watching = async {
        while let Some(bytes) = stream.next().await {
            text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
            if text.contains("event: fleet") && !is_sent {
                device.send(&Up::Health(health(Millis(61_000), 3))).await;
                is_sent = true;
            }
            if text.contains("event: status") && text.contains("\"uptime_ms\":61000") {
                return;
            }
        }
    };
    timeout(PATIENCE, watching).await.unwrap();
    let first: Value =
        serde_json::from_str(text.lines().nth(1).unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(first["devices"][0]["id"], "cam-7");
}

#[tokio::test]
async fn the_page_loads_nothing_from_elsewhere() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let response = client().get(&controller.http).send().await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
    let page = response.text().await.unwrap();
    for asset in ["/assets/fleet.css", "/assets/fleet.js"] {
        assert!(page.contains(asset), "{asset}");
        let (status, _, content) = controller.get(asset).await;
        assert_eq!(status, 200, "{asset}");
        assert!(!content.contains("innerHTML"), "{asset} writes text as markup");
        for elsewhere in ["http://", "https://", "//cdn"] {
            let foreign = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains(elsewhere), "{asset} names {elsewhere}");
        }
    }
}
