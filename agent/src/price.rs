//! Owns what a request costs at a destination.
//!
//! Pure. Before a request is sent nobody knows how many tokens it is: what is set apart for it is what
//! [`most`] makes of its size, and what the answer's own count makes of it is what was spent.
//!
//! **Invariant:** no price is negative, and none overflows: what is too much is `u64::MAX`.

use holdfast_chat::Usage;

use crate::destination::Limits;

/// Set apart for what is asked at least: the words around an input, and a large picture.
const TOKENS_IN: u64 = 8_192;
/// Of these, for the words around it, such as a system prompt and the frame of each turn.
const TOKENS_AROUND: u64 = 2_048;
/// Set apart for a picture.
const TOKENS_OF_IMAGE: u64 = 2_048;
/// Bytes of text that are a token, or more of them.
const BYTES_OF_TOKEN: u64 = 3;
/// Milliseconds of a recording that are a token, or more of them.
const AUDIO_MS_OF_TOKEN: u64 = 20;
/// Set apart for an answer whose length nobody limits.
const TOKENS_OUT: u64 = 4_096;
/// Tokens of an answer whose length is not known, where prices are compared.
const LIKELY_OUT: u64 = 512;
/// Set apart for a recording of which nothing is known yet.
const AUDIO_MS: u64 = 60_000;

/// What is in a request, as far as it has a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Content {
    /// Bytes of words.
    pub(crate) text_bytes: u64,
    /// Pictures.
    pub(crate) images: u64,
    /// Milliseconds of recordings.
    pub(crate) audio_ms: u64,
}

impl Content {
    /// The tokens that it may be.
    fn counted(&self) -> u64 {
        let words = self.text_bytes / BYTES_OF_TOKEN;
        let sound = self.audio_ms / AUDIO_MS_OF_TOKEN;
        let pictures = self.images.saturating_mul(TOKENS_OF_IMAGE);
        words.saturating_add(sound).saturating_add(pictures)
    }

    /// The tokens that are set apart for it.
    fn tokens(&self) -> u64 {
        self.counted().saturating_add(TOKENS_AROUND).max(TOKENS_IN)
    }
}

/// What is set apart for a request with this in it, whose answer has at most `tokens_out`.
pub(crate) fn most(limits: &Limits, content: &Content, tokens_out: Option<u32>) -> u64 {
    let output = tokens_out.map_or(TOKENS_OUT, u64::from);
    of(limits, content, Some(&Usage { input: content.tokens(), output, ..Usage::default() }))
}

/// What a request with this in it is likely to cost, so that prices can be compared.
pub(crate) fn likely(limits: &Limits, content: &Content, tokens_out: Option<u32>) -> u64 {
    let output = tokens_out.map_or(LIKELY_OUT, |most| u64::from(most).min(LIKELY_OUT));
    of(limits, content, Some(&Usage { input: content.counted(), output, ..Usage::default() }))
}

/// What is set apart for a request before anything is known of it: a picture, or a recording.
pub(crate) fn usual(limits: &Limits, tokens_out: Option<u32>) -> u64 {
    let image = Content { images: 1, ..Content::default() };
    let audio = Content { audio_ms: AUDIO_MS, ..Content::default() };
    most(limits, &image, tokens_out).max(most(limits, &audio, tokens_out))
}

/// Whether what has a price by tokens was counted: every question has some. What nobody counted costs
/// what was set apart for it.
fn is_counted(limits: &Limits, usage: Option<&Usage>) -> bool {
    let prices = &limits.prices;
    let has_no_price = prices.million_tokens_in == 0 && prices.million_tokens_out == 0;
    has_no_price || usage.is_some_and(|usage| usage.input > 0)
}

/// What a request that has its answer cost: what was counted, or what was set apart where nobody did.
pub(crate) fn answered(
    limits: &Limits,
    content: &Content,
    tokens_out: Option<u32>,
    usage: Option<&Usage>,
) -> u64 {
    match is_counted(limits, usage) {
        true => of(limits, content, usage),
        false => most(limits, content, tokens_out),
    }
}

/// What a request cost. A part of a unit counts as the whole.
pub(crate) fn of(limits: &Limits, content: &Content, usage: Option<&Usage>) -> u64 {
    let prices = &limits.prices;
    let tokens = |price: u64, count: u64| part(price, count, 1_000_000);
    let (tokens_in, tokens_out) = usage.map_or((0, 0), |usage| (usage.input, usage.output));
    let images = prices.image.saturating_mul(content.images);
    let own = images.saturating_add(part(prices.audio_second, content.audio_ms, 1_000));
    limits
        .price_micros
        .saturating_add(tokens(prices.million_tokens_in, tokens_in))
        .saturating_add(tokens(prices.million_tokens_out, tokens_out))
        .saturating_add(own)
}

fn part(price: u64, count: u64, of: u64) -> u64 {
    let exact = (u128::from(price) * u128::from(count)).div_ceil(u128::from(of));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// How long a WAV file is at most, by the bytes a second that it states and by those of its samples; one
/// that states none is taken as
/// 16 kHz of 16 bits.
pub(crate) fn wav_ms(bytes: &[u8]) -> u64 {
    let is_format = bytes.get(12..16) == Some(b"fmt ");
    let field = |from: usize, len: usize| {
        let bytes = bytes.get(from..from + len).filter(|_| is_format)?;
        Some(bytes.iter().rev().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    };
    let samples = field(24, 4).zip(field(22, 2)).zip(field(34, 2));
    let decoded = samples.map(|((rate, channels), bits)| rate * channels * bits / 8);
    // Whoever decodes it may go by either: the longer recording counts.
    let rates = [field(28, 4), decoded].into_iter().flatten().filter(|rate| *rate > 0);
    let rate = rates.min().unwrap_or(32_000);
    let length = u64::try_from(bytes.len().saturating_sub(44)).unwrap_or(u64::MAX);
    length.saturating_mul(1_000) / rate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::Prices;

    fn limits() -> Limits {
        let prices = Prices {
            million_tokens_in: 3_000_000,
            million_tokens_out: 15_000_000,
            image: 700,
            audio_second: 100,
        };
        Limits { price_micros: 10, prices, ..Limits::default() }
    }

    #[test]
    fn what_is_in_a_request_is_added_up_and_rounded_up() {
        let usage = Usage { input: 120, output: 9, cached: 100, reasoning: 5 };
        let words = Content { text_bytes: 9_000, ..Content::default() };
        let pictures = Content { images: 2, ..words };
        let sound = Content { audio_ms: 1_001, ..words };
        for (content, usage, want) in [
            (words, None, 10),
            (words, Some(&usage), 10 + 360 + 135),
            (pictures, Some(&usage), 10 + 360 + 135 + 1_400),
            (sound, None, 10 + 101),
            (words, Some(&Usage { input: 1, ..Usage::default() }), 10 + 3),
        ] {
            assert_eq!(of(&limits(), &content, usage), want, "{content:?} {usage:?}");
        }
        let endless = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        assert_eq!(of(&limits(), &words, Some(&endless)), u64::MAX);
    }

    #[test]
    fn tokens_that_nobody_counted_are_not_taken_for_none() {
        let usage = Usage { input: 1, ..Usage::default() };
        let flat = Limits { price_micros: 7, ..Limits::default() };
        for (limits, usage, want) in [
            (limits(), Some(&usage), true),
            (limits(), Some(&Usage::default()), false),
            (limits(), None, false),
            (flat, None, true),
        ] {
            assert_eq!(is_counted(&limits, usage), want, "{usage:?}");
        }
    }

    #[test]
    fn what_is_set_apart_before_anything_is_known_is_for_the_dearest_input() {
        let tokens = 8_192 * 3 + 100 * 15;
        assert_eq!(usual(&limits(), Some(100)), 10 + tokens + 6_000);
        let flat = Limits { price_micros: 7, ..Limits::default() };
        assert_eq!(usual(&flat, None), 7, "a price per request is all that it was");
    }

    #[test]
    fn what_is_likely_is_for_what_is_asked_and_not_for_the_most_of_it() {
        let line = Content { text_bytes: 300, ..Content::default() };
        for (tokens_out, output) in [(None, 512), (Some(100), 100), (Some(9_000), 512)] {
            let want = 10 + 300 + output * 15;
            assert_eq!(likely(&limits(), &line, tokens_out), want, "{tokens_out:?}");
        }
    }

    #[test]
    fn what_is_set_apart_grows_with_what_is_asked() {
        let output = 100 * 15;
        for (case, content, tokens_in, own) in [
            ("a line", Content { text_bytes: 80, ..Content::default() }, 8_192, 0),
            ("a book", Content { text_bytes: 3_000_000, ..Content::default() }, 1_002_048, 0),
            ("pictures", Content { images: 10, ..Content::default() }, 22_528, 7_000),
            ("an hour", Content { audio_ms: 3_600_000, ..Content::default() }, 182_048, 360_000),
            (
                "too much",
                Content { text_bytes: u64::MAX, ..Content::default() },
                u64::MAX / 3 + 2_048,
                0,
            ),
        ] {
            let want =
                10_u64.saturating_add(tokens_in.saturating_mul(3)).saturating_add(output + own);
            assert_eq!(most(&limits(), &content, Some(100)), want, "{case}");
        }
    }

    #[test]
    fn a_recording_is_as_long_as_its_header_makes_it() {
        let mut wav = Vec::from(*b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0");
        wav.extend(16_000_u32.to_le_bytes());
        wav.extend(32_000_u32.to_le_bytes());
        wav.resize(44 + 48_000, 0);
        assert_eq!(wav_ms(&wav), 1_500);
        assert_eq!(wav_ms(b"RIFF"), 0);
        assert_eq!(wav_ms(&[0; 44 + 32_000]), 1_000);
    }
}
