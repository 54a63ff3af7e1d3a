//! The list of requests on disk.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::desk::Desk;

/// An agent whose site is out of reach: what it is asked is held.
async fn holding() -> Desk {
    Desk::start(|_| {
        "\n[[destination]]\nname = \"site\"\nzone = \"site\"\nurl = \"http://127.0.0.1:9\"\n\
         tasks = [\"look\"]\n"
            .to_owned()
    })
    .await
}

async fn hold(desk: &Desk, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for at in 0..count {
        let reply = desk.post("/v1/tasks/look", &json!({ "at": at }), &[]).await;
        assert_eq!(reply.status, 202, "{}", reply.text);
        ids.push(reply.json()["id"].as_str().unwrap().to_owned());
    }
    ids
}

fn ids(page: &Value) -> Vec<String> {
    let rows = page["requests"].as_array().unwrap();
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn requests_are_listed_page_by_page_in_the_order_in_which_they_were_made() {
    let desk = holding().await;
    let held = hold(&desk, 5).await;
    let mut path = "/v1/requests?limit=2".to_owned();
    let mut found = Vec::new();
    loop {
        let page = desk.get(&path).await.json();
        found.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/requests?limit=2&after={next}");
    }
    assert_eq!(found, held);
    for (query, want) in [("state=held", 5), ("state=answered", 0), ("limit=3", 3)] {
        let page = desk.get(&format!("/v1/requests?{query}")).await.json();
        assert_eq!(ids(&page).len(), want, "{query}: {page}");
    }
    for query in ["limit=0", "limit=1001", "state=lost", "after=me", "colour=blue"] {
        let reply = desk.get(&format!("/v1/requests?{query}")).await;
        assert!([400, 404].contains(&reply.status), "{query}: {}", reply.text);
    }
}

#[tokio::test]
async fn who_follows_the_list_sees_each_request_once_and_those_to_come() {
    let desk = holding().await;
    let before = hold(&desk, 3).await;
    let mut stream = desk.follow(&format!("/v1/requests?after={}", before[0])).await;
    let after = hold(&desk, 2).await;
    let want: Vec<String> = before[1..].iter().chain(&after).cloned().collect();
    let mut text = String::new();
    while text.matches("event: request").count() < want.len() || !text.ends_with("\n\n") {
        let chunk = timeout(Duration::from_secs(20), stream.chunk()).await.unwrap();
        text += std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap();
    }
    let found: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    assert_eq!(found, want, "{text}");
}
