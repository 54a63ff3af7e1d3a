//! Models in process, without a server in between: from Python as others would, and as the agent does.
//!
//! Both are processes of their own, which take a line `NAME SECONDS` and give the figures of that time.
//!
//! **Invariant:** a run that is counted is one thread's, from an input in memory to its outputs.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Context, ensure};
use holdfast_models::runtime::Graph;
use holdfast_models::runtime::onnx_runtime::Provider;
use holdfast_models::{Library, OnnxRuntime, Runtime, Tensor};

use super::load::Figures;
use super::models;
use crate::clock::{now, timed};

/// A process that runs models.
pub(crate) struct Bare {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Drop for Bare {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is over.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Bare {
    /// Starts a command and waits until it is ready.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let (to, from) = to.zip(from).context("a process without pipes")?;
        let mut bare = Self { child, to, from: BufReader::new(from) };
        let line = bare.line()?;
        ensure!(line.trim() == "ready", "a process said {line:?}, not that it is ready");
        Ok(bare)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it run a model; [`Bare::end`] waits until that is over.
    pub(crate) fn begin(&mut self, model: &str, time: Duration) -> anyhow::Result<()> {
        writeln!(self.to, "{model} {}", time.as_secs_f64())?;
        Ok(self.to.flush()?)
    }

    /// What came of it.
    pub(crate) fn end(&mut self) -> anyhow::Result<Figures> {
        let line = self.line()?;
        let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        match numbers.with_context(|| line.clone())?[..] {
            [p50, p99, rate] => Ok(Figures { p50, p99, rate }),
            _ => anyhow::bail!("figures were expected, not {line:?}"),
        }
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a process that runs models ended");
        Ok(line)
    }
}

/// This program's own part of it.
#[derive(clap::Args)]
pub(crate) struct Part {
    /// The folder of models
    files: PathBuf,
    /// The libonnxruntime
    library: PathBuf,
}

/// Runs models in this process as it is told on its input.
pub(crate) fn run_part(part: &Part) -> anyhow::Result<()> {
    let runtime = OnnxRuntime::new(Library::open(Some(&part.library))?, Provider::Cpu);
    let mut loaded = Vec::new();
    for model in models::all() {
        loaded.push((model.name, Loaded::new(&model, &part.files, &runtime)?));
    }
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        let (name, seconds) = line.split_once(' ').context("NAME SECONDS was expected")?;
        let model = loaded.iter_mut().find(|(own, _)| *own == name);
        let (_, model) = model.with_context(|| format!("there is no model {name}"))?;
        let Figures { p50, p99, rate } = model.run(Duration::from_secs_f64(seconds.parse()?))?;
        println!("{p50} {p99} {rate}");
    }
    Ok(())
}

struct Loaded {
    session: Box<dyn holdfast_models::Session>,
    given: [Tensor; 1],
    got: [Tensor; 1],
}

impl Loaded {
    fn new(model: &models::Model, files: &Path, runtime: &OnnxRuntime) -> anyhow::Result<Self> {
        let onnx = std::fs::read(files.join(format!("{}.onnx", model.name)))?;
        let (inputs, outputs) = (from_ref(&model.input), from_ref(&model.output));
        let graph = Graph { onnx: &onnx, inputs, outputs };
        let session = runtime.load(&graph, NonZeroUsize::MIN)?;
        let got = [Tensor::zeros(&model.output.shape, model.output.dtype)];
        Ok(Self { session, given: [model.tensor()?], got })
    }

    fn run(&mut self, time: Duration) -> anyhow::Result<Figures> {
        let mut times = Vec::new();
        self.session.run(&self.given, &mut self.got)?;
        let start = now();
        while start.elapsed() < time {
            let (took, ran) = timed(|| self.session.run(&self.given, &mut self.got));
            ran?;
            times.push(took);
        }
        Ok(Figures::of(&times, start.elapsed()))
    }
}
