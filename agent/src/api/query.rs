//! Owns what is told of a query that cannot be used, and how long one may wait.
//!
//! **Invariant:** a refusal names the parameter, and says what is known.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;

use super::Problem;

/// The longest that `GET /v1/requests/{id}?wait_ms=` waits, in milliseconds.
const MAX_WAIT_MS: u64 = 60_000;

/// A query with a parameter that is not known, is there twice, or is no number where one must be.
pub(super) fn bad_query(error: &QueryRejection, known: &str) -> Problem {
    let why = error.body_text();
    let why = why.split_once("query string: ").map_or(&*why, |(_, why)| why);
    let why = why.split(", expected").next().unwrap_or_default();
    let why = match why.split_once(": ") {
        Some((name, "invalid digit found in string")) => format!("{name} must be a whole number"),
        Some((name, "number too large to fit in target type")) => format!("{name} is too large"),
        Some((_, unknown)) if unknown.starts_with("unknown field") => unknown.to_owned(),
        _ => why.to_owned(),
    };
    Problem::bad_term(format!("the query cannot be used: {why}; known parameters: {known}"))
}

/// How long a caller waits for something to happen.
pub(super) fn wait_of(wait_ms: Option<u64>) -> Result<Duration, Problem> {
    match wait_ms.unwrap_or(0) {
        ms @ 0..=MAX_WAIT_MS => Ok(Duration::from_millis(ms)),
        ms => Err(Problem::bad_term(format!(
            "wait_ms is {ms} and can be {MAX_WAIT_MS} at most; ask again"
        ))),
    }
}
