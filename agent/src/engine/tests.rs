//! Bundles that come, go and are measured at the same time. What measures is a script that says when it
//! was asked, and answers when it is let.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::config::Config;
use crate::tune::probe::Program;

/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(60);
const NAME: &str = "voice-commands";
/// Its variants, on tract alone.
const WAYS: usize = 2;

const SCRIPT: &str = r#"#!/bin/sh
here=$(dirname "$0")
case " $* " in *" probe library "*) echo 'holdfast-probe: "absent"'; exit 0;; esac
echo asked >> "$here/asked"
while [ ! -e "$here/open" ]; do sleep 0.01; done
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
        let text = format!(
            "[models]\nbundles = [{:?}]\nonnxruntime = \"off\"\n{more}",
            dir.path().join("bundles")
        );
        let config = Config::parse("test", &text, []).unwrap().models;
        let state = dir.path().join("state");
        let tuning = Arc::new(Tuning::open(Some(Program::at(script)), &state));
        Self { engine: Engine::start(&config, &tuning).await, dir }
    }

    fn put(&self) {
        symlink(shipped(), self.dir.path().join("bundles").join(NAME)).unwrap();
    }

    /// The bundle as a copy with another text in its manifest.
    fn put_changed(&self) {
        let to = self.dir.path().join("bundles").join(NAME);
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
        std::fs::write(to.join("bundle.toml"), manifest + "# changed\n").unwrap();
    }

    /// How often a way to run a bundle was asked for.
    fn asked(&self) -> usize {
        let asked = std::fs::read_to_string(self.dir.path().join("asked")).unwrap_or_default();
        asked.lines().count()
    }

    async fn until_asked(&self, count: usize) {
        let asked = async {
            while self.asked() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, asked).await.expect("it is measured");
    }

    fn let_measure(&self) {
        std::fs::write(self.dir.path().join("open"), "").unwrap();
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
    tokio::time::timeout(LONG, device.engine.unload(NAME)).await.unwrap().unwrap();
    assert_eq!(held.strong_count(), 0, "nobody keeps its memory, although it is still measured");
    assert_eq!(device.asked(), 1);
    device.let_measure();
    device.until_asked(WAYS).await;
    // Whoever measures next has waited for this one.
    drop(device.engine.measuring.lock().await);
    assert_eq!(device.state(), Some(Readiness::Unavailable), "it does not come back by itself");
    device.engine.load(NAME).await.unwrap();
    assert_eq!(device.state(), Some(Readiness::Ready));
    tuning.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_comes_while_the_agent_runs_is_measured_too() {
    let device = Device::start(false, "").await;
    let tuning = device.tune();
    device.let_measure();
    device.put();
    device.engine.load(NAME).await.unwrap();
    device.until_asked(WAYS).await;
    let bundle = device.engine.lanes()[0].bundle().clone();
    let stored = async {
        while device.engine.stored(&bundle).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, stored).await.expect("it is on record");
    tuning.abort();
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
    let second = {
        let engine = device.engine.clone();
        tokio::spawn(async move { engine.load(NAME).await })
    };
    assert_eq!(device.state(), Some(Readiness::Loading), "nobody waits, and it goes on");
    device.let_measure();
    second.await.unwrap().unwrap();
    assert_eq!((device.state(), device.asked()), (Some(Readiness::Ready), WAYS), "measured once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_that_is_unloaded_while_it_is_loaded_does_not_come_in() {
    let device = Device::start(false, "max_memory_mib = 1000\n").await;
    device.put();
    let loading = {
        let engine = device.engine.clone();
        tokio::spawn(async move { engine.load(NAME).await })
    };
    device.until_asked(1).await;
    tokio::time::timeout(LONG, device.engine.unload(NAME)).await.unwrap().unwrap();
    device.let_measure();
    let error = loading.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("taken out of service meanwhile"), "{error}");
    assert_eq!(device.state(), Some(Readiness::Unavailable));
}

/// Who waited for others to be loaded gets what its name leads to then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_gets_what_is_there_by_then() {
    let device = Device::start(false, "").await;
    device.put();
    let (found, faults) = device.engine.look_again().await;
    device.engine.write().look_again(found, faults, NAME).unwrap();
    let one = device.engine.loading.clone().lock_owned().await;
    let waking = {
        let (engine, until) = (device.engine.clone(), tokio::time::Instant::now() + LONG);
        tokio::spawn(async move { engine.awake(NAME, None, until).await })
    };
    // It has found the bundle as it was, and waits.
    while Arc::strong_count(&device.engine.loading) < 4 {
        tokio::task::yield_now().await;
    }
    device.put_changed();
    let (found, faults) = device.engine.look_again().await;
    let target = device.engine.write().look_again(found, faults, NAME).unwrap();
    drop(one);
    let lane = waking.await.unwrap().unwrap();
    assert_eq!(lane.bundle().digest(), target.bundle.digest());
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
