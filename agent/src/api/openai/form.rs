//! Owns the reading of a form with a file in it: `multipart/form-data` (RFC 7578), whole in memory.
//!
//! **Invariant:** a form is read whole or refused; there are no more than [`MAX_PARTS`] parts, and no
//! byte of one is taken for a part of another.

use bytes::Bytes;

/// More parts than any call has.
const MAX_PARTS: usize = 32;
/// A longer head of a part is none.
const MAX_HEAD: usize = 4096;

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The field's name.
    pub(super) name: String,
    /// The file's name, of one that is a file.
    pub(super) file: Option<String>,
    /// What is in it.
    pub(super) bytes: Bytes,
}

/// The parts of `body`, whose content type this is; the fault otherwise.
pub(super) fn read(content_type: &str, body: &Bytes) -> Result<Vec<Part>, &'static str> {
    let mark = boundary(content_type)
        .ok_or("the content type must be multipart/form-data with a boundary")?;
    let (first, between) = (format!("--{mark}"), format!("\r\n--{mark}"));
    // What stands before the first boundary is for nobody.
    let start = match body.starts_with(first.as_bytes()) {
        true => first.len(),
        false => find(body, between.as_bytes(), 0).ok_or(CUT)? + between.len(),
    };
    let (mut at, mut parts) = (start, Vec::new());
    loop {
        let rest = body.get(at..).ok_or(CUT)?;
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        if parts.len() == MAX_PARTS {
            return Err("the form has more parts than this call takes");
        }
        let blanks = rest.iter().take_while(|byte| [b' ', b'\t'].contains(byte)).count();
        if !rest.get(blanks..).is_some_and(|rest| rest.starts_with(b"\r\n")) {
            return Err(CUT);
        }
        // The line break of the boundary is also the first of a head without lines.
        let head = at + blanks;
        let end = find(body, b"\r\n\r\n", head).filter(|end| end - head <= MAX_HEAD).ok_or(CUT)?;
        let next = find(body, between.as_bytes(), end + 2).ok_or(CUT)?;
        let text = body.get(head..end).and_then(|head| std::str::from_utf8(head).ok());
        let (name, file) = text.and_then(disposition).ok_or("a part of the form has no name")?;
        parts.push(Part { name, file, bytes: body.slice((end + 4).min(next)..next) });
        at = next + between.len();
    }
}

const CUT: &str = "the form is cut off, or is none";

fn boundary(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let mark = parameters(rest).find(|(name, _)| name.eq_ignore_ascii_case("boundary"))?.1;
    ((1..=70).contains(&mark.len()) && mark.bytes().all(|b| b.is_ascii_graphic() || b == b' '))
        .then_some(mark)
}

/// The names of the field and of its file, out of a part's head.
fn disposition(head: &str) -> Option<(String, Option<String>)> {
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    })?;
    let (kind, rest) = line.split_once(';')?;
    let of = |wanted: &str| {
        parameters(rest).find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let name = of("name").filter(|_| kind.trim().eq_ignore_ascii_case("form-data"))?;
    Some((name.to_owned(), of("filename").map(str::to_owned)))
}

/// `name=value; name="value"`, as far as it reads.
fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (name, after) = rest.trim_start_matches([';', ' ', '\t']).split_once('=')?;
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(';').unwrap_or((after, "")),
        };
        rest = left;
        Some((name.trim(), value.trim()))
    })
}

/// Where `needle` begins in `bytes`, from `from` on.
fn find(bytes: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == first)?;
        if bytes.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "multipart/form-data; boundary=\"x y\"";

    fn parts(body: &[u8]) -> Result<Vec<Part>, &'static str> {
        read(KIND, &Bytes::copy_from_slice(body))
    }

    fn part(name: &str, file: Option<&str>, bytes: &'static [u8]) -> Part {
        let file = file.map(str::to_owned);
        Part { name: name.to_owned(), file, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn fields_and_files_come_out_as_they_went_in() {
        let body = b"for nobody\r\n--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n\
            --x y  \r\ncontent-type: audio/wav\r\ncontent-disposition: form-data; name=file; \
            filename=\"a;b.wav\"\r\n\r\nRIFF\r\n--x\r\n\0\r\n--x y\r\nContent-Disposition: form-data; \
            name=\"empty\"\r\n\r\n\r\n--x y--\r\nfor nobody";
        let want = [
            part("model", None, b"m"),
            part("file", Some("a;b.wav"), b"RIFF\r\n--x\r\n\0"),
            part("empty", None, b""),
        ];
        assert_eq!(parts(body).unwrap(), want);
        assert_eq!(parts(b"--x y--").unwrap(), []);
    }

    #[test]
    fn a_form_that_is_none_is_refused() {
        let whole: &[u8] =
            b"--x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y--";
        assert!(parts(whole).is_ok());
        for end in 0..whole.len() - 2 {
            assert!(parts(&whole[..end]).is_err(), "cut after {end} bytes");
        }
        let mut many = Vec::new();
        for _ in 0..40 {
            many.extend(b"--x y\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n");
        }
        many.extend(b"--x y--");
        for (case, body) in [
            ("no name", &b"--x y\r\nContent-Disposition: form-data\r\n\r\nm\r\n--x y--"[..]),
            ("no head", b"--x y\r\n\r\nm\r\n--x y--"),
            (
                "another kind",
                b"--x y\r\nContent-Disposition: attachment; name=a\r\n\r\nm\r\n--x y--",
            ),
            ("too many", &many),
        ] {
            assert!(parts(body).is_err(), "{case}");
        }
        for kind in [
            "",
            "multipart/form-data",
            "application/json; boundary=x",
            "multipart/form-data; boundary=",
        ] {
            assert!(read(kind, &Bytes::copy_from_slice(whole)).is_err(), "{kind}");
        }
    }
}
