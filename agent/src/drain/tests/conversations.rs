//! Conversations that are held: whom they ask, and what becomes of them.

use std::time::Duration;

use bytes::Bytes;
use holdfast_chat::{Conversation, Dialect, Part, Said, Stop, Turn};

use super::world::{Act, Device, World, destination};
use crate::answer::Reason;
use crate::balance::Balancing;
use crate::destination::{Chat, Destination, Limits, Prices, Protocol, Zone};
use crate::envelope::{Envelope, Final, Frame, Held, HeldConversation, body_of};
use crate::gateway::Route;
use crate::outcome::Outcome;
use crate::queue::{NewEntry, RequestId, State};
use crate::request::{DataClass, Priority};
use crate::subject::Subject;

const QUICK: Act = Act::Answer(Duration::from_millis(20));
const HOUR: Duration = Duration::from_secs(3600);

fn talker(name: &str, zone: Zone) -> Destination {
    let protocol = Protocol::Chat(Chat::new(Dialect::OpenAi, "m"));
    Destination { protocol, ..destination(name, zone, 4) }
}

fn route(name: &str, of: &[&str]) -> Route {
    let destinations = of.iter().map(|name| (*name).to_owned()).collect();
    Route { name: name.to_owned(), destinations, balancing: Balancing::default() }
}

/// Holds a question to `model`, which may cost so much.
async fn hold(device: &Device, model: &str, class: DataClass, most: Option<u64>) -> RequestId {
    let id = RequestId::new();
    let turns = vec![Turn::User(vec![Part::Text("hello".to_owned())])];
    let conversation = Conversation { turns, ..Conversation::default() };
    let held = HeldConversation {
        model: model.to_owned(),
        within_ms: 60_000,
        cost_limit_micros: most,
        frame: Frame::default(),
    };
    let (now_ms, ttl_ms) = (device.now_ms(), 86_400_000);
    let envelope = Envelope {
        held: Held::Conversation(Box::new(held)),
        class,
        priority: Priority::default(),
        ttl_ms,
        key: None,
        hops: 0,
        reasons: vec![Reason::Held],
    };
    let entry = NewEntry {
        id,
        idempotency: None,
        priority: 4,
        accepted_at_ms: now_ms,
        not_before_ms: now_ms,
        expires_at_ms: Some(now_ms + ttl_ms),
        envelope: Bytes::from(envelope.to_bytes()),
        body: Bytes::from(body_of(&conversation)),
    };
    device.queue().accept(entry).await.unwrap();
    id
}

async fn answer(device: &Device, id: RequestId) -> Final {
    device.until(id, State::Answered, HOUR).await;
    let record = device.queue().get(id).await.unwrap().unwrap();
    Final::from_bytes(&record.answer.unwrap()).unwrap()
}

/// Who was asked, in order.
fn hosts(world: &World) -> Vec<String> {
    world.seen().iter().map(|seen| seen.host.clone()).collect()
}

fn device(world: &World) -> Device {
    let agent = destination("agent", Zone::Site, 4);
    let talkers = [("near", Zone::Site), ("far", Zone::Public)];
    let talkers = talkers.map(|(name, zone)| talker(name, zone));
    let mut device = Device::new(world.clone(), [vec![agent], talkers.to_vec()].concat());
    device.routes = vec![route("any", &["far", "near"]), route("gone", &[])];
    device
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_at_those_whom_it_means_in_their_order() {
    for (model, class, is_far_up, want) in [
        ("any", DataClass::Public, true, &["far"][..]),
        ("any", DataClass::Public, false, &["far", "near"]),
        ("any", DataClass::Internal, true, &["near"]),
        ("near", DataClass::Public, true, &["near"]),
        ("m", DataClass::Public, true, &["near"]),
    ] {
        let world = World::new(move |host, _| match host {
            "far" if !is_far_up => Act::Status(400, None),
            _ => QUICK,
        });
        let mut device = device(&world);
        device.start().await;
        let id = hold(&device, model, class, None).await;
        let stored = answer(&device, id).await;
        let last = *want.last().unwrap();
        assert_eq!(hosts(&world), want, "{model} {class} {is_far_up}");
        assert_eq!(world.keys(), vec![id.to_string(); want.len()]);
        assert_eq!((&stored.subject, stored.class), (&Subject::Model(model.to_owned()), class));
        assert_eq!((stored.answer.place.as_str(), stored.answer.model.as_str()), (last, "m-1"));
        let Some(Outcome::Message(message)) = stored.answer.outcome else { panic!("{stored:?}") };
        assert_eq!(message.said, [Said::Text(format!("{last} says hello"))]);
        assert_eq!((message.stop, message.usage.unwrap().output), (Stop::End, 3));
        device.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_may_answer_fails_and_is_never_sent() {
    let world = World::new(|_, _| QUICK);
    let dear = Prices { million_tokens_in: 9_000_000, ..Prices::default() };
    for (case, class, most, want) in [
        ("the class", DataClass::Restricted, None, "restricted data may not go to near"),
        ("the cost", DataClass::Public, Some(1), "no more than 1"),
    ] {
        let limits = Limits { prices: dear, price_micros: 10, ..Limits::default() };
        let near = Destination { limits, ..talker("near", Zone::Site) };
        let device = Device::started(world.clone(), vec![near]).await;
        let id = hold(&device, "near", class, most).await;
        let why = device.until(id, State::Failed, HOUR).await.last_reason.unwrap();
        assert!(why.contains(want), "{case}: {why}");
    }
    assert_eq!(hosts(&world), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_means_nothing_any_more_waits_for_a_configuration_that_knows_it() {
    let world = World::new(|_, _| QUICK);
    let mut device = device(&world);
    device.start().await;
    let mut ids = Vec::new();
    for model in ["other", "gone", "agent"] {
        ids.push((hold(&device, model, DataClass::Public, None).await, model));
    }
    for (id, model) in &ids {
        let noted = async {
            loop {
                let summary = device.summary(*id).await;
                match summary.last_reason {
                    Some(why) => return (summary.state, why),
                    None => tokio::time::sleep(Duration::from_secs(1)).await,
                }
            }
        };
        let (state, why) = tokio::time::timeout(HOUR, noted).await.unwrap();
        assert_eq!(state, State::Held);
        assert!(why.contains(model), "{why}");
    }
    assert_eq!(hosts(&world), [""; 0]);
    device.stop().await;
    device.routes = vec![route("other", &["near"])];
    device.start().await;
    assert_eq!(answer(&device, ids[0].0).await.answer.place, "near");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_dies_in_the_middle_asks_again_and_has_one_answer() {
    let mut sends = 0;
    let world = World::new(move |_, call| {
        sends += usize::from(!call.is_probe);
        if sends < 2 && !call.is_probe { Act::Silent } else { QUICK }
    });
    let mut device = device(&world);
    device.start().await;
    let id = hold(&device, "near", DataClass::Public, None).await;
    while world.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    device.kill().await;
    device.start().await;
    let stored = answer(&device, id).await;
    assert_eq!(stored.answer.label, "near says hello");
    assert_eq!(world.keys(), vec![id.to_string(); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_out_of_reach_is_waited_for() {
    let world = World::new(|_, _| Act::Nobody);
    let mut device = device(&world);
    device.start().await;
    let id = hold(&device, "near", DataClass::Public, None).await;
    tokio::time::sleep(HOUR).await;
    let summary = device.summary(id).await;
    assert_eq!((summary.state.is_final(), summary.attempts), (false, 0), "{summary:?}");
    world.behave(|_, _| QUICK);
    assert_eq!(answer(&device, id).await.answer.place, "near");
}
