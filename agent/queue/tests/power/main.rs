//! Power cuts: the queue works on a file system of its own on a loop device, in a process of its own.
//! At a random moment the process is stopped, and what the device has by then is copied: not what the
//! page cache has, so that whatever was acknowledged without a sync is missing in the copy. The
//! copy is mounted as after a restart (its journal is replayed, the boot has another id), the queue
//! opened on it, and compared with what was acknowledged. Then the work goes on, on the copy.
//!
//! The file system is never told to sync or freeze: that would write out what the queue should have.
//! That the copies do lack what was not synced is held by a writer that does not sync.
//!
//! Where the kernel has dm-log-writes, the same is done on a disk with a cache: a device that writes
//! down every write and every flush. While the work goes on, it is marked in that log what was
//! acknowledged so far; then the process is killed and the device fails. What a disk may have kept is
//! made from the log: everything up to a random entry, and, of the writes that were not flushed there,
//! some, others not, others in part (`logged.rs` says why this target and not dm-flakey). Here only a
//! flush saves anything, where a copy of a device has all that was written to it: that is held by a
//! writer past the page cache that never flushes. Elsewhere this half is left out.
//!
//! `HOLDFAST_CUTS` is the number of cuts for each size of records (3), `HOLDFAST_CUT_MS` the longest work
//! before each (400; more on a slow machine), `HOLDFAST_SEED` repeats a run.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod disk;
mod ledger;
mod logged;
mod rig;
mod writer;

use std::process::Command;

use disk::Rig;

/// What a process of this program does; its argument follows a colon.
const ROLE: &str = "HOLDFAST_POWER_ROLE";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// This program again, running one of its tests by name.
fn this_program(test: &str) -> (std::path::PathBuf, [String; 4]) {
    let args = ["--exact", test, "--nocapture", "--test-threads=1"].map(String::from);
    (std::env::current_exe().unwrap(), args)
}

/// Runs a part of the test where mounts are its own, and vanish with it whatever happens.
fn in_own_mounts(rig: Rig, role: &str) {
    let dir = tempfile::tempdir().unwrap();
    if let Err(why) = disk::Disk::is_possible(rig, dir.path()) {
        // Few kernels have what the other rig needs.
        let required = rig == Rig::Copy
            && std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
        assert!(!required, "power cuts are required and cannot be made here: {why}");
        println!("LEFT OUT: {} ({why})", rig.name().replacen("cut", "cuts", 1));
        return;
    }
    let seed = number("HOLDFAST_SEED")
        .unwrap_or_else(|| holdfast_queue::RequestId::new().uuid().as_u128() as u64);
    println!("HOLDFAST_SEED={seed}");
    let (program, args) = this_program(match rig {
        Rig::Copy => "rig_copy",
        Rig::Log => "rig_log",
    });
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private"])
        .arg(program)
        .args(args)
        .env(ROLE, role)
        .env("HOLDFAST_SEED", seed.to_string())
        .status()
        .unwrap();
    assert!(status.success(), "{role}: {status}, HOLDFAST_SEED={seed}");
}

#[test]
fn power_cuts_lose_no_acknowledged_record_of_1_kib() {
    in_own_mounts(Rig::Copy, "cuts:1k");
}

#[test]
fn power_cuts_lose_no_acknowledged_record_of_100_kib() {
    in_own_mounts(Rig::Copy, "cuts:100k");
}

#[test]
fn power_cuts_lose_no_acknowledged_record_of_5_mb() {
    in_own_mounts(Rig::Copy, "cuts:5m");
}

#[test]
fn power_cuts_of_a_disk_with_a_cache_lose_no_acknowledged_record_of_1_kib() {
    in_own_mounts(Rig::Log, "cuts:1k");
}

#[test]
fn power_cuts_of_a_disk_with_a_cache_lose_no_acknowledged_record_of_100_kib() {
    in_own_mounts(Rig::Log, "cuts:100k");
}

#[test]
fn power_cuts_of_a_disk_with_a_cache_lose_no_acknowledged_record_of_5_mb() {
    in_own_mounts(Rig::Log, "cuts:5m");
}

#[test]
fn writer_that_does_not_sync_is_caught() {
    in_own_mounts(Rig::Copy, "control");
}

#[test]
fn writer_that_does_not_flush_the_disk_is_caught() {
    in_own_mounts(Rig::Log, "control");
}

/// The part that [`in_own_mounts`] runs; nothing by itself.
#[test]
fn rig_copy() {
    run_rig(Rig::Copy);
}

/// As [`rig_copy`].
#[test]
fn rig_log() {
    run_rig(Rig::Log);
}

fn run_rig(rig: Rig) {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.split_once(':') {
        Some(("cuts", size)) => rig::cut_repeatedly(rig, writer::Work::of(size).unwrap()),
        _ => rig::control(rig),
    }
}

/// The process whose power is cut; nothing by itself.
#[test]
fn works() {
    let Ok(role) = std::env::var(ROLE) else { return };
    // The harness of the tests has begun a line.
    println!();
    match role.split_once(':') {
        Some(("work", size)) => writer::work(writer::Work::of(size).unwrap()),
        Some(("look", _)) => writer::look(),
        Some(("plain", how)) => writer::plain(writer::Care::of(how)),
        _ => panic!("no such role: {role}"),
    }
}
