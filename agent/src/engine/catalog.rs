//! Which bundles were found, and what became of each: the one state of the engine.
//!
//! **Invariant:** a name and a version stand for one bundle. Bundles stand in the configured order of
//! their names, the newest version of a name first. A task is done by the first name that serves it,
//! by the default version of that.

mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_models::Bundle;
use holdfast_models::bundle::Claim;

use super::lane::Lane;
use super::loads::Wanted;
use super::version;
use crate::config::VersionsConfig;
use crate::request::TaskName;

/// Every bundle that was found.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    entries: Vec<Entry>,
    /// Folders whose bundle cannot be used at all.
    unusable: Vec<Unusable>,
    /// What is configured of versions, by the bundle's name.
    versions: BTreeMap<String, VersionsConfig>,
}

/// A folder whose bundle cannot be used at all.
#[derive(Debug, Clone)]
pub(super) struct Unusable {
    path: PathBuf,
    /// What it says that it is.
    claim: Claim,
    why: String,
}

impl Unusable {
    /// Reads what the folder says of itself. Blocks.
    pub(super) fn new(path: PathBuf, why: String) -> Self {
        Self { claim: Claim::of(&path), path, why }
    }
}

/// What lies in the folders for a name.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) bundle: Bundle,
    /// Whether it is in service already.
    pub(super) serves: bool,
}

/// A bundle of a name that cannot be used, and would come before the one that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damaged {
    pub(super) path: PathBuf,
    /// Empty where it does not tell.
    pub(super) version: String,
    pub(super) why: String,
}

/// A bundle that is intact.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) bundle: Bundle,
    pub(super) standing: Standing,
}

/// What became of an intact bundle.
#[derive(Debug, Clone)]
pub(super) enum Standing {
    /// Nobody needed it yet: the first who names it has it loaded.
    Spare,
    /// It is being loaded.
    Loading,
    /// It answers.
    Serving(Arc<Lane>),
    /// tract cannot run it, for this reason; who can is found out behind the start.
    Untried(String),
    /// It cannot be used, for this reason.
    Refused(String),
    /// The operator took it out of service.
    Unloaded,
}

impl Standing {
    /// A lane answers from now on.
    pub(super) fn serving(lane: Lane) -> Self {
        Self::Serving(Arc::new(lane))
    }

    /// Whether a load may say what becomes of it: what serves goes on, and what was unloaded stays so.
    fn may_change(&self) -> bool {
        !matches!(self, Self::Serving(_) | Self::Unloaded)
    }

    /// Whether it comes into service as soon as it is loaded.
    pub(super) fn is_awaited(&self) -> bool {
        matches!(self, Self::Spare | Self::Loading)
    }

    /// Whether this very bundle is what answers.
    pub(super) fn serves(&self, bundle: &Bundle) -> bool {
        matches!(self, Self::Serving(lane) if lane.bundle().digest() == bundle.digest())
    }
}

/// What a caller's words for a bundle lead to.
#[derive(Debug)]
pub(super) enum Found {
    /// It answers.
    Lane(Arc<Lane>),
    /// It is to be loaded first.
    Spare(Box<Bundle>),
    /// It does not answer now, for this reason.
    NotReady(String),
    /// The bundle has no such version.
    NoVersion {
        /// What was asked for.
        version: String,
        /// What there is, labels included.
        have: String,
    },
    /// There is no such bundle.
    Nothing,
}

impl Entry {
    /// What answers for it.
    pub(super) fn lane(&self) -> Option<&Arc<Lane>> {
        match &self.standing {
            Standing::Serving(lane) => Some(lane),
            _ => None,
        }
    }

    fn is(&self, name: &str, version: &str) -> bool {
        self.bundle.name() == name && self.bundle.version() == version
    }

    fn found(&self) -> Found {
        match &self.standing {
            Standing::Serving(lane) => Found::Lane(Arc::clone(lane)),
            Standing::Spare | Standing::Loading => Found::Spare(Box::new(self.bundle.clone())),
            Standing::Untried(why) | Standing::Refused(why) => Found::NotReady(why.clone()),
            Standing::Unloaded => {
                let name = self.bundle.name();
                Found::NotReady(format!("it was unloaded; {} brings it back", load_command(name)))
            }
        }
    }

    /// How near it is to an answer; the nearest of several versions is the default.
    fn nearness(&self) -> u8 {
        match &self.standing {
            Standing::Serving(_) => 3,
            Standing::Loading => 2,
            Standing::Spare => 1,
            Standing::Untried(_) | Standing::Refused(_) | Standing::Unloaded => 0,
        }
    }
}

impl Catalog {
    /// Nothing yet.
    pub(super) fn new(versions: BTreeMap<String, VersionsConfig>) -> Self {
        Self { versions, ..Self::default() }
    }

    /// Takes in a bundle; one whose name and version are there already is not used.
    pub(super) fn add(&mut self, path: PathBuf, bundle: Bundle) {
        let (name, own_version) = (bundle.name(), bundle.version());
        if let Some(there) = self.entries.iter().find(|entry| entry.is(name, own_version)) {
            let there = there.path.display();
            let why =
                format!("{name}@{own_version} lies in {there} already; remove one of the two");
            return self.refuse_folder(Unusable::new(path, why));
        }
        let is_own = |entry: &Entry| entry.bundle.name() == name;
        let is_newer =
            |entry: &Entry| version::compare(entry.bundle.version(), own_version).is_gt();
        let at = match self.entries.iter().position(is_own) {
            None => self.entries.len(),
            Some(first) => {
                let others = self.entries[first..].iter();
                first + others.take_while(|entry| is_own(entry) && is_newer(entry)).count()
            }
        };
        self.entries.insert(at, Entry { path, bundle, standing: Standing::Spare });
    }

    /// Notes that the bundle in a folder cannot be used.
    pub(super) fn refuse_folder(&mut self, unusable: Unusable) {
        let Unusable { path, why, .. } = &unusable;
        tracing::warn!(bundle = %path.display(), %why, "bundle refused");
        self.unusable.push(unusable);
    }

    /// Notes what became of a bundle.
    pub(super) fn set(&mut self, bundle: &Bundle, standing: Standing) {
        if let Some(entry) = self.entry_mut(bundle) {
            if let Standing::Refused(why) | Standing::Untried(why) = &standing {
                tracing::warn!(bundle = %entry.path.display(), %why, "bundle refused");
            }
            entry.standing = standing;
        }
    }

    /// As [`Catalog::set`], unless the bundle stands otherwise by now; false: it does.
    pub(super) fn set_if(
        &mut self,
        bundle: &Bundle,
        is_still: impl FnOnce(&Standing) -> bool,
        standing: Standing,
    ) -> bool {
        let is_still = self.entry_mut(bundle).is_some_and(|entry| is_still(&entry.standing));
        if is_still {
            self.set(bundle, standing);
        }
        is_still
    }

    /// Notes that a bundle does not load; one before it that serves goes on, and what was unloaded
    /// stays so.
    pub(super) fn refuse(&mut self, bundle: &Bundle, why: &str) {
        self.set_if(bundle, Standing::may_change, Standing::Refused(why.to_owned()));
    }

    /// Notes that a bundle is being loaded, unless one before it serves, or it was unloaded.
    pub(super) fn begin(&mut self, bundle: &Bundle) {
        self.set_if(bundle, Standing::may_change, Standing::Loading);
    }

    /// Notes that a bundle is not being loaded any more, whatever came of it.
    pub(super) fn end(&mut self, bundle: &Bundle) {
        let entry = self.entry_mut(bundle);
        if let Some(entry) = entry.filter(|entry| matches!(entry.standing, Standing::Loading)) {
            entry.standing = Standing::Spare;
        }
    }

    /// Puts a bundle in service, in place of itself or of what serves with its name and version; false:
    /// another one lies there by now, or none.
    pub(super) fn put(&mut self, path: PathBuf, lane: Lane) -> bool {
        let bundle = lane.bundle().clone();
        let may_come = |entry: &&mut Entry| {
            entry.is(bundle.name(), bundle.version())
                && (entry.lane().is_some() || entry.bundle.digest() == bundle.digest())
        };
        let Some(entry) = self.entries.iter_mut().find(may_come) else { return false };
        *entry = Entry { path, bundle, standing: Standing::serving(lane) };
        true
    }

    /// The bundle of this version, where it is to be loaded before it answers.
    pub(super) fn spare(&self, wanted: &Wanted) -> Option<Bundle> {
        let version = wanted.version.as_deref()?;
        let entry = self.entries.iter().find(|entry| entry.is(&wanted.name, version))?;
        entry.standing.is_awaited().then(|| entry.bundle.clone())
    }

    /// The entry of this very bundle; none where another one has taken its place.
    fn entry_mut(&mut self, bundle: &Bundle) -> Option<&mut Entry> {
        let is_this = |entry: &&mut Entry| {
            entry.is(bundle.name(), bundle.version()) && entry.bundle.digest() == bundle.digest()
        };
        self.entries.iter_mut().find(is_this)
    }

    /// All bundles that are intact, in their order.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Bundles by the task that they do, in their order; of several versions of one name the one that
    /// is configured to be the default is first.
    pub(super) fn by_task(&self) -> Vec<Vec<Bundle>> {
        let mut tasks: Vec<Vec<Bundle>> = Vec::new();
        for name in self.names() {
            let mut own: Vec<_> = self.own(name).map(|entry| entry.bundle.clone()).collect();
            let configured = self.configured(name, None);
            own.sort_by_key(|bundle| Some(bundle.version()) != configured);
            for bundle in own {
                match tasks.iter_mut().find(|same| same.iter().any(|b| b.task() == bundle.task())) {
                    Some(same) => same.push(bundle),
                    None => tasks.push(vec![bundle]),
                }
            }
        }
        tasks
    }

    /// The bundles' names, in their order.
    pub(super) fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.entries.iter().map(|entry| entry.bundle.name()).collect();
        names.dedup();
        names
    }

    fn own<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a Entry> + use<'a, 'n> {
        self.entries.iter().filter(move |entry| entry.bundle.name() == name)
    }

    /// The version that the configuration means by a label, or by none.
    fn configured<'a>(&'a self, name: &str, label: Option<&'a str>) -> Option<&'a str> {
        let versions = self.versions.get(name)?;
        let word = label.or(versions.default.as_deref())?;
        Some(versions.labels.get(word).map_or(word, String::as_str))
    }

    /// The version that answers those who name none: the configured one, if it can, else the newest of
    /// those that serve.
    fn default_of(&self, name: &str) -> Option<&Entry> {
        let configured = self.configured(name, None);
        let configured = self.own(name).find(|e| Some(e.bundle.version()) == configured);
        let nearest = self.own(name).map(Entry::nearness).max()?;
        configured
            .filter(|entry| entry.nearness() == nearest)
            .or_else(|| self.own(name).find(|entry| entry.nearness() == nearest))
    }

    /// What answers those who name no version of a bundle.
    pub(super) fn default_lane(&self, name: &str) -> Option<&Arc<Lane>> {
        self.default_of(name).and_then(Entry::lane)
    }

    /// What answers for this very bundle.
    pub(super) fn lane_of(&self, bundle: &Bundle) -> Option<&Arc<Lane>> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.standing.serves(bundle)).and_then(Entry::lane)
    }

    /// What a bundle's name, and a version or a label of it, lead to.
    pub(super) fn find(&self, name: &str, version: Option<&str>) -> Found {
        let entry = match version {
            None => self.default_of(name),
            Some(word) => {
                let version = self.configured(name, Some(word)).unwrap_or(word);
                self.own(name).find(|entry| entry.bundle.version() == version)
            }
        };
        match (entry, version) {
            (Some(entry), _) => entry.found(),
            (None, Some(word)) if self.own(name).next().is_some() => {
                let versions = self.own(name).map(|entry| entry.bundle.version());
                let labels = self.versions.get(name).into_iter();
                let labels = labels.flat_map(|versions| versions.labels.keys().map(String::as_str));
                let have: Vec<_> = versions.chain(labels).collect();
                let version = word.chars().take(64).collect();
                Found::NoVersion { version, have: have.join(", ") }
            }
            (None, _) => Found::Nothing,
        }
    }

    /// What does a task.
    pub(super) fn lane(&self, task: &TaskName) -> Option<&Arc<Lane>> {
        let mut lanes = self.names().into_iter().filter_map(|name| self.default_lane(name));
        lanes.find(|lane| lane.task() == task)
    }

    /// What does each task, in the order of the tasks' names.
    pub(super) fn lanes(&self) -> Vec<Arc<Lane>> {
        let lanes = self.names().into_iter().filter_map(|name| self.default_lane(name));
        let mut lanes: Vec<_> = lanes.cloned().collect();
        // The sort keeps the order of those with one task.
        lanes.sort_by(|left, right| left.task().cmp(right.task()));
        lanes.dedup_by(|later, first| later.task() == first.task());
        lanes
    }

    /// Takes in what lies in the folders now, and says which bundle of a name is to be brought into
    /// service: `None` where none of that name can be used.
    pub(super) fn look_again(
        &mut self,
        found: Vec<(PathBuf, Bundle)>,
        faults: Vec<Unusable>,
        name: &str,
    ) -> Option<Target> {
        self.unusable.clear();
        faults.into_iter().for_each(|unusable| self.refuse_folder(unusable));
        let mut own: Vec<_> = found.iter().filter(|(_, b)| b.name() == name).cloned().collect();
        for entry in self.entries.iter_mut().filter(|entry| entry.bundle.name() == name) {
            if matches!(entry.standing, Standing::Unloaded) {
                entry.standing = Standing::Spare;
            }
        }
        for (path, bundle) in found {
            let there = self.entries.iter_mut().find(|entry| {
                entry.is(bundle.name(), bundle.version())
                    && (entry.path == path || !entry.path.is_dir())
            });
            match there {
                None => self.add(path, bundle),
                Some(entry) if entry.lane().is_some() => {}
                Some(entry) if entry.bundle.digest() == bundle.digest() => {}
                Some(entry) => *entry = Entry { path, bundle, standing: Standing::Spare },
            }
        }
        own.sort_by(|(_, left), (_, right)| version::compare(right.version(), left.version()));
        let configured = self.configured(name, None);
        let target = own.iter().find(|(_, bundle)| Some(bundle.version()) == configured);
        let (path, bundle) = target.or(own.first())?.clone();
        let serves = self.lane_of(&bundle).is_some();
        Some(Target { path, bundle, serves })
    }

    /// What lies in the folders for a name, cannot be used, and would come before `version` if it
    /// could; `None`: before nothing.
    pub(super) fn damaged(&self, name: &str, version: Option<&str>) -> Option<Damaged> {
        let configured = self.configured(name, None);
        let is_own = |unusable: &&Unusable| {
            let Unusable { path, claim, .. } = unusable;
            let is_numbered = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
            // Where the manifest does not read, its folder's name tells.
            let rest = claim.name.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
            claim.name == name
                || claim.version.is_empty() && rest.is_some_and(is_numbered)
                || self.own(name).any(|entry| entry.path == *path)
        };
        let comes_first = |unusable: &&Unusable| {
            let own = unusable.claim.version.as_str();
            version.is_none_or(|version| {
                let is_newer = own.is_empty() || version::compare(own, version).is_gt();
                Some(version) != configured && (is_newer || Some(own) == configured)
            })
        };
        let damaged = self.unusable.iter().filter(is_own).find(comes_first)?;
        let Unusable { path, claim, why } = damaged;
        let why = format!("{} cannot be used: {why}", path.display());
        Some(Damaged { path: path.clone(), version: claim.version.clone(), why })
    }

    /// Whether what answers by default for a name came out of this folder.
    pub(super) fn is_default_of(&self, name: &str, folder: &Path) -> bool {
        let default = self.default_of(name).filter(|entry| entry.lane().is_some());
        default.is_some_and(|entry| entry.path == folder)
    }

    /// Versions of a bundle beside this one that serve and have no label are let go: who names one has
    /// it loaded again. Those whose folder is gone are forgotten.
    pub(super) fn retire(&mut self, name: &str, version: &str) {
        let labels = self.versions.get(name).map(|versions| versions.labels.clone());
        let is_kept = |entry: &Entry| {
            let own = entry.bundle.version();
            entry.bundle.name() != name
                || own == version
                || labels.as_ref().is_some_and(|labels| labels.values().any(|v| v == own))
        };
        self.entries.retain(|entry| is_kept(entry) || entry.path.is_dir());
        for entry in self.entries.iter_mut().filter(|entry| !is_kept(entry)) {
            if entry.lane().is_some() {
                entry.standing = Standing::Spare;
            }
        }
    }

    /// Takes a bundle out of service, and gives what served; `None`: there is none of that name.
    pub(super) fn unload(&mut self, name: &str) -> Option<Vec<Arc<Lane>>> {
        let own = self.entries.iter_mut().filter(|entry| entry.bundle.name() == name);
        let before: Vec<Standing> =
            own.map(|entry| std::mem::replace(&mut entry.standing, Standing::Unloaded)).collect();
        let served = before.iter().filter_map(|standing| match standing {
            Standing::Serving(lane) => Some(Arc::clone(lane)),
            _ => None,
        });
        (!before.is_empty()).then(|| served.collect())
    }
}

/// How the operator has a bundle loaded.
pub(super) fn load_command(name: &str) -> String {
    format!("`holdfast-agent models load {name}`")
}
