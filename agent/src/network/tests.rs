//! The meter on a device of its own, with a clock that a test sets.

use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::simulated::Machine;

/// A day in the middle of a month.
const DATE_MS: u64 = 1_800_000_000_000;

fn config(per_day: u64) -> NetworkConfig {
    NetworkConfig {
        metered: Metered::Always,
        plan: Plan { per_day: Some(per_day), ..Plan::default() },
        unmetered: vec!["near".to_owned()],
    }
}

fn open(dir: &Path, machine: &Machine, per_day: u64) -> Network {
    Network::open(dir, Clock::simulated(dir, machine.clone()), config(per_day))
}

async fn stop(network: &Network) {
    let token = CancellationToken::new();
    token.cancel();
    network.clone().keep(token).await;
}

#[tokio::test(start_paused = true)]
async fn the_count_goes_on_after_a_stop_and_a_kill_never_makes_it_less() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new(DATE_MS, true));
    let network = open(dir.path(), &machine, 1 << 20);
    network.tap(Purpose::Escalation, "cloud").sent(1000);
    network.tap(Purpose::Mqtt, "controller").received(500);
    network.tap(Purpose::Webhook, "near").sent(9999);
    assert_eq!(network.count().metered, (1500, 1500), "what is near costs nothing");
    leave(dir.path(), Bytes { sent: 1, received: 99 }).unwrap();
    stop(&network).await;
    let again = open(dir.path(), &machine, 1 << 20);
    assert_eq!(again.count().metered, (1600, 1600), "with what another process fetched");
    assert_eq!(again.count(), network.count());
    assert_eq!(again.count().day["webhook"].sent, 9999);
    // A kill: whatever was noted while it ran counts, and that is ahead.
    again.tap(Purpose::Probe, "cloud").sent(1);
    assert!(again.write(dir.path(), false).unwrap());
    let killed = open(dir.path(), &machine, 1 << 20);
    let (used, ahead) = (killed.count().metered.0, again.plan().ahead());
    assert_eq!(used, 1601 + ahead);
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_used_up_until_the_next_day_and_a_reserve_is_for_what_is_urgent() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new(DATE_MS, true));
    let network = open(dir.path(), &machine, 1000);
    let tap = network.tap(Purpose::Escalation, "cloud");
    tap.sent(899);
    assert!(network.may("cloud", false).is_ok());
    tap.sent(1);
    let used_up = network.may("cloud", false).unwrap_err();
    assert!(network.may("cloud", true).is_ok() && network.may("near", false).is_ok());
    assert!(used_up.renews_in <= Duration::from_secs(86_400), "{used_up:?}");
    assert!(used_up.until().ends_with("T00:00:00Z"), "{}", used_up.until());
    tap.received(100);
    assert!(network.may("cloud", true).is_err(), "the reserve ends too");
    tokio::time::advance(used_up.renews_in).await;
    assert!(network.may("cloud", false).is_ok(), "a new day");
    assert_eq!(network.count().metered, (0, 1000));
}

#[test]
fn a_note_that_cannot_be_read_counts_as_used_up() {
    let (dir, machine) = (tempfile::tempdir().unwrap(), Machine::new(DATE_MS, true));
    std::fs::write(dir.path().join("network.toml"), "garbage").unwrap();
    let network = open(dir.path(), &machine, 1000);
    assert!(network.may("cloud", true).is_err());
}

#[test]
fn a_process_that_is_no_agent_counts_and_keeps_nothing() {
    let network = Network::default();
    network.tap(Purpose::Download, "runtime").received(7);
    assert_eq!(network.count().metered, (0, 0));
    assert!(network.may("cloud", false).is_ok());
    Tap::default().sent(1);
}
