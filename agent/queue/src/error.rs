//! What can go wrong in the queue, typed by what the caller does next.
//!
//! **Invariant:** a variant tells the HTTP layer its status without reading the text: `Full` is
//! "later", `NoSpace` is 507, `KeyConflict` and `TooLarge` are the caller's fault, the rest is ours.

use std::{io, path::PathBuf, sync::Arc};

use super::{RequestId, disk::is_unreadable};

/// What is tried of a segment first.
pub(super) const READ_HEADER: &str = "read the header of";

/// The limit that refused a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullRule {
    /// `max_requests` requests are held.
    Count,
    /// The held requests take `max_bytes` bytes in the journal.
    Bytes,
}

impl std::fmt::Display for FullRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FullRule::Count => "requests",
            FullRule::Bytes => "bytes",
        })
    }
}

/// Why the queue did not do what it was asked.
///
/// Cloned to every caller that shared a failed sync.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// Another process has the directory.
    #[error("queue {} is in use by {holder}: ask it through its API, or stop it", dir.display())]
    InUse {
        /// The queue's directory.
        dir: PathBuf,
        /// Who has it, as far as the lock file tells.
        holder: String,
    },
    /// The bound on held requests is reached; new ones are refused until some are done.
    #[error(
        "queue is full: {limit} {rule} are held, the limit set by the configuration; try later"
    )]
    Full {
        /// Which bound.
        rule: FullRule,
        /// Its value.
        limit: u64,
    },
    /// The disk has no room left beyond the headroom kept for the rest of the system.
    #[error(
        "no space for the queue in {}: {needed} bytes are needed{}, and {free} are free; free some \
         space", dir.display(), beyond(*headroom)
    )]
    NoSpace {
        /// The journal's directory.
        dir: PathBuf,
        /// Bytes that had to be allocated.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that the queue leaves free.
        headroom: u64,
    },
    /// The file system can make no more files beyond those kept for the rest of the system.
    #[error(
        "no space for the queue in {}: one file is needed{}, and {free} can be made; delete some \
         files", dir.display(), beyond(*headroom)
    )]
    NoInodes {
        /// The journal's directory.
        dir: PathBuf,
        /// Files that can be made.
        free: u64,
        /// Files that the queue leaves to be made.
        headroom: u64,
    },
    /// The idempotency key belongs to a request with another body.
    #[error(
        "idempotency key {key:?} was used for request {id} with another content: use a new key"
    )]
    KeyConflict {
        /// The key.
        key: String,
        /// The request that has it.
        id: RequestId,
    },
    /// The id is taken by another request.
    #[error("request id {id} is taken: make a new one")]
    IdTaken {
        /// The id.
        id: RequestId,
    },
    /// A part of the request is over its limit.
    #[error("{what} of {bytes} bytes is over the limit of {limit} bytes")]
    TooLarge {
        /// The part.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// There is no such request, or its result's keep time is over.
    #[error("request {id} is not known here: it never was, or its result's keep time is over")]
    Unknown {
        /// The id.
        id: RequestId,
    },
    /// The bytes of this record no longer match their checksum.
    #[error("request {id} is damaged on disk (segment {segment}, offset {offset}): send it again")]
    Damaged {
        /// The request.
        id: RequestId,
        /// Segment number.
        segment: u64,
        /// Byte offset of the record.
        offset: u64,
    },
    /// The journal's folder is gone.
    #[error(
        "queue {} has no folder `journal`, where requests are held: put it back if it was moved away; \
         if it is gone, `holdfast-agent queue repair` names what is lost with it, as far as the index \
         knows, and makes an empty one", dir.display()
    )]
    NoJournal {
        /// The queue's directory.
        dir: PathBuf,
    },
    /// A file operation failed.
    #[error("queue cannot {what} {}{}", path.display(), remedy(what, source))]
    Storage {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Arc<io::Error>,
    },
    /// The index failed; the journal is untouched and the index is made anew from it.
    #[error("queue index failed: {detail}; it is made anew from the journal, try again shortly")]
    Index {
        /// What it said.
        detail: String,
    },
    /// The queue is closed.
    #[error("queue is closed")]
    Closed,
}

/// What is not to be touched, where there is any.
fn beyond(headroom: u64) -> String {
    match headroom {
        0 => String::new(),
        kept => format!(" beyond the {kept} that are kept for the system"),
    }
}

/// What to do about a cause that an operator can remove.
fn remedy(what: &str, source: &io::Error) -> &'static str {
    match source.kind() {
        _ if what == READ_HEADER && is_unreadable(source) => {
            " (the disk did not give it: nothing was changed, try again; if it stays so, `holdfast-agent \
             queue repair` sets this file aside and goes on without what is in it)"
        }
        io::ErrorKind::PermissionDenied => {
            " (give the agent's user the right to read and write it)"
        }
        io::ErrorKind::StorageFull => " (the disk is full: free some space)",
        io::ErrorKind::QuotaExceeded => " (the quota is used up: free some space, or raise it)",
        io::ErrorKind::InvalidInput
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::AlreadyExists => {
            " (something else is in its place, such as a folder, a pipe or a link: move that away)"
        }
        io::ErrorKind::ReadOnlyFilesystem => " (its file system is read-only: mount it writable)",
        _ => "",
    }
}

impl QueueError {
    /// Wraps a file error with what was tried and on which file.
    pub(super) fn storage(what: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        QueueError::Storage { what, path: path.to_owned(), source: Arc::new(source) }
    }

    /// The same, if it is not that the journal's folder is not there.
    pub(super) fn or_no_journal(self, dir: &std::path::Path) -> Self {
        match &self {
            QueueError::Storage { source, .. }
                if source.kind() == io::ErrorKind::NotFound && dir.is_dir() =>
            {
                QueueError::NoJournal { dir: dir.to_owned() }
            }
            _ => self,
        }
    }

    /// Whether the disk has lost what was there.
    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self, QueueError::Storage { source, .. } if is_unreadable(source))
    }

    /// Whether the cause is a disk (or quota) without space: HTTP 507.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            QueueError::NoSpace { .. } | QueueError::NoInodes { .. } => true,
            QueueError::Storage { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ),
            _ => false,
        }
    }
}
