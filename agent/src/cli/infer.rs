//! `holdfast-agent infer`

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_models::Media;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{ConfigArgs, Exit, Failure, Places, output, table};
use crate::answer::Class;
use crate::engine::{self, Engine, Lane};
use crate::request::TaskName;
use crate::tune::Tuning;
use crate::tune::probe::Program;

#[derive(Debug, clap::Args)]
pub(super) struct InferArgs {
    /// The task, such as voice-commands
    task: String,
    /// Recordings or pictures
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
    /// Print a JSON array instead of a table
    #[arg(long)]
    json: bool,
}

/// What became of one file.
#[derive(Debug, Serialize)]
struct Row {
    file: PathBuf,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Outcome {
    Answered { label: String, confidence: f32, sure: bool, took_ms: f64, classes: Vec<Class> },
    Failed { error: String },
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
    let task = TaskName::parse(&args.task).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("\"{}\" is not a task name", args.task))
    })?;
    let runtime = super::runtime()?;
    let rows = runtime.block_on(async {
        let tuning = Arc::new(Tuning::open(program, &config.state_dir));
        let engine = Engine::start(&config.models, &tuning).await;
        if engine.lane(&task).is_none() {
            engine::try_untried(&engine, &config.models, &tuning).await;
        }
        let lane =
            engine.lane(&task).ok_or_else(|| no_model(&engine, &task, &config.models.bundles))?;
        check_variant(&lane, args.variant.as_deref())?;
        let rows = answer_all(&engine, &task, &args.files).await;
        if !args.json {
            eprintln!("{}, sure from {:.2}", lane.model(), lane.threshold());
        }
        Ok::<_, Failure>(rows)
    })?;
    print(&rows, args.json)?;
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed { .. }));
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

async fn answer_all(engine: &Engine, task: &TaskName, files: &[PathBuf]) -> Vec<Row> {
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
        rows.push(Row { file: file.clone(), outcome: answer(engine, task, file).await });
        bar.inc(1);
    }
    bar.finish_and_clear();
    rows
}

async fn answer(engine: &Engine, task: &TaskName, file: &Path) -> Outcome {
    let failed = |error: String| Outcome::Failed { error };
    let bytes = match read(file).await {
        Ok(bytes) => bytes,
        Err(why) => return failed(why),
    };
    let media = match Media::detect(Bytes::from(bytes), None) {
        Ok(media) => media,
        Err(error) => return failed(crate::error_chain(&error)),
    };
    match engine.infer(task, &media, WITHIN).await {
        Ok(local) => Outcome::Answered {
            sure: local.answer.confidence >= local.threshold,
            label: local.answer.label,
            confidence: local.answer.confidence,
            took_ms: local.answer.took_ms,
            classes: local.answer.classes,
        },
        Err(error) => failed(error.to_string()),
    }
}

/// The bytes of a regular file that is not too large to be an input.
async fn read(file: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("cannot read it: {error}");
    let metadata = tokio::fs::metadata(file).await.map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a file; give a recording or a picture".to_owned());
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
            Outcome::Answered { label, confidence, sure, took_ms, .. } => table.add_row([
                file,
                label.clone(),
                format!("{confidence:.2}"),
                if *sure { "sure" } else { "not sure" }.to_owned(),
                format!("{took_ms:.1} ms"),
            ]),
            Outcome::Failed { error } => {
                table.add_row([file, "-".to_owned(), "-".to_owned(), error.clone(), String::new()])
            }
        };
    }
    output::print(&table::lines(&table))
}
