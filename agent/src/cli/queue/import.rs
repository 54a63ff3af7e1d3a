//! `holdfast-agent queue import`: takes in what another agent exported.
//!
//! **Invariant:** the whole file is read and checked before the first request is taken in; what is
//! known by its id or its key is left as it is, so that importing twice is importing once.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::nameless::scratch;
use super::place::Place;
use crate::cli::{Exit, Failure};
use crate::export::{ExportError, Head, Line, MAX_LINE_BYTES, Tail};

/// What was imported.
#[derive(Debug, Default, Serialize)]
pub(super) struct Imported {
    /// Requests that are held now.
    pub(super) imported: u64,
    /// Requests that were there already.
    pub(super) known: u64,
    /// Requests that were not taken, with the line and the reason.
    pub(super) refused: Vec<String>,
}

/// A file of lines.
struct Lines<'a> {
    name: &'a str,
    file: BufReader<File>,
    number: u64,
    head_read: bool,
    requests: u64,
}

impl<'a> Lines<'a> {
    /// From the beginning of the file on.
    fn of(name: &'a str, file: &File) -> Result<Self, Failure> {
        let mut file = file.try_clone().map_err(|error| unreadable(name, &error))?;
        file.rewind().map_err(|error| unreadable(name, &error))?;
        let file = BufReader::new(file);
        Ok(Self { name, file, number: 0, head_read: false, requests: 0 })
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Failure {
        let Self { name, number, .. } = self;
        Failure::new(Exit::Found, format!("{name}, line {number}: {why}; nothing was imported"))
    }

    fn text(&mut self) -> Result<String, Failure> {
        self.number += 1;
        let mut text = String::new();
        let mut file = (&mut self.file).take(MAX_LINE_BYTES as u64);
        let read = file.read_line(&mut text);
        match read {
            Err(error) => Err(self.wrong(error)),
            Ok(0) => Err(self.wrong("the file ends before its last line: it was cut off")),
            Ok(_) if !text.ends_with('\n') => {
                Err(self.wrong("the line has no end: it was cut off"))
            }
            Ok(_) => Ok(text),
        }
    }

    /// The next request; `None` after the last one of a whole file.
    fn next(&mut self) -> Result<Option<Line>, Failure> {
        if !self.head_read {
            let text = self.text()?;
            let head: Head = serde_json::from_str(&text)
                .map_err(|_| self.wrong("this is no export of a queue"))?;
            head.check().map_err(|error: ExportError| self.wrong(error))?;
            self.head_read = true;
        }
        let text = self.text()?;
        if let Ok(Tail { requests }) = serde_json::from_str(&text) {
            if requests != self.requests {
                let got = self.requests;
                return Err(
                    self.wrong(format!("{requests} requests were exported, {got} are here"))
                );
            }
            return Ok(None);
        }
        self.requests += 1;
        let line = Line::parse(text.trim_end().as_bytes());
        line.map(Some).map_err(|error| self.wrong(crate::error_chain(&error)))
    }
}

/// The file, by the name that it is called. What comes through a pipe is kept until all is read.
fn open(place: &Place, path: &Path) -> Result<(String, File), Failure> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "stdin".to_owned() } else { path.display().to_string() };
    let file = if is_stdin {
        std::io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(path)
    };
    let mut file = file.map_err(|error| unreadable(&name, &error))?;
    let kind = file.metadata().map_err(|error| unreadable(&name, &error))?.file_type();
    if kind.is_dir() {
        let sentence = format!("{name} is a folder; give the file that `queue export` wrote");
        return Err(Failure::new(Exit::Unavailable, sentence));
    }
    if kind.is_file() {
        return Ok((name, file));
    }
    let dir = &place.config.state_dir;
    let copied = std::fs::create_dir_all(dir).and_then(|()| scratch(dir)).and_then(|mut kept| {
        std::io::copy(&mut file, &mut kept)?;
        Ok(kept)
    });
    let file = copied.map_err(|error| {
        Failure::new(Exit::Storage, format!("cannot keep {name} in {}: {error}", dir.display()))
    })?;
    Ok((name, file))
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Unavailable, format!("cannot read {name}: {error}"))
}

/// Imports a file, all of it or, when a line of it does not read, nothing.
pub(super) fn import(place: &Place, path: &Path) -> Result<Imported, Failure> {
    let (name, file) = open(place, path)?;
    let mut lines = Lines::of(&name, &file)?;
    while let Some(line) = lines.next()? {
        if let Err(error) = line.entry(place.now_ms) {
            return Err(lines.wrong(crate::error_chain(&error)));
        }
    }
    let total = lines.requests;
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {eta} left") {
        bar.set_style(style);
    }
    let writer = place.writer_or_new()?;
    let mut done = Imported::default();
    let mut lines = Lines::of(&name, &file)?;
    while let Some(line) = lines.next()? {
        match writer.take_in(&line) {
            Ok(taken) if taken.known => done.known += 1,
            Ok(_) => done.imported += 1,
            Err(failure) if failure.exit == Exit::Found => {
                done.refused.push(format!("line {}: {}", lines.number, failure.sentence));
            }
            Err(failure) => {
                writer.close()?;
                let taken = done.imported + done.known;
                let sentence = format!(
                    "{}; {taken} of {total} requests are in: import the file again when there is \
                     room, those are skipped then",
                    failure.sentence
                );
                return Err(Failure::new(failure.exit, sentence));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    writer.close()?;
    Ok(done)
}
