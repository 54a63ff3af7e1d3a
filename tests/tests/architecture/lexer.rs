//! Rust text without its comments and literals, so that a fence looks at code alone.
//!
//! **Invariant:** lines keep their numbers.

use std::iter::Peekable;
use std::str::Chars;

/// The code of a Rust file: comments and the insides of literals are gone, line ends stay.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|&c| c != '\n') {
                    chars.next();
                }
            }
            '/' if chars.peek() == Some(&'*') => block_comment(&mut chars, &mut out),
            '"' => string(&mut chars, &mut out),
            'r' if !ends_in_word(&out) && matches!(chars.peek(), Some('"' | '#')) => {
                raw_string(&mut chars, &mut out);
            }
            '\'' => quote(&mut chars, &mut out),
            other => out.push(other),
        }
    }
    out
}

/// The words of the code, each with its line.
pub(crate) fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.lines().enumerate().flat_map(|(number, line)| {
        line.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .map(move |word| (number + 1, word))
    })
}

fn ends_in_word(out: &str) -> bool {
    // `br"…"` and `cr"…"` are raw strings too.
    let before = out.trim_end_matches(['b', 'c']);
    before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn block_comment(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut depth = 1;
    chars.next();
    while depth > 0 {
        match (chars.next(), chars.peek()) {
            (Some('/'), Some('*')) => {
                chars.next();
                depth += 1;
            }
            (Some('*'), Some('/')) => {
                chars.next();
                depth -= 1;
            }
            (Some('\n'), _) => out.push('\n'),
            (Some(_), _) => {}
            (None, _) => return,
        }
    }
}

fn string(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    out.push('"');
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let escaped = chars.next();
                if escaped == Some('\n') {
                    out.push('\n');
                }
            }
            '"' => break,
            '\n' => out.push('\n'),
            _ => {}
        }
    }
    out.push('"');
}

fn raw_string(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut hashes = 0;
    while chars.peek() == Some(&'#') {
        chars.next();
        hashes += 1;
    }
    if chars.peek() != Some(&'"') {
        // A raw identifier, `r#type`.
        return;
    }
    chars.next();
    out.push('"');
    while let Some(c) = chars.next() {
        if c == '\n' {
            out.push('\n');
        }
        if c == '"' {
            let mut seen = 0;
            while seen < hashes && chars.peek() == Some(&'#') {
                chars.next();
                seen += 1;
            }
            if seen == hashes {
                break;
            }
        }
    }
    out.push('"');
}

/// A character, or a lifetime: `'a'`, `'\''`, `'a`.
fn quote(chars: &mut Peekable<Chars<'_>>, out: &mut String) {
    let mut ahead = chars.clone();
    match (ahead.next(), ahead.next()) {
        (Some('\\'), _) => {
            chars.next();
            chars.next();
            for c in chars.by_ref() {
                if c == '\'' {
                    break;
                }
            }
        }
        (Some(_), Some('\'')) => {
            chars.next();
            chars.next();
        }
        _ => out.push('\''),
    }
}

#[test]
fn comments_and_literals_are_no_code() {
    let cases = [
        ("use sled; // sled\n", "use sled; \n"),
        ("a /* sled /* x */ y\n*/ b", "a \n b"),
        (r#"f("sled \" sled", b'"')"#, r#"f("", b)"#),
        ("f(r##\"sled \"# sled\"##, x)", "f(\"\", x)"),
        ("fn f<'a>(x: &'a str) { '\"' }", "fn f<'a>(x: &'a str) {  }"),
        ("let r#type = '\\'';", "let type = ;"),
        ("var\"s\"", "var\"\""),
    ];
    for (text, want) in cases {
        assert_eq!(code(text), want, "{text}");
    }
    assert_eq!(
        words("a b_1\n  c::d").collect::<Vec<_>>(),
        [(1, "a"), (1, "b_1"), (2, "c"), (2, "d")]
    );
}
