//! Finds out which variant, runtime and number of threads runs a bundle fastest on this board.
//!
//! At the first start of a bundle on a board a safe default serves: its first variant that tract runs.
//! Behind it every other way is tried in a process of its own ([`probe`]), the best is put in service
//! without a gap, and remembered ([`record`]) until bundle, board, library, agent or configuration
//! change.
//!
//! **Invariant:** this process loads a libonnxruntime, or a graph on it, only after a child did and
//! survived.

pub mod candidates;
pub mod choice;
pub mod library;
pub mod probe;
pub mod record;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_models::Bundle;

use self::candidates::{candidates, choose};
use self::choice::{Choice, Outcome, Tried};
use self::probe::{Found, Program};
use self::record::{Record, Tuned, fingerprint};
use crate::config::ModelsConfig;

/// The file in the state folder.
const FILE: &str = "tuning.json";

/// The tuning of one device.
#[derive(Debug)]
pub struct Tuning {
    program: Option<Program>,
    file: PathBuf,
    record: Mutex<Record>,
}

impl Tuning {
    /// The tuning that a state folder has; `program` is what tries the rest, if anything is to.
    pub fn open(program: Option<Program>, state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let record = Mutex::new(Record::read(&file));
        Self { program, file, record }
    }

    /// What was measured to be the best way to run this bundle, if it still counts.
    pub fn stored(&self, bundle: &Bundle, models: &ModelsConfig) -> Option<Choice> {
        let fingerprint = fingerprint(bundle, models);
        self.record().of(bundle, &fingerprint).map(|tuned| tuned.choice.clone())
    }

    /// Tries every way to run a bundle and remembers the best; `None` where none can be used.
    pub async fn tune(&self, bundle: &Bundle, models: &ModelsConfig) -> Option<Choice> {
        let fingerprint = fingerprint(bundle, models);
        let tried = self.try_all(bundle, models, |_| {}).await;
        for tried in &tried {
            if let Outcome::Refused(why) = &tried.outcome {
                tracing::info!(bundle = bundle.name(), choice = %tried.choice, %why, "cannot be used");
            }
        }
        let choice = choose(&tried, bundle.variants(), models.limits)?.choice.clone();
        tracing::info!(bundle = bundle.name(), %choice, tried = tried.len(), "measured and chosen");
        let tuned = Tuned { fingerprint, choice: choice.clone(), tried };
        if let Err(error) = self.record().put(&self.file, bundle, tuned) {
            tracing::warn!(file = %self.file.display(), %error, "what was measured cannot be kept, and is measured again after a restart");
        }
        Some(choice)
    }

    /// Tries every way to run a bundle, one after the other.
    pub async fn try_all(
        &self,
        bundle: &Bundle,
        models: &ModelsConfig,
        mut tell: impl FnMut(&Choice),
    ) -> Vec<Tried> {
        let Some(program) = &self.program else { return Vec::new() };
        let runtimes = match self.library(models).await {
            Ok(found) => found.runtimes,
            Err(_) => Vec::new(),
        };
        let mut all = Vec::new();
        for choice in candidates(bundle.variants(), &runtimes, cores(), &models.pins) {
            tell(&choice);
            let outcome = match program.probe(bundle.dir(), &choice, &models.onnxruntime).await {
                Ok(measured) => Outcome::Measured(measured),
                Err(why) => Outcome::Refused(why),
            };
            all.push(Tried { choice, outcome });
        }
        all
    }

    /// What the library can do that the configuration means, found out by a child.
    ///
    /// # Errors
    /// There is none, or it cannot be used; as a sentence.
    pub async fn library(&self, models: &ModelsConfig) -> Result<Found, String> {
        match &self.program {
            Some(program) => program.probe_library(&models.onnxruntime).await,
            None => Err("this program cannot start itself".to_owned()),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // Whoever panicked left a whole record.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}
