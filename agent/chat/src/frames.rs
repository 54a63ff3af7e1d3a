//! Owns the frames of AWS's event streams (`application/vnd.amazon.eventstream`): a prelude with two
//! lengths, headers, a payload, and a CRC-32 of the prelude and of all.
//!
//! **Invariant:** a length is believed when the CRC of its prelude is right, a payload when that of
//! its frame is; no more than one frame is kept.

use std::mem;

use crc32fast::hash;

use crate::dialect::Malformed;
use crate::event::StreamError;
use crate::sse::MOST_BYTES;

/// Two lengths and their CRC.
const PRELUDE: usize = 12;
/// The CRC of all.
const TAIL: usize = 4;

/// The state between two pieces of a stream.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    kept: Vec<u8>,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    headers: &'a [u8],
    /// What is in it.
    pub(crate) payload: &'a [u8],
}

fn malformed(what: &str) -> Malformed {
    Malformed(format!("a frame {what}"))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(four.try_into().ok()?))
}

impl Frames {
    /// Gives each frame that is whole now to `take`.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&Frame<'_>) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        let mut kept = mem::take(&mut self.kept);
        if kept.is_empty() {
            let rest = given(bytes, &mut take)?;
            kept.extend_from_slice(rest);
        } else {
            kept.extend_from_slice(bytes);
            let left = given(&kept, &mut take)?.len();
            kept.drain(..kept.len().saturating_sub(left));
        }
        self.kept = kept;
        Ok(())
    }

    /// Whether a frame has begun and is not whole.
    pub(crate) fn is_amid(&self) -> bool {
        !self.kept.is_empty()
    }
}

/// What is left of `bytes` behind the last whole frame.
fn given<'a>(
    mut bytes: &'a [u8],
    take: &mut impl FnMut(&Frame<'_>) -> Result<(), StreamError>,
) -> Result<&'a [u8], StreamError> {
    while let Some((frame, rest)) = first(bytes)? {
        take(&frame)?;
        bytes = rest;
    }
    Ok(bytes)
}

/// The first frame of `bytes` and what is behind it, if it is whole.
fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>, Malformed> {
    let Some(prelude) = bytes.get(..PRELUDE) else { return Ok(None) };
    let (Some(total), Some(headers), Some(crc)) =
        (number(prelude, 0), number(prelude, 4), number(prelude, 8))
    else {
        return Ok(None);
    };
    let lengths = prelude.get(..8).unwrap_or_default();
    if hash(lengths) != crc {
        return Err(malformed("has a prelude with a wrong checksum"));
    }
    let sizes = usize::try_from(total).ok().zip(usize::try_from(headers).ok());
    let (total, headers) = sizes.ok_or_else(|| malformed("is too long"))?;
    if total > MOST_BYTES {
        return Err(malformed(&format!("has more than {MOST_BYTES} bytes")));
    }
    let spare = total.checked_sub(PRELUDE + TAIL).and_then(|room| room.checked_sub(headers));
    spare.ok_or_else(|| malformed("has lengths that contradict each other"))?;
    let Some((frame, rest)) = bytes.split_at_checked(total) else { return Ok(None) };
    let (inner, tail) = frame.split_at(total - TAIL);
    if number(tail, 0) != Some(hash(inner)) {
        return Err(malformed("has a wrong checksum"));
    }
    let (headers, payload) = inner.split_at(PRELUDE + headers);
    let headers = headers.get(PRELUDE..).unwrap_or_default();
    Ok(Some((Frame { headers, payload }, rest)))
}

impl Frame<'_> {
    /// The text of a header; `None` where it has none of that name.
    pub(crate) fn header(&self, name: &str) -> Result<Option<&str>, Malformed> {
        let mut rest = self.headers;
        while !rest.is_empty() {
            let (found, value, behind) =
                header(rest).ok_or_else(|| malformed("has headers that cannot be read"))?;
            if found == name.as_bytes() {
                let text = value.map(std::str::from_utf8).transpose();
                return text.map_err(|_| malformed("has a header that is no text"));
            }
            rest = behind;
        }
        Ok(None)
    }
}

type Header<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

/// The first header's name, its value where that is a text, and what is behind it.
fn header(bytes: &[u8]) -> Option<Header<'_>> {
    let (length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let (kind, rest) = rest.split_first()?;
    let length = match kind {
        // True and false, then whole numbers of 1, 2, 4 and 8 bytes, a time and a UUID.
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        9 => 16,
        // Bytes and texts say how long they are.
        6 | 7 => {
            let (length, rest) = rest.split_at_checked(2)?;
            let length = u16::from_be_bytes(length.try_into().ok()?);
            let (value, rest) = rest.split_at_checked(usize::from(length))?;
            return Some((name, (*kind == 7).then_some(value), rest));
        }
        _ => return None,
    };
    let (_, rest) = rest.split_at_checked(length)?;
    Some((name, None, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(headers: &[u8], payload: &[u8]) -> Vec<u8> {
        let total = u32::try_from(PRELUDE + headers.len() + payload.len() + TAIL).unwrap();
        let mut out = total.to_be_bytes().to_vec();
        out.extend(u32::try_from(headers.len()).unwrap().to_be_bytes());
        out.extend(hash(&out).to_be_bytes());
        out.extend(headers);
        out.extend(payload);
        out.extend(hash(&out).to_be_bytes());
        out
    }

    fn payloads(pieces: &[&[u8]]) -> Result<Vec<String>, StreamError> {
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for piece in pieces {
            frames.push(piece, |frame| {
                let kind = frame.header(":event-type")?.unwrap_or("none").to_owned();
                seen.push(format!("{kind} {}", String::from_utf8_lossy(frame.payload)));
                Ok(())
            })?;
        }
        Ok(seen)
    }

    /// The frames of the AWS SDKs' own tests (`empty_message`, `int32_header`, `payload_one_str_header`
    /// of the event stream test suite), as they came from there.
    #[test]
    fn the_frames_of_the_test_suite_are_read() {
        for (hex, headers, payload) in [
            ("000000100000000005c248eb7d98c8ff", &[][..], ""),
            (
                "0000002d0000001041c424b80a6576656e742d747970650400 00a00c7b27666f6f273a2762617227\
                 7d36f480a0",
                &[("event-type", None)],
                "{'foo':'bar'}",
            ),
            (
                "0000003d0000002007fd83960c636f6e74656e742d747970650700106170706c69636174696f6e2f\
                 6a736f6e7b27666f6f273a27626172277d8d9c08b1",
                &[("content-type", Some("application/json"))],
                "{'foo':'bar'}",
            ),
        ] {
            let bytes = hex::decode(hex.replace(char::is_whitespace, "")).unwrap();
            let (frame, rest) = first(&bytes).unwrap().unwrap();
            assert_eq!((frame.payload, rest), (payload.as_bytes(), &[][..]), "{hex}");
            for (name, value) in headers {
                assert_eq!(frame.header(name).unwrap(), *value, "{name}");
            }
            assert_eq!(frame.header("another").unwrap(), None);
        }
    }

    #[test]
    fn frames_are_read_however_they_are_split() {
        let mut headers =
            b"\x01a\x00\x01b\x01\x01c\x02\x07\x01d\x03\x00\x07\x01e\x04\0\0\0\x07".to_vec();
        headers.extend(b"\x01f\x05\0\0\0\0\0\0\0\x07\x01g\x06\0\x02xx\x01h\x08\0\0\0\0\0\0\0\x07");
        headers.extend(b"\x01i\x09\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0b:event-type\x07\0\x04text");
        let both = [frame(&headers, b"one"), frame(&[], b""), frame(&[], b"two")].concat();
        let want = ["text one", "none ", "none two"];
        for at in 0..=both.len() {
            let (one, two) = both.split_at(at);
            assert_eq!(payloads(&[one, two]).unwrap(), want, "at {at}");
        }
        let single: Vec<&[u8]> = both.chunks(1).collect();
        assert_eq!(payloads(&single).unwrap(), want);
    }

    #[test]
    fn a_frame_with_any_bit_turned_is_no_frame() {
        let whole = frame(b"\x0b:event-type\x07\0\x04text", b"payload");
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(payloads(&[&damaged]).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_and_headers_that_lie_are_refused() {
        let prelude = |total: u32, headers: u32| {
            let mut out = [total.to_be_bytes(), headers.to_be_bytes()].concat();
            out.extend(hash(&out).to_be_bytes());
            out
        };
        for (case, bytes) in [
            ("too short", prelude(15, 0)),
            ("headers beyond it", prelude(32, 17)),
            ("too long", prelude(1 << 21, 0)),
            ("headers far beyond it", prelude(16, u32::MAX)),
            ("a name beyond the headers", frame(b"\xff:event-type", b"")),
            ("a value beyond the headers", frame(b"\x0b:event-type\x07\xff\xff", b"")),
            ("a kind that is none", frame(b"\x0b:event-type\x0a", b"")),
            ("no text", frame(b"\x0b:event-type\x07\0\x01\xff", b"")),
        ] {
            assert!(payloads(&[&bytes]).is_err(), "{case}");
        }
    }
}
