//! An agent that is killed at any moment loses nothing that it acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_tests::client::Client;
use holdfast_tests::link::{Link, Weather};
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, SITE, bundles, start_agent};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

/// How often it is killed: `HOLDFAST_KILLS`, or 20 times.
fn rounds() -> usize {
    std::env::var("HOLDFAST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20)
}

/// What was acknowledged, and the final answers that were seen, by request.
type Ledger = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

#[tokio::test]
async fn killed_at_random_moments_every_held_request_gets_one_final_answer() {
    let given = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = given.unwrap_or_else(rand::random);
    println!("HOLDFAST_SEED={seed}");
    let rounds = rounds();
    let mut random = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let program = super::program();
    let site = agent(SITE, &["voice-commands-large"], None);
    let site = start_agent(program, dir.path(), &site).await.unwrap();
    let link = Link::to(site.address("api").unwrap()).await.unwrap();
    let config = agent(DEVICE, &["voice-commands"], Some(format!("http://{}", link.address())));
    let ledger = Ledger::default();
    let mut device = start_agent(program, dir.path(), &config).await.unwrap();
    for round in 0..rounds {
        // In half of the rounds the link is up, so that the kill falls into the draining.
        link.set(if round % 2 == 0 { Weather::Cut } else { Weather::Up });
        let load = tokio::spawn(load(client(&device), round, ledger.clone()));
        sleep(Duration::from_micros(random.random_range(1_000..150_000))).await;
        device.kill().unwrap();
        load.abort();
        device = start_agent(program, dir.path(), &config).await.unwrap();
    }
    link.set(Weather::Up);
    let client = client(&device);
    let held: Vec<_> = ledger.lock().unwrap().keys().cloned().collect();
    assert!(held.len() >= rounds, "only {} requests were held: the test proves little", held.len());
    for id in &held {
        let reply = client.settled(id, super::SOON).await.unwrap();
        assert_eq!(reply.state, "answered", "seed {seed}, {id}: {}", reply.why());
        note(&ledger, id, &reply);
    }
    // After one more kill, the same answers are still there.
    device.kill().unwrap();
    let device = start_agent(program, dir.path(), &config).await.unwrap();
    let client = self::client(&device);
    for id in &held {
        let reply = client.look_up(id, Duration::ZERO).await.unwrap();
        note(&ledger, id, &reply);
    }
    for (id, answers) in ledger.lock().unwrap().iter() {
        let first = answers.first().unwrap();
        assert!(answers.len() >= 2, "seed {seed}: {id} was not answered twice");
        assert!(answers.iter().all(|answer| answer == first), "seed {seed}, {id}: {answers:?}");
    }
    println!(
        "FAULTS | agent, kill -9 | {rounds} kills | {} acknowledged | 0 lost, 1 final answer each",
        held.len()
    );
}

fn agent(name: &'static str, names: &[&str], site: Option<String>) -> Agent {
    Agent { name, bundles: bundles(names), site, broker: None }
}

fn client(device: &Node) -> Client {
    Client::new(device.address("api").unwrap()).unwrap()
}

/// Asks for the site without end; every acknowledgement goes into the ledger.
async fn load(client: Client, round: usize, ledger: Ledger) {
    let body = super::sample("voice-commands", |_| true);
    for number in 0.. {
        let key = format!("round-{round}-{number}");
        let terms = [
            ("holdfast-class", "internal"),
            ("holdfast-escalate", "always"),
            ("holdfast-deadline-ms", "2000"),
            ("idempotency-key", &key),
        ];
        let Ok(reply) = client.ask("voice-commands", body.clone(), &terms).await else { return };
        let mut ledger = ledger.lock().unwrap();
        ledger.entry(reply.id.clone()).or_default();
        drop(ledger);
    }
}

fn note(ledger: &Ledger, id: &str, reply: &holdfast_tests::client::Reply) {
    let answer =
        reply.answer.as_ref().map(|answer| format!("{} {:?}", answer.label, answer.confidence));
    let mut ledger = ledger.lock().unwrap();
    ledger.entry(id.to_owned()).or_default().push(answer.unwrap_or_else(|| "none".to_owned()));
}
