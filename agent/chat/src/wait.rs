//! Owns reading how long a provider wants to be left alone.
//!
//! **Invariant:** a wait that cannot be read is none; nothing here panics on what a header says.

use std::time::Duration;

/// What a provider may tell of its limits: the header's value by its name in lower case.
pub(crate) type Told<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The wait out of the headers. `Retry-After` as a date is read by who has the response's date.
///
/// `retry-after-ms` and `retry-after` come first. OpenAI's `x-ratelimit-reset-*` count only where
/// `x-ratelimit-remaining-*` says that nothing is left; the longest of them is waited for.
pub(crate) fn of_headers(told: Told<'_>) -> Option<Duration> {
    let millis = told("retry-after-ms").and_then(|text| text.trim().parse().ok());
    let seconds = || told("retry-after").and_then(|text| seconds(&text));
    millis.map(Duration::from_millis).or_else(seconds).or_else(|| of_limits(told))
}

fn of_limits(told: Told<'_>) -> Option<Duration> {
    let spent = ["requests", "tokens"].into_iter().filter_map(|what| {
        let left = told(&format!("x-ratelimit-remaining-{what}"))?;
        let is_spent = left.trim().parse::<u64>().is_ok_and(|left| left == 0);
        is_spent.then(|| told(&format!("x-ratelimit-reset-{what}"))).flatten()
    });
    spent.filter_map(|text| span(&text)).max()
}

/// Seconds, whole or not.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A span as Go and protobuf write it: `1h2m3.5s`, `20ms`, `34s`; or bare seconds.
pub(crate) fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Some(bare) = seconds(rest) {
        return Some(bare);
    }
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let (scale, length) = match unit {
            unit if unit.starts_with("ms") => (0.001, 2),
            unit if unit.starts_with('h') => (3600.0, 1),
            unit if unit.starts_with('m') => (60.0, 1),
            unit if unit.starts_with('s') => (1.0, 1),
            _ => return None,
        };
        sum = sum.checked_add(Duration::try_from_secs_f64(number * scale).ok()?)?;
        rest = &unit[length..];
    }
    (!text.trim().is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_in_every_form_and_nonsense_in_none() {
        for (text, want) in [
            ("34s", Some(34_000)),
            ("34.5s", Some(34_500)),
            ("1m30s", Some(90_000)),
            ("6m0s", Some(360_000)),
            ("1h0m0.250s", Some(3_600_250)),
            ("20ms", Some(20)),
            ("7", Some(7_000)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("-3s", None),
            ("1d", None),
            ("1e400s", None),
            ("99999999999999999999999s", None),
            ("ü", None),
        ] {
            assert_eq!(span(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn a_limit_counts_where_nothing_is_left() {
        let of = |headers: &[(&str, &str)]| {
            let headers: Vec<_> = headers.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            of_headers(&|name| {
                headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
            })
        };
        let requests = ("x-ratelimit-remaining-requests", "0");
        let resets = [("x-ratelimit-reset-requests", "2s"), ("x-ratelimit-reset-tokens", "6m0s")];
        let left = ("x-ratelimit-remaining-tokens", "12");
        assert_eq!(of(&[requests, left, resets[0], resets[1]]), Some(Duration::from_secs(2)));
        assert_eq!(of(&[left, resets[0], resets[1]]), None);
        assert_eq!(of(&[requests, resets[0], ("retry-after", "9")]), Some(Duration::from_secs(9)));
        let millis = ("retry-after-ms", "1500");
        assert_eq!(of(&[millis, ("retry-after", "9")]), Some(Duration::from_millis(1500)));
    }
}
