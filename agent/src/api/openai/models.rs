//! Owns the list of everything that can be asked by its name.
//!
//! **Invariant:** what is listed can be asked by this caller, as far as the class lets it go there.

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holdfast_chat::served::models;

use super::Call;
use crate::access::Caller;
use crate::api::Api;
use crate::gateway::Refused;

pub(super) async fn list(State(api): State<Api>, caller: Caller) -> Response {
    Call::begin().end(Ok(json(models::list(&known_to(&api, &caller)))))
}

pub(super) async fn one(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Response {
    let models = known_to(&api, &caller);
    let found = models.iter().find(|entry| entry.id == id);
    let outcome = found.map(|entry| json(models::one(entry)));
    Call::begin().end(outcome.ok_or_else(|| {
        let known = models.iter().map(|entry| entry.id.clone()).collect();
        Refused::Unknown { model: id.chars().take(64).collect(), known }.into()
    }))
}

/// What the caller may ask.
fn known_to(api: &Api, caller: &Caller) -> Vec<models::ModelEntry> {
    let models = api.gateway.models().into_iter();
    models.filter(|entry| caller.may_ask(&entry.id).is_ok()).collect()
}

fn json(body: Vec<u8>) -> Response {
    let kind = HeaderValue::from_static("application/json");
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response()
}
