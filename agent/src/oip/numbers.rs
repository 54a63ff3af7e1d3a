//! Owns how a JSON list becomes the elements of a tensor.
//!
//! **Invariant:** gives exactly as many elements as the shape says, each the value that was written; a
//! value that the type cannot hold is refused. Memory grows with the text, never with the shape.

use half::f16;
use holdfast_models::Dtype;
use holdfast_models::tensor::Elements;

use super::reader::{Fault, Plain, Reader};
use super::strings;

/// Reads the list of a tensor's elements: flat in C order, or nested as its shape.
pub(super) fn elements(
    reader: &mut Reader<'_>,
    dtype: Dtype,
    shape: &[usize],
) -> Result<Elements, Fault> {
    Ok(match dtype {
        Dtype::Bool => Elements::Bool(list(reader, shape, |reader| reader.boolean())?),
        Dtype::U8 => Elements::U8(list(reader, shape, whole)?),
        Dtype::I8 => Elements::I8(list(reader, shape, whole)?),
        Dtype::U16 => Elements::U16(list(reader, shape, whole)?),
        Dtype::I16 => Elements::I16(list(reader, shape, whole)?),
        Dtype::U32 => Elements::U32(list(reader, shape, whole)?),
        Dtype::I32 => Elements::I32(list(reader, shape, whole)?),
        Dtype::U64 => Elements::U64(list(reader, shape, whole)?),
        Dtype::I64 => Elements::I64(list(reader, shape, whole)?),
        Dtype::F16 => Elements::F16(list(reader, shape, half)?),
        Dtype::F32 => Elements::F32(list(reader, shape, single)?),
        Dtype::F64 => Elements::F64(list(reader, shape, double)?),
        Dtype::Text => Elements::Text(list(reader, shape, text)?),
    })
}

/// The memory that the list which begins here may take as elements, in bytes; of texts with their
/// letters.
pub(super) fn memory(reader: &Reader<'_>, dtype: Dtype, shape: &[usize]) -> usize {
    let letters = if dtype == Dtype::Text { reader.left() } else { 0 };
    most(reader, shape).saturating_mul(dtype.bytes()).saturating_add(letters)
}

/// As many elements as the shape says, and the text can hold: one takes two bytes at least, its comma
/// included.
fn most(reader: &Reader<'_>, shape: &[usize]) -> usize {
    // Its caller has multiplied them before.
    shape.iter().product::<usize>().min(reader.left() / 2 + 1)
}

fn list<T>(
    reader: &mut Reader<'_>,
    shape: &[usize],
    element: impl Fn(&mut Reader<'_>) -> Result<T, Fault> + Copy,
) -> Result<Vec<T>, Fault> {
    let begin = reader.at();
    let count: usize = shape.iter().product();
    let mut found = Vec::with_capacity(most(reader, shape));
    let mut after = reader.clone();
    if after.take(b'[') && after.peek() == Some(b'[') {
        nested(reader, shape, element, &mut found)?;
    } else {
        flat(reader, count, element, &mut found)?;
    }
    if found.len() < count {
        let got = found.len();
        return Err(Fault::new(begin, format!("data has {got} elements, its shape has {count}")));
    }
    Ok(found)
}

/// A list of nothing but elements, `count` more of them at most.
#[inline]
fn flat<T>(
    reader: &mut Reader<'_>,
    count: usize,
    element: impl Fn(&mut Reader<'_>) -> Result<T, Fault>,
    found: &mut Vec<T>,
) -> Result<(), Fault> {
    reader.expect(b'[')?;
    if reader.take(b']') {
        return Ok(());
    }
    let end = found.len() + count;
    loop {
        if found.len() == end {
            return Err(reader.fault(format!("data is longer than its shape, {count} elements")));
        }
        found.push(element(reader)?);
        if !reader.take(b',') {
            return reader.expect(b']');
        }
    }
}

fn nested<T>(
    reader: &mut Reader<'_>,
    shape: &[usize],
    element: impl Fn(&mut Reader<'_>) -> Result<T, Fault> + Copy,
    found: &mut Vec<T>,
) -> Result<(), Fault> {
    let begin = reader.at();
    let (length, got) = match shape {
        [] => return Err(reader.fault("data is nested deeper than its shape")),
        [length] => {
            let before = found.len();
            flat(reader, *length, element, found)?;
            (*length, found.len() - before)
        }
        [length, inner @ ..] => {
            let mut count = 0;
            reader.list(|reader| {
                if count == *length {
                    let what = format!("a list of data is longer than its shape, {length} lists");
                    return Err(reader.fault(what));
                }
                count += 1;
                nested(reader, inner, element, found)
            })?;
            (*length, count)
        }
    };
    if got < length {
        let what = format!("a list of data has {got} entries, its shape has {length} there");
        return Err(Fault::new(begin, what));
    }
    Ok(())
}

const OUTSIDE: &str = "a number is outside of what its type can hold";

#[inline]
fn whole<T: TryFrom<u64> + TryFrom<i64> + TryFrom<i128>>(
    reader: &mut Reader<'_>,
) -> Result<T, Fault> {
    let mut after = reader.clone();
    if let Some(Plain { is_negative, digits, behind: 0 }) = after.plain() {
        *reader = after;
        let value = if is_negative {
            0i64.checked_sub_unsigned(digits).and_then(|value| T::try_from(value).ok())
        } else {
            T::try_from(digits).ok()
        };
        return value.ok_or_else(|| reader.fault(OUTSIDE));
    }
    let text = reader.number()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Err(reader.fault("a whole number was expected, without point or exponent"));
    }
    let value = text.parse::<i128>().ok().and_then(|value| T::try_from(value).ok());
    value.ok_or_else(|| reader.fault(OUTSIDE))
}

/// The nearest double. Where both the digits and the power of ten are exact, so is their quotient
/// (Clinger, How to read floating point numbers accurately).
#[inline]
fn double(reader: &mut Reader<'_>) -> Result<f64, Fault> {
    let mut after = reader.clone();
    if let Some(plain) = after.plain()
        && plain.digits <= EXACT
        && let Some(value) = scaled(plain)
    {
        *reader = after;
        return Ok(value);
    }
    parsed(reader)
}

#[cold]
fn parsed(reader: &mut Reader<'_>) -> Result<f64, Fault> {
    let text = reader.number()?;
    let value: f64 = text.parse().map_err(|_| reader.fault("a number was expected"))?;
    if value.is_infinite() && !text.ends_with('y') {
        return Err(reader.fault(OUTSIDE));
    }
    Ok(value)
}

/// As everywhere that JSON goes through a double: the nearest double first, then the nearest single.
///
/// A double whose digits were rounded is off by little, which matters only beside the middle of two
/// singles.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the nearest one is meant")]
fn single(reader: &mut Reader<'_>) -> Result<f32, Fault> {
    let mut after = reader.clone();
    if let Some(plain) = after.plain()
        && let Some(value) = scaled(plain)
        && (plain.digits <= EXACT || (value.to_bits() & REST).abs_diff(MIDDLE) > 2)
    {
        *reader = after;
        // At most 19 digits before the point: no single is too small for that.
        return Ok(value as f32);
    }
    let wide = parsed(reader)?;
    let value = wide as f32;
    if value.is_infinite() && wide.is_finite() {
        return Err(reader.fault(OUTSIDE));
    }
    Ok(value)
}

fn half(reader: &mut Reader<'_>) -> Result<f16, Fault> {
    let wide = double(reader)?;
    let value = f16::from_f64(wide);
    if value.is_infinite() && wide.is_finite() {
        return Err(reader.fault(OUTSIDE));
    }
    Ok(value)
}

fn text(reader: &mut Reader<'_>) -> Result<String, Fault> {
    reader.peek();
    let at = reader.at();
    let text = reader.string()?.into_owned();
    strings::check(&text).map_err(|what| Fault::new(at, what))?;
    Ok(text)
}

/// Powers of ten that a double holds exactly.
const TENS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Up to here every whole number is a double.
const EXACT: u64 = 1 << 53;
/// The part of a double that a single has no room for, and the middle of two singles there.
const REST: u64 = (1 << 29) - 1;
const MIDDLE: u64 = 1 << 28;

#[inline]
fn scaled(plain: Plain) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "the callers know")]
    let value = plain.digits as f64 / TENS.get(plain.behind)?;
    Some(if plain.is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, dtype: Dtype, shape: &[usize]) -> Result<Elements, String> {
        let mut reader = Reader::new(text);
        let read = elements(&mut reader, dtype, shape).map_err(|fault| fault.what.into_owned())?;
        reader.end().map_err(|fault| fault.what.into_owned())?;
        Ok(read)
    }

    proptest! {
        #[test]
        fn doubles_are_read_exactly(values in prop::collection::vec(any::<f64>(), 1..9)) {
            let finite: Vec<f64> = values.iter().map(|x| if x.is_nan() { 0.5 } else { *x }).collect();
            let written: Vec<String> = finite.iter().map(|x| {
                if x.is_infinite() { format!("{}Infinity", if *x < 0.0 { "-" } else { "" }) } else { format!("{x}") }
            }).collect();
            let text = format!("[{}]", written.join(", "));
            let got = read(&text, Dtype::F64, &[finite.len()]).unwrap();
            prop_assert_eq!(got, Elements::F64(finite));
        }

        #[test]
        #[allow(clippy::cast_possible_truncation, reason = "the nearest one is meant")]
        fn numbers_are_read_as_the_standard_library_reads_them(
            text in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        ) {
            let want: f64 = text.parse().unwrap();
            let text = format!("[{text}]");
            let Ok(Elements::F64(got)) = read(&text, Dtype::F64, &[1]) else { unreachable!() };
            prop_assert_eq!(got[0].to_bits(), want.to_bits(), "{}", text);
            #[expect(clippy::cast_possible_truncation, reason = "the nearest one is meant")]
            let single = want as f32;
            match read(&text, Dtype::F32, &[1]) {
                Ok(Elements::F32(got)) => prop_assert_eq!(got[0].to_bits(), single.to_bits()),
                other => prop_assert!(single.is_infinite() && other.is_err(), "{:?}", other),
            }
        }

        #[test]
        fn singles_written_as_doubles_are_read_exactly(values in prop::collection::vec(any::<f32>(), 1..9)) {
            let finite: Vec<f32> = values.into_iter().filter(|x| x.is_finite()).collect();
            let doubles: Vec<f64> = finite.iter().map(|x| f64::from(*x)).collect();
            let text = serde_json::to_string(&doubles).unwrap();
            let got = read(&text, Dtype::F32, &[finite.len()]).unwrap();
            prop_assert_eq!(got, Elements::F32(finite));
        }

        #[test]
        fn whole_numbers_are_read_exactly(values in prop::collection::vec(any::<i64>(), 1..9)) {
            let text = serde_json::to_string(&values).unwrap();
            let shape = [values.len()];
            prop_assert_eq!(read(&text, Dtype::I64, &shape).unwrap(), Elements::I64(values.clone()));
            let small = values.iter().map(|x| i8::try_from(*x)).collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(read(&text, Dtype::I8, &shape).ok(), small.ok().map(Elements::I8));
            let unsigned = values.iter().map(|x| u64::try_from(*x)).collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(read(&text, Dtype::U64, &shape).ok(), unsigned.ok().map(Elements::U64));
        }
    }

    #[test]
    fn flat_and_nested_lists_are_the_same_tensor() {
        for text in ["[1,2,3,4,5,6]", "[[1,2,3],[4,5,6]]", " [ [ 1 , 2 , 3 ] , [ 4 , 5 , 6 ] ] "] {
            let got = read(text, Dtype::U8, &[2, 3]);
            assert_eq!(got, Ok(Elements::U8(vec![1, 2, 3, 4, 5, 6])), "{text}");
        }
        assert_eq!(read("[7]", Dtype::I32, &[]), Ok(Elements::I32(vec![7])), "a scalar");
        assert_eq!(read("[]", Dtype::I32, &[0, 4]), Ok(Elements::I32(vec![])), "nothing");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_a_reason() {
        for (text, dtype, shape, want) in [
            ("[1,2]", Dtype::F32, &[3][..], "data has 2 elements, its shape has 3"),
            ("[1,2,3,4]", Dtype::F32, &[3], "data is longer than its shape, 3 elements"),
            ("[[1,2],[3]]", Dtype::F32, &[2, 2], "has 1 entries, its shape has 2"),
            ("[[1,2],[3,4,5]]", Dtype::F32, &[2, 2], "longer than its shape, 2 elements"),
            ("[[1,2]]", Dtype::F32, &[2, 1], "longer than its shape, 1 elements"),
            ("[[[1]]]", Dtype::F32, &[1, 1], "a number was expected"),
            ("[[1],2]", Dtype::F32, &[2, 1], "'[' was expected"),
            ("[1.5]", Dtype::I8, &[1], "a whole number"),
            ("[1e2]", Dtype::I8, &[1], "a whole number"),
            ("[128]", Dtype::I8, &[1], "outside"),
            ("[-1]", Dtype::U64, &[1], "outside"),
            ("[99999999999999999999999999999999999999999999999999]", Dtype::U64, &[1], "outside"),
            ("[1e39]", Dtype::F32, &[1], "outside"),
            ("[65536]", Dtype::F16, &[1], "outside"),
            ("[1e999]", Dtype::F64, &[1], "outside"),
            ("[1]", Dtype::Bool, &[1], "true or false"),
            ("[\"1\"]", Dtype::F32, &[1], "a number was expected"),
            ("[1]", Dtype::Text, &[1], "'\"' was expected"),
            ("[\"a\\u0000\"]", Dtype::Text, &[1], "zero byte"),
            ("{}", Dtype::F32, &[1], "'[' was expected"),
        ] {
            let why = read(text, dtype, shape).unwrap_err();
            assert!(why.contains(want), "{text} {dtype}: {why}");
        }
    }

    #[test]
    fn a_shape_of_a_billion_takes_no_memory() {
        assert!(read("[1]", Dtype::F64, &[1 << 20, 1 << 20]).is_err());
    }
}
