//! Owns the reading of `[policy]`.
//!
//! **Invariant:** no class is let farther than its ceiling.

use super::reader::Section;
use crate::destination::Zone;
use crate::policy::{Policy, ceiling};
use crate::request::DataClass;

pub(super) fn read(mut section: Section<'_>) -> Policy {
    let mut policy = Policy::default();
    let classes = "one of public, internal, confidential, restricted";
    if let Some(class) = section.parsed("default_class", classes, |text| text.parse().ok()) {
        policy.default_class = class;
    }
    let mut farthest = section.section("farthest_zone");
    for class in DataClass::ALL {
        let zones = "one of device, site, private, public";
        let zone: Option<Zone> = farthest.parsed(class.as_str(), zones, |text| text.parse().ok());
        if let Some(zone) = zone
            && policy.tighten(class, zone).is_err()
        {
            let ceiling = ceiling(class);
            farthest.fault(
                class.as_str(),
                format!(
                    "is \"{zone}\", must be \"{ceiling}\" or nearer: a policy can only be tightened"
                ),
            );
        }
    }
    farthest.finish();
    section.finish();
    policy
}
