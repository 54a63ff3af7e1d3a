//! Reading the requests that wait: those that lie one behind the other are read at once.
//!
//! **Invariant:** what was read with others is checked as what is read alone; where it is not right it is
//! read alone, so that one that is damaged, or that the disk does not give, costs the others nothing.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    QueueError, RequestId,
    begin::path_of,
    disk::{Disk, DiskFile},
    journal::{Meta, Place},
    scan,
    shared::Shared,
};

/// Bodies up to this size are read together with what stands before them.
const SMALL: u64 = 64 * 1024;
/// Bytes read at once, at most, where they are of several requests.
const TOGETHER: u64 = 64 * 1024;

/// What was read last: the next request is mostly in the same segment, and near.
#[derive(Debug, Default)]
pub(super) struct Reader {
    segment: Option<(u64, Arc<dyn DiskFile>)>,
    /// Of that segment, from `from` on.
    bytes: Vec<u8>,
    from: u64,
    /// The disk did not give what was asked for together; it may take its time to say so.
    is_careful: bool,
}

impl Reader {
    fn file(
        &mut self,
        disk: &dyn Disk,
        journal_dir: &Path,
        number: u64,
    ) -> Result<Arc<dyn DiskFile>, QueueError> {
        if let Some((_, file)) = self.segment.as_ref().filter(|(open, _)| *open == number) {
            return Ok(Arc::clone(file));
        }
        let file = disk.file_to_read(&path_of(journal_dir, number))?;
        self.bytes.clear();
        self.segment = Some((number, Arc::clone(&file)));
        Ok(file)
    }

    /// The bytes of a record, as far as they were read.
    fn known(&self, place: &Place) -> Option<&[u8]> {
        let at = usize::try_from(place.offset.checked_sub(self.from)?).ok()?;
        let len = usize::try_from(place.span()).ok()?;
        self.bytes.get(at..at.checked_add(len)?)
    }

    /// A record that was read with others, or is now, with those of `next` that follow it.
    fn read_with(
        &mut self,
        file: &dyn DiskFile,
        place: &Place,
        next: &[Place],
    ) -> Option<(Meta, Bytes)> {
        if self.known(place).is_none() {
            self.read_on(file, place, next);
        }
        let (meta, body) = scan::whole_in(self.known(place)?, place)?;
        Some((meta, Bytes::copy_from_slice(body)))
    }

    fn read_on(&mut self, file: &dyn DiskFile, place: &Place, next: &[Place]) {
        let ahead = end_of_run(place, next) - place.offset;
        self.bytes.clear();
        if ahead > place.span() && !self.is_careful {
            self.from = place.offset;
            self.bytes.resize(usize::try_from(ahead).unwrap_or(0), 0);
            self.is_careful = file.read_exact_at(&mut self.bytes, self.from).is_err();
            if self.is_careful {
                self.bytes.clear();
            }
        }
    }
}

/// Where the records end that lie one behind the other and may be read at once.
fn end_of_run(place: &Place, next: &[Place]) -> u64 {
    let mut end = place.offset.saturating_add(place.span());
    for next in next {
        let is_behind = next.segment == place.segment && next.offset == end;
        if !is_behind || next.body_len > SMALL {
            break;
        }
        let after = end.saturating_add(next.span());
        if after - place.offset > TOGETHER {
            break;
        }
        end = after;
    }
    end
}

impl Shared {
    /// The envelope of a request that waits, and its body if it is small, read by its entry; those of
    /// `next` are asked for after it.
    pub(super) fn read_waiting(
        &self,
        reader: &mut Reader,
        id: RequestId,
        place: &Place,
        next: &[Place],
    ) -> Result<(Bytes, Option<Bytes>), QueueError> {
        let file = reader.file(&*self.disk, &self.journal_dir, place.segment)?;
        let read = match place.body_len <= SMALL {
            true => match reader.read_with(&*file, place, next) {
                Some((meta, body)) => Ok(Some((meta, Some(body)))),
                None => scan::read_whole(&*file, place),
            },
            false => scan::read_meta(&*file, place).map(|meta| meta.map(|meta| (meta, None))),
        };
        let path = || path_of(&self.journal_dir, place.segment);
        match read.map_err(|source| QueueError::storage("read", &path(), source))? {
            Some((Meta::Accept(meta), body)) => Ok((meta.envelope, body)),
            _ => Err(self.damaged(id, place)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_together_is_read_together() {
        let place = |segment, offset, body_len| {
            let (meta_crc, body_crc) = (0, 0);
            Place { segment, offset, meta_len: 64, body_len, meta_crc, body_crc }
        };
        let first = place(1, 4096, 1024);
        let after = first.offset + first.span();
        for (next, want) in [
            (vec![], after),
            (vec![place(1, after, 1024)], after + first.span()),
            (vec![place(2, after, 1024)], after),
            (vec![place(1, after + 64, 1024)], after),
            (vec![place(1, 0, 1024)], after),
            (vec![place(1, after, TOGETHER)], after),
            (vec![place(1, after, u64::MAX)], after),
            (vec![place(1, after, 64), place(1, after + 192, 64)], after + 2 * 192),
        ] {
            assert_eq!(end_of_run(&first, &next), want, "{next:?}");
        }
    }
}
