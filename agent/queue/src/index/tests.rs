use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Apply(Vec<(u16, Option<u8>)>),
    Flush,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..500_u16, proptest::option::of(any::<u8>()));
    let step = prop_oneof![
        8 => proptest::collection::vec(change, 1..200).prop_map(Step::Apply),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..30)
}

fn key(number: u16) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// Large enough that pages split.
fn value(byte: u8) -> Vec<u8> {
    vec![byte; 60 + usize::from(byte)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_index_is_a_sorted_map(steps in steps(), from in 0..500_u16, len in 0..500_u16) {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::open(dir.path()).unwrap();
        let memory = Index::in_memory();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Apply(changes) => {
                    let mut batch = Changes::new();
                    for (number, byte) in changes {
                        batch.insert(key(number).into(), byte.map(value));
                        match byte {
                            Some(byte) => model.insert(key(number), value(byte)),
                            None => model.remove(&key(number)),
                        };
                    }
                    index.apply(batch.clone()).unwrap();
                    memory.apply(batch).unwrap();
                }
                Step::Flush => index.flush().unwrap(),
                Step::Reopen => {
                    index.sync().unwrap();
                    drop(index);
                    index = Index::open(dir.path()).unwrap();
                }
            }
            let (from, to) = (key(from), key(from.saturating_add(len)));
            let want: Vec<Pair> =
                model.range(from.clone()..=to.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
            for index in [&index, &memory] {
                prop_assert_eq!(&index.range(&from, &to, usize::MAX).unwrap(), &want);
                let some = index.range(&from, &to, 3).unwrap();
                prop_assert_eq!(&some[..], &want[..want.len().min(3)]);
                prop_assert_eq!(index.get(&from.clone().into()).unwrap(), model.get(&from).cloned());
            }
        }
    }
}

#[test]
fn changes_that_pile_up_are_written_behind_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let count = 40_000_u32;
    for batch in 0..40 {
        let numbers = (0..1000).map(|number| number * 40 + batch);
        let changes = numbers.map(|n: u32| (Key::from(&n.to_be_bytes()[..]), Some(vec![1; 1000])));
        index.apply(changes.collect()).unwrap();
        assert_eq!(index.get(&batch.to_be_bytes()[..].into()).unwrap(), Some(vec![1; 1000]));
    }
    assert!(index.inner.read().fresh_bytes < MOST_BEHIND + 2 * WRITE_OUT);
    let all = index.range(&[], &[0xff; 5], usize::MAX).unwrap();
    let keys: Vec<_> = (0..count).map(|number| number.to_be_bytes().to_vec()).collect();
    assert!(all.iter().map(|(key, _)| key).eq(&keys));
    index.sync().unwrap();
    drop(index);
    let index = Index::open(dir.path()).unwrap();
    assert_eq!(index.range(&[], &[0xff; 5], usize::MAX).unwrap().len(), keys.len());
}

/// A queue passes through the index while it is written out: pages are split, emptied and removed under
/// the readers.
#[test]
fn readers_see_everything_while_it_is_written_out() {
    const LONG: u32 = 60_000;
    const HELD: u32 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let index = Index::open(dir.path()).unwrap();
    let key = |number: u32| [b"q", &number.to_be_bytes()[..]].concat();
    // These stay, between those that come and go.
    let stays = |number: u32| number.is_multiple_of(100);
    let (head, tail, is_over) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reads = || {
            let mut looks = 0;
            while !is_over.load(Ordering::SeqCst) || looks < 10 {
                looks += 1;
                // What was there before the look and after it was there during it.
                let to = tail.load(Ordering::SeqCst);
                let found = index.range(&key(0), &key(to), usize::MAX).unwrap();
                let from = head.load(Ordering::SeqCst);
                let numbers: Vec<u32> = found
                    .iter()
                    .map(|(key, _)| u32::from_be_bytes(key[1..].try_into().unwrap()))
                    .collect();
                assert!(numbers.is_sorted_by(|one, next| one < next));
                let must = |number: &u32| *number < to && (*number >= from || stays(*number));
                let seen = numbers.iter().copied().filter(must);
                assert!(seen.eq((0..to).filter(must)), "{from}..{to}: {numbers:?}");
                for number in [from / 100 * 100, from.midpoint(to)] {
                    let value = index.get(&key(number).into()).unwrap();
                    let is_there =
                        number < to && (stays(number) || number >= head.load(Ordering::SeqCst));
                    assert!(value.is_some() || !is_there, "{number} of {from}..{to}");
                }
            }
        };
        let readers = [scope.spawn(reads), scope.spawn(reads)];
        for number in (0..LONG).step_by(50) {
            let new = (number..number + 50).map(|number| (key(number).into(), Some(vec![7; 300])));
            index.apply(new.collect()).unwrap();
            tail.store(number + 50, Ordering::SeqCst);
            if let Some(old) = number.checked_sub(HELD) {
                head.store(old + 50, Ordering::SeqCst);
                let gone = (old..old + 50).filter(|number| !stays(*number));
                index.apply(gone.map(|number| (key(number).into(), None)).collect()).unwrap();
            }
        }
        is_over.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
