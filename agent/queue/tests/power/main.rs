//! Power cuts: the queue works on a file system of its own on a loop device, in a process of its own.
//! At a random moment the process is stopped, and what the device has by then is copied: not what the
//! page cache has, so that whatever was acknowledged without a sync is missing in the copy. The
//! copy is mounted as after a restart (its journal is replayed, the boot has another id), the queue
//! opened on it, and compared with what was acknowledged. Then the work goes on, on the copy.
//!
//! The file system is never told to sync or freeze: that would write out what the queue should have.
//! That the copies do lack what was not synced is held by a writer that does not sync.
//!
//! `HOLDFAST_CUTS` is the number of cuts for each size of records (3), `HOLDFAST_SEED` repeats a run.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test's helpers fail like the test"
)]

mod disk;
mod ledger;
mod rig;
mod writer;

use std::process::Command;

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
fn in_own_mounts(role: &str) {
    let dir = tempfile::tempdir().unwrap();
    if let Err(why) = disk::Disk::is_possible(dir.path()) {
        let required = std::env::var("HOLDFAST_REQUIRE_REFERENCE").is_ok_and(|value| value == "1");
        assert!(!required, "power cuts are required and cannot be made here: {why}");
        println!("LEFT OUT: power cuts ({why})");
        return;
    }
    let seed = number("HOLDFAST_SEED")
        .unwrap_or_else(|| holdfast_queue::RequestId::new().uuid().as_u128() as u64);
    println!("HOLDFAST_SEED={seed}");
    let (program, args) = this_program("rig");
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
    in_own_mounts("cuts:1k");
}

#[test]
fn power_cuts_lose_no_acknowledged_record_of_100_kib() {
    in_own_mounts("cuts:100k");
}

#[test]
fn power_cuts_lose_no_acknowledged_record_of_5_mb() {
    in_own_mounts("cuts:5m");
}

#[test]
fn writer_that_does_not_sync_is_caught() {
    in_own_mounts("control");
}

/// The part that [`in_own_mounts`] runs; nothing by itself.
#[test]
fn rig() {
    let Ok(role) = std::env::var(ROLE) else { return };
    match role.split_once(':') {
        Some(("cuts", size)) => rig::cut_repeatedly(writer::Work::of(size).unwrap()),
        _ => rig::control(),
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
        Some(("plain", how)) => writer::plain(how == "synced"),
        _ => panic!("no such role: {role}"),
    }
}
