//! The measuring of one choice, in a process of its own.
//!
//! A graph or a library can end or hang the process that loads it. So what was never tried on this
//! board is tried in a child: `holdfast-agent models probe`, which prints what it measured.
//!
//! **Invariant:** whatever a child does, its parent gets what it measured or a reason, within a time.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::runtime::onnx_runtime::library::LibraryError;
use holdfast_models::{Bundle, Goldens, Loading, Media, Model, Tract};
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::Instant;

use super::choice::{Choice, Measured, Outcome};
use super::estimated_kib;
use super::library::{OnnxRuntimeConfig, runtime};

/// A child that says nothing for so long hangs, in seconds.
pub(crate) const CHILD_WITHIN_S: u64 = 120;
/// A library that does not load within this time hangs.
const LIBRARY_WITHIN: Duration = Duration::from_secs(10);
/// A choice is measured over this time, and over this many requests at least.
const MEASURE_FOR: Duration = Duration::from_millis(700);
const LEAST: usize = 8;
/// Of what a child says, so many bytes are kept.
const MOST_SAID: u64 = 64 << 10;
/// What a child reports stands behind this, in one line of its stdout.
const REPORT: &str = "holdfast-probe: ";
/// Measuring is work for cores that nothing else wants.
pub(super) const NICE: i32 = 10;

/// A first load has less of a stack than the threads of this program, which are deeper in it.
const CHILD_STACK: usize = 7 << 18;

/// How this program is started: its file, what stands before its own arguments, and how long it may take.
#[derive(Debug, Clone)]
pub struct Program {
    file: PathBuf,
    before: Vec<OsString>,
    pub(super) within: Duration,
}

/// What came of a child that reported nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChildError {
    /// There is none.
    #[error("cannot start a process: {0}")]
    NotStarted(String),
    /// It did not end.
    #[error("it hung for {} s", .0.as_secs_f64())]
    Hung(Duration),
    /// A signal ended it.
    #[error("it ended the process that tried it ({status}): {said}")]
    Ended {
        /// The signal's number.
        signal: i32,
        /// As it is shown.
        status: ExitStatus,
        /// What it said.
        said: String,
    },
    /// It says so itself.
    #[error("{0}")]
    Refused(String),
}

impl ChildError {
    /// Whether nothing was found out: later it may be otherwise.
    fn is_unclear(&self) -> bool {
        matches!(self, Self::NotStarted(_) | Self::Hung(_))
    }

    /// Whether the child did itself harm. Who is short of memory, or stops this program, kills it.
    pub(super) fn is_harm(&self) -> bool {
        let by_others = [Signal::KILL, Signal::TERM, Signal::INT].map(Signal::as_raw);
        match self {
            Self::Hung(_) => true,
            Self::Ended { signal, .. } => !by_others.contains(signal),
            Self::NotStarted(_) | Self::Refused(_) => false,
        }
    }

    /// What is told of a choice that was tried.
    pub(super) fn outcome(&self) -> Outcome {
        match self.is_unclear() {
            true => Outcome::Unclear(self.to_string()),
            false => Outcome::Refused(self.to_string()),
        }
    }
}

impl Program {
    /// This process's own program; `own` of its arguments, its name first, are the agent's.
    pub fn this(own: usize) -> Option<Self> {
        let all: Vec<OsString> = std::env::args_os().collect();
        let others = all.len().checked_sub(own)?;
        let before = all.into_iter().skip(1).take(others).collect();
        let within = Duration::from_secs(CHILD_WITHIN_S);
        Some(Self { file: std::env::current_exe().ok()?, before, within })
    }

    /// The same, which takes this long at most.
    #[must_use]
    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Any program that takes the arguments of `models probe`.
    #[cfg(test)]
    pub(crate) fn at(file: PathBuf) -> Self {
        Self { file, before: Vec::new(), within: Duration::from_secs(CHILD_WITHIN_S) }
    }

    /// Runs `models probe` with these arguments and reads what it reports.
    pub(super) async fn run<T: DeserializeOwned>(
        &self,
        arguments: &[OsString],
        within: Duration,
    ) -> Result<T, ChildError> {
        let mut command = Command::new(&self.file);
        command
            .args(&self.before)
            .args(["--log", "error", "models", "probe"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let not_started = |error: std::io::Error| ChildError::NotStarted(error.to_string());
        let mut child = command.spawn().map_err(not_started)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let all = async { tokio::join!(child.wait(), some_of(out), some_of(err)) };
        let Ok((status, out, err)) = tokio::time::timeout(within, all).await else {
            return Err(ChildError::Hung(within));
        };
        let status = status.map_err(not_started)?;
        // A library may print what it likes beside the report.
        let report = out.lines().find_map(|line| line.strip_prefix(REPORT));
        if let Some(report) = report {
            let read = serde_json::from_str(report);
            return read.map_err(|error| ChildError::Refused(format!("{error}: {report}")));
        }
        let said = match err.find("error: ") {
            Some(at) => err[at + "error: ".len()..].trim(),
            None => err.lines().next().unwrap_or("it said nothing"),
        };
        Err(match status.signal() {
            None => ChildError::Refused(said.to_owned()),
            Some(signal) => ChildError::Ended { signal, status, said: said.to_owned() },
        })
    }

    /// What the library that the configuration means can do.
    ///
    /// # Errors
    /// It cannot be found out now; as a sentence.
    pub async fn look(&self, config: &OnnxRuntimeConfig) -> Result<Looked, String> {
        let mut arguments = vec![OsString::from("library")];
        arguments.extend(config.as_argument());
        match self.run(&arguments, LIBRARY_WITHIN).await {
            Ok(looked) => Ok(looked),
            Err(error) if error.is_unclear() => Err(error.to_string()),
            // Whatever it did to its process, it cannot be used.
            Err(error) => Ok(Looked::Broken(error.to_string())),
        }
    }

    /// Loads a variant on tract. That it can be used is not said: only that trying it does no harm.
    pub(super) async fn load_first(&self, bundle: &Path, variant: &str) -> Result<(), ChildError> {
        let mut arguments: Vec<OsString> = ["load".into(), "--bundle".into(), bundle.into()].into();
        arguments.extend(["--variant", variant].map(OsString::from));
        self.run(&arguments, self.within).await
    }

    /// Measures a choice of a bundle.
    ///
    /// # Errors
    /// The child reports nothing.
    pub async fn probe(
        &self,
        bundle: &Path,
        choice: &Choice,
        config: &OnnxRuntimeConfig,
    ) -> Result<Measured, ChildError> {
        let mut arguments: Vec<OsString> =
            ["choice".into(), "--bundle".into(), bundle.into()].into();
        let threads = choice.threads.to_string();
        let rest =
            ["--variant", &choice.variant, "--runtime", &choice.runtime, "--threads", &threads];
        arguments.extend(rest.map(OsString::from));
        arguments.extend(config.as_argument());
        self.run(&arguments, self.within).await
    }
}

/// The beginning of what a stream says, read to its end.
async fn some_of(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(mut stream) = stream {
        // Half of it is as good as none where the stream breaks.
        (&mut stream).take(MOST_SAID).read_to_end(&mut text).await.ok();
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// What a look at the library found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Looked {
    /// It can be used.
    Found(Found),
    /// There is none.
    Absent,
    /// It cannot be used, for this reason.
    Broken(String),
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

/// Prints what a child has to say to its parent.
pub(crate) fn report(value: &impl Serialize) -> Result<String, serde_json::Error> {
    serde_json::to_string(value).map(|json| format!("{REPORT}{json}"))
}

/// Loads the library; the child's side of [`Program::look`].
pub fn look(config: &OnnxRuntimeConfig) -> Looked {
    become_a_child(NICE);
    let library = match config.open() {
        Ok(library) => library,
        Err(LibraryError::Absent) => return Looked::Absent,
        Err(error) => return Looked::Broken(crate::error_chain(&error)),
    };
    let built_in = Provider::ALL.into_iter().filter(|provider| provider.is_built_in(&library));
    Looked::Found(Found {
        path: library.path().to_owned(),
        version: library.version().map(str::to_owned),
        runtimes: built_in.map(|provider| provider.engine().to_owned()).collect(),
    })
}

/// Loads a variant on tract and checks some of its goldens, whatever comes of it; the child's side of
/// `Program::load_first`.
///
/// # Errors
/// Nothing could be tried; as a sentence.
pub fn load_first(bundle: &Path, variant: &str) -> Result<(), String> {
    // Somebody waits for it: it is no less urgent than this program.
    become_a_child(0);
    let bundle = Bundle::open(bundle).map_err(|error| crate::error_chain(&error))?;
    let variant = variant.to_owned();
    let load = move || {
        let (variant, threads) = (Some(&*variant), NonZeroUsize::MIN);
        let loading = Loading { variant, threads, goldens: Goldens::Quick };
        // Who asked loads it once more, and is told the reason then.
        drop(Model::load_as(&bundle, &Tract, loading));
    };
    let loading = std::thread::Builder::new().stack_size(CHILD_STACK).spawn(load);
    // A panic is caught there too.
    drop(loading.map_err(|error| format!("cannot start a thread: {error}"))?.join());
    Ok(())
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
    become_a_child(NICE);
    limit_memory(&choice.runtime);
    let told = |error: &dyn std::error::Error| crate::error_chain(error);
    let bundle = Bundle::open(bundle).map_err(|error| told(&error))?;
    let samples: Vec<Media> = bundle
        .samples()
        .iter()
        .map(|sample| {
            let bytes = bundle.read(&sample.file).map_err(|error| told(&error))?;
            let media = Media::detect_for(bytes, None, Some(bundle.expects()));
            media.map_err(|error| told(&error))
        })
        .collect::<Result<_, String>>()?;
    // The most that was ever resident counts from here on; the files of the bundle were all read.
    std::fs::write("/proc/self/clear_refs", "5").ok();
    let before = kib_in(STATUS, "VmRSS:");
    let begun = Instant::now();
    let runtime = runtime(&choice.runtime, config)?;
    let (variant, threads) = (Some(&*choice.variant), choice.threads);
    let loading = Loading { variant, threads, goldens: Goldens::All };
    let mut model = Model::load_as(&bundle, &*runtime, loading).map_err(|error| told(&error))?;
    let load_ms = begun.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < MEASURE_FOR || times.len() < LEAST {
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
        peak_kib: match kib_in(STATUS, "VmHWM:").saturating_sub(before) {
            // This system does not tell.
            0 => estimated_kib(&bundle, &choice.variant),
            measured => measured,
        },
        off: model.off(),
        count: times.len() as u64,
    })
}

/// A child that nobody waits for any more ends, is less urgent by this much, is the first to go when
/// memory is short, and leaves no dump of itself. What the kernel does not know of this is missing.
pub(super) fn become_a_child(less_urgent: i32) {
    use rustix::process::{Resource, Rlimit, nice, set_parent_process_death_signal, setrlimit};
    set_parent_process_death_signal(Some(Signal::KILL)).ok();
    nice(less_urgent).ok();
    std::fs::write("/proc/self/oom_score_adj", "1000").ok();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).ok();
}

/// A graph that asks for more than half of the memory that is left is told that there is none, before
/// the kernel looks for somebody to end. What calculates elsewhere reserves more than it uses.
pub(super) fn limit_memory(runtime: &str) {
    if matches!(runtime, "onnxruntime-cuda" | "onnxruntime-tensorrt") {
        return;
    }
    let available = kib_in("/proc/meminfo", "MemAvailable:");
    if available == 0 {
        return;
    }
    let most = (kib_in(STATUS, "VmSize:") + available / 2) << 10;
    let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).ok();
}

const STATUS: &str = "/proc/self/status";

/// The number in a line of a file of the kernel.
fn kib_in(file: &str, line: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let rest = text.lines().find_map(|found| found.strip_prefix(line));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
