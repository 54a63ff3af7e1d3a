//! Owns how many bytes each packet of MQTT 3.1.1 is on the wire.
//!
//! Pure. There is no TLS below, so that this is what goes over TCP, to the byte.
//!
//! **Invariant:** a size is that of the packet as section 2 and 3 of the standard have it.

/// A packet whose two bytes say all.
pub(super) const BARE: u64 = 2;
/// One that has an identifier or a code besides.
pub(super) const ACKNOWLEDGEMENT: u64 = 4;

/// CONNECT, with a last will and without user and password.
pub(super) fn connect(client: &str, will_topic: &str, will: &[u8]) -> u64 {
    // Protocol name, level, flags, keep alive.
    packet(10 + text(client.len()) + text(will_topic.len()) + text(will.len()))
}

/// SUBSCRIBE to these filters.
pub(super) fn subscribe(filters: &[String]) -> u64 {
    packet(2 + filters.iter().map(|filter| text(filter.len()) + 1).sum::<usize>())
}

/// SUBACK with a code for each filter.
pub(super) fn suback(codes: usize) -> u64 {
    packet(2 + codes)
}

/// PUBLISH, with an identifier unless it is not acknowledged.
pub(super) fn publish(topic: &str, is_acknowledged: bool, payload: usize) -> u64 {
    packet(text(topic.len()) + if is_acknowledged { 2 } else { 0 } + payload)
}

fn text(length: usize) -> usize {
    2 + length
}

/// A packet of so many bytes behind its fixed header.
fn packet(remaining: usize) -> u64 {
    let length = match remaining {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    };
    u64::try_from(1 + length + remaining).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_as_long_as_the_standard_has_them() {
        // Bytes counted by hand from section 3 of MQTT 3.1.1.
        assert_eq!(connect("a", "t", b"w"), 2 + 10 + 3 + 3 + 3);
        assert_eq!(subscribe(&["ab".to_owned(), "c".to_owned()]), 2 + 2 + 5 + 4);
        assert_eq!(suback(2), 2 + 2 + 2);
        for (payload, acknowledged, want) in [
            (0, false, 2 + 3),
            (124, false, 2 + 3 + 124),
            (125, false, 3 + 3 + 125),
            (122, true, 2 + 3 + 2 + 122),
            (20_000, true, 4 + 3 + 2 + 20_000),
        ] {
            assert_eq!(publish("t", acknowledged, payload), want, "{payload} {acknowledged}");
        }
    }
}
