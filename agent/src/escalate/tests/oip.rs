//! Servers of the Open Inference Protocol.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use holdfast_models::{Bundle, Media};
use serde_json::{Value, json};

use super::super::fakes::{Fake, Scripted};
use super::super::{Bundles, Escalator, Next, SendError};
use super::{destination, escalator, request, send, wav};
use crate::destination::{Destination, Oip, Protocol, Zone};
use crate::request::{DataClass, Request, TaskName};

const TASK: &str = "part-inspection";

fn bundle() -> Bundle {
    let bundles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundles");
    Bundle::open(&bundles.join(TASK)).unwrap()
}

fn picture() -> Request {
    let bundle = bundle();
    let sample = bundle.read(&bundle.samples()[0].file).unwrap();
    Request {
        task: TaskName::parse(TASK).unwrap(),
        media: Media::detect(Bytes::from(sample), None).unwrap(),
        ..request(DataClass::Internal)
    }
}

fn server(url: &str, model: Option<&str>) -> Destination {
    let (model, version) = (model.map(str::to_owned), model.map(|_| "3".to_owned()));
    destination(Protocol::Oip(Oip { model, version, is_binary: true }), url.to_owned())
}

fn with_bundle(destination: &Destination) -> Escalator {
    let bundle = bundle();
    escalator(destination).with_bundles(Bundles::from_fn(move |task| {
        (task.as_str() == bundle.task()).then(|| bundle.clone())
    }))
}

fn tensor(name: &str, shape: &[usize]) -> Value {
    json!({ "name": name, "datatype": "FP32", "shape": shape })
}

/// What a server says of a model that gives tensors of this shape.
fn metadata(shape: &[usize]) -> Scripted {
    let (taken, given) = (tensor("image", &[1, 3, 72, 96]), tensor("logits", shape));
    (200, vec![], json!({ "name": TASK, "inputs": [taken], "outputs": [given] }))
}

/// Its answer: cracked, by far.
fn logits(shape: &[usize]) -> Scripted {
    let mut output = tensor("logits", shape);
    let count = shape.iter().product();
    output["data"] = (0..count).map(|at| if at == 4 { 9.0 } else { 0.0 }).collect();
    let body = json!({ "model_name": "big", "model_version": "3", "outputs": [output] });
    (200, vec![], body)
}

/// What a server says of itself.
fn server_with(extensions: &[&str]) -> Scripted {
    (200, vec![], json!({ "name": "server", "extensions": extensions }))
}

fn binary() -> Scripted {
    server_with(&["parameters", "binary_tensor_data"])
}

fn refusal(status: u16) -> Scripted {
    (status, vec![("content-type", "text/plain".to_owned())], json!({ "error": "not so" }))
}

#[tokio::test]
async fn a_picture_goes_as_its_tensor_and_what_comes_back_is_its_bundle_s_answer() {
    let answers = vec![metadata(&[1, 5]), binary(), logits(&[1, 5]), logits(&[1, 5])];
    let fake = Fake::plain(answers).await;
    let destination = server(&fake.url, Some("Parts"));
    let escalator = with_bundle(&destination);
    let request = picture();
    for _ in 0..2 {
        let answer = send(&escalator, &destination, &request).await.unwrap();
        assert_eq!(answer.label, "cracked");
        assert!(answer.confidence.is_some_and(|sure| sure > 0.99), "{answer:?}");
        assert_eq!((answer.classes.len(), answer.zone), (5, Zone::Site));
        assert_eq!((answer.place.as_str(), answer.model.as_str()), ("site", "big@3"));
    }
    let seen = fake.seen();
    let asked: Vec<&str> = seen.iter().map(|seen| seen.what.as_str()).collect();
    let own = "/v2/models/Parts/versions/3";
    let infer = format!("POST {own}/infer");
    let look = format!("GET {own}");
    assert_eq!(asked, [&*look, "GET /v2", &*infer, &*infer], "the model is looked at once");
    assert!(seen[0].body.is_empty());
    let length = seen[2].headers["inference-header-content-length"].to_str().unwrap();
    let (json, tensors) = seen[2].body.split_at(length.parse().unwrap());
    assert_eq!(tensors.len(), 3 * 72 * 96 * 4);
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(json["id"], request.id.to_string());
    assert_eq!(json["inputs"][0]["shape"], json!([1, 3, 72, 96]));
    assert_eq!(json["outputs"][0]["name"], "logits");
}

#[tokio::test]
async fn a_server_that_takes_no_binary_gets_json_from_then_on() {
    for status in [400, 415, 422, 500] {
        let answers =
            vec![metadata(&[1, 5]), binary(), refusal(status), logits(&[1, 5]), logits(&[1, 5])];
        let fake = Fake::plain(answers).await;
        let destination = server(&fake.url, None);
        let escalator = with_bundle(&destination);
        for _ in 0..2 {
            let answer = send(&escalator, &destination, &picture()).await.unwrap();
            assert_eq!(answer.label, "cracked", "{status}");
        }
        let kinds = fake.seen().into_iter().skip(2);
        let kinds: Vec<String> =
            kinds.map(|seen| seen.headers["content-type"].to_str().unwrap().to_owned()).collect();
        let json = "application/json";
        assert_eq!(kinds, ["application/octet-stream", json, json], "{status}");
    }
    let answers = vec![metadata(&[1, 5]), server_with(&["parameters"]), logits(&[1, 5])];
    let fake = Fake::plain(answers).await;
    let destination = server(&fake.url, None);
    send(&with_bundle(&destination), &destination, &picture()).await.unwrap();
    assert_eq!(fake.seen()[2].headers["content-type"], "application/json", "it says so itself");
}

#[tokio::test]
async fn each_failure_is_acted_on_by_its_class() {
    let operator = Next::Later { after: Duration::from_secs(60) };
    let waiting: Scripted = (503, vec![("retry-after", "7".to_owned())], json!({}));
    let later = Next::Later { after: Duration::from_secs(7) };
    let fits = || metadata(&[1, 5]);
    for (case, answers, code, next, calls) in [
        ("no such model", vec![refusal(404)], "refused", Next::NotHere, 1),
        ("another model", vec![metadata(&[1, 6])], "misfit", operator, 1),
        ("bad", vec![fits(), binary(), refusal(400), refusal(400)], "refused", Next::NotHere, 4),
        ("broken", vec![fits(), binary(), refusal(500), refusal(500)], "failed", Next::Retry, 4),
        ("not ready", vec![fits(), binary(), refusal(503)], "failed", Next::Retry, 3),
        ("full", vec![fits(), binary(), waiting], "throttled", later, 3),
        (
            "no outputs",
            vec![fits(), binary(), (200, vec![], json!({}))],
            "unusable",
            Next::Retry,
            3,
        ),
        ("a page", vec![refusal(200)], "unusable", Next::Retry, 1),
        ("other outputs", vec![fits(), binary(), logits(&[1, 6])], "unusable", Next::Retry, 3),
    ] {
        let fake = Fake::plain(answers).await;
        let destination = server(&fake.url, None);
        let error = send(&with_bundle(&destination), &destination, &picture()).await.unwrap_err();
        assert_eq!((error.code(), error.next()), (code, next), "{case}: {error}");
        assert_eq!(fake.seen().len(), calls, "{case}: {error}");
        let is_told = !error.to_string().contains("does not say why");
        assert!(is_told || code == "throttled", "{case}: {error}");
    }
}

#[tokio::test]
async fn a_model_that_the_operator_names_is_waited_for_and_looked_at_again() {
    let answers = vec![refusal(404), metadata(&[1, 5]), binary(), logits(&[1, 5])];
    let fake = Fake::plain(answers).await;
    let mut destination = server(&fake.url, None);
    destination.tasks = vec![TaskName::parse(TASK).unwrap()];
    let escalator = with_bundle(&destination);
    let error = send(&escalator, &destination, &picture()).await.unwrap_err();
    assert_eq!(error.next(), Next::Retry, "{error}");
    assert!(error.to_string().contains("not so"), "{error}");
    send(&escalator, &destination, &picture()).await.unwrap();
}

#[tokio::test]
async fn what_no_bundle_makes_tensors_of_is_not_sent() {
    let fake = Fake::plain(Vec::new()).await;
    let destination = server(&fake.url, None);
    let error = send(&escalator(&destination), &destination, &picture()).await.unwrap_err();
    assert!(matches!(error, SendError::NoBundle { .. }), "{error}");
    let media = Media::detect(wav(), Some("audio/wav")).unwrap();
    let sound = Request { media, ..picture() };
    let error = send(&with_bundle(&destination), &destination, &sound).await.unwrap_err();
    assert_eq!((error.code(), error.next()), ("unprepared", Next::NotHere), "{error}");
    assert_eq!(fake.seen().len(), 0);
}
