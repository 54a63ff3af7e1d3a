//! Compute for one input, with tract on one core, for every bundle and variant.
//!
//! **Invariant:** loading is not counted, decoding is; every committed sample is used equally often.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use holdfast_models::{Bundle, Media, MediaKind, Model, Timings, Tract};

use crate::clock::timed;
use crate::report::{Report, ms, quantile};

/// Compute for a one-second command with the small bundle.
const COMMAND_MS: f64 = 15.0;
/// The front end for one second of audio.
const AUDIO_MS: f64 = 1.0;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The folder of bundles
    #[arg(long, default_value = "models/bundles")]
    bundles: PathBuf,
    /// Inputs to measure for each variant, at least
    #[arg(long, default_value_t = 400)]
    inputs: usize,
}

pub(crate) fn measure(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::new("models", "Models, tract on one core");
    let entries = std::fs::read_dir(&options.bundles)
        .with_context(|| format!("cannot read {}", options.bundles.display()))?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join("bundle.toml").is_file())
        .collect();
    folders.sort();
    ensure!(!folders.is_empty(), "no bundles in {}", options.bundles.display());
    for folder in folders {
        bundle(&mut report, &folder, options.inputs)?;
    }
    Ok(report)
}

fn bundle(report: &mut Report, folder: &Path, inputs: usize) -> anyhow::Result<()> {
    let bundle = Bundle::open(folder)?;
    let samples: Vec<Media> = bundle
        .samples()
        .iter()
        .map(|sample| Ok(Media::detect(bundle.read(&sample.file)?, None)?))
        .collect::<anyhow::Result<_>>()?;
    ensure!(!samples.is_empty(), "bundle {} has no samples to measure", bundle.name());
    // The small bundle that listens is the one with a bar; a site's bigger one has none.
    let command = bundle.expects() == MediaKind::Audio && bundle.name() == bundle.task();
    for variant in bundle.variants() {
        eprintln!("measuring {} {}", bundle.name(), variant.name());
        let (loading, model) =
            timed(|| anyhow::Ok(Model::load(&bundle, Some(variant.name()), &Tract)?));
        let mut model = model?;
        let times = run(&mut model, &samples, inputs)?;
        let name = format!("{} {}", bundle.name(), variant.name());
        let part = |share: f64, of: fn(&Timings) -> Duration| {
            ms(quantile(&times.iter().map(of).collect::<Vec<_>>(), share))
        };
        let total = part(0.5, Timings::total);
        if command {
            report.at_most(format!("{name}: one second, p50"), total, "ms", COMMAND_MS);
        } else {
            report.add(format!("{name}: one input, p50"), total, "ms");
        }
        report.detail(format!("{name}: p99"), part(0.99, Timings::total), "ms");
        report.detail(format!("{name}: of it decoding, p50"), part(0.5, |t| t.decode), "ms");
        if bundle.expects() == MediaKind::Audio {
            let what = format!("{name}: of it the front end for 1 s of audio, p50");
            report.at_most(what, part(0.5, |t| t.features), "ms", AUDIO_MS);
        } else {
            report.detail(
                format!("{name}: of it the front end, p50"),
                part(0.5, |t| t.features),
                "ms",
            );
        }
        report.detail(format!("{name}: of it the graph, p50"), part(0.5, |t| t.infer), "ms");
        report.detail(format!("{name}: load and check, once"), ms(loading), "ms");
    }
    Ok(())
}

fn run(model: &mut Model, samples: &[Media], inputs: usize) -> anyhow::Result<Vec<Timings>> {
    let rounds = inputs.div_ceil(samples.len());
    for sample in samples {
        model.infer(sample)?;
    }
    let mut times = Vec::with_capacity(rounds * samples.len());
    for _ in 0..rounds {
        for sample in samples {
            times.push(model.infer(sample)?.timings);
        }
    }
    Ok(times)
}
