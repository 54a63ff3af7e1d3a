//! Owns compressed bodies: gzip and deflate, in and out. The one module that names flate2.
//!
//! **Invariant:** what comes out of a body is never more than its limit, however small the body is.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

/// Bytes that are taken out at a time.
const STEP: usize = 64 << 10;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
}

/// Why a body is not taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// It is not what its encoding says, or ends too early.
    Damaged,
    /// More comes out than the limit.
    TooLarge,
    /// There is no room in memory now.
    NoRoom,
}

impl Encoding {
    /// The name in `Content-Encoding`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Of a `Content-Encoding`: none for a plain body.
    ///
    /// # Errors
    /// It is another one, or several.
    pub(super) fn of_content(text: &str) -> Result<Option<Self>, ()> {
        match text.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            _ => Err(()),
        }
    }

    /// The one that an `Accept-Encoding` asks for first.
    pub(super) fn wanted(text: &str) -> Option<Self> {
        text.split(',').find_map(|part| {
            let (name, weight) = part.split_once(';').unwrap_or((part, ""));
            let weight = weight.trim().strip_prefix("q=").map(str::parse::<f32>);
            let is_refused = matches!(weight, Some(Ok(weight)) if weight <= 0.0);
            Self::of_content(name).ok().flatten().filter(|_| !is_refused)
        })
    }
}

/// Takes a body out: at most `limit` bytes, asking `room` before it takes so many bytes more.
pub(super) fn expand(
    body: &[u8],
    encoding: Encoding,
    limit: usize,
    room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, Unread> {
    match encoding {
        Encoding::Gzip => pour(MultiGzDecoder::new(body), limit, room),
        // By its standard deflate is in zlib's frame; some send it without, whose first byte differs.
        Encoding::Deflate if body.first().is_some_and(|byte| byte & 0x0f == 8) => {
            pour(ZlibDecoder::new(body), limit, room)
        }
        Encoding::Deflate => pour(DeflateDecoder::new(body), limit, room),
    }
}

fn pour(
    mut from: impl Read,
    limit: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, Unread> {
    let mut out = Vec::new();
    loop {
        if !room(STEP) {
            return Err(Unread::NoRoom);
        }
        let begin = out.len();
        let step = u64::try_from(STEP).unwrap_or(u64::MAX);
        from.by_ref().take(step).read_to_end(&mut out).map_err(|_| Unread::Damaged)?;
        if out.len() > limit {
            return Err(Unread::TooLarge);
        }
        if out.len() == begin {
            return Ok(out);
        }
    }
}

/// Compresses an answer.
///
/// # Errors
/// Never in memory.
pub(super) fn shrink(body: &[u8], encoding: Encoding) -> io::Result<Vec<u8>> {
    let out = Vec::with_capacity(body.len() / 2);
    // The caller waits, on a board: quick matters more than small.
    match encoding {
        Encoding::Gzip => {
            let mut to = GzEncoder::new(out, Compression::fast());
            to.write_all(body)?;
            to.finish()
        }
        Encoding::Deflate => {
            let mut to = ZlibEncoder::new(out, Compression::fast());
            to.write_all(body)?;
            to.finish()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Encoding; 2] = [Encoding::Gzip, Encoding::Deflate];

    proptest! {
        #[test]
        fn what_was_compressed_comes_out_again(body in prop::collection::vec(any::<u8>(), 0..2000)) {
            for encoding in BOTH {
                let small = shrink(&body, encoding).unwrap();
                let out = expand(&small, encoding, body.len(), |_| true);
                prop_assert_eq!(out.as_deref(), Ok(body.as_slice()));
                for cut in [0, small.len() / 2, small.len() - 1] {
                    let out = expand(&small[..cut], encoding, body.len(), |_| true);
                    prop_assert!(out.is_err() || cut == 0, "cut at {} of {}", cut, small.len());
                }
            }
        }

        #[test]
        fn random_bytes_are_damage(body in prop::collection::vec(any::<u8>(), 1..200)) {
            for encoding in BOTH {
                if let Ok(out) = expand(&body, encoding, 1000, |_| true) {
                    prop_assert!(out.len() <= 1000);
                }
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_large() {
        for encoding in BOTH {
            let bomb = shrink(&vec![0; 100 << 20], encoding).unwrap();
            let mut taken = 0;
            let out = expand(&bomb, encoding, 1 << 20, |bytes| {
                taken += bytes;
                true
            });
            assert_eq!(out, Err(Unread::TooLarge));
            assert!(taken <= (1 << 20) + 2 * STEP, "{taken} bytes of room were asked for");
            assert_eq!(expand(&bomb, encoding, 1 << 30, |_| false), Err(Unread::NoRoom));
        }
    }

    #[test]
    fn encodings_are_read_as_clients_write_them() {
        for (text, want) in [
            ("gzip", Some(Encoding::Gzip)),
            ("deflate", Some(Encoding::Deflate)),
            ("br, deflate;q=0.5", Some(Encoding::Deflate)),
            ("gzip;q=0, deflate", Some(Encoding::Deflate)),
            ("identity", None),
            ("", None),
            ("br", None),
        ] {
            assert_eq!(Encoding::wanted(text), want, "{text}");
        }
        assert_eq!(Encoding::of_content("br"), Err(()));
        assert_eq!(Encoding::of_content("gzip, gzip"), Err(()), "one inside the other");
    }

    #[test]
    fn deflate_without_a_frame_comes_out_too() {
        let mut to = flate2::write::DeflateEncoder::new(Vec::new(), Compression::default());
        to.write_all(b"{\"inputs\":[]}").unwrap();
        let small = to.finish().unwrap();
        let out = expand(&small, Encoding::Deflate, 99, |_| true);
        assert_eq!(out.as_deref(), Ok(&b"{\"inputs\":[]}"[..]));
    }
}
