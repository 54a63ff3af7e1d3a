//! Files that were changed in the ways in which files come to be wrong: bits, cuts, lengths, numbers,
//! words, parts of other files.
//!
//! **Invariant:** pure; what comes out is at most [`MOST_BYTES`] long.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// Longest file that is thrown.
pub(super) const MOST_BYTES: usize = 1 << 16;
/// Changes of one file, one after the other.
const MOST_CHANGES: u32 = 6;

/// Numbers at which readers go wrong.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1_000_000_000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    u64::MAX,
];
/// The same as texts.
const TEXTS: [&str; 16] = [
    "0",
    "-1",
    "-0.0",
    "1e309",
    "-1e-309",
    "nan",
    "inf",
    "NaN",
    "1.5",
    "255",
    "256",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "1e6",
];

/// One of `files`, changed.
pub(super) fn changed(files: &[Vec<u8>], words: &[&str], random: &mut StdRng) -> Vec<u8> {
    let mut file = one_of(files, random).cloned().unwrap_or_default();
    // Mostly few changes: what is wrong in one place alone gets furthest.
    let changes =
        1 + random.random_range(0..=MOST_CHANGES).min(random.random_range(0..=MOST_CHANGES));
    for _ in 0..changes {
        change(&mut file, files, words, random);
    }
    file.truncate(MOST_BYTES);
    file
}

fn change(file: &mut Vec<u8>, files: &[Vec<u8>], words: &[&str], random: &mut StdRng) {
    let at = place(file, random);
    match random.random_range(0..12) {
        0 => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << random.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = file.get_mut(at) {
                *byte = random.random();
            }
        }
        2 => file.truncate(at),
        3 => drop(file.drain(span(file, at, random))),
        4 => {
            let part = file[span(file, at, random)].to_vec();
            let to = place(file, random);
            put(file, to, &part);
        }
        5 => {
            let mut part = vec![0; random.random_range(1..=16)];
            random.fill_bytes(&mut part);
            put(file, at, &part);
        }
        6 | 7 => number(file, at, random),
        8 => digits(file, random),
        9 => {
            let word = one_of(words, random).map_or(&b""[..], |word| word.as_bytes());
            put(file, at, word);
        }
        10 => {
            let other = one_of(files, random).cloned().unwrap_or_default();
            let from = place(&other, random);
            let part = other[span(&other, from, random)].to_vec();
            put(file, at, &part);
        }
        _ => {
            // Many of a small part: depth, and lists without an end.
            let part = file[span(file, at, random)].to_vec();
            let part = &part[..part.len().min(8)];
            let times = 1usize << random.random_range(0..13);
            put(file, at, &part.repeat(times.min(MOST_BYTES / part.len().max(1))));
        }
    }
}

/// A number in binary, in two to eight bytes of either order.
fn number(file: &mut [u8], at: usize, random: &mut StdRng) {
    let value = one_of(&NUMBERS, random).copied().unwrap_or(0);
    let value = value.wrapping_add_signed(random.random_range(-1..=1));
    let width = 1usize << random.random_range(1..=3);
    let mut bytes = value.to_le_bytes();
    if random.random() {
        bytes[..width].reverse();
    }
    if let Some(own) = file.get_mut(at..at + width) {
        own.copy_from_slice(&bytes[..width]);
    }
}

/// A number in words takes the place of another one.
fn digits(file: &mut Vec<u8>, random: &mut StdRng) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let begins =
        (0..file.len()).filter(|at| is_digit(&file[*at]) && (*at == 0 || !is_digit(&file[at - 1])));
    let begins: Vec<usize> = begins.collect();
    let Some(begin) = one_of(&begins, random).copied() else { return };
    let length = file[begin..].iter().take_while(|byte| is_digit(byte)).count();
    let text = one_of(&TEXTS, random).copied().unwrap_or("0");
    file.splice(begin..begin + length, text.bytes());
}

fn put(file: &mut Vec<u8>, at: usize, part: &[u8]) {
    file.splice(at..at, part.iter().copied());
}

fn place(file: &[u8], random: &mut StdRng) -> usize {
    // Headers stand at the beginning.
    match random.random_range(0..3) {
        0 => random.random_range(0..=file.len().min(64)),
        _ => random.random_range(0..=file.len()),
    }
}

fn span(file: &[u8], at: usize, random: &mut StdRng) -> std::ops::Range<usize> {
    let most = (file.len() - at).min(1 << random.random_range(0..10));
    at..at + random.random_range(0..=most)
}

fn one_of<'a, T>(all: &'a [T], random: &mut StdRng) -> Option<&'a T> {
    (!all.is_empty()).then(|| &all[random.random_range(0..all.len())])
}
