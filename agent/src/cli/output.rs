//! Owns what goes to stdout.
//!
//! **Invariant:** a reader that stops reading (`| head`) ends the output and nothing else.

use std::io::{ErrorKind, Write};

use super::{Exit, Failure};

/// Prints `text` and a line's end.
///
/// # Errors
/// When it cannot be written, but not when nobody reads any more.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Storage, format!("cannot write the result: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Prints `value` as JSON.
///
/// # Errors
/// As [`print`].
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Bug, error.to_string()))?;
    print(&text)
}
