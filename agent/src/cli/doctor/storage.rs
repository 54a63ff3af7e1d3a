//! Owns what `doctor` says of the state folder, its disk and the queue on it.
//!
//! **Invariant:** nothing is left behind: what is tried out is removed again.

use std::path::Path;

use serde_json::Value;

use super::Finding;
use crate::cli::running;
use crate::config::Config;
use crate::escalate::Method;
use crate::queue::{self, QueueConfig, QueueError};
use crate::run::queue_dir;

/// Less free disk than this is worth a warning.
const LOW_DISK_BYTES: u64 = 256 << 20;

/// Whether the state folder can be written, and how much room its disk has.
pub(super) fn of_state_dir(dir: &Path, queue: &QueueConfig) -> Finding {
    let check = format!("storage {}", dir.display());
    // Looking at a device changes nothing on it: a folder that is not there yet is not made.
    let there = dir.ancestors().find(|folder| folder.exists()).unwrap_or(dir);
    let written = probe_writing(there);
    let disk = rustix::fs::statvfs(there);
    let has_no_inodes = disk.as_ref().is_ok_and(|disk| disk.f_files > 0 && disk.f_favail == 0);
    if let Err(error) = written {
        let advice = match error.kind() {
            std::io::ErrorKind::StorageFull if has_no_inodes => {
                let found = "cannot be written: no inode is left";
                let advice = "remove some files: until then new requests are refused, and what is held goes on";
                return Finding::fault(check, found, advice);
            }
            std::io::ErrorKind::StorageFull => {
                "free some space: until then new requests are refused, and what is held goes on"
            }
            _ => "set device.state_dir to a folder that this user can write, on a disk with space",
        };
        return Finding::fault(check, format!("cannot be written: {error}"), advice);
    }
    let Ok(disk) = disk else {
        return Finding::fine(check, "can be written");
    };
    let made = if there == dir { "" } else { ", made at the first start" };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("{} MiB free{made}", free >> 20);
    let kept = queue.headroom_bytes;
    if free <= kept {
        let found = format!("{found}, and queue.headroom_mib keeps {} MiB", kept >> 20);
        let advice = "free some space: until then new requests are refused with 507";
        return Finding::warn(check, found, advice);
    }
    // Some file systems count no files.
    if disk.f_files > 0 && disk.f_favail <= queue.headroom_inodes {
        let (left, kept) = (disk.f_favail, queue.headroom_inodes);
        let found = format!("{found}, {left} inodes, and queue.headroom_inodes keeps {kept}");
        let advice = "remove some files: until then new requests are refused with 507";
        return Finding::warn(check, found, advice);
    }
    if free - kept < LOW_DISK_BYTES {
        let advice = "free some space: the queue has little room before it refuses requests";
        return Finding::warn(check, found, advice);
    }
    Finding::fine(check, found)
}

fn probe_writing(dir: &Path) -> std::io::Result<()> {
    let probe = dir.join(format!(".holdfast-doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"probe");
    drop(std::fs::remove_file(&probe));
    written
}

/// How the queue is, with the agent running or stopped.
pub(super) async fn of_queue(config: &Config) -> Finding {
    if let Some(why) = queue_that_is_missing(config).await {
        let found = format!("the running agent has none, so that nothing can be held: {why}");
        let advice = "make its disk usable; the agent tries again every few seconds by itself";
        return Finding::fault("queue", found, advice);
    }
    let dir = queue_dir(&config.state_dir);
    if !dir.exists() {
        return Finding::fine("queue", "not made yet");
    }
    match queue::read_only(&dir).and_then(|(stopped, report)| Ok((stopped.stats()?, report))) {
        Ok((stats, report)) => {
            let found = format!(
                "{} held, {} answered, {} failed",
                stats.held, stats.answered, stats.failed
            );
            if report.damaged > 0 {
                let found = format!("{found}, {} records damaged", report.damaged);
                let advice = "check the disk; the damaged records are lost, all others are intact";
                return Finding::warn("queue", found, advice);
            }
            if let Some(path) = report.bad.first() {
                let found = format!("{found}; {} is no segment of it", path.display());
                let advice =
                    "the next start or `queue repair` sets it aside, and names what is lost";
                return Finding::warn("queue", found, advice);
            }
            Finding::fine("queue", found)
        }
        Err(QueueError::InUse { .. }) => Finding::fine("queue", "in use by a running agent"),
        Err(error) => {
            let advice = "keep the folder and look at the messages of `holdfast-agent run`";
            Finding::fault("queue", crate::error_chain(&error), advice)
        }
    }
}

/// Why an agent that runs has no queue, if one runs and has none.
async fn queue_that_is_missing(config: &Config) -> Option<String> {
    let agent = running::agent(config).ok()?;
    let said: Value = agent.ask(Method::Get, "/readyz", Vec::new()).await.ok()?;
    Some(said.get("queue")?.get("why")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_a_fault() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let queue = QueueConfig::default();
        assert_eq!(of_state_dir(&file.path().join("inside-a-file"), &queue).health, Health::Fault);
        let dir = tempfile::tempdir().unwrap();
        assert_ne!(of_state_dir(dir.path(), &queue).health, Health::Fault);
        let new = dir.path().join("not/yet");
        assert_ne!(of_state_dir(&new, &queue).health, Health::Fault);
        let greedy = QueueConfig { headroom_bytes: u64::MAX, ..queue };
        let found = of_state_dir(dir.path(), &greedy);
        assert!(found.health == Health::Warn && found.advice.unwrap().contains("507"));
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}
