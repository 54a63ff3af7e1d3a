//! How a segment comes to be: from one that was written ahead, from free space, or, on a full disk,
//! from the reserve.
//!
//! The reserve is a file that is there before the disk is full, so that what is held can come to its
//! end (and its space be given back) when there is neither a byte nor an inode left.
//!
//! **Invariant:** a segment gets its name when its header is on disk, so that a named one has a header;
//! what is accepted leaves the headroom free, what comes to its end may use it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use super::{
    QueueError,
    disk::{self, Disk, DiskFile},
    journal::{ALIGN, SEGMENT_HEADER, SegmentHeader},
    meter::{Meter, count},
};

/// No segment is smaller.
const SMALLEST_SEGMENT: u64 = 256 * 1024;
/// Bytes of the reserve.
const RESERVE_BYTES: u64 = 1024 * 1024;
/// The name of the file that is kept for a full disk.
const RESERVE: &str = "reserve.seg";
/// The name of the file that is written ahead to be the next segment.
const SPARE: &str = "spare.seg";
/// The name of the next segment until its header is on disk.
const NEXT: &str = "next.seg";

/// The name of a segment's file.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:016x}.seg")
}

/// The number in a segment's file name.
pub(super) fn number_in(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|number| file_name(*number) == name)
}

/// The path of a segment.
pub(super) fn path_of(dir: &Path, number: u64) -> PathBuf {
    dir.join(file_name(number))
}

/// Whose need a new segment serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A new request: the headroom stays free.
    Accept,
    /// The end of one, or a step to it: the headroom is there for this.
    Progress,
    /// Space, which it takes for a while to give more of it back. The reserve is not for this.
    Compaction,
}

/// What is left free for the rest of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headroom {
    /// Bytes.
    pub(super) bytes: u64,
    /// Files.
    pub(super) inodes: u64,
}

/// What a journal is opened with.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    /// Where it is.
    pub(super) disk: Arc<dyn Disk>,
    /// Its directory.
    pub(super) dir: PathBuf,
    /// The queue it belongs to.
    pub(super) store: [u8; 16],
    /// Size of a segment.
    pub(super) segment_bytes: u64,
    /// What is left free.
    pub(super) headroom: Headroom,
    /// Counters.
    pub(super) meter: Arc<Meter>,
}

/// A segment that has its name and its header.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) tag: [u8; 8],
    pub(super) capacity: u64,
    /// Up to here its blocks have been written before.
    pub(super) ready_to: u64,
}

/// A file that can be a segment.
#[derive(Debug)]
pub(super) struct Ready {
    path: PathBuf,
    bytes: u64,
    /// Up to here it is written with zeros.
    zeros: u64,
}

/// What is done with the blocks of a segment before its records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// They are written with zeros, so that a sync has no more to do than the records: small ones take
    /// half as long.
    Zeros,
    /// They are allocated. What is written in large pieces costs more to write twice than to have its
    /// blocks noted with each sync.
    Space,
}

/// What is prepared for the segments to come.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    spare: Option<mpsc::Receiver<Option<Ready>>>,
    /// Who writes it.
    writing: Option<JoinHandle<()>>,
    reserve: Option<Ready>,
}

impl Prepared {
    /// Deletes what an ended process prepared, but for its reserve.
    pub(super) fn clear(disk: &dyn Disk, dir: &Path) -> Result<(), QueueError> {
        disk.delete(&dir.join(SPARE))?;
        disk.delete(&dir.join(NEXT))
    }

    /// Has the next segment made ready behind the caller's back.
    pub(super) fn make_spare(&mut self, setup: &Setup, ahead: Ahead) {
        // With the reserve, an empty queue takes two segments and not more.
        let bytes = setup.segment_bytes.saturating_sub(RESERVE_BYTES).max(SMALLEST_SEGMENT);
        let Headroom { bytes: kept, inodes: files } = setup.headroom;
        let has_room = |free: disk::Free| {
            free.bytes >= kept.saturating_add(bytes) && free.inodes.is_none_or(|free| free > files)
        };
        if self.spare.is_some() || !setup.disk.free(&setup.dir).is_ok_and(has_room) {
            return;
        }
        let (send, receive) = mpsc::channel();
        let (disk, meter) = (Arc::clone(&setup.disk), Arc::clone(&setup.meter));
        let path = setup.dir.join(SPARE);
        let work = move || {
            // The journal may be gone by now; then nobody wants the spare.
            send.send(make(&*disk, path, bytes, ahead, &meter)).ok();
        };
        if let Ok(writing) = setup.disk.behind("queue-spare", Box::new(work)) {
            (self.spare, self.writing) = (Some(receive), writing);
        }
    }

    /// Makes sure that there is a reserve, when there is room for one.
    pub(super) fn keep_reserve(&mut self, setup: &Setup) {
        if self.reserve.is_some() {
            return;
        }
        let path = setup.dir.join(RESERVE);
        let there = setup.disk.open_to_read(&path).and_then(|file| file.bytes());
        if there.is_ok_and(|bytes| bytes == RESERVE_BYTES) {
            self.reserve = Some(Ready { path, bytes: RESERVE_BYTES, zeros: RESERVE_BYTES });
            return;
        }
        let has_room = |free: disk::Free| free.bytes >= 2 * RESERVE_BYTES;
        if setup.disk.free(&setup.dir).is_ok_and(has_room) {
            self.reserve = make(&*setup.disk, path, RESERVE_BYTES, Ahead::Zeros, &setup.meter);
        }
    }

    fn take_spare(&mut self, disk: &dyn Disk, needed: u64) -> Option<Ready> {
        let spare = self.spare.as_ref()?.try_recv().ok()?;
        self.spare = None;
        let spare = spare?;
        if spare.bytes >= needed + SEGMENT_HEADER {
            return Some(spare);
        }
        disk.delete(&spare.path).ok();
        None
    }

    /// Begins segment `number`, with room for a record of `needed` bytes.
    pub(super) fn begin(
        &mut self,
        setup: &Setup,
        number: u64,
        needed: u64,
        purpose: Purpose,
    ) -> Result<Begun, QueueError> {
        if let Some(spare) = self.take_spare(&*setup.disk, needed) {
            return from_ready(setup, number, spare);
        }
        match from_free_space(setup, number, needed, purpose) {
            Err(full) if full.is_no_space() && purpose == Purpose::Progress => {
                let fits = |reserve: &mut Ready| reserve.bytes >= needed + SEGMENT_HEADER;
                let reserve = self.reserve.take_if(fits).ok_or(full)?;
                from_ready(setup, number, reserve)
            }
            other => other,
        }
    }
}

impl Drop for Prepared {
    /// Nobody writes into the directory any more when the journal is closed.
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            writing.join().ok();
        }
    }
}

fn make(disk: &dyn Disk, path: PathBuf, bytes: u64, ahead: Ahead, meter: &Meter) -> Option<Ready> {
    let file = disk.create_file(&path, bytes).ok()?;
    let zeros = match ahead {
        Ahead::Zeros => bytes,
        Ahead::Space => 0,
    };
    let written = disk::zero_range(&*file, 0, zeros).and_then(|()| file.sync_data());
    count(&meter.written, zeros);
    count(&meter.prepared, zeros);
    match written {
        Ok(()) => Some(Ready { path, bytes, zeros }),
        Err(_no_room) => {
            disk.delete(&path).ok();
            None
        }
    }
}

fn from_ready(setup: &Setup, number: u64, ready: Ready) -> Result<Begun, QueueError> {
    let file = setup.disk.open_file(&ready.path)?;
    name(setup, number, &ready.path, file, ready.bytes, ready.zeros)
}

fn from_free_space(
    setup: &Setup,
    number: u64,
    needed: u64,
    purpose: Purpose,
) -> Result<Begun, QueueError> {
    let bytes = size_for(setup, needed, purpose)?;
    let nameless = setup.dir.join(NEXT);
    let file = setup.disk.create_file(&nameless, bytes)?;
    name(setup, number, &nameless, file, bytes, 0)
}

fn name(
    setup: &Setup,
    number: u64,
    nameless: &Path,
    file: Arc<dyn DiskFile>,
    capacity: u64,
    ready_to: u64,
) -> Result<Begun, QueueError> {
    let path = path_of(&setup.dir, number);
    let mut tag = [0; 8];
    getrandom::fill(&mut tag)
        .map_err(|error| QueueError::storage("name", &path, std::io::Error::other(error)))?;
    let header = SegmentHeader { number, tag, store: setup.store };
    file.write_all_at(&header.encode(), 0)
        .and_then(|()| file.sync_data())
        .map_err(|source| QueueError::storage("begin", &path, source))?;
    setup.disk.move_file(nameless, &path)?;
    setup.disk.sync_entries(&setup.dir)?;
    Ok(Begun { path, file, tag, capacity, ready_to })
}

/// How large a new segment may be: the configured size, less when the disk is nearly full.
fn size_for(setup: &Setup, needed: u64, purpose: Purpose) -> Result<u64, QueueError> {
    let dir = || setup.dir.clone();
    let kept = match purpose {
        Purpose::Accept => setup.headroom,
        Purpose::Progress | Purpose::Compaction => Headroom { bytes: 0, inodes: 0 },
    };
    let disk::Free { bytes: free, inodes } = setup.disk.free_space(&setup.dir)?;
    if let Some(free) = inodes.filter(|free| *free <= kept.inodes) {
        return Err(QueueError::NoInodes { dir: dir(), free, headroom: kept.inodes });
    }
    let least = needed.saturating_add(SEGMENT_HEADER).next_multiple_of(ALIGN * ALIGN);
    let mut bytes = setup.segment_bytes.max(least);
    // What may use the headroom uses as little of it as it can: room in a segment is for everybody.
    let spared = setup.headroom.bytes;
    while bytes / 2 >= least.max(SMALLEST_SEGMENT) && free < bytes.saturating_add(spared) {
        bytes /= 2;
    }
    if free < bytes.saturating_add(kept.bytes) {
        return Err(QueueError::NoSpace { dir: dir(), needed: bytes, free, headroom: kept.bytes });
    }
    Ok(bytes.next_multiple_of(ALIGN * ALIGN))
}
