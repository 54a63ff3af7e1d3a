//! Damage of every file of the store, by chance: cut, flipped, blanked, overwritten, lengthened,
//! deleted, replaced by an older copy or by another segment; taken away by permissions, and on a file
//! system that cannot be written. The queue opens, or says what to do; it loses only requests whose own
//! records are damaged, and names them; it never panics.
//!
//! Which records a damage touches is told by a reader of its own (`reader.rs`), written from the
//! format's description alone.
//!
//! `HOLDFAST_DAMAGES` is the number of damaged stores (150), `HOLDFAST_SEED` repeats a run.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

#[path = "../queue_kit/mod.rs"]
mod queue_kit;

mod denied;
mod harm;
mod reader;
mod store;

use std::{collections::BTreeMap, path::Path};

use harm::Random;
use holdfast_queue::RequestId;
use queue_kit::{copy_dir, entry, open};
use store::{Store, Tally};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Where stores are made by the hundred: in memory, if there is such a place.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir()
        && let Ok(dir) = tempfile::tempdir_in(memory)
    {
        return dir;
    }
    tempfile::tempdir().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_stores_open_and_lose_only_what_is_damaged() {
    let cases = number("HOLDFAST_DAMAGES").unwrap_or(150);
    let seed = number("HOLDFAST_SEED").unwrap_or_else(|| RequestId::new().uuid().as_u128() as u64);
    println!("HOLDFAST_SEED={seed}");
    let dir = scratch();
    let store = Store::make(dir.path(), &mut Random::new(seed)).await;
    let mut tally = Tally::default();
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for case in 0..cases {
        let mut random = Random::new(seed ^ (case + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let pristine = if random.below(2) == 0 { store.closed() } else { store.killed() };
        let copy = dir.path().join("case");
        copy_dir(&pristine, &copy);
        let mut done = Vec::new();
        for _ in 0..=random.below(3) {
            let harm = harm::one(&copy, &store.older(), &mut random);
            *kinds.entry(harm.kind).or_default() += 1;
            done.push(harm.text);
        }
        let name = format!("HOLDFAST_SEED={seed}, case {case}: {}", done.join("; "));
        store.check(&pristine, &copy, &name, &mut tally).await;
        std::fs::remove_dir_all(&copy).unwrap();
    }
    let Tally { requests, touched, lost, .. } = tally;
    println!(
        "FAULTS | damage by chance | {cases} stores | {requests} requests, {touched} with damaged \
         records | {lost} of these lost or reported, 0 others"
    );
    println!("{kinds:?}");
    assert!(touched > 0 && requests > touched, "hardly anything was damaged: {kinds:?}");
}

#[tokio::test]
async fn queue_goes_on_after_its_whole_journal_is_gone() {
    let dir = scratch();
    let (queue, _) = open(dir.path());
    queue.accept(entry(5, 1, b"gone")).await.unwrap();
    queue.close().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!(report.held, 0, "{report:?}");
    queue.accept(entry(5, 1, b"new")).await.unwrap();
    queue.close().await.unwrap();
    assert_eq!(open(dir.path()).1.held, 1);
}
