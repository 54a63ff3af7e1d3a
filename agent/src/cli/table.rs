//! Owns how tables look in the terminal.
//!
//! **Invariant:** a table has no borders, so that it can be cut with the usual tools.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

/// An empty table with a header line.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table
}

/// The lines of `table`, without spaces at their ends.
pub(super) fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}
