//! What a benchmark found: rows of numbers with their bars.
//!
//! **Invariant:** a row with a bar is held when its value is on the bar's good side, so not when it could
//! not be measured; a report is held when all of its rows are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// The number; nothing where it could not be measured and a bar says that it should have been.
    pub(crate) value: Option<f64>,
    /// Its unit.
    pub(crate) unit: String,
    /// What it is held to.
    pub(crate) bar: Option<f64>,
    /// The bar is the least it must be, not the most it may be.
    #[serde(default)]
    pub(crate) is_least: bool,
    /// For who looks closer; the README leaves it out.
    pub(crate) detail: bool,
}

/// One benchmark's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The benchmark's name, and its file's.
    pub(crate) name: String,
    /// One line over the table.
    pub(crate) title: String,
    /// The processor, its cores, and whether this was a release build.
    pub(crate) machine: String,
    /// The day, or nothing.
    pub(crate) date: String,
    /// The numbers, in the order of measuring.
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// An empty report.
    pub(crate) fn new(name: &str, title: &str) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            machine: String::new(),
            date: String::new(),
            rows: Vec::new(),
        }
    }

    /// The same on a day, on this machine, of a profile of the build.
    pub(crate) fn on(mut self, date: &str, build: &str) -> Self {
        self.date = date.to_owned();
        self.machine = machine(build);
        self
    }

    /// Adds a number without a bar.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        value: impl Into<Option<f64>>,
        unit: &str,
    ) {
        self.push(what.into(), value.into(), unit, None, false, false);
    }

    /// Adds a number for who looks closer.
    pub(crate) fn detail(
        &mut self,
        what: impl Into<String>,
        value: impl Into<Option<f64>>,
        unit: &str,
    ) {
        self.push(what.into(), value.into(), unit, None, false, true);
    }

    /// Adds a number that must not be over its bar.
    pub(crate) fn at_most(
        &mut self,
        what: impl Into<String>,
        value: impl Into<Option<f64>>,
        unit: &str,
        bar: f64,
    ) {
        self.push(what.into(), value.into(), unit, Some(bar), false, false);
    }

    /// Adds a number that must not be under its bar.
    pub(crate) fn at_least(
        &mut self,
        what: impl Into<String>,
        value: impl Into<Option<f64>>,
        unit: &str,
        bar: f64,
    ) {
        self.push(what.into(), value.into(), unit, Some(bar), true, false);
    }

    fn push(
        &mut self,
        what: String,
        value: Option<f64>,
        unit: &str,
        bar: Option<f64>,
        is_least: bool,
        detail: bool,
    ) {
        // What nobody insists on has no row where it was not measured.
        if value.is_none() && bar.is_none() {
            return;
        }
        self.rows.push(Row { what, value, unit: unit.to_owned(), bar, is_least, detail });
    }

    /// Whether no bar was missed.
    pub(crate) fn holds(&self) -> bool {
        self.rows.iter().all(Row::holds)
    }

    /// The table for a terminal.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["", "measured", "bar", "of the bar"]);
        for row in &self.rows {
            table.add_row([row.what.clone(), row.measured(), row.bar(), row.share()]);
        }
        for column in 1..4 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{}\n{}\n{table}", self.title, self.machine)
    }

    /// Writes `NAME.json` into the folder.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let path = folder.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self)?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Reads what `write` wrote.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no result", path.display()))
    }
}

impl Row {
    fn holds(&self) -> bool {
        let Some(bar) = self.bar else { return true };
        self.value.is_some_and(|value| if self.is_least { value >= bar } else { value <= bar })
    }

    /// The number with its unit, to three digits or so.
    pub(crate) fn measured(&self) -> String {
        let Some(value) = self.value else { return "not measured".to_owned() };
        format!("{} {}", digits(value), self.unit).trim_end().to_owned()
    }

    /// The bar with its unit, or nothing.
    pub(crate) fn bar(&self) -> String {
        let side = if self.is_least { "≥ " } else { "≤ " };
        self.bar.map(|bar| format!("{side}{} {}", digits(bar), self.unit)).unwrap_or_default()
    }

    /// How much of the bar is used, and whether that is too much.
    pub(crate) fn share(&self) -> String {
        let Some(bar) = self.bar.filter(|bar| *bar > 0.0) else { return String::new() };
        let Some(value) = self.value else { return "missed".to_owned() };
        let missed = if self.holds() { "" } else { " missed" };
        format!("{:.0} %{missed}", 100.0 * value / bar)
    }
}

fn digits(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => format!("{:.1}k", value / 1000.0),
        v if v >= 100.0 || v.fract() == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The value below which this share of all lies; of nothing, zero.
pub(crate) fn quantile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index between 0 and the last one"
    )]
    let at = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The processor as the kernel names it, and what kind of build was measured.
pub(crate) fn machine(build: &str) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find(|line| line.starts_with("model name"));
    let name = named.and_then(|line| line.split_once(':')).map_or("", |(_, name)| name.trim());
    let name = if name.is_empty() { std::env::consts::ARCH } else { name };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let build = match build {
        "release" => "release build",
        "quick" => "release build without link-time optimisation",
        _ => "NOT a release build",
    };
    format!("{name}, {cores} cores, {build}")
}

/// The text with what stands between the markers replaced; `None` without them.
pub(crate) fn placed(text: &str, (begin, end): (&str, &str), table: &str) -> Option<String> {
    let (before, rest) = text.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{table}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_changes() {
        let placed = |text: &str| placed(text, ("<b>", "<e>"), "new");
        assert_eq!(placed("a\n<b>\nold\n<e>\nb\n").unwrap(), "a\n<b>\nnew\n<e>\nb\n");
        assert_eq!((placed("a"), placed("<b>")), (None, None));
    }

    #[test]
    fn a_bar_is_held_up_to_its_value() {
        let mut report = Report::new("x", "X");
        report.at_most("a", 15.0, "ms", 15.0);
        report.add("b", 1e9, "B");
        assert!(report.holds());
        report.at_least("d", 0.7, "x", 0.7);
        assert!(report.holds());
        let mut under = report.clone();
        under.at_least("e", 0.69, "x", 0.7);
        assert!(!under.holds());
        report.at_most("c", 15.01, "ms", 15.0);
        assert!(!report.holds());
        let table = report.table();
        assert!(table.contains("100 %") && table.contains("missed"), "{table}");
    }

    #[test]
    fn a_bar_is_missed_by_what_could_not_be_measured() {
        let mut report = Report::new("x", "X");
        report.add("of no bar", None, "ms");
        assert!(report.holds() && report.rows.is_empty());
        report.at_most("of a bar", None, "ms", 15.0);
        assert!(!report.holds());
        assert!(report.table().contains("not measured"), "{}", report.table());
    }

    #[test]
    fn results_read_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::new("x", "X").on("2026-01-01", "release");
        report.at_most("a", 1.25, "ms", 15.0);
        let path = report.write(folder.path()).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
    }

    #[test]
    fn quantiles_are_of_the_sorted_values() {
        let times: Vec<Duration> = [5, 1, 3, 2, 4].map(Duration::from_millis).into();
        assert_eq!(quantile(&times, 0.5), Duration::from_millis(3));
        assert_eq!(quantile(&times, 1.0), Duration::from_millis(5));
        assert_eq!(quantile(&[], 0.5), Duration::ZERO);
    }
}
