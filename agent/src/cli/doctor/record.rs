//! Owns what `doctor` says of the record of what left the device.
//!
//! **Invariant:** it reads files, and changes none.

use super::Finding;
use crate::audit::{self, Chain};
use crate::config::Config;

/// How the record is: whole, altered, unreadable, or none.
pub(super) fn of_record(config: &Config) -> Finding {
    let check = "record";
    let folder = audit::folder(&config.state_dir);
    if config.audit.max_bytes == 0 {
        let found = "none is kept of what leaves the device: audit.max_mib is 0";
        return Finding::fine(check, found);
    }
    let chain = match audit::read(&folder, |_, _| {}) {
        Ok(chain) => chain,
        Err(error) => {
            let found = format!("{} cannot be read: {error}", folder.display());
            let advice = "run doctor as the agent's user or root, or mend the folder";
            return match config.audit.required {
                true => Finding::fault(check, format!("{found}; nothing is sent"), advice),
                false => Finding::warn(check, found, advice),
            };
        }
    };
    let Chain { lines, breaks, .. } = chain;
    match breaks.first() {
        None if lines == 0 => Finding::fine(check, "empty: nothing was sent since it is kept"),
        None => Finding::fine(check, format!("{lines} lines, as they were written")),
        Some(first) => {
            let (path, line, what) = (first.file.display(), first.line, first.what);
            let found = format!("{} places are not as written: {path}:{line} {what}", breaks.len());
            let advice =
                "holdfast-agent audit verify shows all; keep the folder if that was nobody's doing";
            Finding::warn(check, found, advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn a_record_is_fine_altered_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::parse("test.toml", "", std::iter::empty()).unwrap();
        config.state_dir = dir.path().to_owned();
        let looked = |config: &Config| {
            let Finding { health, found, .. } = of_record(config);
            (health, found)
        };
        assert!(looked(&config).1.starts_with("empty"));
        let folder = audit::folder(dir.path());
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{:020}.jsonl", 1));
        std::fs::write(&file, "{}\n").unwrap();
        let (health, found) = looked(&config);
        assert_eq!(health, Health::Warn);
        assert!(found.contains("1 places") && found.contains(":1 cannot be read"), "{found}");
        config.audit.max_bytes = 0;
        assert_eq!(looked(&config).0, Health::Fine);
        // A folder in a file's place cannot be read, by root neither.
        config.audit.max_bytes = 1 << 20;
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        for (required, want) in [(false, Health::Warn), (true, Health::Fault)] {
            config.audit.required = required;
            assert_eq!(looked(&config).0, want);
        }
    }
}
