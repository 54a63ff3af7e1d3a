//! What the operator pinned and does not get.
//!
//! **Invariant:** a pin that is not met is told with what runs instead, as long as it is so.

use super::catalog::{Catalog, Entry};
use crate::tune::candidates::Pins;

/// Bundles without the pinned variant, as a sentence each.
pub(super) fn unmet_variants<'a>(
    pins: &'a Pins,
    catalog: &'a Catalog,
) -> impl Iterator<Item = String> + 'a {
    let wanted = pins.variant.as_deref().into_iter();
    wanted.flat_map(|wanted| {
        let bundles = catalog.entries().iter().map(|entry| &entry.bundle);
        let lacking = bundles.filter(move |bundle| bundle.variant(Some(wanted)).is_none());
        lacking.map(move |bundle| {
            let have: Vec<&str> = bundle.variants().iter().map(|v| v.name()).collect();
            let (name, version, have) = (bundle.name(), bundle.version(), have.join(", "));
            format!(
                "models.variant = \"{wanted}\": {name}@{version} has no such variant and runs as if \
                 none were pinned; it has {have}: correct models.variant, or remove it"
            )
        })
    })
}

/// Bundles that run on another runtime than the pinned one, as a sentence each; `why` is what is known
/// of that.
pub(super) fn unmet_runtime<'a>(
    pins: &'a Pins,
    catalog: &'a Catalog,
    why: Option<&'a str>,
) -> impl Iterator<Item = String> + 'a {
    let why = why.unwrap_or("it was not tried yet, or does not run there: see `models bench`");
    let wanted = pins.runtime.as_deref().into_iter();
    wanted.flat_map(move |wanted| {
        let lanes = catalog.entries().iter().filter_map(Entry::lane);
        let others = lanes.filter(move |lane| lane.choice().runtime != wanted);
        others.map(move |lane| {
            let (name, version, runs) = (lane.name(), lane.version(), &lane.choice().runtime);
            format!(
                "models.runtime = \"{wanted}\": {name}@{version} runs on {runs} meanwhile: {why}"
            )
        })
    })
}
