//! Owns the writing of the record: one thread, one sync for all lines that wait.
//!
//! **Invariant:** who waits for a line is told that it is written when the disk has it, and not before; a
//! file that failed is never written to again, since nobody knows what of it is on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, oneshot};

use super::Unwritten;
use super::chain::{self, Seal};
use super::event::{Entry, Event};
use super::reader::{self, Last, Part};

/// Lines of one sync at most.
const TOGETHER: usize = 256;
/// The record is in so many files, so that it can be kept short by dropping one.
const FILES: u64 = 8;
/// A file has at least so many bytes before the next begins.
const LEAST: u64 = 64 * 1024;

/// A line to be written.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) entry: Entry,
    /// Who waits for it.
    pub(super) done: Option<oneshot::Sender<Result<(), Unwritten>>>,
}

/// Writes the files of one folder.
#[derive(Debug)]
pub(super) struct Writer {
    folder: PathBuf,
    max_bytes: u64,
    open: Option<Open>,
    /// The number and the seal of the last line that the disk took; none before the first look.
    last: Option<(u64, Seal)>,
}

#[derive(Debug)]
struct Open {
    file: File,
    bytes: u64,
}

/// Notes lines that the record lacks.
pub(super) fn count_unwritten(lines: u64) {
    metrics::counter!("holdfast_audit_unwritten_total").increment(lines);
}

impl Writer {
    pub(super) fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self { folder, max_bytes, open: None, last: None }
    }

    /// Writes what comes until nobody is left who could send something. Blocks.
    pub(super) fn run(mut self, mut waiting: mpsc::Receiver<Command>) {
        let mut lines = Vec::new();
        let mut is_failing = false;
        while waiting.blocking_recv_many(&mut lines, TOGETHER) > 0 {
            let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
            let written = self.write(&lines).map_err(|error| Unwritten(error.to_string()));
            match &written {
                Ok(()) => {
                    metrics::counter!("holdfast_audit_lines_total").increment(count);
                    is_failing = false;
                }
                Err(Unwritten(why)) => {
                    self.fail();
                    count_unwritten(count);
                    if !is_failing {
                        tracing::error!(folder = %self.folder.display(), why, "what leaves the device cannot be put on record");
                    }
                    is_failing = true;
                }
            }
            for done in lines.drain(..).filter_map(|line| line.done) {
                // Who waited may be gone.
                drop(done.send(written.clone()));
            }
        }
    }

    fn write(&mut self, lines: &[Command]) -> io::Result<()> {
        let (mut number, mut seal) = self.begin(lines)?;
        let mut text = String::new();
        for line in lines {
            number += 1;
            let entry = Entry { number, ..line.entry.clone() };
            let (line, own) = chain::line(&entry, seal)?;
            text += &line;
            seal = own;
        }
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        open.file.write_all(text.as_bytes())?;
        if lines.iter().any(|line| line.done.is_some()) {
            open.file.sync_data()?;
        }
        open.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
        self.last = Some((number, seal));
        Ok(())
    }

    /// Makes sure that a file is open with room in it; the last line's number and seal.
    fn begin(&mut self, lines: &[Command]) -> io::Result<(u64, Seal)> {
        let last = match self.last {
            Some(last) => last,
            None => self.look()?,
        };
        let most = (self.max_bytes / FILES).max(LEAST);
        if self.open.as_ref().is_some_and(|open| open.bytes < most) {
            return Ok(last);
        }
        let Some(model) = lines.first() else { return Ok(last) };
        fs::create_dir_all(&self.folder)?;
        self.drop_oldest(most)?;
        let (number, after) = (last.0 + 1, last.1);
        let event = Event::Begun { after: after.to_hex() };
        let (line, seal) = chain::line(&Entry { number, event, ..model.entry.clone() }, after)?;
        let path = self.folder.join(format!("{number:020}.jsonl"));
        let mut options = OpenOptions::new();
        // Of a file that failed before its first line was on disk nothing counts.
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        sync_folder(&self.folder)?;
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        self.open = Some(Open { file, bytes });
        self.last = Some((number, seal));
        Ok((number, seal))
    }

    /// Looks where the record goes on, and opens its newest file for that if it is whole.
    fn look(&mut self) -> io::Result<(u64, Seal)> {
        let Last { number, seal, file } = reader::last(&self.folder)?;
        if let Some(Part { path, bytes, .. }) = file {
            let file = OpenOptions::new().append(true).open(path)?;
            self.open = Some(Open { file, bytes });
        }
        self.last = Some((number, seal));
        Ok((number, seal))
    }

    /// Gives back what of a file was not told to be on disk, as far as the disk lets it.
    fn fail(&mut self) {
        if let Some(Open { file, bytes }) = self.open.take()
            && let Err(error) = file.set_len(bytes)
        {
            tracing::debug!(%error, "a line that nobody relies on stays in the record");
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

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
