//! The journal's format on disk, version 2. This page is enough to write another reader.
//!
//! # Files
//! `<queue>/journal/` holds **segments** named by their number in 16 lower-case hexadecimal digits:
//! `000000000000002a.seg`. Numbers start at 1 and grow; one is used again only when the last
//! segment was set aside. A segment that could not be read is renamed to `….seg.bad-N` and no longer
//! belongs to the journal; nor does one whose header has another number than its name, or another store
//! than the last segment (a repair that was cut short leaves `….copy` files);
//! `spare.seg`, `next.seg` and `reserve.seg` (for a full disk) are segments to be, without meaning until
//! they are renamed. All numbers are little endian. Files are preallocated and written over, so that
//! what follows the last record is zeros; a file may also be shorter than its capacity, down to the end
//! of its last record.
//!
//! # Segment header
//! The first 4096 bytes; bytes 0..64 and the identical copy at 2048..2112 hold, the rest is zero:
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `HOLDFAST` |
//! | 8 | version of the header, 1 |
//! | 9..16 | zero |
//! | 16..24 | segment number |
//! | 24..32 | tag: random, other for each segment |
//! | 32..48 | store: random, the same for all segments of one queue |
//! | 48..60 | zero |
//! | 60..64 | CRC32C of bytes 0..60 |
//!
//! A reader takes the copy whose CRC is right.
//!
//! # Records
//! From byte 4096 on, each at a multiple of 64: a header of 64 bytes, then the meta, then the body.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | the segment's tag |
//! | 8 | version of meta: 2 is written; 1 is read too, see `version1.rs` |
//! | 9 | kind: 1 accept, 2 retry, 3 final, 4 tombstone |
//! | 10..12 | zero |
//! | 12..16 | length of meta, at most 1 MiB |
//! | 16..24 | length of body |
//! | 24..32 | sequence: grows with each record of the journal, with gaps |
//! | 32..36 | CRC32C of meta |
//! | 36..40 | CRC32C of body |
//! | 40..56 | request id (UUID, big endian as always) |
//! | 56..60 | zero |
//! | 60..64 | CRC32C of bytes 0..60 |
//!
//! The body is the request's (accept), the answer (final), or empty.
//!
//! # Meta
//! The postcard form of [`AcceptMeta`], [`RetryMeta`], [`FinalMeta`] or [`TombstoneMeta`]: the fields in
//! the order in which they are declared, without names. A number of more than one byte is a varint: seven bits a byte, the
//! lowest first, the highest bit set where another byte follows. A text or list is its length as a
//! varint, then its bytes or elements. An optional value is a byte 0, or a byte 1 and the value. An
//! enumeration is the position of its variant as a varint. A version's structs never change; a change
//! gets a new version byte, and its predecessor a reader (`version1.rs` has the fields of version 1).
//!
//! | accept | type |
//! |---|---|
//! | idempotency key and SHA-256 of what was asked | optional (text, 32 bytes) |
//! | priority, 0..=9 | byte |
//! | order: sequence of the id's first accept record | u64 |
//! | accepted at, not before (0: at once; the largest number but one: in line) | u64, u64, milliseconds on the device's own clock |
//! | expires at | optional u64, milliseconds |
//! | attempts, last reason, both as of this record | u32, optional text |
//! | waits for: 0 its turn, 1 budget, 2 the operator (not before is then the largest number) | enumeration |
//! | envelope | list of bytes |
//!
//! A retry is attempts (u32), not before (u64), reason (optional text), waits for. A final is its end (0
//! answered, 1 failed, 2 expired, 3 cancelled), finished at (u64, milliseconds), its number among the
//! results (u64), the request as an accept, and the numbers of the segments that had an accept of this
//! id (list of u64). A tombstone is the number of the final that was forgotten for good, and that of the
//! last segment that there was when it was first written (u64, u64).
//!
//! The tag is a secret of the disk: a payload cannot contain it, so that bytes inside a payload, or
//! left over from a file's earlier life, are never taken for a record.
//!
//! # Reading
//! Segments in order of number, records in order of offset. Where no record starts, go on at the next
//! multiple of 64: zeros are empty space, anything else is damage, counted as one up to the next
//! record or the end; a header with a kind that is not known, a meta of more than 1 MiB, or a length
//! beyond the file's end starts no record. A record whose header is right and whose meta or body is not
//! (or whose version is not known) is skipped by its length. Then, by request id:
//! - **accept**: an unknown id is held; for a held one this is its new place (records are written again
//!   further on to free their segments; the later one counts, and says what retries said before); for a
//!   final one it is left over, unless its order is above the final's number: then the final was
//!   forgotten, and the id was taken in anew;
//! - **retry**: sets attempts, reason, due time and what it waits for of a held id; otherwise it is left over;
//! - **final**: ends the id, known or not: it carries all that is kept of a request. For an id that
//!   is final already this is its new place with the same content; with another number, it is the
//!   final of a later life;
//! - **tombstone**: forgets an id whose final's number, or whose accept's order, is not above the
//!   tombstone's; otherwise it is left over.
//!
//! # Invariants
//! 1. A record is acknowledged only after fdatasync of its segment, and fsync of the directory if the
//!    segment is new. One sync serves all records that were written before it.
//! 2. An id gets one final content: the first one written. (Forgotten and taken in anew, it has another
//!    life.)
//! 3. A batch lies in one segment. After a failed write or sync nothing more is acknowledged before
//!    the segment was cut back to its last synced record and a new segment begun.
//! 4. A segment is deleted only when none of its records counts: accepts and retries of held requests
//!    count, finals count until their keep time is over, and **a final counts while any other segment
//!    with an accept of its id exists** (else that accept would come back to life); a tombstone counts
//!    while any other segment exists of those that there were when it was first written. The
//!    deletion of the one segment is made durable before the other is deleted.
//! 5. What an opening reads behind the last place that is known to be synced, it writes again and syncs
//!    before it is served: of a process that was killed it may be in the page cache only, and after a
//!    failed sync the kernel takes pages for written that are not.
//! 6. Forgetting a final for its age writes nothing: a rebuild may bring it back until it is forgotten
//!    again. What is forgotten before its time gets a tombstone.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{RequestId, State, entry::Idempotency, version1};

/// The version of meta that is written.
pub(super) const VERSION: u8 = 2;
/// The version of a segment's header.
const SEGMENT_VERSION: u8 = 1;
/// Bytes of the segment header.
pub(super) const SEGMENT_HEADER: u64 = 4096;
/// [`SEGMENT_HEADER`] as a length.
pub(super) const SEGMENT_HEADER_LEN: usize = 4096;
/// Records start at multiples of this, and so long is a record's header.
pub(super) const ALIGN: u64 = 64;
/// [`ALIGN`] as a length.
pub(super) const HEADER: usize = 64;
/// Longest meta.
pub(super) const MAX_META: u32 = 1024 * 1024;

const MAGIC: &[u8; 8] = b"HOLDFAST";
const SECOND_COPY: usize = 2048;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request was accepted (or moved).
    Accept,
    /// It was given back, to be tried again.
    Retry,
    /// It came to its end.
    Final,
    /// It was forgotten for good.
    Tombstone,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Kind::Accept => 1,
            Kind::Retry => 2,
            Kind::Final => 3,
            Kind::Tombstone => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Kind::Accept),
            2 => Some(Kind::Retry),
            3 => Some(Kind::Final),
            4 => Some(Kind::Tombstone),
            _ => None,
        }
    }
}

/// What a request that came to no end waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Wait {
    /// Its turn, and its time if it has one.
    #[default]
    Turn,
    /// Money: its time is when there is some again.
    Budget,
    /// The operator: it was tried too often, and its time is never (the largest number).
    Operator,
}

/// Meta of an accept record, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AcceptMeta {
    /// The caller's key.
    pub(super) idempotency: Option<Idempotency>,
    /// 0..=9.
    pub(super) priority: u8,
    /// Age order: the sequence of the first accept record of this id, in this life.
    pub(super) order: u64,
    /// Milliseconds.
    pub(super) accepted_at_ms: u64,
    /// Milliseconds; 0: at once.
    pub(super) not_before_ms: u64,
    /// Milliseconds.
    pub(super) expires_at_ms: Option<u64>,
    /// As of this record; not 0 only in a record that was moved.
    pub(super) attempts: u32,
    /// As of this record.
    pub(super) reason: Option<String>,
    /// As of this record.
    pub(super) wait: Wait,
    /// Opaque.
    pub(super) envelope: Bytes,
}

impl AcceptMeta {
    /// What a retry record would say of it now.
    pub(super) fn as_given_back(&self) -> RetryMeta {
        RetryMeta {
            attempts: self.attempts,
            not_before_ms: self.not_before_ms,
            reason: self.reason.clone(),
            wait: self.wait,
        }
    }
}

/// Meta of a retry record, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetryMeta {
    /// Attempts made so far.
    pub(super) attempts: u32,
    /// Milliseconds; 0: at once.
    pub(super) not_before_ms: u64,
    /// Why.
    pub(super) reason: Option<String>,
    /// What for.
    pub(super) wait: Wait,
}

/// Meta of a final record, version 2. The body is the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FinalMeta {
    /// The end it came to.
    pub(super) state: FinalState,
    /// Milliseconds.
    pub(super) finished_at_ms: u64,
    /// Order of the results: the sequence of the first final record of this id.
    pub(super) number: u64,
    /// As it was accepted, with the last attempts and reason.
    pub(super) request: AcceptMeta,
    /// Numbers of the segments that had an accept of this id when it ended.
    pub(super) accepts_in: Vec<u64>,
}

/// Meta of a tombstone, version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TombstoneMeta {
    /// Number of the final that was forgotten; what came before it is forgotten too.
    pub(super) number: u64,
    /// The last segment that there was when it was first written.
    pub(super) up_to: u64,
}

/// The ends that a request can come to, as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum FinalState {
    /// It has its answer.
    Answered,
    /// Set aside for good.
    Failed,
    /// Its time to live ended first.
    Expired,
    /// The caller took it back.
    Cancelled,
}

impl From<FinalState> for State {
    fn from(state: FinalState) -> Self {
        match state {
            FinalState::Answered => State::Answered,
            FinalState::Failed => State::Failed,
            FinalState::Expired => State::Expired,
            FinalState::Cancelled => State::Cancelled,
        }
    }
}

/// A record's meta, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meta {
    /// Of an accept record.
    Accept(AcceptMeta),
    /// Of a retry record.
    Retry(RetryMeta),
    /// Of a final record.
    Final(FinalMeta),
    /// Of a tombstone.
    Tombstone(TombstoneMeta),
}

impl Meta {
    /// The record's kind.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Meta::Accept(_) => Kind::Accept,
            Meta::Retry(_) => Kind::Retry,
            Meta::Final(_) => Kind::Final,
            Meta::Tombstone(_) => Kind::Tombstone,
        }
    }

    /// The bytes of this meta.
    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let envelope = match self {
            Meta::Accept(meta) => meta.envelope.len(),
            Meta::Final(meta) => meta.request.envelope.len(),
            Meta::Retry(_) | Meta::Tombstone(_) => 0,
        };
        // What comes beside the envelope is mostly short.
        let bytes = Vec::with_capacity(envelope + 128);
        match self {
            Meta::Accept(meta) => postcard::to_extend(meta, bytes),
            Meta::Retry(meta) => postcard::to_extend(meta, bytes),
            Meta::Final(meta) => postcard::to_extend(meta, bytes),
            Meta::Tombstone(meta) => postcard::to_extend(meta, bytes),
        }
    }

    /// Reads the meta of a record with this header.
    pub(super) fn decode(header: &RecordHeader, bytes: &[u8]) -> Option<Self> {
        let kind = header.kind;
        match header.version {
            1 => return version1::decode(kind, header.sequence, bytes),
            VERSION => {}
            _ => return None,
        }
        match kind {
            Kind::Accept => postcard::from_bytes(bytes).ok().map(Meta::Accept),
            Kind::Retry => postcard::from_bytes(bytes).ok().map(Meta::Retry),
            Kind::Final => postcard::from_bytes(bytes).ok().map(Meta::Final),
            Kind::Tombstone => postcard::from_bytes(bytes).ok().map(Meta::Tombstone),
        }
    }
}

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Its number.
    pub(super) number: u64,
    /// Its tag.
    pub(super) tag: [u8; 8],
    /// The queue it belongs to.
    pub(super) store: [u8; 16],
}

impl SegmentHeader {
    /// The first [`SEGMENT_HEADER`] bytes of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut one = Vec::with_capacity(HEADER);
        one.extend_from_slice(MAGIC);
        one.push(SEGMENT_VERSION);
        one.resize(16, 0);
        one.extend_from_slice(&self.number.to_le_bytes());
        one.extend_from_slice(&self.tag);
        one.extend_from_slice(&self.store);
        one.resize(HEADER - 4, 0);
        one.extend_from_slice(&crc32c::crc32c(&one).to_le_bytes());
        let mut block = one.clone();
        block.resize(SECOND_COPY, 0);
        block.extend_from_slice(&one);
        block.resize(SEGMENT_HEADER_LEN, 0);
        block
    }

    /// Reads either copy out of the file's first bytes.
    pub(super) fn decode(block: &[u8]) -> Option<Self> {
        [0, SECOND_COPY].into_iter().find_map(|at| Self::decode_copy(block.get(at..at + HEADER)?))
    }

    fn decode_copy(copy: &[u8]) -> Option<Self> {
        let (covered, crc) = copy.split_at_checked(HEADER - 4)?;
        let right = crc32c::crc32c(covered) == u32::from_le_bytes(crc.try_into().ok()?);
        (right && covered.starts_with(MAGIC) && covered.get(8) == Some(&SEGMENT_VERSION))
            .then_some(())?;
        Some(SegmentHeader {
            number: u64::from_le_bytes(field(copy, 16)?),
            tag: field(copy, 24)?,
            store: field(copy, 32)?,
        })
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Version of the meta.
    pub(super) version: u8,
    /// What it says.
    pub(super) kind: Kind,
    /// Bytes of meta.
    pub(super) meta_len: u32,
    /// Bytes of body.
    pub(super) body_len: u64,
    /// Number of the record in the journal.
    pub(super) sequence: u64,
    /// CRC32C of meta.
    pub(super) meta_crc: u32,
    /// CRC32C of body.
    pub(super) body_crc: u32,
    /// Whose it is.
    pub(super) id: RequestId,
}

impl RecordHeader {
    /// The 64 bytes, in the segment with this tag.
    pub(super) fn encode(&self, tag: [u8; 8]) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        put(&mut out, 0, &tag);
        put(&mut out, 8, &[self.version, self.kind.code()]);
        put(&mut out, 12, &self.meta_len.to_le_bytes());
        put(&mut out, 16, &self.body_len.to_le_bytes());
        put(&mut out, 24, &self.sequence.to_le_bytes());
        put(&mut out, 32, &self.meta_crc.to_le_bytes());
        put(&mut out, 36, &self.body_crc.to_le_bytes());
        put(&mut out, 40, &self.id.bytes());
        let crc = crc32c::crc32c(out.split_at(HEADER - 4).0);
        put(&mut out, 60, &crc.to_le_bytes());
        out
    }

    /// Reads a header; `None` where none is.
    pub(super) fn decode(bytes: &[u8], tag: [u8; 8]) -> Option<Self> {
        if !bytes.starts_with(&tag) {
            return None;
        }
        let crc = u32::from_le_bytes(field(bytes, 60)?);
        if crc32c::crc32c(bytes.get(..HEADER - 4)?) != crc {
            return None;
        }
        let meta_len = u32::from_le_bytes(field(bytes, 12)?);
        (meta_len <= MAX_META).then_some(())?;
        Some(RecordHeader {
            version: *bytes.get(8)?,
            kind: Kind::from_code(*bytes.get(9)?)?,
            meta_len,
            body_len: u64::from_le_bytes(field(bytes, 16)?),
            sequence: u64::from_le_bytes(field(bytes, 24)?),
            meta_crc: u32::from_le_bytes(field(bytes, 32)?),
            body_crc: u32::from_le_bytes(field(bytes, 36)?),
            id: RequestId::from_bytes(field(bytes, 40)?),
        })
    }

    /// Bytes from this record's start to the next one's.
    pub(super) fn span(&self) -> u64 {
        span(self.meta_len, self.body_len)
    }
}

/// Bytes that a record takes in the journal.
pub(super) fn span(meta_len: u32, body_len: u64) -> u64 {
    (ALIGN + u64::from(meta_len)).saturating_add(body_len).next_multiple_of(ALIGN)
}

/// Where a record lies, as the index keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Segment number.
    pub(super) segment: u64,
    /// Offset of the record's header.
    pub(super) offset: u64,
    /// Bytes of meta.
    pub(super) meta_len: u32,
    /// Bytes of body.
    pub(super) body_len: u64,
    /// CRC32C of meta.
    pub(super) meta_crc: u32,
    /// CRC32C of body.
    pub(super) body_crc: u32,
}

impl Place {
    /// Bytes that the record takes.
    pub(super) fn span(&self) -> u64 {
        span(self.meta_len, self.body_len)
    }
}

fn put(out: &mut [u8; HEADER], at: usize, bytes: &[u8]) {
    if let Some(to) = out.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}
