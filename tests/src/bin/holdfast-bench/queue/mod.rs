//! The queue beside the disk's limit and other stores, on the same work.
//!
//! The limit is a plain write over a preallocated file with `fdatasync`, round and round; beside it is
//! what the same costs on space that was never written. All take turns on the same
//! file system, because a shared disk's speed changes from second to second; the ratio that is
//! reported is the middle one of the turns.
//!
//! **Invariant:** all sides write records of the same size, and every one counted was synced.

mod engines;
mod held;
mod load;
pub(crate) mod plot;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Runtime;

use self::engines::Kind;
pub(crate) use self::held::{Part, run as run_part};
use self::held::{What, in_own_process};
use self::load::Load;
use self::plot::Line;
use crate::clock::now;
use crate::report::{Report, ms};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Turns of limit, queue and the others
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Leave the other stores out
    #[arg(long)]
    no_peers: bool,
    /// Small requests held together
    #[arg(long, default_value_t = 1_000_000)]
    held: u64,
    /// Only what many held requests cost
    #[arg(long, conflicts_with = "no_held")]
    only_held: bool,
    /// Leave out what many held requests cost
    #[arg(long)]
    no_held: bool,
}

pub(crate) fn measure(options: &Options, out: &Path) -> anyhow::Result<Report> {
    let mut report = Report::new("queue", "The queue, beside the disk's limit and other stores");
    std::fs::create_dir_all(out)?;
    let folder = tempfile::tempdir_in(out).context("cannot make a folder for the queue")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let time = Duration::from_secs_f64(options.seconds);
    if !options.no_held {
        many_held(&mut report, options.held, folder.path(), &out.join(plot::FILE))?;
    }
    if options.only_held {
        return Ok(report);
    }
    for (bytes, size, bar) in [(1024, "1 KiB", 0.7), (100 * 1024, "100 KiB", 0.6)] {
        for callers in [1, 64] {
            let load = Load { callers, bytes, time };
            let turns = turns(&runtime, options, folder.path(), load)?;
            add(&mut report, &turns, load, size, bar);
        }
    }
    Ok(report)
}

/// Memory by how many are held; opening, rebuilding and working off of the most.
fn many_held(report: &mut Report, most: u64, dir: &Path, plot: &Path) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for held in [
        Held { most, bytes: 1024, size: "1 KiB", memory_bar: 150.0 },
        Held { most: most / 100, bytes: 100 * 1024, size: "100 KiB", memory_bar: 40.0 },
    ] {
        let place = dir.join("held");
        let mut points = Vec::new();
        for part in [1000, 100, 10] {
            let count = (held.most / part).max(1);
            points.push((count, in_own_process(&place, What::Fill, count, held.bytes)?.peak_mib));
            std::fs::remove_dir_all(&place)?;
        }
        points.push((held.most, held.measure(report, &place)?));
        std::fs::remove_dir_all(&place)?;
        lines.push(Line { name: held.size, points });
    }
    plot::draw(plot, &lines)
}

/// Many requests that are held.
struct Held {
    most: u64,
    bytes: usize,
    size: &'static str,
    /// MiB.
    memory_bar: f64,
}

impl Held {
    /// Measures what they cost; returns the memory to put them in.
    fn measure(&self, report: &mut Report, place: &Path) -> anyhow::Result<f64> {
        let Held { most: count, bytes, size, memory_bar } = *self;
        let filled = in_own_process(place, What::Fill, count, bytes)?;
        let opened = in_own_process(place, What::Open, 0, 0)?;
        std::fs::remove_dir_all(place.join("index"))?;
        let read = read_all(&place.join("journal"))?;
        let rebuilt = in_own_process(place, What::Open, 0, 0)?;
        let drained = in_own_process(place, What::Drain, 0, 0)?;
        let what = |what: &str| format!("{count} of {size} held: {what}");
        report.at_most(what("memory, put in by 64 callers"), filled.peak_mib, "MiB", memory_bar);
        report.detail(what("memory, worked off 256 at a time"), drained.peak_mib, "MiB");
        report.at_most(what("ready after a start"), opened.ready_ms, "ms", 300.0);
        report.detail(what("memory after a start"), opened.peak_mib, "MiB");
        let speed = |ms: f64| mib(filled.allocated) / ms * 1000.0;
        report.add(what("index made anew"), speed(rebuilt.ready_ms), "MiB/s");
        report.detail(what("the journal only read"), speed(read), "MiB/s");
        report.detail(what("filled"), filled.rate, "/s");
        let ratio = drained.rate / filled.rate;
        report.at_least(what("leased and answered / accepted"), ratio, "x", 1.0);
        let payload = mib(count * bytes as u64);
        report.add(what("bytes to disk / payload"), mib(filled.all_written) / payload, "x");
        report.detail(what("of them the journal's / payload"), mib(filled.written) / payload, "x");
        let left = mib(drained.allocated);
        report.at_most(what("journal on disk when drained"), left, "MiB", 32.0);
        report.detail(what("index on disk when drained"), mib(drained.index), "MiB");
        Ok(filled.peak_mib)
    }
}

/// Milliseconds to read a folder's files to their ends.
fn read_all(dir: &Path) -> anyhow::Result<f64> {
    let start = now();
    for found in std::fs::read_dir(dir)? {
        let mut file = std::fs::File::open(found?.path())?;
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    Ok(ms(start.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a disk")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// Rates of the queue, and then of the others, turn by turn.
struct Turns {
    queue: Vec<f64>,
    others: Vec<(Kind, Vec<f64>)>,
}

fn turns(runtime: &Runtime, options: &Options, dir: &Path, load: Load) -> anyhow::Result<Turns> {
    let peers = if options.no_peers { &[][..] } else { &Kind::PEERS };
    let kinds = [Kind::Limit, Kind::Fresh].into_iter().chain(peers.iter().copied());
    let mut turns = Turns { queue: Vec::new(), others: kinds.map(|k| (k, Vec::new())).collect() };
    for _ in 0..options.turns.max(1) {
        let place = dir.join("queue");
        turns.queue.push(runtime.block_on(load::queue(&place, load))?);
        std::fs::remove_dir_all(&place)?;
        for (kind, rates) in &mut turns.others {
            let place = dir.join("other");
            let rate = load::engine(runtime, *kind, &place, load);
            rates.push(rate.with_context(|| kind.name())?);
            std::fs::remove_dir_all(&place)?;
        }
    }
    Ok(turns)
}

fn add(report: &mut Report, turns: &Turns, load: Load, size: &str, bar: f64) {
    let callers = if load.callers == 1 { "1 caller" } else { "64 callers" };
    report.add(format!("{size} accepted durably, {callers}"), median(&turns.queue), "/s");
    for (kind, rates) in &turns.others {
        let what = format!("{size}, {callers}: {}", kind.name());
        report.detail(what, median(rates), "/s");
        let ratios: Vec<f64> = turns.queue.iter().zip(rates).map(|(ours, it)| ours / it).collect();
        let what = format!("{size}, {callers}: the queue / {}", kind.name());
        let bar = match kind {
            Kind::Limit => bar,
            Kind::Sled if load.bytes > 4096 => 5.0,
            Kind::Sled | Kind::Fresh => {
                report.add(what, median(&ratios), "x");
                continue;
            }
            Kind::Redb | Kind::Fjall => 1.0,
        };
        report.at_least(what, median(&ratios), "x", bar);
    }
}

/// The middle one; of nothing, not a number.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
