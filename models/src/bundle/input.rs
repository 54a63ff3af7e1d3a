//! What a graph takes: the tensor, and how what a caller sends becomes it.
//!
//! **Invariant:** the preprocessing gives exactly as many elements as the tensor's shape.

use toml::Value;

use super::manifest::MAX_ELEMENTS;
use super::picture::{self, ImageFront, Layout};
use super::section::{Section, number, whole};
use super::series::{self, TensorFront, TextFront, WaveFront};
use super::spectrum::{self, AudioFront};
use crate::quantisation::{Form, Rounding, Scale};
use crate::runtime::TensorSpec;
use crate::tensor::Dtype;

/// The input of a graph and the preprocessing in front of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// The tensor's name in the graph.
    pub name: String,
    /// Its element type, and what its integers stand for.
    pub form: Form,
    /// Its shape; batch 1 first where the batch is free.
    pub shape: Vec<usize>,
    /// Whether the graph takes any batch.
    pub free_batch: bool,
    /// How it is made.
    pub front: Front,
}

impl Input {
    /// Number of elements, of one window.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// The type of the numbers that a caller sends: f32 where they are turned into others here.
    pub fn sent_dtype(&self) -> Dtype {
        if self.form.is_scalable() { Dtype::F32 } else { self.form.dtype }
    }

    /// Whether no caller sends it.
    pub fn is_constant(&self) -> bool {
        matches!(self.front, Front::Constant(_))
    }

    /// The tensor.
    pub fn spec(&self) -> TensorSpec {
        TensorSpec {
            free_batch: self.free_batch,
            ..TensorSpec::pinned(&*self.name, self.form.dtype, &self.shape)
        }
    }
}

/// The preprocessing.
#[derive(Debug, Clone, PartialEq)]
pub enum Front {
    /// From a recording, as features of its spectrum.
    Audio(AudioFront),
    /// From a picture.
    Image(ImageFront),
    /// From a recording, as samples.
    Wave(WaveFront),
    /// From numbers.
    Tensor(TensorFront),
    /// From a text.
    Text(TextFront),
    /// From nothing: always these elements.
    Constant(Vec<f64>),
}

/// The tables that say how an input is made, one of which each has.
const FRONTS: [&str; 6] = ["audio", "image", "wave", "tensor", "text", "constant"];

pub(super) fn read(section: Section<'_>) -> Option<Input> {
    let name = section.text("name", 200);
    let kind = front_of(&section);
    let form = match kind {
        Some("tensor" | "constant") => open_form(&section),
        _ => form(&section),
    };
    let shape = match kind {
        Some("audio" | "image") | None => shape(&section),
        Some(_) => open_shape(&section),
    };
    let size = shape.as_ref().map(|(dims, _)| dims.iter().product());
    let front = kind.and_then(|kind| {
        let table = section.child(kind)?;
        match kind {
            "audio" => spectrum::read(table).map(Front::Audio),
            "image" => picture::read(table).map(Front::Image),
            "wave" => series::wave(table, size).map(Front::Wave),
            "tensor" => series::tensor(table, form.as_ref(), size).map(Front::Tensor),
            "text" => series::text(table).map(Front::Text),
            _ => series::constant(table, form.map(|form| form.dtype), size).map(Front::Constant),
        }
    });
    if let (Some(front), Some((shape, _))) = (&front, &shape) {
        check_shape(&section, front, shape);
    }
    section.finish();
    let (shape, free_batch) = shape?;
    Some(Input { name: name?, form: form?, shape, free_batch, front: front? })
}

/// Which of the tables there is; only one may be.
fn front_of(section: &Section<'_>) -> Option<&'static str> {
    let mut there = FRONTS.into_iter().filter(|kind| section.has(kind));
    let Some(first) = there.next() else {
        let others = "here, or else [input.image], [input.wave], [input.tensor], [input.text] or \
                      [input.constant]";
        return section.need("audio", others, |_| None);
    };
    for other in there {
        let allowed = format!("absent beside [input.{first}]");
        section.need::<()>(other, &allowed, |_| None);
    }
    Some(first)
}

/// The element type of a tensor that need not stand for other numbers.
pub(super) fn open_form(section: &Section<'_>) -> Option<Form> {
    if section.has("scale") || section.has("zero_point") {
        return form(section);
    }
    let dtype = section.choice("dtype", &Form::NUMBERS)?;
    Some(Form { dtype, scale: None })
}

/// The element type; integers need a scale, other types have none.
pub(super) fn form(section: &Section<'_>) -> Option<Form> {
    let dtype = section.choice("dtype", &Form::DTYPES);
    let range = match dtype {
        Some(Dtype::I8) => -128..=127,
        Some(Dtype::U8) => 0..=255,
        _ => {
            for key in
                ["scale", "zero_point", "rounding"].into_iter().filter(|key| section.has(key))
            {
                let allowed = "absent, as dtype is not \"i8\" or \"u8\"";
                section.need::<()>(key, allowed, |_| None);
            }
            return Some(Form { dtype: dtype?, scale: None });
        }
    };
    let scale = section.number("scale", 1e-12..=1e12);
    let allowed = format!("a whole number {}..={}", range.start(), range.end());
    let zero_point = section.need("zero_point", &allowed, |value| {
        let number = i32::try_from(value.as_integer()?).ok()?;
        range.contains(&number).then_some(number)
    });
    let roundings = [("nearest", Rounding::Nearest), ("truncate", Rounding::Truncate)];
    let rounding = match section.has("rounding") {
        true => section.choice("rounding", &roundings),
        false => Some(Rounding::Nearest),
    };
    let scale = Scale { scale: scale?, zero_point: zero_point?, rounding: rounding? };
    Some(Form { dtype: dtype?, scale: Some(scale) })
}

/// A shape with batch 1 and a bounded number of elements, and whether the batch is free.
pub(super) fn shape(section: &Section<'_>) -> Option<(Vec<usize>, bool)> {
    let allowed = format!(
        "1 followed by up to 5 whole numbers from 1, at most {MAX_ELEMENTS} elements in all; \
         \"batch\" or -1 instead of the 1 where the graph takes any batch"
    );
    section.need("shape", &allowed, |v| {
        let list = v.as_array().filter(|list| (2..=6).contains(&list.len()))?;
        let (first, rest) = list.split_first()?;
        let is_free = is_any_batch(first);
        if !is_free && whole(first) != Some(1) {
            return None;
        }
        let mut dims = vec![1];
        dims.extend(rest.iter().map(whole).collect::<Option<Vec<usize>>>()?);
        let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (1..=MAX_ELEMENTS).contains(&size).then_some((dims, is_free))
    })
}

/// A shape of any rank with a bounded number of elements, and whether the batch is free: then its
/// first dimension is 1 here.
pub(super) fn open_shape(section: &Section<'_>) -> Option<(Vec<usize>, bool)> {
    let allowed = format!(
        "a list of up to 6 whole numbers from 1, at most {MAX_ELEMENTS} elements in all; \"batch\" \
         or -1 first where the graph takes any batch"
    );
    section.need("shape", &allowed, |v| {
        let list = v.as_array().filter(|list| list.len() <= 6)?;
        let is_free = list.first().is_some_and(is_any_batch);
        let first = is_free.then_some(1);
        let rest = list.iter().skip(usize::from(is_free)).map(whole).collect::<Option<Vec<_>>>()?;
        let dims: Vec<usize> = first.into_iter().chain(rest).collect();
        let size = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (1..=MAX_ELEMENTS).contains(&size).then_some((dims, is_free))
    })
}

fn is_any_batch(first: &Value) -> bool {
    first.as_str() == Some("batch") || first.as_integer() == Some(-1)
}

/// The shape must be what the preprocessing makes; dimensions of 1 may stand anywhere in features.
fn check_shape(section: &Section<'_>, front: &Front, shape: &[usize]) {
    let without_ones =
        |dims: &[usize]| -> Vec<usize> { dims.iter().copied().filter(|&d| d != 1).collect() };
    let (fits, want) = match front {
        Front::Audio(audio) => {
            let made = [audio.frames(), audio.columns()];
            let want = format!("{} frames by {} columns, as [input.audio] makes", made[0], made[1]);
            (without_ones(shape) == without_ones(&made), want)
        }
        Front::Image(image) => {
            let (c, h, w) = (image.channels.count(), image.height as usize, image.width as usize);
            let made = match image.layout {
                Layout::Nchw => [1, c, h, w],
                Layout::Nhwc => [1, h, w, c],
            };
            (shape == made, format!("{made:?}, as [input.image] makes"))
        }
        Front::Wave(_) | Front::Tensor(_) | Front::Text(_) | Front::Constant(_) => return,
    };
    if !fits {
        section.invalid::<()>("shape", format!("{shape:?}"), &want);
    }
}

/// A number for all, or a list with one for each of `count`.
pub(super) fn per(
    section: &Section<'_>,
    key: &str,
    count: Option<usize>,
    what: &str,
    default: f32,
    range: std::ops::RangeInclusive<f32>,
) -> Option<Vec<f32>> {
    let above = if *range.start() > 0.0 { " above 0" } else { "" };
    let allowed = match count {
        Some(count) => format!("a number{above}, or {count} of them, one a {what}"),
        None => format!("a number{above}, or one a {what}"),
    };
    section.or(key, vec![default], &allowed, |v| match v.as_array() {
        None => number(v).filter(|x| range.contains(x)).map(|x| vec![x]),
        Some(list) => {
            let list: Option<Vec<f32>> =
                list.iter().map(|v| number(v).filter(|x| range.contains(x))).collect();
            list.filter(|l| !l.is_empty() && count.is_none_or(|n| n == l.len()))
        }
    })
}
