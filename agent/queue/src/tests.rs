//! What cannot be seen from outside: the format's bytes, and that what was refused stays away.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::Duration,
};

use bytes::Bytes;

use super::{
    Accepted, Idempotency, NewEntry, Queue, QueueConfig, QueueError, RequestId, State,
    begin::{Headroom, Purpose, Setup, file_name, number_in, path_of},
    disk::RealDisk,
    journal::{
        AcceptMeta, FinalMeta, FinalState, Kind, Meta, RecordHeader, RetryMeta, SegmentHeader,
        TombstoneMeta, VERSION, Wait,
    },
    keys,
    meter::Meter,
    scan::{self, End},
    segments::Journal,
};

fn accept_meta() -> AcceptMeta {
    AcceptMeta {
        idempotency: Some(Idempotency { key: "k".into(), digest: [3; 32] }),
        priority: 5,
        order: 300,
        accepted_at_ms: 1,
        not_before_ms: 0,
        expires_at_ms: Some(2),
        attempts: 0,
        reason: None,
        wait: Wait::Turn,
        envelope: Bytes::from_static(&[9, 8]),
    }
}

#[test]
fn the_format_is_these_bytes_for_ever() {
    let header = SegmentHeader { number: 42, tag: [7; 8], store: [5; 16] };
    let block = header.encode();
    let want = "484f4c4446415354010000000000000 02a00000000000000070707070707070705050505050505050505\
                050505050505000000000000000000000000";
    let want = want.replace(' ', "");
    assert_eq!(hex::encode(&block[..60]), want);
    assert_eq!(block[..64], block[2048..2112]);
    assert_eq!(block.len(), 4096);
    assert_eq!(SegmentHeader::decode(&block), Some(header));

    let id = RequestId::parse("01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
    let record = RecordHeader {
        version: VERSION,
        kind: Kind::Final,
        meta_len: 5,
        body_len: 6,
        sequence: 7,
        meta_crc: 0x0102_0304,
        body_crc: 0x0506_0708,
        id,
    };
    let bytes = record.encode([7; 8]);
    let want = "0707070707070707020300000500000006000000000000000700000000000000\
                040302010807060501890a5dac96774bbcceb302099a805700000000";
    assert_eq!(hex::encode(&bytes[..60]), want);
    assert_eq!(bytes[60..], crc32c::crc32c(&bytes[..60]).to_le_bytes());
    assert_eq!(RecordHeader::decode(&bytes, [7; 8]), Some(record));
    assert_eq!(RecordHeader::decode(&bytes, [6; 8]), None, "of another segment");

    let digest = "03".repeat(32);
    let accept = format!("01016b{digest}05ac020100010200000002 0908").replace(' ', "");
    let finished = Meta::Final(FinalMeta {
        state: FinalState::Expired,
        finished_at_ms: 4,
        number: 300,
        request: accept_meta(),
        accepts_in: vec![1, 2],
    });
    for (meta, want) in [
        (Meta::Accept(accept_meta()), accept.clone()),
        (Meta::Retry(retry_meta(Wait::Operator)), "01800101026e6f02".to_owned()),
        (finished, format!("0204ac02{accept}020102")),
        (Meta::Tombstone(TombstoneMeta { number: 300, up_to: 9 }), "ac0209".to_owned()),
    ] {
        let bytes = meta.encode().unwrap();
        assert_eq!(hex::encode(&bytes), want, "{meta:?}");
        let header = RecordHeader { kind: meta.kind(), ..record };
        assert_eq!(Meta::decode(&header, &bytes), Some(meta.clone()));
        let later = RecordHeader { version: VERSION + 1, ..header };
        assert_eq!(Meta::decode(&later, &bytes), None, "an unknown version");
    }
}

fn retry_meta(wait: Wait) -> RetryMeta {
    RetryMeta { attempts: 1, not_before_ms: 128, reason: Some("no".into()), wait }
}

#[test]
fn records_of_version_1_are_read() {
    let digest = "03".repeat(32);
    let accept = format!("01016b{digest}05ac0201000102000002 0908").replace(' ', "");
    let finished = Meta::Final(FinalMeta {
        state: FinalState::Expired,
        finished_at_ms: 4,
        number: 7,
        request: accept_meta(),
        accepts_in: vec![1, 2],
    });
    for (kind, bytes, want) in [
        (Kind::Accept, accept.clone(), Meta::Accept(accept_meta())),
        (Kind::Retry, "01800101026e6f".to_owned(), Meta::Retry(retry_meta(Wait::Turn))),
        (Kind::Final, format!("0204{accept}020102"), finished),
    ] {
        let bytes = hex::decode(bytes).unwrap();
        let header = RecordHeader {
            version: 1,
            kind,
            meta_len: 0,
            body_len: 0,
            sequence: 7,
            meta_crc: 0,
            body_crc: 0,
            id: RequestId::new(),
        };
        assert_eq!(Meta::decode(&header, &bytes), Some(want));
    }
}

#[test]
fn segment_names_are_read_only_as_they_are_written() {
    for (name, want) in [
        ("000000000000002a.seg", Some(42)),
        ("000000000000002A.seg", None),
        ("2a.seg", None),
        ("000000000000002a.seg.bad-1", None),
        ("spare.seg", None),
        ("+00000000000002a.seg", None),
    ] {
        assert_eq!(number_in(name), want, "{name}");
    }
    assert_eq!(file_name(42), "000000000000002a.seg");
}

#[test]
fn waiting_requests_sort_by_urgency_then_due_then_age() {
    let mut keys = [
        keys::queue_key(5, 0, 2),
        keys::queue_key(5, 7, 1),
        keys::queue_key(9, 9, 9),
        keys::queue_key(5, 0, 1),
        keys::queue_key(200, 0, 3),
    ];
    keys.sort();
    let order: Vec<_> = keys.iter().map(|key| keys::due_and_order(key).unwrap()).collect();
    assert_eq!(order, [(0, 3), (9, 9), (0, 1), (0, 2), (7, 1)]);
}

fn journal(dir: &Path) -> Journal {
    let setup = Setup {
        disk: Arc::new(RealDisk),
        dir: dir.to_owned(),
        store: [1; 16],
        segment_bytes: 256 * 1024,
        headroom: Headroom { bytes: 0, inodes: 0 },
        meter: Arc::new(Meter::default()),
    };
    Journal::begin(setup, 1, 1).unwrap()
}

fn append(journal: &mut Journal, body: &[u8]) -> RequestId {
    let id = RequestId::new();
    let meta = Meta::Accept(accept_meta());
    let bytes = meta.encode().unwrap();
    journal.append(id, meta.kind(), &bytes, body, crc32c::crc32c(body)).unwrap();
    id
}

/// The ids in a segment, with its end and the count of damaged places.
fn found(dir: &Path, number: u64) -> (Vec<RequestId>, End, usize) {
    let path = path_of(dir, number);
    let file = std::fs::File::open(&path).unwrap();
    let header = scan::read_header(&file).unwrap().unwrap();
    let (mut ids, mut damaged) = (Vec::new(), 0);
    let end = scan::scan(
        &path,
        &file,
        &header,
        0,
        |found| {
            ids.push(found.id);
            Ok(())
        },
        |_| damaged += 1,
    );
    (ids, end.unwrap(), damaged)
}

#[test]
fn records_of_a_failed_batch_are_gone_after_the_repair() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = journal(dir.path());
    let first = append(&mut journal, b"kept");
    journal.commit().unwrap();
    // The large body goes to the file at once, the small one is still in the buffer.
    append(&mut journal, &[1; 100_000]);
    append(&mut journal, b"refused");
    assert_eq!(found(dir.path(), 1).0.len(), 2, "the refused record is in the file");
    journal.repair().unwrap();
    let (ids, end, damaged) = found(dir.path(), 1);
    assert_eq!((ids, damaged), (vec![first], 0));
    assert_eq!(std::fs::metadata(path_of(dir.path(), 1)).unwrap().len(), end.end);
    assert!(!journal.has_room(64), "nothing more goes into this segment");
    journal.roll(64, Purpose::Progress).unwrap();
    let next = append(&mut journal, b"next");
    journal.commit().unwrap();
    assert_eq!(found(dir.path(), 2).0, [next]);
}

#[test]
fn record_inside_a_body_is_not_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = journal(dir.path());
    append(&mut journal, b"");
    journal.commit().unwrap();
    // A body that is a whole segment of another queue, records and all.
    let inner = std::fs::read(path_of(dir.path(), 1)).unwrap();
    let other = tempfile::tempdir().unwrap();
    let mut outer = self::journal(other.path());
    let carrier = append(&mut outer, &inner[..8192]);
    let last = append(&mut outer, b"last");
    outer.commit().unwrap();
    // With the carrier's own header gone, its body is searched for the next record.
    let path = path_of(other.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (ids, _, damaged) = found(other.path(), 1);
    assert_eq!((ids, damaged), (vec![last], 1), "{carrier} is lost, and nothing of it found");
}

/// A request like any other.
fn entry(id: RequestId) -> NewEntry {
    NewEntry {
        id,
        idempotency: None,
        priority: 5,
        accepted_at_ms: 1,
        not_before_ms: 0,
        expires_at_ms: None,
        envelope: Bytes::from_static(b"envelope"),
        body: Bytes::from_static(b"body"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_wait_for_an_index_that_fails_are_answered() {
    const SOON: Duration = Duration::from_secs(20);
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(dir.path(), QueueConfig::default()).unwrap();
    let mut told_of = Vec::new();
    for round in 0..5 {
        let (spring, trap) = mpsc::channel();
        queue.shared.index().unwrap().fail_when(trap);
        let id = RequestId::new();
        // It is answered as soon as it is on disk; the index has yet to take it in.
        assert_eq!(queue.accept(entry(id)).await.unwrap(), Accepted::New);
        told_of.push(id);
        let readers: Vec<_> = told_of
            .iter()
            .copied()
            .map(|id| {
                let queue = queue.clone();
                let looked = async move { (id, queue.get(id).await, queue.list(None, 99).await) };
                tokio::spawn(tokio::time::timeout(SOON, looked))
            })
            .collect();
        let leased = tokio::time::timeout(Duration::from_millis(50), queue.lease_next(2)).await;
        assert!(leased.is_err(), "round {round}: the gate is closed: {leased:?}");
        assert!(readers.iter().all(|reader| !reader.is_finished()), "round {round}");
        drop(spring);
        for reader in readers {
            let (id, one, all) = reader.await.unwrap().expect("nobody hangs");
            match one {
                Ok(found) => assert_eq!(found.expect("it was answered").summary.id, id),
                Err(QueueError::Index { .. }) => {}
                Err(other) => panic!("round {round}: {other}"),
            }
            match all {
                Ok(all) => assert_eq!(all.len(), told_of.len(), "round {round}"),
                Err(QueueError::Index { .. }) => {}
                Err(other) => panic!("round {round}: {other}"),
            }
        }
        // The next command waits until the index is there again.
        assert!(!queue.forget(RequestId::new()).await.unwrap());
        for id in &told_of {
            let found = queue.get(*id).await.unwrap().expect("it was answered");
            assert_eq!(found.summary.state, State::Held, "round {round}");
        }
    }
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!(lease.id(), told_of[0]);
    queue.close().await.unwrap();
}

#[tokio::test]
async fn an_index_that_could_not_be_made_anew_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, _) = Queue::open(dir.path(), QueueConfig::default()).unwrap();
    let held = RequestId::new();
    queue.accept(entry(held)).await.unwrap();
    // As after an index that failed while the journal could not be read.
    drop(queue.shared.replace_index(None));
    let read = queue.get(held).await;
    assert!(matches!(read, Err(QueueError::Index { .. })), "not closed: {read:?}");
    let next = RequestId::new();
    queue.accept(entry(next)).await.unwrap();
    let ids: Vec<_> = queue.list(None, 10).await.unwrap().iter().map(|s| s.id).collect();
    assert_eq!(ids, [held, next]);
    queue.close().await.unwrap();
    assert!(matches!(queue.get(held).await, Err(QueueError::Closed)));
}
