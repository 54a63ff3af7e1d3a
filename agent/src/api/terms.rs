//! Owns how the terms of a request are read from headers and query.
//!
//! **Invariant:** a term that is given twice with two meanings, or that cannot be read, refuses
//! the request; it is never ignored.

use axum::http::HeaderMap;
use serde::Deserialize;

use super::problem::Problem;
use crate::request::{DataClass, Escalate, IdempotencyKey, Priority};

/// The query of `POST /v1/tasks/{task}`; every parameter may come as a header instead.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TermsQuery {
    class: Option<String>,
    priority: Option<String>,
    deadline_ms: Option<String>,
    ttl_ms: Option<String>,
    not_before_ms: Option<String>,
    escalate: Option<String>,
    key: Option<String>,
}

impl TermsQuery {
    /// The parameters, for who mistyped one.
    pub(super) const KEYS: &str =
        "class, priority, deadline_ms, ttl_ms, not_before_ms, escalate, key";
}

/// The terms of one request, as far as the caller gave them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) class: Option<DataClass>,
    pub(super) priority: Option<Priority>,
    pub(super) deadline_ms: Option<u64>,
    pub(super) ttl_ms: Option<u64>,
    pub(super) not_before_ms: Option<u64>,
    pub(super) escalate: Option<Escalate>,
    pub(super) key: Option<IdempotencyKey>,
    pub(super) hops: u8,
}

impl Terms {
    /// How long the answer is wanted, and how long nothing is to be sent before, in milliseconds.
    ///
    /// # Errors
    /// When nobody would want the answer any more by the time that it may be asked for.
    pub(super) fn times(&self, default_ttl_ms: u64) -> Result<(u64, u64), Problem> {
        let ttl_ms = self.ttl_ms.unwrap_or(default_ttl_ms);
        let not_before_ms = self.not_before_ms.unwrap_or(0);
        if not_before_ms >= ttl_ms {
            return Err(Problem::bad_term(format!(
                "holdfast-not-before-ms (or ?not_before_ms=) is \"{not_before_ms}\", must be less than \
                 the time to live, which is {ttl_ms} ms"
            )));
        }
        Ok((ttl_ms, not_before_ms))
    }
}

/// Every header of ours.
const HEADERS: [&str; 7] = [
    "holdfast-class",
    "holdfast-priority",
    "holdfast-deadline-ms",
    "holdfast-ttl-ms",
    "holdfast-not-before-ms",
    "holdfast-escalate",
    "holdfast-hops",
];

/// Reads the terms.
///
/// # Errors
/// A term that cannot be read, is given with two meanings, or is not known.
pub(super) fn read(headers: &HeaderMap, query: &TermsQuery) -> Result<Terms, Problem> {
    let foreign = headers
        .keys()
        .map(|name| name.as_str())
        .find(|name| name.starts_with("holdfast-") && !HEADERS.contains(name));
    if let Some(name) = foreign {
        // A mistyped class must not be taken for none.
        let known = HEADERS.join(", ");
        return Err(Problem::bad_term(format!("header {name} is not known; known: {known}")));
    }
    let number = |text: &str, low: u64, high: u64| {
        text.parse::<u64>().ok().filter(|value| (low..=high).contains(value))
    };
    let terms = Terms {
        class: term(
            headers,
            ("holdfast-class", "class", &query.class),
            "one of public, internal, confidential, restricted",
            |text| text.parse().ok(),
        )?,
        priority: term(
            headers,
            ("holdfast-priority", "priority", &query.priority),
            "0..=9",
            |text| text.parse().ok().and_then(Priority::new),
        )?,
        deadline_ms: term(
            headers,
            ("holdfast-deadline-ms", "deadline_ms", &query.deadline_ms),
            "1..=600000",
            |text| number(text, 1, 600_000),
        )?,
        ttl_ms: term(
            headers,
            ("holdfast-ttl-ms", "ttl_ms", &query.ttl_ms),
            "1..=31536000000",
            |text| number(text, 1, 31_536_000_000),
        )?,
        not_before_ms: term(
            headers,
            ("holdfast-not-before-ms", "not_before_ms", &query.not_before_ms),
            "0..=31536000000, a span and no date",
            |text| number(text, 0, 31_536_000_000),
        )?,
        escalate: term(
            headers,
            ("holdfast-escalate", "escalate", &query.escalate),
            "one of auto, always, never",
            |text| text.parse().ok(),
        )?,
        key: term(
            headers,
            ("idempotency-key", "key", &query.key),
            "1 to 200 visible ASCII characters",
            IdempotencyKey::parse,
        )?,
        hops: term(headers, ("holdfast-hops", "hops", &None), "0..=255", |text| text.parse().ok())?
            .unwrap_or(0),
    };
    Ok(terms)
}

/// One term, from its header or its query parameter.
fn term<T>(
    headers: &HeaderMap,
    (header, parameter, query): (&str, &str, &Option<String>),
    want: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let mut given: Vec<&str> = Vec::new();
    for value in headers.get_all(header) {
        let text = value
            .to_str()
            .map_err(|_| Problem::bad_term(format!("header {header} must be {want}")))?;
        given.push(text.trim());
    }
    given.extend(query.as_deref());
    given.dedup();
    match given.as_slice() {
        [] => Ok(None),
        [text] => match parse(text) {
            Some(value) => Ok(Some(value)),
            None => {
                let shown: String = text.chars().take(64).collect();
                Err(Problem::bad_term(format!(
                    "{header} (or ?{parameter}=) is \"{shown}\", must be {want}"
                )))
            }
        },
        _ => Err(Problem::bad_term(format!(
            "{header} (or ?{parameter}=) is given more than once with different values; give it once"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn terms_come_from_headers_and_query() {
        let query = TermsQuery { priority: Some("9".into()), ..TermsQuery::default() };
        let terms =
            read(&headers(&[("holdfast-class", "internal"), ("idempotency-key", "k")]), &query);
        let terms = terms.unwrap();
        assert_eq!(terms.class, Some(DataClass::Internal));
        assert_eq!(terms.priority, Priority::new(9));
        assert_eq!(terms.key, IdempotencyKey::parse("k"));
        assert_eq!(terms.escalate, None);
    }

    #[test]
    fn a_term_that_cannot_be_read_refuses_the_request() {
        for pair in [
            ("holdfast-class", "secret"),
            ("holdfast-class", "Public"),
            ("holdfast-class", ""),
            ("holdfast-priority", "10"),
            ("holdfast-priority", "-1"),
            ("holdfast-deadline-ms", "0"),
            ("holdfast-ttl-ms", "soon"),
            ("holdfast-not-before-ms", "-1"),
            ("holdfast-not-before-ms", "31536000001"),
            ("holdfast-not-before-ms", "2026-01-01T00:00:00Z"),
            ("holdfast-escalate", "maybe"),
            ("idempotency-key", "two words"),
            ("holdfast-hops", "256"),
            ("holdfast-clas", "restricted"),
        ] {
            assert!(read(&headers(&[pair]), &TermsQuery::default()).is_err(), "{pair:?}");
        }
    }

    #[test]
    fn what_is_to_wait_longer_than_it_is_wanted_is_refused() {
        let terms = |ttl_ms, not_before_ms| Terms { ttl_ms, not_before_ms, ..Terms::default() };
        for (case, terms, want) in [
            ("at once", terms(Some(5), None), Some((5, 0))),
            ("within its time", terms(Some(5), Some(4)), Some((5, 4))),
            ("at the end of its time", terms(Some(5), Some(5)), None),
            ("beyond the default", terms(None, Some(7)), None),
            ("within the default", terms(None, Some(6)), Some((7, 6))),
        ] {
            assert_eq!(terms.times(7).ok(), want, "{case}");
        }
    }

    #[test]
    fn two_meanings_refuse_the_request() {
        let query = TermsQuery { class: Some("public".into()), ..TermsQuery::default() };
        assert!(read(&headers(&[("holdfast-class", "restricted")]), &query).is_err());
        assert!(read(&headers(&[("holdfast-class", "public")]), &query).is_ok(), "the same twice");
        let twice = headers(&[("holdfast-class", "restricted"), ("holdfast-class", "public")]);
        assert!(read(&twice, &TermsQuery::default()).is_err());
    }
}
