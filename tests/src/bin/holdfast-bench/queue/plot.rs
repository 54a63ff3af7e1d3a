//! Memory by how many requests are held, as a picture.
//!
//! **Invariant:** every point was measured in this run, each in a process of its own.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

/// Where it is written, beside the results.
pub(crate) const FILE: &str = "queue-memory.svg";

/// One line: what is held, and memory in MiB by how many of it.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(u64, f64)>,
}

/// Draws the lines over a logarithmic axis of counts, with the bar of the larger one.
pub(super) fn draw(path: &Path, lines: &[Line]) -> anyhow::Result<()> {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let counts = points().map(|(count, _)| count);
    let (least, most) = (counts.clone().min().unwrap_or(1), counts.max().unwrap_or(1));
    let top = points().map(|(_, mib)| mib).fold(0.0, f64::max) * 1.1;
    let area = SVGBackend::new(path, (720, 360)).into_drawing_area();
    // The library's errors borrow what it draws into.
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption("Memory of a process that holds requests", ("sans-serif", 18))
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((least.max(1)..most).log_scale(), 0.0..top)
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc("requests held")
        .y_desc("MiB, at most")
        .draw()
        .map_err(|error| failed(&error))?;
    for (line, colour) in lines.iter().zip([BLUE, RED, BLACK].into_iter().cycle()) {
        let dots = line.points.iter().map(|at| Circle::new(*at, 3, colour.filled()));
        chart.draw_series(dots).map_err(|error| failed(&error))?;
        chart
            .draw_series(LineSeries::new(line.points.iter().copied(), colour))
            .map_err(|error| failed(&error))?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK)
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let line = |name, mib| Line { name, points: vec![(10, mib), (1000, 2.0 * mib)] };
        draw(&path, &[line("of 1 KiB", 20.0), line("of 100 KiB", 22.0)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for part in ["<svg", "of 1 KiB", "of 100 KiB", "requests held"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("<circle").count(), 4);
    }
}
