//! Reading segments: what records are there, and what is damaged.
//!
//! **Invariant:** bytes on disk are hostile: whatever they are, a scan ends, holds no more than one
//! meta and one window in memory, and passes on only records whose every byte matches its checksum.

use std::{fmt, io, path::Path};

use bytes::Bytes;

use super::{
    QueueError, RequestId,
    disk::{DiskFile, is_unreadable},
    journal::{
        ALIGN, HEADER, Meta, Place, RecordHeader, SEGMENT_HEADER, SEGMENT_HEADER_LEN, SegmentHeader,
    },
};

const WINDOW: usize = 1024 * 1024;
/// What a disk reads or fails to read at once.
const SECTOR: usize = 4096;
/// The least that a disk reads or fails to read.
const SMALL_SECTOR: usize = 512;
/// So many bytes are asked for without a look at the file's length.
const TRUSTED: u64 = 256 * 1024;
/// Stands for a byte that does not read.
const UNREADABLE: u8 = 0xff;

/// Bytes that are no record and not zero, or a record that does not match its checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Segment number.
    pub segment: u64,
    /// Offset of the first bad byte, rounded down to 64.
    pub offset: u64,
    /// How many bytes were skipped.
    pub bytes: u64,
    /// Whose record it is, where its header can still be read.
    pub id: Option<RequestId>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, bytes, id } = self;
        write!(f, "segment {segment}, offset {offset}: {bytes} bytes are no whole record")?;
        match id {
            Some(id) => write!(f, ", they are of request {id}"),
            None => f.write_str(", a write that was cut off or damage"),
        }
    }
}

/// A record that a scan came by.
#[derive(Debug)]
pub(super) struct Found {
    /// Whose it is.
    pub(super) id: RequestId,
    /// Its meta.
    pub(super) meta: Meta,
    /// Where it lies.
    pub(super) place: Place,
    /// Its number.
    pub(super) sequence: u64,
    /// The CRC in its header.
    pub(super) header_crc: u32,
}

/// Where a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Behind the last good record.
    pub(super) end: u64,
    /// Behind the last byte that is not zero.
    pub(super) dirty_end: u64,
}

/// A window over a file.
struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        let len = file.bytes()?;
        Ok(Window { file, len, start: 0, bytes: Vec::new() })
    }

    /// Up to `len` bytes at `at`, fewer only at the file's end; `len` is at most a window.
    fn at(&mut self, at: u64, len: usize) -> io::Result<&[u8]> {
        let held = at >= self.start
            && at.saturating_add(len as u64) <= self.start + self.bytes.len() as u64;
        if !held {
            let left = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
            self.bytes.resize(left.min(WINDOW.max(len)), 0);
            read_what_reads(self.file, &mut self.bytes, at)?;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.bytes.len());
        Ok(self.bytes.get(from..to).unwrap_or_default())
    }

    /// CRC32C of a range of the file.
    fn crc(&mut self, from: u64, len: u64) -> io::Result<u32> {
        let mut crc = 0;
        let mut at = from;
        let to = from.saturating_add(len);
        while at < to {
            let want = usize::try_from(to - at).unwrap_or(WINDOW).min(WINDOW);
            let bytes = self.at(at, want)?;
            if bytes.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, bytes);
            at += bytes.len() as u64;
        }
        Ok(crc)
    }
}

/// Fills `bytes` from `at` on. Sectors that the disk does not give are filled with what is no record,
/// so that they cost what is in them and nothing else.
pub(super) fn read_what_reads(file: &dyn DiskFile, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let Err(failed) = file.read_exact_at(bytes, at) else { return Ok(()) };
    if !is_unreadable(&failed) {
        return Err(failed);
    }
    let mut at = at;
    for sector in bytes.chunks_mut(SECTOR) {
        if file.read_exact_at(sector, at).is_err() {
            sector.fill(UNREADABLE);
        }
        at += sector.len() as u64;
    }
    Ok(())
}

/// Reads a segment's header. `None`: there are other bytes in its place.
///
/// # Errors
/// When the disk gives neither of its copies: that may pass, and what is in the segment is no worse
/// for it.
pub(super) fn read_header(file: &dyn DiskFile) -> io::Result<Option<SegmentHeader>> {
    let mut block = vec![0; SEGMENT_HEADER_LEN];
    let failed = match file.read_exact_at(&mut block, 0) {
        Ok(()) => return Ok(SegmentHeader::decode(&block)),
        Err(error) if is_unreadable(&error) => error,
        Err(error) => return short(error).map(|()| None),
    };
    // One copy may lie in a sector that reads.
    let sectors = block.chunks_mut(SMALL_SECTOR).zip((0..).step_by(SMALL_SECTOR));
    for (sector, at) in sectors {
        if file.read_exact_at(sector, at).is_err() {
            sector.fill(UNREADABLE);
        }
    }
    SegmentHeader::decode(&block).map(Some).ok_or(failed)
}

/// Passes every good record of a segment from `from` on to `found`, in order, and everything that is
/// neither a good record nor zeros to `damaged`.
pub(super) fn scan(
    path: &Path,
    file: &dyn DiskFile,
    header: &SegmentHeader,
    from: u64,
    mut found: impl FnMut(Found) -> Result<(), QueueError>,
    mut damaged: impl FnMut(Damage),
) -> Result<End, QueueError> {
    let unreadable = |source| QueueError::storage("read", path, source);
    let mut window = Window::new(file).map_err(unreadable)?;
    let len = window.len;
    let mut at = from.max(SEGMENT_HEADER).next_multiple_of(ALIGN);
    let mut end = End { end: at, dirty_end: at };
    let mut bad: Option<Damage> = None;
    let damage = |offset, bytes, id| Damage { segment: header.number, offset, bytes, id };
    while at < len {
        let bytes = window.at(at, HEADER).map_err(unreadable)?;
        if bytes.iter().all(|byte| *byte == 0) {
            at += ALIGN;
            continue;
        }
        let crc = bytes.get(60..64).and_then(|crc| crc.try_into().ok()).map(u32::from_le_bytes);
        let Some(record) = RecordHeader::decode(bytes, header.tag) else {
            let region = bad.get_or_insert(damage(at, 0, None));
            at += ALIGN;
            region.bytes = at - region.offset;
            end.dirty_end = at.min(len);
            continue;
        };
        bad.take().into_iter().for_each(&mut damaged);
        let place = place(header.number, at, &record);
        let meta = read_record(&mut window, &record, place).map_err(unreadable)?;
        let next = at.saturating_add(record.span());
        match meta {
            Some(meta) => {
                let header_crc = crc.unwrap_or_default();
                let (id, sequence) = (record.id, record.sequence);
                found(Found { id, meta, place, sequence, header_crc })?;
                end.end = next;
                at = next;
            }
            // What its length says is its own, unless the file is too short for that.
            None if next <= len.next_multiple_of(ALIGN) => {
                damaged(damage(at, record.span(), Some(record.id)));
                at = next;
            }
            None => {
                at += ALIGN;
                bad = Some(damage(at - ALIGN, ALIGN, Some(record.id)));
            }
        }
        end.dirty_end = at.min(len);
    }
    bad.take().into_iter().for_each(&mut damaged);
    Ok(end)
}

fn place(segment: u64, offset: u64, record: &RecordHeader) -> Place {
    Place {
        segment,
        offset,
        meta_len: record.meta_len,
        body_len: record.body_len,
        meta_crc: record.meta_crc,
        body_crc: record.body_crc,
    }
}

fn read_record(
    window: &mut Window<'_>,
    record: &RecordHeader,
    place: Place,
) -> io::Result<Option<Meta>> {
    let meta_at = place.offset + ALIGN;
    let body_at = meta_at + u64::from(place.meta_len);
    if body_at.saturating_add(place.body_len) > window.len {
        return Ok(None);
    }
    let meta_len = usize::try_from(place.meta_len).unwrap_or(usize::MAX);
    let bytes = window.at(meta_at, meta_len)?;
    if crc32c::crc32c(bytes) != place.meta_crc {
        return Ok(None);
    }
    let meta = Meta::decode(record, bytes);
    if meta.is_none() || window.crc(body_at, place.body_len)? != place.body_crc {
        return Ok(None);
    }
    Ok(meta)
}

/// Reads a record's meta, by its place. `None`: its bytes do not match.
pub(super) fn read_meta(file: &dyn DiskFile, place: &Place) -> io::Result<Option<Meta>> {
    let len = ALIGN + u64::from(place.meta_len);
    let Some(bytes) = read_range(file, place.offset, len)? else { return Ok(None) };
    let Some((header, meta)) = bytes.split_at_checked(HEADER) else { return Ok(None) };
    let tag = header.get(..8).and_then(|tag| tag.try_into().ok()).unwrap_or_default();
    let Some(record) = RecordHeader::decode(header, tag) else { return Ok(None) };
    if crc32c::crc32c(meta) != place.meta_crc {
        return Ok(None);
    }
    Ok(Meta::decode(&record, meta))
}

/// Reads a record's meta and body at once, by its place. `None`: its bytes do not match.
pub(super) fn read_whole(
    file: &dyn DiskFile,
    place: &Place,
) -> io::Result<Option<(Meta, Option<Bytes>)>> {
    let Some(bytes) = read_range(file, place.offset, place.span())? else { return Ok(None) };
    let bytes = Bytes::from(bytes);
    Ok(whole_in(&bytes, place).map(|(meta, body)| (meta, Some(bytes.slice_ref(body)))))
}

/// A record's meta and body in the bytes at its place. `None`: they do not match.
pub(super) fn whole_in<'a>(bytes: &'a [u8], place: &Place) -> Option<(Meta, &'a [u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (meta, rest) = rest.split_at_checked(usize::try_from(place.meta_len).ok()?)?;
    let body = rest.get(..usize::try_from(place.body_len).ok()?)?;
    let tag = header.get(..8)?.try_into().ok()?;
    let record = RecordHeader::decode(header, tag)?;
    if crc32c::crc32c(meta) != place.meta_crc || crc32c::crc32c(body) != place.body_crc {
        return None;
    }
    Meta::decode(&record, meta).map(|meta| (meta, body))
}

/// Reads a record's body, by its place. `None`: its bytes do not match.
pub(super) fn read_body(file: &dyn DiskFile, place: &Place) -> io::Result<Option<Vec<u8>>> {
    let at = place.offset + ALIGN + u64::from(place.meta_len);
    let bytes = read_range(file, at, place.body_len)?;
    Ok(bytes.filter(|bytes| crc32c::crc32c(bytes) == place.body_crc))
}

/// Bytes of a file; `None` when it is too short for them, which is seen before much memory is asked for.
fn read_range(file: &dyn DiskFile, at: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
    if len > TRUSTED && at.saturating_add(len) > file.bytes()? {
        return Ok(None);
    }
    let Ok(len) = usize::try_from(len) else { return Ok(None) };
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, at) {
        Err(error) => short(error).map(|()| None),
        Ok(()) => Ok(Some(bytes)),
    }
}

/// A file that is too short is damage; anything else is an error.
fn short(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::{ops::Range, sync::Arc};

    use bytes::Bytes;

    use super::*;
    use crate::{
        NewEntry, Queue, QueueConfig,
        disk::{Disk, RealDisk},
    };

    /// A file of which some sectors do not read.
    #[derive(Debug)]
    struct Failing {
        file: Arc<dyn DiskFile>,
        bad: Range<u64>,
    }

    impl DiskFile for Failing {
        fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
            if at < self.bad.end && at + bytes.len() as u64 > self.bad.start {
                return Err(rustix::io::Errno::IO.into());
            }
            self.file.read_exact_at(bytes, at)
        }

        fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!("a scan writes nothing")
        }

        fn sync_data(&self) -> io::Result<()> {
            unreachable!("a scan writes nothing")
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!("a scan writes nothing")
        }

        fn bytes(&self) -> io::Result<u64> {
            self.file.bytes()
        }
    }

    #[tokio::test]
    async fn sectors_that_do_not_read_cost_what_is_in_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = QueueConfig { headroom_bytes: 0, headroom_inodes: 0, ..Default::default() };
        let (queue, _) = Queue::open(dir.path(), config).unwrap();
        let mut ids = Vec::new();
        for _ in 0..5 {
            let id = RequestId::new();
            let (envelope, body) = (Bytes::new(), Bytes::from(vec![7; 20_000]));
            let (idempotency, expires_at_ms) = (None, None);
            let new = NewEntry {
                id,
                idempotency,
                priority: 5,
                accepted_at_ms: 1,
                not_before_ms: 0,
                expires_at_ms,
                envelope,
                body,
            };
            queue.accept(new).await.unwrap();
            ids.push(id);
        }
        queue.close().await.unwrap();
        let path = dir.path().join("journal/0000000000000001.seg");
        let file = RealDisk.open_to_read(&path).unwrap();
        let header = read_header(&*file).unwrap().unwrap();
        // One copy of the header is enough; without both, nothing is said of what is there.
        let bad = Failing { file: Arc::clone(&file), bad: 0..512 };
        assert_eq!(read_header(&bad).unwrap(), Some(header));
        let bad = Failing { file: Arc::clone(&file), bad: 0..4096 };
        assert!(is_unreadable(&read_header(&bad).unwrap_err()));
        let scanned = |file: &dyn DiskFile| {
            let (mut found, mut damaged) = (Vec::new(), Vec::new());
            let note = |record: Found| {
                found.push((record.id, record.place.offset));
                Ok(())
            };
            scan(&path, file, &header, 0, note, |damage| damaged.push(damage.id)).unwrap();
            (found, damaged)
        };
        let (all, none) = scanned(&*file);
        assert_eq!((all.len(), none.len()), (5, 0));
        // Inside a body: its own record; over a header: all of the record as far as it is looked for.
        let second = all[1].1.next_multiple_of(4096);
        let bad = Failing { file: Arc::clone(&file), bad: second + 4096..second + 8192 };
        let (found, damaged) = scanned(&bad);
        let left: Vec<_> = found.iter().map(|(id, _)| *id).collect();
        assert_eq!(left, [ids[0], ids[2], ids[3], ids[4]]);
        assert_eq!(damaged, [Some(ids[1])]);
        let bad = Failing { file, bad: all[3].1 / 4096 * 4096..all[3].1 + 64 };
        let (found, damaged) = scanned(&bad);
        assert!(!damaged.is_empty());
        assert_eq!(found.last().unwrap().0, ids[4]);
    }
}
