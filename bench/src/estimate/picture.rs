//! Estimated series over counted ones, a dot for each query.

use super::{Mode, Report};
use crate::Result;
use plotters::prelude::*;
use std::path::Path;

const INKS: [(&str, RGBColor); 5] = [
    ("exact", RGBColor(30, 110, 190)),
    ("upper_bound", RGBColor(40, 150, 70)),
    ("learned", RGBColor(130, 80, 170)),
    ("assumed", RGBColor(230, 140, 30)),
    ("at_least", RGBColor(200, 50, 50)),
];
const SIZE: (u32, u32) = (420, 360);
/// Nothing is drawn at a half, and the unknown at the top.
const RANGE: std::ops::Range<f64> = 0.4..60_000.0;

pub(super) fn draw(path: &Path, report: &Report) -> Result<()> {
    let modes = [Mode::InDoubt, Mode::First, Mode::Again];
    let sheet = SVGBackend::new(path, (SIZE.0 * modes.len() as u32, SIZE.1)).into_drawing_area();
    sheet.fill(&WHITE)?;
    for (area, mode) in sheet.split_evenly((1, modes.len())).iter().zip(modes) {
        let mut chart = ChartBuilder::on(area)
            .caption(format!("{}: {}", report.target.name(), mode.name()), ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(RANGE.log_scale(), RANGE.log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("series counted")
            .y_desc("series estimated")
            .draw()?;
        chart.draw_series(LineSeries::new([(RANGE.start, RANGE.start), (RANGE.end, RANGE.end)], BLACK))?;
        for (class, ink) in INKS {
            let seen = report.seen.iter().filter(|s| s.mode == mode && s.class == class);
            let dots: Vec<(f64, f64)> = seen
                .map(|s| {
                    let [estimate, truth] = s.series.map(|n| (n as f64).clamp(0.5, RANGE.end * 0.9));
                    (truth, estimate)
                })
                .collect();
            if dots.is_empty() {
                continue;
            }
            chart
                .draw_series(dots.into_iter().map(|dot| Circle::new(dot, 3, ink.filled())))?
                .label(class)
                .legend(move |(x, y)| Circle::new((x + 8, y), 4, ink.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE)
            .border_style(BLACK)
            .draw()?;
    }
    sheet.present()?;
    Ok(())
}
