//! What requests came to, as devices report it.

use holdfast_wire::message::{AnswerReport, Down, ResultReport, Up};
use holdfast_wire::unit::Micros;
use serde_json::Value;

use crate::controller::Controller;
use crate::device::Device;

fn report(number: u64) -> ResultReport {
    ResultReport {
        number,
        request: format!("request-{number}"),
        task: "voice-commands".into(),
        class: "internal".into(),
        state: "answered".into(),
        answer: Some(AnswerReport {
            label: "yes".into(),
            confidence_milli: 998,
            zone: "site".into(),
            place: "hall-2".into(),
            model: "m@1".into(),
            took: Micros(81_250),
            provisional: false,
        }),
    }
}

/// Sends results and waits until the controller has them on record.
async fn tell(device: &mut Device, numbers: impl IntoIterator<Item = u64>) {
    let results = Up::Results(numbers.into_iter().map(report).collect());
    let sent = device.send(&results).await;
    device.answer(|down| matches!(down, Down::Ack { sequence } if *sequence == sent)).await;
}

fn numbers(list: &Value) -> Vec<u64> {
    let results = list["results"].as_array().unwrap().iter();
    results.map(|result| result["number"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn results_are_on_record_once_however_often_they_come() {
    let data = tempfile::tempdir().unwrap();
    let mut controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    device.send(&Up::Results(vec![report(1)])).await;
    controller.refused("unknown", 1).await;
    device.greet().await;
    tell(&mut device, [1, 2]).await;
    tell(&mut device, [2, 3]).await;
    // Acknowledged is on disk.
    controller.kill();
    let controller = Controller::start(data.path(), &[]).await;
    let list = controller.json("/api/v1/devices/cam-7/results").await;
    assert_eq!(numbers(&list), [3, 2, 1], "newest first: {list}");
    let newest = &list["results"][0];
    assert_eq!(newest["id"], "request-3");
    assert_eq!(newest["answer"]["confidence"], 0.998);
    let one = controller.json("/api/v1/devices/cam-7/results?limit=1").await;
    assert_eq!(numbers(&one), [3]);
    for (path, status) in [
        ("/api/v1/devices/nobody/results", 404),
        ("/api/v1/devices/cam-7/results?limit=0", 400),
        ("/api/v1/devices/cam-7/results?after=3", 400),
    ] {
        assert_eq!(controller.get(path).await.0, status, "{path}");
    }
    let (code, _, said) =
        crate::controller::run(&["results", "nobody", "--server", &controller.http]);
    assert!(code == 64 && said.contains("no device nobody"), "{code} {said}");
}

#[tokio::test]
async fn only_the_newest_results_of_a_device_are_kept() {
    let data = tempfile::tempdir().unwrap();
    let controller = Controller::start(data.path(), &[]).await;
    let mut device = Device::connect("cam-7", 1, controller.mqtt_port(), 1).await;
    let mut other = Device::connect("cam-8", 2, controller.mqtt_port(), 1).await;
    device.greet().await;
    other.greet().await;
    tell(&mut other, [7]).await;
    for first in (1..=1100).step_by(50) {
        tell(&mut device, first..first + 50).await;
    }
    let list = controller.json("/api/v1/devices/cam-7/results?limit=1000").await;
    let want: Vec<u64> = (101..=1100).rev().collect();
    assert_eq!(numbers(&list), want);
    assert_eq!(numbers(&controller.json("/api/v1/devices/cam-8/results").await), [7]);
}
