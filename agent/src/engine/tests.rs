//! Bundles that come, go and are measured at the same time. What measures is a script that says when it
//! was asked, and answers when it is let.

pub(super) mod deadline;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use self::deadline::{LONG, until, within};
use super::*;
use crate::config::Config;
use crate::tune::probe::Program;

const NAME: &str = "voice-commands";
/// Its variants, on tract alone.
const WAYS: usize = 2;

/// A first load goes as the file `first` says. A way to run a bundle is measured when the file `open` is
/// there, and is refused where the bundle's folder is named in `bad`.
const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
case " $* " in
*" probe library "*)
    echo 'holdfast-probe: "absent"'
    exit 0;;
*" probe load "*)
    echo loaded >> "$here/loaded"
    case $(cat "$here/first" 2>/dev/null) in
    crash) kill -SEGV $$;;
    killed) kill -KILL $$;;
    hang) exec sleep 60;;
    esac
    echo 'holdfast-probe: null'
    exit 0;;
esac
echo asked >> "$here/asked"
left=6000
while [ ! -e "$here/open" ] && [ $left -gt 0 ]; do sleep 0.01; left=$((left - 1)); done
for bad in $(cat "$here/bad" 2>/dev/null); do
    case " $* " in *"/$bad "*) echo "error: $bad is bad" >&2; exit 1;; esac
done
echo 'holdfast-probe: {"load_ms":1.0,"p50_ms":1.0,"p99_ms":1.0,"peak_kib":1024,"off":0.0,"count":1}'
"#;

struct Device {
    dir: TempDir,
    engine: Engine,
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/bundles").join(NAME)
}

impl Device {
    /// A device whose folder has the bundle, or nothing yet.
    async fn start(has_bundle: bool, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("measure");
        std::fs::write(&script, SCRIPT).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(dir.path().join("bundles")).unwrap();
        if has_bundle {
            symlink(shipped(), dir.path().join("bundles").join(NAME)).unwrap();
        }
        let engine = Self::engine(dir.path(), more, LONG * 2).await;
        Self { dir, engine }
    }

    /// The engine of a device, with children that may take so long.
    async fn engine(dir: &Path, more: &str, children: Duration) -> Engine {
        let text = format!(
            "[models]\nbundles = [{:?}]\nonnxruntime = \"off\"\n{more}",
            dir.join("bundles")
        );
        let config = Config::parse("test", &text, []).unwrap().models;
        let program = Program::at(dir.join("measure")).within(children);
        let tuning = Tuning::open(Some(program), &dir.join("state")).careful();
        within(Engine::start(&config, &Arc::new(tuning))).await
    }

    /// The same device, started again.
    async fn again(&self, children: Duration) -> Engine {
        Self::engine(self.dir.path(), "tune = false\n", children).await
    }

    fn put(&self) {
        symlink(shipped(), self.dir.path().join("bundles").join(NAME)).unwrap();
    }

    /// The bundle as a copy with another text in its manifest.
    fn put_changed(&self) {
        self.put_copy(NAME, |manifest| manifest + "# changed\n");
    }

    /// The bundle as a copy of another version, in a folder of that name.
    fn put_version(&self, version: &str) {
        let own = format!("\nversion = \"{version}\"\n");
        self.put_copy(version, |manifest| manifest.replacen("\nversion = \"1.0.0\"\n", &own, 1));
    }

    fn put_copy(&self, folder: &str, change: impl FnOnce(String) -> String) {
        let to = self.dir.path().join("bundles").join(folder);
        std::fs::remove_file(&to).ok();
        std::fs::create_dir_all(to.join("samples")).unwrap();
        for from in ["", "samples"] {
            for entry in std::fs::read_dir(shipped().join(from)).unwrap() {
                let path = entry.unwrap().path();
                if path.is_file() {
                    std::fs::copy(&path, to.join(from).join(path.file_name().unwrap())).unwrap();
                }
            }
        }
        let manifest = std::fs::read_to_string(to.join("bundle.toml")).unwrap();
        std::fs::write(to.join("bundle.toml"), change(manifest)).unwrap();
    }

    /// What the script goes by, see there.
    fn say(&self, file: &str, text: &str) {
        std::fs::write(self.dir.path().join(file), text).unwrap();
    }

    fn lines_of(&self, file: &str) -> usize {
        let text = std::fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        text.lines().count()
    }

    /// How often a way to run a bundle was asked for.
    fn asked(&self) -> usize {
        self.lines_of("asked")
    }

    /// How often a variant was loaded for the first time.
    fn loaded(&self) -> usize {
        self.lines_of("loaded")
    }

    async fn until_asked(&self, count: usize) {
        until("it is measured", || self.asked() >= count).await;
    }

    fn let_measure(&self) {
        self.say("open", "");
    }

    /// Has the bundle loaded, on a task of its own.
    fn load(&self) -> tokio::task::JoinHandle<Result<(), EngineError>> {
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.load(NAME).await })
    }

    fn tune(&self) -> tokio::task::JoinHandle<()> {
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.tune().await })
    }

    fn state(&self) -> Option<Readiness> {
        self.engine.catalog().readiness(NAME, None)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_unloaded_while_it_is_measured_is_gone_at_once_and_stays_so() {
    let device = Device::start(true, "").await;
    let tuning = device.tune();
    device.until_asked(1).await;
    let held = device.engine.lanes()[0].held();
    within(device.engine.unload(NAME)).await.unwrap();
    assert_eq!(held.strong_count(), 0, "nobody keeps its memory, although it is still measured");
    assert_eq!(device.asked(), 1);
    device.let_measure();
    device.until_asked(WAYS).await;
    // Whoever measures next has waited for this one.
    drop(within(device.engine.measuring.lock()).await);
    assert_eq!(device.state(), Some(Readiness::Unavailable), "it does not come back by itself");
    within(device.engine.load(NAME)).await.unwrap();
    assert_eq!(device.state(), Some(Readiness::Ready));
    tuning.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_comes_while_the_agent_runs_is_measured_too() {
    let device = Device::start(false, "").await;
    let measuring = device.tune();
    device.let_measure();
    device.put();
    within(device.engine.load(NAME)).await.unwrap();
    device.until_asked(WAYS).await;
    let bundle = device.engine.lanes()[0].bundle().clone();
    let (tuning, config) = (&device.engine.loader.tuning, &device.engine.loader.config);
    until("it is on record", || tuning.stored(&bundle, config).is_some()).await;
    measuring.abort();
}

/// With a memory limit a bundle is measured before it comes in, which takes its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_whose_caller_goes_away_is_joined_by_the_next() {
    let device = Device::start(false, "max_memory_mib = 1000\n").await;
    device.put();
    {
        let first = device.engine.load(NAME);
        tokio::pin!(first);
        tokio::select! {
            _ = &mut first => unreachable!("it is measured"),
            () = device.until_asked(1) => {}
        }
    }
    let second = device.load();
    assert_eq!(device.state(), Some(Readiness::Loading), "nobody waits, and it goes on");
    device.let_measure();
    within(second).await.unwrap().unwrap();
    assert_eq!((device.state(), device.asked()), (Some(Readiness::Ready), WAYS), "measured once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_unloaded_while_it_is_loaded_does_not_come_in() {
    let device = Device::start(false, "max_memory_mib = 1000\n").await;
    device.put();
    let loading = device.load();
    device.until_asked(1).await;
    within(device.engine.unload(NAME)).await.unwrap();
    device.let_measure();
    let error = within(loading).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("taken out of service meanwhile"), "{error}");
    assert_eq!(device.state(), Some(Readiness::Unavailable));
}

/// Neither does it come in after the next load was begun, in which it would take the place of what that
/// one brings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_was_given_up_does_not_come_in_later() {
    let device = Device::start(false, "max_memory_mib = 1000\n").await;
    device.put();
    let first = device.load();
    device.until_asked(1).await;
    within(device.engine.unload(NAME)).await.unwrap();
    device.put_version("1.1.0");
    let second = device.load();
    until("it is begun", || device.state() == Some(Readiness::Loading)).await;
    device.let_measure();
    let error = within(first).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("taken out of service meanwhile"), "{error}");
    within(second).await.unwrap().unwrap();
    let serving: Vec<_> =
        device.engine.all_lanes().iter().map(|l| l.version().to_owned()).collect();
    assert_eq!(serving, ["1.1.0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_fails_after_it_was_given_up_says_nothing_of_the_bundle() {
    let device = Device::start(false, "max_memory_mib = 1000\n").await;
    device.put();
    device.say("bad", NAME);
    let loading = device.load();
    device.until_asked(1).await;
    within(device.engine.unload(NAME)).await.unwrap();
    device.let_measure();
    within(loading).await.unwrap().unwrap_err();
    assert_eq!(device.engine.index()[0].reason, "unloaded");
}

/// What somebody else asked for was another version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_a_load_that_fails_has_what_lies_there_by_then_loaded() {
    let device = Device::start(false, "max_memory_mib = 1000\n").await;
    device.put();
    device.say("bad", NAME);
    let first = device.load();
    device.until_asked(1).await;
    device.put_version("1.1.0");
    let engine = device.engine.clone();
    let mut second = Box::pin(engine.load(NAME));
    assert!(futures_util::poll!(&mut second).is_pending(), "it has joined the first");
    device.let_measure();
    let error = within(first).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("is bad"), "{error}");
    within(second).await.unwrap();
    assert_eq!(device.engine.lanes()[0].version(), "1.1.0");
}

/// A device with the bundle in its catalog, which nobody needed yet.
async fn with_a_spare() -> Device {
    let device = Device::start(false, "").await;
    device.put();
    let (found, faults) = device.engine.look_again().await;
    device.engine.write().look_again(found, faults, NAME).unwrap();
    device
}

/// Who waited for others to be loaded gets what its name leads to then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_gets_what_is_there_by_then() {
    let device = with_a_spare().await;
    let one = device.engine.loading.clone().lock_owned().await;
    let (engine, by) = (device.engine.clone(), tokio::time::Instant::now() + LONG);
    let waking = tokio::spawn(async move { engine.awake(NAME, None, by).await });
    until("it has found the bundle as it was", || device.engine.loads.has(NAME)).await;
    device.put_changed();
    let (found, faults) = device.engine.look_again().await;
    let target = device.engine.write().look_again(found, faults, NAME).unwrap();
    drop(one);
    let lane = within(waking).await.unwrap().unwrap();
    assert_eq!(lane.bundle().digest(), target.bundle.digest());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_late_has_it_loaded_for_whoever_comes_next() {
    let device = with_a_spare().await;
    let one = device.engine.loading.clone().lock_owned().await;
    let now = tokio::time::Instant::now();
    let error = within(device.engine.awake(NAME, None, now)).await.unwrap_err();
    assert!(matches!(error, EngineError::Late { .. }), "{error}");
    drop(one);
    until("it is loaded all the same", || device.state() == Some(Readiness::Ready)).await;
}

#[tokio::test]
async fn what_is_pinned_and_not_there_is_told() {
    let pins = "variant = \"fp16\"\nruntime = \"onnxruntime\"\n";
    let versions = "[models.versions.voice-commands]\ndefault = \"9.9.9\"\n";
    let device = Device::start(true, &format!("{pins}{versions}")).await;
    device.engine.report_library().await;
    let unmet = device.engine.unmet();
    for want in [
        "default is version 9.9.9",
        "models.variant = \"fp16\": voice-commands@1.0.0 has no such variant",
        "models.runtime = \"onnxruntime\": voice-commands@1.0.0 runs on tract meanwhile: there is no libonnxruntime",
    ] {
        assert!(unmet.iter().any(|told| told.contains(want)), "{want}: {unmet:?}");
    }
    let fine = Device::start(true, "variant = \"fp32\"\nruntime = \"tract\"\n").await;
    assert_eq!(fine.engine.unmet(), [""; 0]);
    assert_eq!(fine.engine.lanes()[0].choice().variant, "fp32");
}

/// What nothing measured counts by an estimate: its graph of 0.8 MiB, as it is read and as it is kept.
#[tokio::test]
async fn what_was_not_measured_is_held_to_the_memory_limit_by_an_estimate() {
    let device = Device::start(false, "max_memory_mib = 1\nvariant = \"int8\"\n").await;
    let large = shipped().with_file_name("voice-commands-large");
    symlink(large, device.dir.path().join("bundles/large")).unwrap();
    let loader = &device.engine.loader;
    let engine = Engine::start(&loader.config, &loader.tuning).await;
    assert!(engine.lanes().is_empty());
    let why = &engine.refused()[0].why;
    assert!(why.contains("it takes 1.6 MiB beside 0.0 MiB"), "{why}");
    device.put();
    let engine = Engine::start(&loader.config, &loader.tuning).await;
    assert_eq!(engine.lanes()[0].name(), NAME, "0.2 MiB fit");
}

/// Short enough to wait for.
const SOON: Duration = Duration::from_millis(400);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_never_loaded_here_is_loaded_in_a_child_first_and_once() {
    let device = Device::start(true, "tune = false\n").await;
    assert_eq!((device.engine.lanes().len(), device.loaded()), (1, 1));
    let engine = device.again(LONG).await;
    assert_eq!((engine.lanes().len(), device.loaded()), (1, 1), "it is known by now");
    device.put_changed();
    let engine = device.again(LONG).await;
    assert_eq!((engine.lanes().len(), device.loaded()), (1, 2), "other bytes are another bundle");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_a_child_harm_is_refused_until_somebody_asks_for_it_again() {
    for (harm, why) in [("crash", "SIGSEGV"), ("hang", "it hung for 0.4 s")] {
        let device = Device::start(false, "tune = false\n").await;
        device.put();
        device.say("first", harm);
        let engine = device.again(SOON).await;
        let is_refused = |engine: &Engine| {
            let refused = engine.refused();
            refused.iter().any(|bundle| !bundle.is_spare && bundle.why.contains(why))
        };
        until("it is refused", || is_refused(&engine)).await;
        assert_eq!((engine.lanes().len(), device.loaded()), (0, WAYS), "{harm}");
        within(engine.try_untried()).await;
        assert_eq!(device.asked(), 0, "{harm}: nor is it measured");
        assert!(is_refused(&engine), "{harm}: {:?}", engine.refused());
        // What it does now does not count: nobody asks.
        device.say("first", "");
        let engine = device.again(LONG).await;
        assert!(is_refused(&engine), "{harm}: {:?}", engine.refused());
        assert_eq!(device.loaded(), WAYS, "{harm}: it is not tried again");
        within(engine.load(NAME)).await.unwrap();
        assert_eq!((engine.lanes().len(), device.loaded()), (1, WAYS + 1), "{harm}");
    }
}

/// A kernel that is short of memory kills a child, and so does who stops the agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_do_to_a_child_is_not_held_against_the_bundle() {
    let device = Device::start(false, "tune = false\n").await;
    device.put();
    device.say("first", "killed");
    let engine = device.again(LONG).await;
    assert_eq!((engine.lanes().len(), device.loaded()), (0, WAYS));
    device.say("first", "");
    let engine = device.again(LONG).await;
    assert_eq!((engine.lanes().len(), device.loaded()), (1, WAYS + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_does_not_wait_for_what_hangs_and_what_is_known_serves() {
    let device = Device::start(true, "tune = false\n").await;
    device.say("first", "hang");
    let other = shipped().with_file_name("part-inspection");
    symlink(other, device.dir.path().join("bundles/part-inspection")).unwrap();
    // A start waits for a small part of this.
    let engine = device.again(LONG / 10).await;
    let lanes = engine.lanes();
    assert_eq!((lanes.len(), lanes[0].name()), (1, NAME));
    let reason = engine.absence("part-inspection").await.unwrap();
    assert!(reason.contains("is being loaded"), "{reason}");
}
