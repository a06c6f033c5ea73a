//! The incident on one sheet: memory above, light queries below.

use crate::Result;
use crate::incident::Run;
use plotters::prelude::*;
use std::path::Path;

const COLOURS: [RGBColor; 4] =
    [RGBColor(200, 50, 50), RGBColor(220, 150, 20), RGBColor(30, 110, 190), RGBColor(90, 60, 150)];
/// Where failures are drawn, above all latencies (10 s at most, by the timeout of the clients).
const FAILED_MS: f64 = 30_000.0;
const GIB: f64 = (1_u64 << 30) as f64;

/// Draws the runs, each in its colour.
pub(crate) fn draw(path: &Path, runs: &[Run], limit: u64) -> Result<()> {
    let end = runs.iter().flat_map(|run| run.light.iter().map(|s| s.at)).fold(1.0, f64::max);
    let burst = runs.first().map_or(0.0, |run| run.burst.0);
    let sheet = SVGBackend::new(path, (1000, 760)).into_drawing_area();
    sheet.fill(&WHITE)?;
    let (above, below) = sheet.split_vertically(380);

    let top = limit as f64 / GIB;
    let mut memory = ChartBuilder::on(&above)
        .caption("Resident memory of Prometheus, GiB: 20 heavy queries at the grey line", ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..top * 1.15)?;
    memory.configure_mesh().x_desc("seconds").light_line_style(TRANSPARENT).draw()?;
    memory
        .draw_series(LineSeries::new([(0.0, top), (end, top)], BLACK))?
        .label("limit: killed above it")
        .legend(key(BLACK));
    memory.draw_series(LineSeries::new([(burst, 0.0), (burst, top * 1.15)], RGBColor(150, 150, 150)))?;
    for (run, colour) in runs.iter().zip(COLOURS) {
        let points = run.rss.iter().step_by(5).map(|&(at, bytes)| (at, bytes as f64 / GIB));
        memory
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name(run))
            .legend(key(colour));
        if let (Some(at), Some(&(_, bytes))) = (run.died, run.rss.last()) {
            memory.draw_series([Cross::new((at, bytes as f64 / GIB), 7, colour.stroke_width(3))])?;
        }
    }
    memory.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;

    let mut light = ChartBuilder::on(&below)
        .caption(
            "Light queries of other tenants, ms: a dot each; failures on the top line",
            ("sans-serif", 17),
        )
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, (0.5..FAILED_MS * 1.5).log_scale())?;
    light.configure_mesh().x_desc("seconds").light_line_style(TRANSPARENT).draw()?;
    for (run, colour) in runs.iter().zip(COLOURS) {
        let dots = run.light.iter().map(|s| (s.at, if s.status == 200 { s.ms } else { FAILED_MS }));
        light.draw_series(dots.map(|dot| Circle::new(dot, 2, colour.mix(0.6).filled())))?;
    }
    sheet.present()?;
    Ok(())
}

fn name(run: &Run) -> String {
    match run.guard.as_str() {
        "none" => "no guard".to_owned(),
        "weir" => "Weir".to_owned(),
        cap => format!("{cap}, 4 at once"),
    }
}

/// A short line beside the name.
fn key(colour: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
}
