//! Owns in which order destinations are asked that may all be asked the same.
//!
//! Pure: what is known of them, and chance, are arguments.
//!
//! | `balance` | comes first |
//! |---|---|
//! | `order` | the first of the configuration |
//! | `weight` | each as often as its weight has it |
//! | `latency` | the one whose first byte came soonest, on average; one in ten times one that was not measured lately |
//! | `price` | the cheapest, by what is asked |
//!
//! By all but `order`, what cannot take it now comes behind what can: it may be able to when the others
//! have failed. By `order` it is asked in its turn, and says no at once.
//!
//! **Invariant:** everyone is in the order once, and nobody else.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

/// Of ten requests so many go to one that was not measured lately.
const EXPLORED: f64 = 0.1;

/// The rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// As configured.
    #[default]
    Order,
    /// By weight.
    Weight,
    /// By the time to the first byte.
    Latency,
    /// By price.
    Price,
}

impl Balance {
    /// Every rule, with its word in the configuration.
    pub const ALL: [(&'static str, Self); 4] = [
        ("order", Self::Order),
        ("weight", Self::Weight),
        ("latency", Self::Latency),
        ("price", Self::Price),
    ];
}

impl FromStr for Balance {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = Self::ALL.into_iter().find(|(word, _)| *word == text);
        found.map(|(_, balance)| balance).ok_or(())
    }
}

/// A rule, with what it goes by, and when a second one is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balancing {
    /// The rule.
    pub balance: Balance,
    /// Weights by the destinations' names; 1 where there is none, and 0 is asked when nobody else can be.
    pub weights: BTreeMap<String, u32>,
    /// When the next one is asked beside one whose first byte has not come.
    pub hedge_after: Option<Duration>,
}

impl Balancing {
    /// The weight of `name`.
    pub fn weight(&self, name: &str) -> u32 {
        self.weights.get(name).copied().unwrap_or(1)
    }
}

/// Whether a destination can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// At once.
    Ready,
    /// When a place or its rate is free.
    InLine,
    /// Not for now: its link, circuit or budget, or what it asked for, is against it.
    Closed,
}

/// A destination, as far as an order needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its weight.
    pub weight: u32,
    /// The time to its first byte, where that is known.
    pub latency: Option<Duration>,
    /// What the request is likely to cost there, in millionths.
    pub price_micros: u64,
    /// Whether it can take the request.
    pub readiness: Readiness,
}

/// The places of `members` in the order in which they are asked. `chance` in `0.0..1.0` decides where the
/// rule leaves it to that.
#[must_use]
pub fn order(balance: Balance, members: &[Member], chance: f64) -> Vec<usize> {
    let mut all = Vec::with_capacity(members.len());
    for readiness in [Readiness::Ready, Readiness::InLine, Readiness::Closed] {
        let own = members.iter().enumerate().filter(|(_, each)| each.readiness == readiness);
        let own: Vec<(usize, &Member)> = own.collect();
        all.extend(match balance {
            Balance::Order => return (0..members.len()).collect(),
            Balance::Weight => by_weight(own, chance),
            Balance::Latency => by_latency(own, chance),
            Balance::Price => sorted(own, |each| each.price_micros),
        });
    }
    all
}

fn sorted<K: Ord>(mut own: Vec<(usize, &Member)>, key: impl Fn(&Member) -> K) -> Vec<usize> {
    own.sort_by_key(|(_, each)| key(each));
    own.into_iter().map(|(index, _)| index).collect()
}

/// Draws one after the other, each with its part of the weight that is left. What is left of the chance
/// within the part that was drawn is as good for the next.
fn by_weight(mut own: Vec<(usize, &Member)>, chance: f64) -> Vec<usize> {
    let (mut drawn, mut chance) = (Vec::with_capacity(own.len()), chance.clamp(0.0, 1.0));
    loop {
        let total: f64 = own.iter().map(|(_, each)| f64::from(each.weight)).sum();
        if total <= 0.0 {
            break;
        }
        let (mut left, mut at) = (chance * total, 0);
        for (place, (_, each)) in own.iter().enumerate().filter(|(_, (_, each))| each.weight > 0) {
            let weight = f64::from(each.weight);
            (at, chance) = (place, (left / weight).clamp(0.0, 1.0));
            if left < weight {
                break;
            }
            left -= weight;
        }
        drawn.push(own.remove(at).0);
    }
    drawn.extend(own.into_iter().map(|(index, _)| index));
    drawn
}

fn by_latency(own: Vec<(usize, &Member)>, chance: f64) -> Vec<usize> {
    let is_explored = chance < EXPLORED;
    sorted(own, |each| match each.latency {
        None => (u8::from(!is_explored) * 2, Duration::ZERO),
        Some(latency) => (1, latency),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(
        weight: u32,
        latency_ms: Option<u64>,
        price_micros: u64,
        readiness: Readiness,
    ) -> Member {
        Member { weight, latency: latency_ms.map(Duration::from_millis), price_micros, readiness }
    }

    #[test]
    fn the_table_of_orders() {
        use Readiness::{Closed, InLine, Ready};
        let plain = [
            member(1, Some(30), 5, Ready),
            member(0, None, 5, Ready),
            member(9, Some(10), 2, Ready),
        ];
        let mixed = [
            member(1, Some(1), 1, Closed),
            member(1, Some(9), 9, InLine),
            member(1, Some(5), 5, Ready),
        ];
        for (case, balance, members, chance, want) in [
            ("as configured", Balance::Order, plain, 0.99, [0, 1, 2]),
            ("in their turn", Balance::Order, mixed, 0.0, [0, 1, 2]),
            ("the first tenth of the weight", Balance::Weight, plain, 0.05, [0, 2, 1]),
            ("the rest of it", Balance::Weight, plain, 0.5, [2, 0, 1]),
            ("all of the chance", Balance::Weight, plain, 1.0, [2, 0, 1]),
            ("open ones before closed ones", Balance::Weight, mixed, 0.0, [2, 1, 0]),
            ("the quickest", Balance::Latency, plain, 0.5, [2, 0, 1]),
            ("one that is not measured", Balance::Latency, plain, 0.05, [1, 2, 0]),
            ("quick and closed", Balance::Latency, mixed, 0.5, [2, 1, 0]),
            ("the cheapest, then as configured", Balance::Price, plain, 0.5, [2, 0, 1]),
            ("cheap and closed", Balance::Price, mixed, 0.5, [2, 1, 0]),
        ] {
            assert_eq!(order(balance, &members, chance), want, "{case}");
        }
        assert!(order(Balance::Weight, &[], 0.5).is_empty());
    }

    #[test]
    fn shares_are_as_the_weights() {
        let members = [6, 3, 0, 1].map(|weight| member(weight, None, 0, Readiness::Ready));
        let (mut first, mut second) = ([0_u32; 4], [0_u32; 4]);
        let draws = 100_000_u32;
        for draw in 0..draws {
            let order = order(Balance::Weight, &members, f64::from(draw) / f64::from(draws));
            first[order[0]] += 1;
            second[order[1]] += u32::from(order[0] == 0);
            assert_eq!(order[3], 2, "nobody is sent to what has no weight while others are left");
        }
        assert_eq!(first.map(|count| (f64::from(count) / 1e4).round()), [6.0, 3.0, 0.0, 1.0]);
        // Where the first fails, the others have it in their parts.
        assert_eq!(second.map(|count| (f64::from(count) / 1.5e4).round()), [0.0, 3.0, 0.0, 1.0]);
    }

    fn members() -> impl Strategy<Value = Vec<Member>> {
        let readiness =
            prop_oneof![Just(Readiness::Ready), Just(Readiness::InLine), Just(Readiness::Closed)];
        let one = (0_u32..5, proptest::option::of(0_u64..9), 0_u64..9, readiness);
        let one = one.prop_map(|(weight, latency, price, readiness)| {
            member(weight, latency, price, readiness)
        });
        proptest::collection::vec(one, 0..9)
    }

    proptest! {
        #[test]
        fn everyone_is_asked_once_and_what_is_closed_last(members in members(), chance in 0.0..=1.0) {
            for (_, balance) in Balance::ALL {
                let order = order(balance, &members, chance);
                let mut sorted = order.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..members.len()).collect::<Vec<_>>());
                if balance == Balance::Order {
                    continue;
                }
                let is_closed = order.iter().map(|index| members[*index].readiness == Readiness::Closed);
                prop_assert!(is_closed.is_sorted(), "{balance:?}: {order:?}");
            }
        }
    }
}
