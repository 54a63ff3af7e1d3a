//! How bundles come into service behind the start: the best way is found out and put in place of the
//! one before.
//!
//! **Invariant:** what serves goes on until what takes its place is loaded and right. What was taken out
//! of service meanwhile stays out, and nothing here keeps its memory: while a way is measured no lane is
//! held.

use std::time::Duration;

use holdfast_models::Bundle;

use super::catalog::{Entry, Standing};
use super::{Engine, Lane};
use crate::heap;
use crate::tune::Found;
use crate::tune::candidates::TRACT;
use crate::tune::choice::Choice;
use crate::tune::probe::Looked;

/// What remained unclear is tried again after this time, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10 * 60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

impl Engine {
    /// Finds out how each bundle runs best, one after the other, and puts that in service; what tract
    /// cannot run comes first. What comes into service later is measured then; what remains unclear is
    /// tried again, less and less often. Never ends.
    pub async fn tune(&self) {
        // What the loads of the start took goes back behind it, and not in the way of the first request.
        tokio::task::spawn_blocking(heap::give_back).await.ok();
        self.report_library().await;
        let mut pause = FIRST_PAUSE;
        loop {
            let is_settled = self.tune_all().await;
            let unclear = async {
                match is_settled {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                // What came during the round is known here too.
                () = self.came.notified() => pause = FIRST_PAUSE,
                () = unclear => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// One round over all bundles that are there now. False: something remained unclear.
    async fn tune_all(&self) -> bool {
        let mut is_settled = self.try_untried().await;
        // What is pinned is tried before it is used, also where nothing else is measured.
        if self.loader.config.tune || self.loader.config.pins.runtime.is_some() {
            let serves = |entry: &&Entry| entry.lane().is_some();
            let serving: Vec<Bundle> = self.bundles_that(serves);
            for bundle in serving {
                is_settled &= self.tune_bundle(&bundle).await;
            }
        }
        is_settled
    }

    /// One clear line on the library, where there is something to say.
    pub(super) async fn report_library(&self) {
        let looked = self.loader.tuning.look(&self.loader.config).await;
        let pinned = self.loader.config.pins.runtime.as_deref().filter(|name| *name != TRACT);
        let missing = match &looked {
            Ok(Looked::Found(found)) => {
                let (path, version) = (found.path.display(), found.version.as_deref());
                tracing::info!(%path, version, "ONNX Runtime is there");
                let is_there = |name: &&str| found.runtimes.iter().any(|own| own == name);
                pinned
                    .filter(|name| !is_there(name))
                    .map(|_| format!("the library {path} has only {}", found.runtimes.join(", ")))
            }
            Ok(Looked::Absent) => {
                tracing::info!("models run on tract: there is no libonnxruntime");
                pinned.map(|_| "there is no libonnxruntime".to_owned())
            }
            Ok(Looked::Broken(why)) | Err(why) => {
                tracing::warn!(%why, "models run on tract: ONNX Runtime cannot be used");
                pinned.map(|_| format!("ONNX Runtime cannot be used: {why}"))
            }
        };
        if let (Some(runtime), Some(why)) = (pinned, missing) {
            tracing::warn!(runtime, %why, "models.runtime cannot be met, models run on tract; correct it, or see `holdfast-agent runtime install`");
            drop(self.no_runtime.set(why));
        }
    }

    /// Puts bundles in service that tract cannot run. False: something remained unclear.
    pub async fn try_untried(&self) -> bool {
        let mut is_settled = true;
        for bundle in self.untried() {
            let found = self.best(&bundle).await;
            let loaded = match found.choice {
                Some(choice) => self.load_as(&bundle, choice).await,
                None => Err(found.refused.join("; ")),
            };
            let lane = loaded
                .and_then(|loaded| Lane::start(bundle.clone(), loaded, &self.loader.config, None));
            let is_untried = |standing: &Standing| matches!(standing, Standing::Untried(_));
            match lane {
                Ok(lane) => {
                    let model = lane.model().to_owned();
                    if self.write().set_if(&bundle, is_untried, Standing::serving(lane)) {
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

    /// Measures a bundle that serves, unless that was done already, and puts the best way in its place.
    /// False: something remained unclear.
    async fn tune_bundle(&self, bundle: &Bundle) -> bool {
        let way = || self.catalog().lane_of(bundle).map(|lane| lane.choice().clone());
        let Some(before) = way() else { return true };
        let found = self.best(bundle).await;
        let Some(choice) = found.choice.filter(|choice| *choice != before) else {
            return found.is_settled;
        };
        // It may have gone while it was measured.
        if way().is_none() {
            return found.is_settled;
        }
        let next = self.load_as(bundle, choice.clone()).await.and_then(|loaded| {
            let before = self.catalog().lane_of(bundle).cloned();
            Lane::start(bundle.clone(), loaded, &self.loader.config, before.as_deref())
        });
        match next {
            Ok(next) => {
                let model = next.model().to_owned();
                let is_this = |standing: &Standing| standing.serves(bundle);
                if self.write().set_if(bundle, is_this, Standing::serving(next)) {
                    tracing::info!(model, "in service");
                }
            }
            Err(why) => {
                tracing::warn!(bundle = bundle.name(), %choice, %why, "does not load; what ran before goes on");
            }
        }
        found.is_settled
    }

    /// The best way to run a bundle, as it is on record, or as it is measured now.
    async fn best(&self, bundle: &Bundle) -> Found {
        match self.stored(bundle).await {
            Some(choice) => Found { choice: Some(choice), refused: Vec::new(), is_settled: true },
            None => self.measured(bundle).await,
        }
    }

    /// Tries every way to run a bundle. One bundle at a time: two would slow each other down, and be
    /// measured wrongly.
    pub(super) async fn measured(&self, bundle: &Bundle) -> Found {
        let _alone = self.measuring.lock().await;
        self.loader.tuning.tune(bundle, &self.loader.config).await
    }

    /// What was measured to be the best way to run a bundle, if it still counts.
    pub(super) async fn stored(&self, bundle: &Bundle) -> Option<Choice> {
        let (loader, bundle) = (self.loader.clone(), bundle.clone());
        let stored = move || loader.tuning.stored(&bundle, &loader.config);
        tokio::task::spawn_blocking(stored).await.ok().flatten()
    }
}
