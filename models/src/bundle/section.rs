//! Reads one table of `bundle.toml`, key by key, and collects every fault on the way.
//!
//! **Invariant:** a key that no one asked for is a fault; reading never stops at the first fault.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use toml::{Table, Value};

use super::fault::{Fault, Problem};

/// The faults of a whole file, shared by its sections.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, key: impl Into<String>, problem: Problem) {
        self.0.borrow_mut().push(Fault { key: key.into(), problem });
    }

    pub(super) fn invalid(&self, key: impl Into<String>, value: String, allowed: &str) {
        self.add(key, Problem::Invalid { value, allowed: allowed.to_owned() });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// One table under reading.
pub(super) struct Section<'a> {
    table: &'a Table,
    path: String,
    asked: RefCell<BTreeSet<String>>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    pub(super) fn new(table: &'a Table, path: impl Into<String>, faults: &'a Faults) -> Self {
        Self { table, path: path.into(), asked: RefCell::default(), faults }
    }

    /// The full path of `key`.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(key.to_owned());
        self.table.get(key)
    }

    fn missing<T>(&self, key: &str, allowed: &str) -> Option<T> {
        self.faults.add(self.key(key), Problem::Missing(allowed.to_owned()));
        None
    }

    pub(super) fn invalid<T>(&self, key: &str, value: impl ToString, allowed: &str) -> Option<T> {
        self.faults.invalid(self.key(key), value.to_string(), allowed);
        None
    }

    /// The fault of a bundle whose inputs are not what this table needs.
    pub(super) fn missing_input(&self, allowed: &str) {
        self.faults.add("input", Problem::Missing(allowed.to_owned()));
    }

    /// Reads a needed value with `read`, which gives nothing for a value that is not allowed.
    pub(super) fn need<T>(
        &self,
        key: &str,
        allowed: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        match self.get(key) {
            None => self.missing(key, allowed),
            Some(value) => read(value).or_else(|| self.invalid(key, shown(value), allowed)),
        }
    }

    /// Like `need`, with a value for when the key is absent.
    pub(super) fn or<T>(
        &self,
        key: &str,
        default: T,
        allowed: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        if self.has(key) { self.need(key, allowed, read) } else { Some(default) }
    }

    /// A text of 1 to `max` bytes.
    pub(super) fn text(&self, key: &str, max: usize) -> Option<String> {
        let allowed = format!("a text of 1 to {max} bytes");
        self.need(key, &allowed, |v| {
            v.as_str().filter(|s| !s.is_empty() && s.len() <= max).map(str::to_owned)
        })
    }

    pub(super) fn whole(&self, key: &str, range: RangeInclusive<usize>) -> Option<usize> {
        let allowed = format!("a whole number {}..={}", range.start(), range.end());
        self.need(key, &allowed, |v| whole(v).filter(|n| range.contains(n)))
    }

    pub(super) fn number(&self, key: &str, range: RangeInclusive<f32>) -> Option<f32> {
        let allowed = format!("a number {}..={}", range.start(), range.end());
        self.need(key, &allowed, |v| number(v).filter(|n| range.contains(n)))
    }

    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        self.need(key, &names.join(" or "), |v| {
            let text = v.as_str()?;
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        })
    }

    /// A needed list of 1 to `max` texts, none empty.
    pub(super) fn texts(&self, key: &str, max: usize) -> Option<Vec<String>> {
        let allowed = format!("a list of 1 to {max} texts, none empty");
        self.need(key, &allowed, |v| {
            let list = v.as_array().filter(|l| !l.is_empty() && l.len() <= max)?;
            list.iter().map(|v| v.as_str().filter(|s| !s.is_empty()).map(str::to_owned)).collect()
        })
    }

    /// The table at `key`, if it is there and is one.
    pub(super) fn child(&self, key: &str) -> Option<Section<'a>> {
        match self.get(key)? {
            Value::Table(table) => Some(Section::new(table, self.key(key), self.faults)),
            other => self.invalid(key, shown(other), "a table"),
        }
    }

    /// The tables of the list at `key`; `count` is how many there may be.
    pub(super) fn children(&self, key: &str, count: RangeInclusive<usize>) -> Vec<Section<'a>> {
        let allowed = format!("{} to {} tables [[{key}]]", count.start(), count.end());
        let Some(value) = self.get(key) else {
            if !count.contains(&0) {
                self.faults.add(self.key(key), Problem::Missing(allowed));
            }
            return Vec::new();
        };
        let tables: Option<Vec<&Table>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_table).collect());
        match tables {
            Some(tables) if count.contains(&tables.len()) => {
                let section = |(i, table)| {
                    Section::new(table, format!("{}[{i}]", self.key(key)), self.faults)
                };
                tables.into_iter().enumerate().map(section).collect()
            }
            Some(tables) => {
                self.faults.invalid(self.key(key), format!("{} tables", tables.len()), &allowed);
                Vec::new()
            }
            None => {
                self.faults.invalid(self.key(key), shown(value), &allowed);
                Vec::new()
            }
        }
    }

    /// Reports the keys that no one asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.table.keys().filter(|key| !asked.contains(*key)) {
            self.faults.add(self.key(key), Problem::Unknown);
        }
    }
}

/// A value as it is shown in a fault, cut to a line's length.
fn shown(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 80 {
        let cut = (0..=80).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(cut);
        text.push_str("...");
    }
    text
}

/// A whole number that is not negative.
pub(super) fn whole(value: &Value) -> Option<usize> {
    value.as_integer().and_then(|n| usize::try_from(n).ok())
}

/// A finite number; whole numbers count.
#[allow(clippy::cast_possible_truncation, reason = "a number in a bundle is used as f32")]
pub(super) fn number(value: &Value) -> Option<f32> {
    let number = match value {
        Value::Float(x) => *x as f32,
        Value::Integer(n) => *n as f32,
        _ => return None,
    };
    number.is_finite().then_some(number)
}
