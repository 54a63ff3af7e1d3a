//! Starts the command, and asks it over HTTP.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

/// Long enough for a busy machine; what is waited for usually takes milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The command, ready for arguments.
pub(crate) fn fleet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-fleet"));
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HOLDFAST_FLEET_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end: exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = fleet().args(arguments).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A controller that serves; killed when dropped.
pub(crate) struct Controller {
    child: Child,
    pub(crate) http: String,
    pub(crate) mqtt: String,
}

impl Controller {
    /// Starts it with everything on free ports, unless the arguments say otherwise.
    pub(crate) async fn start(data: &Path, arguments: &[&str]) -> Self {
        let ready_file = data.join("ready.json");
        let _absent = std::fs::remove_file(&ready_file);
        let mut command = fleet();
        command
            .args(["serve", "--http", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--ready-file")
            .arg(&ready_file);
        if !arguments.iter().any(|argument| ["--mqtt", "--broker"].contains(argument)) {
            command.args(["--mqtt", "127.0.0.1:0"]);
        }
        let mut child = command.args(arguments).stdout(Stdio::null()).spawn().unwrap();
        let ready = until("the ready file", async || {
            assert_eq!(child.try_wait().unwrap(), None, "the controller ended");
            serde_json::from_slice::<Value>(&std::fs::read(&ready_file).ok()?).ok()
        })
        .await;
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        Self { child, http: text("http"), mqtt: text("mqtt") }
    }

    /// In a directory that it makes itself.
    pub(crate) async fn start_in_new(data: &Path) -> Self {
        assert!(!data.exists());
        std::fs::create_dir_all(data.parent().unwrap()).unwrap();
        Self::start(data, &[]).await
    }

    /// The broker's port.
    pub(crate) fn mqtt_port(&self) -> u16 {
        self.mqtt.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// kill -9
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop and waits: the exit code, and how long it took.
    pub(crate) async fn stop(mut self) -> (i32, Duration) {
        let begun = Instant::now();
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        let status = until("the end", async || self.child.try_wait().unwrap()).await;
        (status.code().unwrap(), begun.elapsed())
    }

    /// `GET`: status, content type, body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String, String) {
        let response = client().get(format!("{}{path}", self.http)).send().await.unwrap();
        let kind = response
            .headers()
            .get("content-type")
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default();
        (response.status().as_u16(), kind, response.text().await.unwrap())
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.get(path).await.2).unwrap()
    }

    /// One device, as soon as it fits.
    pub(crate) async fn device(
        &self,
        id: &str,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Value {
        until(what, async || {
            let device = self.json(&format!("/api/v1/devices/{id}")).await;
            fits(&device).then_some(device)
        })
        .await
    }

    /// Waits until so many messages were refused for a reason.
    pub(crate) async fn refused(&self, reason: &str, count: u64) {
        until(&format!("{count} refused by {reason}"), async || {
            (self.json("/api/v1/status").await["refused"][reason] == count).then_some(())
        })
        .await;
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

pub(crate) fn client() -> reqwest::Client {
    // Only the first one installs it.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// Looks again and again until there is something; says what was missing if there never is.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
