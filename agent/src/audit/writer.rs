//! Owns the writing of the record: one thread, one sync for all lines that wait. How a send ended is written
//! with the next line that somebody waits for, or after a moment.
//!
//! **Invariant:** who waits for a line is told that it is written when the disk has it, and not before; a
//! file that failed is never written to again, since nobody knows what of it is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Unwritten;
use super::chain::{self, Seal};
use super::event::{Entry, Event};
use super::later::Later;
use super::reader::{self, Last, Part};

/// Lines that are taken in together.
const TOGETHER: usize = 256;
/// What nobody waits for is written after so long.
const SOON: Duration = Duration::from_millis(20);
/// The record is in so many files, so that it can be kept short by dropping one.
const FILES: u64 = 8;
/// A file has at least so many bytes before the next begins.
const LEAST: u64 = 64 * 1024;

/// A file has no more, so that its end is soon found.
const MOST: u64 = 8 * 1024 * 1024;

/// A line to be written, or the word that others wait in [`Later`].
#[derive(Debug, Default)]
pub(super) struct Command {
    /// None where somebody only waits for those before.
    pub(super) entry: Option<Entry>,
    /// Who waits for it.
    pub(super) done: Option<oneshot::Sender<Result<(), Unwritten>>>,
}

/// Writes the files of one folder.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    max_bytes: u64,
    open: Option<Open>,
    /// The last line; none before the first look.
    last: Option<End>,
    is_stuck: Arc<AtomicBool>,
}

/// The number and the seal of a line; zeros before the first.
type End = (u64, Seal);

#[derive(Debug)]
struct Open {
    file: File,
    path: PathBuf,
    bytes: u64,
    /// How far the disk has it for certain, and the last line of that.
    synced: (u64, End),
}

/// Notes lines that the record lacks.
pub(super) fn count_unwritten(lines: u64) {
    metrics::counter!("holdfast_audit_unwritten_total").increment(lines);
}

impl Open {
    /// Whether its path still leads to it.
    fn is_in_place(&self) -> io::Result<bool> {
        // An error too: a folder above it is gone, or is none any more.
        let Ok(at) = fs::metadata(&self.path) else { return Ok(false) };
        let own = self.file.metadata()?;
        Ok((at.dev(), at.ino()) == (own.dev(), own.ino()))
    }

    fn sync(&mut self, last: End) -> io::Result<()> {
        self.file.sync_data()?;
        self.synced = (self.bytes, last);
        Ok(())
    }
}

impl Writer {
    pub(super) fn new(folder: PathBuf, max_bytes: u64, is_stuck: Arc<AtomicBool>) -> Self {
        Self { folder, max_bytes, open: None, last: None, is_stuck }
    }

    /// Writes what comes until nobody is left who could send something. Blocks its thread while it writes.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<Command>, later: Arc<Later>) {
        let (mut lines, mut is_failing) = (Vec::new(), false);
        loop {
            let is_over = waiting.recv_many(&mut lines, TOGETHER).await == 0;
            let until = Instant::now() + SOON;
            while !is_over && lines.iter().all(|line| line.done.is_none()) {
                match timeout_at(until, waiting.recv_many(&mut lines, TOGETHER)).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
            let ends = all_that_came(&mut waiting, &later, &mut lines);
            let written = self.put_down(&lines, &ends, &mut is_failing);
            for done in lines.drain(..).filter_map(|line| line.done) {
                // Who waited may be gone.
                drop(done.send(written.clone()));
            }
            if is_over {
                return;
            }
        }
    }

    fn put_down(
        &mut self,
        lines: &[Command],
        ends: &[Entry],
        is_failing: &mut bool,
    ) -> Result<(), Unwritten> {
        let entries: Vec<&Entry> =
            lines.iter().filter_map(|line| line.entry.as_ref()).chain(ends).collect();
        let is_waited_for = lines.iter().any(|line| line.done.is_some());
        let written = self.write(&entries, is_waited_for);
        let written = written.map_err(|error| Unwritten(error.to_string()));
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        match &written {
            Ok(()) => {
                metrics::counter!("holdfast_audit_lines_total").increment(count);
                *is_failing = false;
            }
            Err(Unwritten(why)) => {
                self.fail();
                count_unwritten(count);
                if !*is_failing {
                    tracing::error!(folder = %self.folder.display(), why, "what leaves the device cannot be put on record");
                }
                *is_failing = true;
            }
        }
        self.is_stuck.store(false, Ordering::Relaxed);
        written
    }

    fn write(&mut self, entries: &[&Entry], is_waited_for: bool) -> io::Result<()> {
        if let Some(first) = entries.first() {
            let mut last = self.begin(first)?;
            let mut text = String::new();
            for entry in entries {
                let number = last.0 + 1;
                let (line, seal) = chain::line(&Entry { number, ..(*entry).clone() }, last.1)?;
                text += &line;
                last = (number, seal);
            }
            let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
            open.file.write_all(text.as_bytes())?;
            open.bytes += length(&text);
            self.last = Some(last);
        }
        match (&mut self.open, self.last) {
            (Some(open), Some(last)) if is_waited_for => open.sync(last),
            _ => Ok(()),
        }
    }

    /// Makes sure that a file is open with room in it; the last line's number and seal.
    fn begin(&mut self, model: &Entry) -> io::Result<End> {
        let last = match self.last {
            Some(last) => last,
            None => self.look()?,
        };
        let most = (self.max_bytes / FILES).clamp(LEAST, MOST);
        if let Some(open) = &self.open
            && !open.is_in_place()?
        {
            tracing::error!(path = %open.path.display(), "the record was taken away while it was written; it goes on in a new file");
            self.open = None;
        }
        if let Some(open) = &mut self.open {
            if open.bytes < most {
                return Ok(last);
            }
            // The next file says what this one ends with.
            open.sync(last)?;
        }
        if !self.folder.exists() {
            fs::create_dir_all(&self.folder)?;
            self.folder.parent().map_or(Ok(()), sync_folder)?;
        }
        self.drop_oldest(most)?;
        let (number, after) = (last.0 + 1, last.1);
        let event = Event::Begun { after: after.to_hex() };
        let (line, seal) = chain::line(&Entry { number, event, ..model.clone() }, after)?;
        let path = self.folder.join(format!("{number:020}.jsonl"));
        if path.exists() {
            // Nothing of it could be read, or it failed before its first line was on disk.
            fs::rename(&path, path.with_extension("bad"))?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        sync_folder(&self.folder)?;
        let (bytes, last) = (length(&line), (number, seal));
        self.open = Some(Open { file, path, bytes, synced: (bytes, last) });
        self.last = Some(last);
        Ok(last)
    }

    /// Looks where the record goes on, and opens its newest file for that if it is whole.
    fn look(&mut self) -> io::Result<End> {
        let Last { number, seal, file } = reader::last(&self.folder)?;
        let last = (number, seal);
        if let Some(Part { path, bytes, .. }) = file {
            let file = OpenOptions::new().append(true).open(&path)?;
            self.open = Some(Open { file, path, bytes, synced: (bytes, last) });
        }
        self.last = Some(last);
        Ok(last)
    }

    /// Goes back to what the disk has for certain, as far as the disk lets it.
    fn fail(&mut self) {
        let Some(Open { file, synced: (bytes, last), .. }) = self.open.take() else { return };
        self.last = Some(last);
        if let Err(error) = file.set_len(bytes) {
            tracing::warn!(%error, "lines that nobody relies on stay in the record: `audit verify` shows them");
        }
    }

    /// Removes the oldest files, so that another one of `most` bytes has room.
    fn drop_oldest(&self, most: u64) -> io::Result<()> {
        let files = reader::files(&self.folder)?;
        let mut bytes = files.iter().map(|file| file.bytes).sum::<u64>();
        for file in files {
            if bytes.saturating_add(most) <= self.max_bytes {
                break;
            }
            fs::remove_file(&file.path)?;
            bytes -= file.bytes;
            metrics::counter!("holdfast_audit_files_dropped_total").increment(1);
            tracing::info!(file = %file.path.display(), "the oldest part of the record is dropped");
        }
        Ok(())
    }
}

/// Adds all that waits to `lines`, and takes the ends: each of a send whose line came with them or before,
/// and none stays whose word to the writer found no room.
fn all_that_came(
    waiting: &mut mpsc::Receiver<Command>,
    later: &Later,
    lines: &mut Vec<Command>,
) -> Vec<Entry> {
    let mut ends = Vec::new();
    loop {
        ends.extend(later.take());
        let before = lines.len();
        while let Ok(line) = waiting.try_recv() {
            lines.push(line);
        }
        if lines.len() == before {
            return ends;
        }
    }
}

fn length(text: &str) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
