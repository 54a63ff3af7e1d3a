//! What is told of the catalog: what is there, what is not in service and why.
//!
//! **Invariant:** reads only; each reason says which bundle, and what to do where something can be done.

use holdfast_models::Bundle;

use super::{Catalog, Entry, Found, Standing, Unusable, load_command};
use crate::engine::RefusedBundle;
use crate::engine::tensors::{ModelEntry, ModelMetadata, Readiness, TensorMetadata};

impl Catalog {
    /// What the configuration says of versions that no bundle has, as sentences.
    pub(in crate::engine) fn unmet(&self) -> Vec<String> {
        let mut unmet = Vec::new();
        for (name, versions) in &self.versions {
            let default = self.configured(name, None).map(|version| ("default", version));
            let labels = versions.labels.iter().map(|(word, version)| (&**word, &**version));
            for (word, version) in default.into_iter().chain(labels) {
                if !self.own(name).any(|entry| entry.bundle.version() == version) {
                    unmet.push(format!(
                        "models.versions.{name}: {word} is version {version}, which no bundle here \
                         has; correct it, or put that version into a bundle folder"
                    ));
                }
            }
        }
        unmet
    }

    /// What cannot be used, or is not needed now.
    pub(in crate::engine) fn refused(&self) -> Vec<RefusedBundle> {
        let unusable = self.unusable.iter().map(|Unusable { path, why, .. }| RefusedBundle {
            path: path.clone(),
            why: why.clone(),
            is_spare: false,
        });
        let entries = self.entries.iter().filter_map(|entry| {
            let (why, is_spare) = match &entry.standing {
                Standing::Serving(lane) => (lane.fault()?, false),
                Standing::Loading => return None,
                Standing::Untried(why) | Standing::Refused(why) => (why.clone(), false),
                Standing::Spare => (self.why_spare(&entry.bundle), true),
                Standing::Unloaded => ("it was unloaded".to_owned(), true),
            };
            Some(RefusedBundle { path: entry.path.clone(), why, is_spare })
        });
        unusable.chain(entries).collect()
    }

    fn why_spare(&self, bundle: &Bundle) -> String {
        let task = bundle.task();
        let lanes = self.lanes();
        match lanes.iter().find(|lane| lane.task().as_str() == task) {
            Some(lane) => format!("{} does task {task} already", lane.model()),
            None => format!("it is not needed for task {task} now"),
        }
    }

    /// Every version of every bundle, and behind them what cannot be used by the names that it says.
    pub(in crate::engine) fn index(&self) -> Vec<ModelEntry> {
        let entry = |entry: &Entry| {
            let (name, version) = (entry.bundle.name(), entry.bundle.version());
            let (state, reason) = match &entry.standing {
                Standing::Serving(lane) => match lane.fault() {
                    None => (Readiness::Ready, self.why_not_again(entry)),
                    Some(why) => (Readiness::Unavailable, why),
                },
                Standing::Loading => (Readiness::Loading, String::new()),
                Standing::Spare => {
                    (Readiness::Unavailable, "the first who names it has it loaded".to_owned())
                }
                Standing::Untried(why) | Standing::Refused(why) => {
                    (Readiness::Unavailable, why.clone())
                }
                Standing::Unloaded => (Readiness::Unavailable, "unloaded".to_owned()),
            };
            let is_default = self.default_of(name).is_some_and(|e| e.bundle.version() == version);
            let (name, version) = (name.to_owned(), version.to_owned());
            ModelEntry { name, version, state, reason, is_default }
        };
        let is_new = |unusable: &&Unusable| {
            let Unusable { claim, .. } = unusable;
            !self.entries.iter().any(|entry| entry.is(&claim.name, &claim.version))
        };
        let unusable = self.unusable.iter().filter(is_new);
        let unusable = unusable.map(|Unusable { path, claim, why }| ModelEntry {
            name: claim.name.clone(),
            version: claim.version.clone(),
            state: Readiness::Unavailable,
            reason: format!("{} cannot be used: {why}", path.display()),
            is_default: false,
        });
        self.entries.iter().map(entry).chain(unusable).collect()
    }

    /// What is wrong in the folder of a bundle that serves all the same; empty where nothing is.
    fn why_not_again(&self, entry: &Entry) -> String {
        let unusable = self.unusable.iter().find(|unusable| unusable.path == entry.path);
        let told = |Unusable { path, why, .. }: &Unusable| {
            format!("it goes on, and {} cannot be used any more: {why}", path.display())
        };
        unusable.map(told).unwrap_or_default()
    }

    /// What a bundle takes and gives.
    pub(in crate::engine) fn metadata(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Option<ModelMetadata> {
        let (bundle, platform) = match (self.find(name, version), version) {
            (Found::Lane(lane), _) => (lane.bundle().clone(), lane.choice().runtime.clone()),
            (Found::Spare(bundle), _) => (*bundle, "onnx".to_owned()),
            (Found::NotReady(_), None) => {
                (self.own(name).next()?.bundle.clone(), "onnx".to_owned())
            }
            (Found::NotReady(_), Some(word)) => {
                let version = self.configured(name, Some(word)).unwrap_or(word);
                let entry = self.own(name).find(|entry| entry.bundle.version() == version)?;
                (entry.bundle.clone(), "onnx".to_owned())
            }
            (Found::NoVersion { .. } | Found::Nothing, _) => return None,
        };
        let answering = self.own(name).filter(|entry| entry.nearness() > 0);
        Some(ModelMetadata {
            name: name.to_owned(),
            versions: answering.map(|entry| entry.bundle.version().to_owned()).collect(),
            platform,
            inputs: bundle.inputs().iter().map(TensorMetadata::of).collect(),
            outputs: bundle.outputs().iter().map(TensorMetadata::of).collect(),
        })
    }

    /// Whether a version of a bundle, by its number or a label, or its default answers; `None` where
    /// there is none.
    pub(in crate::engine) fn readiness(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Option<Readiness> {
        match self.find(name, version) {
            Found::Lane(lane) if lane.fault().is_none() => Some(Readiness::Ready),
            Found::Lane(_) | Found::NotReady(_) => Some(Readiness::Unavailable),
            Found::Spare(bundle) => {
                let is_loading = |entry: &Entry| {
                    entry.is(bundle.name(), bundle.version())
                        && matches!(entry.standing, Standing::Loading)
                };
                Some(match self.entries.iter().any(is_loading) {
                    true => Readiness::Loading,
                    false => Readiness::Unavailable,
                })
            }
            Found::NoVersion { .. } | Found::Nothing => None,
        }
    }

    /// Why nothing does a task that a bundle here is for, and what to do; `None` where none is.
    pub(in crate::engine) fn absence(&self, task: &str) -> Option<String> {
        let own = self.entries.iter().find(|entry| entry.bundle.task() == task);
        if let Some(Entry { bundle, standing, .. }) = own {
            let name = format!("bundle {}@{}", bundle.name(), bundle.version());
            let load = load_command(bundle.name());
            return Some(match standing {
                Standing::Loading => format!("{name} is being loaded; try again shortly"),
                Standing::Untried(why) => format!(
                    "{name} is tried behind the start, since tract cannot run it ({why}); try again later"
                ),
                Standing::Refused(why) => {
                    format!("{name} cannot be used: {why}; mend it, then {load}")
                }
                Standing::Unloaded => format!("{name} was unloaded; {load} brings it back"),
                Standing::Serving(_) | Standing::Spare => {
                    format!("{name} is not loaded; {load} brings it in")
                }
            });
        }
        let unusable = self.unusable.iter().find(|unusable| unusable.claim.task == task)?;
        let Unusable { path, claim, why } = unusable;
        let (path, load) = (path.display(), load_command(&claim.name));
        Some(format!("the bundle in {path} cannot be used: {why}; mend it, then {load}"))
    }

    /// Whether something is known to lie in a folder, whatever became of it.
    pub(in crate::engine) fn knows(&self, folder: &std::path::Path) -> bool {
        self.entries.iter().any(|entry| entry.path == folder)
            || self.unusable.iter().any(|unusable| unusable.path == folder)
    }
}
