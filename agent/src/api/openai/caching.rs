//! Owns how a caller says which answers will do, and how it is told where its own came from.
//!
//! `Cache-Control: no-cache` and `no-store` of a request (RFC 9111) are heeded, everything else of it is
//! not; `holdfast-cache` is in every answer that a rule covers, `age` in one that was given before.
//!
//! **Invariant:** without a rule nothing is said.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use crate::access::Caller;
use crate::api::Api;
use crate::gateway::{Asker, Found, Wants};

/// Who asks, and which answers will do; nobody looks at either where there is no rule.
pub(super) fn asker(api: &Api, caller: &Caller, headers: &HeaderMap) -> Asker {
    match api.service.cache {
        Some(_) => Asker { caller: caller.identity(), wants: wants(headers) },
        None => Asker { caller: None, wants: Wants::Any },
    }
}

fn wants(headers: &HeaderMap) -> Wants {
    let mut wants = Wants::Any;
    let values = headers.get_all(header::CACHE_CONTROL);
    for directive in values.iter().filter_map(|value| value.to_str().ok()).flat_map(directives) {
        if directive.eq_ignore_ascii_case("no-store") {
            return Wants::Own;
        }
        if directive.eq_ignore_ascii_case("no-cache") {
            wants = Wants::New;
        }
    }
    wants
}

fn directives(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim)
}

/// The response, which says where its answer came from.
pub(super) fn marked(mut response: Response, found: Option<Found>) -> Response {
    let Some(found) = found else { return response };
    let headers = response.headers_mut();
    headers.insert("holdfast-cache", HeaderValue::from_static(found.as_str()));
    if let Found::Hit(age) = found {
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strictest_word_counts() {
        for (values, want) in [
            (&[][..], Wants::Any),
            (&["max-age=3"], Wants::Any),
            (&["no-cache"], Wants::New),
            (&["max-age=0, No-Cache"], Wants::New),
            (&["no-cache", "no-store"], Wants::Own),
            (&["no-store,no-cache"], Wants::Own),
            (&["no-cachet"], Wants::Any),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CACHE_CONTROL, HeaderValue::from_static(value));
            }
            assert_eq!(wants(&headers), want, "{values:?}");
        }
    }
}
