//! How bundles come into service behind the start: the best way is found out and put in place of the
//! one before.
//!
//! **Invariant:** what serves goes on until what takes its place is loaded and right. What was taken out
//! of service meanwhile stays out.

use std::sync::Arc;
use std::time::Duration;

use holdfast_models::Bundle;

use super::catalog::Standing;
use super::loader::Loaded;
use super::{Engine, Lane, panicked};
use crate::tune::choice::Choice;
use crate::tune::probe::Looked;

/// What remained unclear is tried again after this time, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

impl Engine {
    /// Finds out how each bundle runs best, one after the other, and puts that in service; what tract
    /// cannot run comes first. What remains unclear is tried again later, less and less often.
    pub async fn tune(&self) {
        self.report_library().await;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut is_settled = self.try_untried().await;
            // What is pinned is tried before it is used, also where nothing else is measured.
            if self.loader.config.tune || self.loader.config.pins.runtime.is_some() {
                for lane in self.lanes() {
                    is_settled &= self.tune_lane(&lane).await;
                }
            }
            if is_settled {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One clear line on the library, where there is something to say.
    async fn report_library(&self) {
        match self.loader.tuning.look(&self.loader.config).await {
            Ok(Looked::Found(found)) => {
                let (path, version) = (found.path.display(), found.version.as_deref());
                tracing::info!(%path, version, "ONNX Runtime is there");
            }
            Ok(Looked::Absent) => {
                tracing::info!("models run on tract: there is no libonnxruntime");
            }
            Ok(Looked::Broken(why)) | Err(why) => {
                tracing::warn!(%why, "models run on tract: ONNX Runtime cannot be used");
            }
        }
    }

    /// Puts bundles in service that tract cannot run. False: something remained unclear.
    pub async fn try_untried(&self) -> bool {
        let mut is_settled = true;
        for bundle in self.untried() {
            let found = self.loader.tuning.tune(&bundle, &self.loader.config).await;
            let loaded = match found.choice {
                Some(choice) => self.load_as(&bundle, choice).await,
                None => Err(found.refused.join("; ")),
            };
            let lane = loaded
                .and_then(|loaded| Lane::start(bundle.clone(), loaded, &self.loader.config, None));
            let is_untried = |standing: &Standing| matches!(standing, Standing::Untried(_));
            match lane {
                Ok(lane) => {
                    let (model, lane) =
                        (lane.model().to_owned(), Standing::Serving(Arc::new(lane)));
                    if self.write().set_if(&bundle, is_untried, lane) {
                        tracing::info!(model, "in service");
                    }
                }
                Err(why) => {
                    is_settled &= found.is_settled;
                    let standing = match found.is_settled {
                        true => Standing::Refused,
                        false => Standing::Untried,
                    };
                    let standing = standing(format!("no way to run it can be used: {why}"));
                    self.write().set_if(&bundle, is_untried, standing);
                }
            }
        }
        is_settled
    }

    /// Measures a bundle in service, unless that was done already, and puts the best way in its place.
    /// False: something remained unclear.
    async fn tune_lane(&self, lane: &Arc<Lane>) -> bool {
        let bundle = lane.bundle();
        let (tuning, owned, models) =
            (self.loader.tuning.clone(), bundle.clone(), self.loader.config.clone());
        let stored = tokio::task::spawn_blocking(move || tuning.stored(&owned, &models)).await;
        if stored.ok().flatten().is_some_and(|choice| choice == *lane.choice()) {
            return true;
        }
        let found = self.loader.tuning.tune(bundle, &self.loader.config).await;
        let Some(choice) = found.choice.filter(|choice| choice != lane.choice()) else {
            return found.is_settled;
        };
        let loaded = self.load_as(bundle, choice.clone()).await;
        let next = loaded.and_then(|loaded| {
            Lane::start(bundle.clone(), loaded, &self.loader.config, Some(lane))
        });
        match next {
            Ok(next) => {
                let (model, next) = (next.model().to_owned(), Standing::Serving(Arc::new(next)));
                let is_this = |standing: &Standing| match standing {
                    Standing::Serving(serving) => Arc::ptr_eq(serving, lane),
                    _ => false,
                };
                if self.write().set_if(bundle, is_this, next) {
                    tracing::info!(model, "in service");
                }
            }
            Err(why) => {
                tracing::warn!(bundle = lane.name(), %choice, %why, "does not load; what ran before goes on");
            }
        }
        found.is_settled
    }

    pub(super) async fn load_as(&self, bundle: &Bundle, choice: Choice) -> Result<Loaded, String> {
        let loader = self.loader.clone();
        let bundle = bundle.clone();
        let loading = tokio::task::spawn_blocking(move || loader.load_as(&bundle, choice));
        loading.await.unwrap_or_else(|panic| Err(panicked(&panic)))
    }
}
