//! Owns the thread of one bundle.
//!
//! **Invariant:** the thread ends when its [`Lane`] is dropped, and never by a request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use holdfast_models::{Bundle, InferError, Inference, Media, MediaKind, Model};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::EngineError;
use super::latency::{Latency, Quantiles};
use super::loader::{Loaded, Way};
use crate::answer::{Answer, Class, MAX_CLASSES};
use crate::destination::Zone;
use crate::request::TaskName;
use crate::tune::choice::Choice;

/// One bundle in service.
#[derive(Debug)]
pub struct Lane {
    task: TaskName,
    bundle: Bundle,
    variants: Vec<String>,
    threshold: f32,
    way: Arc<InService>,
    jobs: SyncSender<Work>,
    max_waiting: usize,
    latency: Arc<Latency>,
    failures: AtomicU64,
}

/// What the local model says.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalAnswer {
    /// The answer, not yet judged.
    pub answer: Answer,
    /// The confidence that the bundle asks for.
    pub threshold: f32,
}

/// How a bundle runs now, and what is to be put in service next.
#[derive(Debug)]
struct InService {
    choice: RwLock<Choice>,
    next: Mutex<Option<Box<Loaded>>>,
}

/// What the thread is given.
enum Work {
    Answer(Job),
    /// Something waits to be put in service.
    Look,
}

struct Job {
    media: Media,
    give_up_at: Instant,
    reply: oneshot::Sender<Result<Inferred, EngineError>>,
}

/// An inference, and what made it.
struct Inferred {
    inference: Inference,
    model: Arc<str>,
}

impl Lane {
    /// Starts the thread of a bundle that is loaded.
    pub(super) fn start(
        bundle: Bundle,
        loaded: Loaded,
        max_waiting: usize,
    ) -> Result<Self, String> {
        let task = TaskName::parse(bundle.task())
            .ok_or_else(|| format!("task {} is not a task name", bundle.task()))?;
        let (jobs, waiting) = sync_channel(max_waiting);
        let latency = Arc::new(Latency::default());
        let choice = RwLock::new(loaded.way.choice.clone());
        let way = Arc::new(InService { choice, next: Mutex::default() });
        let lane = Self {
            task: task.clone(),
            bundle: bundle.clone(),
            way: Arc::clone(&way),
            variants: bundle.variants().iter().map(|v| v.name().to_owned()).collect(),
            threshold: bundle.threshold(),
            jobs,
            max_waiting,
            latency,
            failures: AtomicU64::new(0),
        };
        std::thread::Builder::new()
            .name(format!("infer-{task}"))
            .spawn(move || serve(&bundle, loaded, &way, &waiting))
            .map_err(|error| format!("cannot start a thread for inference: {error}"))?;
        Ok(lane)
    }

    /// Every variant that the bundle has.
    pub fn variants(&self) -> &[String] {
        &self.variants
    }

    /// The task that it does.
    pub fn task(&self) -> &TaskName {
        &self.task
    }

    /// The bundle's name.
    pub fn name(&self) -> &str {
        self.bundle.name()
    }

    /// The bundle's version.
    pub fn version(&self) -> &str {
        self.bundle.version()
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// How it runs now.
    pub fn choice(&self) -> Choice {
        self.way.choice()
    }

    /// Puts another way to run the bundle in service, before the next request.
    pub(super) fn swap(&self, loaded: Loaded) {
        *self.way.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(loaded));
        // A thread that has work already looks before it begins with that.
        self.jobs.try_send(Work::Look).ok();
    }

    /// What it can answer.
    pub fn labels(&self) -> &[String] {
        self.bundle.labels()
    }

    /// What it is for, in one sentence.
    pub fn description(&self) -> &str {
        self.bundle.description()
    }

    /// Recordings or pictures.
    pub fn expects(&self) -> MediaKind {
        self.bundle.expects()
    }

    /// The confidence below which an answer goes up.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// What runs, such as `voice-commands@1.0.0 int8 tract`.
    pub fn model(&self) -> String {
        model_name(&self.bundle, &self.choice())
    }

    /// Answers so far, and the latency of the newest of them.
    pub fn latency(&self) -> Quantiles {
        self.latency.quantiles()
    }

    /// Requests that got no answer since the start, whatever the reason.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(super) async fn infer(
        &self,
        media: Media,
        within: Duration,
    ) -> Result<LocalAnswer, EngineError> {
        let result = self.run(media, within).await;
        if result.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn run(&self, media: Media, within: Duration) -> Result<LocalAnswer, EngineError> {
        let begun = Instant::now();
        let (reply, answered) = oneshot::channel();
        let job = Job { media, give_up_at: begun + within, reply };
        self.jobs.try_send(Work::Answer(job)).map_err(|error| match error {
            TrySendError::Full(_) => {
                EngineError::Busy { task: self.task.clone(), waiting: self.max_waiting }
            }
            TrySendError::Disconnected(_) => {
                EngineError::Model(format!("the thread of {} has ended", self.name()))
            }
        })?;
        let late = || EngineError::Late { task: self.task.clone(), waited: within };
        let inferred = match tokio::time::timeout(within, answered).await {
            Ok(Ok(result)) => result?,
            // The thread drops the reply of a job whose deadline is over.
            Ok(Err(_)) | Err(_) => return Err(late()),
        };
        let took = begun.elapsed();
        self.latency.record(took);
        metrics::histogram!("holdfast_inference_seconds", "task" => self.task.to_string())
            .record(took.as_secs_f64());
        self.answer(inferred, took)
    }

    fn answer(&self, inferred: Inferred, took: Duration) -> Result<LocalAnswer, EngineError> {
        let Inferred { inference, model } = inferred;
        let classes: Vec<_> = inference
            .classes
            .into_iter()
            .take(MAX_CLASSES)
            .map(|class| Class { label: class.label, confidence: class.confidence })
            .collect();
        let best = classes.first().ok_or_else(|| {
            EngineError::Model(format!("{} answered without a class", self.name()))
        })?;
        let answer = Answer {
            label: best.label.clone(),
            confidence: best.confidence,
            zone: Zone::Device,
            place: "device".to_owned(),
            model: model.to_string(),
            took_ms: crate::answer::millis(took),
            provisional: false,
            classes,
        };
        Ok(LocalAnswer { answer, threshold: self.threshold })
    }
}

impl InService {
    fn choice(&self) -> Choice {
        self.choice.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is to be put in service, which from here on it is.
    fn take(&self) -> Option<Box<Loaded>> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let mut choice = self.choice.write().unwrap_or_else(PoisonError::into_inner);
        choice.clone_from(&next.way.choice);
        Some(next)
    }
}

fn model_name(bundle: &Bundle, choice: &Choice) -> String {
    format!("{}@{} {choice}", bundle.name(), bundle.version())
}

/// The thread: one job after the other until the lane is dropped.
fn serve(bundle: &Bundle, loaded: Loaded, service: &InService, work: &Receiver<Work>) {
    let Loaded { model, mut way } = loaded;
    let mut name: Arc<str> = model_name(bundle, &way.choice).into();
    let mut model = Some(model);
    while let Ok(work) = work.recv() {
        if let Some(next) = service.take() {
            model = Some(next.model);
            way = next.way;
            name = model_name(bundle, &way.choice).into();
            tracing::info!(model = %name, "in service");
        }
        let Work::Answer(job) = work else { continue };
        if job.reply.is_closed() || Instant::now() >= job.give_up_at {
            continue;
        }
        if model.is_none() {
            model = load_again(bundle, &way);
        }
        let reply = answer_one(bundle, &mut model, &job.media);
        let reply = reply.map(|inference| Inferred { inference, model: Arc::clone(&name) });
        // The caller may be gone; then nobody wants the answer.
        drop(job.reply.send(reply));
    }
}

/// One answer; a model that panics is dropped, since its buffers may be half written.
fn answer_one(
    bundle: &Bundle,
    model: &mut Option<Model>,
    media: &Media,
) -> Result<Inference, EngineError> {
    let Some(mut ready) = model.take() else {
        return Err(EngineError::Model(format!("{} could not be loaded again", bundle.name())));
    };
    let Ok(result) = catch_unwind(AssertUnwindSafe(|| ready.infer(media))) else {
        tracing::error!(
            bundle = bundle.name(),
            "the model panicked on an input; it is loaded anew"
        );
        return Err(EngineError::Model(format!("{} panicked on this input", bundle.name())));
    };
    *model = Some(ready);
    result.map_err(|error| match error {
        InferError::Media(error) => EngineError::Input(crate::error_chain(&error)),
        error => EngineError::Model(crate::error_chain(&error)),
    })
}

/// The model once more, or nothing until the next request.
fn load_again(bundle: &Bundle, way: &Way) -> Option<Model> {
    match catch_unwind(AssertUnwindSafe(|| way.load(bundle))) {
        Ok(Ok(model)) => Some(model),
        Ok(Err(error)) => {
            tracing::error!(bundle = bundle.name(), %error, "the model could not be loaded again");
            None
        }
        Err(_) => None,
    }
}
