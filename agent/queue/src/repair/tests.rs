//! Repairs on a disk that fails: killed between two steps, and with sectors that do not read.

use std::{
    fs,
    fs::OpenOptions,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread::JoinHandle,
};

use bytes::Bytes;

use super::*;
use crate::{NewEntry, disk::Free};

/// A real disk that changes nothing more after some operations, as if the process had been killed, and
/// that does not give some sectors of some files.
#[derive(Debug, Clone)]
struct Faulty {
    /// Changes that it still makes.
    left: Arc<AtomicI64>,
    bad: Option<(PathBuf, Range<u64>)>,
    /// The name of a file that it has no room for.
    no_room_for: Option<&'static str>,
}

impl Faulty {
    /// One that makes so many changes.
    fn after(left: i64) -> Self {
        Self { left: Arc::new(AtomicI64::new(left)), bad: None, no_room_for: None }
    }

    fn change(&self) -> io::Result<()> {
        match self.left.fetch_sub(1, Ordering::Relaxed) {
            1.. => Ok(()),
            _ => Err(io::Error::other("killed")),
        }
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let bad = self.bad.clone().filter(|(at, _)| at == path).map(|(_, bad)| bad);
        Arc::new(FaultyFile { disk: self.clone(), file, bad: bad.unwrap_or_default() })
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Faulty,
    file: Arc<dyn DiskFile>,
    bad: Range<u64>,
}

impl FaultyFile {
    fn touch(&self, at: u64, len: usize) -> io::Result<()> {
        if at < self.bad.end && at + len as u64 > self.bad.start {
            return Err(rustix::io::Errno::IO.into());
        }
        Ok(())
    }
}

impl DiskFile for FaultyFile {
    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.touch(at, bytes.len())?;
        self.file.read_exact_at(bytes, at)
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.disk.change()?;
        self.touch(at, bytes.len())?;
        self.file.write_all_at(bytes, at)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.change()?;
        self.file.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.change()?;
        self.file.set_len(bytes)
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.change()?;
        if self.no_room_for.is_some_and(|name| path.ends_with(name)) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(self.file(path, RealDisk.create(path, bytes)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.open(path)?))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.open_to_read(path)?))
    }

    fn is_file(&self, path: &Path) -> io::Result<bool> {
        RealDisk.is_file(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.names(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.change()?;
        RealDisk.create_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change()?;
        RealDisk.sync_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        RealDisk.remove(path)
    }

    fn free(&self, dir: &Path) -> io::Result<Free> {
        RealDisk.free(dir)
    }

    fn allocated(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.allocated(dir)
    }

    fn written_by_process(&self) -> Option<u64> {
        None
    }

    fn boot(&self) -> String {
        RealDisk.boot()
    }

    fn has_index(&self) -> bool {
        true
    }

    fn behind(
        &self,
        _what: &str,
        work: Box<dyn FnOnce() + Send>,
    ) -> io::Result<Option<JoinHandle<()>>> {
        // In the order in which it is asked for, so that the count means the same each time.
        work();
        Ok(None)
    }
}

fn small() -> QueueConfig {
    QueueConfig {
        segment_bytes: 256 * 1024,
        headroom_bytes: 0,
        headroom_inodes: 0,
        ..Default::default()
    }
}

/// A stopped queue of some requests of so many bytes.
async fn filled(dir: &Path, bytes: usize) -> Vec<RequestId> {
    let (queue, _) = Queue::open(dir, small()).unwrap();
    let mut ids = Vec::new();
    for _ in 0..6 {
        let new = NewEntry {
            id: RequestId::new(),
            idempotency: None,
            priority: 5,
            accepted_at_ms: 1,
            not_before_ms: 0,
            expires_at_ms: None,
            envelope: Bytes::new(),
            body: Bytes::from(vec![7; bytes]),
        };
        ids.push(new.id);
        queue.accept(new).await.unwrap();
    }
    queue.close().await.unwrap();
    ids
}

fn segment(dir: &Path, nth: u64) -> PathBuf {
    path_of(&dir.join("journal"), nth)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test]
async fn a_repair_that_is_killed_at_any_step_leaves_the_next_one_all_there_is_to_tell() {
    let harmed = tempfile::tempdir().unwrap();
    // Two requests to a segment: the second one's bytes are damaged, the third segment is gone.
    let ids = filled(harmed.path(), 100 * 1024).await;
    let file = OpenOptions::new().write(true).open(segment(harmed.path(), 1)).unwrap();
    FileExt::write_all_at(&file, b"damage", 4096 + 101 * 1024 + 1000).unwrap();
    fs::remove_file(segment(harmed.path(), 3)).unwrap();
    let want = [ids[1], ids[4], ids[5]];
    let mut steps = 0;
    for by_repair in [true, false] {
        for left in 0.. {
            let dir = tempfile::tempdir().unwrap();
            copy_folder(harmed.path(), dir.path());
            let disk = Faulty::after(left);
            let has_left = Arc::clone(&disk.left);
            let killed = repair_on(Arc::new(disk), dir.path(), small()).await;
            if let Ok(repaired) = killed {
                let mut lost = repaired.lost;
                lost.sort_unstable();
                assert_eq!(lost, want, "after {left} steps");
                // Killed while it removed the note, or not at all.
                if has_left.load(Ordering::Relaxed) > 0 {
                    assert!(Unfinished::read(&RealDisk, dir.path()).is_none());
                    steps = left;
                    break;
                }
                continue;
            }
            let mut told = if by_repair {
                repair(dir.path(), small()).await.unwrap().lost
            } else {
                let (queue, report) = Queue::open(dir.path(), small()).unwrap();
                queue.close().await.unwrap();
                report.lost
            };
            told.sort_unstable();
            assert_eq!(told, want, "killed after {left} steps, by repair: {by_repair}");
            // An opening leaves damaged bytes where they are, for the next repair to find.
            if !by_repair {
                let found = repair(dir.path(), small()).await.unwrap().lost;
                assert!(found.iter().all(|id| *id == ids[1]), "{found:?}");
            }
            let again = repair(dir.path(), small()).await.unwrap();
            assert_eq!((again.lost, again.damage.len(), again.report.held), (vec![], 0, 3));
        }
    }
    assert!(steps > 15, "{steps} steps");
}

#[tokio::test]
async fn a_part_that_does_not_read_costs_a_repair_what_is_in_it() {
    for in_the_last in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let ids = filled(dir.path(), 100 * 1024).await;
        let nth = if in_the_last { 3 } else { 1 };
        let path = segment(dir.path(), nth);
        let before = fs::read(&path).unwrap();
        let bad = 4096 + 40 * 1024..4096 + 44 * 1024;
        let gone = ids[if in_the_last { 4 } else { 0 }];
        let bad_disk = Faulty { bad: Some((path.clone(), bad.clone())), ..Faulty::after(i64::MAX) };
        let disk: Arc<dyn Disk> = Arc::new(bad_disk);
        let repaired = repair_on(Arc::clone(&disk), dir.path(), small()).await.unwrap();
        assert_eq!((repaired.lost, repaired.report.held), (vec![gone], 5));
        assert_eq!(repaired.damage[0].id, Some(gone));
        // What could be read of the segment is kept as it was.
        let copy = fs::read(path.with_extension("seg.bad-1")).unwrap();
        let [from, to] = [bad.start, bad.end].map(|at| usize::try_from(at).unwrap());
        assert!(copy[..from] == before[..from] && copy[to..before.len()] == before[to..]);
        // The rest is served, and takes new requests, from the same disk.
        let opened = opening::open_on(&disk, dir.path(), small(), None).unwrap();
        let (queue, _) = Queue::start(opened, dir.path()).unwrap();
        for id in ids.iter().filter(|id| **id != gone) {
            assert_eq!(queue.body(*id).await.unwrap().unwrap().len(), 100 * 1024);
        }
        queue.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_repair_without_room_for_its_note_names_what_is_lost_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let ids = filled(dir.path(), 100 * 1024).await;
    let file = OpenOptions::new().write(true).open(segment(dir.path(), 1)).unwrap();
    FileExt::write_all_at(&file, b"damage", 4096 + 1000).unwrap();
    let disk = Faulty { no_room_for: Some("repair.note.new"), ..Faulty::after(i64::MAX) };
    let repaired = repair_on(Arc::new(disk), dir.path(), small()).await.unwrap();
    assert_eq!((repaired.lost, repaired.report.held), (vec![ids[0]], 5));
    assert_eq!(repaired.report.rebuilt.as_deref(), Some("it was repaired"));
}
