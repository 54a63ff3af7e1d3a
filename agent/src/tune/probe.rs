//! The measuring of one choice, in a process of its own.
//!
//! A graph or a library can end or hang the process that loads it. So what was never tried on this
//! board is tried in a child: `holdfast-agent models probe`, which prints what it measured.
//!
//! **Invariant:** whatever a child does, its parent gets what it measured or a reason, within a time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{Bundle, Media, Model};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

use super::choice::{Choice, Measured};
use super::library::{OnnxRuntimeConfig, runtime};

/// A child that says nothing for so long hangs.
const CHILD_WITHIN: Duration = Duration::from_secs(120);
/// A library that does not load within this time hangs.
const LIBRARY_WITHIN: Duration = Duration::from_secs(10);
/// A choice is measured over this time, and over this many requests at least.
const MEASURE_FOR: Duration = Duration::from_millis(700);
const LEAST: usize = 8;
/// Measuring is work for cores that nothing else wants.
const NICE: i32 = 10;

/// How this program is started: its file, and what stands before its own arguments.
#[derive(Debug, Clone)]
pub struct Program {
    file: PathBuf,
    before: Vec<OsString>,
}

impl Program {
    /// This process's own program; `own` of its arguments, its name first, are the agent's.
    pub fn this(own: usize) -> Option<Self> {
        let all: Vec<OsString> = std::env::args_os().collect();
        let others = all.len().checked_sub(own)?;
        let before = all.into_iter().skip(1).take(others).collect();
        Some(Self { file: std::env::current_exe().ok()?, before })
    }

    /// Runs `models probe` with these arguments and reads what it prints.
    async fn run<T: DeserializeOwned>(
        &self,
        arguments: &[OsString],
        within: Duration,
    ) -> Result<T, String> {
        let mut command = Command::new(&self.file);
        command
            .args(&self.before)
            .args(["--log", "error", "models", "probe"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("cannot start a process: {error}"))?;
        let ended = tokio::time::timeout(within, child.wait_with_output()).await;
        let output = match ended {
            Ok(ended) => ended.map_err(|error| format!("cannot wait for a process: {error}"))?,
            Err(_) => return Err(format!("it hung for {} s", within.as_secs())),
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        if !output.status.success() {
            return Err(match output.status.code() {
                Some(_) => last.trim_start_matches("error: ").to_owned(),
                None => format!("it ended the process that tried it ({}): {last}", output.status),
            });
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{error}: {last}"))
    }

    /// What the library that the configuration means can do.
    ///
    /// # Errors
    /// There is none, or it cannot be used; as a sentence.
    pub async fn probe_library(&self, config: &OnnxRuntimeConfig) -> Result<Found, String> {
        let mut arguments = vec![OsString::from("--library")];
        arguments.extend(config.as_argument());
        self.run(&arguments, LIBRARY_WITHIN).await
    }

    /// Measures a choice of a bundle.
    ///
    /// # Errors
    /// It cannot be used; as a sentence.
    pub async fn probe(
        &self,
        bundle: &Path,
        choice: &Choice,
        config: &OnnxRuntimeConfig,
    ) -> Result<Measured, String> {
        let mut arguments: Vec<OsString> = ["--bundle".into(), bundle.into()].into();
        let threads = choice.threads.to_string();
        let rest =
            ["--variant", &choice.variant, "--runtime", &choice.runtime, "--threads", &threads];
        arguments.extend(rest.map(OsString::from));
        arguments.extend(config.as_argument());
        self.run(&arguments, CHILD_WITHIN).await
    }
}

/// A library that a child loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Its file.
    pub path: PathBuf,
    /// Its version, where the file tells.
    pub version: Option<String>,
    /// The runtimes in it, by their names.
    pub runtimes: Vec<String>,
}

/// Loads the library; the child's side of [`Program::probe_library`].
///
/// # Errors
/// There is none, or it cannot be used; as a sentence.
pub fn library(config: &OnnxRuntimeConfig) -> Result<Found, String> {
    end_with_parent();
    let library = config.open()?;
    let built_in = Provider::ALL.into_iter().filter(|provider| provider.is_built_in(&library));
    Ok(Found {
        path: library.path().to_owned(),
        version: library.version().map(str::to_owned),
        runtimes: built_in.map(|provider| provider.engine().to_owned()).collect(),
    })
}

/// Loads a choice, checks all of its goldens and runs the bundle's samples; the child's side of
/// [`Program::probe`].
///
/// # Errors
/// It cannot be used; as a sentence.
pub fn measure(
    bundle: &Path,
    choice: &Choice,
    config: &OnnxRuntimeConfig,
) -> Result<Measured, String> {
    end_with_parent();
    // Without it the measuring is as urgent as everything else.
    rustix::process::nice(NICE).ok();
    let told = |error: &dyn std::error::Error| crate::error_chain(error);
    let bundle = Bundle::open(bundle).map_err(|error| told(&error))?;
    let samples: Vec<Media> = bundle
        .samples()
        .iter()
        .map(|sample| {
            let bytes = bundle.read(&sample.file).map_err(|error| told(&error))?;
            Media::detect(bytes, None).map_err(|error| told(&error))
        })
        .collect::<Result<_, String>>()?;
    let before = resident_kib("VmRSS:");
    let begun = Instant::now();
    let runtime = runtime(&choice.runtime, config)?;
    let (variant, threads) = (Some(&*choice.variant), choice.threads);
    let mut model = Model::load_fully_checked(&bundle, variant, &*runtime, threads)
        .map_err(|error| told(&error))?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < MEASURE_FOR || times.len() < LEAST.max(samples.len()) {
        let sample = samples.get(times.len() % samples.len().max(1)).ok_or("it has no samples")?;
        times.push(model.infer(sample).map_err(|error| told(&error))?.timings.total());
    }
    times.sort_unstable();
    let quantile = |share: f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let at = ((times.len() - 1) as f64 * share).round() as usize;
        times[at].as_secs_f64() * 1e3
    };
    Ok(Measured {
        load_ms,
        p50_ms: quantile(0.5),
        p99_ms: quantile(0.99),
        peak_kib: resident_kib("VmHWM:").saturating_sub(before),
        off: model.off(),
        count: times.len() as u64,
    })
}

/// A child that nobody waits for any more does not go on.
fn end_with_parent() {
    let signal = rustix::process::Signal::KILL;
    // Where the kernel does not know it, the child ends when it has measured.
    rustix::process::set_parent_process_death_signal(Some(signal)).ok();
}

/// A line of `/proc/self/status`, in KiB.
fn resident_kib(line: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rest = status.lines().find_map(|found| found.strip_prefix(line));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
