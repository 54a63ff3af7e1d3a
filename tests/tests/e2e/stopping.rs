//! An agent that is told to stop: whoever waits is told where their request stands, nobody new is
//! taken in, and what was promised is kept.

use std::process::Command;
use std::time::Duration;

use holdfast_tests::client::Client;
use holdfast_tests::link::{Link, Weather};
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, SITE, bundles, start_agent, start_agent_with};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ALWAYS: (&str, &str) = ("holdfast-escalate", "always");
const PATIENT: (&str, &str) = ("holdfast-deadline-ms", "30000");

/// A device below a site, with a link between them that stalls.
pub(super) struct Rig {
    pub(super) dir: tempfile::TempDir,
    pub(super) site: Node,
    pub(super) link: Link,
    pub(super) device: Node,
    toml: String,
}

impl Rig {
    pub(super) async fn new(api: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let big = bundles(&["voice-commands-large"]);
        let site = Agent { name: SITE, bundles: big, site: None, broker: None };
        let site = start_agent(super::program(), dir.path(), &site).await.unwrap();
        let link = Link::to(site.address("api").unwrap()).await.unwrap();
        let url = Some(format!("http://{}", link.address()));
        let small = bundles(&["voice-commands"]);
        let device = Agent { name: DEVICE, bundles: small, site: url, broker: None };
        let toml = device.toml(dir.path()).replace("[api]\n", &format!("[api]\n{api}\n"));
        let device = start_agent_with(super::program(), dir.path(), DEVICE, &toml).await.unwrap();
        Self { dir, site, link, device, toml }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.device.address("api").unwrap()).unwrap()
    }

    /// Posts that went up the link.
    pub(super) fn sent(&self) -> usize {
        let seen = self.link.seen().upward;
        seen.windows(14).filter(|bytes| bytes == b"POST /v1/tasks").count()
    }

    pub(super) async fn until_sent(&self, count: usize) {
        let until = Instant::now() + super::SOON;
        while self.sent() < count {
            assert!(Instant::now() < until, "{} of {count} were sent", self.sent());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn restart(&mut self) {
        let start = start_agent_with(super::program(), self.dir.path(), DEVICE, &self.toml);
        self.device = start.await.unwrap();
    }
}

/// A call whose body does not come; the agent waits for it.
async fn begin_to_upload(rig: &Rig) -> TcpStream {
    let mut stream = TcpStream::connect(rig.device.address("api").unwrap()).await.unwrap();
    let head = "POST /v1/tasks/voice-commands HTTP/1.1\r\nhost: localhost\r\n\
                content-type: audio/wav\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = [0; 25];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(said, *b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn who_waits_when_the_agent_stops_is_told_and_nothing_promised_is_lost() {
    let mut rig = Rig::new("max_waiting = 1").await;
    let client = rig.client();
    let wav = super::sample("voice-commands", |_| true);
    // Somebody who waits for a request that is due in an hour.
    let later = [ALWAYS, ("holdfast-not-before-ms", "3600000")];
    let held = client.ask("voice-commands", wav.clone(), &later).await.unwrap().id;
    let path = format!("/v1/requests/{held}?wait_ms=60000");
    let polling = {
        let (client, path) = (client.clone(), path.clone());
        tokio::spawn(async move {
            loop {
                let (status, said) = client.get(&path).await.unwrap();
                // Whoever looks whether the one place is taken takes it for a moment.
                if !said.contains("\"busy\"") {
                    return (status, said);
                }
            }
        })
    };
    let short = path.replace("wait_ms=60000", "wait_ms=1");
    while client.get(&short).await.unwrap().0 != 503 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Somebody whose request is on its way up, and somebody who is still sending.
    rig.link.set(Weather::Stalled);
    let asking = {
        let client = client.clone();
        tokio::spawn(async move {
            client.post("voice-commands", wav, &[ALWAYS, PATIENT]).await.unwrap()
        })
    };
    rig.until_sent(1).await;
    let mut uploading = begin_to_upload(&rig).await;

    let pid = rig.device.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (status, said) = polling.await.unwrap();
    let polled: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status.as_u16(), &polled["state"]), (200, &"held".into()), "{said}");
    let (status, said) = asking.await.unwrap();
    assert_eq!(status.as_u16(), 202, "{said}");
    let asked: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&asked["state"], &asked["answer"]["provisional"]), (&"held".into(), &true.into()));
    // Nobody new is taken in any more.
    let address = rig.device.address("api").unwrap();
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut said = String::new();
    uploading.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    let head = said.to_ascii_lowercase();
    assert!(head.contains("retry-after: ") && said.contains("\"stopping\""), "{said}");
    rig.device.stop().await.unwrap();

    rig.restart().await;
    rig.link.set(Weather::Up);
    let id = asked["id"].as_str().unwrap();
    let settled = rig.client().settled(id, super::SOON).await.unwrap();
    assert_eq!((&*settled.state, &*settled.answer.unwrap().zone), ("answered", "site"));
    let still = rig.client().look_up(&held, Duration::ZERO).await.unwrap();
    assert_eq!(still.state, "held");
}
