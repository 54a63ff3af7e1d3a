//! OpenAI's own client for Python against the agent.

use holdfast_tests::vendors::{Fake, Vendor, sdks};

use super::desk::{Desk, openai, vendor};
use super::raw::{Raw, Then};

/// What the script asks, in this order: what is left alone after an error comes last.
const PARTS: [&str; 10] = [
    "completions",
    "tools",
    "streams",
    "together",
    "legacy",
    "responses",
    "embeddings",
    "transcriptions",
    "models",
    "errors",
];

#[tokio::test]
async fn the_client_of_openai_works_unmodified() {
    let Some(mut check) = sdks::script("gateway.py") else { return };
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let cloud = Fake::start(Vendor::Anthropic).await.unwrap();
    let far = Fake::start(Vendor::Gemini).await.unwrap();
    let silent = Raw::start("", Then::Stall).await;
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
        text += "\n[[routes]]\nname = \"any\"\ndestinations = [\"down\", \"near\"]\n\
                 \n[[routes]]\nname = \"none\"\ndestinations = [\"down\"]\n";
        text
    })
    .await;
    check.arg(&desk.url).args(PARTS);
    let output = tokio::task::spawn_blocking(move || check.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}\n{}", desk.node.log_tail());
    assert_eq!(near.left(), 1, "the stream that was closed in the middle ended there too");
    assert!(cloud.asked() > 3 && far.asked() > 3, "{said}");
}
