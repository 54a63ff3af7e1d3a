//! Owns the binary form of tensors: elements in C order, each in little-endian order, a BOOL one byte
//! (0 or 1), an element of BYTES with its length before it in four bytes.
//!
//! **Invariant:** the bytes are exactly as many as the shape says; reading what was written gives the
//! same tensor.

use half::f16;
use holdfast_models::Dtype;
use holdfast_models::tensor::Elements;

use super::strings;

/// The memory that so many elements may take which these bytes are, in bytes; of texts with their
/// letters.
pub(super) fn memory(bytes: &[u8], dtype: Dtype, count: usize) -> usize {
    match dtype {
        Dtype::Text => count.min(bytes.len() / 4).saturating_mul(dtype.bytes()) + bytes.len(),
        _ => count.saturating_mul(dtype.bytes()).min(bytes.len()),
    }
}

/// The elements of a tensor with this type and so many of them.
pub(super) fn elements(bytes: &[u8], dtype: Dtype, count: usize) -> Result<Elements, String> {
    if dtype != Dtype::Text && count.checked_mul(dtype.bytes()) != Some(bytes.len()) {
        let each = dtype.bytes();
        let got = bytes.len();
        return Err(format!(
            "has {got} bytes, its shape has {count} elements of {each} byte(s) each"
        ));
    }
    Ok(match dtype {
        Dtype::Bool => Elements::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
        Dtype::U8 => Elements::U8(bytes.to_vec()),
        Dtype::I8 => Elements::I8(bytes.iter().map(|byte| byte.cast_signed()).collect()),
        Dtype::U16 => Elements::U16(each(bytes, u16::from_le_bytes)),
        Dtype::I16 => Elements::I16(each(bytes, i16::from_le_bytes)),
        Dtype::U32 => Elements::U32(each(bytes, u32::from_le_bytes)),
        Dtype::I32 => Elements::I32(each(bytes, i32::from_le_bytes)),
        Dtype::U64 => Elements::U64(each(bytes, u64::from_le_bytes)),
        Dtype::I64 => Elements::I64(each(bytes, i64::from_le_bytes)),
        Dtype::F16 => Elements::F16(each(bytes, f16::from_le_bytes)),
        Dtype::F32 => Elements::F32(each(bytes, f32::from_le_bytes)),
        Dtype::F64 => Elements::F64(each(bytes, f64::from_le_bytes)),
        Dtype::Text => Elements::Text(texts(bytes, count)?),
    })
}

/// Compiled for each type, so that nothing is called for an element: a picture has a hundred thousand.
fn each<const N: usize, T>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|chunk| element(*chunk)).collect()
}

fn texts(mut bytes: &[u8], count: usize) -> Result<Vec<String>, String> {
    let all = bytes.len();
    let mut found = Vec::with_capacity(count.min(all / 4));
    for at in 0..count {
        let cut = || format!("has {all} bytes, which end inside of element {at} of {count}");
        let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?;
        let text = rest.get(..length).ok_or_else(cut)?;
        found.push(strings::of_bytes(text).map_err(str::to_owned)?);
        bytes = &rest[length..];
    }
    if !bytes.is_empty() {
        let over = bytes.len();
        return Err(format!("has {all} bytes, {over} more than its {count} elements take"));
    }
    Ok(found)
}

/// Bytes that the elements take.
pub(super) fn size(elements: &Elements) -> usize {
    match elements {
        Elements::Text(texts) => texts.iter().map(|text| 4 + text.len()).sum(),
        numbers => numbers.len() * numbers.dtype().bytes(),
    }
}

/// Appends the elements.
pub(super) fn write(elements: &Elements, out: &mut Vec<u8>) {
    match elements {
        Elements::Bool(own) => out.extend(own.iter().map(|value| u8::from(*value))),
        Elements::U8(own) => out.extend_from_slice(own),
        Elements::I8(own) => out.extend(own.iter().map(|value| value.cast_unsigned())),
        Elements::U16(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::I16(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::U32(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::I32(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::U64(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::I64(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::F16(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::F32(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::F64(own) => put(own, |value| value.to_le_bytes(), out),
        Elements::Text(own) => {
            for text in own {
                // A tensor's texts are far below 4 GiB.
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

fn put<const N: usize, T: Copy>(own: &[T], bytes: impl Fn(T) -> [u8; N], out: &mut Vec<u8>) {
    let begin = out.len();
    out.resize(begin + own.len() * N, 0);
    for (to, value) in out[begin..].as_chunks_mut().0.iter_mut().zip(own) {
        *to = bytes(*value);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Elements of any type, none of them NaN, so that they can be compared.
    pub(in crate::oip) fn any_elements() -> impl Strategy<Value = Elements> {
        fn of<T: std::fmt::Debug>(
            element: impl Strategy<Value = T>,
        ) -> impl Strategy<Value = Vec<T>> {
            prop::collection::vec(element, 0..9)
        }
        let number = prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL;
        let single = prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL;
        prop_oneof![
            of(any::<bool>()).prop_map(Elements::Bool),
            of(any::<u8>()).prop_map(Elements::U8),
            of(any::<i8>()).prop_map(Elements::I8),
            of(any::<u16>()).prop_map(Elements::U16),
            of(any::<i16>()).prop_map(Elements::I16),
            of(any::<u32>()).prop_map(Elements::U32),
            of(any::<i32>()).prop_map(Elements::I32),
            of(any::<u64>()).prop_map(Elements::U64),
            of(any::<i64>()).prop_map(Elements::I64),
            of(-65504.0f32..65504.0)
                .prop_map(|own| { Elements::F16(own.into_iter().map(f16::from_f32).collect()) }),
            of(single).prop_map(Elements::F32),
            of(number).prop_map(Elements::F64),
            of("[^\0]{0,9}").prop_map(Elements::Text),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(own in any_elements()) {
            let mut bytes = Vec::new();
            write(&own, &mut bytes);
            prop_assert_eq!(bytes.len(), size(&own));
            prop_assert_eq!(elements(&bytes, own.dtype(), own.len()), Ok(own));
        }

        #[test]
        fn bytes_that_are_not_as_the_shape_says_are_refused(
            own in any_elements(), count in 0usize..20, cut in 1usize..9,
        ) {
            let mut bytes = Vec::new();
            write(&own, &mut bytes);
            if count != own.len() {
                prop_assert!(elements(&bytes, own.dtype(), count).is_err());
            }
            let short = bytes.len().saturating_sub(cut);
            if short < bytes.len() {
                prop_assert!(elements(&bytes[..short], own.dtype(), own.len()).is_err());
            }
            prop_assert!(elements(&bytes, own.dtype(), usize::MAX).is_err());
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), count in 0usize..20) {
            for (_, dtype) in Dtype::ALL {
                drop(elements(&bytes, *dtype, count));
            }
        }
    }

    #[test]
    fn texts_are_utf8_without_a_zero_byte() {
        for (bytes, want) in [
            (&b"\x02\0\0\0hi"[..], None),
            (b"\x02\0\0\0h\0", Some("zero byte")),
            (b"\x01\0\0\0\xff", Some("not UTF-8")),
            (b"\xff\xff\xff\xff", Some("end inside of element 0 of 1")),
            (b"\x01\0\0", Some("end inside of element 0 of 1")),
            (b"\0\0\0\0\0", Some("1 more than its 1 elements take")),
        ] {
            let why = elements(bytes, Dtype::Text, 1).err();
            assert_eq!(why.is_some(), want.is_some(), "{why:?}");
            assert!(why.unwrap_or_default().contains(want.unwrap_or_default()), "{want:?}");
        }
    }
}
