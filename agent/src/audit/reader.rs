//! Owns the reading of the record, and whether it is as it was written.
//!
//! **Invariant:** reading changes nothing; a line that was cut off by a power failure at the end of a file is
//! not taken for one that was altered.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::chain::{self, Seal};
use super::event::{Entry, Event};

/// No line is longer.
const LONGEST: usize = 64 * 1024;

/// One file of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The number of its first line.
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// Where the record is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Break {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1.
    pub line: u64,
    /// What is wrong there.
    pub what: &'static str,
}

/// A whole record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Lines.
    pub lines: u64,
    /// The number of the first one: more than 1 where older ones were dropped.
    pub first: u64,
    /// The number of the last one.
    pub number: u64,
    /// The seal of the last one.
    pub last: Seal,
    /// Where it is not as it was written.
    pub breaks: Vec<Break>,
}

/// The files of a folder, the oldest first; none where there is no folder.
pub(super) fn files(folder: &Path) -> io::Result<Vec<Part>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        if let Some(first) = number.and_then(|digits| digits.parse().ok()) {
            let bytes = entry.metadata()?.len();
            files.push(Part { first, path: entry.path(), bytes });
        }
    }
    files.sort_by_key(|file| file.first);
    Ok(files)
}

/// Reads the record of a folder, the oldest line first, each with the seal that it shows.
///
/// # Errors
/// A file that cannot be read.
pub fn read(folder: &Path, mut visit: impl FnMut(&Entry, Seal)) -> io::Result<Chain> {
    let mut chain = Chain::default();
    for part in files(folder)? {
        let file = match fs::File::open(&part.path) {
            Ok(file) => file,
            // The agent dropped it meanwhile, for it was the oldest.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut lines = BufReader::new(file);
        let (mut at, mut text) = (0, Vec::new());
        loop {
            text.clear();
            let limit = u64::try_from(LONGEST).unwrap_or(u64::MAX);
            let length = io::Read::take(&mut lines, limit).read_until(b'\n', &mut text)?;
            if length == 0 {
                break;
            }
            at += 1;
            let what = match text.strip_suffix(b"\n") {
                // A crash may leave such an end; whoever waited for it was never told that it is there.
                None if length < LONGEST => break,
                None => Some("is too long"),
                Some(line) => chain.take(line, at == 1, &mut visit),
            };
            if let Some(what) = what {
                chain.breaks.push(Break { file: part.path.clone(), line: at, what });
                if length == LONGEST {
                    break;
                }
            }
        }
    }
    Ok(chain)
}

impl Chain {
    /// Takes the next line; what is wrong with it.
    fn take(
        &mut self,
        line: &[u8],
        is_first_of_file: bool,
        visit: &mut impl FnMut(&Entry, Seal),
    ) -> Option<&'static str> {
        let text = std::str::from_utf8(line).ok();
        let after = match text.filter(|_| self.lines == 0).and_then(begun_after) {
            // What was before the oldest file is not there to be looked at.
            Some(after) => after,
            None => self.last,
        };
        let read = text.and_then(|text| chain::read(text, after).ok());
        let Some((entry, shown, right)) = read else { return Some("cannot be read") };
        if self.lines == 0 {
            self.first = entry.number;
        }
        self.lines += 1;
        let is_next = self.lines == 1 || entry.number == self.number.saturating_add(1);
        let is_before = entry.number <= self.number;
        self.number = entry.number;
        self.last = shown;
        visit(&entry, shown);
        let is_begin = matches!(entry.event, Event::Begun { .. });
        match () {
            () if is_before && is_begin && is_first_of_file => Some(
                "goes on from before the lines above: a disk that failed, or an altered record",
            ),
            () if shown != right => {
                Some("or the one before it was altered, or one between is missing")
            }
            () if !is_next => Some("has the wrong number"),
            () if is_begin != is_first_of_file => Some("is not where a file begins"),
            () => None,
        }
    }
}

/// The seal behind which a file begins by its first line.
fn begun_after(line: &str) -> Option<Seal> {
    let (entry, _, _) = chain::read(line, Seal::default()).ok()?;
    match entry.event {
        Event::Begun { after } => Seal::from_hex(&after),
        Event::Sent(_) | Event::Ended(_) => None,
    }
}

/// Where a record goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Last {
    /// The number of its last whole line; 0 where there is none.
    pub(super) number: u64,
    pub(super) seal: Seal,
    /// The newest file, if it ends with that line.
    pub(super) file: Option<Part>,
}

/// The end of the record in a folder.
pub(super) fn last(folder: &Path) -> io::Result<Last> {
    let mut newest = true;
    for part in files(folder)?.into_iter().rev() {
        let bytes = fs::read(&part.path)?;
        let whole =
            bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        let lines = whole.map(|line| {
            let text = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
            chain::read(text, Seal::default()).ok()
        });
        let is_whole = bytes.ends_with(b"\n");
        let (mut last, mut is_last) = (None, false);
        for line in lines {
            is_last = line.is_some();
            last = line.or(last);
        }
        if let Some((entry, seal, _)) = last {
            let file = Some(part).filter(|_| newest && is_whole && is_last);
            return Ok(Last { number: entry.number, seal, file });
        }
        newest = false;
    }
    Ok(Last::default())
}
