//! How hard the drain presses, in simulated time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::parked::MOST_PARKED;
use super::world::{Act, Device, Held, World, destination};
use crate::balance::{Balance, Balancing};
use crate::destination::{Destination, Limits, Zone};
use crate::queue::{RequestId, State};
use crate::request::DataClass;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

fn answering(after: Duration) -> World {
    World::new(move |_, _| Act::Answer(after))
}

fn limited(name: &str, zone: Zone, concurrency: usize, limits: Limits) -> Destination {
    Destination { limits, ..destination(name, zone, concurrency) }
}

async fn hold(device: &Device, count: usize, held: Held) -> Vec<RequestId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(device.hold(held).await);
    }
    ids
}

#[tokio::test(start_paused = true)]
async fn a_backlog_begins_slowly_and_doubles_with_every_round() {
    let world = answering(SECOND);
    let mut device = Device::new(world.clone(), vec![destination("site", Zone::Site, 9)]);
    device.open().await;
    let ids = hold(&device, 40, Held::of_priority(4)).await;
    device.start().await;
    for id in ids {
        device.until(id, State::Answered, HOUR).await;
    }
    let seen = world.seen();
    let begun = seen[0].at;
    let in_second = |second: u128| {
        seen.iter().filter(|seen| ((seen.at - begun).as_millis() + 500) / 1000 == second).count()
    };
    // One place of the nine is left to others.
    assert_eq!([0, 1, 2, 3, 4].map(in_second), [1, 2, 4, 8, 8]);
    assert!(seen.iter().all(|seen| seen.under_way <= 8));
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_shared_by_weight_and_one_that_fails_leaves_it_to_the_other() {
    let world = answering(SECOND);
    let destinations = ["near", "far"].map(|name| destination(name, Zone::Site, 5));
    let mut device = Device::new(world.clone(), destinations.into());
    let weights = [("near".to_owned(), 3), ("far".to_owned(), 1)].into();
    device.balancing = Balancing { balance: Balance::Weight, weights, hedge_after: None };
    device.start().await;
    // One at a time, so that both are always free.
    for _ in 0..400 {
        let id = device.hold(Held::of_priority(4)).await;
        device.until(id, State::Answered, HOUR).await;
    }
    let near = world.seen().iter().filter(|seen| seen.host == "near").count();
    assert!((240..360).contains(&near), "{near} of 400 at three in four");
    world.behave(|host, _| match host {
        "near" => Act::Status(500, None),
        _ => Act::Answer(SECOND),
    });
    let before = world.seen().len();
    for id in hold(&device, 100, Held::of_priority(4)).await {
        device.until(id, State::Answered, HOUR).await;
    }
    let near = world.seen()[before..].iter().filter(|seen| seen.host == "near").count();
    assert!(near < 20, "{near} sends to one that fails on everything");
}

#[tokio::test(start_paused = true)]
async fn a_link_that_was_down_begins_slowly_again() {
    let world = answering(SECOND);
    let device = Device::started(world.clone(), vec![destination("site", Zone::Site, 9)]).await;
    for id in hold(&device, 20, Held::of_priority(4)).await {
        device.until(id, State::Answered, HOUR).await;
    }
    world.behave(|_, _| Act::Nobody);
    hold(&device, 1, Held::of_priority(4)).await;
    sleep(HOUR).await;
    assert!(!device.is_reachable("site"));
    let ids = hold(&device, 20, Held::of_priority(4)).await;
    let before = world.seen().len();
    world.behave(|_, _| Act::Answer(SECOND));
    for id in ids {
        device.until(id, State::Answered, HOUR).await;
    }
    let seen = world.seen();
    let widths: Vec<_> = seen[before..].iter().map(|seen| seen.under_way).collect();
    assert_eq!(widths[..3], [1, 1, 2], "{widths:?}");
}

#[tokio::test(start_paused = true)]
async fn an_urgent_request_does_not_wait_behind_what_is_under_way() {
    // The backlog's sends take for ever.
    let world = World::new(|_, call| match call.header("holdfast-priority") {
        Some("4") => Act::Answer(Duration::from_secs(25)),
        _ => Act::Answer(SECOND),
    });
    let device = Device::started(world.clone(), vec![destination("site", Zone::Site, 2)]).await;
    hold(&device, 10, Held::of_priority(4)).await;
    sleep(Duration::from_secs(60)).await;
    let asked = Instant::now();
    let urgent = device.hold(Held::of_priority(7)).await;
    device.until(urgent, State::Answered, HOUR).await;
    let at = world.seen().iter().find(|seen| seen.key == urgent.to_string()).unwrap().at;
    assert!(at - asked < SECOND, "{:?}", at - asked);
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_the_backlog_back_without_a_write_and_nobody_else() {
    let world = answering(SECOND);
    let limits = Limits { requests_per_min: Some(12), ..Limits::default() };
    let mut cloud = limited("cloud", Zone::Public, 4, limits);
    cloud.tasks = vec![crate::request::TaskName::parse("part-inspection").unwrap()];
    let mut site = destination("site", Zone::Site, 4);
    site.tasks = vec![crate::request::TaskName::parse("voice-commands").unwrap()];
    let mut device = Device::new(world.clone(), vec![site, cloud]);
    device.open().await;
    let slow = Held { task: "part-inspection", ..Held::of_priority(5) };
    let ahead = hold(&device, 60, slow).await;
    let behind = hold(&device, 10, Held::of_priority(1)).await;
    let begun = Instant::now();
    device.start().await;
    for id in behind {
        device.until(id, State::Answered, Duration::from_secs(60)).await;
    }
    for id in &ahead {
        let summary = device.until(*id, State::Answered, HOUR).await;
        assert_eq!(summary.attempts, 0);
    }
    // One is left for what is urgent, the other 59 come one in 5 s.
    assert!(begun.elapsed() >= Duration::from_secs(59 * 5), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(62 * 5), "{:?}", begun.elapsed());
    assert_eq!(device.queue().stats().await.unwrap().appended, 2 * 70, "nothing but begin and end");
}

#[tokio::test(start_paused = true)]
async fn bytes_are_limited_too() {
    let world = answering(SECOND);
    // 17 bytes a request, of which a KiB a second is let in.
    let limits = Limits { bytes_per_s: Some(1024), ..Limits::default() };
    let mut device = Device::new(world.clone(), vec![limited("site", Zone::Site, 200, limits)]);
    device.open().await;
    let ids = hold(&device, 900, Held::of_priority(4)).await;
    let begun = Instant::now();
    device.start().await;
    for id in ids {
        device.until(id, State::Answered, HOUR).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_only_money_holds_back_waits_for_the_day_and_costs_no_attempt() {
    let world = answering(SECOND);
    let limits = Limits { price_micros: 10, budget_micros: Some(25), ..Limits::default() };
    let cloud = limited("cloud", Zone::Public, 4, limits);
    let mut device = Device::started(world.clone(), vec![cloud]).await;
    let ids = hold(&device, 5, Held::of_priority(4)).await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.seen().len(), 2);
    let stats = device.queue().stats().await.unwrap();
    assert_eq!((stats.answered, stats.waiting_for_budget), (2, 3));
    device.stop().await;
    device.start().await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.seen().len(), 2, "a restart brings no money");
    for id in ids {
        let summary = device.until(id, State::Answered, 3 * DAY).await;
        assert_eq!(summary.attempts, 0);
    }
    let mut days: Vec<u64> = world.seen().iter().map(|seen| seen.at_ms / 86_400_000).collect();
    days.dedup();
    assert_eq!(days.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_and_again_is_set_aside_and_the_rest_goes_on() {
    let mut poison = None;
    let world = World::new(move |_, call| {
        let key = call.header("idempotency-key").map(str::to_owned);
        // The first that is sent.
        if poison.is_none() {
            poison.clone_from(&key);
        }
        if key.is_some() && key == poison { Act::Status(500, None) } else { Act::Answer(SECOND) }
    });
    let device = Device::started(world.clone(), vec![destination("site", Zone::Site, 4)]).await;
    let bad = device.hold(Held::of_priority(9)).await;
    sleep(SECOND).await;
    for id in hold(&device, 20, Held::of_priority(1)).await {
        device.until(id, State::Answered, Duration::from_secs(120)).await;
    }
    let summary = device.until(bad, State::SetAside, 10 * HOUR).await;
    assert_eq!(summary.attempts, 20);
    assert_eq!(world.keys().iter().filter(|key| **key == bad.to_string()).count(), 20);
    sleep(DAY).await;
    assert_eq!(world.keys().iter().filter(|key| **key == bad.to_string()).count(), 20);
    world.behave(|_, _| Act::Answer(SECOND));
    device.queue().retry_now(bad).await.unwrap();
    device.until(bad, State::Answered, HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_living_destination_never_answers_is_set_aside_too() {
    let mut poison = None;
    let world = World::new(move |_, call| {
        let key = call.header("idempotency-key").map(str::to_owned);
        if poison.is_none() {
            poison.clone_from(&key);
        }
        if key.is_some() && key == poison { Act::Silent } else { Act::Answer(SECOND) }
    });
    let device = Device::started(world.clone(), vec![destination("site", Zone::Site, 4)]).await;
    let bad = device.hold(Held::of_priority(9)).await;
    sleep(SECOND).await;
    for id in hold(&device, 20, Held::of_priority(1)).await {
        device.until(id, State::Answered, HOUR).await;
    }
    device.until(bad, State::SetAside, 10 * HOUR).await;
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_on_everybody_costs_nobody_an_attempt_too_many() {
    let world = World::new(|_, _| Act::Status(500, None));
    let device = Device::started(world.clone(), vec![destination("site", Zone::Site, 4)]).await;
    let ids = hold(&device, 30, Held::of_priority(4)).await;
    sleep(DAY).await;
    let tries = world.seen().len();
    assert!(tries < 24 * 60 * 6, "{tries} tries in a day");
    world.behave(|_, _| Act::Answer(SECOND));
    for id in ids {
        let summary = device.until(id, State::Answered, HOUR).await;
        assert!(summary.attempts <= 4, "{summary:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_line_is_nobodys_attempt() {
    let world = World::new(|_, _| Act::Silent);
    let device = Device::started(world.clone(), vec![destination("site", Zone::Site, 4)]).await;
    let ids = hold(&device, 5, Held::of_priority(4)).await;
    sleep(DAY).await;
    assert!(world.seen().len() <= 4, "only probes go out while it is silent");
    world.behave(|_, _| Act::Answer(SECOND));
    for id in ids {
        assert_eq!(device.until(id, State::Answered, HOUR).await.attempts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_dead_link_beside_a_living_one_costs_no_writes() {
    let world = World::new(|host, _| match host {
        "site" => Act::Nobody,
        _ => Act::Answer(SECOND),
    });
    let destinations =
        vec![destination("site", Zone::Site, 4), destination("cloud", Zone::Public, 4)];
    let mut device = Device::new(world.clone(), destinations);
    device.open().await;
    let here = Held { class: DataClass::Confidential, ..Held::of_priority(8) };
    let waiting = hold(&device, 50, here).await;
    let behind = hold(&device, 5, Held::of_priority(1)).await;
    device.start().await;
    for id in behind {
        device.until(id, State::Answered, HOUR).await;
    }
    let before = device.queue().stats().await.unwrap().appended;
    sleep(DAY).await;
    assert_eq!(device.queue().stats().await.unwrap().appended, before);
    world.behave(|_, _| Act::Answer(SECOND));
    for id in waiting {
        assert_eq!(device.until(id, State::Answered, HOUR).await.attempts, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_many_beyond_those_kept_in_memory_stand_in_line_and_go_when_their_link_is_back() {
    let world = World::new(|host, _| match host {
        "site" => Act::Nobody,
        _ => Act::Answer(SECOND),
    });
    let destinations =
        vec![destination("site", Zone::Site, 9), destination("cloud", Zone::Public, 4)];
    let mut device = Device::new(world.clone(), destinations);
    device.open().await;
    let here = Held { class: DataClass::Confidential, ..Held::of_priority(4) };
    let waiting = hold(&device, 700, here).await;
    let behind = hold(&device, 5, Held::of_priority(1)).await;
    device.start().await;
    for id in behind {
        device.until(id, State::Answered, HOUR).await;
    }
    let in_line = 700 - MOST_PARKED as u64;
    let written = device.queue().stats().await.unwrap().appended;
    assert_eq!(written, 705 + 5 + in_line, "one record each to stand in line");
    sleep(DAY).await;
    // Who comes later is found past all of them, and costs them nothing.
    let later = device.hold(Held::of_priority(1)).await;
    device.until(later, State::Answered, HOUR).await;
    assert_eq!(device.queue().stats().await.unwrap().appended, written + 2);
    device.stop().await;
    device.start().await;
    sleep(DAY).await;
    assert_eq!(device.queue().stats().await.unwrap().appended, 0, "nor does a restart");
    let urgent = device.hold(Held { class: DataClass::Confidential, ..Held::of_priority(9) }).await;
    sleep(SECOND).await;
    world.behave(|_, _| Act::Answer(SECOND));
    let (before, back) = (world.seen().len(), Instant::now());
    for id in &waiting {
        assert_eq!(device.until(*id, State::Answered, HOUR).await.attempts, 0);
    }
    // Eight at once, a second each, from when it was seen that the link is back.
    assert!(back.elapsed() < Duration::from_secs(700 / 8 + 60), "{:?}", back.elapsed());
    let mut order: Vec<_> = waiting.iter().map(ToString::to_string).collect();
    // What is urgent is one of the first, though all the others have aged beyond it.
    order.insert(1, urgent.to_string());
    // Those under way at once come in any order.
    let place = |key: &String| order.iter().position(|each| each == key).unwrap();
    for (at, key) in world.keys()[before..].iter().enumerate() {
        assert!(place(key).abs_diff(at) <= 8, "{key} came as number {at}, it is {}", place(key));
    }
}

#[tokio::test(start_paused = true)]
async fn who_stands_in_line_goes_as_fast_as_a_rate_allows_beside_a_dead_link() {
    let world = World::new(|host, _| match host {
        "dead" => Act::Nobody,
        _ => Act::Answer(SECOND),
    });
    let named = |name: &str| crate::request::TaskName::parse(name).unwrap();
    let limits = Limits { requests_per_min: Some(60), ..Limits::default() };
    let mut dead = destination("dead", Zone::Site, 4);
    dead.tasks = vec![named("part-inspection")];
    let mut slow = limited("slow", Zone::Site, 4, limits);
    slow.tasks = vec![named("voice-commands")];
    let mut other = destination("other", Zone::Site, 4);
    other.tasks = vec![named("meter-reading")];
    let mut device = Device::new(world.clone(), vec![dead, slow, other]);
    device.open().await;
    // The dead one's fill what is kept in memory; the others stand in line between and behind them.
    let first = Held { task: "part-inspection", ..Held::of_priority(5) };
    hold(&device, MOST_PARKED + 100, first).await;
    let slow = hold(&device, 300, Held::of_priority(5)).await;
    hold(&device, 100, first).await;
    device.start().await;
    let begun = Instant::now();
    for task in [0; 20] {
        sleep(Duration::from_secs(task + 5)).await;
        let other = device.hold(Held { task: "meter-reading", ..Held::of_priority(1) }).await;
        device.until(other, State::Answered, Duration::from_secs(10)).await;
    }
    for id in slow {
        device.until(id, State::Answered, HOUR).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(320), "{:?} for 300", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_may_be_asked_any_more_is_settled_while_every_link_is_down() {
    let world = World::new(|_, _| Act::Nobody);
    let mut device = Device::started(world, vec![destination("site", Zone::Site, 4)]).await;
    let ids = hold(&device, 200, Held::of_priority(4)).await;
    sleep(HOUR).await;
    device.stop().await;
    device.policy.tighten(DataClass::Public, Zone::Device).unwrap();
    device.start().await;
    for id in ids {
        let summary = device.until(id, State::Failed, HOUR).await;
        assert!(summary.last_reason.unwrap().contains("may not go"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_on_all_that_is_held_is_asked_rarely_and_takes_all_when_it_is_well()
 {
    let world = World::new(|_, _| Act::Status(500, None));
    let device = Device::started(world.clone(), vec![destination("site", Zone::Site, 4)]).await;
    let ids = hold(&device, 20, Held::of_priority(4)).await;
    sleep(5 * DAY).await;
    let sends = world.seen().len();
    // One in a quarter of an hour, or in half of that, however many wait.
    assert!((5 * 96..5 * 192 + 40).contains(&sends), "{sends} sends in five days");
    world.behave(|_, _| Act::Answer(SECOND));
    for id in ids {
        let summary = device.until(id, State::Answered, HOUR).await;
        assert!(summary.attempts <= 1, "only what failed before it was known to ail is blamed");
    }
}
