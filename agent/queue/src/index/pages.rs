//! Pages: many small pairs in one value.
//!
//! A page is the pairs from its lowest key up to the next page's; the page whose lowest key is empty is
//! the first one. sled is slow and large with millions of small pairs, and neither with some ten
//! thousand pages: a million held requests were written 25 times as fast, opened 20 times as fast, and
//! in a hundredth of the memory.
//!
//! Its bytes: for each pair, in order, the length of the key (2 bytes), the length of the value (4
//! bytes), little endian, the key, the value.
//!
//! **Invariant:** the pairs of a page are sorted and each key is there once; only the first page may be
//! empty.

/// Pages are split beyond this many bytes; a single larger pair has a page of its own.
const MOST: usize = 4000;
/// Bytes that a pair has beyond its key and value.
const FRAME: usize = 6;

/// A key and its value, borrowed from a page.
pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// A page to be stored under its lowest key; `None`: to be removed.
pub(super) type Stored = (Vec<u8>, Option<Vec<u8>>);

/// The pairs of a page; `None` when its bytes are no page.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Pair<'_>>> {
    let mut pairs = Vec::new();
    while !bytes.is_empty() {
        let (pair, rest) = first(bytes)?;
        pairs.push(pair);
        bytes = rest;
    }
    Some(pairs)
}

/// Where the pairs of a page begin; `None` when its bytes are no page.
pub(super) fn starts(bytes: &[u8]) -> Option<Vec<usize>> {
    let mut starts = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        starts.push(bytes.len() - rest.len());
        (_, rest) = first(rest)?;
    }
    Some(starts)
}

/// The pair that begins there.
pub(super) fn pair_at(bytes: &[u8], start: usize) -> Option<Pair<'_>> {
    first(bytes.get(start..)?).map(|(pair, _)| pair)
}

/// The first pair, and what follows it.
fn first(bytes: &[u8]) -> Option<(Pair<'_>, &[u8])> {
    let (frame, rest) = bytes.split_first_chunk::<FRAME>()?;
    let [k0, k1, v0, v1, v2, v3] = *frame;
    let key_len = usize::from(u16::from_le_bytes([k0, k1]));
    let value_len = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).ok()?;
    let (key, rest) = rest.split_at_checked(key_len)?;
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some(((key, value), rest))
}

/// The pages that the page at `low` becomes with these changes, all of which are its own.
pub(super) fn change<'a>(
    low: &[u8],
    old: &[Pair<'a>],
    changes: &[(&'a [u8], Option<&'a [u8]>)],
) -> Vec<Stored> {
    let grows_at_end = match (old.last(), changes.first()) {
        (Some((last, _)), Some((first, _))) => first > last,
        _ => true,
    };
    let pairs = merge(old, changes);
    if pairs.is_empty() {
        // The first page stays, so that every key has a page.
        return vec![(low.to_vec(), low.is_empty().then(Vec::new))];
    }
    let all: usize = pairs.iter().map(|pair| size(*pair)).sum();
    // What grows at its end goes on doing so: its pages are filled. Others get room for more.
    let most = if grows_at_end { MOST } else { all.div_ceil(all.div_ceil(MOST)).max(1) };
    let mut pages: Vec<Stored> = Vec::new();
    let mut page: Option<(Vec<u8>, Vec<u8>)> = None;
    for pair in pairs {
        let is_full = |bytes: &Vec<u8>| !bytes.is_empty() && bytes.len() + size(pair) > MOST;
        let has_share = |bytes: &Vec<u8>| bytes.len() >= most;
        if let Some((low, bytes)) = page.take_if(|(_, bytes)| is_full(bytes) || has_share(bytes)) {
            pages.push((low, Some(bytes)));
        }
        let low = if pages.is_empty() { low } else { pair.0 };
        let (_, bytes) = page.get_or_insert_with(|| (low.to_vec(), Vec::new()));
        encode(bytes, pair);
    }
    pages.extend(page.map(|(low, bytes)| (low, Some(bytes))));
    pages
}

fn merge<'a>(old: &[Pair<'a>], changes: &[(&'a [u8], Option<&'a [u8]>)]) -> Vec<Pair<'a>> {
    let mut pairs = Vec::with_capacity(old.len() + changes.len());
    let mut old = old.iter().copied().peekable();
    for (key, value) in changes {
        while let Some(pair) = old.next_if(|(before, _)| before < key) {
            pairs.push(pair);
        }
        old.next_if(|(same, _)| same == key);
        pairs.extend(value.map(|value| (*key, value)));
    }
    pairs.extend(old);
    pairs
}

fn size((key, value): Pair<'_>) -> usize {
    FRAME + key.len() + value.len()
}

fn encode(bytes: &mut Vec<u8>, (key, value): Pair<'_>) {
    let key_len = u16::try_from(key.len()).unwrap_or(u16::MAX);
    let value_len = u32::try_from(value.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&key_len.to_le_bytes());
    bytes.extend_from_slice(&value_len.to_le_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(pages: &[Stored], at: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let bytes = pages[at].1.as_ref().unwrap();
        let pairs = decode(bytes).unwrap();
        pairs.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn changes_are_merged_in_order() {
        let old: Vec<Pair<'_>> = vec![(b"b", b"1"), (b"d", b"2"), (b"f", b"3")];
        let changes: Vec<(&[u8], Option<&[u8]>)> =
            vec![(b"a", Some(b"0")), (b"d", None), (b"e", None), (b"f", Some(b"4"))];
        let pages = change(b"", &old, &changes);
        assert_eq!(pages.len(), 1);
        let pair = |key: &[u8], value: &[u8]| (key.to_vec(), value.to_vec());
        assert_eq!(page(&pages, 0), [pair(b"a", b"0"), pair(b"b", b"1"), pair(b"f", b"4")]);
    }

    #[test]
    fn an_empty_page_goes_unless_it_is_the_first() {
        let old: Vec<Pair<'_>> = vec![(b"b", b"1")];
        assert_eq!(change(b"b", &old, &[(b"b", None)]), [(b"b".to_vec(), None)]);
        assert_eq!(change(b"", &old, &[(b"b", None)]), [(Vec::new(), Some(Vec::new()))]);
    }

    #[test]
    fn full_pages_are_split_and_hold_everything() {
        let keys: Vec<[u8; 8]> = (0..1000_u64).map(u64::to_be_bytes).collect();
        let changes: Vec<(&[u8], Option<&[u8]>)> =
            keys.iter().map(|key| (&key[..], Some(&[7; 90][..]))).collect();
        for old in [&[][..], &[(&[0xff][..], &[0; 90][..])]] {
            let pages = change(b"", old, &changes);
            let count: usize = (0..pages.len()).map(|at| page(&pages, at).len()).sum();
            assert_eq!(count, 1000 + old.len());
            for (at, (low, bytes)) in pages.iter().enumerate() {
                assert!(bytes.as_ref().unwrap().len() <= MOST);
                assert!(at == 0 && low.is_empty() || *low == page(&pages, at)[0].0);
            }
        }
        let huge = vec![1; 3 * MOST];
        let pages = change(b"", &[(b"a", b"1"), (b"c", b"1")], &[(b"b", Some(&huge))]);
        assert_eq!(pages.len(), 3, "a large pair is alone");
    }

    #[test]
    fn bytes_that_are_no_page_are_noticed() {
        for bytes in [&[1][..], &[9, 0, 0, 0, 0, 0, 1], &[0, 0, 9, 0, 0, 0, 1]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
            assert_eq!(starts(bytes), None, "{bytes:?}");
        }
    }
}
