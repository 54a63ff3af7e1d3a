//! Owns how a destination is shown who asks: the headers that go with a call.
//!
//! | protocol | the credential is | shown as |
//! |---|---|---|
//! | holdfast, oip, openai, mistral | a key | `authorization: Bearer` |
//! | azure-openai | a key | `api-key` |
//! | anthropic | a key | `x-api-key` |
//! | gemini | a key | `x-goog-api-key` |
//! | vertex | a service account's file, or a token | `authorization: Bearer`, the token |
//! | bedrock | an AWS credentials file, or a Bedrock key | Signature Version 4, or `Bearer` |
//!
//! **Invariant:** what is returned here goes into headers that are marked as sensitive, and nowhere
//! else.

use holdfast_chat::Dialect;
use holdfast_chat::sigv4::{self, Keys, Scope};

use super::credential::Secret;
use super::exchange::Exchange;
use crate::destination::Protocol;

/// Headers that prove who asks.
pub(super) type Proof = Vec<(&'static str, String)>;

/// Whether the whole of what holds the credential is needed, and not its first line.
pub(super) fn takes_whole(protocol: &Protocol) -> bool {
    let Protocol::Chat(chat) = protocol else { return false };
    matches!(chat.dialect, Dialect::Vertex { .. } | Dialect::Bedrock { .. })
}

/// Whether a token is asked for, to be shown in place of the credential.
pub(super) fn takes_token(protocol: &Protocol) -> bool {
    matches!(protocol, Protocol::Chat(chat) if matches!(chat.dialect, Dialect::Vertex { .. }))
}

/// The key as an agent, and most others, take it.
pub(super) fn bearer(secret: Option<&Secret>) -> Proof {
    secret.map(|secret| ("authorization", secret.bearer())).into_iter().collect()
}

/// The headers for a call of `dialect` that posts `body` to `url`.
pub(super) fn of(exchange: &Exchange<'_>, dialect: &Dialect, url: &str, body: &[u8]) -> Proof {
    let Some(secret) = exchange.secret() else { return Proof::new() };
    let bare = |name| vec![(name, secret.text().to_owned())];
    match dialect {
        Dialect::OpenAi | Dialect::Mistral => bearer(Some(secret)),
        Dialect::AzureOpenAi { .. } => bare("api-key"),
        Dialect::Anthropic => bare("x-api-key"),
        Dialect::Gemini => bare("x-goog-api-key"),
        // A secret that is no service account is a token itself.
        Dialect::Vertex { .. } => bearer(exchange.token().or(Some(secret))),
        Dialect::Bedrock { region } => match Keys::parse(secret.text()) {
            Some(keys) => signed(&keys, region, url, body),
            None => bearer(Some(secret)),
        },
    }
}

fn signed(keys: &Keys, region: &str, url: &str, body: &[u8]) -> Proof {
    let Some((host, path)) = host_and_path(url) else { return Proof::new() };
    let headers = [("content-type", "application/json")];
    let request =
        sigv4::Request { method: "POST", host: &host, path: &path, headers: &headers, body };
    let at = crate::clock::date_stamp();
    sigv4::sign(keys, &request, &Scope { region, service: "bedrock", at: &at })
}

/// The `host` header and the path as they are sent.
fn host_and_path(url: &str) -> Option<(String, String)> {
    let url = reqwest::Url::parse(url).ok()?;
    let host = match (url.host_str()?, url.port()) {
        (host, Some(port)) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    };
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some((host, format!("{}{query}", url.path())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_what_is_sent() {
        for (url, want) in [
            ("https://b.example/model/a%3A0/converse", ("b.example", "/model/a%3A0/converse")),
            ("https://B.example:443/x", ("b.example", "/x")),
            ("http://127.0.0.1:8080/x?a=b", ("127.0.0.1:8080", "/x?a=b")),
        ] {
            let (host, path) = host_and_path(url).unwrap();
            assert_eq!((host.as_str(), path.as_str()), want, "{url}");
        }
    }
}
