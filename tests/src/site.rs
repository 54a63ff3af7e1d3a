//! A whole small site: controller, site agent, device agent, and the link between the two.
//!
//! **Invariant:** every part is a process of its own on free ports, with all its state under one
//! folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::client::Client;
use crate::link::Link;
use crate::node::{Node, Spec};
use crate::reference;

/// What the site is made of.
#[derive(Debug)]
pub struct Site {
    /// The fleet's controller.
    pub controller: Node,
    /// The bigger agent.
    pub site: Node,
    /// The device.
    pub device: Node,
    /// Between device and site agent.
    pub link: Link,
    program: PathBuf,
    dir: PathBuf,
}

/// The device's name in the fleet.
pub const DEVICE: &str = "press-7";
/// The site agent's name in the fleet.
pub const SITE: &str = "hall-2";

impl Site {
    /// Starts everything, the controller first.
    ///
    /// `program` takes `agent` or `fleet` as its first argument; `dir` receives all state.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(program: &Path, dir: &Path) -> Result<Self> {
        let controller = start_controller(program, dir).await?;
        let mqtt = controller.address("mqtt")?;
        let big = bundles(&["voice-commands-large", "part-inspection-large"]);
        let site_config =
            Agent { name: SITE, bundles: big, site: None, broker: Some(mqtt.to_string()) };
        let site = start_agent(program, dir, &site_config).await?;
        let link = Link::to(site.address("api")?).await?;
        let device =
            start_agent(program, dir, &device_agent(&link, Some(mqtt.to_string()))).await?;
        Ok(Self {
            controller,
            site,
            device,
            link,
            program: program.to_owned(),
            dir: dir.to_owned(),
        })
    }

    /// Kills the device agent at once and starts it again, with the state that it had.
    ///
    /// # Errors
    /// When it does not start again.
    pub async fn kill_and_restart_device(&mut self) -> Result<()> {
        self.device.kill()?;
        let mqtt = self.controller.address("mqtt")?;
        let config = device_agent(&self.link, Some(mqtt.to_string()));
        self.device = start_agent(&self.program, &self.dir, &config).await?;
        Ok(())
    }

    /// A client of the device agent, at the port that it has now.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn client(&self) -> Result<Client> {
        Client::new(self.device.address("api")?)
    }

    /// A client of the controller.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn fleet(&self) -> Result<Client> {
        Client::new(self.controller.address("http")?)
    }
}

fn device_agent(link: &Link, broker: Option<String>) -> Agent {
    let bundles = bundles(&["voice-commands", "part-inspection"]);
    Agent { name: DEVICE, bundles, site: Some(format!("http://{}", link.address())), broker }
}

/// One agent's configuration, as far as the tests vary it.
#[derive(Debug)]
pub struct Agent {
    /// Its name in the fleet.
    pub name: &'static str,
    /// Bundle folders.
    pub bundles: Vec<PathBuf>,
    /// URL of a site agent above it.
    pub site: Option<String>,
    /// Host and port of a broker.
    pub broker: Option<String>,
}

/// Folders of shipped bundles.
pub fn bundles(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| reference::bundles().join(name)).collect()
}

impl Agent {
    /// The configuration as TOML, with state under `dir`.
    pub fn toml(&self, dir: &Path) -> String {
        let state = dir.join(self.name);
        let bundles: Vec<_> = self.bundles.iter().map(|path| path.display().to_string()).collect();
        let mut text = format!(
            "[device]\nid = {:?}\nstate_dir = {:?}\n\n[api]\nlisten = \"127.0.0.1:0\"\n\n\
             [models]\nbundles = {bundles:?}\ntune = false\n\n[queue]\nsegment_mib = 4\n",
            self.name,
            state.display().to_string(),
        );
        if let Some(url) = &self.site {
            text +=
                &format!("\n[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = {url:?}\n");
        }
        if let Some(broker) = &self.broker {
            text += &format!("\n[fleet]\nbroker = \"mqtt://{broker}\"\ninterval_ms = 500\n");
        }
        text
    }
}

/// Starts an agent with `config`.
///
/// # Errors
/// When it does not start.
pub async fn start_agent(program: &Path, dir: &Path, config: &Agent) -> Result<Node> {
    start_agent_with(program, dir, config.name, &config.toml(dir)).await
}

/// Starts an agent with a configuration text.
///
/// # Errors
/// When it does not start.
pub async fn start_agent_with(program: &Path, dir: &Path, name: &str, toml: &str) -> Result<Node> {
    start_agent_as(program, dir, (name, toml), &[]).await
}

/// Starts an agent with a name, a configuration text and more arguments.
///
/// # Errors
/// When it does not start.
pub async fn start_agent_as(
    program: &Path,
    dir: &Path,
    (name, toml): (&str, &str),
    more: &[&str],
) -> Result<Node> {
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, toml).with_context(|| format!("cannot write {}", file.display()))?;
    let args = ["agent", "run", "--config"].map(String::from);
    let args = args.into_iter().chain([file.display().to_string()]);
    let args = args.chain(more.iter().copied().map(String::from)).collect();
    Node::start(&Spec { program, args, dir, name }).await
}

async fn start_controller(program: &Path, dir: &Path) -> Result<Node> {
    let data = dir.join("controller").display().to_string();
    let free = "127.0.0.1:0";
    let args =
        ["fleet", "serve", "--data", &data, "--http", free, "--mqtt", free].map(String::from);
    Node::start(&Spec { program, args: args.to_vec(), dir, name: "controller" }).await
}
