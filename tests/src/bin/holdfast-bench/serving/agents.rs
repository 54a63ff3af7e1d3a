//! The agent under test: how it is configured, how soon it answers, and what memory it takes.
//!
//! **Invariant:** it is measured after it was tuned, as on any start but the first.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::load::{self, Until};
use super::models::{self, Models};
use super::processes::pss_mib;
use super::wire::Question;
use crate::agent::{Agent, started};
use crate::clock::now;
use crate::report::{Report, ms, quantile};

/// Everything is loaded in its best way within this time.
const TUNED_WITHIN: Duration = Duration::from_secs(120);
/// What all three models may take, and what many requests may add, in MiB.
const MEMORY_MIB: f64 = 60.0;
const GROWTH_MIB: f64 = 5.0;

/// On what models run.
#[derive(Clone, Copy)]
pub(crate) enum Way<'a> {
    /// ONNX Runtime, its library in this folder.
    Onnx(&'a Path),
    Tract,
}

/// An agent with a state folder that is kept from start to start.
pub(crate) struct Kept<'a> {
    pub(crate) agent: &'a Path,
    pub(crate) place: PathBuf,
    pub(crate) way: Way<'a>,
}

impl Kept<'_> {
    async fn start(&self, bundles: &Path) -> anyhow::Result<Agent> {
        let (runtime, library) = match self.way {
            Way::Onnx(folder) => ("onnxruntime", folder.display().to_string()),
            Way::Tract => ("tract", "off".to_owned()),
        };
        let text = format!(
            "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\n\
             grpc_listen = \"127.0.0.1:0\"\n[queue]\nheadroom_mib = 0\n[models]\n\
             bundles = [{bundles:?}]\nruntime = {runtime:?}\nthreads = 1\nonnxruntime = {library:?}\n",
            self.place.join("data"),
        );
        let client =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        started(self.agent, &self.place, &text, &client).await
    }

    /// The agent with every model in the way that it is meant to run.
    async fn tuned(&self, bundles: &Path, names: &[&str]) -> anyhow::Result<Agent> {
        let agent = self.start(bundles).await?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let wanted = match self.way {
            Way::Onnx(_) => "onnxruntime",
            Way::Tract => "tract",
        };
        let begun = now();
        for name in names {
            loop {
                let url = format!("{}/v2/models/{name}", agent.api);
                let about: serde_json::Value = client.get(url).send().await?.json().await?;
                let platform = about.get("platform").and_then(|platform| platform.as_str());
                if platform.is_some_and(|platform| platform.contains(wanted)) {
                    break;
                }
                let is_late = begun.elapsed() > TUNED_WITHIN;
                ensure!(!is_late, "{name} does not run on {wanted}: {about}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(agent)
    }

    /// The agent with all models, started again after it was tuned.
    pub(crate) async fn settled(&self, models: &Models) -> anyhow::Result<Agent> {
        let names = models::all().map(|model| model.name);
        drop(self.tuned(&models.bundles, &names).await?);
        self.tuned(&models.bundles, &names).await
    }

    /// The median time from the start of the program to its first answer, in ms.
    pub(crate) async fn first_answer(&self, models: &Models, starts: usize) -> anyhow::Result<f64> {
        let [tiny, ..] = models::all();
        let question = tiny.binary();
        drop(self.tuned(&models.tiny, &[tiny.name]).await?);
        let mut times = Vec::new();
        for _ in 0..starts.max(1) {
            let begun = now();
            let agent = self.start(&models.tiny).await?;
            first(&agent, &question).await?;
            times.push(begun.elapsed());
        }
        Ok(ms(quantile(&times, 0.5)))
    }

    /// What it takes with all models loaded, and after many requests.
    pub(crate) async fn memory(
        &self,
        report: &mut Report,
        models: &Models,
        requests: usize,
    ) -> anyhow::Result<()> {
        let agent = self.settled(models).await?;
        let address = agent.api_address()?;
        for model in models::all() {
            load::ask(address, &model.binary(), 1, Until::Asked(50)).await?;
        }
        let loaded = pss_mib(agent.pid())?;
        report.at_most("three models loaded: memory (PSS)", loaded, "MiB", MEMORY_MIB);
        let [tiny, ..] = models::all();
        load::ask(address, &tiny.binary(), 16, Until::Asked(requests)).await?;
        let more = pss_mib(agent.pid())? - loaded;
        let what = format!("three models loaded: memory more after {requests} requests");
        report.at_most(what, more, "MiB", GROWTH_MIB);
        for model in models::all() {
            load::ask(address, &model.binary(), 16, Until::Asked(400)).await?;
        }
        let busy = pss_mib(agent.pid())?;
        report.add("three models, two workers each: memory (PSS)", busy, "MiB");
        Ok(())
    }
}

/// The first answer.
async fn first(agent: &Agent, question: &Arc<Question>) -> anyhow::Result<()> {
    let address = agent.api_address()?;
    let mut connection = super::wire::Connection::open(address, question).await?;
    connection.ask(question).await.context("the first answer")?;
    Ok(())
}

impl Agent {
    /// Where the API is.
    pub(crate) fn api_address(&self) -> anyhow::Result<SocketAddr> {
        let address = self.api.strip_prefix("http://").unwrap_or(&self.api);
        address.parse().with_context(|| self.api.clone())
    }

    /// Where gRPC is.
    pub(crate) fn grpc_address(&self) -> anyhow::Result<SocketAddr> {
        self.grpc.context("gRPC is not served")
    }
}
