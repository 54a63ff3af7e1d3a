//! Owns vectors of texts over HTTP.
//!
//! **Invariant:** as many vectors are answered as texts were asked, in their order.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use holdfast_chat::served::embeddings::{AskedVectors, answer, read};

use super::caching::{asker, marked};
use super::complaint::Complaint;
use super::{Call, Taken, allowed, apart, aside, take_json, told};
use crate::access::Caller;
use crate::api::access_log::Logged;
use crate::api::{Api, terms};
use crate::inquiry::{Inquiry, Texts};

/// What a number takes in an answer.
const BYTES_OF_A_NUMBER: usize = 12;

pub(super) async fn embed(
    State(api): State<Api>,
    caller: Caller,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let call = Call::begin();
    call.end_logged(vectors(&api, &caller, call, &headers, body).await)
}

async fn vectors(
    api: &Api,
    caller: &Caller,
    call: Call,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Response, Logged), Complaint> {
    let Taken { bytes, place: _place, room: _room } = take_json(api, headers, body).await?;
    let AskedVectors { model, inputs, dimensions, encoding, user } = apart(bytes, read).await?;
    let default = api.service.policy.default_class;
    let terms = terms::of_inquiry(headers, &Default::default(), default)?;
    let (terms, logged) = allowed(caller, &model, terms)?;
    let inquiry = Inquiry { id: call.id, terms, matter: Texts { inputs, dimensions, user } };
    let (answered, found) =
        api.gateway.embed_as(asker(api, caller, headers), &model, &inquiry).await?;
    let vectors = Arc::clone(&answered.answer);
    let numbers: usize = vectors.vectors.iter().map(Vec::len).sum();
    let written = move || answer(&model, &vectors, encoding);
    let body = aside(numbers * BYTES_OF_A_NUMBER, written).await?;
    Ok((marked(told(&answered, "application/json", body), found), logged))
}
