//! Records that are torn or changed: each costs itself alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use holdfast_queue::{QueueError, State};

use crate::queue_kit::{entry, open, segments};
use crate::{filled, held_in, used};

#[tokio::test]
async fn end_torn_at_any_byte_loses_only_the_last_record() {
    let dir = tempfile::tempdir().unwrap();
    let ids = filled(dir.path(), &[b"first", b"second"]).await;
    let segment = segments(dir.path()).pop().unwrap();
    let start = used(&segment).next_multiple_of(64);
    let third = filled(dir.path(), &[&[0xab; 100]]).await;
    let whole = fs::read(&segment).unwrap();
    let end = used(&segment);
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    for at in start..=end {
        for how in ["zeroed", "truncated", "garbled"] {
            match how {
                "zeroed" => file.write_all_at(&vec![0; (end - at) as usize], at).unwrap(),
                "garbled" => file.write_all_at(&vec![0x5a; (end - at) as usize], at).unwrap(),
                _ => file.set_len(at).unwrap(),
            }
            let (held, report) = held_in(dir.path());
            let mut want: BTreeSet<_> = ids.iter().copied().collect();
            if at == end {
                want.extend(&third);
            }
            assert_eq!(held, want, "{how} from byte {at} of {start}..{end}");
            // Where nothing is left of the record, nothing is damaged.
            let traces = at != end && !(at == start && how != "garbled");
            assert_eq!(report.damaged > 0, traces, "{how} from byte {at}: {report:?}");
            file.write_all_at(&whole, 0).unwrap();
        }
    }
}

#[tokio::test]
async fn a_cut_through_the_filling_of_the_last_record_costs_nothing() {
    for cut in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let mut want = BTreeSet::from_iter(filled(dir.path(), &[b"first", &[0xcd; 90]]).await);
        let segment = segments(dir.path()).pop().unwrap();
        let end = used(&segment);
        let filling = end.next_multiple_of(64) - end;
        assert!(filling > 3, "the record fills its last line: {filling}");
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(end + [0, 1, filling - 1][cut]).unwrap();

        let (queue, report) = open(dir.path());
        assert_eq!((report.held, report.damaged), (2, 0), "{report:?}");
        let new = entry(5, 1, b"third");
        want.insert(new.id);
        queue.accept(new).await.unwrap();
        queue.close().await.unwrap();
        let (held, report) = held_in(dir.path());
        assert_eq!((held, report.damaged), (want, 0), "{report:?}");
    }
}

#[tokio::test]
async fn torn_end_is_written_over_and_the_queue_goes_on() {
    for cut in [1, 30, 64, 100, 150] {
        let dir = tempfile::tempdir().unwrap();
        let ids = filled(dir.path(), &[b"first"]).await;
        let segment = segments(dir.path()).pop().unwrap();
        let start = used(&segment).next_multiple_of(64);
        filled(dir.path(), &[&[0xcd; 300]]).await;
        let len = fs::metadata(&segment).unwrap().len();
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(start + cut).unwrap();
        file.set_len(len).unwrap();
        // As after a power cut, when the index counts for nothing.
        fs::remove_dir_all(dir.path().join("index")).unwrap();

        let (queue, report) = open(dir.path());
        assert_eq!((report.held, report.damaged), (1, 1), "cut {cut}: {report:?}");
        let new = entry(5, 1, b"third");
        let third = new.id;
        queue.accept(new).await.unwrap();
        queue.close().await.unwrap();
        let (held, report) = held_in(dir.path());
        assert_eq!(report.damaged, 0, "cut {cut}: the torn end is gone: {report:?}");
        assert_eq!(held, BTreeSet::from([ids[0], third]));
    }
}

#[tokio::test]
async fn every_flipped_bit_is_noticed_and_costs_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let bodies: [&[u8]; 3] = [b"left", &[0x77; 150], b"right"];
    let ids = filled(dir.path(), &bodies).await;
    let segment = segments(dir.path()).pop().unwrap();
    let whole = fs::read(&segment).unwrap();
    let (good, _) = held_in(dir.path());
    assert_eq!(good, ids.iter().copied().collect());
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    let mut costs: BTreeMap<usize, usize> = BTreeMap::new();
    for at in 4096..used(&segment) {
        let byte = whole[at as usize];
        file.write_all_at(&[byte ^ (1 << (at % 8))], at).unwrap();
        let (held, report) = held_in(dir.path());
        let lost: Vec<_> = ids.iter().filter(|id| !held.contains(id)).collect();
        assert!(lost.len() <= 1, "byte {at} cost {}", lost.len());
        // Padding between records carries nothing.
        assert_eq!(lost.is_empty(), report.damaged == 0, "byte {at}: {report:?}");
        if let (Some(id), Some(named)) = (lost.first(), report.damage[..].first()) {
            assert!(named.id.is_none_or(|named| named == **id), "byte {at}: wrong name");
        }
        *costs.entry(lost.len()).or_default() += 1;
        file.write_all_at(&[byte], at).unwrap();
    }
    assert!(costs[&1] > 390, "hardly anything was flipped: {costs:?}");
}

#[tokio::test]
async fn body_damaged_behind_an_intact_index_is_set_aside_when_its_turn_comes() {
    let dir = tempfile::tempdir().unwrap();
    // Too large to be read with the lease.
    let ids = filled(dir.path(), &[&[1; 100_000], b"good"]).await;
    let segment = segments(dir.path()).pop().unwrap();
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[0xff; 8], 4096 + 3000).unwrap();
    let (queue, report) = open(dir.path());
    assert_eq!((report.rebuilt, report.held), (None, 2), "payloads are not read on opening");
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    let damaged = lease.body().await.unwrap_err();
    assert!(matches!(damaged, QueueError::Damaged { id, .. } if id == ids[0]), "{damaged}");
    drop(lease);
    // Damage in the envelope's record shows before the lease is given.
    file.write_all_at(&[0xff; 8], 4096 + 70).unwrap();
    let lease = queue.lease_next(2).await.unwrap().unwrap();
    assert_eq!(lease.id(), ids[1]);
    let failed = queue.list(Some(State::Failed), 9).await.unwrap();
    assert_eq!(failed[0].id, ids[0]);
    assert!(failed[0].last_reason.as_deref().unwrap().contains("damaged"));
}

#[tokio::test]
async fn a_damaged_record_is_counted_once_however_often_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let ids = filled(dir.path(), &[&[1; 5000], &[2; 5000], &[3; 5000]]).await;
    let segment = &segments(dir.path())[0];
    let file = OpenOptions::new().write(true).open(segment).unwrap();
    for nth in [0, 2] {
        file.write_all_at(b"damage", 4096 + nth * 5184 + 1000).unwrap();
    }
    let (queue, report) = open(dir.path());
    assert_eq!(report.rebuilt, None, "nobody has noticed yet");
    for _ in 0..3 {
        for (nth, id) in ids.iter().enumerate() {
            let read = queue.body(*id).await;
            assert_eq!(matches!(read, Err(QueueError::Damaged { .. })), nth != 1, "{nth}");
        }
        assert_eq!(queue.stats().await.unwrap().damaged, 2);
    }
}
