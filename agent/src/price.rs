//! Owns what a request costs at a destination.
//!
//! Pure. Before a request is sent nobody knows how many tokens it is: what is set apart for it is what
//! [`most`] says, and what the answer's own count makes of it is what was spent.
//!
//! **Invariant:** no price is negative, and none overflows: what is too much is `u64::MAX`.

use holdfast_chat::Usage;

use crate::destination::Limits;

/// Set apart for what is asked: the words around an input, and a large picture or a long text.
const TOKENS_IN: u64 = 8_192;
/// Set apart for an answer whose length nobody limits.
const TOKENS_OUT: u64 = 4_096;
/// Set apart for a recording: none is longer.
const AUDIO_MS: u64 = 60_000;

/// What is in a request, as far as it has a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// A picture.
    Image,
    /// A recording of so many milliseconds.
    Audio(u64),
    /// Anything else.
    Words,
}

/// What is set apart for a request whose answer has at most `tokens_out`.
pub(crate) fn most(limits: &Limits, tokens_out: Option<u32>) -> u64 {
    let output = tokens_out.map_or(TOKENS_OUT, u64::from);
    let usage = Usage { input: TOKENS_IN, output, ..Usage::default() };
    let image = of(limits, Input::Image, Some(&usage));
    image.max(of(limits, Input::Audio(AUDIO_MS), Some(&usage)))
}

/// Whether what has a price by tokens was counted: every question has some. What nobody counted costs
/// what was set apart for it.
pub(crate) fn is_counted(limits: &Limits, usage: Option<&Usage>) -> bool {
    let prices = &limits.prices;
    let has_no_price = prices.million_tokens_in == 0 && prices.million_tokens_out == 0;
    has_no_price || usage.is_some_and(|usage| usage.input > 0)
}

/// What a request cost. A part of a unit counts as the whole.
pub(crate) fn of(limits: &Limits, input: Input, usage: Option<&Usage>) -> u64 {
    let prices = &limits.prices;
    let tokens = |price: u64, count: u64| part(price, count, 1_000_000);
    let (tokens_in, tokens_out) = usage.map_or((0, 0), |usage| (usage.input, usage.output));
    let own = match input {
        Input::Image => prices.image,
        Input::Audio(ms) => part(prices.audio_second, ms, 1_000),
        Input::Words => 0,
    };
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

/// How long a WAV file is by the bytes a second that it states; one that states none is taken as
/// 16 kHz of 16 bits.
pub(crate) fn wav_ms(bytes: &[u8]) -> u64 {
    let stated = bytes.get(12..16).filter(|id| *id == b"fmt ").and_then(|_| bytes.get(28..32));
    let stated = stated.and_then(|field| field.try_into().ok()).map(u32::from_le_bytes);
    let rate = stated.filter(|rate| *rate > 0).map_or(32_000, u64::from);
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
        for (input, usage, want) in [
            (Input::Words, None, 10),
            (Input::Words, Some(&usage), 10 + 360 + 135),
            (Input::Image, Some(&usage), 10 + 360 + 135 + 700),
            (Input::Audio(1_001), None, 10 + 101),
            (Input::Words, Some(&Usage { input: 1, ..Usage::default() }), 10 + 3),
        ] {
            assert_eq!(of(&limits(), input, usage), want, "{input:?} {usage:?}");
        }
        let endless = Usage { input: u64::MAX, output: u64::MAX, ..Usage::default() };
        assert_eq!(of(&limits(), Input::Words, Some(&endless)), u64::MAX);
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
    fn what_is_set_apart_is_for_the_dearest_input() {
        let tokens = 8_192 * 3 + 100 * 15;
        assert_eq!(most(&limits(), Some(100)), 10 + tokens + 6_000);
        let flat = Limits { price_micros: 7, ..Limits::default() };
        assert_eq!(most(&flat, None), 7, "a price per request is all that it was");
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
