//! Owns the JSON form of an inference request and its answer, with tensors behind the JSON where the
//! caller wants them in binary.
//!
//! **Invariant:** whatever the bytes are, they become a request or a refusal that names the input;
//! memory grows with the bytes, never with what they claim, and is asked for before it is taken.

use holdfast_models::tensor::Elements;
use holdfast_models::{Dtype, Tensor};

use super::binary;
use super::dtype;
use super::numbers;
use super::reader::{Fault, Reader};
use super::refusal::{Declared, Refusal};
use super::request::{self, Infer, MOST_TENSORS, Parameter, Wanted};

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::bad(format!("{} (at byte {} of the JSON)", fault.what, fault.at))
    }
}

/// Asked before a tensor takes so many bytes.
pub(super) type Room<'a> = dyn FnMut(usize) -> Result<(), Refusal> + 'a;

/// Reads a request: JSON of `json_length` bytes (all when `None`), and binary tensors behind it.
pub(super) fn parse(
    body: &[u8],
    json_length: Option<usize>,
    room: &mut Room<'_>,
) -> Result<Infer, Refusal> {
    let length = json_length.unwrap_or(body.len());
    let Some((json, mut tail)) = body.split_at_checked(length) else {
        let got = body.len();
        return Err(Refusal::bad(format!(
            "Inference-Header-Content-Length is {length}, the body has {got} bytes"
        )));
    };
    let json = std::str::from_utf8(json).map_err(|error| {
        Refusal::bad(format!("the JSON is not UTF-8 (at byte {})", error.valid_up_to()))
    })?;
    let mut reader = Reader::new(json);
    let mut infer = Infer::default();
    let mut has_inputs = false;
    reader.object(|reader, key| {
        match key {
            "id" => infer.id = reader.string()?.into_owned(),
            "parameters" => parameters(reader, |key, value| infer.parameter(key, &value))?,
            "inputs" if has_inputs => return Err(Refusal::bad("inputs are given twice")),
            "inputs" => {
                has_inputs = true;
                reader.list(|reader| {
                    at_most(infer.inputs.len(), "inputs")?;
                    let number = ("input", infer.inputs.len());
                    infer.inputs.push(tensor(number, reader, &mut tail, room)?);
                    Ok::<_, Refusal>(())
                })?;
            }
            "outputs" => reader.list(|reader| {
                at_most(infer.outputs.len(), "outputs")?;
                infer.outputs.push(output(reader)?);
                Ok::<_, Refusal>(())
            })?,
            _ => reader.skip()?,
        }
        Ok::<_, Refusal>(())
    })?;
    reader.end()?;
    if !has_inputs {
        return Err(Refusal::bad("inputs are missing: the JSON must have a list of them"));
    }
    if !tail.is_empty() {
        let over = tail.len();
        return Err(Refusal::bad(format!(
            "{over} bytes behind the JSON belong to no input: each says its part in binary_data_size"
        )));
    }
    Ok(infer)
}

fn at_most(count: usize, what: &str) -> Result<(), Refusal> {
    if count < MOST_TENSORS {
        return Ok(());
    }
    Err(Refusal::bad(format!("more than {MOST_TENSORS} {what} in one request")))
}

fn parameters(
    reader: &mut Reader<'_>,
    mut take: impl FnMut(&str, Parameter) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    reader.object(|reader, key| {
        let value = parameter(reader)?;
        take(key, value)
    })
}

fn parameter(reader: &mut Reader<'_>) -> Result<Parameter, Fault> {
    Ok(match reader.peek() {
        Some(b'"') => Parameter::Text(reader.string()?.into_owned()),
        Some(b't' | b'f') => Parameter::Bool(reader.boolean()?),
        Some(b'-' | b'0'..=b'9') => {
            let text = reader.number()?;
            let whole = text.parse().map(Parameter::Whole);
            whole.unwrap_or_else(|_| Parameter::Real(text.parse().unwrap_or(f64::NAN)))
        }
        _ => {
            reader.skip()?;
            Parameter::Other
        }
    })
}

/// What is known of an input while it is read.
#[derive(Default)]
struct Partial<'a> {
    name: Option<String>,
    dtype: Option<Dtype>,
    dims: Option<Vec<i64>>,
    /// Where its data begins, if that came before its type and shape.
    data_at: Option<Reader<'a>>,
    elements: Option<(Vec<usize>, Elements)>,
    binary_size: Option<usize>,
}

/// Reads a tensor with its name, of an answer as of a request; its binary form is taken from `tail`.
pub(super) fn tensor(
    (what, number): (&str, usize),
    reader: &mut Reader<'_>,
    tail: &mut &[u8],
    room: &mut Room<'_>,
) -> Result<(String, Tensor), Refusal> {
    let begin = reader.clone();
    let mut partial = Partial::default();
    let read = read_input(reader, &mut partial, room);
    let read = read.and_then(|()| partial.tensor(tail, room));
    // What is wrong may stand before the name.
    let name = partial.name.take().or_else(|| name_of(begin)).filter(|name| !name.is_empty());
    match (read, name) {
        (Ok(tensor), Some(name)) => Ok((name, tensor)),
        (Ok(_), None) => Err(Refusal::bad(format!("{what} {number} (counted from 0) has no name"))),
        (Err(refusal), name) => {
            let name = name.unwrap_or_else(|| number.to_string());
            let kind = partial.kind().ok().flatten();
            let refusal = refusal.of(what, &name);
            Err(match kind {
                Some((dtype, shape)) => refusal.about(Declared { input: name, dtype, shape }),
                None => refusal,
            })
        }
    }
}

/// The name of the input that begins here, as far as it can be read.
fn name_of(mut reader: Reader<'_>) -> Option<String> {
    let mut name = None;
    let read = reader.object(|reader, key| {
        match key {
            "name" => name = Some(reader.string()?.into_owned()),
            _ => reader.skip()?,
        }
        Ok::<_, Fault>(())
    });
    // It may be cut behind the name.
    drop(read);
    name
}

fn read_input<'a>(
    reader: &mut Reader<'a>,
    partial: &mut Partial<'a>,
    room: &mut Room<'_>,
) -> Result<(), Refusal> {
    reader.object(|reader, key| {
        match key {
            "name" => partial.name = Some(reader.string()?.into_owned()),
            "datatype" => partial.dtype = Some(request::dtype(&reader.string()?)?),
            "shape" => partial.dims = Some(dims(reader)?),
            // Some servers write one that they do not have.
            "parameters" if reader.peek() == Some(b'n') => reader.skip()?,
            "parameters" => parameters(reader, |key, value| partial.parameter(key, &value))?,
            "data" if partial.data_at.is_some() || partial.elements.is_some() => {
                return Err(Refusal::bad("data is given twice"));
            }
            "data" => match partial.kind()? {
                Some((dtype, shape)) => {
                    room(numbers::memory(reader, dtype, &shape))?;
                    let elements = numbers::elements(reader, dtype, &shape)?;
                    partial.elements = Some((shape, elements));
                }
                None => {
                    partial.data_at = Some(reader.clone());
                    reader.skip()?;
                }
            },
            _ => reader.skip()?,
        }
        Ok::<_, Refusal>(())
    })
}

fn dims(reader: &mut Reader<'_>) -> Result<Vec<i64>, Refusal> {
    let mut dims = Vec::new();
    reader.list(|reader| {
        let text = reader.number()?;
        let dim = text.parse().map_err(|_| reader.fault("a dimension must be a whole number"))?;
        dims.push(dim);
        Ok::<_, Refusal>(())
    })?;
    Ok(dims)
}

impl Partial<'_> {
    fn parameter(&mut self, key: &str, value: &Parameter) -> Result<(), Refusal> {
        request::not_offered(key)?;
        if key != "binary_data_size" {
            return Ok(());
        }
        let Parameter::Whole(size) = value else {
            return Err(Refusal::bad("parameter binary_data_size must be a whole number"));
        };
        let size = usize::try_from(*size).map_err(|_| {
            Refusal::bad(format!("parameter binary_data_size is {size}, no number of bytes"))
        })?;
        self.binary_size = Some(size);
        Ok(())
    }

    /// Its type and sizes, as soon as both are known.
    fn kind(&self) -> Result<Option<(Dtype, Vec<usize>)>, Refusal> {
        let (Some(dtype), Some(dims)) = (self.dtype, &self.dims) else { return Ok(None) };
        let (shape, _) = request::shape(dims, dtype)?;
        Ok(Some((dtype, shape)))
    }

    fn tensor(&mut self, tail: &mut &[u8], room: &mut Room<'_>) -> Result<Tensor, Refusal> {
        if self.dtype.is_none() {
            return Err(Refusal::bad("datatype is missing"));
        }
        let Some((dtype, shape)) = self.kind()? else {
            return Err(Refusal::bad("shape is missing"));
        };
        if let Some(mut reader) = self.data_at.take() {
            room(numbers::memory(&reader, dtype, &shape))?;
            let elements = numbers::elements(&mut reader, dtype, &shape)?;
            self.elements = Some((shape.clone(), elements));
        }
        match (self.elements.take(), self.binary_size) {
            (Some(_), Some(_)) => {
                Err(Refusal::bad("has data in the JSON and binary_data_size too; give one of them"))
            }
            (None, None) => Err(Refusal::bad(
                "has no data: give it in the JSON, or behind it with binary_data_size",
            )),
            // A shape that came after the data and again says otherwise.
            (Some((before, _)), None) if before != shape => {
                Err(Refusal::bad("shape is given twice"))
            }
            (Some((shape, elements)), None) => request::tensor(shape, elements),
            (None, Some(size)) => {
                let Some((own, rest)) = tail.split_at_checked(size) else {
                    let left = tail.len();
                    return Err(Refusal::bad(format!(
                        "binary_data_size is {size}, behind the JSON are {left} bytes left"
                    )));
                };
                *tail = rest;
                let count = shape.iter().product();
                room(binary::memory(own, dtype, count))?;
                let elements = binary::elements(own, dtype, count).map_err(Refusal::bad)?;
                request::tensor(shape, elements)
            }
        }
    }
}

fn output(reader: &mut Reader<'_>) -> Result<Wanted, Refusal> {
    let mut wanted = Wanted { name: String::new(), is_binary: None };
    let read = reader.object(|reader, key| {
        match key {
            "name" => wanted.name = reader.string()?.into_owned(),
            "parameters" => parameters(reader, |key, value| {
                request::not_offered(key)?;
                if key == "binary_data" {
                    let must = || Refusal::bad("parameter binary_data must be true or false");
                    wanted.is_binary = Some(value.boolean().ok_or_else(must)?);
                }
                Ok(())
            })?,
            _ => reader.skip()?,
        }
        Ok::<_, Refusal>(())
    });
    read.map_err(|refusal| refusal.of("output", &wanted.name))?;
    if wanted.name.is_empty() {
        return Err(Refusal::bad("an output that is asked for has no name"));
    }
    Ok(wanted)
}

/// An answer: its body, and how much of that is JSON where tensors follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) body: Vec<u8>,
    pub(super) json_length: Option<usize>,
}

/// Writes the answer to a request: each output with its tensor and whether it is wanted in binary.
///
/// # Errors
/// Never in memory.
pub(super) fn write(
    (model, version, id): (&str, &str, &str),
    outputs: &[(&str, &Tensor, bool)],
) -> Result<Written, serde_json::Error> {
    let mut out = Vec::with_capacity(256 + room(outputs));
    out.extend_from_slice(b"{\"model_name\":");
    serde_json::to_writer(&mut out, model)?;
    out.extend_from_slice(b",\"model_version\":");
    serde_json::to_writer(&mut out, version)?;
    if !id.is_empty() {
        out.extend_from_slice(b",\"id\":");
        serde_json::to_writer(&mut out, id)?;
    }
    out.extend_from_slice(b",\"outputs\":");
    tensors(outputs, &mut out)?;
    out.push(b'}');
    Ok(written(out, outputs))
}

/// Bytes that tensors with their names take, or nearly.
pub(super) fn room(tensors: &[(&str, &Tensor, bool)]) -> usize {
    let bytes = |(_, tensor, is_binary): &(&str, &Tensor, bool)| match is_binary {
        true => 128 + binary::size(tensor.elements()),
        // Room for nearly every number as it is written.
        false => 128 + 12 * tensor.len(),
    };
    tensors.iter().map(bytes).sum()
}

/// Writes a list of tensors, each with its name and whether it is wanted in binary.
///
/// # Errors
/// Never in memory.
pub(super) fn tensors(
    tensors: &[(&str, &Tensor, bool)],
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    for (at, (name, tensor, is_binary)) in tensors.iter().enumerate() {
        out.extend_from_slice(if at == 0 { b"[{\"name\":" } else { b",{\"name\":" });
        serde_json::to_writer(&mut *out, name)?;
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(dtype::name(tensor.dtype()).as_bytes());
        out.extend_from_slice(b"\",\"shape\":");
        serde_json::to_writer(&mut *out, tensor.shape())?;
        if *is_binary {
            let size = binary::size(tensor.elements());
            out.extend_from_slice(b",\"parameters\":{\"binary_data_size\":");
            out.extend_from_slice(size.to_string().as_bytes());
            out.extend_from_slice(b"}}");
        } else {
            out.extend_from_slice(b",\"data\":[");
            data(tensor.elements(), out)?;
            out.extend_from_slice(b"]}");
        }
    }
    out.extend_from_slice(if tensors.is_empty() { b"[]" } else { b"]" });
    Ok(())
}

/// What is written, with the tensors that are wanted in binary behind it.
pub(super) fn written(mut out: Vec<u8>, tensors: &[(&str, &Tensor, bool)]) -> Written {
    let mut binary = tensors.iter().filter(|(.., is_binary)| *is_binary).peekable();
    let json_length = binary.peek().map(|_| out.len());
    binary.for_each(|(_, tensor, _)| binary::write(tensor.elements(), &mut out));
    Written { body: out, json_length }
}

fn data(elements: &Elements, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    match elements {
        Elements::Bool(own) => each(own, out),
        Elements::U8(own) => each(own, out),
        Elements::I8(own) => each(own, out),
        Elements::U16(own) => each(own, out),
        Elements::I16(own) => each(own, out),
        Elements::U32(own) => each(own, out),
        Elements::I32(own) => each(own, out),
        Elements::U64(own) => each(own, out),
        Elements::I64(own) => each(own, out),
        Elements::F16(own) => reals(own.iter().map(|value| value.to_f32()), f32::classify, out),
        Elements::F32(own) => reals(own.iter().copied(), f32::classify, out),
        Elements::F64(own) => reals(own.iter().copied(), f64::classify, out),
        Elements::Text(own) => each(own, out),
    }
}

fn each<T: serde::Serialize>(own: &[T], out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    for (at, value) in own.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, value)?;
    }
    Ok(())
}

/// JSON has no word for what is no finite number; Triton and Python write these.
fn reals<T: serde::Serialize + Copy + PartialOrd + Default>(
    own: impl Iterator<Item = T>,
    classify: fn(T) -> std::num::FpCategory,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    for (at, value) in own.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        match classify(value) {
            std::num::FpCategory::Nan => out.extend_from_slice(b"NaN"),
            std::num::FpCategory::Infinite if value < T::default() => {
                out.extend_from_slice(b"-Infinity");
            }
            std::num::FpCategory::Infinite => out.extend_from_slice(b"Infinity"),
            _ => serde_json::to_writer(&mut *out, &value)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
