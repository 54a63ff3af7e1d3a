//! The pages that were looked into lately: what is asked for next is often in one of them.
//!
//! **Invariant:** pages do not overlap, and are few.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{
    NO_PAGE, QueueError, pages,
    store::{Page, broken},
};

/// Pages kept at most: those that workers read ahead of the writer, and those that it changes.
const MOST: usize = 64;

/// Pages by their lowest key.
#[derive(Debug, Default)]
pub(super) struct Near(BTreeMap<Vec<u8>, Arc<NearPage>>);

/// A page, and where its pairs begin.
#[derive(Debug)]
pub(super) struct NearPage {
    page: Page,
    starts: Vec<usize>,
}

impl Near {
    /// The page that `key` is in, if it is here.
    pub(super) fn page_of(&self, key: &[u8]) -> Option<Arc<NearPage>> {
        let to_key = (Bound::Unbounded, Bound::Included(key));
        let (_, near) = self.0.range::<[u8], _>(to_key).next_back()?;
        near.page.is_of(key).then(|| Arc::clone(near))
    }

    /// Keeps a page; when there are too many, the others go.
    pub(super) fn keep(&mut self, near: &Arc<NearPage>) {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        self.0.insert(near.page.low.clone(), Arc::clone(near));
    }

    /// Keeps none any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl NearPage {
    /// A page that was read.
    pub(super) fn new(page: Page) -> Result<Self, QueueError> {
        let starts = pages::starts(&page.bytes).ok_or_else(|| broken(NO_PAGE))?;
        Ok(NearPage { page, starts })
    }

    /// The next page's lowest key.
    pub(super) fn end(&self) -> Option<&[u8]> {
        self.page.end.as_deref()
    }

    /// Its pairs, from the first at or behind `key` on.
    pub(super) fn pairs_from(&self, key: &[u8]) -> impl Iterator<Item = pages::Pair<'_>> {
        let pair_at = |start: &usize| pages::pair_at(&self.page.bytes, *start);
        let is_before = |start: &usize| pair_at(start).is_some_and(|(before, _)| before < key);
        let first = self.starts.partition_point(is_before);
        self.starts.get(first..).unwrap_or_default().iter().filter_map(pair_at)
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let (found, value) = self.pairs_from(key).next()?;
        (found == key).then_some(value)
    }
}
