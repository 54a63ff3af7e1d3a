//! `holdfast-agent infer`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_models::Media;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::annotated::{self, Drawing};
use super::{ConfigArgs, Exit, Failure, Places, output, table};
use crate::answer::Class;
use crate::engine::{Engine, Lane, Terms};
use crate::outcome::{Outcome, Recorded};
use crate::request::{Priority, TaskName};
use crate::tune::Tuning;
use crate::tune::probe::Program;

#[derive(Debug, clap::Args)]
pub(super) struct InferArgs {
    /// The task, such as voice-commands
    task: String,
    /// Recordings, pictures, texts, or numbers as JSON, CSV, NPY or raw elements
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Folder of bundles, instead of the configured ones
    #[arg(long)]
    bundles: Vec<PathBuf>,
    /// Variant of the bundle, such as int8 or fp32
    #[arg(long)]
    variant: Option<String>,
    /// Draw the answer on the picture, into this file: .png, .jpg or .jpeg
    #[arg(long, value_name = "PICTURE", value_parser = Drawing::parse)]
    annotate: Option<Drawing>,
    /// Print a JSON array instead of a table
    #[arg(long)]
    json: bool,
}

/// What became of one file.
#[derive(Debug, Serialize)]
struct Row {
    file: PathBuf,
    #[serde(flatten)]
    outcome: FileAnswer,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum FileAnswer {
    Answered {
        #[serde(flatten)]
        answer: Box<Told>,
        /// Whether that is enough; nothing for kinds that tell no confidence.
        #[serde(skip_serializing_if = "Option::is_none")]
        sure: Option<bool>,
    },
    Failed {
        error: String,
    },
}

/// What the file is, as the task sees it.
#[derive(Debug, Serialize)]
struct Told {
    label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<f32>,
    took_ms: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    classes: Vec<Class>,
    #[serde(flatten)]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded: Option<Recorded>,
}

/// A file that takes longer than this is stuck.
const WITHIN: Duration = Duration::from_secs(60);
/// As much as the API takes at most.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// A bar is worth its lines from this many files on.
const BAR_FROM: usize = 20;

pub(super) fn infer(args: &InferArgs, program: Option<Program>) -> Result<Exit, Failure> {
    let mut config = args.config.load()?;
    if !args.bundles.is_empty() {
        config.models.bundles.clone_from(&args.bundles);
    }
    if args.variant.is_some() {
        config.models.pins.variant.clone_from(&args.variant);
    }
    if args.annotate.is_some() && args.files.len() != 1 {
        let sentence = format!("--annotate takes one picture, {} were given", args.files.len());
        return Err(Failure::new(Exit::Usage, sentence));
    }
    let task = TaskName::parse(&args.task).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("\"{}\" is not a task name", args.task))
    })?;
    let runtime = super::runtime()?;
    let rows = runtime.block_on(async {
        let tuning = Arc::new(Tuning::open(program, &config.state_dir));
        let engine = Engine::start(&config.models, &tuning).await;
        if engine.lane(&task).is_none() {
            engine.try_untried().await;
        }
        let lane =
            engine.lane(&task).ok_or_else(|| no_model(&engine, &task, &config.models.bundles))?;
        check_variant(&lane, args.variant.as_deref())?;
        let rows = answer_all(&engine, &lane, args).await;
        match lane.bundle().decoder().threshold() {
            _ if args.json => {}
            Some(threshold) => eprintln!("{}, sure from {threshold:.2}", lane.model()),
            None => eprintln!("{}, which tells no confidence", lane.model()),
        }
        Ok::<_, Failure>(rows)
    })?;
    print(&rows, args.json)?;
    let failed = rows.iter().any(|row| matches!(row.outcome, FileAnswer::Failed { .. }));
    Ok(if failed { Exit::Found } else { Exit::Fine })
}

fn no_model(engine: &Engine, task: &TaskName, places: &[PathBuf]) -> Failure {
    let mut sentence = format!("no usable bundle does task {task}");
    let lanes = engine.lanes();
    let known: Vec<_> = lanes.iter().map(|lane| lane.task().as_str()).collect();
    if !known.is_empty() {
        sentence += &format!("; there are bundles for {}", known.join(", "));
    }
    for refused in engine.refused().iter().filter(|refused| !refused.is_spare) {
        sentence += &format!("\n  {} was refused: {}", refused.path.display(), refused.why);
    }
    sentence += &format!("\n  looked in {}; name others with --bundles DIR", Places(places));
    Failure::new(Exit::Unavailable, sentence)
}

fn check_variant(lane: &Lane, wanted: Option<&str>) -> Result<(), Failure> {
    match wanted {
        Some(wanted) if wanted != lane.choice().variant => Err(Failure::new(
            Exit::Unavailable,
            format!(
                "{} has no variant \"{wanted}\"; it has {}",
                lane.name(),
                lane.variants().join(", ")
            ),
        )),
        _ => Ok(()),
    }
}

async fn answer_all(engine: &Engine, lane: &Lane, args: &InferArgs) -> Vec<Row> {
    let (files, drawn) = (&args.files, args.annotate.as_ref());
    let bar = if files.len() >= BAR_FROM && std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} files, {eta} left");
        let bar = ProgressBar::new(files.len() as u64);
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar
    } else {
        ProgressBar::hidden()
    };
    let mut rows = Vec::with_capacity(files.len());
    for file in files {
        rows.push(Row { file: file.clone(), outcome: answer(engine, lane, file, drawn).await });
        bar.inc(1);
    }
    bar.finish_and_clear();
    rows
}

/// Answers one file, and draws the answer on it where that is asked for.
async fn answer(engine: &Engine, lane: &Lane, file: &Path, drawn: Option<&Drawing>) -> FileAnswer {
    let failed = |error: String| FileAnswer::Failed { error };
    let bytes = match read(file).await {
        Ok(bytes) => bytes,
        Err(why) => return failed(why),
    };
    let said = content_type(file);
    let media = match Media::detect_for(Bytes::from(bytes), said, Some(lane.expects())) {
        Ok(media) => media,
        Err(error) => return failed(crate::error_chain(&error)),
    };
    let terms = Terms { priority: Priority::default(), within: WITHIN };
    let local = match engine.infer(lane.task(), &media, terms).await {
        Ok(local) => local,
        Err(error) => return failed(error.to_string()),
    };
    if let Some(Err(why)) = drawn.map(|to| annotated::write(&media, &local.answer, to)) {
        return failed(why);
    }
    FileAnswer::Answered {
        sure: local.answer.confidence.map(|confidence| confidence >= local.threshold),
        answer: Box::new(Told {
            label: local.answer.label,
            confidence: local.answer.confidence,
            took_ms: local.answer.took_ms,
            classes: local.answer.classes,
            outcome: local.answer.outcome,
            recorded: local.answer.recorded,
        }),
    }
}

/// What a file's name says of those that have no mark in their first bytes.
fn content_type(file: &Path) -> Option<&'static str> {
    let extension = file.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "json" => Some("application/json"),
        "csv" => Some("text/csv"),
        "txt" => Some("text/plain"),
        "bin" | "raw" | "f32" => Some("application/octet-stream"),
        _ => None,
    }
}

/// The bytes of a regular file that is not too large to be an input.
async fn read(file: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read it: {error}");
    let metadata = tokio::fs::metadata(file).await.map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a file; give a recording, a picture, a text or numbers".to_owned());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("has {} bytes, at most {MAX_FILE_BYTES} are taken", metadata.len()));
    }
    tokio::fs::read(file).await.map_err(unreadable)
}

fn print(rows: &[Row], json: bool) -> Result<(), Failure> {
    if json {
        return output::print_json(&rows);
    }
    let mut table = table::table(&["FILE", "ANSWER", "CONFIDENCE", "", "TOOK"]);
    for row in rows {
        let file = row.file.display().to_string();
        match &row.outcome {
            FileAnswer::Answered { answer, sure } => table.add_row([
                file,
                answer.label.clone(),
                answer.confidence.map_or("-".to_owned(), |confidence| format!("{confidence:.2}")),
                match sure {
                    Some(true) => "sure".to_owned(),
                    Some(false) => "not sure".to_owned(),
                    None => String::new(),
                },
                format!("{:.1} ms", answer.took_ms),
            ]),
            FileAnswer::Failed { error } => {
                table.add_row([file, "-".to_owned(), "-".to_owned(), error.clone(), String::new()])
            }
        };
    }
    output::print(&table::lines(&table))
}
