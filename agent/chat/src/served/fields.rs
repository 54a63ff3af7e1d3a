//! Owns the fields that several requests have: presence, words or lists of them, sampling, metadata,
//! streams.
//!
//! **Invariant:** a field of a wrong form is refused by its path.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::RangeInclusive;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::fault::{invalid, shown, unsupported_value};
use super::{Refusal, StreamOptions};

/// The tiers of service that are the usual one.
pub(super) const TIERS: [&str; 2] = ["auto", "default"];

/// Whether a field is there and not null.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Given(pub(super) bool);

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<IgnoredAny>::deserialize(deserializer)?.is_some()))
    }
}

/// A text that is read and not kept.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Word<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The text of a word that is there.
pub(super) fn text<'a>(word: &'a Option<Word<'_>>) -> Option<&'a str> {
    word.as_ref().map(|word| &*word.0)
}

/// An object; the items of a list are not taken for its fields.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct In<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for In<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(In(PhantomData))
    }
}

/// One text, or a list.
#[derive(Debug)]
pub(super) enum OneOrMany<T> {
    /// One text.
    One(String),
    /// A list.
    Many(Vec<T>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct In<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for In<T> {
            type Value = OneOrMany<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany<T>, E> {
                Ok(OneOrMany::One(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany<T>, A::Error> {
                let mut many = Vec::new();
                while let Some(one) = list.next_element()? {
                    many.push(one);
                }
                Ok(OneOrMany::Many(many))
            }
        }
        deserializer.deserialize_any(In(PhantomData))
    }
}

/// A word, or an object that says more.
#[derive(Debug)]
pub(super) enum WordOr<T> {
    /// A word.
    Word(String),
    /// An object.
    Object(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for WordOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct In<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for In<T> {
            type Value = WordOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or an object")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<WordOr<T>, E> {
                Ok(WordOr::Word(text.to_owned()))
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                map: A,
            ) -> Result<WordOr<T>, A::Error> {
                let map = serde::de::value::MapAccessDeserializer::new(map);
                T::deserialize(map).map(WordOr::Object)
            }
        }
        deserializer.deserialize_any(In(PhantomData))
    }
}

/// What `stream_options` holds.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Streaming {
    #[serde(default)]
    include_usage: Option<bool>,
    #[serde(default)]
    include_obfuscation: Option<bool>,
}

/// How to stream, if at all.
pub(super) fn stream(
    stream: Option<bool>,
    options: Option<&Object<Streaming>>,
) -> Result<Option<StreamOptions>, Refusal> {
    let Some(Object(options)) = options else {
        return Ok(stream.unwrap_or_default().then(StreamOptions::default));
    };
    if stream != Some(true) {
        return Err(invalid("stream_options", "stream_options: only where stream is true"));
    }
    if options.include_obfuscation == Some(true) {
        let param = "stream_options.include_obfuscation";
        return Err(unsupported_value(param, format!("{param}: there is none here")));
    }
    Ok(Some(StreamOptions { include_usage: options.include_usage.unwrap_or_default() }))
}

/// The model that is asked.
pub(super) fn model(model: Option<String>) -> Result<String, Refusal> {
    let model = model.ok_or_else(|| super::fault::missing("model"))?;
    match model.is_empty() {
        true => Err(invalid("model", "model: must not be empty")),
        false => Ok(model),
    }
}

/// One of some words.
pub(super) fn one_of<T: Copy>(
    param: &str,
    word: Option<&str>,
    named: &[(&'static str, T)],
) -> Result<Option<T>, Refusal> {
    let Some(word) = word else { return Ok(None) };
    if let Some((_, value)) = named.iter().find(|(name, _)| *name == word) {
        return Ok(Some(*value));
    }
    let (last, others) = named.split_last().map_or(("", named), |((last, _), rest)| (*last, rest));
    let others: Vec<&str> = others.iter().map(|(name, _)| *name).collect();
    Err(invalid(param, format!("{param}: must be {} or {last}", others.join(", "))))
}

/// A number in a range.
pub(super) fn within(
    param: &str,
    value: Option<f32>,
    range: RangeInclusive<f32>,
) -> Result<Option<f32>, Refusal> {
    match value {
        Some(value) if !range.contains(&value) => {
            let (from, to) = range.into_inner();
            Err(invalid(param, format!("{param}: must be {from} to {to}")))
        }
        value => Ok(value),
    }
}

/// A count of at least one.
pub(super) fn at_least_one(param: &str, value: Option<u64>) -> Result<Option<u32>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    match u32::try_from(value) {
        Ok(value @ 1..) => Ok(Some(value)),
        _ => Err(invalid(param, format!("{param}: must be 1 to {}", u32::MAX))),
    }
}

/// A seed of any sign, of which 32 bits can be sent on.
pub(super) fn seed(value: Option<i64>) -> Result<Option<u32>, Refusal> {
    let refused = || unsupported_value("seed", format!("seed: must be 0 to {}", u32::MAX));
    value.map(|value| u32::try_from(value).map_err(|_| refused())).transpose()
}

/// Stop sequences.
pub(super) fn stops(stop: Option<OneOrMany<String>>) -> Result<Vec<String>, Refusal> {
    let stops = match stop {
        None => Vec::new(),
        Some(OneOrMany::One(one)) => vec![one],
        Some(OneOrMany::Many(many)) => many,
    };
    match stops.len() > 4 || stops.iter().any(String::is_empty) {
        true => Err(invalid("stop", "stop: must be up to 4 sequences, none of them empty")),
        false => Ok(stops),
    }
}

/// Pairs of the caller's.
pub(super) fn metadata(
    metadata: Option<BTreeMap<String, String>>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let metadata = metadata.unwrap_or_default();
    if metadata.len() > 16 {
        return Err(invalid("metadata", "metadata: must be up to 16 pairs"));
    }
    let is_long = |text: &str, most: usize| text.chars().count() > most;
    match metadata.iter().find(|(key, value)| is_long(key, 64) || is_long(value, 512)) {
        Some((key, _)) => {
            let param = format!("metadata.{}", shown(key));
            let message = "names have up to 64 characters, values up to 512";
            Err(invalid(param.clone(), format!("{param}: {message}")))
        }
        None => Ok(metadata),
    }
}
