//! Owns server-sent events as the HTML standard describes them, as far as providers use them: the
//! data of each event, whichever line ends it has and wherever its bytes are split.
//!
//! **Invariant:** an event that lies whole in what is pushed is not copied; no more than one event
//! is kept.

use std::mem;

use crate::dialect::Malformed;
use crate::event::StreamError;

/// The longest event, in bytes; of a frame too.
pub(crate) const MOST_BYTES: usize = 1 << 20;
/// A buffer that was larger is given back.
const KEPT_BYTES: usize = 1 << 14;

/// The state between two pieces of a stream.
#[derive(Debug, Default)]
pub(crate) struct Sse {
    /// The beginning of a line.
    line: Vec<u8>,
    /// Data of an event that is not over.
    data: Vec<u8>,
    has_data: bool,
    /// The line before ended with CR, so that LF ends none.
    after_cr: bool,
    /// The first line was seen, before which there may be a byte order mark.
    has_begun: bool,
}

enum Line<'a> {
    Blank,
    Data(&'a [u8]),
    Other,
}

fn line(line: &[u8]) -> Line<'_> {
    match line.strip_prefix(b"data") {
        _ if line.is_empty() => Line::Blank,
        Some([]) => Line::Data(&[]),
        Some([b':', b' ', data @ ..] | [b':', data @ ..]) => Line::Data(data),
        _ => Line::Other,
    }
}

fn bounded(bytes: usize) -> Result<(), Malformed> {
    match bytes > MOST_BYTES {
        true => Err(Malformed(format!("an event of more than {MOST_BYTES} bytes"))),
        false => Ok(()),
    }
}

fn emptied(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
    buffer
}

impl Sse {
    /// Gives the data of each event that is whole now to `take`.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        let mut rest = bytes;
        // The data of an event of one line so far, where it lies in `bytes`.
        let mut held: Option<&[u8]> = None;
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (piece, behind) = rest.split_at(end);
            let Some((byte, behind)) = behind.split_first() else { break };
            rest = behind;
            let is_cr = *byte == b'\r';
            let is_half = !is_cr && self.after_cr && piece.is_empty() && self.line.is_empty();
            self.after_cr = is_cr;
            if is_half {
                continue;
            }
            if self.line.is_empty() {
                bounded(piece.len())?;
                match line(self.begun(piece)) {
                    Line::Data(data) if held.is_none() && !self.has_data => held = Some(data),
                    Line::Data(data) => self.keep(&mut held, data)?,
                    Line::Blank => self.give(held.take(), &mut take)?,
                    Line::Other => {}
                }
            } else {
                let mut whole = mem::take(&mut self.line);
                whole.extend_from_slice(piece);
                bounded(whole.len())?;
                if let Line::Data(data) = line(self.begun(&whole)) {
                    self.keep(&mut held, data)?;
                }
                self.line = emptied(whole);
            }
        }
        if let Some(data) = held.take() {
            self.keep(&mut None, data)?;
        }
        self.line.extend_from_slice(rest);
        Ok(bounded(self.line.len())?)
    }

    /// The stream is over: an event whose lines are whole counts, though no blank line follows.
    pub(crate) fn finish(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        self.give(None, &mut take)
    }

    /// A line without the byte order mark before the first.
    fn begun<'a>(&mut self, line: &'a [u8]) -> &'a [u8] {
        let is_first = !mem::replace(&mut self.has_begun, true);
        if is_first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line }
    }

    /// Another line of data.
    fn keep(&mut self, held: &mut Option<&[u8]>, data: &[u8]) -> Result<(), Malformed> {
        for data in held.take().into_iter().chain([data]) {
            if self.has_data {
                self.data.push(b'\n');
            }
            self.has_data = true;
            self.data.extend_from_slice(data);
        }
        bounded(self.data.len())
    }

    /// The event is over.
    fn give(
        &mut self,
        held: Option<&[u8]>,
        take: &mut impl FnMut(&[u8]) -> Result<(), StreamError>,
    ) -> Result<(), StreamError> {
        if let Some(data) = held {
            return if data.is_empty() { Ok(()) } else { take(data) };
        }
        self.has_data = false;
        let data = mem::take(&mut self.data);
        let taken = if data.is_empty() { Ok(()) } else { take(&data) };
        self.data = emptied(data);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Result<Vec<String>, StreamError> {
        let mut sse = Sse::default();
        let mut events = Vec::new();
        for piece in pieces {
            sse.push(piece, |data| {
                events.push(String::from_utf8_lossy(data).into_owned());
                Ok(())
            })?;
        }
        Ok(events)
    }

    #[test]
    fn every_form_of_an_event_is_read_however_it_is_split() {
        for (text, want) in [
            ("data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"]),
            ("data: a\r\rdata: b\r\r", &["a", "b"]),
            ("data: a\r\n\ndata: b\n\r\n", &["a", "b"]),
            ("data:a\n\ndata:  b\n\n", &["a", " b"]),
            ("\u{feff}data: a\n\n\u{feff}data: b\n\n", &["a"]),
            (": comment\ndata: a\n: another\n\n:\n\n", &["a"]),
            ("event: message\nid: 1\nretry: 5\ndata: a\n\n", &["a"]),
            ("data: a\nevent: later\ndata: b\n\n", &["a\nb"]),
            ("data: a\ndata:\ndata\ndata: b\n\n", &["a\n\n\nb"]),
            ("data:\n\ndata\n\nevent: x\n\n\n\n", &[]),
            ("data: ü€😀\n\n", &["ü€😀"]),
            ("database: a\n\nDATA: a\n\n data: a\n\n", &[]),
            ("data: a\n\ndata: is cut\n", &["a"]),
            ("data: a\n\ndata: is cut", &["a"]),
        ] {
            assert_eq!(events(&[text.as_bytes()]).unwrap(), want, "{text:?}");
            for at in 0..=text.len() {
                let (one, two) = text.as_bytes().split_at(at);
                assert_eq!(events(&[one, two]).unwrap(), want, "{text:?} at {at}");
            }
            let single: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(&single).unwrap(), want, "{text:?} byte by byte");
        }
    }

    #[test]
    fn an_event_is_bounded_in_lines_and_in_all() {
        let long = "x".repeat(MOST_BYTES - 6);
        let whole = format!("data: {long}\n\n");
        assert_eq!(events(&[whole.as_bytes()]).unwrap().len(), 1);
        let line = "x".repeat(MOST_BYTES + 1);
        let half = "x".repeat(MOST_BYTES / 2);
        for text in [
            format!("data: {line}\n\n"),
            format!(": {line}\n\n"),
            format!("data: {line}"),
            line,
            format!("data: {half}\ndata: {half}\n\n"),
        ] {
            let split: Vec<&[u8]> = text.as_bytes().chunks(1000).collect();
            for pieces in [&[text.as_bytes()][..], &split] {
                let error = events(pieces).unwrap_err();
                assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
            }
        }
    }
}
