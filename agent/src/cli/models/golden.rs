//! `holdfast-agent models golden`: the golden outputs of a bundle, made anew from its samples.
//!
//! **Invariant:** the folder is as it was, or whole with its new goldens; nothing else in it changes but
//! the line of `bundle.toml` that has their hash.

use std::path::{Path, PathBuf};

use holdfast_models::Variant;
use holdfast_models::bundle::{GOLDEN_FILE, Golden, MANIFEST, Unproven, relisted};
use holdfast_models::runtime::onnx_runtime::Provider;
use serde::Serialize;

use super::itself;
use super::staging::Staging;
use crate::cli::{ConfigArgs, Exit, Failure, output, table};
use crate::config::Config;
use crate::tune::candidates::TRACT;
use crate::tune::choice::Choice;
use crate::tune::graph::SampleAnswer;
use crate::tune::probe::Program;

#[derive(Debug, clap::Args)]
pub(super) struct GoldenArgs {
    /// The bundle's folder
    bundle: PathBuf,
    /// The runtime that makes them [default: onnxruntime where it is there and runs the variant, else
    /// tract]
    #[arg(long)]
    runtime: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// What was made.
#[derive(Debug, Serialize)]
struct Made {
    bundle: PathBuf,
    name: String,
    goldens: Vec<MadeGolden>,
    /// Those that were there and are no more: variant and sample.
    dropped: Vec<(String, String)>,
}

/// One golden output.
#[derive(Debug, Serialize)]
struct MadeGolden {
    variant: String,
    sample: String,
    /// What made it.
    runtime: String,
    /// The largest difference of a value from the golden that was there; nothing where none was, or one
    /// of other sizes.
    off: Option<f32>,
    /// How far off an output of this variant may be.
    tolerance: f32,
    /// What the model says to the sample.
    says: String,
    /// What the bundle says that it is.
    label: Option<String>,
}

pub(super) fn golden(args: &GoldenArgs, program: Option<Program>) -> Result<Exit, Failure> {
    let config = args.config.load()?;
    let program = itself(program)?;
    let dir = args.bundle.canonicalize().map_err(|error| {
        let sentence = format!("{}: {error}; name a bundle's folder", args.bundle.display());
        Failure::new(Exit::Unavailable, sentence)
    })?;
    let refused = |why: String| Failure::new(Exit::Found, format!("{}: {why}", dir.display()));
    let before = Unproven::open(&dir)
        .map_err(|error| Failure::new(Exit::Found, crate::error_chain(&error)))?;
    let manifest = std::fs::read_to_string(dir.join(MANIFEST))
        .map_err(|error| refused(format!("cannot read {MANIFEST}: {error}")))?;
    let mut staging = Staging::of(&dir, &[MANIFEST, GOLDEN_FILE])?;
    let runtime = crate::cli::runtime()?;
    let names = runtimes(args.runtime.as_deref())?;
    let maker = Maker { program: &program, config: &config, runtime: &runtime, names: &names };
    let (mut text, mut made) = (Vec::new(), Vec::new());
    for variant in before.variants() {
        let (name, answers) = maker.make(&dir, &before, variant, &staging).map_err(refused)?;
        text.extend(format!("# Made by `holdfast-agent models golden` on {name}.\n").into_bytes());
        text.extend(staging.take_aside()?);
        made.extend(answers.into_iter().map(|answer| (variant, name.clone(), answer)));
    }
    staging.file(GOLDEN_FILE, &text)?;
    let listed = relisted(&manifest, GOLDEN_FILE, &text).ok_or_else(|| {
        let how = "write its [[file]] as a table of its own, with path, bytes and sha256 in lines";
        refused(format!(
            "{MANIFEST} lists {GOLDEN_FILE} in a way that cannot be brought up to date: {how}"
        ))
    })?;
    staging.text(&listed)?;
    let after = staging.open()?;
    for variant in before.variants() {
        let name = made.iter().find(|(own, ..)| own.name == variant.name).map(|(_, name, _)| name);
        maker
            .check(staging.folder(), variant, name.map_or(TRACT, String::as_str))
            .map_err(refused)?;
    }
    let told = Made {
        name: before.name().to_owned(),
        goldens: made.into_iter().map(|made| told(made, &before, after.goldens())).collect(),
        dropped: dropped(before.before(), after.goldens()),
        bundle: dir.clone(),
    };
    staging.swap(&dir)?;
    match args.json {
        true => output::print_json(&told)?,
        false => show(&told)?,
    }
    Ok(Exit::Fine)
}

/// The runtimes that are tried, in their order.
fn runtimes(wanted: Option<&str>) -> Result<Vec<&str>, Failure> {
    let known = std::iter::once(TRACT).chain(Provider::ALL.map(Provider::engine));
    match wanted {
        None => Ok(vec![Provider::Cpu.engine(), TRACT]),
        Some(name) if known.clone().any(|known| known == name) => Ok(vec![name]),
        Some(name) => {
            let known: Vec<&str> = known.collect();
            let sentence = format!("--runtime {name}: must be one of {}", known.join(", "));
            Err(Failure::new(Exit::Usage, sentence))
        }
    }
}

/// What goldens are made with.
pub(super) struct Maker<'a> {
    pub(super) program: &'a Program,
    pub(super) config: &'a Config,
    pub(super) runtime: &'a tokio::runtime::Runtime,
    /// The runtimes that may make them, in the order in which they are tried.
    pub(super) names: &'a [&'a str],
}

impl Maker<'_> {
    /// Has the goldens of a variant put aside, and says which runtime made them.
    pub(super) fn make(
        &self,
        dir: &Path,
        bundle: &Unproven,
        variant: &Variant,
        staging: &Staging,
    ) -> Result<(String, Vec<SampleAnswer>), String> {
        let mut whys = Vec::new();
        let (samples, config) = (bundle.samples().len(), &self.config.models.onnxruntime);
        for name in self.names {
            let pair = (&*variant.name, *name);
            let to = staging.aside();
            let made = self.program.make_goldens(dir, samples, pair, config, &to);
            match self.runtime.block_on(made) {
                Ok(answers) => return Ok(((*name).to_owned(), answers)),
                Err(why) => whys.push(format!("{name}: {why}")),
            }
        }
        let name = &variant.name;
        Err(format!(
            "variant {name} has no golden outputs, nothing is changed: {}",
            whys.join("; ")
        ))
    }

    /// Whether a variant goes into service with the goldens that the bundle in a folder has now.
    pub(super) fn check(&self, dir: &Path, variant: &Variant, runtime: &str) -> Result<(), String> {
        let threads = std::num::NonZeroUsize::MIN;
        let (variant, runtime) = (variant.name.clone(), runtime.to_owned());
        let choice = Choice { variant, runtime, threads };
        let tried = self.program.probe(dir, &choice, &self.config.models.onnxruntime);
        self.runtime.block_on(tried).map(drop).map_err(|error| error.to_string())
    }
}

fn told(
    (variant, runtime, answer): (&Variant, String, SampleAnswer),
    before: &Unproven,
    after: &[Golden],
) -> MadeGolden {
    let is_it = |golden: &&Golden| golden.variant == variant.name && golden.sample == answer.sample;
    let (was, is) = (before.before().iter().find(is_it), after.iter().find(is_it));
    let sample = before.samples().iter().find(|sample| sample.file == answer.sample);
    MadeGolden {
        variant: variant.name.clone(),
        runtime,
        off: was.zip(is).and_then(|(was, is)| is.off_from(was)),
        tolerance: variant.tolerance,
        says: answer.says,
        label: sample.and_then(|sample| sample.label.clone()),
        sample: answer.sample,
    }
}

fn dropped(before: &[Golden], after: &[Golden]) -> Vec<(String, String)> {
    let is_there =
        |was: &&Golden| after.iter().any(|is| is.variant == was.variant && is.sample == was.sample);
    let gone = before.iter().filter(|was| !is_there(was));
    gone.map(|was| (was.variant.clone(), was.sample.clone())).collect()
}

fn show(made: &Made) -> Result<(), Failure> {
    let mut table = table::table(&["VARIANT", "SAMPLE", "RUNTIME", "CHANGED BY", "SAYS", "LABEL"]);
    for golden in &made.goldens {
        let off = match golden.off {
            None => "new".to_owned(),
            Some(off) if off > golden.tolerance => {
                format!("{off:.1e}, over the tolerance of {:.1e}", golden.tolerance)
            }
            Some(off) => format!("{off:.1e}"),
        };
        let label = golden.label.as_deref().unwrap_or("-");
        let says = &*golden.says;
        table.add_row([&*golden.variant, &golden.sample, &golden.runtime, &off, says, label]);
    }
    output::print(&table::lines(&table))?;
    for (variant, sample) in &made.dropped {
        output::print(&format!("dropped: {variant} {sample}, which is no [[sample]]"))?;
    }
    output::print(&format!(
        "wrote {}, and its hash in {MANIFEST}; a running agent takes it with `models load {}`",
        made.bundle.join(GOLDEN_FILE).display(),
        made.name
    ))
}
