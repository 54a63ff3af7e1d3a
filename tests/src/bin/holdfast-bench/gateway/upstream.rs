//! The provider behind the gateways: chat completions without a model, at once.
//!
//! What it does stands in the last message: `now` is answered in one piece, or with `stream` in
//! [`CHUNKS`] pieces at once; `paced` in as many, [`PACE`] apart, each with the time at which it was written.
//!
//! **Invariant:** a piece is handed to the network by itself.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::stream;
use serde_json::json;

use crate::clock::stamp_ns;

/// Pieces of a streamed answer, the first, which has the role alone, not counted.
pub(crate) const CHUNKS: usize = 20;
/// Between two pieces of a paced answer.
pub(crate) const PACE: Duration = Duration::from_millis(10);

/// Is the provider.
pub(crate) fn serve(address: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let router = axum::Router::new().fallback(post(answer));
        Ok(axum::serve(
            axum::serve::ListenerExt::tap_io(listener, |tcp| {
                // A piece that waits for the next one would be the upstream's delay.
                tcp.set_nodelay(true).ok();
            }),
            router,
        )
        .await?)
    })
}

async fn answer(body: Bytes) -> Response {
    let has = |part: &[u8]| body.windows(part.len()).any(|window| window == part);
    if has(b"\"paced\"") {
        return streamed(Some(PACE));
    }
    if has(b"\"stream\":true") {
        return streamed(None);
    }
    let usage = json!({ "prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21 });
    let message = json!({ "role": "assistant", "content": "Hello! How can I help you today?", "refusal": null });
    let answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
        "choices": [{ "index": 0, "message": message, "logprobs": null, "finish_reason": "stop" }],
        "usage": usage,
    });
    axum::Json(answer).into_response()
}

fn streamed(pace: Option<Duration>) -> Response {
    let pieces = stream::unfold(0_usize, move |at| async move {
        if at > CHUNKS + 1 {
            return None;
        }
        if let Some(pace) = pace.filter(|_| at > 0) {
            tokio::time::sleep(pace).await;
        }
        Some((Ok::<_, std::convert::Infallible>(piece(at)), at + 1))
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(pieces)).into_response()
}

fn piece(at: usize) -> Bytes {
    let (delta, finish) = match at {
        0 => (json!({ "role": "assistant", "content": "" }), None),
        at if at <= CHUNKS => (json!({ "content": format!("{} ", stamp_ns()) }), None),
        _ => (json!({}), Some("stop")),
    };
    let choice = json!({ "index": 0, "delta": delta, "logprobs": null, "finish_reason": finish });
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m",
        "choices": [choice],
    });
    let end = if finish.is_some() { "data: [DONE]\n\n" } else { "" };
    format!("data: {chunk}\n\n{end}").into()
}
