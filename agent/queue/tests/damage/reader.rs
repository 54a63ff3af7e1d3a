//! A reader of journal segments, from the description of their format and nothing else: it finds where
//! records lie in a good segment.

use std::{ops::Range, path::Path};

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Accept,
    Retry,
    Final,
}

/// Where a record lies.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    /// The request's id, as a UUID's bytes.
    pub(crate) id: [u8; 16],
    /// Its header, meta and body in the file.
    pub(crate) bytes: Range<usize>,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn crc_is_right(header: &[u8]) -> bool {
    number(&header[60..64]) == u64::from(crc32c::crc32c(&header[..60]))
}

/// The segment's header that holds, of its two copies.
pub(crate) fn header(file: &[u8]) -> Option<&[u8]> {
    [0, 2048].into_iter().find_map(|at| {
        let header = file.get(at..at + 64)?;
        (header.starts_with(b"HOLDFAST") && crc_is_right(header)).then_some(header)
    })
}

/// The records of a good segment.
pub(crate) fn records(path: &Path) -> Vec<Record> {
    let file = std::fs::read(path).unwrap();
    let tag = header(&file).expect("a good segment")[24..32].to_vec();
    let mut records = Vec::new();
    let mut at = 4096;
    while let Some(header) = file.get(at..at + 64) {
        if !header.starts_with(&tag) || !crc_is_right(header) {
            at += 64;
            continue;
        }
        let kind = match header[9] {
            1 => Kind::Accept,
            2 => Kind::Retry,
            3 => Kind::Final,
            other => panic!("{}: a record of kind {other} at {at}", path.display()),
        };
        let len = 64 + number(&header[12..16]) as usize + number(&header[16..24]) as usize;
        let meta = &file[at + 64..at + 64 + number(&header[12..16]) as usize];
        assert_eq!(number(&header[32..36]), u64::from(crc32c::crc32c(meta)), "{}", path.display());
        let id = header[40..56].try_into().unwrap();
        records.push(Record { kind, id, bytes: at..at + len });
        at = (at + len).next_multiple_of(64);
    }
    records
}
