//! Data stays where its class allows: a recording link stands in front of every destination.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use holdfast_tests::client::Client;
use holdfast_tests::link::{Link, Weather};
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, SITE, bundles, start_agent, start_agent_with};

/// A device with three destinations, each behind a recording link to one real site agent.
struct World {
    dir: tempfile::TempDir,
    _site: Node,
    links: Vec<(&'static str, Link)>,
}

const ZONES: [&str; 3] = ["site", "private", "public"];
const TASKS: [&str; 2] = ["voice-commands", "part-inspection"];

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let big = bundles(&["voice-commands-large", "part-inspection-large"]);
        let site = Agent { name: SITE, bundles: big, site: None, broker: None };
        let site = start_agent(super::program(), dir.path(), &site).await.unwrap();
        let mut links = Vec::new();
        for zone in ZONES {
            links.push((zone, Link::to(site.address("api").unwrap()).await.unwrap()));
        }
        Self { dir, _site: site, links }
    }

    /// Starts the device; `tasks` are the bundles that it has itself.
    async fn device(&self, tasks: &[&str], policy: &str) -> Node {
        let agent = Agent { name: DEVICE, bundles: bundles(tasks), site: None, broker: None };
        let mut toml = agent.toml(self.dir.path());
        if tasks.is_empty() {
            toml = toml.replace("bundles = []", "bundles = [\"nowhere\"]");
        }
        toml += policy;
        // The farthest first, so that the order of the list is no excuse.
        for (zone, link) in self.links.iter().rev() {
            let url = link.address();
            toml += &format!(
                "\n[[destination]]\nname = \"{zone}\"\nzone = \"{zone}\"\nurl = \"http://{url}\"\n\
                 tasks = {TASKS:?}\n"
            );
        }
        start_agent_with(super::program(), self.dir.path(), DEVICE, &toml).await.unwrap()
    }

    fn set(&self, weather: Weather) {
        self.links.iter().for_each(|(_, link)| link.set(weather));
    }

    /// Zones that any 32 bytes of `body` went to, as they are or in base64.
    fn leaked(&self, body: &[u8]) -> Vec<&'static str> {
        let encoded = BASE64_STANDARD.encode(body);
        let pieces: Vec<&[u8]> =
            body.chunks_exact(32).chain(encoded.as_bytes().chunks_exact(32)).collect();
        // Silence looks the same everywhere.
        let telling = pieces.into_iter().filter(|piece| piece.iter().any(|byte| *byte != piece[0]));
        let telling: std::collections::HashSet<&[u8]> = telling.collect();
        let went =
            |link: &Link| link.seen().upward.windows(32).any(|window| telling.contains(window));
        self.links.iter().filter(|(_, link)| went(link)).map(|(zone, _)| *zone).collect()
    }

    /// Requests that went over any link, other than probes.
    fn posts(&self) -> usize {
        let count = |link: &Link| link.seen().upward.windows(5).filter(|w| w == b"POST ").count();
        self.links.iter().map(|(_, link)| count(link)).sum()
    }
}

fn client(device: &Node) -> Client {
    Client::new(device.address("api").unwrap()).unwrap()
}

fn body() -> Vec<u8> {
    super::sample("voice-commands", |_| true)
}

#[tokio::test]
async fn a_restricted_request_leaves_in_no_weather() {
    let world = World::new().await;
    let mut device = world.device(&["voice-commands"], "").await;
    for weather in [Weather::Up, Weather::Cut, Weather::Stalled, Weather::Up] {
        world.set(weather);
        for escalate in ["auto", "always", "never"] {
            let terms = [("holdfast-class", "restricted"), ("holdfast-escalate", escalate)];
            let reply = client(&device).ask("voice-commands", body(), &terms).await.unwrap();
            assert_eq!(reply.state, "answered", "{weather:?} {escalate}");
            assert_eq!(reply.answer.unwrap().zone, "device", "{weather:?} {escalate}");
        }
    }
    // Without a model of its own, the device refuses rather than asks.
    device.kill().unwrap();
    let device = world.device(&[], "").await;
    let terms = [("holdfast-class", "restricted")];
    let (status, text) = client(&device).post("voice-commands", body(), &terms).await.unwrap();
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("restricted data may not go to"), "{text}");
    assert_eq!(world.posts(), 0);
    assert_eq!(world.leaked(&body()), Vec::<&str>::new());
}

#[tokio::test]
async fn each_class_reaches_its_zones_and_no_farther() {
    for (class, want) in [("confidential", "site"), ("internal", "private"), ("public", "public")] {
        let world = World::new().await;
        let device = world.device(&["voice-commands"], "").await;
        let terms = [("holdfast-class", class), ("holdfast-escalate", "always")];
        let reply = client(&device).ask("voice-commands", body(), &terms).await.unwrap();
        assert_eq!(reply.answer.unwrap().zone, want, "{class}");
        assert_eq!(world.leaked(&body()), [want], "{class}");
    }
}

#[tokio::test]
async fn what_carries_no_class_is_confidential() {
    let world = World::new().await;
    let device = world.device(&["voice-commands"], "").await;
    let terms = [("holdfast-escalate", "always")];
    let reply = client(&device).ask("voice-commands", body(), &terms).await.unwrap();
    assert_eq!(reply.answer.unwrap().zone, "site");
    let (status, text) = client(&device)
        .post("voice-commands", body(), &[("holdfast-class", "secret")])
        .await
        .unwrap();
    assert_eq!(status, 400, "an unknown class is refused and not guessed: {text}");
    assert_eq!(world.leaked(&body()), ["site"]);
}

#[tokio::test]
async fn a_held_request_obeys_the_policy_of_the_moment_it_is_sent() {
    let world = World::new().await;
    let mut device = world.device(&["voice-commands"], "").await;
    world.set(Weather::Cut);
    let terms = [("holdfast-class", "internal"), ("holdfast-escalate", "always")];
    let held = client(&device).ask("voice-commands", body(), &terms).await.unwrap();
    assert_eq!(held.state, "held");
    device.kill().unwrap();
    // While it waited, the operator tightened the policy.
    let tighter = "\n[policy.farthest_zone]\ninternal = \"device\"\n";
    let before = world.posts();
    let device = world.device(&["voice-commands"], tighter).await;
    world.set(Weather::Up);
    let reply = client(&device).settled(&held.id, super::SOON).await.unwrap();
    assert!(reply.has("class_forbids"), "{}", reply.why());
    assert_eq!(reply.answer.unwrap().zone, "device", "the local answer stands");
    assert_eq!(world.posts(), before, "it was sent");
    assert_eq!(world.leaked(&body()), Vec::<&str>::new());
}

#[tokio::test]
async fn the_recording_link_would_have_seen_it() {
    let world = World::new().await;
    let device = world.device(&["voice-commands"], "").await;
    world.set(Weather::Cut);
    let terms = [("holdfast-class", "confidential"), ("holdfast-escalate", "always")];
    let held = client(&device).ask("voice-commands", body(), &terms).await.unwrap();
    assert_eq!(world.leaked(&body()), Vec::<&str>::new());
    world.set(Weather::Up);
    client(&device).settled(&held.id, super::SOON).await.unwrap();
    assert_eq!(world.leaked(&body()), ["site"], "held, and then drained");
    // Half-open: the bytes reach the link and nothing comes back.
    world.set(Weather::Stalled);
    let short = [
        ("holdfast-class", "confidential"),
        ("holdfast-escalate", "always"),
        ("holdfast-deadline-ms", "300"),
    ];
    let reply = client(&device).ask("voice-commands", body(), &short).await.unwrap();
    assert_eq!(reply.state, "held", "{}", reply.why());
    world.set(Weather::Cut);
    world.set(Weather::Up);
    let reply =
        client(&device).settled(&reply.id, super::SOON + Duration::from_secs(30)).await.unwrap();
    assert_eq!(reply.state, "answered");
}
