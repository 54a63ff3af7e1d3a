//! What the queue's callers were promised.
//!
//! **Invariant:** a request has the stages that it can be in: one, once its caller was told or it was
//! seen after an opening; more, while a call failed half way.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{NewEntry, RequestId, entry::Attempts};

/// An end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Answered(Bytes),
    Failed,
    Expired,
    Cancelled,
}

/// Where a request can be in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Never accepted, or forgotten.
    Gone,
    Held {
        attempts: u32,
        is_aside: bool,
    },
    Ended(End),
}

#[derive(Debug)]
struct Known {
    new: NewEntry,
    stages: Vec<Stage>,
    /// The end that somebody was told of or has seen; there is no other.
    end: Option<End>,
    number: Option<u64>,
    /// Ends that were forgotten before it was put in again: they may come back when the last one is
    /// forgotten, too.
    past: Vec<Option<End>>,
}

impl Known {
    fn may_be_forgotten(&mut self) {
        if self.stages.iter().any(|stage| matches!(stage, Stage::Ended(_))) {
            self.stages.push(Stage::Gone);
            self.stages.extend(self.past.iter().flatten().cloned().map(Stage::Ended));
        }
    }

    fn begin_again(&mut self, held: Stage) {
        self.past.push(self.end.take());
        self.stages = vec![held];
    }
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Model {
    requests: BTreeMap<RequestId, Known>,
    /// Requests that were another one's, by their key.
    repeats: Vec<RequestId>,
}

impl Model {
    pub(super) fn ids(&self) -> Vec<RequestId> {
        self.requests.keys().copied().collect()
    }

    pub(super) fn has(&self, id: RequestId) -> bool {
        self.requests.contains_key(&id)
    }

    pub(super) fn key_is_taken(&self, id: RequestId) -> bool {
        self.repeats.contains(&id)
    }

    pub(super) fn envelope(&self, id: RequestId) -> Bytes {
        self.requests[&id].new.envelope.clone()
    }

    pub(super) fn body(&self, id: RequestId) -> Bytes {
        self.requests[&id].new.body.clone()
    }

    fn known_mut(&mut self, id: RequestId) -> &mut Known {
        self.requests.get_mut(&id).expect("it was put in")
    }

    /// A request was put in; told so, or not.
    pub(super) fn accepted(&mut self, new: NewEntry, told: bool) {
        let held = Stage::Held { attempts: 0, is_aside: false };
        let stages = if told { vec![held] } else { vec![held, Stage::Gone] };
        self.requests
            .insert(new.id, Known { new, stages, end: None, number: None, past: Vec::new() });
    }

    /// The queue said that it is another request, by its key.
    pub(super) fn known(&mut self, new: &NewEntry, other: RequestId) {
        let there = self.requests.get(&other).expect("a request that was put in");
        let key = |new: &NewEntry| new.idempotency.clone().map(|name| name.key);
        assert_eq!(key(&there.new), key(new), "they have one key");
        assert_ne!(there.stages, [Stage::Gone], "{other} is gone");
        self.repeats.push(new.id);
    }

    /// An end was recorded; told so, or not.
    pub(super) fn ended(&mut self, id: RequestId, end: End, told: bool) {
        let known = self.known_mut(id);
        if told {
            assert_eq!(known.end, None, "{id} has two ends");
            assert!(known.stages.iter().any(|stage| matches!(stage, Stage::Held { .. })));
            known.end = Some(end.clone());
            known.stages = vec![Stage::Ended(end)];
        } else if known.stages.iter().any(|stage| matches!(stage, Stage::Held { .. })) {
            known.stages.push(Stage::Ended(end));
        }
    }

    /// The queue said that it had its end before.
    pub(super) fn was_final(&mut self, id: RequestId) {
        let known = self.known_mut(id);
        known.stages.retain(|stage| matches!(stage, Stage::Ended(_)));
        assert!(!known.stages.is_empty(), "{id} has no end");
    }

    pub(super) fn given_back(&mut self, id: RequestId, by: Attempts, is_aside: bool, told: bool) {
        let known = self.known_mut(id);
        let mut after = Vec::new();
        for stage in &known.stages {
            if let Stage::Held { attempts, .. } = stage {
                let attempts = match by {
                    Attempts::Counted => attempts + 1,
                    Attempts::Kept => *attempts,
                    Attempts::Reset => 0,
                };
                after.push(Stage::Held { attempts, is_aside });
            }
        }
        if told {
            assert!(!after.is_empty(), "{id} was given back, and is not held");
            known.stages = after;
        } else {
            known.stages.extend(after);
        }
    }

    /// Finals whose time is over go, and may come back with a rebuilt index: as they were.
    pub(super) fn finals_may_be_forgotten(&mut self) {
        for known in self.requests.values_mut() {
            known.may_be_forgotten();
        }
    }

    /// One final went, for good, with all that there was before it.
    pub(super) fn is_forgotten(&mut self, id: RequestId) {
        let known = self.known_mut(id);
        known.stages = vec![Stage::Gone];
        (known.end, known.number) = (None, None);
        known.past.clear();
    }

    /// One final goes, or not: its caller was not told.
    pub(super) fn may_be_forgotten(&mut self, id: RequestId) {
        self.known_mut(id).may_be_forgotten();
    }

    /// A request that was forgotten, to be put in again.
    pub(super) fn forgotten(&self) -> Vec<NewEntry> {
        let is_gone = |known: &&Known| {
            let is_held = |stage: &Stage| matches!(stage, Stage::Held { .. });
            known.stages.contains(&Stage::Gone) && !known.stages.iter().any(is_held)
        };
        self.requests.values().filter(is_gone).map(|known| known.new.clone()).collect()
    }

    /// A forgotten request was put in again; told so, or not.
    pub(super) fn accepted_again(&mut self, id: RequestId, told: bool) {
        let held = Stage::Held { attempts: 0, is_aside: false };
        let known = self.known_mut(id);
        if told {
            known.begin_again(held);
        } else {
            known.stages.push(held);
        }
    }

    pub(super) fn may_be_leased(&self, id: RequestId) -> bool {
        self.requests[&id].stages.iter().any(|stage| matches!(stage, Stage::Held { .. }))
    }

    /// The queue says where it is; that must be one of the possible, and is so from now on.
    pub(super) fn seen(&mut self, id: RequestId, stage: Stage) {
        let known = self.known_mut(id);
        let stages = &known.stages;
        assert!(stages.contains(&stage), "{id} is {stage:?}, and can only be {stages:?}");
        match &stage {
            Stage::Ended(end) => {
                if known.past.contains(&Some(end.clone())) {
                    known.end = Some(end.clone());
                }
                let first = known.end.get_or_insert_with(|| end.clone());
                assert_eq!(first, end, "{id} has two ends");
                // It can be forgotten, and the forgetting can be lost.
                let may_go = known.stages.contains(&Stage::Gone);
                known.stages = vec![stage];
                if may_go {
                    known.stages.push(Stage::Gone);
                }
            }
            Stage::Gone => {
                // A forgotten end may come back, as it was; what never was does not begin to be.
                known.stages.retain(|stage| matches!(stage, Stage::Gone | Stage::Ended(_)));
            }
            // It may have come again after an end.
            Stage::Held { .. } => known.begin_again(stage),
        }
    }

    pub(super) fn number_seen(&mut self, id: RequestId, number: u64) {
        let known = self.known_mut(id);
        if !known.past.is_empty() {
            // Of which life it is cannot be told.
            return;
        }
        let first = *known.number.get_or_insert(number);
        assert_eq!(first, number, "the number of {id} changed");
    }
}
