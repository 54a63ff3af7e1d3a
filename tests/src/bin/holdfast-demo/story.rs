//! What the demo shows, step by step; each step fails when it did not happen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use holdfast_tests::client::{Client, Reply};
use holdfast_tests::link::Weather;
use holdfast_tests::reference;
use holdfast_tests::samples::{self, Sample};
use holdfast_tests::site::{DEVICE, SITE, Site};

/// For everything that happens by itself: the link is noticed, the queue drains, health arrives.
const SOON: Duration = Duration::from_secs(60);
/// A folder of many samples is shown in part.
const MAX_SHOWN: usize = 40;

/// A request that waits for its final answer.
struct Held {
    sample: Sample,
    id: String,
    provisional: Option<String>,
}

/// What became of the files that were asked about.
struct Asked {
    held: Vec<Held>,
    refused: Vec<PathBuf>,
}

pub(super) async fn tell(dir: &Path, folder: Option<&Path>, once: bool) -> Result<()> {
    let samples = find_samples(folder)?;
    let program = std::env::current_exe()?;
    println!(
        "Starting a controller, a site agent and a device agent, each a process of its own ..."
    );
    let site = Site::start(&program, dir).await?;
    introduce(&site).await?;

    println!(
        "\n1. The link is up: the device answers what it is sure of and asks the site the rest\n"
    );
    let Asked { held, refused } = ask_all(&site, &samples, "internal", "auto").await?;
    ensure!(held.is_empty(), "{} requests were held although the link is up", held.len());
    let usable = samples.into_iter().filter(|sample| !refused.contains(&sample.path));
    let samples: Vec<Sample> = usable.collect();
    ensure!(!samples.is_empty(), "none of the files can be used");
    restricted_stays(&site, &samples).await?;

    println!("\n2. The link is cut: the device goes on alone, and holds what it is not sure of\n");
    site.link.set(Weather::Cut);
    let Asked { mut held, .. } = ask_all(&site, &samples, "internal", "auto").await?;
    held.extend(hold_one_more(&site, &samples).await?);
    fleet_sees_held(&site, held.len()).await?;

    println!(
        "\n3. The link is back: what was held is answered, provisional answers are replaced\n"
    );
    site.link.set(Weather::Up);
    settle(&site, &held).await?;

    println!("\n4. The fleet sees both, over MQTT\n");
    show_fleet(&site).await?;
    farewell(&site, &samples, once).await
}

fn find_samples(folder: Option<&Path>) -> Result<Vec<Sample>> {
    let mut found = Vec::new();
    match folder {
        Some(folder) => found.extend(samples::under(folder)?),
        None => {
            for bundle in ["voice-commands", "part-inspection"] {
                found.extend(samples::of_bundle(&reference::bundles().join(bundle))?);
            }
        }
    }
    let place = folder.map_or_else(|| "the bundles".into(), |folder| folder.display().to_string());
    ensure!(
        !found.is_empty(),
        "no .wav, .jpg, .png or .webp in {place}; give --samples another folder"
    );
    Ok(found)
}

async fn introduce(site: &Site) -> Result<()> {
    println!(
        "\n  controller  http://{}/  mqtt {}",
        site.controller.address("http")?,
        site.controller.address("mqtt")?
    );
    for (role, name, node) in [("site", SITE, &site.site), ("device", DEVICE, &site.device)] {
        let address = node.address("api")?;
        let (_, ready) = Client::new(address)?.get("/readyz").await?;
        let ready: serde_json::Value = serde_json::from_str(&ready)?;
        let models = ready["models"].as_array().cloned().unwrap_or_default();
        let models: Vec<_> = models.iter().filter_map(|model| model.as_str()).collect();
        ensure!(models.len() == 2, "{name} has {} models in service, not 2: {ready}", models.len());
        println!("  {role:<10}  http://{address}  {name}: {}", models.join(", "));
    }
    Ok(())
}

/// Asks about every sample, shows what came back, and returns what is held.
async fn ask_all(site: &Site, samples: &[Sample], class: &str, escalate: &str) -> Result<Asked> {
    let client = site.client()?;
    let (mut held, mut refused) = (Vec::new(), Vec::new());
    let mut table = table(&["FILE", "ANSWER", "CONFIDENCE", "WHERE", "TOOK", "WHY"]);
    for (at, sample) in samples.iter().enumerate() {
        let terms = [("holdfast-class", class), ("holdfast-escalate", escalate)];
        let (status, text) = client.post(sample.task, sample.read()?, &terms).await?;
        if status.is_client_error() {
            table.add_row(refusal(&sample.name(), &text));
            refused.push(sample.path.clone());
            continue;
        }
        ensure!(status.is_success(), "{}: {status}: {text}", sample.path.display());
        let reply: Reply = serde_json::from_str(&text).with_context(|| text.clone())?;
        if at < MAX_SHOWN {
            table.add_row(row(&sample.name(), &reply));
        }
        if reply.state == "held" {
            held.push(hold(sample, reply));
        }
    }
    print(&table);
    if samples.len() > MAX_SHOWN {
        println!("  ... and {} more", samples.len() - MAX_SHOWN);
    }
    let bad =
        if refused.is_empty() { String::new() } else { format!(", {} refused", refused.len()) };
    println!("\n  {} asked, {} held{bad}", samples.len(), held.len());
    Ok(Asked { held, refused })
}

/// The row of a file that is no recording or picture, or a damaged one.
fn refusal(name: &str, problem: &str) -> Vec<String> {
    let problem: serde_json::Value = serde_json::from_str(problem).unwrap_or_default();
    let why = problem["detail"].as_str().unwrap_or("no reason given").to_owned();
    let none = || "-".to_owned();
    vec![name.to_owned(), none(), none(), "refused".to_owned(), String::new(), why]
}

fn hold(sample: &Sample, reply: Reply) -> Held {
    let provisional =
        reply.answer.map(|answer| format!("{} ({:.2})", answer.label, answer.confidence));
    Held { sample: sample.clone(), id: reply.id, provisional }
}

fn row(name: &str, reply: &Reply) -> Vec<String> {
    let Some(answer) = &reply.answer else {
        return vec![
            name.to_owned(),
            "-".into(),
            "-".into(),
            reply.state.clone(),
            String::new(),
            reply.why(),
        ];
    };
    let place = if reply.state == "held" {
        format!("{}, held", answer.place)
    } else {
        answer.place.clone()
    };
    vec![
        name.to_owned(),
        answer.label.clone(),
        format!("{:.2}", answer.confidence),
        place,
        format!("{:.1} ms", answer.took_ms),
        reply.why(),
    ]
}

/// Shows that a restricted request does not go up, even when the caller asks for it.
async fn restricted_stays(site: &Site, samples: &[Sample]) -> Result<()> {
    let sample = samples.first().context("no samples")?;
    let before = site.link.seen().upward.len();
    println!("\n  The same file as restricted data, with the site asked for:\n");
    let Asked { held, .. } =
        ask_all(site, std::slice::from_ref(sample), "restricted", "always").await?;
    ensure!(held.is_empty(), "a restricted request was held for the site");
    let after = site.link.seen().upward.len();
    ensure!(before == after, "{} bytes went over the link", after - before);
    println!("  0 bytes of it went over the link");
    Ok(())
}

/// Asks the site about the first sample, so that something is held whatever the samples are.
async fn hold_one_more(site: &Site, samples: &[Sample]) -> Result<Vec<Held>> {
    let sample = samples.first().context("no samples")?;
    println!("\n  The first file once more, with the site asked for in any case:\n");
    let Asked { held, .. } =
        ask_all(site, std::slice::from_ref(sample), "internal", "always").await?;
    ensure!(held.len() == 1, "a request for the site was not held although the link is cut");
    Ok(held)
}

/// Waits until the controller knows of everything that is held.
async fn fleet_sees_held(site: &Site, count: usize) -> Result<()> {
    let seen = |json: &serde_json::Value| {
        let held = queue_depth(json, "held") + queue_depth(json, "in_flight");
        (held == count as u64).then_some(held)
    };
    let path = format!("/api/v1/devices/{DEVICE}");
    let held = site.fleet()?.until(&path, SOON, seen).await?;
    println!("\n  The controller sees {held} held requests on {DEVICE}");
    Ok(())
}

fn queue_depth(device: &serde_json::Value, state: &str) -> u64 {
    device["health"]["queue"][state].as_u64().unwrap_or(0)
}

/// Waits for the final answer of everything that was held.
async fn settle(site: &Site, held: &[Held]) -> Result<()> {
    let client = site.client()?;
    let mut table = table(&["FILE", "WAS", "IS", "CONFIDENCE", "WHERE"]);
    for (at, request) in held.iter().enumerate() {
        let reply = client.settled(&request.id, SOON).await?;
        let answer = reply
            .answer
            .as_ref()
            .with_context(|| format!("{} has no answer: {}", request.id, reply.why()))?;
        ensure!(
            reply.state == "answered" && !answer.provisional,
            "{} is {}",
            request.id,
            reply.state
        );
        ensure!(answer.place == "site", "{} was answered by {}", request.id, answer.place);
        if at < MAX_SHOWN {
            table.add_row([
                request.sample.name(),
                request.provisional.clone().unwrap_or_else(|| "-".to_owned()),
                answer.label.clone(),
                format!("{:.2}", answer.confidence),
                answer.place.clone(),
            ]);
        }
    }
    print(&table);
    println!("\n  {} of {} held requests have their final answer", held.len(), held.len());
    Ok(())
}

async fn show_fleet(site: &Site) -> Result<()> {
    let fleet = site.fleet()?;
    let mut table = table(&["DEVICE", "STATE", "HELD", "MEMORY", "MODELS", "INFERENCES", "MEDIAN"]);
    for name in [DEVICE, SITE] {
        let settled = |json: &serde_json::Value| {
            let tasks = json["health"]["tasks"].as_array()?;
            let inferences: u64 = tasks.iter().filter_map(|task| task["inferences"].as_u64()).sum();
            let is_done =
                json["state"] == "online" && queue_depth(json, "held") == 0 && inferences > 0;
            is_done.then(|| (json.clone(), inferences))
        };
        let path = format!("/api/v1/devices/{name}");
        let (device, inferences) = fleet.until(&path, SOON, settled).await?;
        let rss = device["health"]["memory_rss_bytes"].as_u64().unwrap_or(0) >> 20;
        let models = device["models"].as_array().map_or(0, Vec::len);
        let tasks = device["health"]["tasks"].as_array().cloned().unwrap_or_default();
        let medians: Vec<_> = tasks
            .iter()
            .filter(|task| task["inferences"].as_u64().unwrap_or(0) > 0)
            .filter_map(|task| {
                let micros = u32::try_from(task["p50_us"].as_u64()?).ok()?;
                Some(format!("{} {:.1} ms", task["task"].as_str()?, f64::from(micros) / 1000.0))
            })
            .collect();
        table.add_row([
            name.to_owned(),
            device["state"].as_str().unwrap_or_default().to_owned(),
            queue_depth(&device, "held").to_string(),
            format!("{rss} MiB"),
            models.to_string(),
            inferences.to_string(),
            medians.join(", "),
        ]);
    }
    print(&table);
    Ok(())
}

async fn farewell(site: &Site, samples: &[Sample], once: bool) -> Result<()> {
    let sample = samples.first().context("no samples")?;
    let api = site.device.address("api")?;
    println!("\nThe fleet's page:  http://{}/", site.controller.address("http")?);
    println!(
        "Ask the device:    curl -s --data-binary @{} -H 'Holdfast-Class: internal' http://{api}/v1/tasks/{}",
        sample.path.display(),
        sample.task
    );
    if once {
        return Ok(());
    }
    println!("\nEverything stays up until Ctrl-C.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table
}

fn print(table: &Table) {
    for line in table.lines() {
        println!("  {}", line.trim_end());
    }
}
