//! `holdfast-agent queue export`: writes the requests that have no end yet to a file that another
//! agent can import.
//!
//! **Invariant:** a file under the given name is whole and synced, and only its owner may read it:
//! what is held can be confidential.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::nameless::Beside;
use super::place::{Holder, Place, of_queue};
use crate::cli::{Exit, Failure};
use crate::export::{Head, Line, Tail};
use crate::queue::{QueueError, RequestId, State};

/// What was exported.
#[derive(Debug, Default, Serialize)]
pub(super) struct Exported {
    /// Requests that were written.
    pub(super) requests: u64,
    /// Bytes that were written.
    pub(super) bytes: u64,
    /// Requests that came to their end meanwhile, or whose bytes are damaged, with the reason.
    pub(super) left_out: Vec<String>,
    /// Whether any of these is damaged.
    #[serde(skip)]
    pub(super) is_damaged: bool,
}

/// Exports to a file, or to stdout.
pub(super) fn export(
    place: &Place,
    state: Option<State>,
    to: Option<&Path>,
) -> Result<Exported, Failure> {
    let Some(path) = to else {
        let mut out = Counted { to: std::io::stdout().lock(), bytes: 0 };
        return write(place, state, &mut out).map(|done| Exported { bytes: out.bytes, ..done });
    };
    // A link leads to where the file is to be; a device or a pipe is written to as it is.
    let path = &path.canonicalize().unwrap_or_else(|_new| path.to_owned());
    if path.exists() && !path.is_file() {
        let opened = File::options().write(true).open(path);
        let file = opened.map_err(|error| unwritable(path, &error))?;
        let mut out = Counted { to: file, bytes: 0 };
        return write(place, state, &mut out).map(|done| Exported { bytes: out.bytes, ..done });
    }
    let beside = Beside::of(path).map_err(|error| unwritable(path, &error))?;
    let done = write_file(place, state, &beside.file, path)?;
    beside.put(path).map_err(|error| unwritable(path, &error))?;
    Ok(done)
}

fn write_file(
    place: &Place,
    state: Option<State>,
    file: &File,
    path: &Path,
) -> Result<Exported, Failure> {
    let mut out = Counted { to: BufWriter::new(file), bytes: 0 };
    let done = write(place, state, &mut out)?;
    let Counted { to, bytes } = out;
    let synced =
        to.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|f| f.sync_all());
    synced.map_err(|error| unwritable(path, &error))?;
    Ok(Exported { bytes, ..done })
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Storage, format!("cannot write {}: {error}", path.display()))
}

fn write(place: &Place, state: Option<State>, out: &mut impl Write) -> Result<Exported, Failure> {
    let mut done = Exported::default();
    line(out, &Head::new())?;
    match place.holder()? {
        Holder::Nobody => {}
        Holder::Agent(agent) => {
            let ids = agent.ids(state)?;
            each(&ids, &mut done, out, |id| agent.exported(id).map_err(Trouble::of_agent))?;
        }
        Holder::Stopped { queue, damage } => {
            done.is_damaged = damage.is_any();
            let list = queue.list(state, usize::MAX).map_err(|error| of_queue(&error))?;
            let open = list.into_iter().filter(|found| state.is_some() || !found.state.is_final());
            let ids: Vec<RequestId> = open.map(|found| found.id).collect();
            let exported = |id| {
                let Some(body) = queue.body(id)? else { return Ok(None) };
                let Some(record) = queue.get(id)? else { return Ok(None) };
                let line = Line::of(&record.summary, &record.envelope, &body, place.now_ms);
                Ok(Some(line))
            };
            each(&ids, &mut done, out, |id| exported(id).map_err(Trouble::of))?;
        }
    }
    line(out, &Tail { requests: done.requests })?;
    out.flush().map_err(|error| Failure::new(Exit::Storage, format!("cannot write: {error}")))?;
    Ok(done)
}

/// What may happen to one request.
enum Trouble {
    /// Its own bytes.
    Damaged(String),
    /// No other would fare better.
    Ends(Failure),
}

impl Trouble {
    fn of_agent(failure: Failure) -> Self {
        match failure.exit {
            Exit::Found => Self::Damaged(failure.sentence),
            _ => Self::Ends(failure),
        }
    }

    fn of(error: QueueError) -> Self {
        match error {
            QueueError::Damaged { .. } => Self::Damaged(error.to_string()),
            error => Self::Ends(of_queue(&error)),
        }
    }
}

fn each(
    ids: &[RequestId],
    done: &mut Exported,
    out: &mut impl Write,
    exported: impl Fn(RequestId) -> Result<Option<Line>, Trouble>,
) -> Result<(), Failure> {
    // Drawn on stderr, and only when that is a terminal.
    let bar = ProgressBar::new(ids.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} requests, {eta} left") {
        bar.set_style(style);
    }
    for id in ids {
        match exported(*id) {
            Ok(Some(found)) => {
                line(out, &found)?;
                done.requests += 1;
            }
            Ok(None) => done.left_out.push(format!("{id} has its end")),
            Err(Trouble::Damaged(why)) => {
                done.left_out.push(why);
                done.is_damaged = true;
            }
            Err(Trouble::Ends(failure)) => return Err(failure),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

fn line(out: &mut impl Write, value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_vec(value).map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
    out.write_all(&text)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(|error| Failure::new(Exit::Storage, format!("cannot write the export: {error}")))
}

/// Counts what goes through.
struct Counted<W> {
    to: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
