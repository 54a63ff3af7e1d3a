//! Finds out which variant, runtime and number of threads runs a bundle fastest on this board.
//!
//! At the first start of a bundle on a board a safe default serves: its first variant that tract runs.
//! Behind it every other way is tried in a process of its own ([`probe`]), the best is put in service
//! without a gap, and remembered ([`record`]) until bundle, board, library, agent or configuration
//! change.
//!
//! **Invariant:** this process loads a libonnxruntime, or a graph on it, only after a child did and
//! survived; and what ended this process while it was loaded is not loaded again untried. A
//! [careful](Tuning::careful) one does the same with graphs on tract (`first_load.rs`).

pub mod candidates;
pub mod choice;
mod first_load;
pub mod graph;
pub mod library;
pub mod probe;
pub mod record;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_models::Bundle;

use self::candidates::{TRACT, candidates, choose};
use self::choice::{Choice, Outcome, Tried};
use self::first_load::{Ended, FirstLoads};
use self::probe::{ChildError, Looked, Program};
use self::record::{Record, Tuned, fingerprint, write_json};
use crate::config::ModelsConfig;

/// The file in the state folder.
const FILE: &str = "tuning.json";
/// In the state folder, a file for each bundle that is being loaded on ONNX Runtime.
const LOADING: &str = "loading";
/// In the state folder, what became of first loads.
const FIRST_LOADS: &str = "first_loads.json";
/// A start waits for first loads this part of the time that a child may take.
const PATIENCE: u32 = 12;

/// The tuning of one device.
#[derive(Debug)]
pub struct Tuning {
    program: Option<Program>,
    state_dir: PathBuf,
    record: Mutex<Record>,
    first_loads: Mutex<FirstLoads>,
    /// Whoever writes them has this.
    writing: Mutex<()>,
    is_careful: bool,
}

/// What trying every way led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The best way; none where nothing can be used.
    pub choice: Option<Choice>,
    /// Why nothing can be used.
    pub refused: Vec<String>,
    /// Nothing remained unclear: it need not be tried again.
    pub is_settled: bool,
}

impl Tuning {
    /// The tuning that a state folder has; `program` is what tries the rest, if anything is to.
    pub fn open(program: Option<Program>, state_dir: &Path) -> Self {
        Self {
            program,
            state_dir: state_dir.to_owned(),
            record: Mutex::new(Record::read(&state_dir.join(FILE))),
            first_loads: Mutex::new(FirstLoads::read(&state_dir.join(FIRST_LOADS))),
            writing: Mutex::default(),
            is_careful: false,
        }
    }

    /// The same for a process that is to go on whatever it loads: a graph that was never loaded on tract
    /// on this machine is loaded in a child first.
    #[must_use]
    pub fn careful(self) -> Self {
        Self { is_careful: self.program.is_some(), ..self }
    }

    /// How long a start waits for bundles that are loaded in a child first; `None`: none is.
    pub fn patience(&self) -> Option<Duration> {
        let program = self.program.as_ref().filter(|_| self.is_careful)?;
        Some(program.within / PATIENCE)
    }

    /// Has a child load a variant on tract, where that was never done on this machine by this build.
    /// Whether it can be used is not asked: what is tried on ONNX Runtime is measured in a child.
    ///
    /// # Errors
    /// It did a process harm, now or before; as a sentence.
    pub async fn try_first(
        self: &Arc<Self>,
        bundle: &Bundle,
        choice: &Choice,
    ) -> Result<(), String> {
        if choice.runtime != TRACT {
            return Ok(());
        }
        let variant = choice.variant.as_str();
        let known = self.first_loads().of(bundle, variant).cloned();
        if let Some(ended) = known {
            return harmless(bundle, choice, &ended);
        }
        let Some(program) = self.program.as_ref().filter(|_| self.is_careful) else {
            return Ok(());
        };
        let ended = match program.load_first(bundle.dir(), variant).await {
            Ok(()) => Ended::Survived,
            Err(error) if error.is_harm() => Ended::Harmed(error.to_string()),
            Err(error @ ChildError::NotStarted(_)) => {
                tracing::warn!(bundle = bundle.name(), %choice, %error, "it cannot be tried in a process of its own, and is loaded untried");
                return Ok(());
            }
            Err(error) => return Err(format!("{choice}: {error}")),
        };
        self.note_first_load(bundle, variant, ended.clone()).await;
        harmless(bundle, choice, &ended)
    }

    /// What a bundle did to a process that loaded it does not count any more.
    pub async fn try_again(self: &Arc<Self>, bundle: &Bundle) {
        let is_changed = self.first_loads().forget_harm(bundle);
        if is_changed {
            self.keep_first_loads().await;
        }
    }

    async fn note_first_load(self: &Arc<Self>, bundle: &Bundle, variant: &str, ended: Ended) {
        let is_changed = self.first_loads().put(bundle, variant, ended);
        if is_changed {
            self.keep_first_loads().await;
        }
    }

    async fn keep_first_loads(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            let _one = this.writing.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = this.first_loads().clone();
            let file = this.state_dir.join(FIRST_LOADS);
            if let Err(error) = write_json(&file, &kept) {
                tracing::warn!(file = %file.display(), %error, "what was loaded for the first time cannot be kept, and is tried again after a restart");
            }
        });
        kept.await.ok();
    }

    fn first_loads(&self) -> MutexGuard<'_, FirstLoads> {
        // Whoever panicked left a whole record.
        self.first_loads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what an agent was loading when it ended: it may have been ended by it. Called by the
    /// agent alone, before it loads anything. Blocks.
    pub fn recover(&self) {
        let dir = self.state_dir.join(LOADING);
        let entries = std::fs::read_dir(&dir).into_iter().flatten();
        for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
            let bundle = name.unwrap_or_default();
            tracing::warn!(
                bundle,
                "the agent ended while it loaded this bundle on ONNX Runtime; it is tried again in a process of its own"
            );
            self.forget_key(&bundle);
            // What cannot be removed is forgotten again at the next start.
            std::fs::remove_file(path).ok();
        }
    }

    /// What was measured to be the best way to run this bundle, if it still counts. Blocks.
    pub fn stored(&self, bundle: &Bundle, models: &ModelsConfig) -> Option<Choice> {
        let fingerprint = fingerprint(bundle, models);
        self.record().of(bundle, &fingerprint).map(|tuned| tuned.choice.clone())
    }

    /// The memory that a way to run a bundle was measured to take at most, in KiB. Blocks.
    pub fn peak_kib(&self, bundle: &Bundle, models: &ModelsConfig, choice: &Choice) -> Option<u64> {
        let fingerprint = fingerprint(bundle, models);
        let record = self.record();
        let tried = &record.of(bundle, &fingerprint)?.tried;
        let measured = tried.iter().find(|tried| tried.choice == *choice)?.measured()?;
        Some(measured.peak_kib)
    }

    /// What was measured of a bundle does not count any more. Blocks.
    pub fn forget(&self, bundle: &Bundle) {
        self.forget_key(&record::key(bundle));
    }

    fn forget_key(&self, key: &str) {
        let record = {
            let mut record = self.record();
            record.forget(key);
            record.clone()
        };
        self.keep(&record);
    }

    /// Notes that a bundle is being loaded on ONNX Runtime, until the note is dropped. Blocks.
    pub fn loading(&self, bundle: &Bundle) -> Loading {
        let dir = self.state_dir.join(LOADING);
        let file = dir.join(record::key(bundle));
        // On a disk that cannot be written, a crash repeats until somebody looks.
        std::fs::create_dir_all(&dir)
            .and_then(|()| crate::whole_file::write(&file, b"", 0o644))
            .ok();
        Loading { file }
    }

    /// Tries every way to run a bundle and remembers the best.
    pub async fn tune(self: &Arc<Self>, bundle: &Bundle, models: &ModelsConfig) -> Found {
        let before = self.fingerprint(bundle, models).await;
        let tried = self.try_all(bundle, models, |_| {}).await;
        let mut refused = Vec::new();
        let mut is_settled = !tried.is_empty();
        for Tried { choice, outcome } in &tried {
            if let Outcome::Refused(why) | Outcome::Unclear(why) = outcome {
                tracing::info!(bundle = bundle.name(), %choice, %why, "cannot be used");
                refused.push(format!("{choice}: {why}"));
            }
            is_settled &= !matches!(outcome, Outcome::Unclear(_));
        }
        let choice = choose(&tried, bundle.variants(), models.limits).map(|t| t.choice.clone());
        let Some(choice) = choice else {
            tracing::warn!(
                bundle = bundle.name(),
                ?refused,
                "no way to run it that was tried can be used, or none fits models.max_memory_mib"
            );
            return Found { choice: None, refused, is_settled };
        };
        // What changed while it was measured was not measured.
        is_settled &= before == self.fingerprint(bundle, models).await;
        tracing::info!(bundle = bundle.name(), %choice, tried = tried.len(), is_settled, "measured and chosen");
        if is_settled {
            let tuned = Tuned { fingerprint: before, choice: choice.clone(), tried };
            let (this, bundle) = (Arc::clone(self), bundle.clone());
            let kept = tokio::task::spawn_blocking(move || {
                let record = {
                    let mut record = this.record();
                    record.put(&bundle, tuned);
                    record.clone()
                };
                this.keep(&record);
            });
            kept.await.ok();
        }
        Found { choice: Some(choice), refused, is_settled }
    }

    async fn fingerprint(&self, bundle: &Bundle, models: &ModelsConfig) -> String {
        let (bundle, models) = (bundle.clone(), models.clone());
        let text = tokio::task::spawn_blocking(move || fingerprint(&bundle, &models)).await;
        text.unwrap_or_default()
    }

    /// Tries every way to run a bundle, one after the other.
    pub async fn try_all(
        self: &Arc<Self>,
        bundle: &Bundle,
        models: &ModelsConfig,
        mut tell: impl FnMut(&Choice),
    ) -> Vec<Tried> {
        let Some(program) = &self.program else { return Vec::new() };
        let looked = self.look(models).await;
        let runtimes = match &looked {
            Ok(Looked::Found(found)) => found.runtimes.clone(),
            Ok(Looked::Absent | Looked::Broken(_)) | Err(_) => Vec::new(),
        };
        let mut all = Vec::new();
        for choice in candidates(bundle.variants(), &runtimes, cores(), &models.pins) {
            tell(&choice);
            let outcome = self.measure(program, bundle, &choice, models).await;
            all.push(Tried { choice, outcome });
        }
        // A library that could not be looked at now may be there later.
        if let (Err(why), Some(variant)) = (looked, bundle.variants().first()) {
            let (variant, threads) = (variant.name.clone(), NonZeroUsize::MIN);
            let choice = Choice { variant, runtime: "onnxruntime".to_owned(), threads };
            all.push(Tried { choice, outcome: Outcome::Unclear(why) });
        }
        all
    }

    /// Measures a choice. What a graph does to the child on tract counts as its first load.
    async fn measure(
        self: &Arc<Self>,
        program: &Program,
        bundle: &Bundle,
        choice: &Choice,
        models: &ModelsConfig,
    ) -> Outcome {
        let is_first = self.is_careful && choice.runtime == TRACT;
        let known = self.first_loads().of(bundle, &choice.variant).cloned();
        if let Some(ended) = known.filter(|_| is_first)
            && let Err(why) = harmless(bundle, choice, &ended)
        {
            return Outcome::Refused(why);
        }
        let measured = program.probe(bundle.dir(), choice, &models.onnxruntime).await;
        let ended = match &measured {
            Ok(_) => Some(Ended::Survived),
            Err(error) => error.is_harm().then(|| Ended::Harmed(error.to_string())),
        };
        if let Some(ended) = ended.filter(|_| is_first) {
            self.note_first_load(bundle, &choice.variant, ended).await;
        }
        measured.map_or_else(|error| error.outcome(), Outcome::Measured)
    }

    /// What the library can do that the configuration means, found out by a child.
    ///
    /// # Errors
    /// It cannot be found out now; as a sentence.
    pub async fn look(&self, models: &ModelsConfig) -> Result<Looked, String> {
        match &self.program {
            Some(program) => program.look(&models.onnxruntime).await,
            None => Err("this program cannot start itself".to_owned()),
        }
    }

    fn keep(&self, record: &Record) {
        let file = self.state_dir.join(FILE);
        if let Err(error) = record.write(&file) {
            tracing::warn!(file = %file.display(), %error, "what was measured cannot be kept, and is measured again after a restart");
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Whoever panicked left a whole record.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn harmless(bundle: &Bundle, choice: &Choice, ended: &Ended) -> Result<(), String> {
    match ended {
        Ended::Survived => Ok(()),
        Ended::Harmed(why) => Err(format!(
            "{choice}: {why} when it was loaded for the first time, and is not loaded again; \
             `holdfast-agent models load {}` tries it once more",
            bundle.name()
        )),
    }
}

/// A bundle is being loaded.
#[derive(Debug)]
pub struct Loading {
    file: PathBuf,
}

impl Drop for Loading {
    fn drop(&mut self) {
        // A note that stays costs a measurement.
        std::fs::remove_file(&self.file).ok();
    }
}

/// The memory that a variant takes by an estimate, in KiB, for where nothing measures it: its graph
/// twice, as it is read and as a runtime keeps it, and its inputs and outputs.
pub(crate) fn estimated_kib(bundle: &Bundle, variant: &str) -> u64 {
    let tensors = bundle.inputs().iter().chain(bundle.outputs());
    let tensors = tensors.map(|spec| spec.size().saturating_mul(spec.dtype.bytes()));
    let tensors = tensors.fold(0, usize::saturating_add);
    let graph = bundle.file_bytes(variant).unwrap_or(0).saturating_mul(2);
    graph.saturating_add(u64::try_from(tensors).unwrap_or(u64::MAX)).div_ceil(1024)
}

/// Cores that this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
