//! What a destination costs when it does not answer as it should.

use std::time::Duration;

use holdfast_agent::destination::{Limits, Prices};
use holdfast_agent::escalate::{Next as ToDo, Share, Standing};
use holdfast_tests::vendors::{KEY, Next, Reply, Says, Trouble, Vendor, token};
use serde_json::json;

use super::suite::{Bench, escalator, picture};

/// A unit for a token, and a budget for what is set apart for one picture and so much more.
fn with_budget(bench: &mut Bench, more: u64) {
    let prices =
        Prices { million_tokens_in: 1_000_000, million_tokens_out: 1_000_000, ..Prices::default() };
    // Set apart for one are 8192 and 4096 tokens.
    let budget_micros = Some(12_288 + more);
    bench.destination.limits = Limits { prices, budget_micros, ..Limits::default() };
    bench.escalator = escalator(&bench.destination, bench.dir.path());
}

fn is_spent(bench: &Bench) -> bool {
    let standing = bench.escalator.standing(bench.vendor.name(), None, Share::First);
    matches!(standing, Standing::OverBudget(_))
}

#[tokio::test]
async fn an_answer_that_is_of_no_use_costs_what_was_counted_for_it() {
    for vendor in Vendor::ALL {
        for (more, want) in [(129, false), (128, true)] {
            let mut bench = Bench::new(vendor).await;
            with_budget(&mut bench, more);
            let error = bench.fails(Next::Says(Says::Text("It is cracked.".to_owned()))).await;
            assert_eq!(error.code(), "unusable", "{vendor:?}: {error}");
            assert_eq!(is_spent(&bench), want, "{vendor:?} {more}");
        }
    }
}

#[tokio::test]
async fn a_question_that_a_filter_refuses_costs_nothing() {
    for vendor in [Vendor::OpenAi, Vendor::AzureOpenAi, Vendor::Mistral, Vendor::Anthropic] {
        let mut bench = Bench::new(vendor).await;
        with_budget(&mut bench, 0);
        let error = bench.fails(Next::Fails(Trouble::Safety)).await;
        assert_eq!((error.code(), error.may_cost()), ("unusable", false), "{vendor:?}: {error}");
        assert!(!is_spent(&bench), "{vendor:?}");
    }
}

#[tokio::test]
async fn a_token_that_nobody_gives_costs_nothing_and_is_no_attempt() {
    let mut bench = Bench::new(Vendor::Vertex).await;
    with_budget(&mut bench, 0);
    bench.fake.gives_no_token(true);
    let error = bench.send(&picture()).await.unwrap_err();
    let later = ToDo::Later { after: Duration::from_secs(5) };
    assert_eq!((error.code(), error.next()), ("no_token", later), "{error}");
    assert!(!error.may_cost() && !is_spent(&bench), "{error}");
    assert_eq!(bench.fake.asked(), 0);
    assert!(bench.escalator.is_reachable("vertex"), "the destination itself was not asked");
    bench.fake.gives_no_token(false);
    assert_eq!(bench.send(&picture()).await.unwrap().label, "cracked");
}

#[tokio::test]
async fn neither_the_credential_nor_its_token_is_shown_when_they_are_repeated() {
    for vendor in Vendor::ALL {
        let bench = Bench::new(vendor).await;
        // What is shown to Vertex is the token that was given for the credential.
        let shown = if vendor == Vendor::Vertex { token::TOKEN } else { KEY };
        let what = format!("wrong: {shown}");
        let error = json!({ "error": { "code": 400, "message": what, "type": "x", "status": "X" },
            "message": what, "detail": what });
        let error = bench.fails(Next::Sends(Reply::json(400, vec![], &error))).await;
        assert!(error.to_string().contains("[credential]"), "{vendor:?}: {error}");
    }
}
