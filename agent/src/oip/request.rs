//! Owns what an inference request of the protocol is, whichever way it came.
//!
//! **Invariant:** a tensor has as many elements as its shape; a parameter that would change the answer
//! or its terms is read or refused, never ignored.

use std::time::Duration;

use holdfast_models::tensor::Elements;
use holdfast_models::{Dtype, Tensor};

use super::refusal::{Refusal, shown};
use super::{dtype, strings};
use crate::request::{DataClass, Priority};

/// Inputs, and outputs asked for, in one request.
pub(super) const MOST_TENSORS: usize = 256;
/// Dimensions of a tensor.
const MOST_DIMS: usize = 16;
/// The longest deadline, as everywhere in the API.
pub(super) const MAX_DEADLINE: Duration = Duration::from_secs(600);

/// An inference request.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Infer {
    /// The caller's own name for it, which comes back with the answer.
    pub(super) id: String,
    pub(super) terms: Terms,
    pub(super) inputs: Vec<(String, Tensor)>,
    /// The outputs that are wanted; all when there are none.
    pub(super) outputs: Vec<Wanted>,
    /// The form of outputs that do not say.
    pub(super) is_binary: bool,
}

/// An output that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) name: String,
    /// Its form, if the caller said.
    pub(super) is_binary: Option<bool>,
}

/// Under which terms it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Terms {
    pub(super) deadline: Option<Duration>,
    pub(super) priority: Option<Priority>,
    pub(super) class: Option<DataClass>,
}

/// A parameter's value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Parameter {
    Bool(bool),
    Whole(i128),
    Real(f64),
    Text(String),
    /// A list, an object or null.
    Other,
}

impl Parameter {
    fn whole(&self, low: i128, high: i128) -> Option<i128> {
        let value = match self {
            Self::Whole(value) => *value,
            Self::Text(text) => text.parse().ok()?,
            _ => return None,
        };
        (low..=high).contains(&value).then_some(value)
    }

    fn text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }
}

/// Takes up the value of one term; what is given twice must say the same.
fn put<T: PartialEq>(place: &mut Option<T>, key: &str, value: T) -> Result<(), Refusal> {
    if place.as_ref().is_some_and(|before| *before != value) {
        return Err(Refusal::bad(format!(
            "parameter {key} says otherwise than another parameter; give it once"
        )));
    }
    *place = Some(value);
    Ok(())
}

impl Infer {
    /// Takes up a parameter of the request as a whole.
    pub(super) fn parameter(&mut self, key: &str, value: &Parameter) -> Result<(), Refusal> {
        let must = |want: &str| Refusal::bad(format!("parameter {key} must be {want}"));
        let terms = &mut self.terms;
        let deadline_us = i128::try_from(MAX_DEADLINE.as_micros()).unwrap_or(i128::MAX);
        let span = |value: i128, unit: fn(u64) -> Duration| u64::try_from(value).map(unit).ok();
        match key {
            "timeout" => {
                let want = "0..=600000000, in microseconds, 0 for none of its own";
                let value = value.whole(0, deadline_us).ok_or_else(|| must(want))?;
                match span(value, Duration::from_micros).filter(|span| !span.is_zero()) {
                    Some(span) => put(&mut terms.deadline, key, span),
                    None => Ok(()),
                }
            }
            "holdfast_deadline_ms" => {
                let value = value.whole(1, deadline_us / 1000).ok_or_else(|| must("1..=600000"))?;
                let span = span(value, Duration::from_millis).unwrap_or(MAX_DEADLINE);
                put(&mut terms.deadline, key, span)
            }
            "priority" => {
                let want = "a whole number: 0 for the usual one, 1 for the most urgent, and so on";
                let value = value.whole(0, i128::from(u64::MAX)).ok_or_else(|| must(want))?;
                match urgency(value) {
                    Some(priority) => put(&mut terms.priority, key, priority),
                    None => Ok(()),
                }
            }
            "holdfast_priority" => {
                let read = value.whole(0, 9).and_then(|value| u8::try_from(value).ok());
                let priority = read.and_then(Priority::new);
                let want = "0..=9, where 9 is the most urgent";
                put(&mut terms.priority, key, priority.ok_or_else(|| must(want))?)
            }
            "holdfast_class" => {
                let class = value.text().and_then(|text| text.parse().ok());
                let want = "one of public, internal, confidential, restricted";
                put(&mut terms.class, key, class.ok_or_else(|| must(want))?)
            }
            "binary_data_output" => {
                self.is_binary = value.boolean().ok_or_else(|| must("true or false"))?;
                Ok(())
            }
            "sequence_id" | "sequence_start" | "sequence_end" => Err(Refusal::bad(format!(
                "parameter {key}: sequences are not kept here; send the state as a tensor"
            ))),
            _ if key.starts_with("holdfast_") => Err(Refusal::bad(format!(
                "parameter {} is not known; known: holdfast_deadline_ms, holdfast_priority, \
                 holdfast_class",
                shown(key)
            ))),
            // By the protocol, those of other servers are passed over.
            _ => Ok(()),
        }
    }
}

/// Triton's priorities count down to 1, the most urgent; 0 is the usual one.
fn urgency(value: i128) -> Option<Priority> {
    if value == 0 {
        return None;
    }
    let steps = u8::try_from((value - 1).min(9)).unwrap_or(9);
    Priority::new(9 - steps)
}

/// A parameter of an input or output that is not offered.
pub(super) fn not_offered(key: &str) -> Result<(), Refusal> {
    if key.starts_with("shared_memory_") {
        return Err(Refusal::bad(format!(
            "parameter {key}: shared memory is not offered; send the data in the request"
        )));
    }
    if key == "classification" {
        return Err(Refusal::bad(
            "parameter classification is not offered; ask for the tensor, or ask the task with \
             POST /v1/tasks/{task}",
        ));
    }
    Ok(())
}

/// The type with this name.
pub(super) fn dtype(text: &str) -> Result<Dtype, Refusal> {
    dtype::parse(text).ok_or_else(|| {
        Refusal::bad(format!("datatype {} must be one of {}", shown(text), dtype::names()))
    })
}

/// The dimensions as sizes, and how many elements they make together.
pub(super) fn shape(dims: &[i64], dtype: Dtype) -> Result<(Vec<usize>, usize), Refusal> {
    if dims.len() > MOST_DIMS {
        let got = dims.len();
        return Err(Refusal::bad(format!("shape has {got} dimensions, at most {MOST_DIMS}")));
    }
    let sizes: Result<Vec<usize>, _> = dims.iter().map(|dim| usize::try_from(*dim)).collect();
    let sizes = sizes.map_err(|_| {
        Refusal::bad(format!(
            "shape {dims:?} has a dimension below 0: give it as it is in the data"
        ))
    })?;
    let count = sizes.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    // What cannot be in memory is not looked at further.
    let count = count.filter(|count| isize::try_from(*count).is_ok());
    let count = count.ok_or_else(|| Refusal::bad(format!("shape {dims:?} is absurdly large")))?;
    if dtype == Dtype::Text && count > strings::MOST {
        let most = strings::MOST;
        return Err(Refusal::bad(format!("shape {dims:?} has more than the {most} texts allowed")));
    }
    Ok((sizes, count))
}

/// A tensor of elements that are as many as the shape says.
pub(super) fn tensor(shape: Vec<usize>, elements: Elements) -> Result<Tensor, Refusal> {
    Tensor::new(shape, elements).map_err(|error| Refusal::bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(parameters: &[(&str, Parameter)]) -> Result<Terms, String> {
        let mut infer = Infer::default();
        for (key, value) in parameters {
            infer.parameter(key, value).map_err(|refusal| refusal.message)?;
        }
        Ok(infer.terms)
    }

    fn number(value: i128) -> Parameter {
        Parameter::Whole(value)
    }

    #[test]
    fn terms_travel_as_parameters() {
        let text = |text: &str| Parameter::Text(text.to_owned());
        let deadline = Some(Duration::from_millis(250));
        for (parameters, want) in [
            (vec![("timeout", number(250_000))], Terms { deadline, ..Terms::default() }),
            (vec![("timeout", number(0))], Terms::default()),
            (vec![("holdfast_deadline_ms", number(250))], Terms { deadline, ..Terms::default() }),
            (
                vec![("holdfast_deadline_ms", text("250")), ("timeout", number(250_000))],
                Terms { deadline, ..Terms::default() },
            ),
            (vec![("priority", number(0))], Terms::default()),
            (
                vec![("priority", number(1))],
                Terms { priority: Priority::new(9), ..Terms::default() },
            ),
            (
                vec![("priority", number(1 << 60))],
                Terms { priority: Priority::new(0), ..Terms::default() },
            ),
            (
                vec![("holdfast_priority", number(7)), ("holdfast_class", text("restricted"))],
                Terms {
                    priority: Priority::new(7),
                    class: Some(DataClass::Restricted),
                    ..Terms::default()
                },
            ),
            (vec![("my_own", Parameter::Other)], Terms::default()),
        ] {
            assert_eq!(terms(&parameters), Ok(want), "{parameters:?}");
        }
    }

    #[test]
    fn a_parameter_that_cannot_be_read_refuses_the_request() {
        for (parameters, want) in [
            (vec![("timeout", number(-1))], "timeout must be 0..=600000000"),
            (vec![("timeout", Parameter::Real(0.5))], "timeout must be"),
            (vec![("holdfast_deadline_ms", number(0))], "1..=600000"),
            (vec![("holdfast_priority", number(10))], "0..=9"),
            (vec![("holdfast_class", Parameter::Text("secret".into()))], "one of public"),
            (vec![("holdfast_clas", Parameter::Text("public".into()))], "not known"),
            (vec![("sequence_id", number(7))], "sequences"),
            (vec![("binary_data_output", number(1))], "true or false"),
            (vec![("timeout", number(1000)), ("holdfast_deadline_ms", number(2))], "otherwise"),
        ] {
            let why = terms(&parameters).unwrap_err();
            assert!(why.contains(want), "{why}");
        }
    }

    #[test]
    fn shapes_are_sizes_that_can_be() {
        assert_eq!(shape(&[2, 0, 3], Dtype::F32), Ok((vec![2, 0, 3], 0)));
        assert_eq!(shape(&[], Dtype::F32), Ok((vec![], 1)));
        for (dims, dtype, want) in [
            (vec![2, -1], Dtype::F32, "below 0"),
            (vec![i64::MAX, i64::MAX], Dtype::F32, "absurdly"),
            (vec![1; 17], Dtype::F32, "at most 16"),
            (vec![1 << 30], Dtype::Text, "texts"),
        ] {
            let why = shape(&dims, dtype).unwrap_err().message;
            assert!(why.contains(want), "{why}");
        }
    }
}
