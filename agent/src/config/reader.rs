//! Owns the reading of raw TOML into checked values.
//!
//! **Invariant:** reading never stops at the first fault; every key is taken once, and a key that
//! nobody took is a fault.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use toml::{Table, Value};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key's full path, such as `api.listen`.
    pub key: String,
    /// What is wrong, and what it must be.
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

/// Where faults are gathered.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub(super) fn add(&self, key: String, what: String) {
        self.0.borrow_mut().push(Fault { key, what });
    }

    pub(super) fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// One table of the configuration, being read.
pub(super) struct Section<'a> {
    path: String,
    table: Table,
    known: Vec<&'static str>,
    faults: &'a Faults,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: Table, faults: &'a Faults) -> Self {
        Self { path: String::new(), table, known: Vec::new(), faults }
    }

    /// The full path of a key in this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn fault(&self, key: &str, what: impl Into<String>) {
        self.faults.add(self.path_of(key), what.into());
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// A table in this one; empty when it is not there.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        self.optional_section(key).unwrap_or_else(|| self.child(self.path_of(key), Table::new()))
    }

    /// A table in this one, if it is there.
    pub(super) fn optional_section(&mut self, key: &'static str) -> Option<Section<'a>> {
        match self.take(key)? {
            Value::Table(table) => Some(self.child(self.path_of(key), table)),
            other => {
                self.fault(key, format!("is {}, must be a table", describe(&other)));
                None
            }
        }
    }

    /// A list of tables, `[[key]]`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let rows = match self.take(key) {
            None => return Vec::new(),
            Some(Value::Array(rows)) => rows,
            Some(other) => {
                self.fault(key, format!("is {}, must be a list of tables", describe(&other)));
                return Vec::new();
            }
        };
        let mut sections = Vec::new();
        for (at, row) in rows.into_iter().enumerate() {
            let path = format!("{}[{at}]", self.path_of(key));
            match row {
                Value::Table(table) => sections.push(self.child(path, table)),
                other => self.faults.add(path, format!("is {}, must be a table", describe(&other))),
            }
        }
        sections
    }

    /// The tables in a table in this one, by their names.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(String, Section<'a>)> {
        let Some(outer) = self.optional_section(key) else { return Vec::new() };
        let mut tables = Vec::new();
        for (name, value) in outer.table {
            let path = format!("{}.{name}", outer.path);
            match value {
                Value::Table(table) => tables.push((name, self.child(path, table))),
                other => self.faults.add(path, format!("is {}, must be a table", describe(&other))),
            }
        }
        tables
    }

    /// The texts in a table in this one, by their names.
    pub(super) fn text_table(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let Some(outer) = self.optional_section(key) else { return BTreeMap::new() };
        let mut texts = BTreeMap::new();
        for (name, value) in outer.table {
            match value {
                Value::String(text) => drop(texts.insert(name, text)),
                other => {
                    let path = format!("{}.{name}", outer.path);
                    self.faults.add(path, format!("is {}, must be a text", describe(&other)));
                }
            }
        }
        texts
    }

    /// The numbers in a table in this one, by their names.
    pub(super) fn integer_table(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u32>,
    ) -> BTreeMap<String, u32> {
        let Some(outer) = self.optional_section(key) else { return BTreeMap::new() };
        let mut numbers = BTreeMap::new();
        for (name, value) in outer.table {
            let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
            match number.filter(|number| allowed.contains(number)) {
                Some(number) => drop(numbers.insert(name, number)),
                None => {
                    let (low, high) = (allowed.start(), allowed.end());
                    let what = format!("is {}, must be {low}..={high}", describe(&value));
                    self.faults.add(format!("{}.{name}", outer.path), what);
                }
            }
        }
        numbers
    }

    fn child(&self, path: String, table: Table) -> Section<'a> {
        Section { path, table, known: Vec::new(), faults: self.faults }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => {
                self.fault(key, format!("is {}, must be a text", describe(&other)));
                None
            }
        }
    }

    pub(super) fn required_text(&mut self, key: &'static str, example: &str) -> Option<String> {
        if !self.table.contains_key(key) {
            self.known.push(key);
            self.fault(key, format!("is missing, must be given, such as \"{example}\""));
            return None;
        }
        self.text(key)
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let Value::Array(items) = self.take(key)? else {
            self.fault(key, "must be a list of texts");
            return None;
        };
        let texts: Option<Vec<_>> =
            items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        if texts.is_none() {
            self.fault(key, "must be a list of texts");
        }
        texts
    }

    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Boolean(value)) => value,
            Some(other) => {
                self.fault(key, format!("is {}, must be true or false", describe(&other)));
                default
            }
        }
    }

    pub(super) fn integer(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
        default: u64,
    ) -> u64 {
        self.optional_integer(key, allowed).unwrap_or(default)
    }

    /// A number that need not be there.
    pub(super) fn optional_integer(
        &mut self,
        key: &'static str,
        allowed: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = self.take(key)?;
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
        let number = number.filter(|number| allowed.contains(number));
        if number.is_none() {
            let (low, high) = (allowed.start(), allowed.end());
            self.fault(key, format!("is {}, must be {low}..={high}", describe(&value)));
        }
        number
    }

    /// A value written as text, read by `parse`; `want` says what it must be.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        want: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(&text);
        if value.is_none() {
            self.fault(key, format!("is \"{text}\", must be {want}"));
        }
        value
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let known = self.known.join(", ");
            self.faults.add(self.path_of(key), format!("is not known; known here: {known}"));
        }
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}

/// A checked size that fits the machine's word.
pub(super) fn bytes(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
