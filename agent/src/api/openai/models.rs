//! Owns the list of everything that can be asked by its name.
//!
//! **Invariant:** what is listed can be asked, as far as the class lets it go there.

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_chat::served::models;

use super::Call;
use crate::api::Api;
use crate::gateway::Refused;

pub(super) async fn list(State(api): State<Api>) -> Response {
    Call::begin().end(Ok(json(models::list(&api.gateway.models()))))
}

pub(super) async fn one(State(api): State<Api>, Path(id): Path<String>) -> Response {
    let models = api.gateway.models();
    let found = models.iter().find(|entry| entry.id == id);
    let outcome = found.map(|entry| json(models::one(entry)));
    Call::begin().end(outcome.ok_or_else(|| {
        let known = models.iter().map(|entry| entry.id.clone()).collect();
        Refused::Unknown { model: id.chars().take(64).collect(), known }.into()
    }))
}

fn json(body: Vec<u8>) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response()
}
