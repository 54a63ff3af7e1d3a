//! What the working process said that it had done, kept outside of its disk, and how that compares
//! with what is found after a cut.
//!
//! A line is written before an operation begins (`begin`, `ending`), so that what nobody was told of
//! may be there or not, and one after it was acknowledged: that must be there for ever.

use std::collections::BTreeMap;

/// One request, as far as it was said.
#[derive(Debug, Default)]
struct Known {
    /// Of its body.
    digest: String,
    /// Whether its acceptance was acknowledged.
    accepted: bool,
    /// Ends that were begun.
    maybe: Vec<String>,
    /// The end that was acknowledged, or found after a cut, and stays.
    end: Option<String>,
    /// Attempts that were acknowledged.
    attempts: u32,
}

/// All requests of one chain of cuts.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    requests: BTreeMap<String, Known>,
    /// Acknowledged acceptances and ends.
    pub(crate) accepted: u64,
    pub(crate) ended: u64,
}

/// What was found after a cut, from the lines of the process that looked.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By id: `held DIGEST ATTEMPTS` or the end.
    requests: BTreeMap<String, String>,
    /// What the queue said of itself on opening.
    pub(crate) report: String,
    /// Whether all was said.
    pub(crate) is_whole: bool,
}

impl Found {
    /// Takes a line; false when the looking is over.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        match line.split_once(' ') {
            Some(("found", rest)) => {
                let (id, what) = rest.split_once(' ').unwrap_or((rest, ""));
                self.requests.insert(id.to_owned(), what.to_owned());
            }
            Some(("report", rest)) => rest.clone_into(&mut self.report),
            Some(("fault", what)) => panic!("after the cut: {what}"),
            _ if line == "looked" => {
                self.is_whole = true;
                return false;
            }
            _ => {}
        }
        true
    }
}

impl Ledger {
    /// Takes a line of the working process.
    pub(crate) fn take(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (Some(what), Some(id)) = (words.next(), words.next()) else { return };
        let rest = words.next().unwrap_or_default().to_owned();
        let known = self.requests.entry(id.to_owned()).or_default();
        match what {
            "begin" => known.digest = rest,
            "accepted" => {
                known.accepted = true;
                self.accepted += 1;
            }
            "ending" => known.maybe.push(rest),
            "ended" => {
                let before = known.end.replace(rest.clone());
                assert!(before.is_none_or(|was| was == rest), "{id} was ended twice");
                self.ended += 1;
            }
            "tried" => known.attempts += 1,
            // Its attempts begin anew, or will when that is on disk.
            "again" => known.attempts = 0,
            "fault" => panic!("while it worked: {line}"),
            _ => {}
        }
    }

    /// Takes a line that came when the power may have been off: what is acknowledged in it counts for
    /// nothing, what is begun may be found.
    pub(crate) fn take_maybe(&mut self, line: &str) {
        if ["begin ", "ending ", "again "].iter().any(|what| line.starts_with(what)) {
            self.take(line);
        }
    }

    /// Holds what was found against what was said; what nobody was told of is decided from here on.
    /// Returns what is wrong.
    pub(crate) fn compare(&mut self, found: &Found) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, what) in &found.requests {
            match self.requests.get_mut(id) {
                None => wrong.push(format!("{id} was never given to the queue: {what}")),
                Some(known) => wrong.extend(compare_one(id, known, what)),
            }
        }
        let gone: Vec<_> =
            self.requests.keys().filter(|id| !found.requests.contains_key(*id)).cloned().collect();
        for id in gone {
            let known = self.requests.remove(&id);
            if known.is_some_and(|known| known.accepted || known.end.is_some()) {
                wrong.push(format!("{id} was acknowledged and is lost"));
            }
        }
        wrong
    }
}

fn compare_one(id: &str, known: &mut Known, what: &str) -> Option<String> {
    // It is there, and so it stays.
    known.accepted = true;
    if let Some(held) = what.strip_prefix("held ") {
        let (digest, attempts) = held.split_once(' ')?;
        let attempts: u32 = attempts.parse().ok()?;
        if let Some(end) = &known.end {
            return Some(format!("{id} ended ({end}) and is held again"));
        }
        if digest != known.digest {
            return Some(format!("{id} has other bytes: {digest} instead of {}", known.digest));
        }
        let fewer = attempts < known.attempts;
        known.attempts = attempts;
        return fewer.then(|| format!("{id} has forgotten an attempt: {attempts}"));
    }
    match &known.end {
        Some(end) if end == what => None,
        Some(end) => Some(format!("{id} ended ({end}) and has now another end: {what}")),
        None if known.maybe.iter().any(|end| end == what) => {
            known.end = Some(what.to_owned());
            None
        }
        None => Some(format!("{id} has an end that nobody gave it: {what}")),
    }
}

#[test]
fn ledger_notices_what_must_not_be() {
    let said = ["begin a d1", "accepted a", "begin b d2", "ending c answered x", "begin c d3"];
    for (more, found, wrong) in [
        (&[][..], &["found a held d1 0"][..], 0),
        (&[], &["found a held d1 0", "found b held d2 0"], 0),
        (&[], &["found a held d1 0", "found c answered x"], 0),
        (&[], &[], 1),
        (&[], &["found a held d9 0"], 1),
        (&[], &["found a held d1 0", "found z held d1 0"], 1),
        (&[], &["found a answered x"], 1),
        (&["tried a"], &["found a held d1 0"], 1),
        (&["tried a"], &["found a held d1 1"], 0),
        (&["ended a answered x"], &["found a held d1 0"], 1),
        (&["ended a answered x"], &["found a answered y"], 1),
        (&["ended a answered x"], &["found a answered x"], 0),
        (&["ended b failed"], &["found a held d1 0"], 1),
    ] {
        let mut ledger = Ledger::default();
        said.iter().chain(more).for_each(|line| ledger.take(line));
        let mut looked = Found::default();
        found.iter().for_each(|line| assert!(looked.take(line)));
        assert_eq!(ledger.compare(&looked).len(), wrong, "{more:?} {found:?}");
    }
}

#[test]
fn ledger_takes_what_was_said_too_late_as_maybe() {
    let late = ["begin b d2", "accepted b", "tried a", "ending a failed", "ended a failed"];
    for (found, wrong) in [
        (&["found a held d1 0"][..], 0),
        (&["found a failed", "found b held d2 0"], 0),
        (&["found b held d2 0"], 1),
        (&["found a held d1 0", "found b failed"], 1),
    ] {
        let mut ledger = Ledger::default();
        ["begin a d1", "accepted a"].iter().for_each(|line| ledger.take(line));
        late.iter().for_each(|line| ledger.take_maybe(line));
        let mut looked = Found::default();
        found.iter().for_each(|line| assert!(looked.take(line)));
        assert_eq!(ledger.compare(&looked).len(), wrong, "{found:?}");
    }
}
