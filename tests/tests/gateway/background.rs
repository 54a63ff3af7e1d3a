//! Responses that are made in the background: held, and told later.

use std::path::Path;
use std::time::Duration;

use holdfast_tests::link::{Link, Weather};
use holdfast_tests::vendors::{Fake, Next, Says, TOKENS, Trouble, Vendor};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::desk::{Desk, Reply, openai, vendor};
use super::raw::{Raw, Then};

const SOON: Duration = Duration::from_secs(60);

fn question(model: &str, input: &str) -> Value {
    json!({ "model": model, "input": input, "background": true, "metadata": { "mine": "1" },
        "instructions": "be brief" })
}

async fn link_to(fake: &Fake) -> Link {
    Link::to(fake.url.strip_prefix("http://").unwrap().parse().unwrap()).await.unwrap()
}

/// The stand-in as a destination, behind a link.
fn behind(link: &Link, fake: &Fake, dir: &Path) -> String {
    let text = vendor("near", "site", fake, Vendor::OpenAi, dir);
    text.replace(&fake.url, &format!("http://{}", link.address()))
}

async fn held(desk: &Desk, body: &Value, terms: &[(&str, &str)]) -> Value {
    let reply = desk.post("/v1/responses", body, terms).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

fn path_of(response: &Value) -> String {
    format!("/v1/responses/{}", response["id"].as_str().unwrap())
}

/// The response once it is neither queued nor in progress.
async fn settled(desk: &Desk, response: &Value) -> Reply {
    let until = Instant::now() + SOON;
    loop {
        let reply = desk.get(&path_of(response)).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let status = reply.json()["status"].as_str().unwrap().to_owned();
        if !["queued", "in_progress"].contains(&status.as_str()) {
            return reply;
        }
        assert!(Instant::now() < until, "{}\n{}", reply.text, desk.node.log_tail());
        sleep(Duration::from_millis(20)).await;
    }
}

fn text_of(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_response_is_held_over_a_dead_link_and_a_kill_and_is_then_completed() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    link.set(Weather::Cut);
    let mut desk = Desk::start(|dir| behind(&link, &near, dir)).await;
    let terms = [("holdfast-priority", "7"), ("holdfast-class", "internal")];
    let response = held(&desk, &question("near", "hello"), &terms).await;
    assert_eq!(response["status"], "queued", "{response}");
    assert_eq!((&response["background"], &response["store"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&response["model"], &response["instructions"]),
        (&json!("near"), &json!("be brief"))
    );
    assert_eq!(response["metadata"], json!({ "mine": "1" }));
    let id = response["id"].as_str().unwrap().strip_prefix("resp_").unwrap().to_owned();
    for _ in 0..2 {
        let again = desk.get(&path_of(&response)).await.json();
        // It is tried now and then.
        assert!(["queued", "in_progress"].contains(&again["status"].as_str().unwrap()), "{again}");
        assert_eq!(again["created_at"], response["created_at"]);
        let native = desk.get(&format!("/v1/requests/{id}")).await.json();
        let told = (&native["model"], &native["priority"], &native["class"]);
        assert_eq!(told, (&json!("near"), &json!(7), &json!("internal")), "{native}");
        assert_eq!(native.get("task"), None, "{native}");
        desk.restart().await;
    }
    assert_eq!(near.asked(), 0);
    link.set(Weather::Up);
    let reply = settled(&desk, &response).await;
    let done = reply.json();
    assert_eq!((&done["status"], text_of(&done)), (&json!("completed"), "openai says hello"));
    let tokens = (&done["usage"]["input_tokens"], &done["usage"]["output_tokens"]);
    assert_eq!(tokens, (&json!(TOKENS.0), &json!(TOKENS.2)), "{done}");
    assert_eq!((&done["id"], &done["instructions"]), (&response["id"], &json!("be brief")));
    assert_eq!(reply.headers["holdfast-destination"], "near");
    assert_eq!(reply.headers["holdfast-cost-micros"], (120 * 3 + 9 * 15).to_string());
    assert_eq!(near.asked(), 1);
    // The same after one more kill, and on the native side.
    desk.restart().await;
    assert_eq!(desk.get(&path_of(&response)).await.json(), done);
    let native = desk.get(&format!("/v1/requests/{id}")).await.json();
    let message = &native["answer"]["message"];
    assert_eq!(
        (&native["state"], &message["text"]),
        (&json!("answered"), &json!("openai says hello"))
    );
    assert_eq!(message["usage"]["output"], TOKENS.2, "{native}");
    let results = desk.get("/v1/results").await.json();
    assert_eq!(
        (&results["results"][0]["id"], &results["results"][0]["model"]),
        (&json!(id), &json!("near"))
    );
    let row = &desk.get("/v1/requests").await.json()["requests"][0];
    assert_eq!((&row["model"], &row["state"]), (&json!("near"), &json!("answered")), "{row}");
    assert_eq!(desk.queue(&["show", &id])["answer"]["label"], "openai says hello");
    assert_eq!(near.asked(), 1);
}

#[tokio::test]
async fn a_response_ends_as_what_it_came_to() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let tool = json!({ "type": "function", "name": "weather", "strict": true, "parameters":
        { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"],
          "additionalProperties": false } });
    let mut calling = question("near", "weather in Bonn?");
    calling["tools"] = json!([tool]);
    let called = settled(&desk, &held(&desk, &calling, &[]).await).await.json();
    let item = &called["output"][0];
    assert_eq!(
        (&item["type"], &item["name"]),
        (&json!("function_call"), &json!("weather")),
        "{called}"
    );
    assert_eq!(called["tools"][0]["name"], "weather");
    for (says, status, reason) in [
        (Says::Text("yes".to_owned()), "completed", Value::Null),
        (Says::Cut("ye".to_owned()), "incomplete", json!({ "reason": "max_output_tokens" })),
        (Says::Filtered, "incomplete", json!({ "reason": "content_filter" })),
    ] {
        near.next(Next::Says(says));
        let done = settled(&desk, &held(&desk, &question("near", "hello"), &[]).await).await.json();
        assert_eq!(
            (&done["status"], &done["incomplete_details"]),
            (&json!(status), &reason),
            "{done}"
        );
    }
    for (input, why) in [("fail bad request", "refused the request"), ("fail safety", "filter")] {
        let done = settled(&desk, &held(&desk, &question("near", input), &[]).await).await.json();
        assert_eq!(
            (&done["status"], &done["error"]["code"]),
            (&json!("failed"), &json!("server_error"))
        );
        assert!(done["error"]["message"].as_str().unwrap().contains(why), "{done}");
    }
    let short = [("holdfast-ttl-ms", "100"), ("holdfast-not-before-ms", "99")];
    let response = held(&desk, &question("near", "fail transient"), &short).await;
    let done = settled(&desk, &response).await.json();
    assert_eq!(done["status"], "failed", "{done}");
    assert!(done["error"]["message"].as_str().unwrap().contains("time to live"), "{done}");
}

#[tokio::test]
async fn what_the_policy_keeps_from_everybody_is_not_called_held() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    link.set(Weather::Cut);
    let mut desk = Desk::start(|dir| behind(&link, &near, dir)).await;
    let terms = [("holdfast-class", "internal")];
    let response = held(&desk, &question("near", "hello"), &terms).await;
    let native = format!("/v1/requests/{}", response["id"].as_str().unwrap().replace("resp_", ""));
    let reasons = desk.get(&native).await.json()["reasons"].to_string();
    assert!(reasons.contains("\"held\""), "{reasons}");
    desk.reconfigure(|toml| toml + "\n[policy.farthest_zone]\ninternal = \"device\"\n").await;
    let done = settled(&desk, &response).await.json();
    assert_eq!(done["status"], "failed", "{done}");
    let native = desk.get(&native).await.json();
    for text in [done["error"]["message"].to_string(), native.to_string()] {
        assert!(text.contains("internal data may not go to near"), "{text}");
        assert!(!text.contains("held"), "{text}");
    }
    assert_eq!(near.asked(), 0);
}

#[tokio::test]
async fn what_is_taken_back_is_not_asked_and_what_is_removed_is_gone() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let link = link_to(&near).await;
    link.set(Weather::Cut);
    let desk = Desk::start(|dir| behind(&link, &near, dir)).await;
    let mut paths = Vec::new();
    for _ in 0..2 {
        paths.push(path_of(&held(&desk, &question("near", "hello"), &[]).await));
    }
    for _ in 0..2 {
        let reply = desk.post(&format!("{}/cancel", paths[0]), &json!({}), &[]).await;
        assert_eq!((reply.status, &reply.json()["status"]), (200, &json!("cancelled")));
    }
    let removed = desk.delete(&paths[1]).await;
    assert_eq!(
        (removed.status, &removed.json()["deleted"]),
        (200, &json!(true)),
        "{}",
        removed.text
    );
    for path in [&paths[1], "/v1/responses/resp_1", "/v1/responses/near"] {
        for reply in [desk.get(path).await, desk.delete(path).await] {
            assert_eq!((reply.status, reply.code().as_str()), (404, "unknown_response"), "{path}");
        }
    }
    link.set(Weather::Up);
    let last = held(&desk, &question("near", "hello"), &[]).await;
    assert_eq!(settled(&desk, &last).await.json()["status"], "completed");
    assert_eq!(desk.get(&paths[0]).await.json()["status"], "cancelled");
    assert_eq!(near.asked(), 1);
    // One that has its end keeps it.
    let reply = desk.post(&format!("{}/cancel", path_of(&last)), &json!({}), &[]).await;
    assert_eq!(
        (reply.status, &reply.json()["status"]),
        (200, &json!("completed")),
        "{}",
        reply.text
    );
    assert_eq!(desk.delete(&path_of(&last)).await.status, 200);
    assert_eq!(desk.get(&path_of(&last)).await.status, 404);
}

#[tokio::test]
async fn under_one_key_there_is_one_response() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let key = [("idempotency-key", "shift-7")];
    let first = held(&desk, &question("near", "hello"), &key).await;
    settled(&desk, &first).await;
    let mut other = question("near", "hello");
    other["metadata"] = json!({ "holdfast_idempotency_key": "shift-7" });
    for again in
        [held(&desk, &question("near", "hello"), &key).await, held(&desk, &other, &[]).await]
    {
        assert_eq!((&again["id"], &again["status"]), (&first["id"], &json!("completed")));
    }
    assert_eq!(near.asked(), 1);
    let public = [key[0], ("holdfast-class", "public")];
    for (model, input, terms, differs) in [
        ("near", "count 2", &key[..], "the conversation, or a setting of it, is another one"),
        ("near", "hello", &public[..], "class is public, was confidential"),
        ("model-1:0", "hello", &key[..], "the model is another one"),
    ] {
        let reply = desk.post("/v1/responses", &question(model, input), terms).await;
        assert_eq!((reply.status, reply.code().as_str()), (409, "idempotency_key_conflict"));
        assert!(reply.text.contains(differs), "{}", reply.text);
    }
}

#[tokio::test]
async fn what_cannot_be_held_is_refused_in_the_form_that_the_clients_know() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    // The sections follow that of the queue.
    let desk = Desk::start(|dir| {
        let near = vendor("near", "site", &near, Vendor::OpenAi, dir);
        "max_requests = 1\n".to_owned() + &near + &openai("down", "http://127.0.0.1:9", "")
    })
    .await;
    let with = |field: &str, value: Value| {
        let mut body = question("near", "hello");
        body[field] = value;
        body
    };
    let class = |class| with("metadata", json!({ "holdfast_class": class }));
    for (case, body, status, code) in [
        ("not kept", with("store", json!(false)), 400, "unsupported_value"),
        ("nobody's", with("model", json!("nobody")), 404, "model_not_found"),
        ("the class", class("restricted"), 403, "class_forbids"),
        ("no class", class("secret"), 400, "bad_parameter"),
        ("no span", with("metadata", json!({ "holdfast_ttl_ms": "soon" })), 400, "bad_parameter"),
        ("not held", with("background", json!(false)), 200, ""),
    ] {
        let reply = desk.post("/v1/responses", &body, &[]).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{case}: {}", reply.text);
    }
    let late = [("holdfast-ttl-ms", "9"), ("holdfast-not-before-ms", "9")];
    let reply = desk.post("/v1/responses", &question("near", "hello"), &late).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "bad_parameter"), "{}", reply.text);
    let now = [("holdfast-ttl-ms", "9")];
    let reply = desk.post("/v1/responses", &with("background", json!(false)), &now).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "bad_parameter"), "{}", reply.text);
    let path = path_of(&held(&desk, &question("down", "hello"), &[]).await);
    let reply = desk.post("/v1/responses", &question("down", "hello"), &[]).await;
    assert_eq!((reply.status, reply.code().as_str()), (429, "queue_full"), "{}", reply.text);
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    let reply = desk.get(&format!("{path}?starting_after=1")).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "unsupported_parameter"));
}

#[tokio::test]
async fn without_a_queue_nothing_is_promised() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        let state = dir.join(holdfast_tests::site::DEVICE);
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(state.join("queue"), b"in its place").unwrap();
        vendor("near", "site", &near, Vendor::OpenAi, dir)
    })
    .await;
    let body = question("near", "hello");
    for reply in [
        desk.post("/v1/responses", &body, &[]).await,
        desk.get("/v1/responses/resp_0198f0a2-0000-7000-8000-000000000000").await,
    ] {
        assert_eq!((reply.status, reply.code().as_str()), (503, "no_queue"), "{}", reply.text);
        assert!(reply.headers.contains_key("retry-after"));
    }
    assert_eq!(desk.ask("near", "hello", false).await.status, 200, "who waits is answered");
}

#[tokio::test]
async fn a_token_hears_of_its_own_models_responses_alone() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::guarded(|dir| {
        let other = vendor("other", "site", &near, Vendor::OpenAi, dir);
        vendor("near", "site", &near, Vendor::OpenAi, dir) + &other
    })
    .await;
    let mine = desk.token(&["mine", "--task", "near", "--class", "internal"]);
    let others = desk.token(&["others", "--task", "other"]);
    let bearer = format!("Bearer {mine}");
    let ask = |model: &str, class| {
        let (body, bearer) = (question(model, "hello"), bearer.clone());
        let desk = &desk;
        async move {
            let terms = [("authorization", bearer.as_str()), ("holdfast-class", class)];
            desk.post("/v1/responses", &body, &terms).await
        }
    };
    for (model, class) in [("other", "internal"), ("near", "public")] {
        let reply = ask(model, class).await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "insufficient_permissions"));
    }
    let reply = ask("near", "internal").await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let native = format!("/v1/requests/{}", id.strip_prefix("resp_").unwrap());
    let path = format!("/v1/responses/{id}");
    for (token, path, status) in
        [(&mine, &path, 200), (&mine, &native, 200), (&others, &path, 404), (&others, &native, 404)]
    {
        assert_eq!(desk.get_as(token, path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn what_is_set_aside_has_failed_until_its_operator_lets_it_go_again() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    near.next(Next::Fails(Trouble::Transient));
    // The sections follow that of the queue.
    let desk = Desk::start(|dir| {
        "max_attempts = 1\n".to_owned() + &vendor("near", "site", &near, Vendor::OpenAi, dir)
    })
    .await;
    let response = held(&desk, &question("near", "hello"), &[]).await;
    let failed = settled(&desk, &response).await.json();
    assert_eq!(failed["status"], "failed", "{failed}");
    let why = failed["error"]["message"].as_str().unwrap();
    assert!(why.contains("set aside until its operator"), "{why}");
    let id = response["id"].as_str().unwrap();
    assert_eq!(desk.queue(&["show", id])["state"], "set_aside");
    assert_eq!(desk.queue(&["retry", id])[0]["retried"], true);
    let until = Instant::now() + SOON;
    while desk.get(&path_of(&response)).await.json()["status"] != "completed" {
        assert!(Instant::now() < until, "{}", desk.node.log_tail());
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(desk.queue(&["drop", "--yes", id])[0]["dropped"], true);
}

/// Writes something else over the envelope that has this word in it, in the journal.
fn harm(dir: &Path, word: &str) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(word.len()).position(|window| window == word.as_bytes());
        if let Some(at) = found {
            bytes[at] ^= 1;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes[at..=at], at as u64).unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_damaged_can_be_taken_back_and_removed() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::guarded(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let mine = desk.token(&["mine", "--task", "near"]);
    let all = desk.token(&["all"]);
    let bearer = |token: &str| format!("Bearer {token}");
    let (mine, all) = (bearer(&mine), bearer(&all));
    let later = [("holdfast-not-before-ms", "600000"), ("authorization", all.as_str())];
    let as_all = [("authorization", all.as_str())];
    let mut paths = Vec::new();
    for word in ["word-one", "word-two"] {
        let mut question = question("near", "hello");
        question["instructions"] = json!(word);
        let response = held(&desk, &question, &later).await;
        harm(&desk.journal(), word);
        paths.push(path_of(&response));
    }
    for path in &paths {
        let reply = desk.get_with(path, &as_all).await;
        assert_eq!((reply.status, reply.code().as_str()), (410, "damaged"), "{}", reply.text);
    }
    let cancel = format!("{}/cancel", paths[0]);
    // Whose it is cannot be read.
    let reply = desk.post(&cancel, &json!({}), &[("authorization", mine.as_str())]).await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "unknown_response"));
    for _ in 0..2 {
        let reply = desk.post(&cancel, &json!({}), &as_all).await;
        let told = reply.json();
        assert_eq!((reply.status, &told["status"]), (200, &json!("cancelled")), "{told}");
        assert_eq!(paths[0].rsplit('/').next(), told["id"].as_str());
    }
    for path in &paths {
        let reply = desk.delete_with(path, &as_all).await;
        assert_eq!((reply.status, &reply.json()["deleted"]), (200, &json!(true)), "{}", reply.text);
        assert_eq!(desk.get_with(path, &as_all).await.status, 404);
    }
}

#[tokio::test]
async fn a_destination_that_redirects_what_is_sent_alone_loses_nothing_and_is_not_followed() {
    let elsewhere = Fake::start(Vendor::OpenAi).await.unwrap();
    let port = elsewhere.url.rsplit(':').next().unwrap();
    // The second one is another host, as a portal's is.
    for host in ["127.0.0.1", "localhost"] {
        let near = Fake::start(Vendor::OpenAi).await.unwrap();
        let bytes = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{host}:{port}/v1/chat/completions\r\n\
             content-length: 0\r\nconnection: close\r\n\r\n"
        );
        // Who only looks whether anybody is there is not redirected.
        let portal = Raw::start(bytes, Then::Close).await;
        let mut desk = Desk::start(|dir| {
            let near_of = vendor("near", "site", &near, Vendor::OpenAi, dir);
            near_of.replace(&near.url, &portal.url)
        })
        .await;
        let response = held(&desk, &question("near", "hello"), &[]).await;
        assert!(portal.is_asked(2, SOON).await, "{host}: {}", desk.node.log_tail());
        let told = desk.get(&path_of(&response)).await.json();
        assert!(["queued", "in_progress"].contains(&told["status"].as_str().unwrap()), "{told}");
        desk.reconfigure(|toml| toml.replace(&portal.url, &near.url)).await;
        let done = settled(&desk, &response).await.json();
        assert_eq!((&done["status"], text_of(&done)), (&json!("completed"), "openai says hello"));
        assert_eq!((near.asked(), elsewhere.asked()), (1, 0), "{host}");
    }
}
