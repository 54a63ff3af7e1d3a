//! Owns the ids of calls on their way to a provider that takes only some: earlier turns may have been
//! another one's.
//!
//! **Invariant:** an id that fits and is the first of its kind stays as it is; what another becomes
//! depends on the ids of the conversation alone, so that the same conversation is always the same.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::conversation::{Conversation, Said, Turn};

/// The letters that every provider takes.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Which ids a provider takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Any.
    Any,
    /// Up to 40 characters: OpenAI says so when there are more.
    Short,
    /// Exactly 9 of letters and digits: Mistral says so when there are others.
    Nine,
    /// Up to 64 of letters, digits, `_` and `-`, none of them twice: Anthropic's, and for Claude's sake
    /// Bedrock's, which documents `.` and `:` too.
    Plain,
}

impl Rule {
    fn takes(self, id: &str) -> bool {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match self {
            Self::Any => true,
            Self::Short => (1..=40).contains(&id.chars().count()),
            Self::Nine => id.len() == 9 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            Self::Plain => (1..=64).contains(&id.len()) && id.bytes().all(is_plain),
        }
    }

    /// Whether it takes an id for calls of several turns.
    fn takes_again(self) -> bool {
        match self {
            Self::Any | Self::Short => true,
            Self::Nine | Self::Plain => false,
        }
    }

    /// What `id` becomes; another one for each `again`.
    fn made(self, id: &str, again: u32) -> String {
        let letters = letters(id, again);
        match self {
            Self::Nine => letters.take(9).collect(),
            Self::Any | Self::Short | Self::Plain => {
                "call_".chars().chain(letters.take(10)).collect()
            }
        }
    }
}

/// Letters that `id` stands for: its FNV-1a hash, written with 62 of them.
fn letters(id: &str, again: u32) -> impl Iterator<Item = char> {
    let bytes = id.bytes().chain(again.to_le_bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    std::iter::from_fn(move || {
        let at = usize::try_from(hash % 62).unwrap_or_default();
        hash /= 62;
        LETTERS.get(at).map(|letter| char::from(*letter))
    })
}

/// The conversation with ids that fit.
pub(crate) fn fitted(rule: Rule, conversation: &Conversation) -> Cow<'_, Conversation> {
    let mut seen = BTreeSet::new();
    let mut calls = conversation.turns.iter().flat_map(calls);
    if calls.all(|id| rule.takes(id) && (seen.insert(id) || rule.takes_again())) {
        return Cow::Borrowed(conversation);
    }
    let mut conversation = conversation.clone();
    rename(rule, &mut conversation.turns);
    Cow::Owned(conversation)
}

fn calls(turn: &Turn) -> impl Iterator<Item = &str> {
    let said = match turn {
        Turn::Model(said) => said.as_slice(),
        Turn::User(_) | Turn::Results(_) => &[],
    };
    said.iter().filter_map(|said| match said {
        Said::Call(call) => Some(call.id.as_str()),
        Said::Text(_) | Said::Reasoning { .. } | Said::Redacted(_) => None,
    })
}

fn rename(rule: Rule, turns: &mut [Turn]) {
    // Those that stay as they are come first, so that none of them is taken by another.
    let mut taken: BTreeSet<String> =
        turns.iter().flat_map(calls).filter(|id| rule.takes(id)).map(str::to_owned).collect();
    let mut kept = BTreeSet::new();
    // Of the calls that wait for their results: what they were called, and are.
    let mut open: Vec<(String, String)> = Vec::new();
    for turn in turns {
        match turn {
            Turn::User(_) => {}
            Turn::Model(said) => {
                for said in said {
                    let Said::Call(call) = said else { continue };
                    let old = call.id.clone();
                    let stays =
                        rule.takes(&old) && (kept.insert(old.clone()) || rule.takes_again());
                    if !stays {
                        let mut ways = (0..).map(|again| rule.made(&old, again));
                        let new = ways.find(|new| !taken.contains(new));
                        call.id = new.unwrap_or_default();
                        taken.insert(call.id.clone());
                    }
                    open.push((old, call.id.clone()));
                }
            }
            Turn::Results(results) => {
                for result in results {
                    let place = open.iter().position(|(old, _)| *old == result.id);
                    if let Some(place) = place {
                        result.id = open.remove(place).1;
                    }
                }
                open.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::conversation::{Part, ToolCall, ToolResult};

    /// A conversation in which calls of these ids are made, turn by turn, and told in reverse order.
    fn calling(turns: &[&[&str]]) -> Conversation {
        let text = |text: &str| text.to_owned();
        let call = |id: &&str| {
            let (name, signature) = (text("f"), None);
            Said::Call(ToolCall { id: text(id), name, arguments: json!({}), signature })
        };
        let result = |id: &&str| ToolResult {
            id: text(id),
            name: text("f"),
            content: String::new(),
            is_error: false,
        };
        let mut all = vec![Turn::User(vec![Part::Text(text("x"))])];
        for ids in turns {
            all.push(Turn::Model(ids.iter().map(call).collect()));
            all.push(Turn::Results(ids.iter().rev().map(result).collect()));
        }
        Conversation { turns: all, ..Conversation::default() }
    }

    /// The ids of the calls, and those of the results turned around again.
    fn ids(conversation: &Conversation) -> (Vec<String>, Vec<String>) {
        let called = conversation.turns.iter().flat_map(calls).map(str::to_owned).collect();
        let told = conversation.turns.iter().flat_map(|turn| match turn {
            Turn::Results(results) => {
                results.iter().rev().map(|result| result.id.clone()).collect()
            }
            Turn::User(_) | Turn::Model(_) => Vec::new(),
        });
        (called, told.collect())
    }

    #[test]
    fn ids_that_fit_stay_and_others_become_ones_that_do() {
        let long = "x".repeat(65);
        for (rule, stay, change) in [
            (Rule::Any, &["", "a:b", "toolu_1", &long][..], &[][..]),
            (Rule::Short, &["a:b", "toolu_1"], &["", &long]),
            (
                Rule::Nine,
                &["abcDEF123"],
                &["", "abcDEF12", "call_1234", "toolu_01A09q90qw90", "é1234567"],
            ),
            (Rule::Plain, &["toolu_1", "call-2"], &["", "functions.f:0", &long, "é"]),
        ] {
            for id in stay.iter().chain(change) {
                let asked = calling(&[&[id]]);
                let got = fitted(rule, &asked);
                let (called, told) = ids(&got);
                assert_eq!(called, told, "{rule:?} {id}");
                assert_eq!(called == [(*id).to_owned()], stay.contains(id), "{rule:?} {id}");
                assert!(rule.takes(&called[0]), "{rule:?} {id}: {called:?}");
                assert_eq!(matches!(got, Cow::Borrowed(_)), stay.contains(id), "{rule:?} {id}");
            }
        }
    }

    #[test]
    fn calls_and_results_keep_together_and_apart_from_others() {
        let nine = Rule::Nine.made("call_1", 0);
        for (rule, turns, is_again) in [
            // Gemini's calls are numbered anew in each answer.
            (Rule::Plain, &[&["c-0", "c-1"][..], &["c-0", "c-1"], &["c-0"]][..], false),
            (Rule::Nine, &[&["call_1", "call_2"], &["call_1"]], false),
            // One that another would become is there already.
            (Rule::Nine, &[&["call_1", &nine], &["call_2"]], false),
            (Rule::Plain, &[&["", ""]], false),
            (Rule::Short, &[&["c-0"], &["c-0", ""]], true),
        ] {
            let asked = calling(turns);
            let got = fitted(rule, &asked);
            let (called, told) = ids(&got);
            assert!(called.iter().all(|id| rule.takes(id)), "{called:?}");
            let apart: BTreeSet<&String> = called.iter().collect();
            assert_eq!(apart.len() < called.len(), is_again, "{called:?}");
            let sorted = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
            assert_eq!(sorted(&called), sorted(&told));
            assert_eq!(*fitted(rule, &asked), *got, "the same again");
            assert_eq!(*fitted(rule, &got), *got, "what fits stays");
            let longer = [turns, &[&["another"]]].concat();
            let longer = calling(&longer);
            let grown = fitted(rule, &longer);
            assert_eq!(grown.turns[..got.turns.len()], got.turns, "later turns change nothing");
        }
    }
}
