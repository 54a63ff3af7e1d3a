//! Owns how another process of this device tells the agent what it fetched: lines in a file that the
//! agent takes away.
//!
//! **Invariant:** a line is counted at most once, and one that cannot be read is nothing.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::ledger::Bytes;

const FILE: &str = "network.spool";
const TAKEN: &str = "network.taken";

/// Leaves a line for the agent whose state is under `state_dir`. Blocks.
///
/// # Errors
/// The disk's.
pub fn leave(state_dir: &Path, bytes: Bytes) -> io::Result<()> {
    let mut file =
        OpenOptions::new().create(true).append(true).mode(0o644).open(state_dir.join(FILE))?;
    file.write_all(format!("{} {}\n", bytes.sent, bytes.received).as_bytes())
}

/// Takes what was left away. Blocks.
pub(super) fn take(state_dir: &Path) -> Bytes {
    let (left, taken) = (state_dir.join(FILE), state_dir.join(TAKEN));
    if std::fs::rename(&left, &taken).is_err() {
        return Bytes::default();
    }
    let Ok(text) = std::fs::read_to_string(&taken) else { return Bytes::default() };
    drop(std::fs::remove_file(&taken));
    text.lines().filter_map(line).fold(Bytes::default(), Bytes::plus)
}

fn line(text: &str) -> Option<Bytes> {
    let (sent, received) = text.split_once(' ')?;
    Some(Bytes { sent: sent.parse().ok()?, received: received.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(take(dir.path()), Bytes::default());
        leave(dir.path(), Bytes { sent: 1, received: 20 }).unwrap();
        leave(dir.path(), Bytes { sent: 300, received: 4000 }).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(dir.path().join(FILE))
            .unwrap()
            .write_all(b"torn 7\n12")
            .unwrap();
        assert_eq!(take(dir.path()), Bytes { sent: 301, received: 4020 });
        assert_eq!(take(dir.path()), Bytes::default());
    }
}
