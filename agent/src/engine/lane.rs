//! Owns the thread of one bundle.
//!
//! **Invariant:** the thread ends when its [`Lane`] is dropped, and never by a request.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
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

/// A lane that is full is looked at again after this time.
const SWAP_AGAIN: Duration = Duration::from_millis(5);

/// One bundle in service.
#[derive(Debug)]
pub struct Lane {
    task: TaskName,
    name: String,
    version: String,
    bundle: Bundle,
    choice: RwLock<Choice>,
    variants: Vec<String>,
    labels: Vec<String>,
    description: String,
    threshold: f32,
    expects: MediaKind,
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

/// What the thread is given.
enum Work {
    Answer(Job),
    Swap(Box<Loaded>),
}

struct Job {
    media: Media,
    give_up_at: Instant,
    reply: oneshot::Sender<Result<Inference, EngineError>>,
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
        let lane = Self {
            task: task.clone(),
            name: bundle.name().to_owned(),
            version: bundle.version().to_string(),
            bundle: bundle.clone(),
            choice: RwLock::new(loaded.way.choice.clone()),
            variants: bundle.variants().iter().map(|v| v.name().to_owned()).collect(),
            labels: bundle.labels().to_vec(),
            description: bundle.description().to_owned(),
            threshold: bundle.threshold(),
            expects: bundle.expects(),
            jobs,
            max_waiting,
            latency,
            failures: AtomicU64::new(0),
        };
        std::thread::Builder::new()
            .name(format!("infer-{task}"))
            .spawn(move || serve(&bundle, loaded, &waiting))
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
        &self.name
    }

    /// The bundle's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The bundle.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// How it runs now.
    pub fn choice(&self) -> Choice {
        self.choice.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another way to run the bundle in service, behind what waits already.
    pub(super) async fn swap(&self, loaded: Loaded) {
        let choice = loaded.way.choice.clone();
        let mut work = Work::Swap(Box::new(loaded));
        // A lane that is full has work for some milliseconds.
        while let Err(error) = self.jobs.try_send(work) {
            match error {
                TrySendError::Full(back) => work = back,
                TrySendError::Disconnected(_) => return,
            }
            tokio::time::sleep(SWAP_AGAIN).await;
        }
        tracing::info!(bundle = self.name, %choice, "in service");
        *self.choice.write().unwrap_or_else(PoisonError::into_inner) = choice;
    }

    /// What it can answer.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What it is for, in one sentence.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Recordings or pictures.
    pub fn expects(&self) -> MediaKind {
        self.expects
    }

    /// The confidence below which an answer goes up.
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    /// What runs, such as `voice-commands@1.0.0 int8 tract`.
    pub fn model(&self) -> String {
        format!("{}@{} {}", self.name, self.version, self.choice())
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
                EngineError::Model(format!("the thread of {} has ended", self.name))
            }
        })?;
        let late = || EngineError::Late { task: self.task.clone(), waited: within };
        let inference = match tokio::time::timeout(within, answered).await {
            Ok(Ok(result)) => result?,
            // The thread drops the reply of a job whose deadline is over.
            Ok(Err(_)) | Err(_) => return Err(late()),
        };
        let took = begun.elapsed();
        self.latency.record(took);
        metrics::histogram!("holdfast_inference_seconds", "task" => self.task.to_string())
            .record(took.as_secs_f64());
        self.answer(inference, took)
    }

    fn answer(&self, inference: Inference, took: Duration) -> Result<LocalAnswer, EngineError> {
        let classes: Vec<_> = inference
            .classes
            .into_iter()
            .take(MAX_CLASSES)
            .map(|class| Class { label: class.label, confidence: class.confidence })
            .collect();
        let best = classes
            .first()
            .ok_or_else(|| EngineError::Model(format!("{} answered without a class", self.name)))?;
        let answer = Answer {
            label: best.label.clone(),
            confidence: best.confidence,
            zone: Zone::Device,
            place: "device".to_owned(),
            model: self.model(),
            took_ms: crate::answer::millis(took),
            provisional: false,
            classes,
        };
        Ok(LocalAnswer { answer, threshold: self.threshold })
    }
}

/// The thread: one job after the other until the lane is dropped.
fn serve(bundle: &Bundle, loaded: Loaded, work: &Receiver<Work>) {
    let Loaded { model, mut way } = loaded;
    let mut model = Some(model);
    while let Ok(work) = work.recv() {
        let job = match work {
            Work::Answer(job) => job,
            Work::Swap(loaded) => {
                model = Some(loaded.model);
                way = loaded.way;
                continue;
            }
        };
        if job.reply.is_closed() || Instant::now() >= job.give_up_at {
            continue;
        }
        if model.is_none() {
            model = load_again(bundle, &way);
        }
        let reply = answer_one(bundle, &mut model, &job.media);
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
