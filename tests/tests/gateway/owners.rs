//! Whose a key is, who hears of a request, and terms where they mean nothing.

use holdfast_tests::vendors::{Fake, Vendor};
use serde_json::{Value, json};

use super::desk::{Desk, vendor};

const CHAT: &str = "/v1/chat/completions";
const KEY: &str = "shift-7";

fn conversation(words: &str) -> Value {
    json!({ "model": "near", "messages": [{ "role": "user", "content": words }] })
}

fn response(words: &str) -> Value {
    json!({ "model": "near", "input": words, "background": true })
}

#[tokio::test]
async fn a_key_is_its_callers_own() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let mut desk = Desk::guarded(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let [mine, theirs] = ["mine", "theirs"].map(|name| format!("Bearer {}", desk.token(&[name])));
    let terms =
        |token| [("authorization", token), ("idempotency-key", KEY), ("holdfast-hold", "true")];
    // Another caller neither meets what the first asked under the key, nor has its answer.
    for (token, words, asked) in [
        (&mine, "payroll", 1),
        (&theirs, "payroll", 2),
        (&mine, "payroll", 2),
        (&theirs, "payroll", 2),
    ] {
        let reply = desk.post(CHAT, &conversation(words), &terms(token)).await;
        assert_eq!((reply.status, near.asked()), (200, asked), "{}", reply.text);
    }
    desk.restart().await;
    let reply = desk.post(CHAT, &conversation("payroll"), &terms(&mine)).await;
    assert_eq!((reply.status, near.asked()), (200, 2), "it is kept with the key: {}", reply.text);
    let reply = desk.post(CHAT, &conversation("another"), &terms(&mine)).await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "idempotency_key_conflict"));
    assert!(reply.text.contains(&format!("key \\\"{KEY}\\\" was used")), "{}", reply.text);
}

#[tokio::test]
async fn a_token_for_some_classes_hears_of_nothing_more_sensitive() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::guarded(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let mine = format!("Bearer {}", desk.token(&["mine"]));
    let internal = format!("Bearer {}", desk.token(&["some", "--class", "internal"]));
    let [mine, internal] = [&mine, &internal].map(|token| ("authorization", token.as_str()));
    let key = ("idempotency-key", KEY);
    let class = ("holdfast-class", "internal");
    let first = desk.post("/v1/responses", &response("payroll"), &[mine, key]).await.json();
    let second = desk.post("/v1/responses", &response("p"), &[internal, key, class]).await.json();
    let id = |told: &Value| told["id"].as_str().unwrap().to_owned();
    let (confidential, own) = (id(&first), id(&second));
    assert_ne!(confidential, own);
    for (path, is_there) in [(&confidential, false), (&own, true)] {
        let plain = path.strip_prefix("resp_").unwrap();
        for path in [format!("/v1/responses/{path}"), format!("/v1/requests/{plain}")] {
            let reply = desk.get_with(&path, &[internal]).await;
            assert_eq!(reply.status, if is_there { 200 } else { 404 }, "{path}: {}", reply.text);
            assert_eq!(desk.get_with(&path, &[mine]).await.status, 200, "{path}");
        }
    }
    let path = format!("/v1/responses/{confidential}");
    let cancelled = desk.post(&format!("{path}/cancel"), &json!({}), &[internal]).await;
    assert_eq!(cancelled.status, 404, "{}", cancelled.text);
    assert_eq!(desk.delete_with(&path, &[internal]).await.status, 404);
    assert_eq!(desk.get_with(&path, &[mine]).await.status, 200, "it is there still");
}

#[tokio::test]
async fn a_term_in_the_query_is_refused_and_nothing_is_sent() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let body = conversation("hello");
    for query in ["class=restricted", "holdfast_class=restricted", "api-version=1&klass=public"] {
        let reply = desk.post(&format!("{CHAT}?{query}"), &body, &[]).await;
        assert_eq!((reply.status, near.asked()), (400, 0), "{query}: {}", reply.text);
        assert!(reply.text.contains("is not known in the query"), "{}", reply.text);
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    let reply = desk.post(&format!("{CHAT}?api-version=2024-10-21"), &body, &[]).await;
    assert_eq!((reply.status, near.asked()), (200, 1), "{}", reply.text);
}
