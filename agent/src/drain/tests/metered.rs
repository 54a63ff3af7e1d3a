//! What a metered link may carry, in simulated days: the backlog waits, nothing is lost, what is urgent
//! goes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::world::{Act, Device, Held, World, destination};
use crate::destination::Zone;
use crate::network::{Metered, NetworkConfig, Plan};
use crate::queue::{RequestId, State};

const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);
const BUDGET: u64 = 4_000;

fn metered(per_day: u64, per_month: Option<u64>) -> NetworkConfig {
    NetworkConfig {
        metered: Metered::Always,
        plan: Plan { per_day: Some(per_day), per_month, month_begins_on: 18, reserve_percent: 50 },
        unmetered: Vec::new(),
    }
}

async fn device(network: NetworkConfig) -> Device {
    let world = World::new(|_, _| Act::Answer(Duration::from_millis(200)));
    let mut device = Device::new(world, vec![destination("cloud", Zone::Public, 4)]);
    device.network = network;
    device.start().await;
    device
}

async fn hold(device: &Device, count: usize, priority: u8) -> Vec<RequestId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(device.hold(Held::of_priority(priority)).await);
    }
    ids
}

/// Requests that reached the destination, by the device's day.
fn by_day(device: &Device) -> BTreeMap<u64, usize> {
    let mut days = BTreeMap::new();
    for seen in device.world.seen().iter() {
        *days.entry(seen.at_ms / 86_400_000).or_default() += 1;
    }
    days
}

#[tokio::test(start_paused = true)]
async fn what_is_beyond_the_budget_waits_for_the_next_day_and_nothing_is_lost() {
    let mut device = device(metered(BUDGET, None)).await;
    let ids = hold(&device, 40, 4).await;
    sleep(10 * MINUTE).await;
    let first_day = device.world.seen().len();
    assert!((3..30).contains(&first_day), "{first_day} on the first day");
    let stats = device.queue().stats().await.unwrap();
    assert_eq!(stats.answered + stats.waiting_for_budget, 40, "{stats:?}");
    let waiting = device.until(*ids.last().unwrap(), State::WaitingForBudget, MINUTE).await;
    let why = waiting.last_reason.unwrap();
    assert!(
        why.contains("metered link is used up until 2027-") && why.ends_with("T00:00:00Z"),
        "{why}"
    );
    assert_eq!(waiting.attempts, 0);

    // What is urgent still goes, out of the reserve, until that is used up too.
    let urgent = device.hold(Held::of_priority(9)).await;
    device.until(urgent, State::Answered, MINUTE).await;
    hold(&device, 10, 9).await;
    sleep(10 * MINUTE).await;
    let with_urgent = device.world.seen().len();
    assert!(with_urgent < first_day + 11, "the reserve ends too");

    // A restart, in good order or not, brings no budget.
    for is_killed in [false, true] {
        if is_killed {
            device.kill().await
        } else {
            device.stop().await
        }
        device.start().await;
        sleep(10 * MINUTE).await;
        assert_eq!(device.world.seen().len(), with_urgent, "killed: {is_killed}");
    }

    for id in ids {
        let summary = device.until(id, State::Answered, 20 * DAY).await;
        assert_eq!(summary.attempts, 0);
    }
    let days = by_day(&device);
    assert!(days.len() > 1, "{days:?}");
    let keys = device.world.keys();
    let mut once = keys.clone();
    once.sort();
    once.dedup();
    assert_eq!((keys.len(), once.len()), (51, 51), "each went once");
}

#[tokio::test(start_paused = true)]
async fn the_months_budget_lasts_for_the_month() {
    // It is the 15th in this world, and the month begins on the 18th.
    let device = device(metered(BUDGET, Some(BUDGET + BUDGET / 2))).await;
    let begun = Instant::now();
    let ids = hold(&device, 60, 4).await;
    sleep(DAY + DAY / 2).await;
    let sent = device.world.seen().len();
    let last = device.summary(*ids.last().unwrap()).await;
    assert_eq!(last.state, State::WaitingForBudget);
    let why = last.last_reason.unwrap();
    assert!(why.contains("2027-01-18T00:00:00Z"), "{why}");
    sleep(DAY / 2).await;
    assert_eq!(device.world.seen().len(), sent, "a new day brings nothing");
    while device.world.seen().len() == sent {
        sleep(DAY / 24).await;
        assert!(begun.elapsed() < 4 * DAY);
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_goes_at_once_when_the_next_start_has_another_budget() {
    let mut device = device(metered(BUDGET, None)).await;
    let ids = hold(&device, 40, 4).await;
    sleep(10 * MINUTE).await;
    assert!(device.queue().stats().await.unwrap().waiting_for_budget > 0);
    device.stop().await;
    device.network = NetworkConfig::default();
    device.start().await;
    for id in ids {
        device.until(id, State::Answered, 10 * MINUTE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_reached_over_another_way_costs_nothing() {
    let config = NetworkConfig { unmetered: vec!["cloud".to_owned()], ..metered(1, None) };
    let device = device(config).await;
    for id in hold(&device, 10, 4).await {
        device.until(id, State::Answered, MINUTE).await;
    }
}
