//! Answers that are given again: to whom, for how long, and what lies on disk of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_tests::vendors::{Fake, MODEL, Next, Says, Vendor};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::desk::{Desk, Reply, openai, vendor};
use super::faults::{PIECE, sse};
use super::raw::{Raw, Then};

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(30);

/// A rule for everything that may leave the device.
pub(crate) fn rule(ttl_s: u32) -> String {
    format!(
        "\n[[cache.rules]]\nmodels = [\"*\"]\n\
         classes = [\"public\", \"internal\", \"confidential\"]\nttl_s = {ttl_s}\n"
    )
}

/// Where an answer came from; empty where nothing is said of it.
pub(crate) fn found(reply: &Reply) -> &str {
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.headers.get("holdfast-cache").map_or("", |value| value.to_str().unwrap())
}

fn question(words: &str) -> Value {
    json!({ "model": "near", "messages": [{ "role": "user", "content": words }] })
}

fn words(reply: &Reply) -> String {
    reply.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
}

fn says(words: &str) -> Next {
    Next::Says(Says::Text(words.to_owned()))
}

async fn ask(desk: &Desk, body: &Value, terms: &[(&str, &str)]) -> Reply {
    settled(|| desk.post("/v1/chat/completions", body, terms)).await
}

/// What is said when nothing is on its way: a caller has its answer before that is kept, and until then
/// who asks the same shares it.
pub(crate) async fn settled<F: Future<Output = Reply>>(ask: impl Fn() -> F) -> Reply {
    let asking = async {
        loop {
            let reply = ask().await;
            if reply.headers.get("holdfast-cache").is_none_or(|from| from != "shared") {
                return reply;
            }
        }
    };
    timeout(SOON, asking).await.unwrap()
}

/// Every file under a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Whether these words lie anywhere under a folder.
fn is_there(dir: &Path, words: &str) -> bool {
    files(dir).iter().any(|path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(words.len()).any(|window| window == words.as_bytes())
    })
}

#[tokio::test]
async fn an_answer_is_given_again_also_after_a_kill_and_is_sealed_above_public() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let mut desk =
        Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    for (class, said, is_plain) in [
        ("internal", "the secret of the press", false),
        ("confidential", "the secret of the hall", false),
        ("public", "nothing that is secret", true),
    ] {
        let body = question(&format!("what of {class}?"));
        let terms = [("holdfast-class", class)];
        near.next(says(said));
        let asked = near.asked();
        let first = ask(&desk, &body, &terms).await;
        assert_eq!((found(&first), words(&first)), ("miss", said.to_owned()));
        assert!(!first.headers.contains_key("age"));
        for is_restarted in [false, true] {
            if is_restarted {
                desk.restart().await;
            }
            let again = ask(&desk, &body, &terms).await;
            assert_eq!((found(&again), words(&again)), ("hit", said.to_owned()), "{class}");
            assert_eq!(again.headers["holdfast-destination"], "near");
            assert_eq!(again.headers["holdfast-cost-micros"], "0");
            let age: u64 = again.headers["age"].to_str().unwrap().parse().unwrap();
            assert!(age < SOON.as_secs(), "{age}");
            assert_eq!(again.json()["usage"], first.json()["usage"]);
            assert_ne!(again.json()["id"], first.json()["id"], "it is another call");
        }
        assert_eq!(near.asked(), asked + 1, "{class}");
        assert_eq!(is_there(&desk.state(), said), is_plain, "{class}");
        assert!(!is_there(&desk.state(), "what of"), "what was asked is not kept");
    }
    // What is from before the restart is counted soon after it.
    for line in [
        "holdfast_cache_lookups_total{outcome=\"hit\"} 1\n",
        "holdfast_cache_entries 3\n",
        "holdfast_cache_bytes 12288\n",
    ] {
        let seen = async {
            while !desk.metrics().await.contains(line) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(SOON, seen).await.is_ok(), "{line}: {}", desk.metrics().await);
    }
    near.next(says("the secret of the press"));
    ask(&desk, &question("another"), &[]).await;
    let metrics = desk.metrics().await;
    assert!(metrics.contains("holdfast_written_bytes_total{purpose=\"cache\"}"), "{metrics}");
}

#[tokio::test]
async fn every_other_question_is_asked() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk =
        Desk::guarded(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    let [mine, theirs] = ["mine", "theirs"].map(|name| format!("Bearer {}", desk.token(&[name])));
    let plain = question("hello");
    let with = |key: &str, value: Value| {
        let mut body = plain.clone();
        body[key] = value;
        body
    };
    let mut asked = 0;
    for (case, body, token, class, is_asked) in [
        ("as it is", plain.clone(), &mine, "internal", true),
        ("the same", plain.clone(), &mine, "internal", false),
        ("another caller", plain.clone(), &theirs, "internal", true),
        ("another class", plain.clone(), &mine, "public", true),
        ("another temperature", with("temperature", json!(0.5)), &mine, "internal", true),
        ("another seed", with("seed", json!(1)), &mine, "internal", true),
        ("another name of it", with("model", json!(MODEL)), &mine, "internal", true),
        ("other words", question("hello!"), &mine, "internal", true),
        ("metadata alone", with("metadata", json!({ "line": "7" })), &mine, "internal", false),
        ("the same still", plain.clone(), &mine, "internal", false),
        ("the other caller's", plain.clone(), &theirs, "internal", false),
    ] {
        let terms = [("authorization", token.as_str()), ("holdfast-class", class)];
        let reply = ask(&desk, &body, &terms).await;
        assert_eq!(found(&reply), if is_asked { "miss" } else { "hit" }, "{case}");
        asked += usize::from(is_asked);
        assert_eq!(near.asked(), asked, "{case}");
    }
    let terms = [
        ("authorization", mine.as_str()),
        ("holdfast-class", "internal"),
        ("holdfast-deadline-ms", "9000"),
        ("holdfast-priority", "9"),
        ("idempotency-key", "k"),
    ];
    assert_eq!(found(&ask(&desk, &plain, &terms).await), "hit", "terms are not what is asked");
}

#[tokio::test]
async fn nothing_is_kept_without_a_rule_and_nothing_is_said() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let other = "\n[[cache.rules]]\nmodels = [\"other\"]\nclasses = [\"public\"]\n";
    let desk = Desk::start(|dir| {
        let near = vendor("near", "site", &near, Vendor::OpenAi, dir);
        near.clone() + &near.replace("\"near\"", "\"other\"") + other
    })
    .await;
    for class in ["public", "internal", "public"] {
        let reply = ask(&desk, &question("hello"), &[("holdfast-class", class)]).await;
        assert_eq!(found(&reply), "", "{class}");
    }
    assert_eq!(near.asked(), 3);
    assert!(files(&desk.state().join("cache")).is_empty());
}

#[tokio::test]
async fn no_answer_is_given_again_that_could_not_be_sent_for_now() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let far = Fake::start(Vendor::OpenAi).await.unwrap();
    let route = "\n[[routes]]\nname = \"any\"\ndestinations = [\"near\"]\n";
    let mut desk = Desk::start(|dir| {
        let far = vendor("far", "private", &far, Vendor::OpenAi, dir);
        vendor("near", "private", &near, Vendor::OpenAi, dir) + &far + route + &rule(3600)
    })
    .await;
    let terms = [("holdfast-class", "internal")];
    let body = json!({ "model": "any", "messages": [{ "role": "user", "content": "hello" }] });
    // One that is given again is on disk, and outlives the restart.
    for want in ["miss", "hit"] {
        assert_eq!(found(&ask(&desk, &body, &terms).await), want);
    }
    let tight = "\n[policy.farthest_zone]\ninternal = \"site\"\n";
    desk.reconfigure(|toml| toml + tight).await;
    let refused = ask(&desk, &body, &terms).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "class_forbids"), "tightened");
    assert!(!refused.headers.contains_key("holdfast-cache"));
    desk.reconfigure(|toml| toml.replace(tight, "")).await;
    assert_eq!(found(&ask(&desk, &body, &terms).await), "hit", "as it was");
    desk.reconfigure(|toml| toml.replace("[\"near\"]", "[\"far\"]")).await;
    for want in ["miss", "hit"] {
        assert_eq!(found(&ask(&desk, &body, &terms).await), want, "the name means another one");
    }
    desk.reconfigure(|toml| toml.replace("[\"far\"]", "[\"near\"]")).await;
    for want in ["miss", "hit"] {
        assert_eq!(found(&ask(&desk, &body, &terms).await), want, "far's was there");
    }
    let (here, there) = (near.url.clone(), far.url.clone());
    desk.reconfigure(|toml| toml.replace(&here, &there)).await;
    assert_eq!(found(&ask(&desk, &body, &terms).await), "miss", "near is another one now");
    assert_eq!((near.asked(), far.asked()), (2, 2));
}

#[tokio::test]
async fn an_answer_is_not_given_again_after_its_time() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk =
        Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(1)).await;
    let began = Instant::now();
    assert_eq!(found(&ask(&desk, &question("hello"), &[]).await), "miss");
    let over = loop {
        let reply = ask(&desk, &question("hello"), &[]).await;
        if found(&reply) == "miss" {
            break Instant::now();
        }
        assert_eq!(reply.headers["age"], "0");
        assert!(began.elapsed() < SOON);
        sleep(Duration::from_millis(20)).await;
    };
    assert!(over - began >= Duration::from_secs(1), "{:?}", over - began);
    assert_eq!(near.asked(), 2);
}

#[tokio::test]
async fn a_caller_says_which_answers_will_do() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk =
        Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    let body = question("hello");
    for said in ["one", "two", "three"] {
        near.next(says(said));
    }
    for (control, from, said) in [
        ("max-age=60", "miss", "one"),
        ("", "hit", "one"),
        ("no-cache", "miss", "two"),
        ("", "hit", "two"),
        ("no-store", "miss", "three"),
        ("", "hit", "two"),
    ] {
        let reply = ask(&desk, &body, &[("cache-control", control)]).await;
        assert_eq!((found(&reply), words(&reply).as_str()), (from, said), "{control}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_answer_is_a_miss() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let mut desk =
        Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    let body = question("hello");
    for want in ["miss", "hit"] {
        assert_eq!(found(&ask(&desk, &body, &[]).await), want);
    }
    let kept = || {
        let [file] = files(&desk.state().join("cache")).try_into().unwrap();
        file
    };
    let whole = std::fs::read(kept()).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    for bytes in [&b"foreign"[..], &whole[..whole.len() - 1], &changed, b""] {
        std::fs::write(kept(), bytes).unwrap();
        assert_eq!(found(&ask(&desk, &body, &[]).await), "miss");
        assert_eq!(found(&ask(&desk, &body, &[]).await), "hit");
    }
    // Another answer's file in its place.
    let mine = kept();
    for want in ["miss", "hit"] {
        assert_eq!(found(&ask(&desk, &question("another"), &[]).await), want);
    }
    let theirs = files(&desk.state().join("cache")).into_iter().find(|file| *file != mine).unwrap();
    std::fs::copy(&theirs, &mine).unwrap();
    assert_eq!(found(&ask(&desk, &body, &[]).await), "miss");
    // What the disk does not give, and keeps in the way.
    std::fs::remove_file(&mine).unwrap();
    std::fs::create_dir(&mine).unwrap();
    for _ in 0..2 {
        assert_eq!(found(&ask(&desk, &body, &[]).await), "miss");
    }
    std::fs::remove_dir(&mine).unwrap();
    for want in ["miss", "hit"] {
        assert_eq!(found(&ask(&desk, &body, &[]).await), want);
    }
    // Another key.
    std::fs::write(desk.state().join("store.key"), [7; 32]).unwrap();
    desk.restart().await;
    assert_eq!(found(&ask(&desk, &body, &[]).await), "miss");
    assert_eq!(found(&ask(&desk, &body, &[]).await), "hit");
    // None: nothing is kept, and everything is answered.
    std::fs::write(desk.state().join("store.key"), "short").unwrap();
    desk.restart().await;
    for _ in 0..2 {
        assert_eq!(found(&ask(&desk, &body, &[]).await), "miss");
    }
    assert!(desk.node.log_tail().contains("store.key is damaged"), "{}", desk.node.log_tail());
}

#[tokio::test]
async fn a_full_cache_drops_the_oldest() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| {
        let near = vendor("near", "site", &near, Vendor::OpenAi, dir);
        near + "\n[cache]\nmax_mib = 1\n" + &rule(3600)
    })
    .await;
    let long = "x".repeat(100 * 1000);
    for number in 0..14 {
        near.next(says(&long));
        for want in ["miss", "hit"] {
            let reply = ask(&desk, &question(&number.to_string()), &[]).await;
            assert_eq!(found(&reply), want, "{number}");
        }
    }
    let kept = files(&desk.state().join("cache")).into_iter();
    let bytes = kept.map(|path| path.metadata().unwrap().len());
    assert!(bytes.sum::<u64>() <= 1 << 20);
    for (number, want) in [(13, "hit"), (8, "hit"), (0, "miss"), (1, "miss")] {
        let reply = ask(&desk, &question(&number.to_string()), &[]).await;
        assert_eq!(found(&reply), want, "{number}");
    }
}

#[tokio::test]
async fn only_whole_and_good_answers_are_kept() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let cut = Raw::start(sse(PIECE), Then::Close).await;
    let desk = Desk::start(|dir| {
        vendor("near", "site", &near, Vendor::OpenAi, dir)
            + &openai("cut", &cut.url, "")
            + &rule(60)
    })
    .await;
    for says in [Says::Cut("ye".to_owned()), Says::Filtered] {
        for _ in 0..2 {
            near.next(Next::Says(says.clone()));
            let reply = ask(&desk, &question("hello"), &[]).await;
            assert_eq!(found(&reply), "miss", "{says:?}");
        }
    }
    for _ in 0..2 {
        let reply = ask(&desk, &question("fail bad request"), &[]).await;
        assert_eq!(reply.status, 400, "{}", reply.text);
    }
    assert_eq!(near.asked(), 6);
    for times in 1..3 {
        let reply = desk.ask("cut", "hello", true).await;
        assert!(reply.text.contains("half") && reply.text.contains("\"interrupted\""));
        assert_eq!((found(&reply), cut.asked()), ("miss", times));
    }
    assert!(files(&desk.state().join("cache")).is_empty());
}

/// What a client gathers of a stream.
fn streamed(reply: &Reply) -> String {
    assert!(reply.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    assert!(reply.text.ends_with("data: [DONE]\n\n"), "{}", reply.text);
    let chunks = reply.text.lines().filter_map(|line| line.strip_prefix("data: {"));
    let chunks = chunks.map(|rest| serde_json::from_str::<Value>(&format!("{{{rest}")).unwrap());
    let words = |chunk: Value| {
        chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
    };
    chunks.map(words).collect()
}

#[tokio::test]
async fn a_stream_and_an_answer_in_one_piece_are_the_same_answer() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk =
        Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    for (words_asked, is_streamed_first) in [("count 9", true), ("count 8", false)] {
        let first = desk.ask("near", words_asked, is_streamed_first).await;
        assert_eq!(found(&first), "miss");
        // Until it is kept it is found by whoever asks in its form.
        let again = settled(|| desk.ask("near", words_asked, is_streamed_first)).await;
        assert_eq!(found(&again), "hit");
        let stream = settled(|| desk.ask("near", words_asked, true)).await;
        let whole = settled(|| desk.ask("near", words_asked, false)).await;
        assert_eq!((found(&stream), found(&whole)), ("hit", "hit"));
        assert_eq!(streamed(&stream), words(&whole));
        assert!(words(&whole).starts_with("1 2 3 4 5 6 7 8"), "{}", whole.text);
        assert!(stream.headers.contains_key("age"));
    }
    assert_eq!(near.asked(), 2);
    // A tool that is called, in the form of responses, too.
    let tool = json!({ "type": "function", "name": "weather", "parameters":
        { "type": "object", "properties": { "city": { "type": "string" } } } });
    let mut body = json!({ "model": "near", "input": "weather in Bonn?", "tools": [tool] });
    let first = desk.post("/v1/responses", &body, &[]).await;
    settled(|| desk.post("/v1/responses", &body, &[])).await;
    body["stream"] = json!(true);
    let again = settled(|| desk.post("/v1/responses", &body, &[])).await;
    assert_eq!((found(&first), found(&again)), ("miss", "hit"), "{}", again.text);
    for reply in [&first, &again] {
        assert!(reply.text.contains("Bonn") && reply.text.contains("completed"), "{}", reply.text);
    }
    assert_eq!(near.asked(), 3);
}

#[tokio::test]
async fn vectors_and_transcripts_are_kept_too() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk =
        Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    let texts = json!({ "model": "near", "input": ["one", "two"], "encoding_format": "float" });
    let first = desk.post("/v1/embeddings", &texts, &[]).await;
    let again = settled(|| desk.post("/v1/embeddings", &texts, &[])).await;
    assert_eq!((found(&first), found(&again)), ("miss", "hit"));
    assert_eq!(first.json()["data"], again.json()["data"]);
    let other = json!({ "model": "near", "input": ["two", "one"], "encoding_format": "float" });
    assert_eq!(found(&desk.post("/v1/embeddings", &other, &[]).await), "miss");
    let file = b"RIFF and what follows";
    for (language, file, want) in [
        ("de", &file[..], "miss"),
        ("de", file, "hit"),
        ("en", file, "miss"),
        ("de", b"RIFF and something else", "miss"),
    ] {
        let fields = [("model", "near"), ("language", language)];
        let reply = settled(|| desk.transcribe(&fields, file)).await;
        assert_eq!(found(&reply), want, "{language}");
        assert!(reply.json()["text"].as_str().unwrap().contains(language), "{}", reply.text);
    }
    assert_eq!(near.asked(), 5);
}

#[tokio::test]
async fn what_is_kept_is_counted_and_removed_beside_a_running_agent() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let mut desk =
        Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    for words in ["one", "two"] {
        for want in ["miss", "hit"] {
            assert_eq!(found(&ask(&desk, &question(words), &[]).await), want);
        }
    }
    let theirs = desk.state().join("cache/notes.txt");
    std::fs::write(&theirs, "somebody else's").unwrap();
    let kept = desk.command("cache", &["stats"]);
    assert_eq!(kept["entries"], 2, "{kept}");
    assert_eq!(desk.command("cache", &["clear"]), kept);
    assert_eq!(desk.command("cache", &["stats"])["entries"], 0);
    for want in ["miss", "hit"] {
        assert_eq!(found(&ask(&desk, &question("one"), &[]).await), want);
    }
    desk.reconfigure(|toml| toml.replace(&rule(3600), "")).await;
    assert_eq!(found(&ask(&desk, &question("one"), &[]).await), "");
    assert_eq!(
        files(&desk.state().join("cache")),
        [theirs],
        "what was kept is gone, and that alone"
    );
}

#[tokio::test]
async fn who_has_a_name_after_another_one_is_not_given_its_answers() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk =
        Desk::guarded(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir) + &rule(3600)).await;
    let mut bearer = format!("Bearer {}", desk.token(&["line-7"]));
    for (holder, asked) in [("the first", 1), ("the second", 2)] {
        for want in ["miss", "hit"] {
            let reply = ask(&desk, &question("hello"), &[("authorization", &bearer)]).await;
            assert_eq!((found(&reply), near.asked()), (want, asked), "{holder}");
        }
        desk.command("token", &["revoke", "line-7"]);
        bearer = format!("Bearer {}", desk.token(&["line-7"]));
    }
}
