//! One damage of one file.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Numbers that look random, the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit.max(1)
    }

    pub(crate) fn bytes(&mut self, len: u64) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// What was done.
pub(crate) struct Harm {
    pub(crate) kind: &'static str,
    pub(crate) text: String,
}

/// All files under a folder.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { dirs.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

/// Does one damage to one file of a store; `older` is an older copy of the same store.
pub(crate) fn one(store: &Path, older: &Path, random: &mut Random) -> Harm {
    let all = files(store);
    // Half of all damage falls on the journal, which is the truth.
    let segments: Vec<_> =
        all.iter().filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    let path = if random.below(2) == 0 && !segments.is_empty() {
        segments[random.below(segments.len() as u64) as usize].clone()
    } else {
        all[random.below(all.len() as u64) as usize].clone()
    };
    let len = fs::metadata(&path).unwrap().len();
    // A place where something is: files end in long empty parts.
    let used = fs::read(&path).unwrap().iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    let at = random.below(used as u64 + 1);
    let write = |at: u64, bytes: &[u8]| {
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
    };
    let (kind, detail) = match random.below(9) {
        0 => {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(at).unwrap();
            ("cut", format!("to {at} of {len} bytes"))
        }
        1 | 2 => {
            let bits = 1 + random.below(6);
            let mut bytes = fs::read(&path).unwrap();
            for _ in 0..bits.min(used as u64) {
                let at = random.below(used as u64) as usize;
                bytes[at] ^= 1 << random.below(8);
            }
            fs::write(&path, bytes).unwrap();
            ("flip", format!("{bits} bits"))
        }
        3 => {
            let span = 1 + random.below(5000).min(len - at.min(len));
            write(at, &vec![0; span as usize]);
            ("blank", format!("{span} bytes at {at}"))
        }
        4 => {
            let span = 1 + random.below(5000);
            write(at, &random.bytes(span));
            ("noise", format!("{span} bytes at {at}"))
        }
        5 => {
            let span = 1 + random.below(10_000);
            write(len, &random.bytes(span));
            ("lengthen", format!("by {span} bytes"))
        }
        6 => {
            fs::remove_file(&path).unwrap();
            ("delete", String::new())
        }
        7 => {
            let from = older.join(path.strip_prefix(store).unwrap());
            if from.exists() {
                fs::copy(from, &path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            ("older", String::new())
        }
        _ => {
            let other = &all[random.below(all.len() as u64) as usize];
            if *other != path {
                fs::copy(other, &path).unwrap();
            }
            ("swap", format!("with {}", other.strip_prefix(store).unwrap().display()))
        }
    };
    let text = format!("{kind} {} {detail}", path.strip_prefix(store).unwrap().display());
    Harm { kind, text }
}
