//! OpenAI's own clients for Python and Node against the agent.

use std::process::Command;

use holdfast_tests::vendors::{Fake, Vendor, sdks};
use serde_json::json;

use super::desk::{Desk, openai, vendor};
use super::faults::{PIECE, sse};
use super::raw::{Raw, Then};

/// What the scripts ask, in this order: what is left alone after an error comes last.
const PARTS: [&str; 12] = [
    "completions",
    "tools",
    "streams",
    "together",
    "legacy",
    "responses",
    "background",
    "held",
    "embeddings",
    "transcriptions",
    "models",
    "errors",
];

#[tokio::test]
async fn openais_client_for_python_works_unmodified() {
    let Some(script) = sdks::script("gateway.py") else { return };
    asks_everything(script, 1).await;
}

#[tokio::test]
async fn openais_client_for_node_works_unmodified() {
    let Some(script) = sdks::node_script("gateway.mjs") else { return };
    asks_everything(script, 6).await;
}

#[tokio::test]
async fn openais_client_for_python_shows_a_token_as_its_key() {
    let Some(script) = sdks::script("gateway.py") else { return };
    shows_tokens(script).await;
}

#[tokio::test]
async fn openais_client_for_node_shows_a_token_as_its_key() {
    let Some(script) = sdks::node_script("gateway.mjs") else { return };
    shows_tokens(script).await;
}

/// The script asks all that there is, and leaves so many streams in the middle.
async fn asks_everything(mut script: Command, left: usize) {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let cloud = Fake::start(Vendor::Anthropic).await.unwrap();
    let far = Fake::start(Vendor::Gemini).await.unwrap();
    let silent = Raw::start("", Then::Stall).await;
    let cut = Raw::start(sse(PIECE), Then::Close).await;
    let desk = Desk::start(|dir| {
        let mut text = vendor("near", "site", &near, Vendor::OpenAi, dir);
        text += &vendor("cloud", "private", &cloud, Vendor::Anthropic, dir);
        text += &vendor("far", "public", &far, Vendor::Gemini, dir);
        // Each of these is left alone after what it says.
        for name in ["throttled", "poor", "locked"] {
            text += &vendor(name, "site", &near, Vendor::OpenAi, dir);
        }
        // The port of the discard service, where nobody is.
        text += &openai("down", "http://127.0.0.1:9", "");
        text += &openai("silent", &silent.url, "");
        text += &openai("cut", &cut.url, "");
        text += "\n[[routes]]\nname = \"any\"\ndestinations = [\"down\", \"near\"]\n\
                 \n[[routes]]\nname = \"none\"\ndestinations = [\"down\"]\n";
        text
    })
    .await;
    script.arg(&desk.url).args(PARTS);
    let said = passes(script, &desk).await;
    assert_eq!(near.left(), left, "each stream that was left in the middle ended there too");
    assert!(cloud.asked() > 3 && far.asked() > 3, "{said}");
}

/// The script asks an agent that wants tokens, with some that it takes.
async fn shows_tokens(mut script: Command) {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::guarded(|dir| {
        let other = vendor("other", "site", &near, Vendor::OpenAi, dir);
        vendor("near", "site", &near, Vendor::OpenAi, dir) + &other
    })
    .await;
    let keys = json!({
        "near": desk.token(&["near", "--task", "near", "--class", "internal"]),
        "twice": desk.token(&["twice", "--per-minute", "2"]),
    });
    script.env("KEYS", keys.to_string()).arg(&desk.url).arg("tokens");
    let said = passes(script, &desk).await;
    assert_eq!(near.asked(), 4, "who is refused is not sent on: {said}");
}

/// What the script said, which ended well.
async fn passes(mut script: Command, desk: &Desk) -> String {
    let output = tokio::task::spawn_blocking(move || script.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{said}");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}\n{}", desk.node.log_tail());
    said
}
