//! The README's table of measurements, between its two markers.
//!
//! **Invariant:** text outside the markers is never changed.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::queue::plot;
use crate::report::{self, Report};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// Reads every result in the folder and writes the table into the file; plots go beside it, into `tests`.
pub(crate) fn refresh(file: &Path, results: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let entries = std::fs::read_dir(results)
        .with_context(|| format!("no results in {}: run a benchmark first", results.display()))?;
    let mut paths: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .collect();
    paths.sort();
    let reports = paths.iter().map(|path| Report::read(path)).collect::<Result<Vec<_>, _>>()?;
    ensure!(!reports.is_empty(), "no results in {}: run a benchmark first", results.display());
    let fresh = report::placed(&text, (BEGIN, END), &markdown(&reports))
        .with_context(|| format!("{} has not both of {BEGIN} and {END}", file.display()))?;
    std::fs::write(file, fresh).with_context(|| format!("cannot write {}", file.display()))?;
    let (plot, plots) = (results.join(plot::FILE), file.with_file_name("tests"));
    if plot.exists() && plots.is_dir() {
        let to = plots.join(plot::FILE);
        std::fs::copy(&plot, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    println!("{} holds {} results", file.display(), reports.len());
    Ok(())
}

fn markdown(reports: &[Report]) -> String {
    let mut out = String::new();
    let mut machine = "";
    for report in reports {
        if report.machine != machine || report.date.is_empty() {
            machine = &report.machine;
            let day = if report.date.is_empty() { "" } else { ", " };
            line(&mut out, &format!("\n{machine}{day}{}.\n", report.date));
            line(&mut out, "| | measured | bar | of the bar |\n|---|---:|---:|---:|");
        }
        line(&mut out, &format!("| **{}** | | | |", report.title));
        for row in report.rows.iter().filter(|row| !row.detail) {
            let cells =
                [&row.what, &row.measured(), &row.bar(), &row.share()].map(|c| c.replace('|', "/"));
            line(&mut out, &format!("| {} |", cells.join(" | ")));
        }
    }
    out.trim_end().to_owned()
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a String takes every text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_one_machine_share_a_table() {
        let mut one = Report::new("a", "First").on("2026-01-01", "release");
        one.at_most("speed", 5.0, "ms", 10.0);
        let two = Report { title: "Second".into(), ..one.clone() };
        let table = markdown(&[one, two]);
        assert_eq!(table.matches("|---|").count(), 1, "{table}");
        assert!(table.contains("| speed | 5 ms | ≤ 10 ms | 50 % |"), "{table}");
    }
}
