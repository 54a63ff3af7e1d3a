//! Owns one worker of a bundle: the model that it holds, and how jobs are answered with it.
//!
//! **Invariant:** a model that fails or panics takes down its own request only; one that panicked is
//! loaded anew, since its buffers may be half written. Where a batch fails, nobody waits for the answers
//! of the others in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use holdfast_models::{Askers, Bundle, InferError, Inference, Media, Model, Tensor, Told};
use tokio::sync::oneshot;

use super::EngineError;
use super::loader::{Loaded, Ready, Way};
use super::pool::Work;
use crate::heap;

/// One request, and where its answer is awaited.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) ask: Ask,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Ask {
    /// A recording or a picture, for an answer.
    Media(Media),
    /// The bundle's inputs, each of them right, for its outputs.
    Tensors(Vec<Tensor>),
}

impl Ask {
    fn media(&self) -> Option<&Media> {
        match self {
            Self::Media(media) => Some(media),
            Self::Tensors(_) => None,
        }
    }
}

impl Job {
    /// Whether two can be answered by one run. The bundle's tensors have the same shapes, but for the
    /// batch.
    pub(super) fn goes_with(&self, other: &Self) -> bool {
        std::mem::discriminant(&self.ask) == std::mem::discriminant(&other.ask)
    }

    /// Its tensors, where it has some.
    fn inputs(&self) -> &[Tensor] {
        match &self.ask {
            Ask::Tensors(inputs) => inputs,
            Ask::Media(_) => &[],
        }
    }

    /// How many rows of a batch it is.
    pub(super) fn rows(&self) -> usize {
        self.inputs().first().and_then(|input| input.shape().first()).copied().unwrap_or(1)
    }
}

/// What is given, to each as it asked.
#[derive(Debug)]
pub(super) enum Given {
    Inference(Inference),
    Tensors(Vec<Tensor>),
}

/// A worker's own.
pub(super) struct Runner {
    bundle: Arc<Bundle>,
    way: Way,
    /// Gone while it rests, and after it panicked.
    ready: Option<Ready>,
    /// What is not told yet.
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    rows: metrics::Histogram,
    runs: metrics::Counter,
    ran: u64,
}

type Answer = Result<Given, EngineError>;

/// Those who are answered together; none where one has its answer.
struct Callers(Vec<Option<oneshot::Sender<Answer>>>);

impl Callers {
    fn answer(&mut self, (at, answer): Told) -> Option<(oneshot::Sender<Answer>, Answer)> {
        let reply = self.0.get_mut(at)?.take()?;
        Some((reply, answer.map(Given::Inference).map_err(told)))
    }
}

impl Askers for Callers {
    fn is_wanted(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|reply| reply.as_ref().is_some_and(|to| !to.is_closed()))
    }

    fn tell(&mut self, told: Told) {
        if let Some((reply, answer)) = self.answer(told) {
            drop(reply.send(answer));
        }
    }
}

impl Runner {
    /// A worker with a model that is ready.
    pub(super) fn new(bundle: Arc<Bundle>, loaded: Loaded) -> Self {
        let Loaded { ready, way } = loaded;
        let (name, version) = (bundle.name().to_owned(), bundle.version().to_owned());
        let rows = metrics::histogram!("holdfast_batch_rows", "model" => name.clone());
        // It goes on where the bundle was in service before.
        let runs =
            metrics::counter!("holdfast_model_runs_total", "model" => name, "version" => version);
        let (ready, answers, ran) = (Some(ready), Vec::new(), 0);
        Self { bundle, way, ready, answers, rows, runs, ran }
    }

    /// One more worker, whose model is loaded here. Blocks.
    ///
    /// # Errors
    /// It does not load; as a sentence.
    pub(super) fn load(bundle: Arc<Bundle>, way: Way) -> Result<Self, String> {
        let ready = way.load(&bundle)?;
        heap::give_back();
        Ok(Self::new(bundle, Loaded { ready, way }))
    }

    /// Whose caller is late, or went away, is not worked for to the end.
    fn answer(&mut self, job: Job) {
        let given = match &job.ask {
            Ask::Media(media) => self.infer(media, || !job.reply.is_closed()).map(Given::Inference),
            Ask::Tensors(inputs) => self.run(inputs, job.rows()).map(Given::Tensors),
        };
        self.answers.push((job.reply, given));
    }

    /// Answers several requests, which all ask for the same; false: a run failed, and those that are left
    /// wait still.
    fn answer_together(&mut self, jobs: &mut Vec<Job>) -> bool {
        match jobs.first().map(|job| &job.ask) {
            Some(Ask::Media(_)) => self.infer_together(jobs),
            _ => self.run_together(jobs),
        }
    }

    /// The windows of all go through the graph side by side.
    fn infer_together(&mut self, jobs: &mut Vec<Job>) -> bool {
        let (asks, replies): (Vec<_>, Vec<_>) =
            jobs.drain(..).map(|job| (job.ask, Some(job.reply))).unzip();
        let media: Vec<&Media> = asks.iter().filter_map(Ask::media).collect();
        let mut callers = Callers(replies);
        let told = self.with_model(media.len(), |model| model.infer_together(&media, &mut callers));
        let is_over = match told {
            Ok(Ok(told)) => {
                self.answers.extend(told.into_iter().filter_map(|told| callers.answer(told)));
                true
            }
            _ => false,
        };
        let left = asks.into_iter().zip(callers.0);
        jobs.extend(left.filter_map(|(ask, reply)| Some(Job { ask, reply: reply? })));
        is_over
    }

    /// The tensors of all are rows of one batch.
    fn run_together(&mut self, jobs: &mut Vec<Job>) -> bool {
        let (rows, asks) = (jobs.iter().map(Job::rows).sum(), jobs.iter().map(Job::inputs));
        let Ok(Ok(given)) = self.with_model(rows, |model| model.run_tensors_together(asks)) else {
            return false;
        };
        let replies = jobs.drain(..).map(|job| job.reply);
        self.answers.extend(replies.zip(given.into_iter().map(Given::Tensors).map(Ok)));
        true
    }

    fn infer(
        &mut self,
        media: &Media,
        is_wanted: impl FnMut() -> bool,
    ) -> Result<Inference, EngineError> {
        self.with_model(1, |model| model.infer_while(media, is_wanted))?.map_err(told)
    }

    /// The outputs leave with the answer, so they have memory of their own.
    fn run(&mut self, inputs: &[Tensor], rows: usize) -> Result<Vec<Tensor>, EngineError> {
        let specs = self.bundle.outputs();
        let mut outputs: Vec<_> = specs.iter().map(|s| Tensor::zeros(&[0], s.dtype)).collect();
        self.with_model(rows, |model| model.run_tensors(inputs, &mut outputs))?.map_err(told)?;
        Ok(outputs)
    }

    fn reload(&self) -> Result<Ready, String> {
        let bundle = self.bundle.name();
        self.way.load(&self.bundle).map_err(|why| {
            tracing::error!(bundle, why, "the model could not be loaded again");
            format!("it could not be loaded again: {why}")
        })
    }

    fn not_ready(&self, why: String) -> EngineError {
        let model = format!("{}@{}", self.bundle.name(), self.bundle.version());
        EngineError::NotReady { model, why }
    }

    /// Runs the model once, which is loaded again where it is gone.
    fn with_model<T>(
        &mut self,
        rows: usize,
        run: impl FnOnce(&mut Model) -> T,
    ) -> Result<T, EngineError> {
        let mut ready = match self.ready.take() {
            Some(ready) => ready,
            None => self.reload().map_err(|why| self.not_ready(why))?,
        };
        self.ran += 1;
        self.runs.increment(1);
        self.rows.record(f64::from(u32::try_from(rows).unwrap_or(u32::MAX)));
        let name = self.bundle.name();
        let Ok(done) = catch_unwind(AssertUnwindSafe(|| run(&mut ready.model))) else {
            tracing::error!(bundle = name, "the model panicked on an input; it is loaded anew");
            return Err(EngineError::Model(format!("{name} panicked on this input")));
        };
        self.ready = Some(ready);
        Ok(done)
    }
}

impl Work<Job> for Runner {
    fn is_ready(&self) -> bool {
        self.ready.is_some()
    }

    fn make_ready(&mut self) -> Result<(), String> {
        if self.ready.is_none() {
            self.ready = Some(self.reload()?);
        }
        Ok(())
    }

    fn work(&mut self, jobs: &mut Vec<Job>) -> u64 {
        let before = self.ran;
        // Whoever is gone wants no answer.
        jobs.retain(|job| !job.reply.is_closed());
        if jobs.len() < 2 || !self.answer_together(jobs) {
            // Where a batch fails, each of them has its own answer or its own reason.
            let mut ill = None;
            for job in jobs.drain(..) {
                // Those before it wait for nothing any more.
                self.tell();
                ill = ill.or_else(|| self.make_ready().err());
                match &ill {
                    None => self.answer(job),
                    Some(why) => self.turn_away(job, why),
                }
            }
        }
        self.ran - before
    }

    fn tell(&mut self) {
        // Who went away meanwhile gets an answer that nobody takes.
        self.answers.drain(..).for_each(|(to, answer)| drop(to.send(answer)));
    }

    fn turn_away(&mut self, job: Job, why: &str) {
        drop(job.reply.send(Err(self.not_ready(why.to_owned()))));
    }

    fn rest(&mut self) {
        self.ready = None;
        heap::give_back();
        tracing::info!(
            bundle = self.bundle.name(),
            version = self.bundle.version(),
            "nobody asked it for models.idle_unload_s: its memory is given back, and it is loaded again when somebody does"
        );
    }
}

fn told(error: InferError) -> EngineError {
    match error {
        InferError::Media(error) => EngineError::Input(crate::error_chain(&error)),
        error => EngineError::Model(crate::error_chain(&error)),
    }
}

#[cfg(test)]
mod tests;
