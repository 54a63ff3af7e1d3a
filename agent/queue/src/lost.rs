//! Naming what is lost.
//!
//! **Invariant:** a request is called lost only when its record does not read where an index had it, and
//! the journal knows nothing else of it.

use std::path::{Path, PathBuf};

use super::{
    QueueError, RequestId,
    begin::path_of,
    disk::Disk,
    index::Index,
    keys::{self, Entry, Mark},
    scan,
};

/// Requests read at once.
const PAGE: usize = 256;

/// Which old index can be believed: one that was closed in good order or written in this boot of the
/// machine. After a power cut it may be of any age, and name what was forgotten long ago.
#[derive(Debug)]
pub(super) struct Trust {
    /// The mark of the last close in good order.
    pub(super) clean: Option<Mark>,
    /// This boot.
    pub(super) boot: String,
}

impl Trust {
    fn is_in(&self, index: &Index) -> Result<bool, QueueError> {
        let Some(mark) = index.get(&keys::MARK.into())? else { return Ok(false) };
        let mark: Mark = keys::decode(&mark)?;
        Ok(self.clean.as_ref() == Some(&mark) || (mark.boot == self.boot && !self.boot.is_empty()))
    }
}

/// The old index among what was set aside.
pub(super) fn index_in<'a>(aside: &'a [PathBuf], index_dir: &Path) -> Option<&'a PathBuf> {
    aside.iter().find(|path| path.with_extension("") == index_dir)
}

/// The requests that an index knows which was set aside at `old`, and that are lost: they are neither in
/// the index that was made of the journal nor where they were, and nobody dropped them. `None`: the old
/// index cannot tell. (Also those that had their end and were forgotten since, if somebody put an older
/// copy in the place of the index.)
pub(super) fn requests(
    old: &Path,
    trust: &Trust,
    made: &Index,
    disk: &dyn Disk,
    journal_dir: &Path,
) -> Result<Option<Vec<RequestId>>, QueueError> {
    let old = Index::open(old)?;
    if !trust.is_in(&old)? {
        return Ok(None);
    }
    let mut lost = Vec::new();
    let (mut from, to) = keys::prefix_bounds(&[keys::ENTRIES]);
    loop {
        let page = old.range(&from, &to, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(Some(lost)) };
        from = [last.as_slice(), &[0]].concat();
        for (key, value) in page {
            let (Some(id), Ok(entry)) = (keys::id_in(&key), keys::decode(&value)) else { continue };
            let is_known = made.get(&keys::entry_key(id))?.is_some()
                || made.get(&keys::tombstone_key(id))?.is_some();
            if !is_known && !is_there(&entry, disk, journal_dir) {
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
