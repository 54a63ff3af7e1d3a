//! Exit codes: scripts rely on them.
//!
//! **Invariant:** a number here never changes its meaning.

use std::process::ExitCode;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Fine = 0,
    /// Wrong arguments.
    Usage = 64,
    /// A server or port that is needed is not there.
    Unavailable = 69,
    /// A fault of this program.
    Bug = 70,
    /// The data directory or registry cannot be used.
    Storage = 74,
    /// Wrong configuration.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_never_change() {
        for (exit, code) in [
            (Exit::Fine, 0),
            (Exit::Usage, 64),
            (Exit::Unavailable, 69),
            (Exit::Bug, 70),
            (Exit::Storage, 74),
            (Exit::Config, 78),
        ] {
            assert_eq!(exit as u8, code, "{exit:?}");
        }
    }
}
