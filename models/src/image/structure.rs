//! Checks that a file is whole before a decoder sees it: decoders forgive a file that was cut off
//! and fill the rest with grey, and some trust a length in a header.
//!
//! **Invariant:** walks the file's own structure in one pass and allocates nothing.

/// Whether a JPEG runs to its end marker.
pub(super) fn jpeg_is_whole(bytes: &[u8]) -> bool {
    const START: u8 = 0xD8;
    const END: u8 = 0xD9;
    const SCAN: u8 = 0xDA;
    let mut at = 0;
    loop {
        // A marker: any number of FF, then its code. Stray bytes before it are skipped, as
        // decoders do.
        while bytes.get(at).is_some_and(|b| *b != 0xFF) {
            at += 1;
        }
        while bytes.get(at) == Some(&0xFF) {
            at += 1;
        }
        let Some(&code) = bytes.get(at) else { return false };
        at += 1;
        match code {
            END => return true,
            // No length follows these: a stuffed zero, TEM, a restart, the start.
            0x00 | 0x01 | 0xD0..=0xD7 | START => continue,
            _ => {}
        }
        let (Some(&high), Some(&low)) = (bytes.get(at), bytes.get(at + 1)) else { return false };
        at += usize::from(u16::from_be_bytes([high, low])).max(2);
        if at > bytes.len() {
            return false;
        }
        if code == SCAN {
            // Entropy-coded data: up to an FF that is followed neither by 00 nor by a restart.
            while let Some(next) = bytes[at..].iter().position(|byte| *byte == 0xFF) {
                at += next;
                match bytes.get(at + 1) {
                    Some(0x00 | 0xFF | 0xD0..=0xD7) => at += 1,
                    _ => break,
                }
            }
        }
    }
}

/// Whether every chunk of a WebP lies within the file.
pub(super) fn webp_is_whole(bytes: &[u8]) -> bool {
    let length = |at: usize| -> Option<usize> {
        let field: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(field)).ok()
    };
    let Some(end) = length(4).and_then(|n| n.checked_add(8)).filter(|n| *n <= bytes.len()) else {
        return false;
    };
    let mut at = 12;
    while at + 8 <= end {
        let Some(next) = length(at + 4).and_then(|n| (at + 8).checked_add(n)) else { return false };
        if next > end {
            return false;
        }
        at = next + (next & 1);
    }
    at > 12
}
