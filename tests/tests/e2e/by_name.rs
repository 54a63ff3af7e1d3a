//! Bundles that are asked by their name in the form of OpenAI's clients: vectors of texts, and what a
//! recording says. Nobody else could answer: the device has no destination.

use std::path::Path;

use holdfast_tests::bundle::Made;
use holdfast_tests::client::Client;
use holdfast_tests::node::Node;
use holdfast_tests::site::{Agent, DEVICE, start_agent};
use serde_json::{Value, json};

use super::onnx;

/// Buckets that words are hashed into.
const BUCKETS: usize = 8;
/// One step of three in which each of two symbols has a score: "a", a blank, "a".
const SCORES: [i16; 6] = [0, 30_000, 30_000, 0, 0, 30_000];

/// The published hash, FNV-1a of 32 bits.
fn bucket(word: &str) -> usize {
    let hash = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    word.bytes().fold(0x811C_9DC5, hash) as usize % BUCKETS
}

/// How often each bucket is met.
fn counts(text: &str) -> Vec<f32> {
    let mut counts = vec![0.0; BUCKETS];
    text.split(' ').for_each(|word| counts[bucket(word)] += 1.0);
    counts
}

/// A recording of one channel and 16 bits.
fn wav(samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let length = u32::try_from(data.len()).unwrap();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + length).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(16_000_u32.to_le_bytes());
    file.extend(32_000_u32.to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(length.to_le_bytes());
    file.extend(data);
    file
}

fn write(dir: &Path, made: &Made<'_>, name: &str) -> std::path::PathBuf {
    let folder = dir.join(name);
    std::fs::create_dir(&folder).unwrap();
    made.write_as(name, &folder).unwrap();
    folder
}

async fn device(dir: &Path) -> (Node, Client) {
    let words = Made {
        onnx: &onnx::graph(&[1, 8], &[("Relu", &["x"], &["y"], &[])], &[]),
        kind: "embedding",
        tables: "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, 8]\n[input.text]\n\
            features = \"hashed-words\"\nhash = \"fnv1a-32\"\nngrams = 1\nnormalise = \"none\"\n\
            [[output]]\nname = \"y\"\ndtype = \"f32\"\nshape = [1, 8]\nnormalise = \"l2\"\n",
        label: "",
        sample: ("sample.txt", b"pump"),
        golden: &counts("pump"),
        tolerance: 0.01,
    };
    let scores = SCORES.map(|score| f32::from(score) / 32_768.0);
    let steps = Made {
        onnx: &onnx::graph(&[1, 3, 2], &[("Relu", &["x"], &["y"], &[])], &[]),
        kind: "ctc",
        tables: "[[input]]\nname = \"x\"\ndtype = \"f32\"\nshape = [1, 3, 2]\n[input.wave]\n\
            sample_rate_hz = 16000\nwindow_samples = 6\n[[output]]\nname = \"y\"\n\
            dtype = \"f32\"\nshape = [1, 3, 2]\n[ctc]\nsymbols = [\"\", \"a\"]\nblank = 0\n\
            meaning = \"logits\"\nthreshold = 0.5\n",
        label: "",
        sample: ("sample.wav", &wav(&SCORES)),
        golden: &scores,
        tolerance: 0.01,
    };
    let bundles = vec![write(dir, &words, "words"), write(dir, &steps, "steps")];
    let agent = Agent { name: DEVICE, bundles, site: None, broker: None };
    let node = start_agent(super::program(), dir, &agent).await.unwrap();
    let client = Client::new(node.address("api").unwrap()).unwrap();
    (node, client)
}

async fn asked(client: &Client, path: &str, kind: &str, body: Vec<u8>) -> (u16, Value) {
    let (status, text) = client.post_to(path, body, &[("content-type", kind)]).await.unwrap();
    (status.as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn a_bundle_of_texts_makes_vectors_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, client) = device(dir.path()).await;
    let (_, models) = client.get("/v1/models").await.unwrap();
    let models: Value = serde_json::from_str(&models).unwrap();
    let mut names: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| &m["id"]).collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["steps", "words"]);

    let texts = ["pump", "valve", "pump valve pump"];
    let body = json!({ "model": "words", "input": texts }).to_string();
    let (status, got) = asked(&client, "/v1/embeddings", "application/json", body.into()).await;
    assert_eq!(status, 200, "{got}");
    for (index, text) in texts.into_iter().enumerate() {
        let want = counts(text);
        let length = want.iter().map(|x| x * x).sum::<f32>().sqrt();
        let vector = got["data"][index]["embedding"].as_array().unwrap();
        assert_eq!(vector.len(), BUCKETS);
        for (got, want) in vector.iter().zip(want) {
            let off = got.as_f64().unwrap() - f64::from(want / length);
            assert!(off.abs() < 1e-6, "{text}: {vector:?}");
        }
    }
    for body in [
        json!({ "model": "words", "input": "pump", "dimensions": 4 }),
        json!({ "model": "words", "input": [1, 2] }),
        json!({ "model": "steps", "input": "pump" }),
    ] {
        let text = body.to_string().into_bytes();
        let (status, got) = asked(&client, "/v1/embeddings", "application/json", text).await;
        assert!((400..500).contains(&status), "{body}: {status} {got}");
        assert_eq!(got["error"]["type"], "invalid_request_error", "{body}: {got}");
    }
}

#[tokio::test]
async fn a_bundle_of_recordings_writes_what_it_hears() {
    let dir = tempfile::tempdir().unwrap();
    let (_node, client) = device(dir.path()).await;
    let filled = |fields: &[(&str, &str)], file: &[u8]| {
        let fields = fields.iter().map(|(name, value)| {
            let head = "--edge\r\ncontent-disposition: form-data; name";
            format!("{head}=\"{name}\"\r\n\r\n{value}\r\n")
        });
        let mut body = fields.collect::<String>().into_bytes();
        body.extend_from_slice(
            b"--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
              content-type: audio/wav\r\n\r\n",
        );
        body.extend_from_slice(file);
        body.extend(b"\r\n--edge--\r\n");
        body
    };
    let form = |model: &str, file: &[u8]| filled(&[("model", model)], file);
    let (path, kind) = ("/v1/audio/transcriptions", "multipart/form-data; boundary=edge");
    let (status, got) = asked(&client, path, kind, form("steps", &wav(&SCORES))).await;
    assert_eq!((status, &got["text"]), (200, &json!("aa")), "{got}");
    let heard = |fields: &[(&'static str, &'static str)]| {
        let fields = [&[("model", "steps")], fields].concat();
        asked(&client, path, kind, filled(&fields, &wav(&SCORES)))
    };
    let (status, got) = heard(&[("chunking_strategy", "auto")]).await;
    assert_eq!((status, &got["text"]), (200, &json!("aa")), "it cuts as it likes: {got}");
    // It does not know when words are spoken.
    for (fields, name) in [
        (&[("response_format", "srt")][..], "response_format"),
        (&[("response_format", "vtt")], "response_format"),
        (&[("response_format", "verbose_json")], "response_format"),
        (&[("include[]", "logprobs")], "include"),
        (&[("chunking_strategy[type]", "server_vad")], "chunking_strategy"),
    ] {
        let (status, got) = heard(fields).await;
        let message = got["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(name), "{fields:?}: {status} {got}");
    }
    let twice = [SCORES, SCORES].concat();
    // A CTC model hears one window, and nothing of the rest is left away.
    let cases =
        [("steps", wav(&twice)), ("steps", b"ID3 is no wave".to_vec()), ("words", wav(&SCORES))];
    for (model, file) in cases {
        let (status, got) = asked(&client, path, kind, form(model, &file)).await;
        assert!((400..500).contains(&status), "{model}: {status} {got}");
        assert_eq!(got["error"]["type"], "invalid_request_error", "{model}: {got}");
    }
}
