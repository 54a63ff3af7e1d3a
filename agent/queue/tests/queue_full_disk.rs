//! A full disk in the middle of everything: refused with a typed error, nothing lost, opens while
//! still full, drains, and goes on by itself when space is back.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod queue_kit;

use std::{collections::BTreeSet, fs, io::Write, path::Path, process::Command};

use holdfast_queue::{Accepted, Queue, QueueConfig, Recorded};
use queue_kit::{entry, small};

/// A small file system of its own, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mib: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(dir)),
            _ => None,
        }
    }

    /// Writes a file until not a byte is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.path().join("filler")).unwrap();
        for size in [65536, 4096, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    fn free_again(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

fn open(dir: &Path) -> Queue {
    let config = QueueConfig { headroom_bytes: 1 << 20, ..small() };
    Queue::open(dir, config).expect("it opens, full or not").0
}

#[tokio::test]
async fn full_disk_refuses_keeps_reopens_drains_and_recovers() {
    let Some(disk) = SmallDisk::mount(6) else {
        println!("LEFT OUT: a full disk (mounting a tmpfs is not allowed here)");
        return;
    };
    let dir = disk.0.path().join("queue");
    let queue = open(&dir);
    let mut held = BTreeSet::new();
    let refused = loop {
        let new = entry(5, 1, &[7; 20_000]);
        let id = new.id;
        match queue.accept(new).await {
            Ok(accepted) => assert!(accepted == Accepted::New && held.insert(id)),
            Err(refused) => break refused,
        }
    };
    assert!(refused.is_no_space(), "{refused:?}");
    assert!(refused.to_string().contains("no space for the queue in"), "{refused}");
    assert!(held.len() > 100, "{}", held.len());

    // Somebody else takes even the headroom; what is held can still come to its end.
    disk.fill();
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!(queue.answer(lease.id(), "while full", 3).await.unwrap(), Recorded::Stored);
    let answered = lease.id();
    held.remove(&answered);
    drop(lease);
    queue.close().await.ok();

    let queue = open(&dir);
    assert_eq!(queue.stats().await.unwrap().held, held.len() as u64);
    let answer = queue.get(answered).await.unwrap().unwrap().answer.unwrap();
    assert_eq!(answer.as_ref(), b"while full");
    let mut drained = BTreeSet::new();
    while let Some(lease) = queue.lease_next(4).await.unwrap() {
        assert_eq!(lease.body().await.unwrap().as_ref(), [7; 20_000]);
        match queue.answer(lease.id(), "drained", 5).await {
            Ok(recorded) => assert_eq!(recorded, Recorded::Stored),
            Err(full) => panic!("after {} of {}: {full:?}", drained.len(), held.len()),
        }
        drained.insert(lease.id());
    }
    assert_eq!(drained, held, "all of it, while the disk is full");

    disk.free_again();
    assert_eq!(queue.accept(entry(5, 6, &[8; 20_000])).await.unwrap(), Accepted::New);
    queue.close().await.unwrap();
    let queue = open(&dir);
    let stats = queue.stats().await.unwrap();
    assert_eq!((stats.held, stats.answered), (1, held.len() as u64 + 1));
    queue.close().await.unwrap();
}

#[tokio::test]
async fn what_stays_long_does_not_fill_the_disk_with_what_is_gone() {
    let Some(disk) = SmallDisk::mount(12) else {
        println!("LEFT OUT: a small disk (mounting a tmpfs is not allowed here)");
        return;
    };
    let queue = open(&disk.0.path().join("queue"));
    // Of what fills a segment one request stays; the segments would take three times the disk.
    let mut stay = BTreeSet::new();
    for _ in 0..150 {
        for nth in 0..12 {
            let new = entry(5, 1, &[nth; 20_000]);
            let id = new.id;
            if let Err(full) = queue.accept(new.clone()).await {
                // The index grows by leaps; there is room again at once.
                assert!(full.is_no_space(), "{full}");
                queue.accept(new).await.unwrap();
            }
            if nth == 0 {
                stay.insert(id);
            } else {
                queue.answer(id, "gone", 2).await.unwrap();
            }
        }
    }
    for id in &stay {
        assert_eq!(queue.body(*id).await.unwrap().unwrap().as_ref(), [0; 20_000]);
    }
    queue.close().await.unwrap();
    let queue = open(&disk.0.path().join("queue"));
    assert_eq!(queue.stats().await.unwrap().held, stay.len() as u64);
    queue.close().await.unwrap();
}

/// Everything that an error says, with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {}", chain(cause)));
    format!("{error}{}", cause.unwrap_or_default())
}

#[tokio::test]
async fn what_a_full_disk_refuses_is_said_in_words_that_help() {
    let Some(disk) = SmallDisk::mount(4) else {
        println!("LEFT OUT: the words on a full disk (mounting a tmpfs is not allowed here)");
        return;
    };
    let dir = disk.0.path().join("queue");
    let mut said = Vec::new();
    // Not a byte, then room for more and more of what a queue begins with.
    for free in [0, 4096, 65_536, 200_000, 400_000, 700_000, 1_200_000, 1_700_000, 2_500_000] {
        disk.fill();
        let filler = fs::OpenOptions::new().write(true).open(disk.0.path().join("filler")).unwrap();
        let full = filler.metadata().unwrap().len();
        filler.set_len(full - free).unwrap();
        match Queue::open(&dir, QueueConfig { headroom_bytes: 1 << 20, ..small() }) {
            Err(refused) => said.push((free, "open", refused)),
            Ok((queue, _)) => {
                for _ in 0..400 {
                    if let Err(refused) = queue.accept(entry(5, 1, &[3; 9000])).await {
                        said.push((free, "accept", refused));
                        break;
                    }
                }
                disk.fill();
                for id in queue.ids(None).await.unwrap_or_default() {
                    if let Err(refused) = queue.answer(id, vec![1; 9000], 2).await {
                        said.push((free, "answer", refused));
                        break;
                    }
                }
                if let Err(refused) = queue.close().await {
                    said.push((free, "close", refused));
                }
            }
        }
        disk.free_again();
        fs::remove_dir_all(&dir).ok();
    }
    assert!(said.iter().any(|(_, what, _)| *what == "open"), "{said:?}");
    assert!(said.iter().any(|(_, what, _)| *what == "accept"), "{said:?}");
    for (free, what, refused) in said {
        let text = chain(&refused);
        println!("{free} free, {what}: {text}");
        let case = format!("{free} free, {what}: {text}");
        assert!(refused.is_no_space(), "{case}");
        assert!(text.contains("free some space") && text.contains("queue"), "{case}");
        assert!(!text.contains("sled") && !text.contains(" 0 that are"), "{case}");
    }
}
