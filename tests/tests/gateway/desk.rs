//! An agent with destinations behind it, and bare HTTP to it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, start_agent_with};
use holdfast_tests::vendors::{Fake, MODEL, Vendor};
use serde_json::{Value, json};

/// A running agent.
pub(crate) struct Desk {
    pub(crate) node: Node,
    pub(crate) url: String,
    http: reqwest::Client,
    dir: tempfile::TempDir,
}

/// Takes `agent` as its first argument.
const PROGRAM: &str = env!("CARGO_BIN_EXE_holdfast-demo");

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The code of an error in OpenAI's form.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A destination that is OpenAI's, at this address.
pub(crate) fn openai(name: &str, url: &str, more: &str) -> String {
    format!(
        "\n[[destination]]\nname = {name:?}\nzone = \"site\"\nprotocol = \"openai\"\nmodel = \
         {MODEL:?}\nurl = {url:?}\n{more}\n"
    )
}

/// A provider's stand-in as a destination, with its key.
pub(crate) fn vendor(name: &str, zone: &str, fake: &Fake, vendor: Vendor, dir: &Path) -> String {
    let key = dir.join(format!("{name}.key"));
    std::fs::write(&key, vendor.credential(&fake.url)).unwrap();
    format!(
        "\n[[destination]]\nname = {name:?}\nzone = {zone:?}\nprotocol = {:?}\nmodel = {MODEL:?}\n\
         url = {:?}\napi_key_file = {:?}\nconcurrency = 64\n\
         price_per_million_tokens_in_micros = 3000000\n\
         price_per_million_tokens_out_micros = 15000000\n",
        vendor.name(),
        fake.url,
        key.display().to_string(),
    )
}

async fn with(mut request: reqwest::RequestBuilder, terms: &[(&str, &str)]) -> reqwest::Response {
    for (name, value) in terms {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

impl Desk {
    /// An agent without models, with these sections in its configuration.
    pub(crate) async fn start(sections: impl FnOnce(&Path) -> String) -> Self {
        Self::start_with("", sections).await
    }

    /// The same, and it asks for tokens.
    pub(crate) async fn guarded(sections: impl FnOnce(&Path) -> String) -> Self {
        Self::start_with("require_token = true\n", sections).await
    }

    async fn start_with(api: &str, sections: impl FnOnce(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent { name: DEVICE, bundles: Vec::new(), site: None, broker: None };
        let toml = agent.toml(dir.path()).replace("[api]\n", &format!("[api]\n{api}"));
        let toml = toml + &sections(dir.path());
        let program = Path::new(PROGRAM);
        let node = start_agent_with(program, dir.path(), DEVICE, &toml).await.unwrap();
        let url = format!("http://{}", node.address("api").unwrap());
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
        Self { node, url, http: http.build().unwrap(), dir }
    }

    /// A new token, made by the agent's own command with these arguments. Blocks.
    pub(crate) fn token(&self, args: &[&str]) -> String {
        let config = self.dir.path().join(format!("{DEVICE}.toml"));
        let mut command = Command::new(PROGRAM);
        command.args(["agent", "token", "add"]).args(args).arg("--config").arg(config);
        let output = command.output().unwrap();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {complained}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Kills the agent at once, and starts it again with what it had on disk.
    pub(crate) async fn restart(&mut self) {
        self.node.kill().unwrap();
        let (program, dir) = (Path::new(PROGRAM), self.dir.path());
        let toml = std::fs::read_to_string(dir.join(format!("{DEVICE}.toml"))).unwrap();
        self.node = start_agent_with(program, dir, DEVICE, &toml).await.unwrap();
        self.url = format!("http://{}", self.node.address("api").unwrap());
    }

    /// The same with another configuration.
    pub(crate) async fn reconfigure(&mut self, change: impl FnOnce(String) -> String) {
        let path = self.dir.path().join(format!("{DEVICE}.toml"));
        std::fs::write(&path, change(std::fs::read_to_string(&path).unwrap())).unwrap();
        self.restart().await;
    }

    /// The agent's state folder.
    pub(crate) fn state(&self) -> std::path::PathBuf {
        self.dir.path().join(DEVICE)
    }

    /// What the agent's own command says about its queue, as JSON. Blocks.
    pub(crate) fn queue(&self, args: &[&str]) -> Value {
        self.command("queue", args)
    }

    /// What one of the agent's own commands says, as JSON. Blocks.
    pub(crate) fn command(&self, name: &str, args: &[&str]) -> Value {
        let config = self.dir.path().join(format!("{DEVICE}.toml"));
        let mut command = Command::new(PROGRAM);
        command.args(["agent", name]).args(args).arg("--json").arg("--config").arg(config);
        let output = command.output().unwrap();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {complained}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value, terms: &[(&str, &str)]) -> Reply {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        Self::read(with(request, terms).await).await
    }

    /// The same, to be read piece by piece.
    pub(crate) async fn begin(
        &self,
        path: &str,
        body: &Value,
        terms: &[(&str, &str)],
    ) -> reqwest::Response {
        with(self.http.post(format!("{}{path}", self.url)).json(body), terms).await
    }

    /// A form with these fields, and a recording.
    pub(crate) async fn transcribe(&self, fields: &[(&str, &str)], file: &[u8]) -> Reply {
        let mut body = Vec::new();
        for (name, value) in fields {
            let part = format!("content-disposition: form-data; name={name:?}\r\n\r\n{value}");
            body.extend(format!("--edge\r\n{part}\r\n").into_bytes());
        }
        body.extend(
            b"--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n",
        );
        body.extend(b"content-type: audio/wav\r\n\r\n");
        body.extend_from_slice(file);
        body.extend(b"\r\n--edge--\r\n");
        let request = self.http.post(format!("{}/v1/audio/transcriptions", self.url));
        let request = request.header("content-type", "multipart/form-data; boundary=edge");
        Self::read(request.body(body).send().await.unwrap()).await
    }

    async fn read(response: reqwest::Response) -> Reply {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        Self::read(self.http.get(format!("{}{path}", self.url)).send().await.unwrap()).await
    }

    pub(crate) async fn get_with(&self, path: &str, terms: &[(&str, &str)]) -> Reply {
        Self::read(with(self.http.get(format!("{}{path}", self.url)), terms).await).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.delete_with(path, &[]).await
    }

    pub(crate) async fn delete_with(&self, path: &str, terms: &[(&str, &str)]) -> Reply {
        Self::read(with(self.http.delete(format!("{}{path}", self.url)), terms).await).await
    }

    /// Where the agent keeps what it holds.
    pub(crate) fn journal(&self) -> PathBuf {
        self.dir.path().join(DEVICE).join("queue/journal")
    }

    /// As [`Self::get`], by who shows this token.
    pub(crate) async fn get_as(&self, token: &str, path: &str) -> Reply {
        let request = self.http.get(format!("{}{path}", self.url)).bearer_auth(token);
        Self::read(request.send().await.unwrap()).await
    }

    /// A stream of server-sent events.
    pub(crate) async fn follow(&self, path: &str) -> reqwest::Response {
        let request = self.http.get(format!("{}{path}", self.url));
        request.header("accept", "text/event-stream").send().await.unwrap()
    }

    /// A conversation of one question.
    pub(crate) async fn ask(&self, model: &str, question: &str, is_streamed: bool) -> Reply {
        let messages = json!([{ "role": "user", "content": question }]);
        let mut body = json!({ "model": model, "messages": messages });
        if is_streamed {
            body["stream"] = json!(true);
        }
        self.post("/v1/chat/completions", &body, &[]).await
    }

    /// The response to a streamed conversation, to be read piece by piece.
    pub(crate) async fn open(&self, model: &str, question: &str) -> reqwest::Response {
        let messages = json!([{ "role": "user", "content": question }]);
        let body = json!({ "model": model, "messages": messages, "stream": true });
        let url = format!("{}/v1/chat/completions", self.url);
        self.http.post(url).json(&body).send().await.unwrap()
    }

    pub(crate) async fn metrics(&self) -> String {
        self.get("/metrics").await.text
    }
}
