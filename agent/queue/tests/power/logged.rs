//! A device that writes down every write and every flush (dm-log-writes), and what a disk may be left
//! with when its power is cut at an entry of that log.
//!
//! Owns the device and the reading of its log.
//! **Invariant:** what was flushed before the cut is left whole. What a write that was not flushed by
//! then leaves is drawn: all of it, nothing, or some of its sectors.
//!
//! A disk acknowledges a write when that is in its cache, and may lose any part of the cache, in any
//! order. The kernel's other target for this, dm-flakey with `drop_writes`, loses what is written after
//! one moment and nothing from before it: a flush that is missing does not show. The log knows what was
//! flushed, so that each such state can be made.
//!
//! The log's format is that of `drivers/md/dm-log-writes.c`; all numbers are little-endian.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::id,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{
    disk::{Loop, copy_sparse, run},
    writer::Random,
};

const MAGIC: u64 = 0x6a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;
/// The kernel's own mark, when the log is complete.
const END: &str = "dm-log-writes-end";
/// Ours, with the number of lines that were heard by then.
const HEARD: &str = "heard-";
/// Room in the log; a hole until it is used.
const LOG_BYTES: u64 = 16 << 30;
/// The part of a write that a disk keeps or loses as a whole.
const SECTOR: usize = 512;
/// ext4 trusts the disk not to tear its superblock, which lies in here.
const SUPERBLOCK_END: u64 = 4096;

/// A device over an image. It is gone when it is dropped, and so are its files.
pub(crate) struct Logged {
    /// Of the device mapper.
    name: String,
    /// The image as it was before the first write that is in the log.
    base: PathBuf,
    log: PathBuf,
}

/// Whether this kernel has the target, or why not.
pub(crate) fn is_possible() -> Result<(), String> {
    // Where it is a module; what cannot be loaded is missing below.
    drop(run("modprobe", &["dm-log-writes"]));
    let devices = fs::read_to_string("/proc/misc").unwrap_or_default();
    if !devices.lines().any(|line| line.ends_with(" device-mapper")) {
        return Err("this kernel has no device mapper".to_owned());
    }
    let targets = run("dmsetup", &["targets"])?;
    if !targets.lines().any(|line| line.starts_with("log-writes ")) {
        return Err("this kernel has no dm-log-writes".to_owned());
    }
    Ok(())
}

impl Logged {
    /// Makes the device over an image.
    pub(crate) fn over(image: &Path) -> Result<Self, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("holdfast-power-{}-{number}", id());
        let made =
            Logged { name, base: image.with_extension("base"), log: image.with_extension("log") };
        copy_sparse(image, &made.base).map_err(|error| error.to_string())?;
        let log = File::create(&made.log).and_then(|log| log.set_len(LOG_BYTES));
        log.map_err(|error| error.to_string())?;
        let (device, log) = (Loop::over(image)?, Loop::over(&made.log)?);
        let sectors = fs::metadata(image).map_err(|error| error.to_string())?.len() / SECTOR as u64;
        let table = format!("0 {sectors} log-writes {} {}", device.path(), log.path());
        run("dmsetup", &["create", &made.name, "--table", &table])?;
        Ok(made)
    }

    /// Its device file, as the kernel names it: a link by its own name is made by others.
    pub(crate) fn path(&self) -> Result<String, String> {
        let columns = ["info", "--columns", "--noheadings", "-o", "blkdevname", &self.name];
        run("dmsetup", &columns).map(|name| format!("/dev/{name}"))
    }

    /// Marks this moment in the log, when so many lines were heard. What is flushed by now stands before
    /// it.
    pub(crate) fn mark(&self, heard: usize) {
        run("dmsetup", &["message", &self.name, "0", "mark", &format!("{HEARD}{heard}")]).unwrap();
    }

    /// From now on nothing can be written; the log is complete.
    pub(crate) fn cut_off(&self) {
        // Neither is the file system told to come to rest, nor is what was held back written.
        run("dmsetup", &["wipe_table", "--noflush", "--nolockfs", &self.name]).unwrap();
    }

    /// Makes the image of a disk whose power was cut at a random entry after the first mark, or, without
    /// chance, at the last mark and with nothing that was not flushed.
    pub(crate) fn leave(&self, to: &Path, chance: Option<Random>) -> Remains {
        fs::rename(&self.base, to).unwrap();
        let disk = File::options().write(true).open(to).unwrap();
        replay(&File::open(&self.log).unwrap(), &disk, chance)
    }
}

/// What a cut left.
pub(crate) struct Remains {
    /// Lines that were heard before it.
    pub(crate) heard: usize,
    /// Writes that had reached the disk and are lost, or are there in part.
    pub(crate) lost_writes: usize,
}

impl Drop for Logged {
    fn drop(&mut self) {
        if run("dmsetup", &["remove", "--retry", &self.name]).is_err() {
            // Somebody still has it open: it fails whatever is asked of it, and goes with them.
            drop(run("dmsetup", &["remove", "--force", "--deferred", &self.name]));
        }
        drop(fs::remove_file(&self.base));
        drop(fs::remove_file(&self.log));
    }
}

/// One entry of the log. A write's bytes are logged when they were flushed, in the order in which they
/// had reached the disk; one that forces itself through the cache is logged at once.
struct Entry {
    /// Bytes on the disk.
    at: u64,
    len: usize,
    /// Where they are in the log.
    data: u64,
    flags: u64,
    mark: Option<String>,
}

/// What a disk has of a write.
#[derive(Debug, Clone, Copy)]
enum Left {
    Whole,
    Nothing,
    /// Drawn for each sector.
    Torn(Random),
}

impl Entry {
    /// Whether what follows may have been begun only because this was done.
    fn is_barrier(&self) -> bool {
        self.flags & (FLUSH | FUA) != 0
    }

    fn write(&self, log: &File, disk: &File, left: Left) {
        // What was discarded has any content; it keeps the old one.
        if self.len == 0 || self.flags & DISCARD != 0 || matches!(left, Left::Nothing) {
            return;
        }
        let mut bytes = vec![0; self.len];
        log.read_exact_at(&mut bytes, self.data).unwrap();
        match left {
            Left::Torn(mut random) if self.at >= SUPERBLOCK_END => {
                for (number, sector) in (0..).zip(bytes.chunks(SECTOR)) {
                    if random.next().is_multiple_of(2) {
                        disk.write_all_at(sector, self.at + number * SECTOR as u64).unwrap();
                    }
                }
            }
            _ => disk.write_all_at(&bytes, self.at).unwrap(),
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn read(log: &File) -> Vec<Entry> {
    let mut head = [0; SECTOR];
    log.read_exact_at(&mut head, 0).unwrap();
    assert_eq!((number(&head[..8]), number(&head[8..16])), (MAGIC, 1), "magic and version");
    let sector = number(&head[24..28]);
    let mut at = sector;
    let mut entries = Vec::new();
    for _ in 0..number(&head[16..24]) {
        let mut head = [0; SECTOR];
        log.read_exact_at(&mut head, at).unwrap();
        let [place, sectors, flags, said] =
            [0, 8, 16, 24].map(|field| number(&head[field..field + 8]));
        let said = || String::from_utf8_lossy(&head[32..32 + said as usize]).into_owned();
        entries.push(Entry {
            at: place * sector,
            len: (sectors * sector) as usize,
            data: at + sector,
            flags,
            mark: (flags & MARK != 0).then(said),
        });
        at += sector * (1 + if flags & DISCARD == 0 { sectors } else { 0 });
    }
    entries
}

/// As [`Logged::leave`], over a file that has what the disk had before.
fn replay(log: &File, disk: &File, chance: Option<Random>) -> Remains {
    let entries = read(log);
    let is_whole = entries.iter().any(|entry| entry.mark.as_deref() == Some(END));
    assert!(is_whole, "the kernel stopped logging");
    let (heard, left) = leave(&entries, chance);
    let mut lost_writes = 0;
    for (entry, left) in entries.iter().zip(left) {
        entry.write(log, disk, left);
        lost_writes += usize::from(entry.len > 0 && !matches!(left, Left::Whole));
    }
    Remains { heard, lost_writes }
}

/// Draws the entry of the cut, and what is left of each; what follows those in the log was begun when
/// they were flushed, and is not there. One cut in four is at a mark and leaves the least that a disk
/// may.
fn leave(entries: &[Entry], chance: Option<Random>) -> (usize, Vec<Left>) {
    let heard = |entry: &Entry| entry.mark.as_ref()?.strip_prefix(HEARD)?.parse::<usize>().ok();
    let marks: Vec<(usize, usize)> =
        (1..).zip(entries).filter_map(|(next, entry)| Some((next, heard(entry)?))).collect();
    let first = marks[0].0;
    let mut random = chance;
    let mut draw = || random.as_mut().map(|random| random.next() as usize);
    let is_least = draw().is_none_or(|drawn| drawn.is_multiple_of(4));
    let cut = match (is_least, draw()) {
        (true, drawn) => marks[drawn.map_or(marks.len() - 1, |drawn| drawn % marks.len())].0,
        (false, drawn) => first + drawn.unwrap_or_default() % (entries.len() - first),
    };
    let unflushed = entries[cut..].iter().take_while(|entry| !entry.is_barrier());
    let mut left = vec![Left::Whole; cut];
    left.extend(unflushed.map(|_| match draw() {
        Some(drawn) if !is_least && drawn % 3 == 1 => Left::Whole,
        Some(drawn) if !is_least && drawn % 3 == 2 => Left::Torn(Random(drawn as u64 | 1)),
        _ => Left::Nothing,
    }));
    let heard = marks.iter().rev().find(|(next, _)| *next <= cut).map_or(0, |(_, heard)| *heard);
    (heard, left)
}

#[test]
fn log_leaves_what_was_flushed_and_any_of_the_rest() {
    // Four writes of 1 KiB each: w0, flush, mark, w1, w2, flush, mark, w3, end.
    let write = |place| (place, 2, 0, "");
    let said = [
        write(16),
        (0, 0, FLUSH, ""),
        (0, 0, MARK, "heard-1"),
        write(18),
        write(20),
        (0, 0, FLUSH, ""),
        (0, 0, MARK, "heard-3"),
        write(22),
        (0, 0, MARK, END),
    ];
    let mut bytes = [MAGIC, 1, said.len() as u64, SECTOR as u64].map(u64::to_le_bytes).concat();
    for (place, sectors, flags, mark) in said {
        bytes.resize(bytes.len().next_multiple_of(SECTOR), 0);
        bytes.extend([place, sectors, flags, mark.len() as u64].map(u64::to_le_bytes).concat());
        bytes.extend(mark.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(SECTOR) + sectors as usize * SECTOR, 7);
    }
    let (log, disk) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    log.write_all_at(&bytes, 0).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..2000_u64 {
        let mut left = vec![0; 24 * SECTOR];
        disk.write_all_at(&left, 0).unwrap();
        let remains = replay(
            &log,
            &disk,
            (seed > 0).then(|| Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        );
        disk.read_exact_at(&mut left, 0).unwrap();
        // A line of eight sectors: which are there.
        let there: Vec<bool> = left[16 * SECTOR..].chunks(SECTOR).map(|one| one[0] == 7).collect();
        assert!([1, 3].contains(&remains.heard), "seed {seed}: {}", remains.heard);
        let flushed = 2 * remains.heard;
        assert!(
            !there[..flushed].contains(&false),
            "seed {seed} loses what was flushed: {there:?}"
        );
        let later = there[6..].contains(&true);
        assert!(!later || there[..6] == [true; 6], "seed {seed} is out of order: {there:?}");
        assert!(seed > 0 || there == [[true; 6].as_slice(), &[false; 2]].concat(), "{there:?}");
        seen.insert(there);
    }
    // All of the 16 of two writes, and 3 more of the last.
    assert_eq!(seen.len(), 19, "{seen:?}");
}
