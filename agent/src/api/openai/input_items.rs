//! Owns what a response in the background was asked, told item by item.
//!
//! **Invariant:** who hears of a response hears of its input, and nobody else does; the input is there as
//! long as the queue keeps it, which is to the response's end.

use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use holdfast_chat::served::Refusal;
use holdfast_chat::served::responses::{Page, items};

use super::background::{INCLUDED, PREFIX, json_body, own, refusal};
use super::complaint::Complaint;
use super::{Call, aside};
use crate::access::Caller;
use crate::api::{Api, Route};
use crate::envelope::conversation_of;

/// Pictures are there in any case, too.
const PICTURES: &str = "message.input_image.image_url";
/// More items are on no page.
const MOST: usize = 100;

pub(super) fn route() -> Route {
    ("/v1/responses/{id}/input_items", get(list))
}

async fn list(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let listed = async {
        let page = page(query.as_deref().unwrap_or_default())?;
        let kept = own(&api, &caller, &id).await?;
        let body = api.service.queue.open()?.body(kept.id).await?.ok_or_else(|| gone(&id))?;
        let named = format!("{PREFIX}{}", kept.id);
        // Files are told in base64.
        let told = aside(body.len(), move || {
            let conversation = conversation_of(&body)?;
            Ok::<_, Complaint>(items(&named, &conversation.turns, &page)?)
        });
        Ok(json_body(told.await??))
    };
    Call::begin().end(listed.await)
}

/// Reads a query; what a list cannot be asked for is refused.
fn page(query: &str) -> Result<Page, Refusal> {
    let mut page = Page::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.trim_end_matches("[]").trim_end_matches("%5B%5D");
        match (name, value) {
            ("include", INCLUDED | PICTURES) => {}
            ("order", "asc" | "desc") => page.is_ascending = value == "asc",
            ("after", id) => page.after = Some(id.to_owned()),
            ("limit", number) => {
                let number = number.parse().ok().filter(|number| (1..=MOST).contains(number));
                let why = "must be 1 to 100";
                page.limit = number.ok_or_else(|| refusal(name, "invalid_value", why))?;
            }
            ("order", _) => return Err(refusal(name, "invalid_value", "must be asc or desc")),
            _ => {
                let why = "this cannot be honoured of a response that is kept: leave it out";
                return Err(refusal(name, "unsupported_parameter", why));
            }
        }
    }
    Ok(page)
}

/// The response is there, and what it was asked is not any more.
fn gone(id: &str) -> Complaint {
    let shown: String = id.chars().take(64).collect();
    let message = format!(
        "the input of {shown} is not kept any more: it is there until the response has its end, as \
         long as it may still be sent"
    );
    Complaint::new(StatusCode::NOT_FOUND, "invalid_request_error", "input_not_kept", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_as_long_as_it_is_asked_to_be() {
        let page = |after: Option<&str>, limit, is_ascending| {
            Some(Page { after: after.map(str::to_owned), limit, is_ascending })
        };
        for (query, want) in [
            ("", page(None, 20, false)),
            ("order=asc&limit=1", page(None, 1, true)),
            ("order=desc&limit=100&after=in_1_0", page(Some("in_1_0"), 100, false)),
            ("include%5B%5D=message.input_image.image_url", page(None, 20, false)),
            ("include[]=reasoning.encrypted_content", page(None, 20, false)),
            ("limit=0", None),
            ("limit=101", None),
            ("order=up", None),
            ("before=in_1_0", None),
            ("include[]=message.output_text.logprobs", None),
        ] {
            assert_eq!(super::page(query).ok(), want, "{query}");
        }
    }
}
