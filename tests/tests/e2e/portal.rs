//! A network that answers in a destination's place: a hotel's, a train's, a plant's guest network.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use holdfast_tests::authority::Authority;
use holdfast_tests::client::Client;
use holdfast_tests::site::{Agent, DEVICE, bundles, start_agent_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::{SOON, program, sample};

/// What stands between the device and the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    Redirect,
    Page,
    SignIn,
}

/// A portal that can be switched.
struct Portal {
    address: SocketAddr,
    state: Arc<Mutex<(Between, Vec<String>)>>,
}

impl Portal {
    async fn before(site: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new((Between::Nothing, Vec::new())));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, site, shared.clone()));
            }
        });
        Self { address, state }
    }

    fn set(&self, between: Between) {
        *self.state.lock().unwrap() = (between, Vec::new());
    }

    /// What was asked since the last change: methods and paths.
    fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().1.clone()
    }
}

async fn serve(mut near: TcpStream, site: SocketAddr, state: Arc<Mutex<(Between, Vec<String>)>>) {
    let between = state.lock().unwrap().0;
    if between == Between::Nothing {
        let mut far = TcpStream::connect(site).await.unwrap();
        let changed = async {
            while state.lock().unwrap().0 == Between::Nothing {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        // What was open breaks when the device comes into another network.
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => {}
            () = changed => {}
        }
        return;
    }
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if near.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let line = head.lines().next().unwrap_or_default().rsplit_once(' ').unwrap().0.to_owned();
    state.lock().unwrap().1.push(line);
    let answer = match between {
        Between::Redirect => {
            "HTTP/1.1 302 Found\r\nlocation: http://login.portal.example/?to=x\r\ncontent-length: 0\r\n\r\n"
        }
        Between::SignIn => {
            "HTTP/1.1 511 Network Authentication Required\r\ncontent-length: 0\r\n\r\n"
        }
        Between::Page | Between::Nothing => {
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 15\r\n\r\n<html>Hi</html>"
        }
    };
    drop(near.write_all(answer.as_bytes()).await);
    // The rest of what was asked is read, so that the answer is not lost with it.
    let mut rest = [0; 4096];
    drop(near.shutdown().await);
    while near.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}

async fn becomes(client: &Client, link: &str, device: &str) {
    let is = |json: &serde_json::Value| {
        (json["links"]["site"] == link && json["state"] == device).then_some(())
    };
    client.until("/v1/network", SOON, is).await.unwrap();
}

/// What `doctor` finds, whatever else is wrong.
fn doctor(config: &Path) -> String {
    let mut command = Command::new(program());
    let output = command.args(["agent", "doctor", "--config"]).arg(config).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_captive_portal_is_no_answer_gets_probes_alone_and_what_is_held_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let name = "site-1";
    let site = Agent { name, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let site = start_agent_with(program(), dir.path(), name, &site.toml(dir.path())).await.unwrap();
    let portal = Portal::before(site.address("api").unwrap()).await;
    portal.set(Between::Page);
    let url = Some(format!("http://{}", portal.address));
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: url, broker: None };
    let toml = agent.toml(dir.path()) + "tasks = [\"voice-commands\"]\n";
    let device = start_agent_with(program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    let ask = async || {
        let wav = sample("voice-commands", |_| true);
        client.ask("voice-commands", wav, &[]).await.unwrap()
    };
    for between in [Between::Page, Between::Redirect, Between::SignIn] {
        // The link was up before, but for the first time.
        portal.set(between);
        if between != Between::Page {
            // What goes out before anybody can know of the portal is no answer either.
            let first = ask().await;
            assert_eq!(first.state, "held", "{between:?}: {}", first.why());
        }
        becomes(&client, "captive_portal", "captive_portal").await;
        let before = portal.asked().len();
        let held = ask().await;
        assert_eq!(held.state, "held", "{between:?}: {}", held.why());
        let until = tokio::time::Instant::now() + SOON;
        while portal.asked().len() < before + 1 {
            assert!(tokio::time::Instant::now() < until, "{between:?} is not probed any more");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let asked = portal.asked();
        let posts = asked.iter().filter(|line| *line != "GET /healthz").count();
        assert!(posts <= usize::from(between != Between::Page), "{between:?}: {asked:?}");
        assert!(asked[before..].iter().all(|line| line == "GET /healthz"), "{asked:?}");
        let (_, metrics) = client.get("/metrics").await.unwrap();
        let line = "holdfast_connectivity{destination=\"site\",state=\"captive_portal\"} 1";
        assert!(metrics.contains(line), "{metrics}");
        let config = dir.path().join(format!("{DEVICE}.toml"));
        let said = tokio::task::spawn_blocking(move || doctor(&config)).await.unwrap();
        assert!(said.contains("captive_portal: somebody else answers in place of site"), "{said}");
        assert!(said.contains("something else answers in place of site"), "{said}");

        portal.set(Between::Nothing);
        let answered = client.settled(&held.id, SOON).await.unwrap();
        assert_eq!(answered.state, "answered", "{between:?}: {}", answered.why());
        // What went wrong before is forgotten after eight that went well.
        for _ in 0..8 {
            let reply = ask().await;
            assert_eq!(reply.state, "answered", "{between:?}: {}", reply.why());
        }
        becomes(&client, "online", "online").await;
    }
    let log = std::fs::read_to_string(dir.path().join(format!("{DEVICE}.log"))).unwrap();
    assert!(log.contains("captive portal"), "{log}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_portals_and_nothing_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, authority.root()).unwrap();
    let shown = authority.sign("login.portal.example").unwrap();
    let (certificate, key) = shown.write(dir.path(), "portal").unwrap();
    let name = "site-1";
    let site = Agent { name, bundles: bundles(&["voice-commands"]), site: None, broker: None };
    let toml = site.toml(dir.path())
        + &format!("\n[api.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let site = start_agent_with(program(), dir.path(), name, &toml).await.unwrap();
    let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
    let toml = agent.toml(dir.path())
        + &format!(
            "\n[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"https://localhost:{}\"\n\
             tasks = [\"voice-commands\"]\nca_file = {root:?}\n",
            site.address("api").unwrap().port()
        );
    let device = start_agent_with(program(), dir.path(), DEVICE, &toml).await.unwrap();
    let client = Client::new(device.address("api").unwrap()).unwrap();
    becomes(&client, "captive_portal", "captive_portal").await;
    let wav = sample("voice-commands", |_| true);
    let reply = client.ask("voice-commands", wav, &[]).await.unwrap();
    assert_eq!(reply.state, "held", "{}", reply.why());
}
