//! Conversations with every provider, in one piece and piece by piece.

use holdfast_agent::destination::Limits;
use holdfast_agent::escalate::{Attempt, Telling};
use holdfast_agent::inquiry::{Inquiry, Terms};
use holdfast_agent::policy::Policy;
use holdfast_agent::queue::RequestId;
use holdfast_agent::request::{DataClass, Priority};
use holdfast_chat::{Conversation, Event, Gathering, Part, Stop, Turn};
use holdfast_tests::vendors::{Next, Says, TOKENS, Trouble, Vendor};

use super::suite::{Bench, PLENTY, PRICES, escalator};

fn inquiry(question: &str) -> Inquiry<Conversation> {
    let terms = Terms {
        class: DataClass::Internal,
        priority: Priority::default(),
        within: PLENTY,
        cost_limit_micros: None,
        key: None,
        hops: 0,
    };
    let turns = vec![Turn::User(vec![Part::Text(question.to_owned())])];
    let matter = Conversation { turns, ..Conversation::default() };
    Inquiry { id: RequestId::new(), terms, matter }
}

async fn open(bench: &Bench, inquiry: &Inquiry<Conversation>) -> Telling {
    let cleared = Policy::default().clear(inquiry, &bench.destination).unwrap();
    let opened = bench.escalator.converse_in_pieces(cleared, PLENTY, &Attempt::default()).await;
    let refused = bench.fake.refused();
    opened.unwrap_or_else(|error| panic!("{:?}: {error} {refused:?}", bench.vendor))
}

fn cost() -> u64 {
    let (tokens_in, _, tokens_out) = TOKENS;
    10 + tokens_in * 3 + tokens_out * 15
}

#[tokio::test]
async fn the_pieces_of_an_answer_are_the_answer() {
    for vendor in Vendor::ALL {
        let bench = Bench::new(vendor).await;
        let inquiry = inquiry("count 12");
        let cleared = Policy::default().clear(&inquiry, &bench.destination).unwrap();
        let told = bench.escalator.converse(cleared, PLENTY, &Attempt::default()).await;
        let refused = bench.fake.refused();
        let told = told.unwrap_or_else(|error| panic!("{vendor:?}: {error} {refused:?}"));
        let numbers: Vec<String> = (1..=12).map(|n| n.to_string()).collect();
        assert_eq!(told.answer.text(), Some(numbers.join(" ")), "{vendor:?}");
        assert_eq!((told.answer.stop, told.cost_micros), (Stop::End, Some(cost())), "{vendor:?}");
        let mut telling = open(&bench, &inquiry).await;
        let (mut events, mut gathered, mut texts) = (Vec::new(), Gathering::default(), 0);
        loop {
            let is_more = telling.next(&mut events).await;
            let is_more = is_more.unwrap_or_else(|error| panic!("{vendor:?}: {error}"));
            for event in events.drain(..) {
                texts += usize::from(matches!(event, Event::Text(_)));
                gathered.take(&event);
            }
            if !is_more {
                break;
            }
        }
        let answer = gathered.answer().unwrap();
        assert_eq!(answer.text(), Some(numbers.join(" ")), "{vendor:?}");
        assert_eq!((answer.stop, texts), (Stop::End, 12), "{vendor:?}");
        assert_eq!(telling.cost_micros(), Some(cost()), "{vendor:?}");
        assert!(!telling.next(&mut events).await.unwrap(), "{vendor:?}: it stays at its end");
    }
}

#[tokio::test]
async fn a_stream_begins_with_the_documented_error_or_not_at_all() {
    for vendor in Vendor::ALL {
        for (trouble, code) in [
            (Trouble::Transient, "failed"),
            (Trouble::Throttled, "throttled"),
            (Trouble::BadRequest, "refused"),
            (Trouble::Authentication, "unauthorised"),
        ] {
            let bench = Bench::new(vendor).await;
            bench.fake.next(Next::Fails(trouble));
            let inquiry = inquiry("hello");
            let cleared = Policy::default().clear(&inquiry, &bench.destination).unwrap();
            let error = bench
                .escalator
                .converse_in_pieces(cleared, PLENTY, &Attempt::default())
                .await
                .unwrap_err();
            assert_eq!(error.code(), code, "{vendor:?}: {error}");
        }
    }
}

#[tokio::test]
async fn who_leaves_in_the_middle_ends_the_call_and_pays_what_was_set_apart() {
    for vendor in Vendor::ALL {
        let mut bench = Bench::new(vendor).await;
        let limits = Limits { price_micros: 10, prices: PRICES, ..Limits::default() };
        // For a question, a picture or a minute of sound.
        let apart = 10 + 8_192 * 3 + 4_096 * 15;
        let budget_micros = Some(apart + 6_000);
        bench.destination.limits = Limits { budget_micros, ..limits };
        bench.escalator = escalator(&bench.destination, bench.dir.path());
        let mut telling = open(&bench, &inquiry("talk on")).await;
        let mut events = Vec::new();
        while !events.iter().any(|event| matches!(event, Event::Text(_))) {
            assert!(telling.next(&mut events).await.unwrap(), "{vendor:?}");
        }
        drop(telling);
        let until = tokio::time::Instant::now() + PLENTY;
        while bench.fake.left() == 0 {
            assert!(tokio::time::Instant::now() < until, "{vendor:?}: it talks on");
            tokio::task::yield_now().await;
        }
        let inquiry = inquiry("hello");
        let cleared = Policy::default().clear(&inquiry, &bench.destination).unwrap();
        let error =
            bench.escalator.converse(cleared, PLENTY, &Attempt::default()).await.unwrap_err();
        assert_eq!(error.code(), "over_budget", "{vendor:?}: {error}");
    }
}

#[tokio::test]
async fn an_answer_that_came_to_its_limit_is_an_answer() {
    for vendor in Vendor::ALL {
        let bench = Bench::new(vendor).await;
        bench.fake.next(Next::Says(Says::Cut("half".to_owned())));
        let inquiry = inquiry("hello");
        let cleared = Policy::default().clear(&inquiry, &bench.destination).unwrap();
        let told = bench.escalator.converse(cleared, PLENTY, &Attempt::default()).await.unwrap();
        assert_eq!(told.answer.stop, Stop::Length, "{vendor:?}");
    }
}
