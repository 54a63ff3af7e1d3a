//! `holdfast-agent models add`: a plain ONNX file becomes a bundle, as far as the file tells.
//!
//! **Invariant:** under the bundle's name there is nothing, or a whole folder; nothing that is there
//! already is changed; and no runtime is given the file in this process.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use holdfast_models::Media;
use holdfast_models::bundle::{GOLDEN_FILE, MediaKind};
use holdfast_models::inspect::{
    Draft, DraftOutput, Hints, Inspected, Kind, Note, Source, Texts, inspect,
};
use holdfast_models::runtime::TensorSpec;
use holdfast_models::runtime::onnx_runtime::Provider;
use serde::Serialize;

use super::golden::Maker;
use super::itself;
use super::staging::Staging;
use crate::cli::{ConfigArgs, Exit, Failure, output};
use crate::clock;
use crate::config::Config;
use crate::request::TaskName;
use crate::tune::candidates::TRACT;
use crate::tune::graph::{Tensors, Trial};
use crate::tune::probe::Program;

/// Largest ONNX file that is taken, in bytes, as in a bundle.
const MAX_ONNX_BYTES: u64 = 1 << 30;
/// Largest sample and list of labels, in bytes.
const MAX_OTHER_BYTES: u64 = 64 << 20;
/// The name of the ONNX file in the bundle.
const ONNX: &str = "model.onnx";
/// How far an output may be off, relative to the largest value of the golden outputs.
const OFF: f32 = 1e-3;
const OFF_QUANTISED: f32 = 0.1;
/// The most that a bundle may say.
const MAX_TOLERANCE: f32 = 100.0;

#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    /// The ONNX file
    file: PathBuf,
    /// Folder to write, which is not there yet [default: the name, beside the configured bundles]
    #[arg(long)]
    to: Option<PathBuf>,
    /// The task that the bundle answers [default: the name]
    #[arg(long)]
    task: Option<String>,
    /// The bundle's name: a-z, 0-9 and - [default: made of the file's name]
    #[arg(long)]
    name: Option<String>,
    /// Text file of one label a line, in the order of the output
    #[arg(long)]
    labels: Option<PathBuf>,
    /// A recording, picture or file of numbers; what the model gives for it becomes the golden output
    #[arg(long)]
    sample: Option<PathBuf>,
    /// The right label of the sample [default: what the model says]
    #[arg(long, requires = "sample")]
    label: Option<String>,
    /// A shape that the file leaves open, such as input=1,576
    #[arg(long, value_name = "NAME=DIMS", value_parser = shape_of)]
    shape: Vec<(String, Vec<usize>)>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// What was written.
#[derive(Debug, Serialize)]
struct Added {
    bundle: PathBuf,
    name: String,
    task: String,
    kind: &'static str,
    /// Whether it can be served as it is, with the runtime that answered its sample.
    serves: bool,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Each runtime that was tried, and why it cannot run the model.
    runtimes: Vec<OnRuntime>,
    /// What the model says to the sample.
    answer: Option<String>,
    /// What only a person can know.
    to_write: Vec<String>,
    /// What was guessed.
    guessed: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OnRuntime {
    runtime: &'static str,
    problem: Option<String>,
}

/// A sample file: its name in the bundle and its bytes.
struct Sample {
    file: String,
    bytes: Vec<u8>,
}

/// What is known before any runtime is asked.
struct Plan {
    draft: Draft,
    texts: Texts,
    to: PathBuf,
    sample: Option<Sample>,
    /// What kind of file the sample is, where its bytes tell.
    kind: Option<MediaKind>,
}

pub(super) fn add(args: &AddArgs, program: Option<Program>) -> Result<Exit, Failure> {
    let config = args.config.load()?;
    let program = itself(program)?;
    let (file, onnx) = inspected(&args.file)?;
    let Plan { draft, mut texts, to, sample, kind } = plan(args, &config, &file)?;
    let runtime = crate::cli::runtime()?;
    let mut staging = Staging::new(&to)?;
    staging.file(ONNX, &onnx)?;
    let tried = try_all(&runtime, &program, &staging.folder().join(ONNX), &draft, &config);
    let runs = tried.iter().find(|(_, tried)| *tried == Trial::Runs).map(|(name, _)| *name);
    if runs.is_none() && !may_run_elsewhere(&tried) {
        let whys: Vec<&str> = tried.iter().filter_map(|(_, tried)| tried.problem()).collect();
        let sentence = format!("{} refused: {}", args.file.display(), whys.join("; "));
        return Err(Failure::new(Exit::Found, sentence));
    }
    if let Some(sample) = &sample {
        put_sample(&mut staging, (&draft, &mut texts), (sample, args.label.as_deref()))?;
    }
    staging.manifest(&draft, &texts)?;
    let is_answered = sample.is_some() && !kind.is_some_and(|kind| is_of_features(&draft, kind));
    let answer = match runs.filter(|_| is_answered) {
        Some(name) => {
            let names = [name];
            let maker =
                Maker { program: &program, config: &config, runtime: &runtime, names: &names };
            Some(answer(&mut staging, (&draft, &mut texts), &maker, args.label.as_deref())?)
        }
        None => None,
    };
    staging.put(&to)?;
    let added = told(to, texts, &draft, tried, (sample.is_some(), answer));
    match args.json {
        true => output::print_json(&added)?,
        false => show(&added)?,
    }
    Ok(Exit::Fine)
}

/// What the file and the arguments make of each other.
fn plan(args: &AddArgs, config: &Config, file: &Inspected) -> Result<Plan, Failure> {
    let sample = args.sample.as_deref().map(read_sample).transpose()?;
    let kind = sample.as_ref().and_then(kind_of);
    let hints = Hints {
        labels: args.labels.as_deref().map(read_labels).transpose()?,
        sample: kind,
        shapes: args.shape.iter().cloned().collect::<BTreeMap<_, _>>(),
    };
    known_shapes(file, &hints)?;
    let draft = Draft::of(file, &hints)
        .map_err(|error| Failure::new(Exit::Usage, crate::error_chain(&error)))?;
    let name = name_of(args)?;
    let task = args.task.clone().unwrap_or_else(|| name.clone());
    if TaskName::parse(&task).is_none() {
        return Err(Failure::new(Exit::Usage, format!("\"{task}\" is not a task name")));
    }
    let to = args.to.clone().unwrap_or_else(|| beside(&config.models.bundles).join(&name));
    if fs::symlink_metadata(&to).is_ok() {
        let sentence = format!("{} is there already; name another folder with --to", to.display());
        return Err(Failure::new(Exit::Storage, sentence));
    }
    let texts = Texts {
        description: format!("{name}, from {}", shown(&args.file)),
        name,
        task,
        trained_by: if file.producer.is_empty() { "unknown" } else { &file.producer }.to_owned(),
        date: today(),
        onnx: (ONNX.to_owned(), is_quantised(file)),
        tolerance: if is_quantised(file) { OFF_QUANTISED } else { OFF },
        sample: None,
        files: Vec::new(),
    };
    Ok(Plan { draft, texts, to, sample, kind })
}

/// The file's bytes, and what they say.
fn inspected(path: &Path) -> Result<(Inspected, Vec<u8>), Failure> {
    let onnx = read(path, MAX_ONNX_BYTES)?;
    let file = inspect(&onnx).map_err(|error| {
        let why = crate::error_chain(&error);
        Failure::new(Exit::Found, format!("{} refused: {why}", path.display()))
    })?;
    Ok((file, onnx))
}

/// What there is to say in the end.
fn told(
    bundle: PathBuf,
    texts: Texts,
    draft: &Draft,
    tried: Vec<(&'static str, Trial)>,
    (has_sample, answer): (bool, Option<String>),
) -> Added {
    let sentence = |note: &Note| format!("{}: {}", note.key, note.what);
    let part = |is_missing: bool| -> Vec<String> {
        draft.notes.iter().filter(|note| note.is_missing == is_missing).map(sentence).collect()
    };
    let mut to_write = part(true);
    if answer.is_none() {
        let golden = format!("`holdfast-agent models golden {}`", bundle.display());
        to_write.insert(0, match has_sample {
            true => format!("its golden outputs, without which it is not served: when the rest is written, {golden}"),
            false => format!("a sample with its golden outputs, without which it is not served: --sample, or a [[sample]] with its [[file]], and then {golden}"),
        });
    }
    Added {
        serves: answer.is_some(),
        bundle,
        name: texts.name,
        task: texts.task,
        kind: draft.kind.name(),
        inputs: draft.inputs.iter().map(|input| input.tensor.to_string()).collect(),
        outputs: draft.outputs.iter().map(ToString::to_string).collect(),
        runtimes: tried
            .into_iter()
            .map(|(runtime, tried)| OnRuntime {
                runtime,
                problem: tried.problem().map(str::to_owned),
            })
            .collect(),
        answer,
        to_write,
        guessed: part(false),
    }
}

/// Whether the graph takes numbers, of which nobody said yet how they are made of such a file.
fn is_of_features(draft: &Draft, sample: MediaKind) -> bool {
    let is_made = matches!(sample, MediaKind::Audio | MediaKind::Image);
    is_made && draft.inputs.iter().any(|input| matches!(input.source, Source::Numbers))
}

/// Writes the sample, with a label that the manifest takes; the model may say another one.
fn put_sample(
    staging: &mut Staging,
    (draft, texts): (&Draft, &mut Texts),
    (sample, label): (&Sample, Option<&str>),
) -> Result<(), Failure> {
    let file = format!("samples/{}", sample.file);
    staging.file(&file, &sample.bytes)?;
    let is_labelled = matches!(draft.kind, Kind::Classification(_));
    let first = draft.labels.first().filter(|_| is_labelled).cloned();
    texts.sample = Some((file, label.map(str::to_owned).or(first)));
    Ok(())
}

/// Has the sample answered, writes what came out as the golden output, and says what it means.
fn answer(
    staging: &mut Staging,
    (draft, texts): (&Draft, &mut Texts),
    maker: &Maker<'_>,
    label: Option<&str>,
) -> Result<String, Failure> {
    let refused =
        |why: String| Failure::new(Exit::Found, format!("the sample has no golden output: {why}"));
    let bundle = staging.open_unproven()?;
    let variant = bundle.variants().first().cloned();
    let variant = variant.ok_or_else(|| refused("there is no variant".to_owned()))?;
    let (runtime, answers) =
        maker.make(staging.folder(), &bundle, &variant, staging).map_err(refused)?;
    let golden = staging.take_aside()?;
    staging.file(GOLDEN_FILE, &golden)?;
    staging.manifest(draft, texts)?;
    let bundle = staging.open()?;
    let values = bundle
        .goldens()
        .iter()
        .flat_map(|golden| golden.output.iter().chain(golden.others.values().flatten()));
    let largest = values.fold(1.0f32, |most, x| most.max(x.abs()));
    texts.tolerance = (texts.tolerance * largest).min(MAX_TOLERANCE);
    let said = answers.into_iter().next().ok_or_else(|| refused("it has none".to_owned()))?;
    if let (Some((_, right)), Some(best), None) = (&mut texts.sample, said.label, label) {
        *right = Some(best);
    }
    staging.manifest(draft, texts)?;
    maker
        .check(staging.folder(), &variant, &runtime)
        .map_err(|why| Failure::new(Exit::Found, why))?;
    Ok(said.says)
}

/// What becomes of the graph on each runtime, up to the first that runs it.
fn try_all(
    runtime: &tokio::runtime::Runtime,
    program: &Program,
    onnx: &Path,
    draft: &Draft,
    config: &Config,
) -> Vec<(&'static str, Trial)> {
    let spec = |tensor: &DraftOutput| TensorSpec {
        free_batch: tensor.free_batch,
        ..TensorSpec::pinned(&*tensor.name, tensor.dtype, &tensor.shape)
    };
    let carried = draft.states.iter();
    let taken =
        carried.clone().map(|(name, _, dtype, shape)| TensorSpec::pinned(name, *dtype, shape));
    let given = carried.map(|(_, name, dtype, shape)| TensorSpec::pinned(name, *dtype, shape));
    let inputs: Vec<_> =
        draft.inputs.iter().map(|input| spec(&input.tensor)).chain(taken).collect();
    let outputs: Vec<_> = draft.outputs.iter().map(spec).chain(given).collect();
    let tensors = Tensors::of(&inputs, &outputs);
    let mut all = Vec::new();
    for name in [TRACT, Provider::Cpu.engine()] {
        let tried = program.try_graph(onnx, &tensors, name, &config.models.onnxruntime);
        let tried = runtime.block_on(tried);
        let runs = tried == Trial::Runs;
        all.push((name, tried));
        if runs {
            break;
        }
    }
    all
}

/// Whether a runtime that is not here may have what those that are here lack.
fn may_run_elsewhere(tried: &[(&str, Trial)]) -> bool {
    let mut is_one_missing = false;
    tried.iter().all(|(_, tried)| match tried {
        Trial::NotHere(_) => {
            is_one_missing = true;
            true
        }
        Trial::Lacks(_) => true,
        Trial::Runs | Trial::Refused(_) => false,
    }) && is_one_missing
}

fn is_quantised(file: &Inspected) -> bool {
    let is_one = |name: &str| name.starts_with("QLinear") || name == "QuantizeLinear";
    file.operators.iter().any(|operator| is_one(&operator.name))
}

/// Shapes are given for tensors that there are.
fn known_shapes(file: &Inspected, hints: &Hints) -> Result<(), Failure> {
    let known = || file.inputs.iter().chain(&file.outputs).map(|port| &*port.name);
    match hints.shapes.keys().find(|name| !known().any(|port| port == *name)) {
        None => Ok(()),
        Some(name) => {
            let all: Vec<&str> = known().collect();
            let sentence = format!("--shape {name}: the file has {}", all.join(", "));
            Err(Failure::new(Exit::Usage, sentence))
        }
    }
}

/// The name that was given, or the file's without what a name may not have.
fn name_of(args: &AddArgs) -> Result<String, Failure> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if let Some(name) = &args.name {
        let is_name = (1..=64).contains(&name.len()) && name.chars().all(is_allowed);
        let sentence = || format!("--name \"{name}\": must be 1 to 64 of a-z, 0-9 and -");
        return is_name.then(|| name.clone()).ok_or_else(|| Failure::new(Exit::Usage, sentence()));
    }
    let stem = args.file.file_stem().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let dashed = stem.replace(|c: char| !is_allowed(c), "-");
    let parts: Vec<&str> = dashed.split('-').filter(|part| !part.is_empty()).collect();
    let name: String = parts.join("-").chars().take(64).collect();
    let sentence = || format!("{} gives no name; give one with --name", args.file.display());
    (!name.is_empty()).then_some(name).ok_or_else(|| Failure::new(Exit::Usage, sentence()))
}

/// Where the configured bundles lie.
fn beside(places: &[PathBuf]) -> PathBuf {
    let is_bundle = |place: &Path| place.join("bundle.toml").is_file();
    let folder = places.iter().find(|place| !is_bundle(place)).cloned();
    let parent = || places.first().and_then(|place| place.parent()).map(Path::to_owned);
    folder.or_else(parent).unwrap_or_default()
}

fn shown(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn today() -> String {
    let seconds = i64::try_from(clock::date_ms() / 1000).unwrap_or_default();
    let date = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    date.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn shape_of(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, dims) = text.rsplit_once('=').ok_or("must be NAME=1,2,3")?;
    let dims: Option<Vec<usize>> =
        dims.split(',').map(|dim| dim.trim().parse().ok().filter(|size| *size > 0)).collect();
    let size =
        dims.as_ref().and_then(|dims| dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)));
    match (dims, size) {
        (Some(dims), Some(1..=16_777_216)) if dims.len() <= 6 => Ok((name.to_owned(), dims)),
        _ => {
            Err("must be up to 6 whole numbers from 1, at most 16777216 elements in all".to_owned())
        }
    }
}

/// The bytes of a regular file of at most so many.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let told = |exit, why: String| Failure::new(exit, format!("{}: {why}", path.display()));
    let unreadable =
        |error: std::io::Error| told(Exit::Unavailable, format!("cannot read it: {error}"));
    let file = fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(told(Exit::Usage, "is not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() as u64 > most {
        true => Err(told(Exit::Found, format!("is larger than {most} bytes"))),
        false => Ok(bytes),
    }
}

fn read_labels(path: &Path) -> Result<Vec<String>, Failure> {
    let text = String::from_utf8(read(path, MAX_OTHER_BYTES)?);
    let text = text
        .map_err(|_| Failure::new(Exit::Found, format!("{}: is not UTF-8 text", path.display())))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

fn read_sample(path: &Path) -> Result<Sample, Failure> {
    let bytes = read(path, MAX_OTHER_BYTES)?;
    // In the bundle's letters.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = shown(path).replace(|c: char| !is_allowed(c), "-");
    let name = name.trim_start_matches('.');
    Ok(Sample { file: if name.is_empty() { "sample" } else { name }.to_owned(), bytes })
}

/// What kind of file the sample is, where its bytes tell.
fn kind_of(sample: &Sample) -> Option<MediaKind> {
    Media::detect(sample.bytes.clone(), None).ok().map(|media| media.media_type().kind())
}

fn show(added: &Added) -> Result<(), Failure> {
    let mut text = format!("wrote {}", added.bundle.display());
    let mut list = |header: &str, lines: &[String]| {
        if !lines.is_empty() {
            text += &format!("\n\n{header}");
            lines.iter().for_each(|line| text += &format!("\n  {line}"));
        }
    };
    list("takes", &added.inputs);
    list("gives", &added.outputs);
    let runtimes: Vec<String> = added
        .runtimes
        .iter()
        .map(|tried| match &tried.problem {
            None => format!("{}: runs it", tried.runtime),
            Some(why) => format!("{}: {why}", tried.runtime),
        })
        .collect();
    list("runtimes", &runtimes);
    list("guessed, look at it", &added.guessed);
    list("to be written by a person", &added.to_write);
    let last = match &added.answer {
        Some(said) => format!(
            "it can be served: holdfast-agent infer {} FILE --bundles {}\nto the sample it says: {said}",
            added.task,
            added.bundle.display()
        ),
        None => "it cannot be served yet: see what is to be written".to_owned(),
    };
    text += &format!("\n\n{last}");
    output::print(&text)
}
