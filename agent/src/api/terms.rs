//! Owns how the terms of a request are read from headers and query, or from headers and metadata.
//!
//! **Invariant:** a term that is given twice with two meanings, or that cannot be read, refuses
//! the request; it is never ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;

use super::problem::Problem;
use crate::gateway::held::Times;
use crate::inquiry;
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
    /// How long the answer is wanted, and how long nothing is to be sent before, in milliseconds;
    /// `place` is where a term of this name stands, if not in a header.
    ///
    /// # Errors
    /// When nobody would want the answer any more by the time that it may be asked for.
    pub(super) fn times(
        &self,
        default_ttl_ms: u64,
        place: fn(&str) -> String,
    ) -> Result<(u64, u64), Problem> {
        let ttl_ms = self.ttl_ms.unwrap_or(default_ttl_ms);
        let not_before_ms = self.not_before_ms.unwrap_or(0);
        if not_before_ms >= ttl_ms {
            return Err(Problem::bad_term(format!(
                "holdfast-not-before-ms (or {}) is \"{not_before_ms}\", must be less than \
                 the time to live, which is {ttl_ms} ms",
                place("not_before_ms"),
            )));
        }
        Ok((ttl_ms, not_before_ms))
    }
}

/// The longest that anybody waits, and who says nothing, in milliseconds.
const LONGEST_MS: u64 = 600_000;
/// The longest that anything is held, in milliseconds: a year.
const LONGEST_SPAN_MS: u64 = 31_536_000_000;

/// Every header of ours that a request of a task may have.
const HEADERS: [&str; 7] = [
    "holdfast-class",
    "holdfast-priority",
    "holdfast-deadline-ms",
    "holdfast-ttl-ms",
    "holdfast-not-before-ms",
    "holdfast-escalate",
    "holdfast-hops",
];
/// Those that an inquiry may have; the last two where it is held.
const HEADERS_OF_INQUIRY: [&str; 7] = [
    "holdfast-class",
    "holdfast-priority",
    "holdfast-deadline-ms",
    "holdfast-cost-limit-micros",
    "holdfast-hops",
    "holdfast-ttl-ms",
    "holdfast-not-before-ms",
];
/// The same, in the metadata of one.
const METADATA: [&str; 7] = [
    "holdfast_class",
    "holdfast_priority",
    "holdfast_deadline_ms",
    "holdfast_cost_limit_micros",
    "holdfast_idempotency_key",
    "holdfast_ttl_ms",
    "holdfast_not_before_ms",
];
/// How many of these are for what is held alone.
const OF_HELD: usize = 2;
/// That an inquiry is held where nobody answers it now, as a header and in metadata.
const HOLD: (&str, &str) = ("holdfast-hold", "holdfast_hold");
const CLASSES: &str = "one of public, internal, confidential, restricted";
const PRIORITIES: &str = "0..=9";
const DEADLINES: &str = "1..=600000";
const SPANS: &str = "1..=31536000000";
const STARTS: &str = "0..=31536000000, a span and no date";
const KEYS: &str = "1 to 200 visible ASCII characters";
/// A million of the operator's currency, in millionths.
const MOST_MICROS: u64 = 1_000_000_000_000;

/// Reads the terms of a request of a task.
///
/// # Errors
/// A term that cannot be read, is given with two meanings, or is not known.
pub(super) fn read(headers: &HeaderMap, query: &TermsQuery) -> Result<Terms, Problem> {
    check_names(headers, &HEADERS)?;
    let given = Given { headers, place: in_query };
    let terms = Terms {
        class: given
            .term("holdfast-class", ("class", &query.class), CLASSES, |text| text.parse().ok())?,
        priority: given.term(
            "holdfast-priority",
            ("priority", &query.priority),
            PRIORITIES,
            priority,
        )?,
        deadline_ms: given.term(
            "holdfast-deadline-ms",
            ("deadline_ms", &query.deadline_ms),
            DEADLINES,
            |text| number(text, 1, LONGEST_MS),
        )?,
        ttl_ms: given.term("holdfast-ttl-ms", ("ttl_ms", &query.ttl_ms), SPANS, |text| {
            number(text, 1, LONGEST_SPAN_MS)
        })?,
        not_before_ms: given.term(
            "holdfast-not-before-ms",
            ("not_before_ms", &query.not_before_ms),
            STARTS,
            |text| number(text, 0, LONGEST_SPAN_MS),
        )?,
        escalate: given.term(
            "holdfast-escalate",
            ("escalate", &query.escalate),
            "one of auto, always, never",
            |text| text.parse().ok(),
        )?,
        key: given.term("idempotency-key", ("key", &query.key), KEYS, IdempotencyKey::parse)?,
        hops: given.hops()?,
    };
    Ok(terms)
}

/// Reads the terms of an inquiry; one that names no class has `default_class`.
///
/// # Errors
/// As [`read`].
pub(super) fn of_inquiry(
    headers: &HeaderMap,
    metadata: &BTreeMap<String, String>,
    default_class: DataClass,
) -> Result<inquiry::Terms, Problem> {
    let (headers_known, _) = HEADERS_OF_INQUIRY.split_at(HEADERS_OF_INQUIRY.len() - OF_HELD);
    let (metadata_known, _) = METADATA.split_at(METADATA.len() - OF_HELD);
    check_names(headers, headers_known)?;
    check_metadata(metadata, metadata_known)?;
    terms_of(headers, metadata, default_class)
}

/// Reads the terms of an inquiry that is held, as [`of_inquiry`]; [`held_times`] has the rest.
///
/// # Errors
/// As [`read`].
pub(super) fn of_held(
    headers: &HeaderMap,
    metadata: &BTreeMap<String, String>,
    default_class: DataClass,
) -> Result<inquiry::Terms, Problem> {
    check_names(headers, &HEADERS_OF_INQUIRY)?;
    check_metadata(metadata, &METADATA)?;
    terms_of(headers, metadata, default_class)
}

/// Reads whether an inquiry is to be held where nobody answers it now, and its terms: as [`of_held`] where
/// it is, else as [`of_inquiry`].
///
/// # Errors
/// As [`read`].
pub(super) fn of_holdable(
    headers: &HeaderMap,
    metadata: &BTreeMap<String, String>,
    default_class: DataClass,
) -> Result<(bool, inquiry::Terms), Problem> {
    let given = Given { headers, place: in_metadata };
    let told = metadata.get(HOLD.1).cloned();
    let holds = given.term(HOLD.0, ("hold", &told), "true or false", |text| text.parse().ok())?;
    let holds = holds.unwrap_or(false);
    let left_out = if holds { 0 } else { OF_HELD };
    let known =
        |all: &[&'static str], hold| [all.split_at(all.len() - left_out).0, &[hold]].concat();
    check_names(headers, &known(&HEADERS_OF_INQUIRY, HOLD.0))?;
    check_metadata(metadata, &known(&METADATA, HOLD.1))?;
    Ok((holds, terms_of(headers, metadata, default_class)?))
}

/// Reads how long an inquiry is held.
///
/// # Errors
/// As [`read`], and when nobody would want the answer any more by the time that it may be asked for.
pub(super) fn held_times(
    headers: &HeaderMap,
    metadata: &BTreeMap<String, String>,
    default_ttl_ms: u64,
) -> Result<Times, Problem> {
    let given = Given { headers, place: in_metadata };
    let told = |name: &str| metadata.get(&format!("holdfast_{name}")).cloned();
    let (ttl, start) = (told("ttl_ms"), told("not_before_ms"));
    let ttl_ms = given.term("holdfast-ttl-ms", ("ttl_ms", &ttl), SPANS, |text| {
        number(text, 1, LONGEST_SPAN_MS)
    })?;
    let start = ("not_before_ms", &start);
    let not_before_ms = given
        .term("holdfast-not-before-ms", start, STARTS, |text| number(text, 0, LONGEST_SPAN_MS))?;
    let terms = Terms { ttl_ms, not_before_ms, ..Terms::default() };
    let (ttl_ms, not_before_ms) = terms.times(default_ttl_ms, in_metadata)?;
    Ok(Times { ttl_ms, not_before_ms })
}

fn terms_of(
    headers: &HeaderMap,
    metadata: &BTreeMap<String, String>,
    default_class: DataClass,
) -> Result<inquiry::Terms, Problem> {
    let given = Given { headers, place: in_metadata };
    let told = |name: &'static str| (name, metadata.get(&format!("holdfast_{name}")).cloned());
    let [class, urgency, deadline, cost, key] =
        ["class", "priority", "deadline_ms", "cost_limit_micros", "idempotency_key"].map(told);
    let class =
        given.term("holdfast-class", (class.0, &class.1), CLASSES, |text| text.parse().ok())?;
    let priority =
        given.term("holdfast-priority", (urgency.0, &urgency.1), PRIORITIES, priority)?;
    let deadline_ms =
        given.term("holdfast-deadline-ms", (deadline.0, &deadline.1), DEADLINES, |text| {
            number(text, 1, LONGEST_MS)
        })?;
    let cost_limit_micros = given.term(
        "holdfast-cost-limit-micros",
        (cost.0, &cost.1),
        "0..=1000000000000 millionths of your currency",
        |text| number(text, 0, MOST_MICROS),
    )?;
    let key = given.term("idempotency-key", (key.0, &key.1), KEYS, IdempotencyKey::parse)?;
    Ok(inquiry::Terms {
        class: class.unwrap_or(default_class),
        priority: priority.unwrap_or_default(),
        within: Duration::from_millis(deadline_ms.unwrap_or(LONGEST_MS)),
        cost_limit_micros,
        key,
        hops: given.hops()?,
    })
}

/// Where a term of this name stands in a query.
pub(super) fn in_query(name: &str) -> String {
    format!("?{name}=")
}

/// The same in metadata.
fn in_metadata(name: &str) -> String {
    format!("metadata.holdfast_{name}")
}

/// Where a term counts that does not here.
fn elsewhere(name: &str) -> Option<&'static str> {
    match name.replace('_', "-").as_str() {
        "holdfast-ttl-ms" | "holdfast-not-before-ms" => Some(
            "counts only for what is held: a chat completion with Holdfast-Hold: true, a response \
             with background: true, and a task",
        ),
        "holdfast-hold" => {
            Some("counts only for a chat completion; a response is held with background: true")
        }
        _ => None,
    }
}

/// A name that does not count here.
fn foreign(what: &str, name: &str, known: &[&str]) -> Problem {
    let shown: String = name.chars().take(64).collect();
    let detail = match elsewhere(name) {
        Some(place) => format!("{what} {shown} {place}"),
        None => format!("{what} {shown} is not known; known: {}", known.join(", ")),
    };
    Problem::bad_term(detail)
}

/// The same as [`check_names`] for names in metadata.
fn check_metadata(metadata: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Problem> {
    let is_foreign =
        |name: &&String| name.starts_with("holdfast") && !known.contains(&name.as_str());
    match metadata.keys().find(is_foreign) {
        None => Ok(()),
        Some(name) => Err(foreign("metadata", name, known)),
    }
}

/// A mistyped class must not be taken for none.
fn check_names(headers: &HeaderMap, known: &[&str]) -> Result<(), Problem> {
    let name = headers
        .keys()
        .map(|name| name.as_str())
        .find(|name| name.starts_with("holdfast-") && !known.contains(name));
    match name {
        None => Ok(()),
        Some(name) => Err(foreign("header", name, known)),
    }
}

fn number(text: &str, low: u64, high: u64) -> Option<u64> {
    text.parse::<u64>().ok().filter(|value| (low..=high).contains(value))
}

fn priority(text: &str) -> Option<Priority> {
    text.parse().ok().and_then(Priority::new)
}

/// What a caller gave, in headers and in another place, which has names of its own.
struct Given<'a> {
    headers: &'a HeaderMap,
    place: fn(&str) -> String,
}

impl Given<'_> {
    /// One term, from its header or the other place.
    fn term<T>(
        &self,
        header: &str,
        (name, other): (&str, &Option<String>),
        want: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let mut given: Vec<&str> = Vec::new();
        for value in self.headers.get_all(header) {
            let text = value
                .to_str()
                .map_err(|_| Problem::bad_term(format!("header {header} must be {want}")))?;
            given.push(text.trim());
        }
        given.extend(other.as_deref());
        given.dedup();
        let place = || (self.place)(name);
        match given.as_slice() {
            [] => Ok(None),
            [text] => match parse(text) {
                Some(value) => Ok(Some(value)),
                None => {
                    let (shown, place) = (text.chars().take(64).collect::<String>(), place());
                    Err(Problem::bad_term(format!(
                        "{header} (or {place}) is \"{shown}\", must be {want}"
                    )))
                }
            },
            _ => Err(Problem::bad_term(format!(
                "{header} (or {}) is given more than once with different values; give it once",
                place()
            ))),
        }
    }

    fn hops(&self) -> Result<u8, Problem> {
        let hops = self.term("holdfast-hops", ("hops", &None), "0..=255", |text| text.parse().ok());
        Ok(hops?.unwrap_or(0))
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
            assert_eq!(terms.times(7, in_query).ok(), want, "{case}");
        }
    }

    #[test]
    fn terms_of_an_inquiry_come_from_headers_and_metadata() {
        let told = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let metadata = told(&[
            ("holdfast_class", "internal"),
            ("holdfast_cost_limit_micros", "7"),
            ("holdfast_idempotency_key", "k"),
            ("mine", "whatever"),
        ]);
        let headers = headers(&[("holdfast-deadline-ms", "250"), ("holdfast-class", "internal")]);
        let terms = of_inquiry(&headers, &metadata, DataClass::Confidential).unwrap();
        assert_eq!((terms.class, terms.cost_limit_micros), (DataClass::Internal, Some(7)));
        assert_eq!(
            (terms.within, terms.key),
            (Duration::from_millis(250), IdempotencyKey::parse("k"))
        );
        let terms = of_inquiry(&HeaderMap::new(), &told(&[]), DataClass::Confidential).unwrap();
        assert_eq!((terms.class, terms.hops), (DataClass::Confidential, 0));
        for metadata in [
            told(&[("holdfast_class", "secret")]),
            told(&[("holdfast_clas", "public")]),
            told(&[("holdfast_class", "public")]),
            told(&[("holdfast_deadline_ms", "0")]),
            told(&[("holdfast_cost_limit_micros", "-1")]),
        ] {
            assert!(of_inquiry(&headers, &metadata, DataClass::Public).is_err(), "{metadata:?}");
        }
    }

    #[test]
    fn how_long_it_is_held_is_said_of_what_is_held_alone() {
        let told = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (case, in_headers, in_metadata, want) in [
            ("nothing", &[][..], told(&[]), Some((9, 0))),
            ("a header", &[("holdfast-ttl-ms", "5")], told(&[]), Some((5, 0))),
            (
                "both",
                &[("holdfast-not-before-ms", "3")],
                told(&[("holdfast_ttl_ms", "4")]),
                Some((4, 3)),
            ),
            ("too late", &[("holdfast-not-before-ms", "9")], told(&[]), None),
            ("no span", &[], told(&[("holdfast_not_before_ms", "soon")]), None),
            ("two of them", &[("holdfast-ttl-ms", "5")], told(&[("holdfast_ttl_ms", "4")]), None),
        ] {
            let headers = headers(in_headers);
            let times = held_times(&headers, &in_metadata, 9).ok();
            let want = want.map(|(ttl_ms, not_before_ms)| Times { ttl_ms, not_before_ms });
            assert_eq!(times, want, "{case}");
            assert!(of_held(&headers, &in_metadata, DataClass::Public).is_ok(), "{case}");
            let is_asked_now = of_inquiry(&headers, &in_metadata, DataClass::Public).is_ok();
            assert_eq!(is_asked_now, case == "nothing", "{case}");
        }
    }

    #[test]
    fn what_counts_elsewhere_is_said_where_it_does() {
        for (name, want) in [
            ("holdfast-ttl-ms", "with Holdfast-Hold: true"),
            ("holdfast-not-before-ms", "with background: true"),
            ("holdfast-hold", "only for a chat completion"),
            ("holdfast-cost", "is not known; known: holdfast-class, "),
        ] {
            let said = of_inquiry(&headers(&[(name, "1")]), &BTreeMap::new(), DataClass::Public);
            let said = said.unwrap_err().detail().to_owned();
            assert!(said.starts_with(&format!("header {name} ")) && said.contains(want), "{said}");
            let name = name.replace('-', "_");
            let metadata = [(name.clone(), "1".to_owned())].into();
            let said = of_inquiry(&HeaderMap::new(), &metadata, DataClass::Public).unwrap_err();
            assert!(said.detail().starts_with(&format!("metadata {name} ")), "{said:?}");
        }
        let late = headers(&[("holdfast-not-before-ms", "9")]);
        let said = held_times(&late, &BTreeMap::new(), 9).unwrap_err();
        assert!(said.detail().contains("(or metadata.holdfast_not_before_ms)"), "{said:?}");
    }

    #[test]
    fn what_may_be_held_says_so_and_then_how_long() {
        let told = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (case, in_headers, in_metadata, want) in [
            ("nothing", &[][..], told(&[]), Some(false)),
            ("a header", &[("holdfast-hold", "true")], told(&[]), Some(true)),
            ("metadata", &[], told(&[("holdfast_hold", "true")]), Some(true)),
            ("both", &[("holdfast-hold", "true")], told(&[("holdfast_hold", "true")]), Some(true)),
            (
                "two of them",
                &[("holdfast-hold", "true")],
                told(&[("holdfast_hold", "false")]),
                None,
            ),
            ("no word", &[("holdfast-hold", "yes")], told(&[]), None),
            (
                "how long",
                &[("holdfast-hold", "true"), ("holdfast-ttl-ms", "9")],
                told(&[("holdfast_not_before_ms", "3")]),
                Some(true),
            ),
            ("not held", &[("holdfast-hold", "false"), ("holdfast-ttl-ms", "9")], told(&[]), None),
            ("no hold", &[], told(&[("holdfast_ttl_ms", "9")]), None),
        ] {
            let headers = headers(in_headers);
            let terms = of_holdable(&headers, &in_metadata, DataClass::Public);
            assert_eq!(terms.ok().map(|(holds, _)| holds), want, "{case}");
            let is_said = in_headers.len() + in_metadata.len() > 0;
            let elsewhere = of_held(&headers, &in_metadata, DataClass::Public);
            assert!(!is_said || case == "no hold" || elsewhere.is_err(), "{case}");
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
