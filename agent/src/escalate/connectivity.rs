//! Owns what a link is called after all that was seen of it: how good it is, and not only whether it is
//! there.
//!
//! Pure: time is an argument. A link changes its name only when what was seen says so more than once:
//!
//! | now | becomes | when |
//! |---|---|---|
//! | any | `offline` | it was found down, and a second look found nobody either |
//! | any | `captive_portal` | a probe was answered by somebody else |
//! | any | `online` | somebody answered, and of the last 8 exchanges fewer than 3 failed or were slow |
//! | `online` | `degraded` | 3 and more of them did |
//! | `degraded` | `online` | at most 1 of them did |
//!
//! Exchanges older than ten minutes are forgotten. Whether a link is metered stands beside that: one
//! that is `online` and metered is called `metered`.
//!
//! **Invariant:** one failure changes no name.

use std::time::{Duration, Instant};

use super::link::LinkState;

/// So many exchanges are looked at.
const LOOKED_AT: usize = 8;
/// So many bad ones of them make a link a degraded one.
const MANY: usize = 3;
/// So many are none that still make it one.
const FEW: usize = 1;
/// An exchange says nothing of a link after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// What a link is called, or all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connectivity {
    /// Nothing was seen of it yet.
    #[default]
    Unknown,
    /// It answers.
    Online,
    /// It answers, and its bytes are paid for.
    Metered,
    /// It answers slowly, or fails in part.
    Degraded,
    /// Somebody else answers in its place.
    CaptivePortal,
    /// Nobody answers.
    Offline,
}

impl Connectivity {
    /// Every one.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Online,
        Self::Metered,
        Self::Degraded,
        Self::CaptivePortal,
        Self::Offline,
    ];

    /// The word in logs, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Online => "online",
            Self::Metered => "metered",
            Self::Degraded => "degraded",
            Self::CaptivePortal => "captive_portal",
            Self::Offline => "offline",
        }
    }

    /// What a link that was called so is called now.
    #[must_use]
    pub fn of_link(self, state: LinkState, quality: Quality, now: Instant) -> Self {
        match state {
            LinkState::Down { is_portal: true, .. } => Self::CaptivePortal,
            LinkState::Down { attempt: 0, .. } | LinkState::Unknown => self,
            LinkState::Down { .. } => Self::Offline,
            LinkState::Up => match (self, quality.bad(now)) {
                (_, MANY..) => Self::Degraded,
                (Self::Degraded, bad) if bad > FEW => Self::Degraded,
                _ => Self::Online,
            },
        }
    }

    /// The same, of a link whose bytes are paid for.
    #[must_use]
    pub fn metered(self, is_metered: bool) -> Self {
        match self {
            Self::Online if is_metered => Self::Metered,
            other => other,
        }
    }

    /// Whether somebody answers.
    pub fn is_reached(self) -> bool {
        match self {
            Self::Online | Self::Metered | Self::Degraded => true,
            Self::Unknown | Self::CaptivePortal | Self::Offline => false,
        }
    }
}

/// How the last exchanges over a link went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quality {
    /// The newest first: when it was, and whether it was bad.
    looks: [Option<(Instant, bool)>; LOOKED_AT],
}

impl Quality {
    /// After one more; a bad one failed, or was slow.
    #[must_use]
    pub fn after(mut self, is_bad: bool, now: Instant) -> Self {
        self.looks.rotate_right(1);
        if let Some(newest) = self.looks.first_mut() {
            *newest = Some((now, is_bad));
        }
        self
    }

    /// Bad ones among the last, as far as they count.
    fn bad(self, now: Instant) -> usize {
        let counts = |(at, is_bad): &&(Instant, bool)| {
            *is_bad && now.saturating_duration_since(*at) < FORGOTTEN_AFTER
        };
        self.looks.iter().flatten().filter(counts).count()
    }
}

/// What the device as a whole is called, and why: `links` are those to its destinations, `controller`
/// whether that one's is up, `has_route` whether there is a way out at all.
pub fn of_device(
    links: &[(String, Connectivity)],
    controller: Option<bool>,
    has_route: bool,
    is_metered: bool,
) -> (Connectivity, String) {
    let of_controller = controller.map(|is_up| {
        let state = if is_up { Connectivity::Online } else { Connectivity::Offline };
        ("controller".to_owned(), state)
    });
    let known: Vec<&(String, Connectivity)> = links
        .iter()
        .chain(&of_controller)
        .filter(|(_, each)| *each != Connectivity::Unknown)
        .collect();
    let named = |wanted: &dyn Fn(Connectivity) -> bool| {
        let names = known.iter().filter(|(_, each)| wanted(*each)).map(|(name, _)| name.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let reached = named(&Connectivity::is_reached);
    let portals = named(&|each| each == Connectivity::CaptivePortal);
    let poor = named(&|each| !matches!(each, Connectivity::Online | Connectivity::Metered));
    let metered = |why: String| match is_metered {
        true => (Connectivity::Metered, format!("{why}, over a metered link")),
        false => (Connectivity::Online, why),
    };
    match (reached.is_empty(), known.is_empty()) {
        (true, true) if !has_route => (Connectivity::Offline, "there is no way out".to_owned()),
        // Nobody was asked anything yet, or nobody is configured.
        (true, true) => metered("there is a way out".to_owned()),
        (true, false) if !portals.is_empty() => {
            (Connectivity::CaptivePortal, format!("somebody else answers in place of {portals}"))
        }
        (true, false) => (Connectivity::Offline, format!("nobody answers: {poor}")),
        (false, _) if !poor.is_empty() => {
            (Connectivity::Degraded, format!("not as it should be: {poor}"))
        }
        (false, _) => metered(format!("{reached} answers")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Connectivity::{CaptivePortal, Degraded, Metered, Offline, Online, Unknown};
    use super::*;

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn down(attempt: u32, is_portal: bool) -> LinkState {
        LinkState::Down { attempt, retry_at: now(), is_portal }
    }

    #[test]
    fn the_table_of_links() {
        let now = now();
        let looks = |text: &str| {
            text.chars().fold(Quality::default(), |quality, c| quality.after(c == '-', now))
        };
        for (case, was, state, quality, want) in [
            ("never seen", Unknown, LinkState::Unknown, "", Unknown),
            ("in doubt", Online, LinkState::Unknown, "-", Online),
            ("the first answer", Unknown, LinkState::Up, "", Online),
            ("one look that found nobody", Online, down(0, false), "", Online),
            ("two", Online, down(1, false), "", Offline),
            ("never there", Unknown, down(1, false), "", Offline),
            ("still not", Offline, down(0, false), "", Offline),
            ("back", Offline, LinkState::Up, "-", Online),
            ("a portal", Online, down(0, true), "", CaptivePortal),
            ("the portal goes, nobody comes", CaptivePortal, down(2, false), "", Offline),
            ("the portal goes", CaptivePortal, LinkState::Up, "", Online),
            ("two bad ones", Online, LinkState::Up, "+-+-++++", Online),
            ("three", Online, LinkState::Up, "+-+-+-++", Degraded),
            ("two are left", Degraded, LinkState::Up, "---+++-+-+++++", Degraded),
            ("one is left", Degraded, LinkState::Up, "--+++++-+++++++", Online),
            ("degraded and then down", Degraded, down(0, false), "---", Degraded),
        ] {
            let quality = looks(quality);
            assert_eq!(was.of_link(state, quality, now), want, "{case}");
        }
    }

    #[test]
    fn what_was_bad_long_ago_is_forgotten() {
        let now = now();
        let quality = [true; 3].iter().fold(Quality::default(), |q, bad| q.after(*bad, now));
        assert_eq!(Online.of_link(LinkState::Up, quality, now), Degraded);
        let later = now + FORGOTTEN_AFTER;
        assert_eq!(Degraded.of_link(LinkState::Up, quality, later), Online);
    }

    #[test]
    fn the_table_of_devices() {
        let links = |states: &[Connectivity]| {
            let named = states.iter().enumerate();
            named.map(|(at, each)| (format!("d{at}"), *each)).collect::<Vec<_>>()
        };
        for (case, states, controller, has_route, is_metered, want) in [
            ("alone, with a way out", &[][..], None, true, false, Online),
            ("alone, metered", &[], None, true, true, Metered),
            ("alone", &[], None, false, false, Offline),
            ("nothing known yet", &[Unknown], None, true, false, Online),
            ("a controller alone", &[], Some(true), true, false, Online),
            ("which is away", &[], Some(false), true, false, Offline),
            ("all answer", &[Online, Online], Some(true), true, false, Online),
            ("over a metered link", &[Metered], Some(true), true, true, Metered),
            ("one does not", &[Online, Offline], None, true, false, Degraded),
            ("one is poor", &[Online, Degraded], None, true, true, Degraded),
            ("the controller does not", &[Online], Some(false), true, false, Degraded),
            ("none does", &[Offline, Offline], Some(false), true, false, Offline),
            ("a portal", &[CaptivePortal, Offline], Some(false), true, false, CaptivePortal),
            ("a portal for some", &[CaptivePortal, Online], None, true, false, Degraded),
        ] {
            let (got, why) = of_device(&links(states), controller, has_route, is_metered);
            assert_eq!(got, want, "{case}: {why}");
            assert!(!why.is_empty(), "{case}");
        }
    }

    proptest! {
        /// A link is seldom good by chance and seldom bad by chance: with less than one bad exchange in
        /// any eight it is never called degraded, and never flutters.
        #[test]
        fn one_failure_in_a_while_changes_nothing(gaps in proptest::collection::vec(8_usize..40, 1..20)) {
            let (now, mut quality, mut state) = (now(), Quality::default(), Online);
            for gap in gaps {
                quality = quality.after(true, now);
                state = state.of_link(LinkState::Up, quality, now);
                prop_assert_eq!(state, Online);
                for _ in 1..gap {
                    quality = quality.after(false, now);
                    state = state.of_link(LinkState::Up, quality, now);
                    prop_assert_eq!(state, Online);
                }
            }
        }
    }
}
