//! Writing the journal: the active segment, its buffer, its sync, and what comes after it.
//!
//! **Invariant:** after a failed write or sync nothing is appended until the segment was cut back to
//! its last synced record ([`Journal::repair`]), so that what was refused cannot come back later and
//! contradict what was acknowledged since.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
};

use super::{
    QueueError, RequestId,
    files::{self, Meter, count},
    journal::{ALIGN, Kind, Place, RecordHeader, SEGMENT_HEADER, SegmentHeader, VERSION, span},
    scan::End,
};

/// Bytes behind the end that are made ready (written once) together, so that later syncs need not
/// touch the file system's own journal.
const AHEAD: u64 = 1024 * 1024;
/// Bodies from this size on are written straight from where they are.
const DIRECT: usize = 64 * 1024;
/// The buffer is written out beyond this size.
const BUFFER: usize = 1024 * 1024;
/// No segment is smaller.
const SMALLEST_SEGMENT: u64 = 256 * 1024;

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// The number in a segment's file name.
pub(super) fn number_in(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|number| file_name(*number) == name)
}

/// Whose need a new segment serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A new request: the headroom stays free.
    Accept,
    /// The end of one, or a step to it: the headroom is there for this.
    Progress,
}

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
    file: File,
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

type Spare = Result<(PathBuf, u64), QueueError>;

/// The journal, as its one writer has it.
#[derive(Debug)]
pub(super) struct Journal {
    dir: PathBuf,
    store: [u8; 16],
    segment_bytes: u64,
    headroom: u64,
    meter: Arc<Meter>,
    active: Active,
    next_sequence: u64,
    spare: Option<mpsc::Receiver<Spare>>,
}

/// What a journal is opened with.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// Its directory.
    pub(super) dir: PathBuf,
    /// The queue it belongs to.
    pub(super) store: [u8; 16],
    /// Size of a segment.
    pub(super) segment_bytes: u64,
    /// Bytes left free.
    pub(super) headroom: u64,
    /// Counters.
    pub(super) meter: Arc<Meter>,
}

impl Journal {
    /// Goes on in an existing segment, behind its last record; anything further on is zeroed.
    pub(super) fn resume(
        setup: Setup,
        header: SegmentHeader,
        end: End,
        next_sequence: u64,
        last: Option<(u64, u32)>,
    ) -> Result<Self, QueueError> {
        let path = setup.dir.join(file_name(header.number));
        let file = files::open(&path)?;
        let storage = |what, source| QueueError::storage(what, &path, source);
        if end.dirty_end > end.end {
            files::zero_range(&file, end.end, end.dirty_end)
                .map_err(|source| storage("clear the torn end of", source))?;
        }
        files::sync_data(&file).map_err(|source| storage("sync", source))?;
        files::sync_dir(&setup.dir)?;
        let capacity = file.metadata().map_err(|source| storage("measure", source))?.len();
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
        Ok(Journal::over(setup, active, next_sequence))
    }

    /// Begins segment `number`.
    pub(super) fn begin(setup: Setup, number: u64, next_sequence: u64) -> Result<Self, QueueError> {
        let active = create(&setup, number, 0, Purpose::Progress, None)?;
        Ok(Journal::over(setup, active, next_sequence))
    }

    fn over(setup: Setup, active: Active, next_sequence: u64) -> Self {
        let Setup { dir, store, segment_bytes, headroom, meter } = setup;
        Journal { dir, store, segment_bytes, headroom, meter, active, next_sequence, spare: None }
    }

    /// The sequence that the next record gets.
    pub(super) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The active segment.
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
            active.write_out(&self.meter)?;
            active.write_at_end(body, &self.meter)?;
        }
        active.end += span(meta_len, body_len);
        let pad = active.end - active.buffer_at - active.buffer.len() as u64;
        active.buffer.resize(active.buffer.len() + usize::try_from(pad).unwrap_or(0), 0);
        if active.buffer.len() >= BUFFER {
            active.write_out(&self.meter)?;
        }
        let crc = header.get(60..64).and_then(|crc| crc.try_into().ok()).map(u32::from_le_bytes);
        active.last = crc.map(|crc| (place.offset, crc));
        self.next_sequence += 1;
        count(&self.meter.appended, 1);
        Ok(place)
    }

    /// Writes the record at this place out, if it is still in the buffer, so that it can be read.
    pub(super) fn write_out(&mut self, place: &Place) -> Result<(), QueueError> {
        let active = &mut self.active;
        if place.segment == active.number && place.offset + place.span() > active.buffer_at {
            active.write_out(&self.meter)?;
        }
        Ok(())
    }

    /// Makes everything appended durable, with one sync.
    pub(super) fn commit(&mut self) -> Result<(), QueueError> {
        let active = &mut self.active;
        active.write_out(&self.meter)?;
        active.make_ready(&self.meter)?;
        count(&self.meter.syncs, 1);
        if let Err(source) = files::sync_data(&active.file) {
            return Err(QueueError::storage("sync", &active.path, source));
        }
        active.synced = (active.end, active.last);
        self.prepare_spare();
        Ok(())
    }

    /// After a failure: cuts the active segment back to its last synced record. The next record then
    /// finds no room in it.
    pub(super) fn repair(&mut self) -> Result<(), QueueError> {
        let active = &mut self.active;
        (active.end, active.last) = active.synced;
        active.buffer.clear();
        active.buffer_at = active.end;
        active
            .file
            .set_len(active.end)
            .and_then(|()| active.file.sync_all())
            .map_err(|source| QueueError::storage("cut back", &active.path, source))?;
        active.capacity = active.end;
        Ok(())
    }

    /// Closes the active segment, which must be committed, and begins the next one with room for a
    /// record of `needed` bytes.
    pub(super) fn roll(&mut self, needed: u64, purpose: Purpose) -> Result<(), QueueError> {
        let setup = Setup {
            dir: self.dir.clone(),
            store: self.store,
            segment_bytes: self.segment_bytes,
            headroom: self.headroom,
            meter: Arc::clone(&self.meter),
        };
        let spare = self.take_spare(needed);
        let next = create(&setup, self.active.number + 1, needed, purpose, spare)?;
        let old = std::mem::replace(&mut self.active, next);
        if old.capacity > old.end {
            // Only space is at stake, and the next opening does not need it.
            old.file.set_len(old.end).ok();
        }
        Ok(())
    }

    fn take_spare(&mut self, needed: u64) -> Option<(PathBuf, u64)> {
        let (path, bytes) = self.spare.as_ref()?.try_recv().ok()?.ok()?;
        self.spare = None;
        if bytes >= needed + SEGMENT_HEADER {
            return Some((path, bytes));
        }
        files::remove(&path).ok();
        None
    }

    /// Has the next segment written with zeros on another thread, when this one is half full.
    fn prepare_spare(&mut self) {
        let half_full = self.active.end > self.active.capacity / 2;
        if self.spare.is_some() || !half_full || self.active.capacity < self.segment_bytes {
            return;
        }
        let bytes = self.segment_bytes;
        match files::free_bytes(&self.dir) {
            Ok(free) if free >= self.headroom.saturating_add(bytes) => {}
            _ => return,
        }
        let (send, receive) = mpsc::channel();
        let path = self.dir.join(SPARE);
        let meter = Arc::clone(&self.meter);
        let started = std::thread::Builder::new().name("queue-spare".into()).spawn(move || {
            // The journal may be gone by now; then nobody wants the spare.
            send.send(write_spare(path, bytes, &meter)).ok();
        });
        if started.is_ok() {
            self.spare = Some(receive);
        }
    }
}

/// The name of the file that is prepared to be the next segment.
const SPARE: &str = "spare.seg";
/// The name of the next segment until its header is on disk.
const NEXT: &str = "next.seg";

/// Deletes what an ended process prepared.
pub(super) fn remove_prepared(dir: &Path) -> Result<(), QueueError> {
    files::remove(&dir.join(SPARE))?;
    files::remove(&dir.join(NEXT))
}

fn write_spare(path: PathBuf, bytes: u64, meter: &Meter) -> Spare {
    let file = files::create_allocated(&path, bytes)?;
    let written = files::zero_range(&file, 0, bytes).and_then(|()| files::sync_data(&file));
    count(&meter.written, bytes);
    match written {
        Ok(()) => Ok((path, bytes)),
        Err(source) => {
            files::remove(&path).ok();
            Err(QueueError::storage("prepare", &path, source))
        }
    }
}

impl Active {
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
        if let Err(source) = files::zero_range(&self.file, self.end, to) {
            return Err(QueueError::storage("write", &self.path, source));
        }
        count(&meter.written, to - self.end);
        self.ready_to = to;
        Ok(())
    }
}

fn create(
    setup: &Setup,
    number: u64,
    needed: u64,
    purpose: Purpose,
    spare: Option<(PathBuf, u64)>,
) -> Result<Active, QueueError> {
    let path = setup.dir.join(file_name(number));
    let (nameless, file, capacity, ready_to) = match spare {
        Some((spare, bytes)) => {
            let file = files::open(&spare)?;
            (spare, file, bytes, bytes)
        }
        None => {
            let bytes = size_for(setup, needed, purpose)?;
            let nameless = setup.dir.join(NEXT);
            let file = files::create_allocated(&nameless, bytes)?;
            (nameless, file, bytes, 0)
        }
    };
    let mut tag = [0; 8];
    getrandom::fill(&mut tag)
        .map_err(|error| QueueError::storage("name", &path, std::io::Error::other(error)))?;
    let header = SegmentHeader { number, tag, store: setup.store };
    // It gets its name when its header is on disk, so that a named segment has one.
    file.write_all_at(&header.encode(), 0)
        .and_then(|()| files::sync_data(&file))
        .map_err(|source| QueueError::storage("begin", &path, source))?;
    files::rename(&nameless, &path)?;
    files::sync_dir(&setup.dir)?;
    let end = SEGMENT_HEADER;
    Ok(Active {
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
    })
}

/// How large a new segment may be: the configured size, less when the disk is nearly full.
fn size_for(setup: &Setup, needed: u64, purpose: Purpose) -> Result<u64, QueueError> {
    let headroom = if purpose == Purpose::Accept { setup.headroom } else { 0 };
    let free = files::free_bytes(&setup.dir)?;
    let least = needed.saturating_add(SEGMENT_HEADER).next_multiple_of(ALIGN * ALIGN);
    let mut bytes = setup.segment_bytes.max(least);
    // What may use the headroom uses as little of it as it can: room in a segment is for everybody.
    let spared = setup.headroom;
    while bytes / 2 >= least.max(SMALLEST_SEGMENT) && free < bytes.saturating_add(spared) {
        bytes /= 2;
    }
    if free < bytes.saturating_add(headroom) {
        return Err(QueueError::NoSpace { dir: setup.dir.clone(), needed: bytes, free, headroom });
    }
    Ok(bytes.next_multiple_of(ALIGN * ALIGN))
}

/// The path of a segment.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(file_name(number))
}
