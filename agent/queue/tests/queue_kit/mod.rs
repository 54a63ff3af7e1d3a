//! What the queue's tests share: small entries, opened queues, copied directories.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::Path;

use bytes::Bytes;
use holdfast_queue::{Idempotency, NewEntry, OpenReport, Queue, QueueConfig, RequestId};

/// Small segments, so that tests come to their ends.
pub(crate) fn small() -> QueueConfig {
    QueueConfig {
        max_requests: 100_000,
        max_finals: 100_000,
        ageing_ms: 1_000_000,
        max_bytes: 1 << 30,
        headroom_bytes: 0,
        headroom_inodes: 0,
        segment_bytes: 256 * 1024,
        keep_bad: 3,
        ..QueueConfig::default()
    }
}

/// Opens a queue with [`small`] bounds.
pub(crate) fn open(dir: &Path) -> (Queue, OpenReport) {
    Queue::open(dir, small()).expect("the queue opens")
}

/// A request that asks for nothing special.
pub(crate) fn entry(priority: u8, accepted_at_ms: u64, body: &[u8]) -> NewEntry {
    NewEntry {
        id: RequestId::new(),
        idempotency: None,
        priority,
        accepted_at_ms,
        not_before_ms: 0,
        expires_at_ms: None,
        envelope: Bytes::from_static(b"envelope"),
        body: Bytes::copy_from_slice(body),
    }
}

/// The same with an idempotency key; the digest is that of `digest`.
pub(crate) fn keyed(key: &str, digest: u8) -> NewEntry {
    let idempotency = Some(Idempotency { key: key.to_owned(), digest: [digest; 32] });
    NewEntry { idempotency, ..entry(5, 1, &[digest]) }
}

/// Copies a directory as it is at this moment, as a crash of the process would leave it.
pub(crate) fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory for the copy");
    for found in std::fs::read_dir(from).expect("a directory to copy") {
        let found = found.expect("an entry");
        let target = to.join(found.file_name());
        if found.file_type().expect("its type").is_dir() {
            copy_dir(&found.path(), &target);
        } else if let Err(error) = std::fs::copy(found.path(), &target) {
            // Files come and go while a queue is alive.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// The journal's segments, oldest first.
pub(crate) fn segments(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir.join("journal"))
        .expect("a journal")
        .map(|found| found.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "seg"))
        .filter(|path| {
            ["spare.seg", "next.seg", "reserve.seg"].iter().all(|name| !path.ends_with(name))
        })
        .collect();
    found.sort();
    found
}
