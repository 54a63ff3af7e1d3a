//! Writing the journal: the active segment, its buffer, its sync, and what comes after it.
//!
//! **Invariant:** after a failed write or sync nothing is appended until the segment was cut back to
//! its last synced record ([`Journal::repair`]), so that what was refused cannot come back later and
//! contradict what was acknowledged since.

use std::{path::PathBuf, sync::Arc};

use super::{
    QueueError, RequestId,
    begin::{Ahead, Begun, Prepared, Purpose, Setup, file_name},
    disk::{self, DiskFile},
    journal::{Kind, Place, RecordHeader, SEGMENT_HEADER, SegmentHeader, VERSION, span},
    meter::{Meter, count},
    replay::Tail,
};

/// Bytes behind the end that are made ready (written once) together, so that later syncs need not
/// touch the file system's own journal.
const AHEAD: u64 = 1024 * 1024;
/// So many bytes of one commit are large: measured on ext4, where as much is written in the time of
/// what a sync has to note of blocks that were never written.
const LARGE: u64 = 96 * 1024;
/// Bodies from this size on are written straight from where they are.
const DIRECT: usize = 64 * 1024;
/// The buffer is written out beyond this size.
const BUFFER: usize = 1024 * 1024;
/// A record's place in the order of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Segment.
    pub(super) segment: u64,
    /// Behind the last record.
    pub(super) end: u64,
    /// Sequence of the next record.
    pub(super) next_sequence: u64,
    /// Offset and header CRC of the last record in the segment.
    pub(super) last: Option<(u64, u32)>,
}

#[derive(Debug)]
struct Active {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    tag: [u8; 8],
    capacity: u64,
    /// Behind the last record, written or in the buffer.
    end: u64,
    last: Option<(u64, u32)>,
    /// Where the buffer's bytes go.
    buffer_at: u64,
    buffer: Vec<u8>,
    /// As of the last sync.
    synced: (u64, Option<(u64, u32)>),
    /// Up to here the blocks have been written before.
    ready_to: u64,
}

/// The journal, as its one writer has it.
#[derive(Debug)]
pub(super) struct Journal {
    setup: Setup,
    prepared: Prepared,
    active: Active,
    next_sequence: u64,
}

impl Journal {
    /// Goes on in the last segment, behind its last record; anything further on is zeroed.
    ///
    /// What was read may be in the page cache only, of a process that was killed before its sync; and
    /// where that sync failed, the kernel takes it for written and a new one would do nothing. So it is
    /// written again: what is served from now on is on the disk.
    pub(super) fn resume(
        setup: Setup,
        header: SegmentHeader,
        tail: &Tail,
    ) -> Result<Self, QueueError> {
        let path = setup.dir.join(file_name(header.number));
        let file = setup.disk.open_file(&path)?;
        let storage = |what, source| QueueError::storage(what, &path, source);
        let Tail { read_from, end, next_sequence, last, .. } = *tail;
        let bytes = file.bytes().map_err(|source| storage("measure", source))?;
        // A cut may have taken no more than the zeros that fill up the last record.
        disk::zero_range(&*file, bytes, end.end)
            .map_err(|source| storage("fill up the end of", source))?;
        disk::write_again(&*file, read_from, end.end)
            .map_err(|source| storage("write again", source))?;
        count(&setup.meter.written, end.end.saturating_sub(read_from));
        if end.dirty_end > end.end {
            disk::zero_range(&*file, end.end, end.dirty_end)
                .map_err(|source| storage("clear the torn end of", source))?;
        }
        let capacity = file.bytes().map_err(|source| storage("measure", source))?;
        // What a failed sync did not cut off must not come back.
        disk::cut_to(&*file, capacity)
            .and_then(|()| file.sync_data())
            .map_err(|source| storage("sync", source))?;
        setup.disk.sync_entries(&setup.dir)?;
        let active = Active {
            number: header.number,
            path,
            file,
            tag: header.tag,
            capacity,
            end: end.end,
            last,
            buffer_at: end.end,
            buffer: Vec::new(),
            synced: (end.end, last),
            ready_to: end.end,
        };
        let mut prepared = Prepared::default();
        prepared.keep_reserve(&setup);
        Ok(Journal { setup, prepared, active, next_sequence })
    }

    /// Begins segment `number`.
    pub(super) fn begin(setup: Setup, number: u64, next_sequence: u64) -> Result<Self, QueueError> {
        let mut prepared = Prepared::default();
        prepared.keep_reserve(&setup);
        let begun = prepared.begin(&setup, number, 0, Purpose::Progress)?;
        let active = Active::begun(number, begun);
        Ok(Journal { setup, prepared, active, next_sequence })
    }

    /// The sequence that the next record gets.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The active segment's number.
    pub(super) fn active(&self) -> u64 {
        self.active.number
    }

    /// How far the journal is synced.
    pub(super) fn position(&self) -> Position {
        let (end, last) = self.active.synced;
        Position { segment: self.active.number, end, next_sequence: self.next_sequence, last }
    }

    /// Whether records wait for a sync.
    pub(super) fn is_dirty(&self) -> bool {
        self.active.end != self.active.synced.0
    }

    /// Whether a record of so many bytes has room in the active segment.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.active.end.saturating_add(bytes) <= self.active.capacity
    }

    /// Appends a record, for which there must be room. It is durable after [`Journal::commit`].
    pub(super) fn append(
        &mut self,
        id: RequestId,
        kind: Kind,
        meta: &[u8],
        body: &[u8],
        body_crc: u32,
    ) -> Result<Place, QueueError> {
        let meta_len = u32::try_from(meta.len()).unwrap_or(u32::MAX);
        let body_len = body.len() as u64;
        let active = &mut self.active;
        let place = Place {
            segment: active.number,
            offset: active.end,
            meta_len,
            body_len,
            meta_crc: crc32c::crc32c(meta),
            body_crc,
        };
        let header = RecordHeader {
            version: VERSION,
            kind,
            meta_len,
            body_len,
            sequence: self.next_sequence,
            meta_crc: place.meta_crc,
            body_crc,
            id,
        }
        .encode(active.tag);
        active.buffer.extend_from_slice(&header);
        active.buffer.extend_from_slice(meta);
        if body.len() < DIRECT {
            active.buffer.extend_from_slice(body);
        } else {
            active.write_out(&self.setup.meter)?;
            active.write_at_end(body, &self.setup.meter)?;
        }
        active.end += span(meta_len, body_len);
        let pad = active.end - active.buffer_at - active.buffer.len() as u64;
        active.buffer.resize(active.buffer.len() + usize::try_from(pad).unwrap_or(0), 0);
        if active.buffer.len() >= BUFFER {
            active.write_out(&self.setup.meter)?;
        }
        let crc = header.get(60..64).and_then(|crc| crc.try_into().ok()).map(u32::from_le_bytes);
        active.last = crc.map(|crc| (place.offset, crc));
        self.next_sequence += 1;
        count(&self.setup.meter.appended, 1);
        Ok(place)
    }

    /// Writes the record at this place out, if it is still in the buffer, so that it can be read.
    pub(super) fn write_out(&mut self, place: &Place) -> Result<(), QueueError> {
        let active = &mut self.active;
        if place.segment == active.number && place.offset + place.span() > active.buffer_at {
            active.write_out(&self.setup.meter)?;
        }
        Ok(())
    }

    /// Makes everything appended durable, with one sync.
    pub(super) fn commit(&mut self) -> Result<(), QueueError> {
        let active = &mut self.active;
        active.write_out(&self.setup.meter)?;
        let is_large = active.end - active.synced.0 >= LARGE;
        let ahead = if is_large { Ahead::Space } else { Ahead::Zeros };
        if ahead == Ahead::Zeros {
            active.make_ready(&self.setup.meter)?;
        }
        count(&self.setup.meter.syncs, 1);
        if let Err(source) = active.file.sync_data() {
            return Err(QueueError::storage("sync", &active.path, source));
        }
        active.synced = (active.end, active.last);
        self.prepare_spare(ahead);
        Ok(())
    }

    /// After a failure: cuts the active segment back to its last synced record. The next record then
    /// finds no room in it.
    pub(super) fn repair(&mut self) -> Result<(), QueueError> {
        let active = &mut self.active;
        (active.end, active.last) = active.synced;
        active.buffer.clear();
        active.buffer_at = active.end;
        disk::cut_to(&*active.file, active.end)
            .and_then(|()| active.file.sync_data())
            .map_err(|source| QueueError::storage("cut back", &active.path, source))?;
        active.capacity = active.end;
        Ok(())
    }

    /// Closes the active segment, which must be committed, and begins the next one with room for a
    /// record of `needed` bytes.
    pub(super) fn roll(&mut self, needed: u64, purpose: Purpose) -> Result<(), QueueError> {
        let number = self.active.number + 1;
        let begun = self.prepared.begin(&self.setup, number, needed, purpose)?;
        let old = std::mem::replace(&mut self.active, Active::begun(number, begun));
        if old.capacity > old.end {
            // Only space is at stake, and the next opening does not need it.
            old.file.set_len(old.end).ok();
        }
        Ok(())
    }

    /// Makes sure that there is a reserve for a full disk, if there can be.
    pub(super) fn keep_reserve(&mut self) {
        self.prepared.keep_reserve(&self.setup);
    }

    /// Has the next segment made ready, when this one is half full.
    fn prepare_spare(&mut self, ahead: Ahead) {
        let is_half_full = self.active.end > self.active.capacity / 2;
        // A small one was begun on a disk that is nearly full.
        if is_half_full && self.active.capacity >= self.setup.segment_bytes / 2 {
            self.prepared.make_spare(&self.setup, ahead);
        }
    }
}

impl Active {
    fn begun(number: u64, begun: Begun) -> Self {
        let Begun { path, file, tag, capacity, ready_to } = begun;
        let end = SEGMENT_HEADER;
        Active {
            number,
            path,
            file,
            tag,
            capacity,
            end,
            last: None,
            buffer_at: end,
            buffer: Vec::new(),
            synced: (end, None),
            ready_to,
        }
    }

    fn write_out(&mut self, meter: &Meter) -> Result<(), QueueError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.buffer);
        let written = self.write_at_end(&bytes, meter);
        self.buffer = bytes;
        self.buffer.clear();
        if self.buffer.capacity() > 2 * BUFFER {
            self.buffer.shrink_to(BUFFER);
        }
        written
    }

    fn write_at_end(&mut self, bytes: &[u8], meter: &Meter) -> Result<(), QueueError> {
        if let Err(source) = self.file.write_all_at(bytes, self.buffer_at) {
            return Err(QueueError::storage("write", &self.path, source));
        }
        self.buffer_at += bytes.len() as u64;
        count(&meter.written, bytes.len() as u64);
        Ok(())
    }

    /// Writes the blocks behind the end once, when the end has come to blocks never written.
    fn make_ready(&mut self, meter: &Meter) -> Result<(), QueueError> {
        if self.end <= self.ready_to {
            return Ok(());
        }
        let to = (self.end + AHEAD).min(self.capacity);
        if let Err(source) = disk::zero_range(&*self.file, self.end, to) {
            return Err(QueueError::storage("write", &self.path, source));
        }
        count(&meter.written, to - self.end);
        count(&meter.prepared, to - self.end);
        self.ready_to = to;
        Ok(())
    }
}
