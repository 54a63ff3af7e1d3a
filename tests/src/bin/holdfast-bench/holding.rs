//! Requests that the API accepts and holds while there is no link: how many a second, and how long the
//! slowest callers wait.
//!
//! Client and agent share the machine's cores. What the same client gets from a route that does nothing
//! is measured beside it.
//!
//! **Invariant:** every request that is counted was answered with 202: it is on disk.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use reqwest::StatusCode;

use crate::agent::{Agent, started};
use crate::clock::now;
use crate::report::{Report, ms, quantile};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The agent's binary
    #[arg(long)]
    agent: PathBuf,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Callers at once
    #[arg(long, default_value_t = 64)]
    callers: usize,
}

pub(crate) fn measure(options: &Options, out: &std::path::Path) -> anyhow::Result<Report> {
    let mut report = Report::new("holding", "Through the API, without a link");
    // Only an earlier call can make this fail, and that one did the same.
    rustls::crypto::ring::default_provider().install_default().ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    std::fs::create_dir_all(out)?;
    // On the disk that the other benchmarks of the queue use.
    let folder = tempfile::tempdir_in(out)?;
    let place = folder.path().canonicalize()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let text = configuration(&place, options.callers);
        let agent = started(&options.agent, &place, &text, &client).await?;
        let time = Duration::from_secs_f64(options.seconds);
        for body in [1_000, 100_000] {
            let (rate, times) = held(&agent, &client, options.callers, body, time).await?;
            let size = if body == 1_000 { "1 KiB" } else { "100 KiB" };
            let what = format!("{size} accepted and held, {} callers", options.callers);
            report.add(what.clone(), rate, "/s");
            report.add(format!("{what}: p50"), ms(quantile(&times, 0.5)), "ms");
            report.add(format!("{what}: p99"), ms(quantile(&times, 0.99)), "ms");
        }
        let bare = bare(&agent, &client, options.callers, time).await?;
        report.detail(
            format!("a route that does nothing, {} callers", options.callers),
            bare,
            "/s",
        );
        anyhow::Ok(())
    })?;
    Ok(report)
}

/// An agent without models, whose only destination cannot be reached.
fn configuration(place: &std::path::Path, callers: usize) -> String {
    format!(
        "[device]\nstate_dir = {:?}\n[api]\nlisten = \"127.0.0.1:0\"\nmax_concurrent = {callers}\n\
         [models]\nbundles = []\n[queue]\nheadroom_mib = 0\n\
         [[destination]]\nname = \"away\"\nzone = \"site\"\nurl = \"http://127.0.0.1:9\"\n\
         tasks = [\"listen\"]\n",
        place.join("data"),
    )
}

/// A recording of so many bytes of silence.
fn recording(bytes: u32) -> Bytes {
    let mut wav = Vec::new();
    wav.extend_from_slice(b"RIFF");
    wav.extend_from_slice(&(36 + bytes).to_le_bytes());
    wav.extend_from_slice(b"WAVEfmt ");
    // PCM, one channel, 16 kHz, 16 bits.
    for (value, len) in [(16_u32, 4), (1, 2), (1, 2), (16_000, 4), (32_000, 4), (2, 2), (16, 2)] {
        wav.extend(value.to_le_bytes().into_iter().take(len));
    }
    wav.extend_from_slice(b"data");
    wav.extend_from_slice(&bytes.to_le_bytes());
    wav.resize(wav.len() + bytes as usize, 0);
    wav.into()
}

async fn held(
    agent: &Agent,
    client: &reqwest::Client,
    callers: usize,
    bytes: u32,
    time: Duration,
) -> anyhow::Result<(f64, Vec<Duration>)> {
    let url = format!("{}/v1/tasks/listen?escalate=always&class=internal&ttl_ms=60000", agent.api);
    let body = recording(bytes);
    let start = now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (client, url, body) = (client.clone(), url.clone(), body.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            while start.elapsed() < time {
                let begun = now();
                let request = client.post(&url).header("content-type", "audio/wav");
                let answer = request.body(body.clone()).send().await?;
                let status = answer.status();
                let text = answer.text().await?;
                ensure!(status == StatusCode::ACCEPTED, "{status}: {text}");
                times.push(begun.elapsed());
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    #[expect(clippy::cast_precision_loss, reason = "a count of some seconds")]
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    Ok((rate, times))
}

async fn bare(
    agent: &Agent,
    client: &reqwest::Client,
    callers: usize,
    time: Duration,
) -> anyhow::Result<f64> {
    let url = format!("{}/healthz", agent.api);
    let start = now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (client, url) = (client.clone(), url.clone());
        tasks.spawn(async move {
            let mut asked = 0_u32;
            while start.elapsed() < time {
                client.get(&url).send().await.context("healthz")?.bytes().await?;
                asked += 1;
            }
            anyhow::Ok(asked)
        });
    }
    let mut asked = 0.0;
    while let Some(done) = tasks.join_next().await {
        asked += f64::from(done??);
    }
    Ok(asked / start.elapsed().as_secs_f64())
}
