//! A bundle in service, in one way to run it: its workers, their line, and its figures.
//!
//! **Invariant:** a lane never changes what it runs: another version, or another way, is another lane,
//! and this one answers those that it took before it goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use holdfast_models::{Bundle, Inference, Media, MediaKind, Tensor};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::EngineError;
use super::latency::{Latency, Quantiles};
use super::loader::Loaded;
use super::pool::{Batching, Load, Pool, Rules, Turned, Worker};
use super::runner::{Ask, Given, Job, Runner};
use crate::answer::Answer;
use crate::config::ModelsConfig;
use crate::destination::Zone;
use crate::outcome::Said;
use crate::request::{Priority, TaskName};
use crate::tune::candidates::TRACT;
use crate::tune::choice::Choice;
use crate::tune::cores;

/// A further worker that could not be had (there was no memory for it, say) is asked for again then.
const HIRE_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// One bundle in service.
#[derive(Debug)]
pub struct Lane {
    task: TaskName,
    bundle: Arc<Bundle>,
    variants: Vec<String>,
    choice: Choice,
    model: String,
    pool: Pool<Job>,
    max_waiting: usize,
    workers: usize,
    figures: Arc<Figures>,
    seconds: metrics::Histogram,
}

/// What a bundle did, in whichever way it ran.
#[derive(Debug, Default)]
pub(super) struct Figures {
    latency: Latency,
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

/// The terms of one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Urgency.
    pub priority: Priority,
    /// How long the caller waits.
    pub within: Duration,
}

impl Lane {
    /// Puts a bundle that is loaded in service; `before` is what served in its place.
    ///
    /// # Errors
    /// Its task is none, or there is no thread; as a sentence.
    pub(super) fn start(
        bundle: Bundle,
        loaded: Loaded,
        config: &ModelsConfig,
        before: Option<&Self>,
    ) -> Result<Self, String> {
        let task = TaskName::parse(bundle.task())
            .ok_or_else(|| format!("task {} is not a task name", bundle.task()))?;
        let (choice, bundle) = (loaded.way.choice.clone(), Arc::new(bundle));
        let workers = workers(config, &choice);
        let rules = Rules {
            workers,
            waiting: config.max_waiting,
            rest_after: config.idle_unload,
            hire_again_after: HIRE_AGAIN_AFTER,
            batching: batching(&bundle, &choice),
        };
        let (own, way) = (Arc::clone(&bundle), loaded.way.clone());
        let hire = move || -> Result<Worker<Job>, String> {
            Ok(Box::new(Runner::load(Arc::clone(&own), way.clone())?))
        };
        let first = Box::new(Runner::new(Arc::clone(&bundle), loaded));
        let pool = Pool::start(bundle.name().to_owned(), rules, first, Box::new(hire))?;
        Ok(Self {
            variants: bundle.variants().iter().map(|v| v.name().to_owned()).collect(),
            model: format!("{}@{} {choice}", bundle.name(), bundle.version()),
            max_waiting: config.max_waiting,
            workers,
            seconds: metrics::histogram!("holdfast_inference_seconds", "task" => task.to_string()),
            figures: before.map(|lane| Arc::clone(&lane.figures)).unwrap_or_default(),
            task,
            bundle,
            choice,
            pool,
        })
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

    /// How it runs.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// What its workers hold as long as there is one.
    pub(super) fn held(&self) -> Weak<Bundle> {
        Arc::downgrade(&self.bundle)
    }

    /// What it can answer.
    pub fn labels(&self) -> &[String] {
        self.bundle.labels()
    }

    /// What it is for, in one sentence.
    pub fn description(&self) -> &str {
        self.bundle.description()
    }

    /// Recordings, pictures, numbers or texts.
    pub fn expects(&self) -> MediaKind {
        self.bundle.expects()
    }

    /// The confidence below which an answer goes up.
    pub fn threshold(&self) -> f32 {
        self.bundle.threshold()
    }

    /// What runs, such as `voice-commands@1.0.0 int8 tract`.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Answers so far, and the latency of the newest of them.
    pub fn latency(&self) -> Quantiles {
        self.figures.latency.quantiles()
    }

    /// Requests that got no answer since the start, whatever the reason.
    pub fn failures(&self) -> u64 {
        self.figures.failures.load(Ordering::Relaxed)
    }

    /// Most workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Why no request is answered, such as files that were damaged while it gave its memory back;
    /// `None` as long as they are. The next request tries again.
    pub fn fault(&self) -> Option<String> {
        self.pool.fault()
    }

    /// What waits, and who works.
    pub fn load(&self) -> Load {
        self.pool.load()
    }

    pub(crate) async fn infer(
        &self,
        media: Media,
        terms: Terms,
    ) -> Result<LocalAnswer, EngineError> {
        let begun = Instant::now();
        let Terms { priority, within } = terms;
        let given = self.run(Ask::Media(media), priority, begun + within).await;
        let answer = match given {
            Ok(Given::Inference(inference)) => Ok(self.answer(inference, begun.elapsed())),
            Ok(Given::Tensors(_)) => Err(EngineError::Model("tensors were not asked for".into())),
            Err(error) => Err(error),
        };
        if answer.is_err() {
            self.figures.failures.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Runs the bundle on its inputs, in their order, each of them right.
    pub(super) async fn infer_tensors(
        &self,
        inputs: Vec<Tensor>,
        priority: Priority,
        give_up_at: Instant,
    ) -> Result<Vec<Tensor>, EngineError> {
        let result = match self.run(Ask::Tensors(inputs), priority, give_up_at).await {
            Ok(Given::Tensors(outputs)) => Ok(outputs),
            Ok(Given::Inference(_)) => Err(EngineError::Model("no tensors were given".into())),
            Err(error) => Err(error),
        };
        if result.is_err() {
            self.figures.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn run(
        &self,
        ask: Ask,
        priority: Priority,
        give_up_at: Instant,
    ) -> Result<Given, EngineError> {
        let model = || self.task.to_string();
        let begun = Instant::now();
        let within = give_up_at.saturating_duration_since(begun);
        let (reply, answered) = oneshot::channel();
        let admitted = self.pool.admit(Job { ask, reply }, priority, give_up_at);
        let (_ticket, instead) = admitted.map_err(|turned| match turned {
            Turned::Full { expected } => self.busy(expected),
            Turned::Ill { why } => {
                let model = format!("{}@{}", self.name(), self.version());
                EngineError::NotReady { model, why }
            }
            Turned::TooLate { expected } => {
                metrics::counter!("holdfast_turned_away_total", "model" => self.name().to_owned(), "why" => "deadline").increment(1);
                EngineError::TooLate { model: model(), within, expected }
            }
        })?;
        if let Some(instead) = instead {
            drop(instead.reply.send(Err(self.busy(Duration::ZERO))));
        }
        let given = match tokio::time::timeout_at(give_up_at, answered).await {
            Ok(Ok(result)) => result?,
            // Who is late is dropped from the line.
            Ok(Err(_)) | Err(_) => {
                return Err(EngineError::Late { model: model(), waited: within });
            }
        };
        let took = begun.elapsed();
        self.figures.latency.record(took);
        self.seconds.record(took.as_secs_f64());
        Ok(given)
    }

    fn busy(&self, expected: Duration) -> EngineError {
        let name = self.name().to_owned();
        metrics::counter!("holdfast_turned_away_total", "model" => name, "why" => "full")
            .increment(1);
        EngineError::Busy { model: self.task.to_string(), waiting: self.max_waiting, expected }
    }

    fn answer(&self, inference: Inference, took: Duration) -> LocalAnswer {
        let Said { label, confidence, classes, outcome, recorded } = Said::of(inference);
        let answer = Answer {
            label,
            confidence,
            classes,
            outcome,
            recorded,
            zone: Zone::Device,
            place: "device".to_owned(),
            model: self.model.clone(),
            took_ms: crate::answer::millis(took),
            provisional: false,
            cost_micros: None,
        };
        LocalAnswer { answer, threshold: self.threshold() }
    }
}

/// How requests go together. tract runs a batch row by row, so that nothing is gained there.
fn batching(bundle: &Bundle, choice: &Choice) -> Option<Batching<Job>> {
    let batching = bundle.batching().filter(|_| choice.runtime != TRACT)?;
    Some(Batching {
        alike: Job::goes_with,
        most: batching.max_size,
        size: Job::rows,
        delay: batching.max_delay,
    })
}

/// As many workers as are configured, or as there are cores for the threads that each takes.
fn workers(config: &ModelsConfig, choice: &Choice) -> usize {
    config.workers.unwrap_or_else(|| (cores().get() / choice.threads.get()).max(1))
}
