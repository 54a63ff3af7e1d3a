//! Owns the reading of `[network]`.
//!
//! **Invariant:** a budget that would never count is a fault, and so is a name that nobody has.

use super::reader::Section;
use crate::network::{Metered, NetworkConfig, Plan};

/// MiB in a day or a month at most.
const MOST_MIB: u64 = 1_048_576;

/// Reads it; `names` are those of all that could be reached over no metered link.
pub(super) fn read(mut section: Section<'_>, names: &[String]) -> NetworkConfig {
    let usual = Plan::default();
    let kind = section.text("metered").unwrap_or_else(|| "never".to_owned());
    let patterns = section.texts("metered_interfaces");
    let metered = match (kind.as_str(), patterns) {
        ("never", None) => Metered::Never,
        ("always", None) => Metered::Always,
        ("interfaces", Some(patterns)) if !patterns.is_empty() => Metered::Interfaces(patterns),
        ("interfaces", _) => {
            let what = "is missing or empty, must name interfaces, such as [\"wwan*\", \"ppp*\"]";
            section.fault("metered_interfaces", what);
            Metered::Never
        }
        ("never" | "always", Some(_)) => {
            let what =
                format!("is given beside metered = \"{kind}\", must be \"interfaces\" there");
            section.fault("metered_interfaces", what);
            Metered::Never
        }
        _ => {
            let what = format!("is \"{kind}\", must be one of never, always, interfaces");
            section.fault("metered", what);
            Metered::Never
        }
    };
    let bytes = |mib: u64| mib << 20;
    let plan = Plan {
        per_day: section.optional_integer("budget_per_day_mib", 1..=MOST_MIB).map(bytes),
        per_month: section.optional_integer("budget_per_month_mib", 1..=MOST_MIB).map(bytes),
        month_begins_on: small(section.integer(
            "month_begins_on_day",
            1..=28,
            usual.month_begins_on.into(),
        )),
        reserve_percent: small(section.integer(
            "reserve_percent",
            0..=90,
            usual.reserve_percent.into(),
        )),
    };
    if kind == "never" && plan.has_budget() {
        let what = "is \"never\", and a budget counts only while the link is metered";
        section.fault("metered", what);
    }
    let unmetered = section.texts("unmetered").unwrap_or_default();
    for name in unmetered.iter().filter(|name| !names.contains(name)) {
        let known = names.join(", ");
        section.fault("unmetered", format!("has \"{name}\", must be among: {known}"));
    }
    section.finish();
    NetworkConfig { metered, plan, unmetered }
}

fn small(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}
