//! Bundles in service: tensors and media, batches, versions, coming and going, memory.
#![allow(
    clippy::cast_possible_truncation,
    reason = "a protocol buffer is written byte by byte, and pictures are small"
)]

mod commands;
mod damage;
pub(super) mod made;
mod open_calls;
mod wrong_tensors;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_agent::config::{Config, ModelsConfig};
use holdfast_agent::engine::{Engine, EngineError, Readiness, TensorAnswer, TensorRequest, Terms};
use holdfast_agent::request::{Priority, TaskName};
use holdfast_agent::tune::Tuning;
use holdfast_agent::tune::choice::{Choice, Measured, Outcome, Tried};
use holdfast_agent::tune::record::{Record, Tuned, fingerprint};
use holdfast_models::{Bundle, Dtype, Media, Tensor};
use holdfast_tests::onnxruntime;
use tokio::time::Instant;

use self::made::{Made, PLACES, input, places};
use super::SOON;

fn models(bundles: &Path, more: &str) -> ModelsConfig {
    let text = format!(
        "[models]\nbundles = [{:?}]\nonnxruntime = \"off\"\ntune = false\n{more}",
        bundles.display().to_string()
    );
    Config::parse("test", &text, []).unwrap().models
}

async fn start(bundles: &Path, state: &Path, more: &str) -> Engine {
    Engine::start(&models(bundles, more), &Arc::new(Tuning::open(None, state))).await
}

fn request(model: &str, version: Option<&str>, rows: &[Vec<f32>]) -> TensorRequest {
    TensorRequest {
        model: model.to_owned(),
        version: version.map(str::to_owned),
        inputs: vec![input(rows)],
        outputs: Vec::new(),
        priority: Priority::default(),
        give_up_at: Instant::now() + SOON,
    }
}

fn numbers(answer: &TensorAnswer) -> &[f32] {
    assert_eq!(answer.outputs.len(), 1);
    assert_eq!(answer.outputs[0].0, "y");
    answer.outputs[0].1.of().unwrap()
}

/// Which version answers one row.
async fn version_of(engine: &Engine, version: Option<&str>) -> Result<String, EngineError> {
    let answer = engine.infer_tensors(request("table", version, &[places(1)])).await?;
    let made = Made::of("table", "", if answer.version == "1.0.0" { 0.25 } else { 0.125 });
    assert_eq!(numbers(&answer), made.wanted(&places(1)), "{}", answer.version);
    Ok(answer.version)
}

#[tokio::test]
async fn tensors_are_answered_by_name_and_what_is_wrong_with_them_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let made = Made::of("table", "1.0.0", 0.25);
    made.write(dir.path());
    let engine = start(dir.path(), dir.path(), "").await;
    let rows = [places(1), places(2), places(3)];
    let answer = engine.infer_tensors(request("table", None, &rows)).await.unwrap();
    assert_eq!((answer.model.as_str(), answer.version.as_str()), ("table", "1.0.0"));
    assert_eq!(answer.outputs[0].1.shape(), [3, 1, 4, 4]);
    assert_eq!(numbers(&answer), made.wanted(&rows.concat()));

    let metadata = engine.metadata("table", None).unwrap();
    assert_eq!((metadata.versions, &*metadata.platform), (vec!["1.0.0".to_owned()], "tract"));
    assert_eq!(metadata.inputs[0].shape, [None, Some(1), Some(4), Some(4)]);
    assert_eq!((&*metadata.inputs[0].name, metadata.outputs[0].dtype), ("x", Dtype::F32));
    assert!(engine.metadata("table", Some("9.0.0")).is_none());
    assert!(engine.metadata("chair", None).is_none());

    let good = || request("table", None, &[places(1)]);
    let tensor = |shape: &[usize], dtype| Tensor::zeros(shape, dtype);
    let named = |name: &str, tensor: Tensor| (name.to_owned(), tensor);
    let wrong = |inputs| TensorRequest { inputs, ..good() };
    let x = || input(&[places(1)]);
    let cases = [
        (wrong(vec![]), "input x is missing"),
        (wrong(vec![x(), x()]), "input x is there twice"),
        (wrong(vec![x(), named("z", x().1)]), "no input z"),
        (wrong(vec![named("x", tensor(&[1, 1, 4, 4], Dtype::I64))]), "is i64: send f32"),
        (wrong(vec![named("x", tensor(&[1, 1, 4, 5], Dtype::F32))]), "[1, 1, 4, 5]"),
        (wrong(vec![named("x", tensor(&[0, 1, 4, 4], Dtype::F32))]), "[0, 1, 4, 4]"),
        (wrong(vec![named("x", tensor(&[16], Dtype::F32))]), "[16]"),
        (TensorRequest { outputs: vec!["q".into()], ..good() }, "no output q: the model gives y"),
    ];
    for (request, want) in cases {
        let fault = match engine.infer_tensors(request).await {
            Err(EngineError::Tensor(fault)) => fault.to_string(),
            other => panic!("{want}: {other:?}"),
        };
        assert!(fault.contains(want), "{want}: {fault}");
    }
    let refused = |model, version| {
        let engine = &engine;
        async move { engine.infer_tensors(request(model, version, &[places(1)])).await.unwrap_err() }
    };
    assert!(matches!(refused("chair", None).await, EngineError::NoBundle { .. }));
    assert!(matches!(refused("table", Some("2")).await, EngineError::NoVersion { .. }));
    // A place that is not there is this request's own fault, and nobody else's.
    let error = engine.infer_tensors(request("table", None, &[vec![1e6; 16]])).await.unwrap_err();
    assert!(matches!(error, EngineError::Model(_)), "{error}");
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
}

#[tokio::test]
async fn media_and_tensors_wait_in_one_line_and_nobody_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Made::of("table", "1.0.0", 0.25).write(dir.path());
    let engine = start(dir.path(), dir.path(), "workers = 1\nmax_waiting = 2\n").await;
    let picture = Bytes::from(std::fs::read(folder.join("a.png")).unwrap());
    let (media, task) =
        (Media::detect(picture, None).unwrap(), TaskName::parse("look-up").unwrap());
    let terms = Terms { priority: Priority::default(), within: SOON };
    let seen = engine.infer(&task, &media, terms).await.unwrap();
    assert_eq!(seen.answer.classes.len(), 5);
    let pictures = (0..20).map(|_| async {
        let local = engine.infer(&task, &media, terms).await?;
        Ok(local.answer.classes == seen.answer.classes)
    });
    let rows = (0..20).map(|seed| {
        let engine = &engine;
        async move {
            let answer = engine.infer_tensors(request("table", None, &[places(seed)])).await?;
            Ok(numbers(&answer) == Made::of("table", "1.0.0", 0.25).wanted(&places(seed)))
        }
    });
    let (pictures, rows) = tokio::join!(
        futures_util::future::join_all(pictures),
        futures_util::future::join_all(rows)
    );
    let all: Vec<Result<bool, EngineError>> = pictures.into_iter().chain(rows).collect();
    let answered = all.iter().filter(|answer| matches!(answer, Ok(true))).count();
    let busy = all.iter().filter(|answer| matches!(answer, Err(EngineError::Busy { .. }))).count();
    assert!(answered >= 2 && answered + busy == all.len(), "{all:?}");
    assert_eq!(engine.lane(&task).unwrap().failures(), busy as u64);
}

#[tokio::test]
async fn what_cannot_be_answered_in_time_is_not_begun() {
    let dir = tempfile::tempdir().unwrap();
    Made::of("table", "1.0.0", 0.25).write(dir.path());
    let engine = start(dir.path(), dir.path(), "").await;
    let lane = engine.lane(&TaskName::parse("look-up").unwrap()).unwrap();
    let over = TensorRequest { give_up_at: Instant::now(), ..request("table", None, &[places(1)]) };
    let error = engine.infer_tensors(over).await.unwrap_err();
    assert!(matches!(error, EngineError::TooLate { .. }), "{error}");
    assert!(error.retry_after().is_some());
    // Callers that go away leave the line.
    let gone = engine.infer_tensors(request("table", None, &[places(1)]));
    drop(tokio::time::timeout(Duration::ZERO, gone).await);
    assert_eq!(lane.load().waiting, 0);
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
}

/// Puts it on record that a bundle was measured to run best in a way.
fn remember(state: &Path, config: &ModelsConfig, measured: &[(PathBuf, &str, u64)]) {
    let mut record = Record::default();
    for (folder, runtime, peak_kib) in measured {
        let bundle = Bundle::open(folder).unwrap();
        let threads = NonZeroUsize::MIN;
        let choice = Choice { variant: "fp32".to_owned(), runtime: (*runtime).to_owned(), threads };
        let (load_ms, p50_ms, p99_ms, off, count) = (1.0, 1.0, 1.0, 0.0, 1);
        let outcome = Measured { load_ms, p50_ms, p99_ms, peak_kib: *peak_kib, off, count };
        let tried = vec![Tried { choice: choice.clone(), outcome: Outcome::Measured(outcome) }];
        record.put(&bundle, Tuned { fingerprint: fingerprint(&bundle, config), choice, tried });
    }
    record.write(&state.join("tuning.json")).unwrap();
}

/// The request that asks for a place that is not there.
const BAD: usize = 13;

/// Requests that came while another ran are answered by one run, each as if it were alone.
#[tokio::test]
async fn a_batch_gives_each_its_own_answer_and_its_own_fault() {
    if onnxruntime::library("1.23").is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let made = Made {
        more: "[batching]\nmax_size = 8\nmax_delay_us = 100000\n",
        ..Made::of("table", "1.0.0", 0.25)
    };
    let folder = made.write(dir.path());
    let library = onnxruntime::folder().join("1.23");
    let text = format!(
        "[models]\nbundles = [{:?}]\nonnxruntime = {:?}\ntune = false\nworkers = 1\nmax_waiting = 64\n",
        dir.path().display().to_string(),
        library.display().to_string()
    );
    let config = Config::parse("test", &text, []).unwrap().models;
    let picture = std::fs::read(folder.join("a.png")).unwrap();
    remember(dir.path(), &config, &[(folder, "onnxruntime", 1)]);
    let engine = Engine::start(&config, &Arc::new(Tuning::open(None, dir.path()))).await;
    let task = TaskName::parse("look-up").unwrap();
    let lane = engine.lane(&task).unwrap();
    assert_eq!(lane.choice().runtime, "onnxruntime");
    let ask = |seed: usize| {
        // Some have several rows.
        let mut rows: Vec<_> = (0..=seed % 3).map(|row| places(seed + row)).collect();
        if seed == BAD {
            rows[0][3] = PLACES as f32;
        }
        let engine = &engine;
        async move { (engine.infer_tensors(request("table", None, &rows)).await, rows.concat()) }
    };
    let before = lane.load().runs;
    let all = futures_util::future::join_all((0..48).map(ask)).await;
    let runs = lane.load().runs - before;
    for (seed, (answer, asked)) in all.into_iter().enumerate() {
        match answer {
            Ok(answer) => assert_eq!(numbers(&answer), made.wanted(&asked), "{seed}"),
            Err(EngineError::Model(why)) => assert_eq!(seed, BAD, "{why}"),
            Err(error) => panic!("{seed}: {error}"),
        }
    }
    assert!(runs < 40, "{runs} runs for 48 requests");

    let terms = Terms { priority: Priority::default(), within: SOON };
    let detect = |bytes: &[u8]| Media::detect(bytes.to_vec(), None).unwrap();
    let (whole, cut) = (detect(&picture), detect(&picture[..picture.len() / 2]));
    let alone = engine.infer(&task, &whole, terms).await.unwrap().answer;
    let before = lane.load().runs;
    let pictures =
        (0..48).map(|seed| engine.infer(&task, if seed == BAD { &cut } else { &whole }, terms));
    let all = futures_util::future::join_all(pictures).await;
    let runs = lane.load().runs - before;
    for (seed, seen) in all.into_iter().enumerate() {
        match seen {
            Ok(seen) => assert_eq!(seen.answer.classes, alone.classes, "{seed}"),
            Err(EngineError::Input(why)) => assert_eq!(seed, BAD, "{why}"),
            Err(error) => panic!("{seed}: {error}"),
        }
    }
    assert!(runs < 40, "{runs} runs for 48 pictures");
}

/// A new version takes over while callers ask without end: each is answered, by one of the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_swapped_under_load_without_one_failed_request() {
    let dir = tempfile::tempdir().unwrap();
    let (bundles, state) = (dir.path().join("bundles"), dir.path().join("state"));
    Made::of("table", "1.0.0", 0.25).write(&bundles);
    let labels = "[models.versions.table.labels]\nstable = \"1.0.0\"\n";
    let engine = Arc::new(start(&bundles, &state, labels).await);
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Arc<[AtomicU64; 2]> = Arc::default();
    let asking = (0..4).map(|_| {
        let (engine, stop, counts) = (engine.clone(), stop.clone(), counts.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let version = version_of(&engine, None).await.unwrap();
                counts[usize::from(version != "1.0.0")].fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let asking: Vec<_> = asking.collect();
    let asked = |at: usize, more: u64| {
        let counts = counts.clone();
        let from = counts[at].load(Ordering::Relaxed);
        async move {
            let counted = async {
                while counts[at].load(Ordering::Relaxed) < from + more {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(SOON, counted).await.expect("requests are answered");
        }
    };
    asked(0, 50).await;
    Made::of("table", "1.1.0", 0.125).write(&bundles);
    engine.load("table").await.unwrap();
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.1.0");
    asked(1, 50).await;
    // One that is no graph does not come in, and changes nothing.
    Made::of("table", "1.2.0", 1.0).write_graph(&bundles, b"no graph");
    let error = engine.load("table").await.unwrap_err().to_string();
    assert!(
        error.contains("table@1.2.0") && error.contains("table@1.1.0 fp32 tract goes on"),
        "{error}"
    );
    asked(1, 50).await;
    // Both are there side by side, by number and by label.
    for (version, want) in [
        (None, "1.1.0"),
        (Some("1.0.0"), "1.0.0"),
        (Some("stable"), "1.0.0"),
        (Some("1.1.0"), "1.1.0"),
    ] {
        assert_eq!(version_of(&engine, version).await.unwrap(), want, "{version:?}");
    }
    let index = engine.index();
    let told: Vec<_> = index.iter().map(|e| (e.version.as_str(), e.state, e.is_default)).collect();
    let (ready, gone) = (Readiness::Ready, Readiness::Unavailable);
    assert_eq!(told, [("1.2.0", gone, false), ("1.1.0", ready, true), ("1.0.0", ready, false)]);
    assert!(index[0].reason.contains("graph"), "{}", index[0].reason);
    // Back to the version before, by taking the newer ones away.
    for version in ["1.1.0", "1.2.0"] {
        std::fs::remove_dir_all(bundles.join(format!("table-{version}"))).unwrap();
    }
    engine.load("table").await.unwrap();
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
    asked(0, 50).await;
    stop.store(true, Ordering::Relaxed);
    for asking in asking {
        asking.await.expect("no request failed");
    }
}

#[tokio::test]
async fn a_configured_default_answers_although_a_newer_version_lies_there() {
    let dir = tempfile::tempdir().unwrap();
    for (version, step) in [("1.0.0", 0.25), ("1.1.0", 0.125)] {
        Made::of("table", version, step).write(dir.path());
    }
    let more = "[models.versions.table]\ndefault = \"stable\"\nlabels = { stable = \"1.0.0\" }\n";
    let engine = start(dir.path(), dir.path(), more).await;
    for (version, want) in
        [(None, "1.0.0"), (Some("1.1.0"), "1.1.0"), (None, "1.0.0"), (Some("stable"), "1.0.0")]
    {
        assert_eq!(version_of(&engine, version).await.unwrap(), want, "{version:?}");
    }
    assert_eq!(engine.metadata("table", None).unwrap().versions, ["1.1.0", "1.0.0"]);
    engine.load("table").await.unwrap();
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
    let lane = engine.lane(&TaskName::parse("look-up").unwrap()).unwrap();
    assert_eq!(lane.version(), "1.0.0", "tasks go to the default too");
}

#[tokio::test]
async fn a_bundle_that_was_unloaded_answers_when_it_is_loaded_again() {
    let dir = tempfile::tempdir().unwrap();
    Made::of("table", "1.0.0", 0.25).write(dir.path());
    // Does the same task, and is loaded when somebody names it.
    let spare = Made { step: 0.125, ..Made::of("zebra", "1.0.0", 0.125) };
    spare.write(dir.path());
    let engine = start(dir.path(), dir.path(), "").await;
    let task = TaskName::parse("look-up").unwrap();
    let states = || engine.index().into_iter().map(|e| (e.name, e.state)).collect::<Vec<_>>();
    let (table, zebra) = ("table".to_owned(), "zebra".to_owned());
    let (ready, gone) = (Readiness::Ready, Readiness::Unavailable);
    assert_eq!(states(), [(table.clone(), ready), (zebra.clone(), gone)]);
    let answer = engine.infer_tensors(request("zebra", None, &[places(4)])).await.unwrap();
    assert_eq!(numbers(&answer), spare.wanted(&places(4)));
    assert_eq!(states(), [(table.clone(), ready), (zebra.clone(), ready)]);
    assert_eq!(engine.lane(&task).unwrap().name(), "table", "the first still does the task");
    engine.unload("zebra").await.unwrap();
    engine.unload("table").await.unwrap();
    assert_eq!(states(), [(table, gone), (zebra, gone)]);
    assert!(engine.lane(&task).is_none());
    let error = version_of(&engine, None).await.unwrap_err();
    assert!(matches!(error, EngineError::NotReady { .. }), "{error}");
    assert!(matches!(engine.unload("chair").await, Err(EngineError::NoBundle { .. })));
    assert!(matches!(engine.load("chair").await, Err(EngineError::NoBundle { .. })));
    engine.load("table").await.unwrap();
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
    assert_eq!(engine.lane(&task).unwrap().name(), "table");
}

#[tokio::test]
async fn an_idle_model_gives_its_memory_back_and_answers_again() {
    let dir = tempfile::tempdir().unwrap();
    Made::of("table", "1.0.0", 0.25).write(dir.path());
    let engine = start(dir.path(), dir.path(), "idle_unload_s = 1\n").await;
    let lane = engine.lane(&TaskName::parse("look-up").unwrap()).unwrap();
    for _ in 0..2 {
        assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
        let resting = async {
            while !lane.load().is_resting {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, resting).await.expect("nobody asks, so it rests");
    }
    assert_eq!(engine.index()[0].state, Readiness::Ready);
}

#[tokio::test]
async fn a_version_that_does_not_fit_beside_the_old_one_does_not_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let [bundles, state, later] = ["bundles", "state", "later"].map(|name| dir.path().join(name));
    let (old, new) = (Made::of("table", "1.0.0", 0.25), Made::of("table", "1.1.0", 0.125));
    let folders = [old.write(&bundles), new.write(&later)];
    let config = models(&bundles, "max_memory_mib = 10\nworkers = 1\n");
    remember(&state, &config, &folders.map(|folder| (folder, "tract", 6 << 10)));
    let engine = Engine::start(&config, &Arc::new(Tuning::open(None, &state))).await;
    new.write(&bundles);
    let error = engine.load("table").await.unwrap_err().to_string();
    for want in [
        "table@1.1.0",
        "6.0 MiB beside 6.0 MiB",
        "max_memory_mib is 10",
        "1.0.0 fp32 tract goes on",
    ] {
        assert!(error.contains(want), "{want}: {error}");
    }
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
    // Whoever says so makes room, and takes the gap.
    engine.unload("table").await.unwrap();
    engine.load("table").await.unwrap();
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.1.0");
}

#[tokio::test]
async fn a_spare_bundle_comes_in_as_soon_as_there_is_room_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (bundles, state) = (dir.path().join("bundles"), dir.path().join("state"));
    let (table, zebra) = (Made::of("table", "1.0.0", 0.25), Made::of("zebra", "1.0.0", 0.125));
    let folders = [table.write(&bundles), zebra.write(&bundles)];
    let config = models(&bundles, "max_memory_mib = 10\nworkers = 1\n");
    remember(&state, &config, &folders.map(|folder| (folder, "tract", 6 << 10)));
    let engine = Engine::start(&config, &Arc::new(Tuning::open(None, &state))).await;
    let ask = async || engine.infer_tensors(request("zebra", None, &[places(2)])).await;
    let error = ask().await.unwrap_err();
    assert!(matches!(error, EngineError::NotReady { .. }), "{error}");
    assert!(error.to_string().contains("max_memory_mib is 10"), "{error}");
    assert_eq!(version_of(&engine, None).await.unwrap(), "1.0.0");
    engine.unload("table").await.unwrap();
    assert_eq!(numbers(&ask().await.unwrap()), zebra.wanted(&places(2)));
}
