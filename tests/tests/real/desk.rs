//! An agent of the demonstration's program, and what is asked of it.

use std::path::{Path, PathBuf};

use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, start_agent_with};
use serde_json::Value;

/// A running agent.
pub(crate) struct Desk {
    node: Node,
    pub(crate) client: Client,
}

impl Desk {
    /// An agent with these bundles, the fp32 variant of each, and these sections in its configuration.
    pub(crate) async fn start(
        name: &'static str,
        dir: &Path,
        bundles: Vec<PathBuf>,
        sections: &str,
    ) -> Self {
        Self::start_on("127.0.0.1:0", (name, dir), bundles, sections).await
    }

    /// The same, at an address of its own.
    pub(crate) async fn start_on(
        address: &str,
        (name, dir): (&'static str, &Path),
        bundles: Vec<PathBuf>,
        sections: &str,
    ) -> Self {
        let agent = Agent { name, bundles, site: None, broker: None };
        let toml = agent.toml(dir).replace("[models]\n", "[models]\nvariant = \"fp32\"\n");
        let toml = toml.replace("127.0.0.1:0", address);
        let program = Path::new(env!("CARGO_BIN_EXE_holdfast-demo"));
        let node = start_agent_with(program, dir, name, &(toml + sections)).await.unwrap();
        let client = Client::new(node.address("api").unwrap()).unwrap();
        Self { node, client }
    }

    /// One on the device, without bundles.
    pub(crate) async fn bare(dir: &Path, sections: &str) -> Self {
        Self::start(DEVICE, dir, Vec::new(), sections).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.node.address("api").unwrap())
    }

    /// Asks in JSON; the status, and the text of whatever comes back.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        terms: &[(&str, &str)],
    ) -> (u16, String) {
        let json = [("content-type", "application/json")];
        let headers: Vec<_> = json.iter().chain(terms).copied().collect();
        let asked = self.client.post_to(path, body.to_string().into_bytes(), &headers).await;
        let (status, text) = asked.unwrap();
        (status.as_u16(), text)
    }

    /// As [`Desk::post`], of what must be answered with JSON.
    pub(crate) async fn asked(&self, path: &str, body: &Value) -> Value {
        let (status, text) = self.post(path, body, &[]).await;
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

/// A destination's section.
pub(crate) fn destination(name: &str, url: &str, more: &str) -> String {
    format!("\n[[destination]]\nname = {name:?}\nzone = \"site\"\nurl = {url:?}\n{more}\n")
}
