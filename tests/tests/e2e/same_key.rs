//! Calls under one idempotency key that are under way at once: one is sent, all get its answer.

use holdfast_tests::client::Client;
use holdfast_tests::link::Weather;
use serde_json::Value;

use super::stopping::Rig;

const TERMS: [(&str, &str); 3] = [
    ("holdfast-escalate", "always"),
    ("holdfast-deadline-ms", "30000"),
    ("idempotency-key", "shift-7"),
];

#[tokio::test]
async fn calls_under_one_key_that_are_under_way_at_once_are_sent_up_once() {
    let rig = Rig::new("").await;
    let (client, wav) = (rig.client(), super::sample("voice-commands", |_| true));
    rig.link.set(Weather::Stalled);
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let (client, wav) = (client.clone(), wav.clone());
            tokio::spawn(async move { client.post("voice-commands", wav, &TERMS).await.unwrap() })
        })
        .collect();
    rig.until_sent(1).await;
    // Something else under the key is refused at once, and not when the others are done.
    let other = super::sample("voice-commands", |name| !name.is_empty());
    let other = [other, vec![0; 2]].concat();
    let (status, said) = client.post("voice-commands", other, &TERMS).await.unwrap();
    let problem: Value = serde_json::from_str(&said).unwrap();
    let conflict = (409, &"idempotency_key_conflict".into());
    assert_eq!((status.as_u16(), &problem["code"]), conflict, "{said}");
    assert!(said.contains("(the input is another one)"), "{said}");
    // Who may not wait so long is told to come back with the key.
    let hasty = [TERMS[0], ("holdfast-deadline-ms", "50"), TERMS[2]];
    let (status, said) = client.post("voice-commands", wav.clone(), &hasty).await.unwrap();
    let problem: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status.as_u16(), &problem["code"]), (503, &"under_way".into()), "{said}");
    rig.link.set(Weather::Up);
    let mut told = Vec::new();
    for call in calls {
        let (status, said) = call.await.unwrap();
        let reply: Value = serde_json::from_str(&said).unwrap();
        assert_eq!((status.as_u16(), &reply["answer"]["zone"]), (200, &"site".into()), "{said}");
        told.push(reply["id"].clone());
    }
    told.dedup();
    assert_eq!((told.len(), rig.sent()), (1, 1), "{told:?}");
    // Nor did the site take in more; and the key still stands for what was answered.
    let site = Client::new(rig.site.address("api").unwrap()).unwrap();
    let (_, metrics) = site.get("/metrics").await.unwrap();
    let taken = metrics.lines().filter(|line| line.starts_with("holdfast_requests_total{"));
    let taken: Vec<_> = taken.collect();
    assert!(taken.len() == 1 && taken[0].ends_with(" 1"), "{taken:?}");
    let (status, said) = client.post("voice-commands", wav, &TERMS).await.unwrap();
    let reply: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status.as_u16(), &reply["id"], rig.sent()), (200, &told[0], 1), "{said}");
    // Whoever takes the key for something else is told what is otherwise.
    let wav = || super::sample("voice-commands", |_| true);
    let public = [TERMS[0], TERMS[1], TERMS[2], ("holdfast-class", "public")];
    for (body, terms, want) in [
        (wav(), &public[..], "(class is public, was confidential)"),
        ([wav(), vec![0; 2]].concat(), &TERMS[..], "(the input is another one)"),
    ] {
        let (status, said) = client.post("voice-commands", body, terms).await.unwrap();
        assert!(status.as_u16() == 409 && said.contains(want), "{want}: {said}");
    }
}
