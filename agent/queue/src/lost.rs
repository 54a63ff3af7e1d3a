//! Naming what is lost.
//!
//! **Invariant:** a request is called lost only when its record does not read where an index had it, and
//! the journal knows nothing else of it.

use std::path::Path;

use super::{
    QueueError, RequestId,
    begin::path_of,
    disk::Disk,
    index::Index,
    keys::{self, Entry},
    scan,
};

/// Requests read at once.
const PAGE: usize = 256;

/// The requests that an index knows which was set aside at `old`, and that are lost: they are neither in
/// the index that was made of the journal nor where they were. (Also those that had their end and were
/// forgotten since, if somebody put an older copy in the place of the index.)
pub(super) fn requests(
    old: &Path,
    made: &Index,
    disk: &dyn Disk,
    journal_dir: &Path,
) -> Result<Vec<RequestId>, QueueError> {
    let old = Index::open(old)?;
    let mut lost = Vec::new();
    let (mut from, to) = keys::prefix_bounds(&[keys::ENTRIES]);
    loop {
        let page = old.range(&from, &to, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(lost) };
        from = [last.as_slice(), &[0]].concat();
        for (key, value) in page {
            let Some(id) = keys::id_in(&key) else { continue };
            if made.get(&key)?.is_none() && !is_there(&keys::decode(&value)?, disk, journal_dir) {
                lost.push(id);
            }
        }
    }
}

fn is_there(entry: &Entry, disk: &dyn Disk, journal_dir: &Path) -> bool {
    let Ok(file) = disk.open_to_read(&path_of(journal_dir, entry.place.segment)) else {
        return false;
    };
    let meta = scan::read_meta(&*file, &entry.place);
    let body = scan::read_body(&*file, &entry.place);
    meta.is_ok_and(|meta| meta.is_some()) && body.is_ok_and(|body| body.is_some())
}
