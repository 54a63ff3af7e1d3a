//! Reads numbers and texts that a caller sends: JSON by the inputs' names, CSV, NPY, raw elements.
//!
//! **Invariant:** whatever the bytes are, what comes out is finite numbers with a shape that has as
//! many, texts, or files; the numbers of one input take at most 128 MiB, and a text or file no more
//! than the body.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::tensor::Dtype;

/// Most dimensions of a list of lists.
const MAX_DEPTH: usize = 8;
/// Most numbers of one input, over all of its windows.
const MAX_VALUES: usize = 1 << 24;

/// One input, as it was sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Numbers(Numbers),
    Text(String),
    /// The bytes of a recording or a picture.
    File(Vec<u8>),
}

/// Numbers in C order, as many as the shape says, all finite.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Numbers {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

/// Why a body gives no inputs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is not JSON, or none of this form.
    #[error("the body is not {{\"inputs\": {{NAME: VALUES}}}}: {0}")]
    Json(String),
    /// A line is not numbers with the first line's separator between.
    #[error(
        "line {line} of the CSV {why}: send one row of numbers with decimal points a line, separated as \
         in the first"
    )]
    Csv {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// It is not an array as NumPy saves it.
    #[error(
        "the body is not an NPY file that is taken: {0}; send version 1 to 3, little-endian, C order"
    )]
    Npy(String),
    /// It is not a whole number of elements.
    #[error("the body of {bytes} bytes is not a whole number of {dtype} elements, little-endian")]
    Raw {
        /// Its length.
        bytes: usize,
        /// The elements' type.
        dtype: Dtype,
    },
    /// A number is infinite or not a number.
    #[error("value {at} is {value}: send finite numbers only")]
    NotFinite {
        /// Which, from 0.
        at: usize,
        /// As it was sent.
        value: String,
    },
    /// There are too many numbers.
    #[error("there are more than {MAX_VALUES} numbers: send fewer windows at a time")]
    TooMany,
    /// It is not text in UTF-8.
    #[error("the body is not text in UTF-8")]
    Text,
}

/// The inputs of a JSON body by their names: of `{"inputs": {...}}`, or of a list alone, which has no
/// name.
pub(super) fn json(bytes: &[u8]) -> Result<Vec<(Option<String>, Value)>, BodyError> {
    let told = |error: serde_json::Error| BodyError::Json(error.to_string());
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let inputs = if first == Some(&b'{') {
        let named = reader.deserialize_map(Whole).map_err(told)?;
        named.into_iter().map(|(name, value)| (Some(name), value)).collect()
    } else {
        vec![(None, ValueSeed.deserialize(&mut reader).map_err(told)?)]
    };
    reader.end().map_err(told)?;
    Ok(inputs)
}

/// The object around the inputs.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the key \"inputs\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut inputs = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "inputs" if inputs.is_none() => inputs = Some(map.next_value_seed(Inputs)?),
                "inputs" => return Err(A::Error::custom("\"inputs\" stands there twice")),
                other => return Err(A::Error::custom(format!("there is no key {other:?}"))),
            }
        }
        inputs.ok_or_else(|| A::Error::custom("the key \"inputs\" is missing"))
    }
}

/// The object of inputs.
struct Inputs;

impl<'de> DeserializeSeed<'de> for Inputs {
    type Value = Vec<(String, Value)>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Inputs {
    type Value = Vec<(String, Value)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of inputs by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut inputs: Vec<(String, Value)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if inputs.iter().any(|(other, _)| *other == name) {
                return Err(A::Error::custom(format!("input {name:?} stands there twice")));
            }
            if inputs.len() == MAX_INPUTS {
                return Err(A::Error::custom(format!("there are more than {MAX_INPUTS} inputs")));
            }
            let value = map.next_value_seed(ValueSeed);
            let value = value.map_err(|e| A::Error::custom(format!("input {name:?}: {e}")))?;
            inputs.push((name, value));
        }
        Ok(inputs)
    }
}

/// No bundle has more.
const MAX_INPUTS: usize = 16;

/// The value of one input.
struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, a list of them, a text, or {\"b64\": a file}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Numbers(Numbers { shape: Vec::new(), values: vec![value] }))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        exact(value).and_then(|value| self.visit_f64(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        exact(value).and_then(|value| self.visit_f64(value))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.visit_f64(f64::from(u8::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Value, A::Error> {
        let mut numbers = Numbers::default();
        Level { depth: 0, numbers: &mut numbers }.visit_seq(list)?;
        Ok(Value::Numbers(numbers))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let wrong = || A::Error::custom("a file is sent as {\"b64\": \"...\"}");
        if map.next_key::<String>()?.as_deref() != Some("b64") {
            return Err(wrong());
        }
        let text = map.next_value::<String>()?;
        let bytes = STANDARD.decode(text).map_err(|e| A::Error::custom(format!("base64: {e}")))?;
        if map.next_key::<String>()?.is_some() {
            return Err(wrong());
        }
        Ok(Value::File(bytes))
    }
}

/// A whole number that f64 has exactly.
fn exact<E: serde::de::Error>(value: impl TryInto<i64> + fmt::Display + Copy) -> Result<f64, E> {
    const LARGEST: i64 = 1 << 53;
    let number = value.try_into().ok().filter(|n| (-LARGEST..=LARGEST).contains(n));
    #[allow(clippy::cast_precision_loss, reason = "within what f64 has exactly")]
    number.map(|n| n as f64).ok_or_else(|| E::custom(format!("{value} is too large a number")))
}

/// A list inside of lists; the first of each depth says how long the others are.
struct Level<'a> {
    depth: usize,
    numbers: &'a mut Numbers,
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    /// Whether it was a list.
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a list of them")
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<bool, E> {
        if self.depth != self.numbers.shape.len() {
            return Err(E::custom("a number stands beside a list"));
        }
        if self.numbers.values.len() == MAX_VALUES {
            return Err(E::custom(BodyError::TooMany));
        }
        self.numbers.values.push(value);
        Ok(false)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<bool, E> {
        exact(value).and_then(|value| self.visit_f64(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<bool, E> {
        exact(value).and_then(|value| self.visit_f64(value))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<bool, E> {
        self.visit_f64(f64::from(u8::from(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<bool, A::Error> {
        let Self { depth, numbers } = self;
        if depth == MAX_DEPTH {
            return Err(A::Error::custom(format!("lists lie more than {MAX_DEPTH} deep")));
        }
        let is_first = numbers.shape.len() == depth;
        if is_first {
            // Once a number was seen, all lists of this depth have been begun.
            if !numbers.values.is_empty() {
                return Err(A::Error::custom("a list stands beside a number"));
            }
            numbers.shape.push(0);
        }
        let mut count = 0;
        while list.next_element_seed(Level { depth: depth + 1, numbers: &mut *numbers })?.is_some()
        {
            count += 1;
        }
        match numbers.shape.get_mut(depth) {
            Some(length) if is_first => *length = count,
            Some(length) if *length != count => {
                let why = format!("a list of {count} stands beside one of {length}");
                return Err(A::Error::custom(why));
            }
            _ => {}
        }
        Ok(true)
    }
}

/// The numbers of a CSV file, [rows, columns]. Its first line says what separates them: a tab, a
/// semicolon or a comma, the same in all lines; where none of its fields is a number it is the head.
pub(super) fn csv(bytes: &[u8]) -> Result<Numbers, BodyError> {
    let text = std::str::from_utf8(bytes).map_err(|_| BodyError::Text)?;
    // As some programs for tables begin their files.
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty()).peekable();
    let first = lines.peek().map_or("", |(_, line)| line);
    let separator = ['\t', ';'].into_iter().find(|c| first.contains(*c)).unwrap_or(',');
    let (mut values, mut columns, mut rows) = (Vec::new(), None, 0);
    for (number, line) in lines {
        let wrong = |why: String| BodyError::Csv { line: number, why };
        let fields = line.trim_end_matches(separator).split(separator).map(str::trim);
        let count = fields.clone().count();
        if let Some(first) = columns.filter(|first| *first != count) {
            return Err(wrong(format!("has {count} values, the first has {first}")));
        }
        let is_first = columns.replace(count).is_none();
        if is_first && fields.clone().all(|field| field.parse::<f64>().is_err()) {
            continue;
        }
        for field in fields {
            match field.parse::<f64>() {
                Ok(value) if value.is_finite() => values.push(value),
                Ok(_) => return Err(wrong(format!("has the value {field}"))),
                Err(_) => {
                    let field: String = field.chars().take(40).collect();
                    return Err(wrong(format!("has {field:?}, which is no number")));
                }
            }
        }
        if values.len() > MAX_VALUES {
            return Err(BodyError::TooMany);
        }
        rows += 1;
    }
    Ok(Numbers { shape: vec![rows, columns.unwrap_or_default()], values })
}

/// The elements of a body, little-endian, as one row.
pub(super) fn raw(bytes: &[u8], dtype: Dtype) -> Result<Numbers, BodyError> {
    if dtype == Dtype::Text || !bytes.len().is_multiple_of(dtype.bytes()) {
        return Err(BodyError::Raw { bytes: bytes.len(), dtype });
    }
    if bytes.len() / dtype.bytes() > MAX_VALUES {
        return Err(BodyError::TooMany);
    }
    let values = elements(bytes, dtype);
    finite(&values)?;
    Ok(Numbers { shape: vec![values.len()], values })
}

#[allow(clippy::cast_precision_loss, reason = "whole numbers beyond 2^53 become the nearest")]
fn elements(bytes: &[u8], dtype: Dtype) -> Vec<f64> {
    fn all<const N: usize>(bytes: &[u8], one: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks().0.iter().map(|chunk| one(*chunk)).collect()
    }
    match dtype {
        Dtype::Bool => all(bytes, |[b]| f64::from(u8::from(b != 0))),
        Dtype::U8 => all(bytes, |[b]| f64::from(b)),
        Dtype::I8 => all(bytes, |b| f64::from(i8::from_le_bytes(b))),
        Dtype::U16 => all(bytes, |b| f64::from(u16::from_le_bytes(b))),
        Dtype::I16 => all(bytes, |b| f64::from(i16::from_le_bytes(b))),
        Dtype::U32 => all(bytes, |b| f64::from(u32::from_le_bytes(b))),
        Dtype::I32 => all(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U64 => all(bytes, |b| u64::from_le_bytes(b) as f64),
        Dtype::I64 => all(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::F16 => all(bytes, |b| half::f16::from_le_bytes(b).to_f64()),
        Dtype::F32 => all(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => all(bytes, f64::from_le_bytes),
        // Refused before: texts have no common length.
        Dtype::Text => Vec::new(),
    }
}

fn finite(values: &[f64]) -> Result<(), BodyError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(BodyError::NotFinite { at, value: values[at].to_string() }),
        None => Ok(()),
    }
}

/// An array as `numpy.save` writes it (NumPy format 1.0 to 3.0).
pub(super) fn npy(bytes: &[u8]) -> Result<Numbers, BodyError> {
    let wrong = |why: &str| BodyError::Npy(why.to_owned());
    let rest =
        bytes.strip_prefix(b"\x93NUMPY").ok_or_else(|| wrong("it has not its first bytes"))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(|| wrong("it is cut off"))?;
    let cut = || wrong("it is cut off");
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            (usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?, rest)
        }
        _ => return Err(wrong("its version is not known")),
    };
    let (head, data) = rest.split_at_checked(length).ok_or_else(cut)?;
    let head = std::str::from_utf8(head).map_err(|_| wrong("its head is no text"))?;
    let entry = |key: &str| {
        let at = head.find(&format!("'{key}'"))?;
        let rest = head.get(at + key.len() + 2..)?.trim_start().strip_prefix(':')?;
        Some(rest.trim_start())
    };
    let described = entry("descr").and_then(|rest| rest.strip_prefix('\''));
    let described = described.and_then(|rest| rest.split('\'').next());
    let dtype =
        described.and_then(numpy_type).ok_or_else(|| wrong("its elements are not taken"))?;
    if !entry("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err(wrong("it is in Fortran order"));
    }
    let dims = entry("shape").and_then(|rest| rest.strip_prefix('('));
    let dims = dims.and_then(|rest| rest.split(')').next()).ok_or_else(|| wrong("no shape"))?;
    let dims = dims.split(',').map(str::trim).filter(|dim| !dim.is_empty());
    let shape: Option<Vec<usize>> = dims.map(|dim| dim.parse().ok()).collect();
    let shape = shape.filter(|shape| shape.len() <= MAX_DEPTH).ok_or_else(|| wrong("no shape"))?;
    let count = shape.iter().try_fold(dtype.bytes(), |n, dim| n.checked_mul(*dim));
    if count != Some(data.len()) {
        return Err(wrong("it has more or fewer bytes than its shape says"));
    }
    let Numbers { values, .. } = raw(data, dtype)?;
    Ok(Numbers { shape, values })
}

fn numpy_type(described: &str) -> Option<Dtype> {
    Some(match described {
        "|b1" => Dtype::Bool,
        "|u1" => Dtype::U8,
        "|i1" => Dtype::I8,
        "<u2" => Dtype::U16,
        "<i2" => Dtype::I16,
        "<u4" => Dtype::U32,
        "<i4" => Dtype::I32,
        "<u8" => Dtype::U64,
        "<i8" => Dtype::I64,
        "<f2" => Dtype::F16,
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        _ => return None,
    })
}
