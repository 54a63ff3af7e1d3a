//! Owns the reading of JSON text, piece by piece.
//!
//! Tensors arrive as lists of a hundred thousand numbers, which are to become elements without a value
//! of their own in between; serde's visitors would have the type known before the list begins, and JSON
//! lets it come after.
//!
//! **Invariant:** takes exactly the texts of RFC 8259 (and, as Python writes them, `NaN`, `Infinity`
//! and `-Infinity` as numbers), nested at most 64 deep; every step forward consumes a byte.

use std::borrow::Cow;

/// Lists and objects inside each other at most.
const MAX_DEPTH: usize = 64;

/// Where the text is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Offset of the byte.
    pub(super) at: usize,
    /// What is wrong there.
    pub(super) what: Cow<'static, str>,
}

impl Fault {
    pub(super) fn new(at: usize, what: impl Into<Cow<'static, str>>) -> Self {
        Self { at, what: what.into() }
    }
}

/// A number of at most 19 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) is_negative: bool,
    /// Its digits, without the point.
    pub(super) digits: u64,
    /// How many of them stand behind the point.
    pub(super) behind: usize,
}

/// Reads digits behind others: their value if they are at most 19 together, and where they end.
#[inline]
fn digits(bytes: &[u8], mut at: usize, mut value: u64) -> (u64, usize) {
    while let Some(byte) = bytes.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        at = at.wrapping_add(1);
    }
    (value, at)
}

/// A place in a JSON text.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// A fault at the next byte.
    pub(super) fn fault(&self, what: impl Into<Cow<'static, str>>) -> Fault {
        Fault::new(self.at, what)
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no space.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// Takes a byte, if it is the next one that is no space.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.take(byte) {
            return Ok(());
        }
        let got = match self.byte() {
            None => "the end".to_owned(),
            Some(byte) => format!("{:?}", char::from(byte)),
        };
        Err(self.fault(format!("{:?} was expected, not {got}", char::from(byte))))
    }

    /// Nothing but space is left.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.fault("the text goes on after its end")),
        }
    }

    fn deeper(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    /// Reads an object: `value` reads the value of each key.
    pub(super) fn object<E: From<Fault>>(
        &mut self,
        mut value: impl FnMut(&mut Self, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'{')?;
        self.deeper()?;
        if !self.take(b'}') {
            loop {
                self.peek();
                let key = self.string()?;
                self.expect(b':')?;
                value(self, &key)?;
                if !self.take(b',') {
                    self.expect(b'}')?;
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a list: `value` reads each of its values.
    pub(super) fn list<E: From<Fault>>(
        &mut self,
        mut value: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.expect(b'[')?;
        self.deeper()?;
        if !self.take(b']') {
            loop {
                value(self)?;
                if !self.take(b',') {
                    self.expect(b']')?;
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads a string.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        self.expect(b'"')?;
        let begin = self.at;
        let rest = &self.text.as_bytes()[begin..];
        let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
        let Some(plain) = plain else {
            self.at = self.text.len();
            return Err(self.fault("a string does not end"));
        };
        self.at += plain;
        let text = &self.text[begin..self.at];
        if self.byte() == Some(b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        let mut own = text.to_owned();
        loop {
            let begin = self.at;
            match self.byte() {
                None => return Err(self.fault("a string does not end")),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(own));
                }
                Some(b'\\') => own.push(self.escape()?),
                Some(0..=0x1f) => return Err(self.fault("a string holds a control character")),
                Some(_) => {
                    let rest = &self.text.as_bytes()[begin..];
                    let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f));
                    self.at += plain.unwrap_or(rest.len());
                    own.push_str(&self.text[begin..self.at]);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        self.at += 1;
        let letter = self.byte();
        self.at += usize::from(letter.is_some());
        Ok(match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.fault("an unknown escape in a string")),
        })
    }

    fn unicode(&mut self) -> Result<char, Fault> {
        let first = self.four_digits()?;
        let code = match first {
            0xd800..=0xdbff => {
                let rest = self.text.as_bytes().get(self.at..self.at + 2);
                if rest != Some(b"\\u") {
                    return Err(self.fault("half a pair of \\u escapes in a string"));
                }
                self.at += 2;
                let second = self.four_digits()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.fault("half a pair of \\u escapes in a string"));
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(|| self.fault("half a pair of \\u escapes in a string"))
    }

    fn four_digits(&mut self) -> Result<u32, Fault> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let is_hex = |digits: &&[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        let Some(digits) = digits.filter(is_hex) else {
            return Err(self.fault("\\u needs four hexadecimal digits"));
        };
        self.at += 4;
        Ok(digits.iter().fold(0, |code, digit| {
            (code << 4) | char::from(*digit).to_digit(16).unwrap_or_default()
        }))
    }

    /// Reads a number as most of those in a tensor are written, quickly: at most 19 digits, and no
    /// exponent. Of any other one, and of what is none, nothing is read.
    #[inline]
    pub(super) fn plain(&mut self) -> Option<Plain> {
        let bytes = self.text.as_bytes();
        let mut at = self.at;
        while bytes.get(at) == Some(&b' ') {
            at = at.wrapping_add(1);
        }
        let is_negative = bytes.get(at) == Some(&b'-');
        let begin = at.wrapping_add(usize::from(is_negative));
        let (mut digits, mut at) = self::digits(bytes, begin, 0);
        let whole = at.wrapping_sub(begin);
        if whole == 0 || (whole > 1 && bytes.get(begin) == Some(&b'0')) {
            return None;
        }
        let mut behind = 0;
        if bytes.get(at) == Some(&b'.') {
            let point = at.wrapping_add(1);
            (digits, at) = self::digits(bytes, point, digits);
            behind = at.wrapping_sub(point);
            if behind == 0 {
                return None;
            }
        }
        let is_long = whole.wrapping_add(behind) > 19;
        if is_long || matches!(bytes.get(at), Some(b'e' | b'E')) {
            return None;
        }
        self.at = at;
        Some(Plain { is_negative, digits, behind })
    }

    /// Reads the text of a number.
    pub(super) fn number(&mut self) -> Result<&'a str, Fault> {
        self.peek();
        let bytes = self.text.as_bytes();
        let begin = self.at;
        for word in ["NaN", "Infinity", "-Infinity"] {
            if bytes[begin..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(&self.text[begin..self.at]);
            }
        }
        let whole = begin + usize::from(self.byte() == Some(b'-'));
        let (_, mut at) = digits(bytes, whole, 0);
        if at == whole || (at > whole + 1 && bytes[whole] == b'0') {
            return Err(self.fault("a number was expected"));
        }
        if bytes.get(at) == Some(&b'.') {
            let point = at + 1;
            (_, at) = digits(bytes, point, 0);
            if at == point {
                return Err(Fault::new(at, "a number needs a digit behind its point"));
            }
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            at += 1;
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            let (_, end) = digits(bytes, at, 0);
            if end == at {
                return Err(Fault::new(at, "a number needs a digit in its exponent"));
            }
            at = end;
        }
        self.at = at;
        Ok(&self.text[begin..at])
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        self.peek();
        for (word, value) in [("true", true), ("false", false)] {
            if self.word(word) {
                return Ok(value);
            }
        }
        Err(self.fault("true or false was expected"))
    }

    fn word(&mut self, word: &str) -> bool {
        let is_next = self.text[self.at..].starts_with(word);
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    /// Reads any value and forgets it.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Some(b'{') => self.object(|reader, _| reader.skip()),
            Some(b'[') => self.list(Self::skip),
            Some(b'"') => self.string().map(drop),
            Some(b't' | b'f') => self.boolean().map(drop),
            Some(b'n') if self.word("null") => Ok(()),
            Some(_) => self.number().map(drop),
            None => Err(self.fault("the text ends too early")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_json(text: &str) -> bool {
        let mut reader = Reader::new(text);
        reader.skip().is_ok() && reader.end().is_ok()
    }

    /// Texts made of JSON's own pieces, most of them not JSON.
    fn nearly_json() -> impl Strategy<Value = String> {
        let pieces = [
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\"a\"",
            "\"\\n\"",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\\",
            "0",
            "-",
            "1",
            "12",
            "01",
            "1.5",
            "1.",
            ".5",
            "-0",
            "1e5",
            "1E+",
            "1e-3",
            "true",
            "false",
            "null",
            "tru",
            " ",
            "\n",
            "é",
            "\u{1}",
            "\u{7f}",
        ];
        prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..12)
            .prop_map(|pieces| pieces.concat())
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            any::<String>().prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((any::<String>(), inner), 0..6)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn takes_what_serde_takes(text in nearly_json()) {
            // 1e999 is JSON, and taken for what its type makes of it; serde says no more of such a text.
            match serde_json::from_str::<serde_json::Value>(&text) {
                Err(error) if error.to_string().contains("out of range") => {}
                read => prop_assert_eq!(is_json(&text), read.is_ok(), "{}", text),
            }
        }

        #[test]
        fn takes_what_serde_writes(value in json()) {
            prop_assert!(is_json(&value.to_string()));
        }

        #[test]
        fn reads_strings_as_serde_writes_them(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            let mut reader = Reader::new(&written);
            let read = reader.string().unwrap();
            prop_assert_eq!(read.as_ref(), text.as_str());
            prop_assert!(reader.end().is_ok());
        }

        #[test]
        fn whatever_the_text_is_it_ends(text in any::<String>()) {
            is_json(&text);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for (depth, want) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100_000, false)] {
            assert_eq!(is_json(&("[".repeat(depth) + &"]".repeat(depth))), want, "{depth}");
            let objects = "{\"a\":".repeat(depth) + "0" + &"}".repeat(depth);
            assert_eq!(is_json(&objects), want, "{depth}");
        }
    }

    #[test]
    fn python_s_numbers_are_numbers() {
        for text in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(Reader::new(text).number(), Ok(text));
        }
        assert!(Reader::new("-NaN").number().is_err());
    }
}
