//! Agents behind agents: for recordings, pictures, tensors, and conversations with what is farther away.

use std::net::TcpListener;

use holdfast_tests::site::{DEVICE, SITE};

use super::desk::{Desk, destination};
use super::talk::{COMPLETIONS, llama, question, talks};
use super::tensors::{ask, samples};

#[tokio::test]
async fn a_device_asks_its_site_tasks_and_talks_through_it_to_what_is_farther_away() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = llama(dir.path()).await else { return };
    let (bundles, samples) = samples(dir.path());
    let far = destination("far", &server.url(), "protocol = \"openai\"\nmodel = \"tiny\"");
    let far = far.replace("zone = \"site\"", "zone = \"private\"");
    let site = Desk::start(SITE, dir.path(), bundles.clone(), &far).await;
    let hall = destination("hall", &site.url(), "model = \"far\"");
    let device = Desk::start(DEVICE, dir.path(), bundles, &hall).await;
    for (task, body) in &samples {
        let own = ask(&device, task, body, "never").await.answer.unwrap();
        let reply = ask(&device, task, body, "always").await;
        let there = reply.answer.as_ref().unwrap_or_else(|| panic!("{task}: {}", reply.why()));
        assert_eq!((&there.label, there.place.as_str()), (&own.label, "hall"), "{task}");
    }
    // The site lets through what its caller says is internal, and nothing that is confidential.
    for (class, want) in [("internal", 200), ("confidential", 400), ("restricted", 403)] {
        let terms = [("holdfast-class", class), ("holdfast-cost-limit-micros", "0")];
        let (status, text) = device.post(COMPLETIONS, &question("far"), &terms).await;
        assert_eq!(status, want, "{class}: {text}");
    }
    let (_, names) = device.client.get("/v1/models").await.unwrap();
    assert!(names.contains("\"hall\"") && names.contains("\"far\""), "{names}");
}

#[tokio::test]
async fn a_conversation_goes_through_two_agents_in_one_piece_and_in_many() {
    let dir = tempfile::tempdir().unwrap();
    let Some(server) = llama(dir.path()).await else { return };
    let far = destination("far", &server.url(), "protocol = \"openai\"\nmodel = \"tiny\"");
    let site = Desk::start(SITE, dir.path(), Vec::new(), &far).await;
    let hall = destination("hall", &site.url(), "model = \"far\"");
    let device = Desk::start(DEVICE, dir.path(), Vec::new(), &hall).await;
    for model in ["far", "hall"] {
        talks(&device, model).await;
    }
}

#[tokio::test]
async fn a_conversation_that_comes_back_to_its_agent_ends() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = format!("127.0.0.1:{port}");
    let ring = destination("ring", &format!("http://{own}"), "model = \"ring\"");
    let desk = Desk::start_on(&own, (DEVICE, dir.path()), Vec::new(), &ring).await;
    let (status, text) = desk.post(COMPLETIONS, &question("ring"), &[]).await;
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("ring failed: it came through too"), "{text}");
}
