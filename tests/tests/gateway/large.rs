//! What is large is worked on elsewhere, and comes out as what is small does.

use holdfast_tests::vendors::{Fake, Vendor};
use serde_json::json;

use super::desk::{Desk, vendor};

#[tokio::test]
async fn a_large_recording_and_many_vectors_are_answered_like_small_ones() {
    let near = Fake::start(Vendor::OpenAi).await.unwrap();
    let desk = Desk::start(|dir| vendor("near", "site", &near, Vendor::OpenAi, dir)).await;
    let fields = [("model", "near"), ("language", "de")];
    // From 256 KiB on a form is taken apart off the reactor.
    for length in [1 << 10, 3 << 20] {
        let mut file = b"RIFF".to_vec();
        // Much of it looks like the beginning of a boundary.
        file.extend(b"\r\n--edg".iter().cycle().take(length - 4));
        let reply = desk.transcribe(&fields, &file).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(reply.json()["text"], format!("{length} bytes in de"));
    }
    let reply = desk.transcribe(&[("model", "near"), ("colour", "blue")], &vec![7; 1 << 20]).await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "unknown_parameter"));
    for (count, dimensions) in [(2, 3), (2048, 16)] {
        let inputs: Vec<String> = (0..count).map(|at| format!("text {at}")).collect();
        let asked = json!({
            "model": "near", "input": inputs, "dimensions": dimensions, "encoding_format": "float",
        });
        let reply = desk.post("/v1/embeddings", &asked, &[]).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let told = reply.json();
        let vectors = told["data"].as_array().unwrap();
        assert_eq!(vectors.len(), count);
        for (at, (vector, input)) in vectors.iter().zip(&inputs).enumerate() {
            assert_eq!(vector["index"], at);
            let numbers: Vec<f64> = vector["embedding"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_f64().unwrap())
                .collect();
            let mut want = vec![0.5; dimensions];
            (want[0], want[1]) = (input.len() as f64, at as f64);
            assert_eq!(numbers, want, "{input}");
        }
    }
}
